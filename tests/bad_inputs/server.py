"""`python -m bad_inputs.server`: run `lori` commands, each in a process forked from here.

Requests and answers are lines of JSON on standard input and output. This process is started fresh
and never computes anything, so no thread exists when it forks.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import json
import os
import resource
import runpy
import select
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO, Any, NoReturn

#: Address space that a command may add to what the libraries have; more is a bug that must not
#: take the machine down with it.
ADDRESS_SPACE = 12 << 30


def main() -> None:
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _import_what_is_slow()
    gc.collect()
    gc.freeze()
    print("ready", file=answers, flush=True)
    for line in requests:
        answers.write(json.dumps(_run(json.loads(line))) + "\n")
        answers.flush()


def _import_what_is_slow() -> None:
    from lori_cli import main as lori

    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        lori(["--version"])  # sets the environment in which a command imports its libraries
    import peft  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import flows.versioning.graph  # noqa: F401
    import lori_core.pipeline.running  # noqa: F401
    from lori_core.adapters import base_choice, inspection  # noqa: F401
    from lori_core.merging import merge  # noqa: F401
    from lori_core.pipeline import params_file  # noqa: F401

    torch.set_num_threads(1)


def _run(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        before = _resident()
        process = os.fork()
        if not process:
            _be_the_command(request, out, err)
        code, usage = _wait(process, request["seconds"])
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="backslashreplace"))
    growth = max(0, usage.ru_maxrss * 1024 - before)
    seconds = usage.ru_utime + usage.ru_stime
    return {"code": code, "out": texts[0], "err": texts[1], "seconds": seconds, "growth": growth}


def _be_the_command(request: dict[str, Any], out: IO[bytes], err: IO[bytes]) -> NoReturn:
    code: Any = 1
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (out.fileno(), 1), (err.fileno(), 2)):
            os.dup2(source, target)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, used + ADDRESS_SPACE))
        os.chdir(request["folder"])
        os.environ.update(request["environment"])
        sys.argv = ["lori", *request["argv"]]
        runpy.run_module("lori_cli.__main__", run_name="__main__")
        code = 0
    except SystemExit as stopped:
        code = stopped.code if stopped.code is not None else 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _wait(process: int, seconds: float) -> tuple[int | None, resource.struct_rusage]:
    """Return a process's exit code, None where it was stopped, and what it used."""
    handle = os.pidfd_open(process)
    ended, _, _ = select.select([handle], [], [], seconds)
    os.close(handle)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # and whatever it has started
    _, status, usage = os.wait4(process, 0)
    return (os.waitstatus_to_exitcode(status) if ended else None), usage


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
