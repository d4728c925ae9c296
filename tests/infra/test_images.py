"""The images of others: named in one list, by exact tag, pinned to digests by one command."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
FILES = ("infra/images.txt", "infra/compose.yaml", "infra/Containerfile", "mlflow/Containerfile")
DIGEST = r"@sha256:[0-9a-f]{64}"


def listed(root: Path) -> set[str]:
    lines = (root / "infra/images.txt").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def named(root: Path) -> set[str]:
    """Return the images that are used and not built here."""
    services = YAML(typ="safe").load(root / "infra/compose.yaml")["services"].values()
    found = {service["image"] for service in services if "build" not in service}
    for name in FILES[2:]:
        text = (root / name).read_text()
        stages = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
        found |= set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) - stages
    return found


def test_the_list_names_every_image_as_it_is_used() -> None:
    assert named(ROOT) == listed(ROOT)


@pytest.mark.parametrize("image", sorted(listed(ROOT)))
def test_an_image_has_an_exact_tag_and_nothing_else_or_a_digest(image: str) -> None:
    assert re.fullmatch(rf"[a-z/]+:[A-Za-z0-9.-]*[0-9][A-Za-z0-9.-]*({DIGEST})?", image)


def test_our_own_image_has_one_name_in_the_cluster() -> None:
    kubernetes = ROOT / "infra" / "kubernetes"
    yaml = YAML(typ="safe")
    names = set()
    for folder in ("base", "ray"):
        (image,) = yaml.load(kubernetes / folder / "kustomization.yaml")["images"]
        names.add(f"{image['newName']}:{image['newTag']}")
    template = json.loads((kubernetes / "base/base-job-template.json").read_text())
    pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    names |= {container["image"] for container in pod["containers"]}
    cluster = yaml.load(kubernetes / "ray/cluster.yaml")["spec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        names |= {container["image"] for container in group["template"]["spec"]["containers"]}
    assert names == {"registry.example.org/lori:cuda-0.1.0"}


def pin(folder: Path, answer: str) -> subprocess.CompletedProcess[str]:
    """Pin in a copy of the files, with a docker that answers without a registry."""
    for name in (*FILES, "infra/pin.sh"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    docker = folder / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f"#!/bin/sh\n{answer}\n")
    docker.chmod(0o755)
    return subprocess.run(
        ["sh", "infra/pin.sh"], cwd=folder, env={"PATH": f"{docker.parent}:/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_pinning_writes_the_digest_of_each_tag_everywhere(tmp_path: Path) -> None:
    done = pin(tmp_path, 'printf "sha256:"; printf %s "$4" | sha256sum | cut -d" " -f1')
    assert done.returncode == 0, done.stderr
    wanted = {
        f"{tag}@sha256:{hashlib.sha256(tag.encode()).hexdigest()}"
        for tag in (image.partition("@")[0] for image in listed(ROOT))
    }
    assert listed(tmp_path) == named(tmp_path) == wanted
    assert set(done.stdout.split()) == wanted


def test_nothing_is_pinned_where_a_tag_has_no_digest(tmp_path: Path) -> None:
    done = pin(tmp_path, "echo not found")
    assert done.returncode == 1
    assert "no digest, but: not found" in done.stderr
    assert all((tmp_path / name).read_bytes() == (ROOT / name).read_bytes() for name in FILES)
