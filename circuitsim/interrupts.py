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
    """Repeat a SIGINT or SIGTERM until its exception has left this context.

    An exception that a signal's handler raises while a library calls Python back, as LLVM does when
    it compiles, is printed or lost, and the work goes on. Only in the main thread, which alone
    receives signals, and where there are timers.
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
    received: list[int] = []
    inside = True

    def handle(number: int, frame: FrameType | None) -> None:
        if number in previous:
            received[:] = [number]
        if inside and received:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
            previous[received[0]](received[0], frame)
            # It has returned: dealt with.
            signal.setitimer(signal.ITIMER_REAL, 0)
            received.clear()

    alarm = signal.signal(signal.SIGALRM, handle)
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
        if received:
            # In the place of whatever the library made of it.
            previous[received[0]](received[0], None)
