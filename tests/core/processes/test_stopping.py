"""SIGINT, SIGTERM and SIGHUP at any moment of a command: one exit code, one line, no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

#: A command that does what a test says, in place of one of the real ones.
FRAME = """
import atexit, os, signal, sys, threading, time
NUMBER = {number}
def me():
    os.kill(os.getpid(), NUMBER)
import lori_cli as cli; from lori_core.core.processes import stopping
from lori_core.core.errors import LoriError
stopping.AGAIN_SECONDS = 0.5
def work(argv, args):
    args.command = "run"
{body}
cli._run = work
code = cli.main()
{after}
sys.exit(code)
"""

MOMENTS = {
    "at work": "me(); time.sleep(60)",
    "while it is imported": """
        with open("slow.py", "w") as file:
            file.write(f"import os, time; os.kill(os.getpid(), {NUMBER}); time.sleep(60)")
        sys.path.insert(0, "")
        import slow
    """,
    "twice": """
        try:
            me()
            time.sleep(60)
        finally:
            me()
            open("cleaned", "w").close()
    """,
    "where a library turns it into an error of its own": """
        try:
            me()
            time.sleep(60)
        except BaseException as error:
            raise RuntimeError("a library's") from error
    """,
    "where a library turns it into an error of ours": """
        try:
            me()
            time.sleep(60)
        except BaseException:
            return cli._failed(LoriError("broken off"), args)
    """,
    "where a library takes it for the end": """
        try:
            me()
            time.sleep(60)
        except BaseException:
            return 0
    """,
    "where nobody can be told": """
        class Deaf:
            def __del__(self):
                me()
                [number for number in range(10)]
        del Deaf
        class Deaf:
            def __del__(self):
                me()
        Deaf()
        time.sleep(60)
    """,
    "while a thread works": """
        told = threading.Event()
        def job():
            with stopping.listening(told.set):
                me()
                assert told.wait(60)
            stopping.check()
        stopping.in_thread(job)
    """,
    "with a thread that fails while it ends": """
        def fail():
            time.sleep(0.3)
            raise RuntimeError("no loop any more")
        threading.Thread(target=fail).start()
        me()
        time.sleep(60)
    """,
}


def ended(
    folder: Path, number: int, body: str, after: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command that does what `body` says, until it ends."""
    lines = "".join(f"    {line}\n" for line in dedent(body).strip().splitlines())
    script = FRAME.format(number=int(number), body=lines, after=after)
    return subprocess.run(
        [sys.executable, "-c", script, "run"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        # A test that runs in the background of a shell has SIGINT ignored, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_the_same_way_at_any_moment(
    number: signal.Signals, moment: str, tmp_path: Path
) -> None:
    done = ended(tmp_path, number, MOMENTS[moment])
    assert (done.stderr, done.returncode) == (
        "lori: stopped; run again to go on\n",
        128 + number,
    )
    assert (tmp_path / "cleaned").exists() == (moment == "twice")


def test_a_terminal_that_is_closed_stops_a_command(tmp_path: Path) -> None:
    assert ended(tmp_path, signal.SIGHUP, "me(); time.sleep(60)").returncode == 129


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    # As under nohup, or in the background of a shell without job control.
    body = "me(); return 0"
    script = FRAME.format(number=int(signal.SIGHUP), body=f"    {body}\n", after="")
    done = subprocess.run(
        [sys.executable, "-c", f"import signal; signal.signal(1, signal.SIG_IGN)\n{script}", "run"],
        cwd=tmp_path,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0


def test_a_signal_after_the_work_is_done_changes_nothing(tmp_path: Path) -> None:
    done = ended(tmp_path, signal.SIGINT, "return 0", after="me(); atexit.register(me)")
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_command_without_anything_to_go_on_with_does_not_promise_it(tmp_path: Path) -> None:
    done = ended(tmp_path, signal.SIGINT, 'sys.argv[1] = "merge"; me(); time.sleep(60)')
    assert done.stderr == "lori: stopped\n"


def test_what_is_forked_ends_at_a_signal_as_before(tmp_path: Path) -> None:
    body = """
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(1)
        os.kill(child, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) + 100
    """
    assert ended(tmp_path, signal.SIGTERM, body).returncode == 100 - signal.SIGTERM


def test_a_hanging_end_has_a_limit(tmp_path: Path) -> None:
    body = """
        stopping.EXIT_SECONDS = 0.2
        threading.Thread(target=time.sleep, args=(60,)).start()
        me()
        time.sleep(60)
    """
    done = ended(tmp_path, signal.SIGTERM, body)
    assert (done.stderr, done.returncode) == ("lori: stopped; run again to go on\n", 143)


def test_the_real_commands_stop_while_they_start(tmp_path: Path) -> None:
    """Interrupted when the first heavy library is imported."""
    hook = """
    import importlib.abc, os, signal, sys
    class Interrupt(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name in ("torch", "dvc", "pydantic"):
                os.kill(os.getpid(), signal.SIGINT)
    sys.meta_path.insert(0, Interrupt())
    from lori_cli import main
    sys.exit(main())
    """
    for command, said in {
        "run": "lori: stopped; run again to go on\n",
        "stage merge concat": "lori: stopped; run again to go on\n",
        "merge a b -o c": "lori: stopped\n",
        "evaluate a --tasks math": "lori: stopped\n",
    }.items():
        done = subprocess.run(
            [sys.executable, "-c", dedent(hook), *command.split()],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert (done.stderr, done.returncode) == (said, 130), command
