"""How a command stops: SIGINT (Ctrl-C), SIGTERM and SIGHUP end it in order, with one exit code.

The first of these signals raises `Stopped` in the main thread, or, while the work runs in a thread
(`in_thread`), is told to whoever listens. Later signals change nothing: cleaning up is not
interrupted. A library may swallow the exception or turn it into another; what counts is that the
signal came (`asked`). After `LIMIT_SECONDS` the process ends, whatever it hangs on.
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
#: A swallowed exception is raised again after this time.
AGAIN_SECONDS = 15.0
#: How long stopping may take: stages have ten seconds to end, Prefect and MLflow are told.
LIMIT_SECONDS = 120.0
#: How long the interpreter may take to end once the command has.
EXIT_SECONDS = 5.0
POLL_SECONDS = 0.1


class Stopped(KeyboardInterrupt):
    """The process was asked to stop."""


class _State:
    number: int | None = None
    """The first signal that came."""
    raises = True
    """Whether signals raise in the main thread."""
    raise_again = False
    """Whether the next signal is our own: the first one's exception was swallowed."""
    ended = False
    """Whether the command has ended: what comes now is too late."""
    blocked: Collection[int] = ()
    """The signals that were blocked before a fork."""
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
            _state.number = None


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
    if _state.raises and (first or _state.raise_again):
        _state.raise_again = False
        raise Stopped


def _be_silent() -> None:
    """Keep the complaints of what is torn down away from the terminal."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda unraisable: None
    threading.excepthook = lambda arguments: None


def _watch() -> None:
    """Raise again where the exception was swallowed; end the process where it hangs."""
    limit, again = time.monotonic() + LIMIT_SECONDS, time.monotonic() + AGAIN_SECONDS
    while not _state.ended and time.monotonic() < limit:
        time.sleep(POLL_SECONDS)
        if _state.raises and time.monotonic() > again:
            again += AGAIN_SECONDS
            _state.raise_again = True
            signal.pthread_kill(threading.main_thread().ident or 0, _state.number or signal.SIGTERM)
    if _state.ended:
        time.sleep(EXIT_SECONDS)  # threads of Prefect's may wait for a server without end
    else:
        os.write(2, b"lori: stopped by force: it took too long\n")
    os._exit(asked() or 1)


def _before_fork() -> None:
    """Hold signals back: one that came before the child is ready would be lost there."""
    _state.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _after_fork_in_parent() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _state.blocked)


def _after_fork_in_child() -> None:
    """Let a forked process end at once, as one does that handles no signals."""
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
