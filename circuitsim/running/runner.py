"""Run the tasks of a campaign on any executor, and keep what is finished."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic

import threadpoolctl

from circuitsim.checks import interrupts
from circuitsim.checks.validation import ParameterError
from circuitsim.files import own_directory, provenance, remove_abandoned
from circuitsim.files.arrays import BadFile
from circuitsim.files.locks import Taken, locked
from circuitsim.running import records, results
from circuitsim.running.campaign import Arrays, Campaign, T
from circuitsim.running.local import LocalPool, ThreadedPool
from circuitsim.running.records import Place
from circuitsim.running.store import Memory, Store

IN_FLIGHT = 64  # jobs handed to an executor at once; memory stays bounded

_POLL = 0.2  # seconds between looks at what runs
_WRITERS = 4  # files that wait for the disk at once, which costs it little more than one
_ATTEMPTS = 3  # times that files which have gone bad are replaced


class Observer:
    """What is told of a campaign while it runs; does nothing by itself."""

    def begun(self, total: int, reused: int) -> None:
        """The number of tasks, and of those that were there already."""

    def advanced(self, share: float, done: float, total: int) -> None:
        """Share of the work that is done; tasks done, counting parts of those that run; of all."""

    def finished(self, task: Any, result: Arrays) -> None:
        """A task has given its result."""

    def note(self, message: str) -> None:
        """Something that the user should know, in one line."""


@dataclass(frozen=True)
class Failure:
    """A task that failed twice.

    Attributes
    ----------
    task : object
        Of the campaign; prints as people read it.
    error : str
        In one line.
    file : Path or None
        Its traceback, where results are kept.
    """

    task: Any
    error: str
    file: Path | None


@dataclass
class Summary:
    """How a campaign ended.

    Attributes
    ----------
    total, reused, computed : int
        Tasks asked for, those there before, and those computed now.
    failures : list of Failure
        Tasks without a result.
    failed_before : int
        How many of these failed in an earlier run, and were not tried again.
    missing : list
        Tasks that `collect` has not found.
    """

    total: int
    reused: int = 0
    computed: int = 0
    failures: list[Failure] = field(default_factory=list)
    failed_before: int = 0
    missing: list[Any] = field(default_factory=list)


def run(
    campaign: Campaign[Any],
    output: str | os.PathLike[str],
    executor: Executor | None = None,
    *,
    jobs: int = 1,
    in_flight: int = IN_FLIGHT,
    retry_failed: bool = False,
    command_line: str | None = None,
    observer: Observer | None = None,
    cells: str | os.PathLike[str] | None = None,
    keep: bool = True,
) -> Summary:
    """Run what is missing of a campaign, and write its result once all of it is there.

    Every finished task is kept in a directory beside ``output`` (``sweep.cells`` for ``sweep.nc``)
    and never computed again, by this campaign or by another that shares it. The result is the same
    to the last bit however often the campaign was interrupted, and wherever its tasks ran.

    A task that fails is tried once more; then its traceback is kept in ``sweep.cells/failed``, and
    it is not tried again unless asked for.

    Parameters
    ----------
    campaign : Campaign
        What to run, such as a `circuitsim.studies.Study`.
    output : path
        netCDF file to write.
    executor : concurrent.futures.Executor, optional
        Where tasks run, e.g. a Dask client's ``get_executor()``. Processes on this machine by
        default, or threads for what can run in them; for processes the calling script needs the
        usual ``if __name__ == "__main__":``.
    jobs : int
        How many processes or threads.
    in_flight : int
        How many jobs an executor is given at once: at least as many as it can run.
    retry_failed : bool
        Whether to try again what failed in an earlier run.
    command_line : str, optional
        What the result says of how it was made; that of this process by default.
    observer : Observer, optional
        Is told of the progress.
    cells : path, optional
        Directory of finished tasks, if it is to be another.
    keep : bool
        Whether to keep finished tasks on disk, or in memory until the result is written.

    Returns
    -------
    Summary
        With the tasks that failed, if any; then no result is written.

    Raises
    ------
    ParameterError
        If another process runs a campaign with this output.
    OSError
        If something cannot be written, or the executor has broken down.
    """
    place = _place(output, cells)
    _clean_beside(place.output)
    with _locked(place) if keep else nullcontext(Memory()) as store:
        task = _Work(campaign, place, store, observer or Observer())
        task.begin(retry_failed)
        for _ in range(_ATTEMPTS):
            if task.missing:
                if executor is not None:
                    task.compute(executor, in_flight)
                else:
                    with _pool(campaign, jobs, task.observer) as pool:
                        task.compute(pool, jobs)
            if task.summary.failures or task.merge(command_line):
                return task.summary
    raise OSError(f"files in {place.directory} turn bad again and again: is the disk sound?")


def _pool(campaign: Campaign[Any], jobs: int, observer: Observer) -> Executor:
    campaign.prepare()
    if campaign.threads:
        return ThreadedPool(jobs)
    if multiprocessing.current_process().daemon:  # as in a pool of multiprocessing or Celery
        observer.note(
            f"this process is of a pool and may not start others: {campaign.things} run in it, one "
            "after another"
        )
        return Here()
    return LocalPool(jobs, campaign.stop, [type(campaign).__module__])


def run_parts(
    campaign: Campaign[Any],
    output: str | os.PathLike[str],
    numbers: Sequence[int],
    *,
    retry_failed: bool = False,
    observer: Observer | None = None,
    cells: str | os.PathLike[str] | None = None,
) -> Summary:
    """Run some parts of a campaign in this process, and write their tasks' files only.

    Any number of processes, on any machines that share the files, may do so at once.

    Parameters
    ----------
    campaign, output, retry_failed, observer, cells
        As for `run`.
    numbers : sequence of int
        Of the parts, from 0 to ``campaign.parts - 1``.

    Returns
    -------
    Summary
        Of these parts.

    Raises
    ------
    ParameterError
        If there is no such part.
    OSError
        If something cannot be written.
    """
    campaign.tasks({}, numbers)  # what does not exist is said before anything is written
    place = _place(output, cells)
    store = Store(own_directory(place.directory))
    task = _Work(campaign, place, store, observer or Observer(), numbers)
    task.begin(retry_failed, check=True)
    if task.missing:
        task.compute(Here(), 1, alone=True)
    return task.summary


def collect(
    campaign: Campaign[Any],
    output: str | os.PathLike[str],
    *,
    command_line: str | None = None,
    observer: Observer | None = None,
    cells: str | os.PathLike[str] | None = None,
    partial: bool = False,
) -> Summary:
    """Write the result of a campaign whose tasks are all there.

    Parameters
    ----------
    campaign, output, command_line, observer, cells
        As for `run`.
    partial : bool
        Whether to write what there is of a campaign whose file can do without the rest.

    Returns
    -------
    Summary
        With the tasks that are missing, if any; then no result is written.

    Raises
    ------
    ParameterError
        If another process runs a campaign with this output.
    OSError
        If something cannot be written.
    """
    place = _place(output, cells)
    with _locked(place) as store:
        task = _Work(campaign, place, store, observer or Observer())
        task.begin(retry_failed=False)
        complete = not task.missing and not task.summary.failures
        if complete or (partial and task.summary.reused):
            task.merge(command_line)
        task.summary.missing = task.missing
        return task.summary


def _place(output: str | os.PathLike[str], cells: str | os.PathLike[str] | None) -> Place:
    return Place(Path(output), None if cells is None else Path(cells))


@contextmanager
def _locked(place: Place) -> Iterator[Store]:
    """Give the store of an output that no other process writes, cleaned of what dead ones left."""
    output, store = place.output, Store(own_directory(place.directory))
    file = own_directory(place.record) / "lock"
    if file.is_symlink():
        raise ParameterError("output", f"{file} is a symbolic link; remove it", str(output))
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(file))
        except Taken as error:
            raise ParameterError(
                "output", f"is being written: {error}, or choose another output", str(output)
            ) from None
        store.clean()
        records.remove_dead(store.directory)
        _clean_beside(output)
        yield store


def _clean_beside(output: Path) -> None:
    """Remove what processes that were killed while they wrote an output have left."""
    with suppress(FileNotFoundError), os.scandir(output.absolute().parent) as beside:
        remove_abandoned(e for e in beside if e.name.startswith(f".{output.stem}."))


class Here(Executor):
    """Runs everything in this process, at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class _Job(Generic[T]):
    """Tasks that are run in one call."""

    tasks: tuple[T, ...]
    number: int
    last_chance: bool


class _Work(Generic[T]):
    """Tasks of a campaign that are to be there, and what is done to that end."""

    def __init__(
        self,
        campaign: Campaign[T],
        place: Place,
        store: Store | Memory,
        observer: Observer,
        parts: Sequence[int] | None = None,
    ) -> None:
        self.store, self.observer = store, observer
        self.campaign = campaign.directory(place.directory)
        # Those of what is under way are told many times; making them is not always cheap.
        self._digest = lru_cache(2**12)(self.campaign.digest)
        self.missing: list[T] = []
        self.summary = Summary(total=0)
        self._place, self._parts = place, parts
        self._done: dict[T, Arrays] = {}  # results, as far as an adaptive campaign wants them
        self._tasks: list[T] = []
        self._failed: set[str] = set()
        self._workers_live = False
        self._numbers = itertools.count()
        self._versions: set[tuple[str, str]] = set()  # of packages elsewhere that are not ours

    # -- what is there -----------------------------------------------------------------------------

    def begin(self, retry_failed: bool, check: bool = False) -> None:
        """Find out what is there; with ``check``, that it is sound too (or `merge` finds out)."""
        if self.store.directory is not None:
            records.write_study(self._place, self.campaign)
            self._failed = records.failed_digests(self.store.directory)
        present = self._look(check)
        self.summary = Summary(total=len(self._tasks), reused=len(present))
        if self._failed:
            self._judge_failed(retry_failed)
        self.observer.begun(self.summary.total, self.summary.reused)

    def _look(self, check: bool) -> set[T]:
        """List the tasks, those that results make possible too, and return which are there."""
        self._done = {}
        while True:
            self._tasks = self.campaign.tasks(self._done, self._parts)
            present = self.store.finished(self.campaign, self._tasks)
            if check or self.campaign.adaptive:
                sound = {task: self._sound(task) for task in self._tasks if task in present}
                present = {task for task, result in sound.items() if result is not None}
                found = {task: result for task, result in sound.items() if result is not None}
                if self.campaign.adaptive and found.keys() - self._done.keys():
                    self._done = found
                    continue
            self.missing = [task for task in self._tasks if task not in present]
            return present

    def _judge_failed(self, retry: bool) -> None:
        """Leave out the tasks that failed before, or forget that they did."""
        kept, directory = [], self.store.directory
        assert directory is not None
        for task in self.missing:
            digest = self.campaign.digest(task)
            if digest not in self._failed:
                kept.append(task)
            elif retry:
                records.remove_failure(directory, digest)
                kept.append(task)
            else:
                file, error = records.failure(directory, digest)
                self.summary.failures.append(Failure(task, error, file))
        self.missing = kept
        self.summary.failed_before = len(self.summary.failures)

    def _sound(self, task: T) -> Arrays | None:
        """Return a task's result if it can be trusted; if not, it is set aside."""
        try:
            return self.store.read(self.campaign, task)
        except FileNotFoundError:
            return None
        except BadFile as error:
            assert isinstance(self.store, Store)
            aside = self.store.set_aside(self.campaign, task)
            self.observer.note(f"the file of {task} is bad ({error}); moved to {aside}")
            return None

    # -- the result --------------------------------------------------------------------------------

    def merge(self, command_line: str | None) -> bool:
        """Write the result, unless a task turns out to be missing."""
        own_directory(self._place.output.absolute().parent)
        further = {} if command_line is None else {"command_line": command_line}
        if self._versions:
            listed = sorted(f"{name} {version}" for name, version in self._versions)
            further["computed_with_too"] = ", ".join(listed)
        campaign = self.campaign.complete(self._done)
        # What an adaptive campaign has not got may be missing: it decides what to make of that.
        read = self._done.__getitem__ if campaign.adaptive else self._read
        try:
            results.write(campaign, read, self._place.output, further)
        except _Unsound:
            present = self._look(check=True)
            self.summary.total = len(self._tasks)
            self.summary.reused, self.summary.computed = len(present), 0
            return False
        return True

    def _read(self, task: T) -> Arrays:
        try:
            return self.store.read(self.campaign, task)
        except (BadFile, FileNotFoundError):
            raise _Unsound from None

    # -- the work ----------------------------------------------------------------------------------

    def compute(self, executor: Executor, in_flight: int, alone: bool = False) -> None:
        """Run the missing tasks; those of a job that fails once more, each on its own.

        With ``alone``, each is run on its own from the start, and kept as it ends: under a time
        limit, a job of several that never gets to its end would keep nothing however often.
        """
        jobs = [(task,) for task in self.missing] if alone else self.campaign.jobs(self.missing)
        waiting = deque(map(self._job, jobs))
        running: dict[Future[Any], _Job[T]] = {}
        writing: set[Future[int]] = set()
        directory = self.store.directory
        told = _Pace(self.campaign, self._tasks, self.missing)
        announced = None if directory is None else records.Announcement(directory)
        with announced or nullcontext(), ThreadPoolExecutor(_WRITERS) as writers:
            while waiting or running or writing:
                interrupts.check()
                while waiting and len(running) < in_flight and len(writing) < 2 * _WRITERS:
                    job = waiting.popleft()
                    running[self._submit(executor, job)] = job
                under_way: list[Future[Any]] = [*running, *writing]
                done, _ = wait(under_way, timeout=_POLL, return_when=FIRST_COMPLETED)
                if not done and isinstance(executor, LocalPool):
                    executor.check()
                for future in done:
                    if future in writing:
                        writing.remove(future)
                        self.summary.computed += future.result()
                        continue
                    job = running.pop(future)
                    error = _error(future)
                    if isinstance(error, BrokenExecutor):
                        self._check_workers(executor)
                    if error is None:
                        found = self._checked(future.result())
                        told.finished(job.tasks)
                        writing.add(writers.submit(self._keep, job, found))
                        waiting.extend(self._further(job, found, told))
                    elif job.last_chance:
                        told.finished(job.tasks)
                        self.summary.failures.append(self._report(job.tasks[0], error))
                    else:
                        self.observer.note(
                            f"{len(job.tasks)} {self.campaign.things} are tried once more "
                            f"({_last_line(error)})"
                        )
                        waiting.extendleft(self._job((task,), last=True) for task in job.tasks)
                self._tell(executor, running, told, announced)
        self.missing = []

    def _further(self, job: _Job[T], found: list[Arrays], told: _Pace[T]) -> list[_Job[T]]:
        """List what the results of a job make possible."""
        for task, result in zip(job.tasks, found, strict=True):
            self.observer.finished(task, result)
        if not self.campaign.adaptive:
            return []
        self._done |= zip(job.tasks, found, strict=True)
        known = set(self._tasks)
        new = [t for t in self.campaign.tasks(self._done, self._parts) if t not in known]
        self._tasks += new
        self.summary.total = len(self._tasks)
        told.added(new)
        return [self._job(tasks) for tasks in self.campaign.jobs(new)]

    def _job(self, tasks: tuple[T, ...], last: bool = False) -> _Job[T]:
        return _Job(tasks, next(self._numbers), last)

    def _submit(self, executor: Executor, job: _Job[T]) -> Future[Any]:
        if isinstance(executor, LocalPool | ThreadedPool):
            return executor.submit_watched(job.number, run_tasks, self.campaign, job.tasks)
        try:
            return executor.submit(_run_alone, self.campaign, job.tasks)
        except (BrokenExecutor, RuntimeError) as error:
            raise OSError(f"the executor runs nothing any more ({error})") from error

    def _checked(self, returned: Any) -> list[Arrays]:
        """Return results if what has made them gives the numbers that it would give here."""
        if not isinstance(returned, _Made):
            return returned
        ours = _stamp(self.campaign)
        for name in ("circuitsim", "scheme"):
            if returned.stamp.get(name) != ours[name]:
                raise OSError(
                    f"the worker {returned.stamp.get('worker')} has {name} "
                    f"{returned.stamp.get(name)}, not {ours[name]}, and may give other numbers: "
                    "its results are refused; start it with the same installation"
                )
        others = {
            (name, version)
            for name, version in returned.stamp.items()
            if name != "worker" and version != ours[name]
        }
        if others - self._versions:
            listed = ", ".join(f"{name} {version}" for name, version in sorted(others))
            self.observer.note(
                f"the worker {returned.stamp['worker']} computes with {listed}, this process not; "
                "the result says so"
            )
        self._versions |= others
        return returned.results

    def _check_workers(self, executor: Executor) -> None:
        """After the first death of a worker, see whether any can live; tasks are to blame if so."""
        if self._workers_live or not isinstance(executor, LocalPool):
            return
        error = _error(executor.submit(int))
        if error is not None:
            raise OSError(
                f"worker processes die as soon as they start ({_last_line(error)}); in a script of "
                'your own, call this under `if __name__ == "__main__":`'
            ) from error
        self._workers_live = True

    def _keep(self, job: _Job[T], found: list[Arrays]) -> int:
        for task, result in zip(job.tasks, found, strict=True):
            self.store.write(self.campaign, task, result)
            digest = self.campaign.digest(task)
            if digest in self._failed and self.store.directory is not None:
                records.remove_failure(self.store.directory, digest)
        return len(job.tasks)

    def _tell(
        self,
        executor: Executor,
        running: Mapping[Future[Any], _Job[T]],
        told: _Pace[T],
        announced: records.Announcement | None,
    ) -> None:
        parts = executor.fractions() if isinstance(executor, LocalPool | ThreadedPool) else {}
        shares = {job: parts.get(job.number, 0.0) for job in running.values()}
        under_way = sum(told.cost(job.tasks) * share for job, share in shares.items())
        done = sum(len(job.tasks) * share for job, share in shares.items())
        self.observer.advanced(
            told.share(under_way), told.done + self.summary.reused + done, self.summary.total
        )
        if announced is not None:
            # Executors that say which of their jobs wait are believed, or how many do not.
            started = [job for future, job in running.items() if future.running()]
            jobs = started or list(running.values())[: getattr(executor, "at_once", None)]
            digests = [self._digest(task) for job in jobs for task in job.tasks]
            announced.update(digests, under_way, told.speed(under_way))

    def _report(self, task: T, error: BaseException) -> Failure:
        """Write a failed task's traceback to a file."""
        file = None
        if self.store.directory is not None:
            report = "".join(traceback.format_exception(error))
            digest = self.campaign.digest(task)
            file = records.write_failure(self.store.directory, digest, task, report)
        return Failure(task, _last_line(error), file)


class _Pace(Generic[T]):
    """How much of the work is done, and how fast that goes, in the campaign's measure of cost."""

    def __init__(self, campaign: Campaign[T], tasks: Sequence[T], missing: Sequence[T]) -> None:
        self._campaign = campaign
        self._total = sum(map(campaign.cost, tasks))
        self._reused = self._total - sum(map(campaign.cost, missing))
        self._done = 0.0
        self._began = time.monotonic()
        self.done = 0  # tasks

    def cost(self, tasks: Sequence[T]) -> float:
        return sum(map(self._campaign.cost, tasks))

    def added(self, tasks: Sequence[T]) -> None:
        self._total += self.cost(tasks)

    def finished(self, tasks: Sequence[T]) -> None:
        self._done += self.cost(tasks)
        self.done += len(tasks)

    def share(self, under_way: float) -> float:
        return (self._reused + self._done + under_way) / (self._total or 1.0)

    def speed(self, under_way: float) -> float:
        return (self._done + under_way) / max(time.monotonic() - self._began, 1e-9)


class _Unsound(Exception):
    """A result that should be there is not."""


def _error(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError:
        raise OSError("the executor has dropped its work; has its scheduler ended?") from None


def _last_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(": ")


def run_tasks(
    campaign: Campaign[T], tasks: Sequence[T], progress: Callable[[float], None] | None = None
) -> list[Arrays]:
    """Run tasks of one job in this process."""
    return campaign.run(tasks, progress)


@dataclass(frozen=True)
class _Made:
    """Results, and what has made them."""

    results: list[Arrays]
    stamp: dict[str, str]


def _stamp(campaign: Campaign[Any]) -> dict[str, str]:
    """What numbers may depend on beside the campaign, and where that is."""
    import socket

    versions = provenance.versions()
    return {
        "circuitsim": versions["circuitsim_version"],
        "scheme": str(campaign.scheme),
        "numpy": versions["numpy_version"],
        "brian2": versions["brian2_version"],
        "worker": f"process {os.getpid()} on {socket.gethostname()}",
    }


_TURN = threading.Lock()


def _run_alone(campaign: Campaign[T], tasks: Sequence[T]) -> _Made:
    """Run tasks in a process whose threads may all be asked to, as those of a Dask worker.

    Brian2 has state for the whole process; and one BLAS thread makes the same sums everywhere.
    """
    with _TURN, threadpoolctl.threadpool_limits(1):
        return _Made(campaign.run(tasks), _stamp(campaign))
