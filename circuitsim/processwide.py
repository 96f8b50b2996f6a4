"""State of the whole process that others rely on: changed by one at a time, and given back."""

from __future__ import annotations

import builtins
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from threadpoolctl import ThreadpoolController

_importing = threading.RLock()
_counting = threading.Lock()
_limits: list[Any] = []  # of BLAS threads, while anybody wants one thread alone
_preferences = "brian_preferences"  # a file that Brian2 evaluates as Python, wherever it is started
_elsewhere = False  # whether that of the working directory is somebody else's


def ignore_local_preferences(ignored: bool = True) -> bool:
    """Let Brian2 take no preferences from the working directory; return whether it was so before.

    A command is started in any directory, to look at files that others have made.
    """
    global _elsewhere
    before, _elsewhere = _elsewhere, ignored
    return before


def local_preferences_ignored() -> bool:
    """Whether `ignore_local_preferences` holds."""
    return _elsewhere


def load_brian2() -> None:
    """Import Brian2, in any thread, and leave the process as it was.

    Brian2 takes over SIGINT, which only the main thread may, and how uncaught errors are shown. A
    user who imports Brian2 wants that; a user of this package has not asked for it.
    """
    with _importing:
        if "brian2" in sys.modules:
            import brian2  # waits until another thread has done so

            return
        hook, set_handler, opened = sys.excepthook, signal.signal, builtins.open
        in_main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGINT)

        def only_in_main(number: Any, action: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                return set_handler(number, action)
            return signal.getsignal(number)

        def not_here(file: Any, *arguments: Any, **further: Any) -> Any:
            if file == _preferences:
                raise FileNotFoundError(file)
            return opened(file, *arguments, **further)

        signal.signal = only_in_main  # type: ignore[assignment]
        if _elsewhere:
            builtins.open = not_here
        try:
            import brian2  # noqa: F401
        finally:
            builtins.open = opened
            signal.signal = set_handler
            sys.excepthook = hook
            if in_main and handler is not None:
                with suppress(ValueError):
                    signal.signal(signal.SIGINT, handler)


def tell_unless_starved(died: threading.ExceptHookArgs) -> None:
    """Print the traceback of a thread that dies, but not where there is no memory for it.

    Whoever waits for such a thread tells of it. Takes the place of ``threading.excepthook``.
    """
    error = died.exc_value
    if not isinstance(error, MemoryError) and "start new thread" not in str(error):
        threading.__excepthook__(died)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let matrix products use one thread, for as long as anybody is within this context.

    Threads that share small matrices get in each other's way. The limit belongs to the process: the
    first to come sets it, the last to go takes it back, in whatever order they come and go.
    """
    with _counting:
        if not _limits:
            # Looks anew which libraries there are: some may have come since.
            _limits.append(ThreadpoolController().limit(limits=1))
        _limits.append(None)
    try:
        yield
    finally:
        with _counting:
            _limits.pop()
            if len(_limits) == 1:
                _limits.pop().restore_original_limits()
