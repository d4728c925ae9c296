"""Runs the pipeline of some workspaces on one Ray cluster; prints how each run ended.

`python ray_scenario.py HOME FOLDER…`, inside a network namespace (`ray_cluster.ALONE`). The last
line is JSON: folder → exit code. While the run in a folder named `killed` goes on, the second node
is killed as soon as a stage runs there, so that folder comes last.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from ray_cluster import cluster, environment


def main(home: Path, folders: list[Path]) -> None:
    env = environment(home)
    os.environ.update(env)
    from flows.server.local_api import start_local_api

    # Before Prefect is imported: it reads its settings once.
    api = start_local_api(home)
    os.environ.update(api.variables)
    with cluster(env) as nodes:
        api.wait()
        import flows.pipeline as module
        from flows.execution import tasks as stage_tasks
        from flows.run import run_in_process
        from lori_core.pipeline import params_file

        stage_tasks.PULL = ("platform",)
        params_file.apply = lambda *_: []  # the toy's params.yaml is none of ours
        module.RETRY_DELAY_SECONDS = 0
        codes = {}
        for folder in folders:
            settings = folder / "params.yaml"
            settings.write_text(settings.read_text().replace("head:6379", nodes.address))
            if folder.name == "killed":
                log = folder.with_suffix(".jsonl")
                threading.Thread(
                    target=kill_when_busy, args=(nodes.raylets[1], log), daemon=True
                ).start()
            codes[folder.name] = run_in_process(folder)
        print(json.dumps(codes))


def kill_when_busy(raylet: psutil.Process, log: Path) -> None:
    """Kill a node once a stage has begun below it, then let the other stages go on."""
    while not begun(log) & {p.pid for p in raylet.children(recursive=True)}:
        time.sleep(0.05)
    node = [raylet, *raylet.children()]
    raylet.kill()
    # Its workers notice by themselves, later: one whose stage ended before that would deliver it.
    psutil.wait_procs(node, timeout=60)
    log.with_suffix(".mark").touch()


def begun(log: Path) -> set[int]:
    """Return the processes of the stages that have noted their start, and may wait for the kill."""
    lines = log.read_text().splitlines() if log.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return {row["pid"] for row in rows if row["stage"].startswith("calibrate@")}


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
