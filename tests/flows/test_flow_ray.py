"""The engine `ray`, on a real cluster of two nodes with two pretend GPUs each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from ray_cluster import ALONE
from ruamel.yaml import YAML

from flows.environment import child_environment
from flows.execution.stage_process import reproduce

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
DVC = [sys.executable, "-m", "dvc"]
TASKS = ["a", "b", "c", "d"]

WORK = dedent(
    """
    import json, os, sys, time
    from pathlib import Path
    stage, out, *inputs = sys.argv[1:]
    settings = dict(line.split(": ", 1) for line in Path("params.yaml").read_text().splitlines()
                    if line.startswith(("log", "until")))
    log, device = Path(settings["log"]), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    rows = Path(os.environ.get("LORI_ROWS") or ".lori/rows/plain.jsonl")
    rows.parent.mkdir(parents=True, exist_ok=True)
    rows.write_text(json.dumps({"type": "start", "time": time.time(), "stage": stage}) + "\\n")
    def note(**fields):
        fields |= {"stage": stage, "time": time.time(), "device": device, "pid": os.getpid()}
        with log.open("a") as file:
            file.write(json.dumps(fields) + "\\n")
    note(event="start")
    def together():
        seen = {json.loads(line)["stage"] for line in log.read_text().splitlines()}
        return len(seen - {"prepare"}) >= 4
    waits = {"together": together, "killed": log.with_suffix(".mark").exists, "now": lambda: True}
    limit = time.monotonic() + 120
    while stage.startswith("calibrate") and not waits[settings["until"]]():
        time.sleep(0.05)
        if time.monotonic() > limit:
            sys.exit("the others never came")
    text = "".join(Path(name).read_text() for name in inputs)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(stage + text)
    if stage.startswith("calibrate"):
        small = Path("metrics") / f"{stage}.json"
        small.parent.mkdir(exist_ok=True)
        small.write_text(json.dumps({"length": len(text)}))
    with rows.open("a") as file:
        file.write(json.dumps({"type": "end", "time": time.time()}) + "\\n")
    note(event="end")
    """
)
STAGES = dedent(
    """
    stages:
      prepare:
        cmd: {python} toy.py prepare out/prepare.txt data/in.txt
        deps: [data/in.txt]
        outs: [out/prepare.txt]
        meta: {{gpus: 0}}
      calibrate:
        foreach: [a, b, c, d]
        do:
          cmd: {python} toy.py calibrate@${{item}} out/${{item}}.txt out/prepare.txt
          deps: [out/prepare.txt]
          outs: ["out/${{item}}.txt"]
          metrics: ["metrics/calibrate@${{item}}.json": {{cache: false}}]
          meta: {{gpus: 1}}
      report:
        cmd: {python} toy.py report report/out.txt out/a.txt out/d.txt
        deps: [metrics]
        outs: [report/out.txt]
        meta: {{gpus: 0}}
    """
)


def make(folder: Path, until: str, **execution: Any) -> Path:
    """Write a workspace with four stages that may run at once, one before and one behind them."""
    from dvc.repo import Repo

    (folder / "data").mkdir(parents=True)
    Repo.init(str(folder), no_scm=True).close()
    (folder / "toy.py").write_text(WORK)
    (folder / "dvc.yaml").write_text(STAGES.format(python=sys.executable))
    (folder / "data" / "in.txt").write_text("one\n")
    values = {"engine": "ray", "ray_address": "head:6379", "retries": 1} | execution
    toy = {"log": str(folder.with_suffix(".jsonl")), "until": until}
    YAML().dump({"execution": values} | toy, folder / "params.yaml")
    return folder


def project(folder: Path, **execution: Any) -> Path:
    """Write this project with one task of the smoke profile, up to its sparse adapter."""
    yaml = YAML(typ="safe")
    folder.mkdir()
    for name in ("lori_core", "profiles"):
        shutil.copytree(ROOT / name, folder / name)
    subprocess.run([*DVC, "init", "-q", "--no-scm"], cwd=folder, check=True)
    stages = yaml.load(ROOT / "dvc.yaml")["stages"]
    kept = {name: stages[name] for name in ("calibrate", "mask", "train")}
    YAML().dump({"vars": ["params.yaml"], "stages": kept}, folder / "dvc.yaml")
    params = yaml.load(ROOT / "profiles" / "smoke.yaml")
    params["tasks"] = {"math": params["tasks"]["math"]}
    params["execution"] |= execution
    for name in ("continual", "experiments", "gate"):
        del params[name]
    YAML().dump(params, folder / "params.yaml")
    command = [sys.executable, "-m", "lori_cli", "pull"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def adapters(folder: Path) -> dict[str, bytes]:
    """Return every byte of what training left, and the lock."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted((folder / "artifacts").rglob("*.*"))
        if path.is_file()
    }
    return found | {"dvc.lock": (folder / "dvc.lock").read_bytes()}


@dataclass(frozen=True)
class Made:
    """What runs left: every output, the lock, and what the stages noted while they ran."""

    outputs: dict[str, bytes]
    lock: Any
    events: list[dict[str, Any]]

    @classmethod
    def of(cls, folder: Path) -> Made:
        log = folder.with_suffix(".jsonl")
        outputs = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for name in ("out", "report", "metrics")
            for path in sorted((folder / name).rglob("*.*"))
        }
        lock = YAML(typ="safe").load(folder / "dvc.lock")["stages"]
        lines = log.read_text().splitlines() if log.exists() else []
        return cls(outputs, lock, [json.loads(line) for line in lines])

    def starts(self) -> list[tuple[str, str]]:
        return sorted((e["stage"], e["device"]) for e in self.events if e["event"] == "start")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run four workspaces, one after another, on one cluster; in `killed` a node dies."""
    top = tmp_path_factory.mktemp("ray")
    home = top / "home"
    home.mkdir()
    runs = [
        make(top / "shared", "together"),
        make(top / "remote", "together", exchange="remote"),
        project(top / "project", engine="ray", ray_address="head:6379"),
        make(top / "killed", "killed"),
    ]
    store = ["remote", "add", "-q", "-d", "store", str(top / "store")]
    for command in (["add", "-q", "data"], store):
        subprocess.run([*DVC, *command], cwd=top / "remote", check=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
    env = kept | {
        "PYTHONPATH": str(ROOT),
        "LORI_CACHE": str(home / "cache"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
    }
    script = [sys.executable, str(ROOT / "tests/flows/ray_scenario.py"), str(home)]
    done = subprocess.run(
        [*ALONE, *script, *map(str, runs)], env=env, capture_output=True, text=True, check=False
    )
    said = done.stdout[-6000:] + done.stderr[-6000:]
    assert done.returncode == 0, said
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert json.loads(lines[-1]) == {"shared": 0, "remote": 0, "project": 0, "killed": 0}, said
    return top


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """What one machine makes of the same workspace."""
    alone = make(tmp_path_factory.mktemp("alone") / "alone", "now")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(alone)
        for stage in ("prepare", *(f"calibrate@{task}" for task in TASKS), "report"):
            assert reproduce(stage) == 0
    return Made.of(alone)


def test_four_stages_at_once_each_with_its_own_device(folder: Path, expected: Made) -> None:
    made = Made.of(folder / "shared")
    stages, devices = zip(*made.starts(), strict=True)
    assert stages == (*(f"calibrate@{task}" for task in TASKS), "prepare", "report")
    assert sorted(devices[:4]) == ["0", "0", "1", "1"]  # two nodes, each with a 0 and a 1
    assert devices[4:] == ("", "")
    assert (made.outputs, made.lock) == (expected.outputs, expected.lock)


def test_adapters_of_the_cluster_are_those_of_one_machine(folder: Path, tmp_path: Path) -> None:
    alone = project(tmp_path / "alone")
    # Ray gives a task one thread; how a sum is shared among threads decides its last bits.
    env = child_environment(CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")
    for stage in ("calibrate@math", "mask@math", "train@math"):
        command = [sys.executable, "-m", "flows.execution.stage_process", stage]
        subprocess.run(command, cwd=alone, env=dict(env), check=True)
    made = adapters(folder / "project")
    assert "artifacts/math/mask.safetensors" in made
    assert made == adapters(alone)


def test_a_killed_node_costs_its_stages_and_not_the_run(folder: Path, expected: Made) -> None:
    made = Made.of(folder / "killed")
    assert len(made.starts()) > len(TASKS) + 2  # something was begun again
    assert (made.outputs, made.lock) == (expected.outputs, expected.lock)


def test_nodes_without_a_shared_folder_exchange_through_the_remote(
    folder: Path, expected: Made
) -> None:
    made = Made.of(folder / "remote")
    assert (made.outputs, made.lock) == (expected.outputs, expected.lock)
    assert len(made.events) == 2 * (len(TASKS) + 2)
    # A clone with an empty cache gets everything, and runs nothing.
    clone = folder / "clone"
    for name in (".dvc/config", "dvc.yaml", "data.dvc", "params.yaml", "toy.py"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "remote" / name, clone / name)
    for command in (["pull", "-q", "data.dvc"], ["repro", "-q", "--pull"]):
        subprocess.run([*DVC, *command], cwd=clone, check=True)
    again = Made.of(clone)
    assert (again.outputs, again.lock) == (expected.outputs, expected.lock)
    assert Made.of(folder / "remote").events == made.events  # where the clone's would be noted too


def test_a_deployed_flow_can_be_sent_to_a_node() -> None:
    # Prefect sends the flow along with each task: the node must find it by its module's name.
    deployments = YAML(typ="safe").load(ROOT / "prefect.yaml")["deployments"]
    (entrypoint,) = {deployment["entrypoint"] for deployment in deployments}
    script = (
        "import sys, cloudpickle; from prefect.flows import load_flow_from_entrypoint; "
        f"sys.stdout.buffer.write(cloudpickle.dumps(load_flow_from_entrypoint({entrypoint!r})))"
    )
    sent = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True)
    read = "import sys, pickle; print(pickle.load(sys.stdin.buffer).name)"
    done = subprocess.run(
        [sys.executable, "-c", read], input=sent.stdout, capture_output=True, check=False
    )
    assert done.stdout == b"lori\n", done.stderr.decode()
