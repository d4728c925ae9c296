"""Who reaches whom in the cluster: the policies, applied to the pods that there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

KUBERNETES = Path(__file__).parents[2] / "infra" / "kubernetes"
NAME, RAY, NODE = "app.kubernetes.io/name", "ray.io/cluster", "ray.io/node-type"
#: The pods by what they are called here, with the labels that policies see.
PODS = {
    "prefect": {NAME: "prefect"},
    "mlflow": {NAME: "mlflow"},
    "worker": {NAME: "worker"},
    "flow-run": {NAME: "flow-run"},
    # The operator's own labels.
    "ray-head": {NAME: "kuberay", RAY: "lori", NODE: "head"},
    "ray-worker": {NAME: "kuberay", RAY: "lori", NODE: "worker"},
    "a stranger": {NAME: "something-else"},
}
PORTS = {"prefect": 4200, "mlflow": 5000, "ray-head": 6379, "ray-worker": 10002}
#: Pods and those they may open a connection to, on its port.
REACHES = {
    "prefect": set(),
    "mlflow": set(),
    "worker": {"prefect", "mlflow"},
    "flow-run": {"prefect", "mlflow", "ray-head", "ray-worker"},
    "ray-head": {"prefect", "mlflow", "ray-head", "ray-worker"},
    "ray-worker": {"prefect", "mlflow", "ray-head", "ray-worker"},
    "a stranger": set(),
}
#: Blocks of addresses outside, by pod: the database, the store, the Kubernetes API.
DATABASE, STORE, API = "192.0.2.10/32", "192.0.2.20/32", "192.0.2.30/32"
OUTSIDE = {
    "prefect": {DATABASE},
    "mlflow": {DATABASE, STORE},
    "worker": {STORE, API},
    "flow-run": {STORE},
    "ray-head": {STORE, API},
    "ray-worker": {STORE},
    "a stranger": set(),
}


def policies(*files: str) -> list[dict[str, Any]]:
    found = (each for file in files for each in YAML(typ="safe").load_all(KUBERNETES / file))
    return [each["spec"] for each in found]


BASE = policies("base/network.yaml", "base/outside.yaml")
HUB = policies("hub/network.yaml")


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    expressions = selector.get("matchExpressions", [])
    assert all(each["operator"] == "In" for each in expressions)
    return wanted and all(labels.get(each["key"]) in each["values"] for each in expressions)


def opens(rule: dict[str, Any], side: str, labels: dict[str, str], port: int) -> bool:
    """Whether one rule lets pods of this namespace with some labels through, on a port."""
    if "ports" in rule and port not in [each["port"] for each in rule["ports"]]:
        return False
    peers = rule[side]
    return any(
        "namespaceSelector" not in peer and selects(peer["podSelector"], labels)
        for peer in peers
        if "podSelector" in peer
    )


def reaches(source: str, target: str, port: int) -> bool:
    """Whether a connection leaves the source and enters the target, as Kubernetes decides it."""
    ways = (
        ("Egress", "egress", "to", source, target),
        ("Ingress", "ingress", "from", target, source),
    )
    for kind, key, side, own, other in ways:
        applied = [
            spec
            for spec in BASE
            if kind in spec["policyTypes"] and selects(spec["podSelector"], PODS[own])
        ]
        assert applied, f"{own}: no policy denies {kind}"
        rules = [rule for spec in applied for rule in spec.get(key, [])]
        if not any(opens(rule, side, PODS[other], port) for rule in rules):
            return False
    return True


@pytest.mark.parametrize("source", PODS)
def test_each_pod_reaches_what_it_needs_and_nothing_else(source: str) -> None:
    assert {name for name, port in PORTS.items() if reaches(source, name, port)} == REACHES[source]
    assert not any(reaches(source, name, 22) for name in ("prefect", "mlflow", "worker"))


def blocks(specs: list[dict[str, Any]], labels: dict[str, str]) -> set[str]:
    return {
        peer["ipBlock"]["cidr"]
        for spec in specs
        if selects(spec["podSelector"], labels)
        for rule in spec.get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer
    }


@pytest.mark.parametrize("name", PODS)
def test_outside_only_named_addresses_are_reached(name: str) -> None:
    assert blocks(BASE, PODS[name]) == OUTSIDE[name]
    runs_stages = name in ("worker", "flow-run", "ray-head", "ray-worker")
    assert blocks(HUB, PODS[name]) == ({"0.0.0.0/0"} if runs_stages else set())


def test_every_rule_names_whom_it_lets_through() -> None:
    for spec in BASE + HUB:
        for key, side in (("egress", "to"), ("ingress", "from")):
            for rule in spec.get(key, []):
                assert rule[side]
                assert all(peer for peer in rule[side])


def test_the_hub_is_neither_this_cluster_nor_its_nodes() -> None:
    for spec in HUB:
        (rule,) = spec["egress"]
        assert [port["port"] for port in rule["ports"]] == [443]
        assert {"10.0.0.0/8", "169.254.0.0/16"} <= set(rule["to"][0]["ipBlock"]["except"])


def test_the_policies_know_every_pod_there_is() -> None:
    names = set()
    for path in (KUBERNETES / "base").glob("*.yaml"):
        for document in YAML(typ="safe").load_all(path):
            if document["kind"] == "Deployment":
                names.add(document["spec"]["template"]["metadata"]["labels"][NAME])
    job = json.loads((KUBERNETES / "base" / "base-job-template.json").read_text())
    template = job["job_configuration"]["job_manifest"]["spec"]["template"]
    names.add(template["metadata"]["labels"][NAME])
    cluster = YAML(typ="safe").load(KUBERNETES / "ray" / "cluster.yaml")
    assert names == {"prefect", "mlflow", "worker", "flow-run"}
    assert cluster["metadata"]["name"] == "lori"
