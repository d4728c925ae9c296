"""The pipeline's overhead around its stages' commands, and how it grows; no model is loaded.

* A stage: flows of two and of twelve stages in a row whose command takes no time. The difference
  per stage is the overhead: Prefect's task, DVC's process with its imports, locks, hashing, rows.
  The limit is DVC alone: `dvc repro` of the same twelve stages.
* Nothing to do: the project's pipeline with 25 and with 100 tasks, everything up to date, by
  `lori run` and by the flow, as a schedule runs it. On a shared machine, CPU seconds are the better
  measure.
* Sixteen stages of half a minute on four simulated GPUs: the share of the GPUs that stages hold,
  and on which their commands run, until the last stage starts.

    python -m benchmarks.pipeline
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.adapters import show

ROOT = Path(__file__).parents[1]
CHAINS = (2, 12)
TASKS = (25, 100)
GPUS, STAGES, SECONDS = 4, 16, 30.0
#: A stage's command: writes rows, records the times and writes its output.
COMMAND = (
    """test -z "$LORI_ROWS" || """
    """printf '{{"type": "start", "time": 1, "stage": "{name}"}}\\n' > "$LORI_ROWS"; """
    """date +%s.%N > {name}.txt; sleep {seconds}; date +%s.%N >> {name}.txt"""
)


def rows(folder: Path) -> list[dict[str, Any]]:
    """Measure everything in a scratch folder; return a row for each measurement."""
    return [*_overhead(folder), *_nothing(folder), *_busy(folder)]


def _workspace(folder: Path, stages: dict[str, list[str]], seconds: float, gpus: int) -> Path:
    """Write a workspace whose stages are given as name → the names of its dependencies."""
    folder.mkdir()
    _call(folder, "dvc", "init", "-q", "--no-scm")
    definitions = {
        name: {
            "cmd": COMMAND.format(name=name, seconds=seconds),
            "deps": [f"{above}.txt" for above in after],
            "outs": [f"{name}.txt"],
            "meta": {"gpus": gpus},
        }
        for name, after in stages.items()
    }
    YAML().dump({"stages": definitions}, folder / "dvc.yaml")
    YAML().dump({"execution": {"retries": 0}}, folder / "params.yaml")
    return folder


def _overhead(folder: Path) -> list[dict[str, Any]]:
    took = {}
    for length in CHAINS:
        names = [f"s{number:02}" for number in range(length)]
        chain = {name: names[max(0, i - 1) : i] for i, name in enumerate(names)}
        place = _workspace(folder / f"chain{length}", chain, 0, 0)
        took[length] = _flow(place)["seconds"]
    alone = _workspace(folder / "alone", chain, 0, 0)
    start = time.perf_counter()
    _call(alone, "dvc", "repro", "-q")
    dvc = time.perf_counter() - start
    few, many = CHAINS
    return [
        {"what": "a stage beyond its command", "value": (took[many] - took[few]) / (many - few),
         "unit": "s", "goal": "<= 3"},
        {"what": "a stage of dvc repro alone", "value": dvc / many, "unit": "s"},
        {"what": "a flow of two stages", "value": took[few], "unit": "s"},
    ]  # fmt: skip


def _nothing(folder: Path) -> list[dict[str, Any]]:
    result = []
    for count in TASKS:
        place = _project(folder / f"tasks{count}", count)
        start, used = time.perf_counter(), _children()
        # It ends with a refusal, because the report to show is not a real one.
        output = _call(place, "lori", "run", fails=True)
        command, processor = time.perf_counter() - start, _children() - used
        assert "nothing to run" in output, output  # noqa: S101 - else this measures something else
        flow = _flow(place)
        assert flow["message"] == "nothing changed", flow  # noqa: S101
        goal = {"goal": "<= 60"} if count == max(TASKS) else {}
        stages = output.partition(" stages, all unchanged")[0].split()[-1]
        name = f"nothing to do, {count} tasks ({stages} stages)"
        result += [
            {"what": f"{name}: lori run", "value": command, "unit": "s", **goal},
            {"what": "    of a processor", "value": processor, "unit": "s"},
            {"what": f"{name}: flow", "value": flow["seconds"], "unit": "s", **goal},
            {"what": "    of a processor", "value": flow["processor"], "unit": "s"},
        ]
    return result


def _children() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _project(folder: Path, count: int) -> Path:
    """Return a copy of this project with `tasks` tasks, all outputs present and recorded by DVC."""
    from dvc.repo import Repo

    folder.mkdir()
    for name in ("lori_core", "profiles", "dvc.yaml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    _call(folder, "dvc", "init", "-q", "--no-scm")
    yaml = YAML()
    params = yaml.load(ROOT / "profiles/smoke.yaml")
    names = [f"t{number:03}" for number in range(count)]
    common = {"sizes": {}, "method": "lori-s", "calibration": {}, "training": {}}
    params["tasks"] = {n: {"source": _source(folder / "sets" / n)} | common for n in names}
    params["continual"] |= {"safety_task": names[0], "tasks": names[1:]}
    params["experiments"] |= {"tasks": names[:2], "ablation_tasks": names[:1]}
    yaml.dump(params, folder / "params.yaml")
    _call(folder, "lori", "pull")
    with contextlib.chdir(folder), Repo(str(folder)) as repo:
        for out in repo.index.outs:
            path = Path(out.fs_path)
            # The pin, masks and scores are files; all other outputs are folders.
            if not path.exists():
                path = path if path.suffix else path / "made.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({"made": str(path.relative_to(folder))}))
        repo.commit(None, force=True)
    return folder


def _source(folder: Path) -> dict[str, Any]:
    """Write a data set for a task; return the task's source."""
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        lines = [
            json.dumps(
                {"prompt": f"{folder.name} {split} {number}?", "target": " A", "answer": "A"}
            )
            for number in range(4)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    fields = {name: name for name in ("prompt", "target", "answer")}
    files = {"train": "train.jsonl", "test": "test.jsonl"}
    return {
        "kind": "local",
        "path": str(folder),
        "files": files,
        "fields": fields,
        "scorer": "choice",
    }


def _busy(folder: Path) -> list[dict[str, Any]]:
    stages: dict[str, list[str]] = {f"s{number:02}": [] for number in range(STAGES)}
    place = _workspace(folder / "busy", stages, SECONDS, 1)
    devices = ",".join(map(str, range(GPUS)))
    result = _flow(place, CUDA_VISIBLE_DEVICES=devices)
    spans = {"held": result["held"], "at work": [_span(place / f"{name}.txt") for name in stages]}
    last = max(begin for begin, _ in spans["held"])
    first = min(begin for begin, _ in spans["held"])
    goals = {"held": {"goal": ">= 95"}, "at work": {}}
    return [
        {
            "what": f"{STAGES} stages of {SECONDS:.0f} s, {GPUS} GPUs: {name}",
            "value": 100
            * sum(min(e, last) - min(b, last) for b, e in span)
            / GPUS
            / (last - first),
            "unit": "%",
            **goals[name],
        }
        for name, span in spans.items()
    ]


def _span(path: Path) -> tuple[float, float]:
    begin, end = map(float, path.read_text().split())
    return begin, end


def _flow(place: Path, **variables: str) -> dict[str, Any]:
    """Run the flow in a process of its own; return its seconds and the times GPUs were held."""
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "benchmarks.pipeline", "flow", str(place)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]  # noqa: S101
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _flow_here(place: Path) -> None:
    """Run the flow against a running server, and print its time."""
    from flows.server.local_api import start_local_api
    from flows.tracking.mlflow_store import prepare
    from lori_core.pipeline import params_file

    os.chdir(place)
    api = start_local_api(place)
    os.environ["PREFECT_API_URL"] = api.url
    import flows.pipeline as module
    from flows.execution import gpu_slots
    from flows.execution import tasks as stage_tasks

    if not (place / "data.dvc").exists():
        stage_tasks.PULL = ("platform",)  # type: ignore[assignment]
        params_file.apply = lambda *_: []  # the workspace's params.yaml is not a valid one
    prepare(f"sqlite:///{place}/mlflow.db")
    api.wait()
    held: list[tuple[float, float]] = []
    real = gpu_slots.GpuSlots.hold

    from contextlib import contextmanager

    @contextmanager
    def hold(self: Any, gpus: int, parts: int) -> Any:
        with real(self, gpus, parts) as devices:
            begin = time.time()
            yield devices
            held.append((begin, time.time()))

    gpu_slots.GpuSlots.hold = hold  # type: ignore[assignment, method-assign]
    start, used = time.perf_counter(), time.process_time() + _children()
    state: Any = module.pipeline(return_state=True)
    seconds, processor = time.perf_counter() - start, time.process_time() + _children() - used
    assert state.is_completed(), state  # noqa: S101
    answer = {"seconds": seconds, "processor": processor, "held": held, "message": state.message}
    print(json.dumps(answer))


def _call(folder: Path, tool: str, *arguments: str, fails: bool = False) -> str:
    tools = Path(sys.executable).parent
    env = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [str(tools / tool), *arguments],
        cwd=folder, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert fails or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]  # noqa: S101
    return done.stdout


if __name__ == "__main__":
    if sys.argv[1:2] == ["flow"]:
        _flow_here(Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory(prefix="lori-bench-") as name:
            show(rows(Path(name)))
