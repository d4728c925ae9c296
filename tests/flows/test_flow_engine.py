"""Engines: one from outside, in one small class, and a local run, which needs nothing of Ray."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from lori_core.pipeline import params_file
from lori_core.registries import registry

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/extensions/engine.py"

#: Runs the toy pipeline and prints its state, and what of Ray was imported.
RUN = dedent(
    """
    import json, sys

    import flows.pipeline as module
    from flows.execution import tasks
    from lori_core.registries import extensions; from lori_core.pipeline import params_file

    extensions.load(sys.argv[1:], "extensions")
    tasks.PULL = ("platform",)
    params_file.apply = lambda *_: []
    state = module.pipeline(return_state=True)
    roots = ("ray", "prefect_ray", "flows.execution.ray_", "flows.execution.ray.exchange")
    print(json.dumps([state.message, sorted(n for n in sys.modules if n.startswith(roots))]))
    """
)


def run(toy: Path, *extensions: Path) -> tuple[list[Any], str]:
    """Run the toy pipeline in a process of its own, on this session's Prefect server."""
    from prefect.settings import get_current_settings

    url = str(get_current_settings().api.url)
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, extensions)],
        cwd=toy,
        env=os.environ | {"PREFECT_API_URL": url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


def test_a_local_run_imports_nothing_of_ray(
    tracked: Path, prefect_api: None, worked: Callable[[], list[str]]
) -> None:
    said, _ = run(tracked)
    assert said == ["all stages are up to date", []]
    assert sorted(worked()) == ["prepare", "report", "train@math", "train@nlu"]


def test_an_engine_from_outside_runs_the_pipeline(
    tracked: Path, prefect_api: None, worked: Callable[[], list[str]]
) -> None:
    params = tracked / "params.yaml"
    params.write_text(params.read_text().replace("{retries: 1}", "{retries: 0, engine: in-turn}"))
    (tracked / "fail-train@math").write_text("1")
    said, log = run(tracked, EXAMPLE)
    assert said[0] == "train@math: train@math does not like it"
    assert "4 stages, 4 to run on this machine, one after another" in log
    assert worked() == ["prepare", "train@math", "train@nlu"]  # nothing behind what failed
    (tracked / "fail-train@math").unlink()
    said, _ = run(tracked, EXAMPLE)
    assert said[0] == "all stages are up to date"
    assert worked()[3:] == ["train@math", "report"]


def test_the_example_is_one_class_of_less_than_thirty_lines() -> None:
    (made,) = [n for n in ast.parse(EXAMPLE.read_text()).body if isinstance(n, ast.ClassDef)]
    assert made.end_lineno is not None
    assert made.end_lineno - made.decorator_list[0].lineno + 1 < 30


def test_the_examples_name_becomes_one_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("engine.py").write_bytes(EXAMPLE.read_bytes())
    smoke = (ROOT / "profiles/smoke.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(smoke + "\nextensions: [engine.py]\n", encoding="utf-8")
    params, _ = params_file.changed(Path("params.yaml"), None, ["execution.engine=in-turn"])
    assert params.execution.engine == "in-turn"
    registry.forget("engine.py")


def test_what_no_engine_is_called_is_refused_before_anything_starts(
    tracked: Path, prefect_api: None, worked: Callable[[], list[str]]
) -> None:
    params = tracked / "params.yaml"
    params.write_text(params.read_text().replace("{retries: 1}", "{engine: slurm}"))
    said, _ = run(tracked)
    assert said[0] == "execution.engine: engine 'slurm' is unknown (allowed: local, ray)"
    assert worked() == []
