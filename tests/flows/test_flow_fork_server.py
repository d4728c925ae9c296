"""Commands that run in a process forked from one that has imported everything: as by themselves."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from watching import until

from flows.environment import child_environment
from flows.execution import fork_server
from lori_core.core.processes import forked

TOY = '''
"""Does what it is told: prints where and what it is, fails, waits, breaks."""

import gc, os, resource, signal, subprocess, sys, time, weakref

word = sys.argv[1]
if word == "say":
    print(os.getcwd(), sys.argv[1:], os.environ.get("LORI_TOLD"), oct(os.umask(0o22)))
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], file=sys.stderr)
elif word == "exit":
    sys.exit(int(sys.argv[2]))
elif word == "raise":
    raise ValueError("broken")
elif word == "segfault":
    os.kill(os.getpid(), signal.SIGSEGV)
elif word == "parent":
    print(os.getppid(), os.getpid())
elif word == "finalizers":
    import library
    weakref.finalize(library, print, "the command's")
elif word == "collector":
    print(gc.isenabled(), gc.get_freeze_count() > len(sys.modules))
elif word == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
elif word == "told":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
if word in ("wait", "stubborn", "told", "child"):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("ready", os.getpid(), child.pid, flush=True)
    time.sleep(600)
'''
#: What a stage and the flow need has been imported elsewhere; here the server imports little.
MODULES = ("json", "library")
LIBRARY = """
import sys, weakref
weakref.finalize(sys, print, "the library's")
"""
#: Is another variable for each test.
PYTEST = "PYTEST_CURRENT_TEST"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("forked")
    (folder / "toy.py").write_text(TOY)
    (folder / "library.py").write_text(LIBRARY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.delenv(forked.VARIABLE, raising=False)
        patch.delenv(PYTEST, raising=False)
        with fork_server.serving(folder, MODULES):
            path = Path(os.environ[forked.VARIABLE])
            until(path.exists, "the server")
            yield folder


def start(folder: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lori_core.core.processes.forked", "toy", *words],
        cwd=folder,
        env=environment(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    return {n: v for n, v in {**child_environment(), **variables}.items() if n != PYTEST}


def run(folder: Path, *words: str, **variables: str) -> tuple[int, str, str]:
    process = start(folder, *words, **variables)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def alone(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    return {forked.VARIABLE: "", **(variables or {})}


def log(folder: Path) -> str:
    return (folder / ".lori/logs/fork.log").read_text()


def alive(*pids: int) -> list[int]:
    found = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.parametrize(
    "words", [("say", "a b", "é"), ("exit", "0"), ("exit", "3"), ("segfault",)]
)
def test_a_forked_command_does_what_it_does_alone(server: Path, words: tuple[str, ...]) -> None:
    told = {"LORI_TOLD": "something"}
    assert run(server, *words, **told) == run(server, *words, **alone(told))


def test_variables_that_others_set_meanwhile_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORI_TOLD", "before")
    monkeypatch.delenv("LORI_NEW", raising=False)
    monkeypatch.delenv("LORI_OTHER", raising=False)
    with fork_server.variables({"LORI_TOLD": "inside", "LORI_NEW": "inside"}):
        assert (os.environ["LORI_TOLD"], os.environ["LORI_NEW"]) == ("inside", "inside")
        os.environ["LORI_OTHER"] = "set by a thread"
    assert os.environ.pop("LORI_OTHER") == "set by a thread"
    assert os.environ["LORI_TOLD"] == "before"
    assert "LORI_NEW" not in os.environ


def test_a_commands_collector_leaves_alone_what_the_server_imported(server: Path) -> None:
    assert run(server, "collector")[1] == "True True\n"
    assert run(server, "collector", **alone())[1] == "True False\n"


def test_a_command_calls_its_own_finalizers_and_none_of_what_the_server_imported(
    server: Path,
) -> None:
    assert run(server, "finalizers")[1] == "the command's\n"
    assert sorted(run(server, "finalizers", **alone())[1].splitlines()) == [
        "the command's",
        "the library's",
    ]


def test_the_tables_of_transformers_are_there_before_a_stage_asks() -> None:
    from transformers import conversion_mapping

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion_mapping, "_checkpoint_conversion_mapping_cache", None)
        fork_server._prepare_tables()
        assert conversion_mapping._checkpoint_conversion_mapping_cache is not None


def test_an_error_is_shown_and_ends_with_1(server: Path) -> None:
    code, _, errors = run(server, "raise")
    assert code == 1
    assert errors.splitlines()[-1] == "ValueError: broken"


def test_a_command_is_not_a_child_of_its_client(server: Path) -> None:
    process = start(server, "parent")
    output, _ = process.communicate(timeout=60)
    assert str(process.pid) not in output.split()


def test_a_process_without_a_server_runs_its_command_itself(server: Path) -> None:
    process = start(server, "parent", **alone())
    output, _ = process.communicate(timeout=60)
    assert output.split()[1] == str(process.pid)
    gone = start(server, "parent", **{forked.VARIABLE: str(server / "no-socket")})
    output, _ = gone.communicate(timeout=60)
    assert output.split()[1] == str(gone.pid)


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "PYTHONHASHSEED", "ANYTHING"])
def test_a_variable_that_imports_may_have_read_must_be_the_same(server: Path, name: str) -> None:
    process = start(server, "parent", **{name: "1"})
    output, _ = process.communicate(timeout=60)
    assert output.split()[1] == str(process.pid)
    assert f"not forked: the variable {name} differs from the server's" in log(server)


def test_code_that_was_changed_is_not_forked(server: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("one = 1\n")
    os.utime(tmp_path / "own.py", (1, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{server}")
        patch.delenv(forked.VARIABLE)
        patch.delenv(PYTEST)
        with fork_server.serving(tmp_path, ("own",)):
            until(Path(os.environ[forked.VARIABLE]).exists, "the server")
            (tmp_path / "own.py").write_text("one = 2\n")
            process = start(server, "parent")
            output, _ = process.communicate(timeout=60)
            assert output.split()[1] == str(process.pid)
    assert "not forked: code was changed since the server imported it" in log(tmp_path)


#: A module whose import takes until a file appears.
SLOW = "import time; from pathlib import Path\nwhile not Path('go').exists(): time.sleep(0.01)\n"


@pytest.fixture
def importing(server: Path, tmp_path: Path) -> Iterator[Path]:
    """Start a server that imports until the file `go` exists in its folder."""
    (tmp_path / "slow.py").write_text(SLOW)
    os.utime(tmp_path / "slow.py", (1, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{server}")
        patch.delenv(forked.VARIABLE)
        patch.delenv(PYTEST, raising=False)
        with fork_server.serving(tmp_path, ("slow",)):
            until(Path(os.environ[forked.VARIABLE]).exists, "the server")
            yield tmp_path


def asked(folder: Path, *words: str) -> socket.socket:
    """Send the request of a client; return its connection."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(os.environ[forked.VARIABLE])
    request = forked._request("toy", words) | {"environment": environment({})}
    with (folder / "null").open("w+b") as null:
        forked.send(connection, request | {"folder": str(folder)}, [null.fileno()] * 3)
    return connection


def test_a_command_waits_for_the_servers_imports(importing: Path) -> None:
    with asked(importing, "exit", "3") as connection:
        assert select.select([connection], [], [], 0)[0] == []
        (importing / "go").touch()
        assert set(forked.receive(connection)[0] or {}) == {"process"}
        assert forked.receive(connection)[0] == {"code": 3}
    assert log(importing) == ""


def test_a_command_whose_client_has_gone_meanwhile_is_not_started(importing: Path) -> None:
    asked(importing, "exit", "3").close()
    (importing / "go").touch()
    assert run(importing, "exit", "4")[0] == 4
    assert log(importing) == "not forked: the client has gone\n"


def test_a_server_that_dies_while_it_imports_lets_commands_run_by_themselves(
    importing: Path,
) -> None:
    path = os.environ[forked.VARIABLE]
    (helper,) = [child for child in psutil.Process().children() if path in child.cmdline()]
    with ThreadPoolExecutor() as pool:
        code = pool.submit(forked.run_in_fork_server, "toy", ["exit", "3"])
        helper.kill()
        assert code.result(60) is None


def test_the_server_has_imported_what_dvc_and_the_command_line_need(toy: Path) -> None:
    code = (
        "import importlib, sys; from flows.execution.fork_server import MODULES\n"
        "for name in MODULES: importlib.import_module(name)\n"
        "before = set(sys.modules)\n"
        "from flows.execution.stage_process import reproduce; import lori_cli\n"
        "assert reproduce('prepare') == 0; lori_cli._parser()\n"
        "print('new:', *sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=toy,
        env=environment({}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "new: flows.execution.stage_process"


@pytest.mark.parametrize("command", ["stage", "point"])
def test_the_client_of_a_stage_imports_next_to_nothing(server: Path, command: str) -> None:
    code = (
        "import sys; from lori_cli import main; sys.argv[1:] = [sys.argv[1], '--help']\n"
        "try: main()\n"
        "finally: print(len(sys.modules), *sorted(n for n in sys.modules if '.' not in n))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, command],
        cwd=server,
        env=environment({}),
        capture_output=True,
        text=True,
        check=True,
    )
    *help_text, modules = done.stdout.splitlines()
    assert help_text[0].startswith(f"usage: lori {command} ")
    count, *names = modules.split()
    assert int(count) < 150
    assert {"pydantic", "yaml", "numpy", "flows"}.isdisjoint(names)


@pytest.mark.parametrize(("word", "code"), [("told", 7), ("wait", -signal.SIGTERM)])
def test_a_signal_reaches_the_command(server: Path, word: str, code: int) -> None:
    process = start(server, word)
    assert process.stdout is not None
    _, *pids = process.stdout.readline().split()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == code
    until(lambda: not alive(*map(int, pids)), "the end")


@pytest.mark.parametrize("word", ["wait", "stubborn"])
def test_a_killed_client_takes_its_command_along(server: Path, word: str) -> None:
    process = start(server, word)
    assert process.stdout is not None
    _, *pids = process.stdout.readline().split()
    process.kill()
    until(lambda: not alive(*map(int, pids)), "the end")
    assert run(server, "exit", "4")[0] == 4


def test_a_killed_warden_takes_its_command_along(server: Path) -> None:
    process = start(server, "wait")
    assert process.stdout is not None
    _, *pids = process.stdout.readline().split()
    psutil.Process(int(pids[0])).parent().kill()  # type: ignore[union-attr]
    assert process.wait(60) == 1
    until(lambda: not alive(*map(int, pids)), "the end")


def test_a_killed_server_leaves_its_commands_and_makes_the_next_start_by_themselves(
    tmp_path: Path, server: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(forked.VARIABLE)
        patch.delenv(PYTEST)
        with fork_server.serving(tmp_path, MODULES):
            path = Path(os.environ[forked.VARIABLE])
            until(path.exists, "the server")
            process = start(server, "told")
            assert process.stdout is not None
            _, *pids = process.stdout.readline().split()
            (helper,) = [
                child for child in psutil.Process().children() if str(path) in child.cmdline()
            ]
            helper.kill()
            helper.wait(60)
            next_one = start(server, "parent")
            output, _ = next_one.communicate(timeout=60)
            assert output.split()[1] == str(next_one.pid)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 7
        assert not path.parent.exists()
    until(lambda: not alive(*map(int, pids)), "the end")


def test_the_server_ends_with_the_flow_and_its_folder_is_for_the_user_alone(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(forked.VARIABLE, raising=False)
        code = (
            "import os, sys, time; from pathlib import Path\n"
            "from flows.execution import fork_server\n"
            f"with fork_server.serving(Path({str(tmp_path)!r}), {MODULES!r}):\n"
            "    path = Path(os.environ['LORI_FORK_SERVER'])\n"
            "    while not path.exists(): time.sleep(0.02)\n"
            "    print(path, oct(path.parent.stat().st_mode & 0o777), flush=True)\n"
            "    time.sleep(600)\n"
        )
        flow = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert flow.stdout is not None
        path, mode = flow.stdout.readline().split()
        assert mode == "0o700"
        (helper,) = psutil.Process(flow.pid).children()
        flow.kill()
        flow.wait()
        until(lambda: not alive(helper.pid), "the end")
        with fork_server.serving(tmp_path, MODULES):
            assert not Path(path).parent.exists()
