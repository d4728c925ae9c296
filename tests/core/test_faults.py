"""What a machine refuses is one line with what to do, whichever library says it."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from lori_cli import main
from lori_core.core import faults
from lori_core.core.errors import InputError
from lori_core.core.files.atomic import replaced_file, write_text


def line(error: BaseException) -> tuple[int, str]:
    found = faults.explained(error)
    assert found is not None
    (said,) = str(found).splitlines()
    return found.exit_code, said


USER = os.getuid()


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.ENOSPC, 1, "/w/x: the disk is full: free some space, then run again"),
        (errno.EDQUOT, 1, "/w/x: the disk quota is used up: free some space, then run again"),
        (errno.EROFS, 2, "/w/x: the file system is read-only: mount it read-write, or use a "
         "folder elsewhere"),
        (errno.EACCES, 2, f"/w/x: user {USER} has no permission: change the owner or the mode "
         "(chown, chmod), or use a folder elsewhere"),
        (errno.EMFILE, 1, "/w/x: this process has too many open files: raise ulimit -n"),
        (errno.EFBIG, 1, "/w/x: a file would be larger than allowed: raise ulimit -f"),
        (errno.ENOTDIR, 2, "/w/x: a file stands where a folder should: move it away"),
    ],
)  # fmt: skip
def test_errors_of_the_system(number: int, code: int, words: str) -> None:
    error = OSError(number, os.strerror(number), "/w/x")
    assert line(error) == (code, words)
    wrapped = RuntimeError("a library's own words")
    wrapped.__cause__ = error
    assert line(wrapped) == (code, words)


def test_of_a_copy_that_fills_the_disk_the_copy_is_named() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/w/from", None, "/w/to")
    assert line(error)[1].startswith("/w/to: the disk is full")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("I/O error: No space left on device (os error 28)", 1, "the disk is full"),
        ("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534", 1, "is full"),
        ('Read-only file system (os error 30) at path "/w/.tmpB"', 2, "/w/.tmpB: the file system"),
        ("(sqlite3.OperationalError) database or disk is full", 1, "the disk is full"),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9", 1, "out of memory"),
        ("can't start new thread", 1, "raise ulimit -u"),
    ],
)
def test_words_of_libraries(text: str, code: int, words: str) -> None:
    found = line(RuntimeError(text))
    assert found[0] == code
    assert words in found[1]


def test_memory_that_runs_out() -> None:
    assert line(MemoryError()) == (
        1,
        "out of memory: end other processes, or lower the batch sizes",
    )


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyError("x"), OSError("odd"), PermissionError()]
)
def test_other_errors_are_left_to_who_raised_them(error: Exception) -> None:
    assert faults.explained(error) is None


def test_a_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(sqlite3.DatabaseError) as caught, faults.about(path):
        sqlite3.connect(path).execute("select 1 from x")
    assert line(caught.value) == (
        1,
        f"{path}: damaged: restore a copy, or move it away and a new one is made",
    )


HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("begin exclusive")
print("held", flush=True)
sys.stdin.read()
"""


def test_who_holds_a_locked_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    sqlite3.connect(path).execute("create table x (y)").connection.close()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        database = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError) as caught, faults.about(path):
            database.execute("select * from x")
        code, said = line(caught.value)
        holder.communicate()
    database.close()
    assert code == 1
    assert said.startswith(f"{path}: locked by process {holder.pid} ({sys.executable} -c import sq")
    assert said.endswith("): end that one, then run again")
    assert faults.processes_with_open(path) == []


#: Run on a disk of a megabyte in a mount namespace of its own.
FILL = """
import sys
from pathlib import Path
from lori_core.core import faults, tracking
from lori_core.core.files import atomic as files, tensor_file
import torch
folder = Path(sys.argv[1])
big = torch.zeros(1 << 20)
def tensors(path):
    with files.replaced_folder(path) as work:
        specs = {"a": tensor_file.Spec(torch.float32, (1 << 20,))}
        tensor_file.write(work / "adapter.safetensors", specs, [big], {})
def safetensors(path):
    from safetensors.torch import save_file
    save_file({"a": big}, path)
def rows(path):
    while True:
        tracking.FileTracker(path).tags({"a": "x" * 100_000})
for name, write in {
    "text": lambda path: files.write_text(path, "x" * (1 << 21)),
    "tensors": tensors,
    "safetensors": safetensors,
    "torch": lambda path: torch.save(big, path),
    "rows": rows,
}.items():
    try:
        write(folder / name)
    except Exception as error:
        print(name, faults.explained(error))
    for left in folder.iterdir():
        if left.name in ("rows", "torch"):
            left.unlink()
        assert not left.exists() or name == "safetensors", left
"""


def mounted(folder: Path, options: str, script: str) -> str:
    """Run Python where a small disk of its own is mounted on a folder; return what it prints."""
    mount = f"mount -t tmpfs -o {options} tmpfs {folder}"
    command = f"{mount} && exec {sys.executable} -c '{script}' {folder}"
    try:
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_is_named_by_every_writer_and_nothing_half_written_stays(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    full = "the disk is full: free some space, then run again"
    said = mounted(folder, "size=1M", FILL.replace("'", '"')).splitlines()
    assert said == [
        f"text {folder}/text: {full}",
        f"tensors {folder}/tensors: {full}",
        f"safetensors {full}",
        f"torch {full}",
        f"rows {folder}/rows: {full}",
    ]


def test_a_command_names_what_it_cannot_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("tasks: {}\n")
    rows = tmp_path / ".lori" / "rows" / "train@a" / "1-1.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text('{"type": "start", "time": 1}\n')
    (tmp_path / ".lori" / "shipping.lock").mkdir()
    assert main(["track"]) == 2
    said = capsys.readouterr().err
    assert "MLflow" not in said
    assert said.startswith("error: ")
    assert f"{tmp_path}/.lori/shipping.lock" in said
    assert len(said.splitlines()) == 1


def test_nothing_to_send_needs_no_place_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["track"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_links_in_a_circle_are_named(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(RuntimeError) as raised:
        loop.resolve()
    said = faults.explained(raised.value)
    assert isinstance(said, InputError)
    assert str(said) == f"{loop}: its symbolic links lead in a circle: name the file itself"


def test_a_write_without_a_name_is_given_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(OSError, match="full") as caught, replaced_file(path):
        raise OSError(errno.ENOSPC, "full")
    assert caught.value.filename == str(path)
    write_text(path, "whole")
    assert path.read_text() == "whole"


REFUSED = """
import sys
from lori_cli import main
import os
os.chdir(sys.argv[1])
for command in ("stage merge concat", "point p", "run"):
    print(command, main(command.split()))
    sys.stdout.flush()
from pathlib import Path
from lori_core.adapters import output_folder
from lori_core.core.errors import InputError
try:
    output_folder.check(Path("out"), output_folder.MERGED)
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("options", "reason", "out"),
    [
        ("size=8M,ro", "the file system is read-only; mount it", "(the file system is read-only)"),
        ("size=8k", " MiB free; a ", "the disk is full (0 bytes free); free some space"),
    ],
)
def test_a_disk_that_cannot_be_written_is_refused_before_the_work(
    options: str, reason: str, out: str, tmp_path: Path
) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    smoke = Path(__file__).parents[2] / "profiles" / "smoke.yaml"
    given = [
        "import sys",
        "from pathlib import Path",
        "from lori_core.pipeline import params_file",
        f'params_file.PARAMS = Path("{smoke}")',
        "sys.stderr = sys.stdout",
        "" if "ro" in options else 'Path(sys.argv[1], "x").write_text("x" * 8192)',
    ]
    said = mounted(folder, options, "\n".join([*given, REFUSED]))
    lines = said.splitlines()
    for command, line, code in zip(
        ("stage merge concat", "point p", "run"), lines[:-1:2], lines[1:-1:2], strict=True
    ):
        assert reason in line, command
        assert code == f"{command} 2"
    assert out in lines[-1]
