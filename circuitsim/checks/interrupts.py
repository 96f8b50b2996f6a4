"""Interrupts that libraries do not lose."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_AGAIN = 0.2  # seconds


@contextmanager
def insistent() -> Iterator[None]:
    """Raise what a handler of SIGINT or SIGTERM has raised until it has left this context.

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
        for number in (signal.SIGINT, signal.SIGTERM)
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
