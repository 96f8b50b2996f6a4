"""Executors on this machine whose jobs report how far they are, and that end fast."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import suppress
from typing import Any

import threadpoolctl

_POLL = 0.1  # seconds between looks at what runs
_GRACE = 1.0  # seconds that a worker gets to end what it has started

# In a worker: where it says how far it is, and whether it runs a job.
_messages: Any = None
_working = False


def available_cores() -> int:
    """Cores that this process may use, by its affinity and its control group's quota."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    with suppress(OSError, ValueError):
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


class LocalPool(Executor):
    """Processes of this machine, one BLAS thread each.

    Parameters
    ----------
    jobs : int
        How many.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["circuitsim.studies.study"])
        self._messages: Any = self._context.Queue()
        self._fractions: dict[int, float] = {}
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._jobs,
            mp_context=self._context,
            initializer=_initialize,
            initargs=(self._messages,),
        )

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in one of the processes."""
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except BrokenExecutor:  # a process has died
            self._end()
            self._pool = self._start()
            return self._pool.submit(fn, *args, **kwargs)

    def submit_watched(self, number: int, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run a function that takes a callable for its progress as its last argument."""
        return self.submit(_watched, number, fn, *args)

    def fractions(self) -> dict[int, float]:
        """How far the jobs are that have said so, by number."""
        with suppress(queue.Empty):
            while True:
                number, fraction = self._messages.get_nowait()
                self._fractions[number] = fraction
        return self._fractions

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes; those that still run something are stopped."""
        self._end()

    def _end(self) -> None:
        # The pool itself would wait for what runs; there is no public way to stop it before 3.14.
        processes = list((getattr(self._pool, "_processes", None) or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for end in ("terminate", "kill"):
            for process in processes:
                with suppress(OSError, ValueError):
                    getattr(process, end)()
            deadline = time.monotonic() + _GRACE
            for process in processes:
                process.join(max(0.0, deadline - time.monotonic()))


class ThreadedPool(Executor):
    """Threads of this process, for engines whose loops leave Python: they start at once.

    Parameters
    ----------
    jobs : int
        How many.
    """

    def __init__(self, jobs: int) -> None:
        # For as long as the pool lives: limits that threads set and lift would overlap.
        self._limits = threadpoolctl.threadpool_limits(1)
        self._pool = ThreadPoolExecutor(jobs)
        self._ended = threading.Event()
        self._fractions: dict[int, float] = {}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in one of the threads."""
        return self._pool.submit(fn, *args, **kwargs)

    def submit_watched(self, number: int, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run a function that takes a callable for its progress as its last argument."""

        def progress(fraction: float) -> None:
            if self._ended.is_set():
                raise CancelledError
            self._fractions[number] = fraction

        return self.submit(fn, *args, progress)

    def fractions(self) -> dict[int, float]:
        """How far the jobs are that have said so, by number."""
        return dict(self._fractions)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads; those that still run something stop when they next tell of it."""
        self._ended.set()
        self._pool.shutdown(wait=wait, cancel_futures=True)
        self._limits.restore_original_limits()


def run_all(
    pool: LocalPool | ThreadedPool,
    tasks: Sequence[tuple[Any, ...]],
    cost: Sequence[float],
    advanced: Callable[[float], None] | None = None,
) -> list[Any]:
    """Run functions whose last argument is a callable for their progress.

    Parameters
    ----------
    pool : LocalPool or ThreadedPool
        Where.
    tasks : sequence of tuple
        A function and its arguments but the last.
    cost : sequence of float
        How long each task takes, in any unit: the longest start first, so that all of the pool is
        busy until the end.
    advanced : callable, optional
        Called now and then with the share of the work that is done.

    Returns
    -------
    list
        What the functions returned. If one raises an exception, that is raised.
    """
    order = sorted(range(len(tasks)), key=lambda number: -cost[number])
    running = {pool.submit_watched(number, *tasks[number]): number for number in order}
    returned = dict.fromkeys(range(len(tasks)))
    while running:
        done, _ = wait(running, timeout=_POLL, return_when=FIRST_COMPLETED)
        for future in done:
            returned[running.pop(future)] = future.result()
        if advanced is not None:
            parts = pool.fractions()
            left = sum(cost[number] * (1 - parts.get(number, 0.0)) for number in running.values())
            advanced(1 - left / sum(cost))
    return list(returned.values())


def _watched(number: int, fn: Callable[..., Any], *args: Any) -> Any:
    global _working
    last = 0.0

    def progress(fraction: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.1:
            last = now
            _messages.put((number, fraction))

    _working = True
    try:
        return fn(*args, progress)
    except SystemExit:  # the pool would catch it and go on
        os._exit(1)
    finally:
        _working = False


def _initialize(messages: Any) -> None:
    """Prepare a worker process."""
    global _messages
    _messages = messages
    # Ctrl-C reaches the whole group; the parent decides what ends. SIGTERM ends a worker together
    # with what it has started, at once or from within its job.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpoolctl.threadpool_limits(1)
    # What there is to say of how circuits are run, the parent has said.
    logging.getLogger("circuitsim").setLevel(logging.ERROR)


def _terminate(_signal: int, _frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not _working:
        os._exit(1)
    sys.exit(1)  # an exception, so that the job cleans up


def _end_with_parent() -> None:
    """End this process when its parent has died, which a pool's workers do not do by themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
