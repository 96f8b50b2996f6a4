"""Interrupts that libraries do not lose."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_AGAIN = 0.2  # seconds

_received: BaseException | None = None  # what a signal has asked for since `receiving` began


@contextmanager
def receiving() -> Iterator[None]:
    """Remember a Ctrl-C, so that `check` can raise it again where a library has lost it.

    Python raises a KeyboardInterrupt wherever the main thread is. In a callback of the import
    system, of C code or of the garbage collector it is printed at most, and the work goes on.
    """
    global _received
    here = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if here else None
    ours = before is signal.default_int_handler  # or ignored, say, as in a script's background
    if ours:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if here:
            _received = None
        if ours:
            signal.signal(signal.SIGINT, before)


def receive(error: BaseException) -> NoReturn:
    """Raise what a signal asks for, from its handler, and remember it for `check`."""
    global _received
    _received = error
    raise error


def check() -> None:
    """Raise what a signal has asked for, if that was lost: called between steps of work."""
    if _received is not None and threading.current_thread() is threading.main_thread():
        raise _received


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    receive(KeyboardInterrupt())


@contextmanager
def insistent() -> Iterator[None]:
    """Raise what a handler of SIGINT, SIGTERM or SIGHUP has raised until it has left this context.

    An exception that a signal's handler raises while a library calls Python back, as LLVM does when
    it compiles, is printed or lost, and the work goes on. The handler itself, which may write a
    checkpoint, is called once for each signal and left to finish. Only in the main thread, which
    alone receives signals, and where there are timers.
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or not hasattr(signal, "setitimer") or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return
    previous: dict[int, Any] = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if callable(signal.getsignal(number))
    }
    raised: BaseException | None = None
    inside = True

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal raised
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            previous[number](number, frame)  # where it returns, it has dealt with the signal
        except BaseException as error:
            raised = error
        again(number, frame)

    def again(_number: int, _frame: FrameType | None) -> None:
        if inside and raised is not None:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
            raise raised

    alarm = signal.signal(signal.SIGALRM, again)
    for number in previous:
        signal.signal(number, handle)
    try:
        yield
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        for number, handler in previous.items():
            signal.signal(number, handler)
        if raised is not None:
            # In the place of whatever the library made of it.
            raise raised
