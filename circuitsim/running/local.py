"""Executors on this machine whose jobs report how far they are, and that end fast."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import threadpoolctl

from circuitsim.processwide import (
    ignore_local_preferences,
    local_preferences_ignored,
    tell_unless_starved,
)

# Cores of a task of a job by Slurm, PBS, Grid Engine, LSF, where nothing else binds it to them.
_OF_JOBS = ("SLURM_CPUS_PER_TASK", "PBS_NCPUS", "NCPUS", "NSLOTS", "LSB_DJOB_NUMPROC")
_CGROUPS = Path("/sys/fs/cgroup")
_GRACE = 1.0  # seconds that a worker gets to end what it has started

# In a worker: where it says how far it is.
_messages: Any = None
_stop: Callable[[], None] | None = None


def available_cores() -> int:
    """Cores that this process may use.

    By its affinity, its control groups' quotas, and what a cluster's job has been given.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    given = [float(os.environ[n]) for n in _OF_JOBS if os.environ.get(n, "").isdecimal()]
    limits = [float(cores), *_quotas(Path("/proc/self/cgroup"), _CGROUPS), *given]
    return max(1, int(min(limits)))


def _quotas(memberships: Path, root: Path) -> list[float]:
    """Cores by the quota of each control group that this process is in (versions 1 and 2)."""
    try:
        lines = memberships.read_text().splitlines()
    except OSError:
        lines = []
    groups = []
    for line in ["0::/", "1:cpu:/", *lines]:  # a container sees its own group as the root
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            group = root
        elif "cpu" in controllers.split(","):
            group = root / controllers if (root / controllers).is_dir() else root / "cpu"
        else:
            continue
        inner = group / path.strip("/")
        # A group is bound by those around it too.
        groups += [inner, *(p for p in inner.parents if p.is_relative_to(group))]
    return [quota for group in dict.fromkeys(groups) if (quota := _quota(group)) is not None]


def _quota(group: Path) -> float | None:
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with suppress(OSError, ValueError):
            quota, period = (
                int(number) for file in files for number in (group / file).read_text().split()
            )
            if quota > 0 and period > 0:
                return quota / period
    return None


class LocalPool(Executor):
    """Processes of this machine, one BLAS thread each.

    Each is on its own: one that dies takes no job but its own with it. One in which a job has
    failed is replaced by a new one, so that what is tried again is tried elsewhere.

    Parameters
    ----------
    jobs : int
        How many.
    stop : callable, optional
        What a process calls before it ends itself, to end what it has started.
    preload : sequence of str
        Modules that all processes share, imported once.
    """

    def __init__(
        self, jobs: int, stop: Callable[[], None] | None = None, preload: Sequence[str] = ()
    ) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        self._stop = stop
        with _uninterrupted():
            forkserver.ensure_running()
        self._messages: Any = self._context.Queue()
        self._fractions: dict[int, float] = {}
        self._processes = [_Process(self._start) for _ in range(jobs)]

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1,
            mp_context=self._context,
            initializer=_initialize,
            initargs=(self._messages, self._stop, local_preferences_ignored()),
        )

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in the process that has the least to do."""
        return min(self._processes, key=lambda p: p.waiting).submit(fn, *args, **kwargs)

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

    def check(self) -> None:
        """Refuse to wait for ever where a pool has lost the thread that gives it its work.

        Raises
        ------
        RuntimeError
            If so: it could not start another one.
        """
        for process in self._processes:
            thread = getattr(process.pool, "_executor_manager_thread", None)
            broken = getattr(process.pool, "_broken", False)
            if process.waiting and not broken and thread is not None and not thread.is_alive():
                raise RuntimeError("can't start new thread")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes; those that still run something are stopped."""
        _end([process.pool for process in self._processes])


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let processes that start here never see Ctrl-C or SIGHUP: their parent decides what ends.

    A fork server that it meets while it imports what it shares would end with a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()  # which the fork server needs, and which unblocks SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _revive_tracker() -> None:
    """Start multiprocessing's tracker of semaphores again, if it was killed with the workers.

    The new one knows nothing of what the old one was told, and prints a traceback for each
    semaphore that is given back: nobody is to see them.
    """
    with open(os.devnull, "wb") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            resource_tracker.ensure_running()
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _end_fork_server() -> None:
    """End the server that was asked for a process when Ctrl-C came; it would start it after all."""
    pid = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
    if pid is not None:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


class _Process:
    """A pool of one process."""

    def __init__(self, start: Callable[[], ProcessPoolExecutor]) -> None:
        self._start = start
        self.pool = start()
        self.waiting = 0
        self._failed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._failed and not self.waiting:
            self._renew()
        try:
            try:
                future = self.pool.submit(fn, *args, **kwargs)
            except BrokenExecutor:  # the process has died
                self._renew()
                future = self.pool.submit(fn, *args, **kwargs)
        except BaseException as error:
            if not isinstance(error, Exception):
                _end_fork_server()
            raise
        self.waiting += 1
        future.add_done_callback(self._done)
        return future

    def _renew(self) -> None:
        _revive_tracker()
        _end([self.pool])
        self.pool = self._start()
        self._failed = False

    def _done(self, future: Future[Any]) -> None:
        self.waiting -= 1
        self._failed |= not future.cancelled() and future.exception() is not None


def _end(pools: Sequence[ProcessPoolExecutor]) -> None:
    # A pool itself would wait for what runs; there is no public way to stop it before 3.14.
    processes = [
        process
        for pool in pools
        for process in list((getattr(pool, "_processes", None) or {}).values())
    ]
    threads = [getattr(pool, "_executor_manager_thread", None) for pool in pools]
    for pool in pools:
        pool.shutdown(wait=False, cancel_futures=True)
    for end in ("terminate", "kill"):
        for process in processes:
            with suppress(OSError, ValueError):
                getattr(process, end)()
        deadline = time.monotonic() + _GRACE
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    # Python 3.11's own exit may write into a pipe that such a thread has just closed (gh-125451).
    deadline = time.monotonic() + _GRACE
    for thread in threads:
        if thread is not None and thread.is_alive():
            thread.join(max(0.0, deadline - time.monotonic()))


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


def _watched(number: int, fn: Callable[..., Any], *args: Any) -> Any:
    last = 0.0

    def progress(fraction: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.1:
            last = now
            _messages.put((number, fraction))

    return fn(*args, progress)


def _initialize(messages: Any, stop: Callable[[], None] | None, elsewhere: bool) -> None:
    """Prepare a worker process."""
    ignore_local_preferences(elsewhere)
    global _messages, _stop
    _messages, _stop = messages, stop
    # Ctrl-C reaches the whole group; the parent decides what ends. SIGTERM ends a worker together
    # with what it has started, at once or from within its job.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminate)
    threading.excepthook = tell_unless_starved
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpoolctl.threadpool_limits(1)
    # What there is to say of how circuits are run, the parent has said.
    logging.getLogger("circuitsim").setLevel(logging.ERROR)


def _terminate(_signal: int, _frame: Any) -> None:
    # Not by an exception: one that is raised in a callback of Python's own is lost.
    if _stop is not None:
        _stop()
    os._exit(1)


def _end_with_parent() -> None:
    """End this process when its parent has died, which a pool's workers do not do by themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
