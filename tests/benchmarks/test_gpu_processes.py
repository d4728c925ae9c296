"""Parts in processes of their own: each way to fail is told, and the next part runs."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.gpu.processes import Processes, one_gpu

#: Does what its order says: a stand-in for a part that needs no imports.
PART = """
import json, os, sys, time
from pathlib import Path
Path(sys.argv[1]).touch()
order = json.loads(sys.stdin.readline())
print("started", flush=True)
if order["do"] == "write":
    Path(order["file"]).write_text(str(os.getpid()))
elif order["do"] == "raise":
    raise RuntimeError("CUDA error: an illegal memory access was encountered")
elif order["do"] == "die":
    os.kill(os.getpid(), 9)
elif order["do"] == "hang":
    time.sleep(600)
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes([sys.executable, "-I", "-S", "-c", PART], tmp_path, ahead=3).open() as opened:
        yield opened


def test_each_failure_is_told_and_the_next_part_runs(processes: Processes, tmp_path: Path) -> None:
    def run(do: str, needed: int, limit: float = 60) -> tuple[str | None, str]:
        order = json.dumps({"do": do, "file": str(tmp_path / "written")})
        why, log = processes.run(order, needed, limit)
        return why, log.read_text()

    why, log = run("raise", 4)
    assert why == "exit code 1"
    assert "Traceback" in log
    assert "RuntimeError: CUDA error: an illegal memory access" in log
    assert len(processes.waiting) == 2
    assert run("die", 3) == ("it was killed by SIGKILL", "started\n")
    assert run("hang", 2, limit=1)[0] == "it took longer than 1 s"
    assert not processes.waiting
    assert run("write", 1)[0] is None
    assert int((tmp_path / "written").read_text()) > 0
    assert processes.started == 4  # three ahead, and one when they were used up


def test_a_process_that_cannot_start_is_a_failure(tmp_path: Path) -> None:
    with Processes(
        [sys.executable, "-I", "-S", "-c", "import no_such_module"], tmp_path, 2
    ).open() as opened:
        why, log = opened.run("{}", 1, 60)
    assert why == "exit code 1"
    assert "No module named 'no_such_module'" in log.read_text()


def test_waiting_processes_are_ended_with_the_block(tmp_path: Path) -> None:
    with Processes([sys.executable, "-I", "-S", "-c", PART], tmp_path, ahead=2).open() as opened:
        opened.run(json.dumps({"do": "nothing"}), 2, 60)
        (left,) = opened.waiting
        assert left.process.poll() is None
    assert left.process.poll() == -9


@pytest.mark.parametrize(
    ("visible", "left"),
    [(None, "0"), ("0", "0"), ("2,3", "2"), ("GPU-5a, GPU-6b", "GPU-5a"), ("", "")],
)
def test_other_gpus_are_hidden_since_trainer_would_use_them_all(
    visible: str | None, left: str
) -> None:
    given = {"HOME": "/root"} | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    assert one_gpu(given) == {"HOME": "/root", "CUDA_VISIBLE_DEVICES": left}
