"""Stop a command in order on SIGINT (Ctrl-C), SIGTERM and SIGHUP, with one exit code per signal.

The first of these signals raises `Stopped` in the main thread or, while the work runs in a thread
(`in_thread`), calls the listeners. Later signals are ignored, so cleanup is not interrupted. Since
a library may swallow the exception or replace it, `stop_exit_code` tells whether a signal was
received. After `LIMIT_SECONDS` the process is ended by force.
"""

from __future__ import annotations

import _thread
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: The exit codes of a process that a signal has stopped.
EXIT_CODES = tuple(128 + number for number in SIGNALS)
#: After this time, a swallowed exception is raised again.
AGAIN_SECONDS = 15.0
#: The most time for stopping: stages have ten seconds to end, and Prefect and MLflow are updated.
LIMIT_SECONDS = 120.0
#: The most time for the interpreter's shutdown after the command's end.
EXIT_SECONDS = 5.0
POLL_SECONDS = 0.1


class Stopped(KeyboardInterrupt):
    """The process received a signal to stop."""


class _State:
    number: int | None = None
    """The first signal received."""
    raises = True
    """Whether signals raise in the main thread."""
    raise_again = False
    """Whether the next signal is sent by `_watch`, because the exception was swallowed."""
    ended = False
    """Whether the command has ended; later signals are ignored."""
    blocked: Collection[int] = ()
    """The signals that were blocked before a fork."""
    owned = False
    """Whether this process ends with the command."""


_state = _State()
_listeners: list[Callable[[], None]] = []


def stop_exit_code() -> int | None:
    """Return the exit code (128 + number) of the signal received; None if there was none."""
    return None if _state.number is None else 128 + _state.number


def check() -> None:
    """Raise `Stopped` if this process received a signal to stop."""
    if _state.number is not None:
        raise Stopped


@contextmanager
def handled(*, owned: bool) -> Iterator[None]:
    """Let signals stop the command that runs inside; signals that were ignored stay ignored.

    Args:
        owned: whether the process ends with the command. If so, later signals are ignored,
            warnings and logs are silenced during the stop, and the stop has a time limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    handled_signals = [n for n, handler in before.items() if handler is not signal.SIG_IGN]
    _state.number, _state.raises, _state.ended, _state.owned = None, True, False, owned
    for number in handled_signals:
        signal.signal(number, _handle)
    try:
        yield
    finally:
        _state.ended = True
        if not owned:
            for number in handled_signals:
                signal.signal(number, before[number])
            _state.number = None


def _handle(number: int, frame: FrameType | None) -> None:
    if _state.ended:
        return
    first = _state.number is None
    if first:
        _state.number = number
        if _state.owned:
            _silence_warnings()
            # Not `threading`, whose locks the interrupted code may hold.
            _thread.start_new_thread(_watch, ())
    if _state.raises and (first or _state.raise_again):
        _state.raise_again = False
        raise Stopped


def _silence_warnings() -> None:
    """Silence logs, warnings and thread exceptions while libraries are shut down."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda unraisable: None
    threading.excepthook = lambda arguments: None


def _watch() -> None:
    """Raise again if the exception was swallowed; end the process if it hangs."""
    limit, again = time.monotonic() + LIMIT_SECONDS, time.monotonic() + AGAIN_SECONDS
    while not _state.ended and time.monotonic() < limit:
        time.sleep(POLL_SECONDS)
        if _state.raises and time.monotonic() > again:
            again += AGAIN_SECONDS
            _state.raise_again = True
            signal.pthread_kill(threading.main_thread().ident or 0, _state.number or signal.SIGTERM)
    if _state.ended:
        time.sleep(EXIT_SECONDS)  # Prefect's threads may wait forever for a server
    else:
        os.write(2, b"lori: stopped by force: it took too long\n")
    os._exit(stop_exit_code() or 1)


def _before_fork() -> None:
    """Block signals: one that arrives before the child is ready would be lost there."""
    _state.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _after_fork_in_parent() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _state.blocked)


def _after_fork_in_child() -> None:
    """Restore the default signal handlers in a forked process."""
    for number in SIGNALS:
        if signal.getsignal(number) is _handle:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, _state.blocked)


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)


@contextmanager
def listening(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` once, in another thread, when this process receives a signal to stop."""
    _listeners.append(stop)
    try:
        if _state.number is not None:
            stop()
        yield
    finally:
        _listeners.remove(stop)


def in_thread(work: Callable[[], T]) -> T:
    """Run work in another thread and return its result; signals only call the listeners.

    For work that an exception must not interrupt at any point. The work calls `check` regularly.
    """
    results: list[T] = []
    failed: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            results.append(work())
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
    return results[0]
