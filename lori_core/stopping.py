"""How a command stops: SIGINT (Ctrl-C), SIGTERM and SIGHUP end it in order, with one exit code.

The first of these signals raises `Stopped` in the main thread, or, while the work runs in a thread
(`in_thread`), is told to whoever listens. Later signals change nothing: cleaning up is not
interrupted. A library may swallow the exception or turn it into another; what counts is that the
signal came (`asked`). After `LIMIT_SECONDS` the process ends, whatever it hangs on.
"""

from __future__ import annotations

import _thread
import ctypes
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: The exit codes of a process that a signal has stopped.
EXIT_CODES = tuple(128 + number for number in SIGNALS)
#: A swallowed exception is raised again after this time.
AGAIN_SECONDS = 15.0
#: How long stopping may take: stages have ten seconds to end, Prefect and MLflow are told.
LIMIT_SECONDS = 60.0
POLL_SECONDS = 0.1


class Stopped(KeyboardInterrupt):  # noqa: N818 - no error
    """The process was asked to stop."""


class _State:
    number: int | None = None
    """The first signal that came."""
    raises = True
    """Whether signals raise in the main thread."""
    ended = False
    """Whether the command has ended: what comes now is too late."""
    owned = False
    """Whether this process is the command's own, and ends with it."""


_state = _State()
_listeners: list[Callable[[], None]] = []


def asked() -> int | None:
    """Return the exit code of the signal by which this process was asked to stop, if it was."""
    return None if _state.number is None else 128 + _state.number


def check() -> None:
    """Raise `Stopped` if this process was asked to stop."""
    if _state.number is not None:
        raise Stopped


@contextmanager
def handled(*, owned: bool) -> Iterator[None]:
    """Let signals stop the command that runs inside; those that are ignored stay ignored.

    Args:
        owned: whether the process ends with the command. Then signals that come later are without
            effect, nothing but the command speaks once it stops, and hanging has a limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    mine = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    _state.number, _state.raises, _state.ended, _state.owned = None, True, False, owned
    for number in mine:
        signal.signal(number, _handle)
    try:
        yield
    finally:
        _state.ended = True
        if not owned:
            for number in mine:
                signal.signal(number, before[number])


def _handle(number: int, frame: FrameType | None) -> None:
    if _state.ended:
        return
    first = _state.number is None
    if first:
        _state.number = number
        if _state.owned:
            _be_silent()
            # Not threading's: its locks may be held by what was just interrupted.
            _thread.start_new_thread(_watch, ())
    if _state.raises and first:
        raise Stopped


def _be_silent() -> None:
    """Keep the complaints of what is torn down away from the terminal."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda unraisable: None
    threading.excepthook = lambda arguments: None


def _watch() -> None:
    """Raise again where the exception was swallowed; end the process where it hangs."""
    for _ in range(int(LIMIT_SECONDS / AGAIN_SECONDS)):
        time.sleep(AGAIN_SECONDS)
        if not _state.ended and _state.raises:
            _raise_in_main_thread()
    if not _state.ended:
        os.write(2, b"lori: stopped by force: it took too long\n")
    os._exit(asked() or 1)


def _raise_in_main_thread() -> None:
    main = ctypes.c_ulong(threading.main_thread().ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(main, ctypes.py_object(Stopped))


def _in_child() -> None:
    """Let a forked process end at once, as one does that handles no signals."""
    for number in SIGNALS:
        if signal.getsignal(number) is _handle:
            signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_in_child)


@contextmanager
def listening(stop: Callable[[], None]) -> Iterator[None]:
    """Let `stop` be called, once and in another thread, when this process is asked to stop."""
    _listeners.append(stop)
    try:
        if _state.number is not None:
            stop()
        yield
    finally:
        _listeners.remove(stop)


def in_thread(work: Callable[[], T]) -> T:
    """Run work in a thread of its own and wait for it; signals tell the listeners, and no more.

    For what does not bear an exception at any moment. The work asks `check` in between.
    """
    made: list[T] = []
    failed: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            made.append(work())
        except BaseException as error:  # raised below
            failed.append(error)
        finally:
            ended.set()

    _state.raises = False
    try:
        check()
        threading.Thread(target=run, name="work", daemon=True).start()
        told = False
        while not ended.wait(POLL_SECONDS):
            if _state.number is not None and not told:
                told = True
                for stop in list(_listeners):
                    stop()
    finally:
        _state.raises = True
    check()
    if failed:
        raise failed[0]
    return made[0]
