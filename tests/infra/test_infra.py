"""Every image, compose file, manifest and template of `infra/`, against published schemas."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
KUBERNETES = INFRA / "kubernetes"
VERSION = kubernetes_validate.latest_version()
MANIFESTS = sorted(
    path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml"
    and path.parent != KUBERNETES
)  # fmt: skip


def documents(path: Path) -> Iterator[dict[str, Any]]:
    yield from YAML(typ="safe").load_all(path)


def pods(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the pod templates in a manifest."""
    spec = document.get("spec", {})
    groups = [spec, spec.get("headGroupSpec", {}), *spec.get("workerGroupSpecs", [])]
    yield from (group["template"] for group in groups if "template" in group)


def check(document: dict[str, Any]) -> None:
    """Validate one Kubernetes object; unknown keys are errors."""
    if document["kind"] == "RayCluster":
        schema = json.loads((Path(__file__).parent / "raycluster.schema.json").read_text())
        jsonschema.validate(document, schema)
        for template in pods(document):
            metadata = {"name": "x", **template["metadata"]}
            check({"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata})
        return
    kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_valid(path: Path) -> None:
    for document in documents(path):
        check(document)


def test_a_misspelt_key_is_found() -> None:
    (_, *_, deployment) = documents(KUBERNETES / "base" / "worker.yaml")
    deployment["spec"]["template"]["spec"]["contaners"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        check(deployment)


def test_kustomizations_name_what_there_is() -> None:
    for path in KUBERNETES.rglob("kustomization.yaml"):
        (document,) = documents(path)
        for name in document["resources"]:
            target = path.parent / name
            assert target.is_file() or (target / "kustomization.yaml").is_file(), name
        files = [
            f for made in document.get("configMapGenerator", []) for f in made.get("files", [])
        ]
        assert all((path.parent / name).is_file() for name in files)
        listed = {path.parent / name for name in (*document["resources"], *files)}
        assert {p for p in path.parent.iterdir() if p != path} <= listed


def test_config_maps_keep_the_names_that_kustomize_does_not_rewrite() -> None:
    # It knows where a Deployment names one; a RayCluster and the jobs' template are strange to it.
    (document,) = documents(KUBERNETES / "base" / "kustomization.yaml")
    kept = {
        made["name"]
        for made in document["configMapGenerator"]
        if made.get("options", {}).get("disableNameSuffixHash")
    }
    (cluster,) = documents(KUBERNETES / "ray" / "cluster.yaml")
    named = {
        source["configMapRef"]["name"]
        for template in pods(cluster)
        for container in template["spec"]["containers"]
        for source in container["envFrom"]
        if "configMapRef" in source
    }
    (container,) = job()["spec"]["template"]["spec"]["containers"]
    assert named | {container["envFrom"][0]["configMapRef"]["name"]} == kept


#: The only pod whose containers may speak with the Kubernetes API: it starts the jobs.
WITH_TOKEN = "worker.yaml"
CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def check_confined(spec: dict[str, Any], where: str) -> None:
    """Check that a pod is an ordinary user's, without rights, with bounds on what it takes."""
    security = spec["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 1000), where
    assert security["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost"), where
    assert spec["automountServiceAccountToken"] is (where == WITH_TOKEN), where
    for container in spec["containers"]:
        assert container["securityContext"] == CONFINED, where
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"]), where
        assert "memory" in resources["limits"], where


def test_pods_are_confined_and_secrets_are_referred_to() -> None:
    seen = 0
    for path in MANIFESTS:
        text = path.read_text()
        assert not re.search(r"^kind: Secret$", text, re.MULTILINE), path
        for template in (t for document in documents(path) for t in pods(document)):
            spec = template["spec"]
            check_confined(spec, path.name)
            for container in spec["containers"]:
                for entry in container.get("env", []):
                    secret = re.search("PASSWORD|SECRET|AUTH|DATABASE|ACCESS", entry["name"])
                    assert not secret or "secretKeyRef" in entry["valueFrom"], entry["name"]
                seen += 1
    assert seen == 5


def job(**values: Any) -> dict[str, Any]:
    """Return the job that Prefect's worker makes of the pool's template for a flow run."""
    from uuid import uuid4

    from prefect.client.schemas.objects import FlowRun
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    template = json.loads((KUBERNETES / "base" / "base-job-template.json").read_text())
    run = FlowRun(id=uuid4(), flow_id=uuid4(), name="a-run")
    # Nobody is asked: the address only keeps Prefect from starting a server of its own.
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        configuration = asyncio.run(
            KubernetesWorkerJobConfiguration.from_template_and_values(template, values)
        )
    configuration.prepare_for_flow_run(run)
    manifest: dict[str, Any] = configuration.job_manifest
    return manifest


def test_a_flow_run_is_a_valid_job_with_one_gpu() -> None:
    manifest = job()
    manifest["metadata"]["name"] = manifest["metadata"].pop("generateName") + "x"
    check(manifest)
    spec = manifest["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["envFrom"][1] == {"secretRef": {"name": "lori-clients"}}
    assert manifest["spec"]["backoffLimit"] == 0
    assert manifest["metadata"]["namespace"] == "lori"
    check_confined(spec, "a flow run")
    assert spec["securityContext"]["seccompProfile"] == {
        "type": "Localhost",
        "localhostProfile": "lori.json",
    }


def test_rays_autoscaler_alone_has_a_token_and_is_confined_too() -> None:
    (cluster,) = documents(KUBERNETES / "ray" / "cluster.yaml")
    options = cluster["spec"]["autoscalerOptions"]
    assert options["securityContext"] == CONFINED
    assert {"cpu", "memory"} <= set(options["resources"]["limits"])
    (mounted,) = options["volumeMounts"]
    head, *workers = pods(cluster)
    (token,) = (v for v in head["spec"]["volumes"] if v["name"] == mounted["name"])
    assert [next(iter(source)) for source in token["projected"]["sources"]] == [
        "serviceAccountToken",
        "configMap",
        "downwardAPI",
    ]
    for pod in (head, *workers):
        for container in pod["spec"]["containers"]:
            assert mounted["name"] not in [each["name"] for each in container["volumeMounts"]]
    for pod in workers:  # they run stages, which sandbox what models write
        assert pod["spec"]["securityContext"]["seccompProfile"]["type"] == "Localhost"


def test_servers_ask_for_an_authentication_string_and_clients_have_one() -> None:
    compose = YAML(typ="safe").load(INFRA / "compose.yaml")["services"]
    assert {"PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"} <= set(
        compose["prefect"]["environment"]
    )
    assert {"MLFLOW_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"} <= set(
        compose["mlflow"]["environment"]
    )
    assert {"PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_PASSWORD"} <= set(
        compose["worker"]["environment"]
    )
    assert compose["worker"]["security_opt"][:2] == [
        "no-new-privileges:true",
        "seccomp:seccomp.json",
    ]
    (deployment, _) = documents(KUBERNETES / "base" / "prefect.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    secret = {e["name"]: e.get("valueFrom", {}).get("secretKeyRef") for e in container["env"]}
    assert secret["PREFECT_SERVER_API_AUTH_STRING"] == {"name": "lori", "key": "prefect-auth"}
    (*_, worker) = documents(KUBERNETES / "base" / "worker.yaml")
    (container,) = worker["spec"]["template"]["spec"]["containers"]
    assert {"secretRef": {"name": "lori-clients"}} in container["envFrom"]


def test_no_secret_is_an_argument_of_a_command() -> None:
    secret = re.compile(r"\$\$?\{?\w*(PASSWORD|SECRET|AUTH|TOKEN|ACCESS_KEY|STORE_URI|DATABASE)")
    compose = YAML(typ="safe").load(INFRA / "compose.yaml")["services"]
    for name, service in compose.items():
        for key in ("command", "entrypoint", "healthcheck"):
            assert not secret.search(json.dumps(service.get(key))), name
    for path in MANIFESTS:
        for template in (t for document in documents(path) for t in pods(document)):
            for container in template["spec"]["containers"]:
                said = [container.get("command"), container.get("args")]
                assert not secret.search(json.dumps(said)), path
    for name in ("infra/worker.sh", "mlflow/start.sh"):
        for line in (ROOT / name).read_text().splitlines():
            if secret.search(line):  # the shell's own commands start no process
                assert re.match(r'\s*(: "|#|printf|cat >|database_uri|admin_|export)', line), line


#: What Prefect's own template of a Kubernetes pool lets a deployment say, and this one does not.
TAKEN = {
    "command": "touch taken",
    "image": "evil.example/x",
    "env": {"PYTHONPATH": "/evil"},
    "namespace": "kube-system",
    "service_account_name": "lori-worker",
    "cluster_config": {"config": {}, "context_name": "x"},
    "labels": {"app.kubernetes.io/name": "worker"},
    "annotations": {"a": "b"},
    "name": "x",
    "config_map": "x",
    "secret": "x",
    "workspace_claim": "x",
    "seccomp_profile": "x",
    "image_pull_policy": "Always",
    "backoff_limit": 9,
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_deployment_in_the_cluster_sets_its_pods_size_and_nothing_else(name: str) -> None:
    template = json.loads((KUBERNETES / "base" / "base-job-template.json").read_text())
    variables = template["variables"]
    jsonschema.validate({"gpus": 2, "memory_limit": "8Gi"}, variables)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({name: TAKEN[name]}, variables)
    made, plain = job(**{name: TAKEN[name]}), job()
    pod, expected = (each["spec"]["template"] for each in (made, plain))
    (container,), (other,) = pod["spec"].pop("containers"), expected["spec"].pop("containers")
    assert pod["spec"] == expected["spec"]
    assert pod["metadata"]["labels"].keys() == expected["metadata"]["labels"].keys()
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "flow-run"
    assert container["args"] == other["args"] == ["prefect", "flow-run", "execute"]
    assert container["image"] == other["image"]
    names = [[each["name"] for each in one["env"]] for one in (container, other)]
    assert names[0] == names[1]
    assert made["metadata"]["namespace"] == "lori"


def test_a_worker_of_processes_makes_its_pool_from_our_template() -> None:
    lines = (INFRA / "worker.sh").read_text().replace("\\\n", " ").splitlines()
    created = [line for line in lines if "work-pool create" in line]
    assert len(created) == 2
    for line in created:
        assert "--base-job-template" in line
    (here,) = [line for line in created if "--type process" in line]
    (path,) = re.findall(r"--base-job-template (\S+)", here)
    assert json.loads((ROOT / path).read_text())["job_configuration"]["command"] is None


def test_prefects_server_is_started_behind_our_guard() -> None:
    compose = YAML(typ="safe").load(INFRA / "compose.yaml")["services"]["prefect"]
    (deployment, _) = documents(KUBERNETES / "base" / "prefect.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    guarded = ["python", "-m", "flows.server.prefect_server", "--container"]
    assert compose["command"] == guarded
    assert container["command"] == ["tini", "-g", "--", *guarded]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    for given in (compose["environment"], environment):
        assert given["LORI_PREFECT_HOSTS"] == "prefect:4200"
        assert "http://127.0.0.1:4200" in given["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]
    for probe in ("readinessProbe", "livenessProbe"):
        (header,) = container[probe]["httpGet"]["httpHeaders"]
        assert header == {"name": "Host", "value": "prefect:4200"}


def test_a_flow_that_waits_for_ray_asks_for_no_gpu() -> None:
    deployments = YAML(typ="safe").load(KUBERNETES / "prefect.yaml")["deployments"]
    by_name = {each["name"]: each for each in deployments}
    values = by_name["full-pipeline-ray"]["work_pool"]["job_variables"]
    (container,) = job(**values)["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 0
    assert container["resources"]["limits"]["memory"] == "8Gi"


def test_the_clusters_deployments_are_this_machines() -> None:
    here, there = (
        {each["name"]: each for each in YAML(typ="safe").load(path)["deployments"]}
        for path in (ROOT / "prefect.yaml", KUBERNETES / "prefect.yaml")
    )
    assert set(there) - {"full-pipeline-ray"} == set(here)
    for name, deployment in here.items():
        for key in ("entrypoint", "parameters", "schedules", "concurrency_limit"):
            assert there[name].get(key) == deployment.get(key), (name, key)


def test_compose_files_follow_the_specification() -> None:
    tool = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    files = [str(INFRA / name) for name in ("compose.yaml", "compose.gpu.yaml")]
    done = subprocess.run([*tool, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_compose_asks_for_every_password_and_publishes_on_loopback() -> None:
    compose = YAML(typ="safe").load(INFRA / "compose.yaml")
    text = (INFRA / "compose.yaml").read_text()
    named = set(re.findall(r"\$\{([A-Z_0-9]+)", text))
    offered = set(re.findall(r"^([A-Z_0-9]+)=", (INFRA / "example.env").read_text(), re.MULTILINE))
    needed = set(re.findall(r"\$\{([A-Z_0-9]+):\?", text))
    assert needed <= offered <= named
    assert not re.search(r"^\w*PASSWORD=.+", (INFRA / "example.env").read_text(), re.MULTILINE)
    ports = [port for each in compose["services"].values() for port in each.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    for name in compose["services"]:
        for needed_service in compose["services"][name].get("depends_on", {}):
            assert needed_service in compose["services"]


@pytest.mark.parametrize("path", ["infra/Containerfile", "mlflow/Containerfile"])
def test_images_are_linted_and_pinned(path: str) -> None:
    hadolint = str(Path(sys.executable).parent / "hadolint")
    done = subprocess.run([hadolint, path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    text = (ROOT / path).read_text()
    assert re.findall(r"^FROM python:([^\s@]+)", text, re.MULTILINE) == ["3.11.14-slim-bookworm"]
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line
    )
    for name, version in re.findall(r"([\w\-]+)(?:\[\w+\])?==([\d.]+)", text):
        assert pins[name] == version, name
    assert re.search(r"^USER 1000:1000$", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["LORI_REPOSITORY", "LORI_REMOTE"])
def test_a_worker_refuses_an_address_with_a_password(name: str, tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "LORI_WORKSPACE": str(tmp_path / "w"),
        name: "https://u:hunter2@host/x",
    }
    script = ["sh", str(INFRA / "worker.sh")]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{name}: holds a password; take it out")
    assert "hunter2" not in done.stderr
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "path", ["infra/worker.sh", "infra/slurm/worker.sbatch", "infra/slurm/ray.sbatch",
             "mlflow/start.sh"]
)  # fmt: skip
def test_scripts_parse(path: str) -> None:
    shell = "bash" if path.endswith("sbatch") else "sh"
    subprocess.run([shell, "-n", path], cwd=ROOT, check=True)
