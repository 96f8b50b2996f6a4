"""Run the cells of a study on any executor, and keep what is finished."""

from __future__ import annotations

import itertools
import os
import threading
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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import threadpoolctl

from circuitsim.files import own_directory, remove_abandoned
from circuitsim.studies import records, results
from circuitsim.studies.local import LocalPool, ThreadedPool
from circuitsim.studies.store import BadCellFile, Store
from circuitsim.studies.study import Cell, CellResult, Study, run_cells
from circuitsim.validation import ParameterError

IN_FLIGHT = 64  # jobs handed to an executor at once; memory stays bounded

_POLL = 0.2  # seconds between looks at what runs
_WRITERS = 4  # files that wait for the disk at once, which costs it little more than one
_ATTEMPTS = 3  # times that files which have gone bad are replaced


class Observer:
    """What is told of a study while it runs; does nothing by itself."""

    def begun(self, total: int, reused: int) -> None:
        """The number of cells, and of those that were there already."""

    def advanced(self, done: float) -> None:
        """How many cells are done, counting parts of those that run."""

    def note(self, message: str) -> None:
        """Something that the user should know, in one line."""


@dataclass(frozen=True)
class Failure:
    """A cell that failed twice."""

    cell: Cell
    error: str
    file: Path


@dataclass
class Summary:
    """How a study ended.

    Attributes
    ----------
    total, reused, computed : int
        Cells asked for, those there before, and those computed now.
    failures : list of Failure
        Cells without a result.
    failed_before : int
        How many of these failed in an earlier run, and were not tried again.
    missing : list of Cell
        What `collect` has not found.
    """

    total: int
    reused: int = 0
    computed: int = 0
    failures: list[Failure] = field(default_factory=list)
    failed_before: int = 0
    missing: list[Cell] = field(default_factory=list)


def cells_directory(output: Path) -> Path:
    """Directory of a study's finished cells, beside its result."""
    return output.with_name(output.name.removesuffix(".nc") + ".cells")


def run(
    study: Study,
    output: str | os.PathLike[str],
    executor: Executor | None = None,
    *,
    jobs: int = 1,
    in_flight: int = IN_FLIGHT,
    retry_failed: bool = False,
    command_line: str | None = None,
    observer: Observer | None = None,
) -> Summary:
    """Run what is missing of a study, and write its result once all of it is there.

    Every finished cell is kept in a directory beside ``output`` (``sweep.cells`` for ``sweep.nc``)
    and never computed again, by this study or by another that shares it. The result is the same to
    the last bit however often the study was interrupted, and wherever its cells ran.

    A cell that fails is tried once more; then its traceback is kept in ``sweep.cells/failed``, and
    it is not tried again unless asked for.

    Parameters
    ----------
    study : Study
        What to run.
    output : path
        netCDF file to write.
    executor : concurrent.futures.Executor, optional
        Where cells run, e.g. a Dask client's ``get_executor()``. Processes on this machine by
        default; then the calling script needs the usual ``if __name__ == "__main__":``. Threads of
        one process take turns.
    jobs : int
        How many processes.
    in_flight : int
        How many jobs an executor is given at once: at least as many as it can run.
    retry_failed : bool
        Whether to try again what failed in an earlier run.
    command_line : str, optional
        What the result says of how it was made; that of this process by default.
    observer : Observer, optional
        Is told of the progress.

    Returns
    -------
    Summary
        With the cells that failed, if any; then no result is written.

    Raises
    ------
    ParameterError
        If another process runs a study with this output.
    OSError
        If something cannot be written, or the executor has broken down.
    """
    with _locked(Path(output)) as store:
        task = _Task(study, store, observer or Observer())
        task.begin(study.cells, retry_failed)
        for _ in range(_ATTEMPTS):
            if task.missing:
                if executor is not None:
                    task.compute(executor, in_flight)
                else:
                    with LocalPool(jobs) as pool:
                        task.compute(pool, jobs)
            if task.summary.failures or task.merge(Path(output), command_line):
                return task.summary
    raise OSError(f"files in {store.directory} turn bad again and again: is the disk sound?")


def run_parts(
    study: Study,
    output: str | os.PathLike[str],
    numbers: Sequence[int],
    *,
    retry_failed: bool = False,
    observer: Observer | None = None,
) -> Summary:
    """Run some of a study's jobs in this process, and write their cells' files only.

    Any number of processes, on any machines that share the files, may do so at once.

    Parameters
    ----------
    study, output, retry_failed, observer
        As for `run`.
    numbers : sequence of int
        Of the jobs, from 0 to ``study.parts - 1``.

    Returns
    -------
    Summary
        Of these jobs.

    Raises
    ------
    ParameterError
        If there is no such job.
    OSError
        If something cannot be written.
    """
    cells = [cell for number in numbers for cell in study.part(number)]
    store = Store(own_directory(cells_directory(Path(output))))
    task = _Task(study, store, observer or Observer())
    task.begin(cells, retry_failed, check=True)
    if task.missing:
        task.compute(_Here(), 1)
    return task.summary


def collect(
    study: Study,
    output: str | os.PathLike[str],
    *,
    command_line: str | None = None,
    observer: Observer | None = None,
) -> Summary:
    """Write the result of a study whose cells are all there.

    Parameters
    ----------
    study, output, command_line, observer
        As for `run`.

    Returns
    -------
    Summary
        With the cells that are missing, if any; then no result is written.

    Raises
    ------
    ParameterError
        If another process runs a study with this output.
    OSError
        If something cannot be written.
    """
    with _locked(Path(output)) as store:
        task = _Task(study, store, observer or Observer())
        task.begin(study.cells, retry_failed=False)
        if not task.missing and not task.summary.failures:
            task.merge(Path(output), command_line)
        task.summary.missing = task.missing
        return task.summary


@contextmanager
def _locked(output: Path) -> Iterator[Store]:
    """Give the store of an output that no other process writes, cleaned of what dead ones left."""
    store = Store(own_directory(cells_directory(output)))
    file = store.directory / "lock"
    if file.is_symlink():
        raise ParameterError("output", f"{file} is a symbolic link; remove it", str(output))
    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ParameterError(
            "output",
            "is being written by another sweep; wait for it, or choose another",
            str(output),
        ) from None
    with lock:
        store.clean()
        records.remove_dead(store.directory)
        with os.scandir(output.absolute().parent) as beside:
            remove_abandoned(e for e in beside if e.name.startswith(f".{output.stem}."))
        yield store


class _Here(Executor):
    """Runs everything in this process, at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class _Job:
    """Cells for one engine call."""

    cells: tuple[Cell, ...]
    number: int
    last_chance: bool


class _Task:
    """Cells of a study that are to be there, and what is done to that end."""

    def __init__(self, study: Study, store: Store, observer: Observer) -> None:
        self.study, self.store, self.observer = study, store, observer
        self.cells: list[Cell] = []
        self.missing: list[Cell] = []
        self.summary = Summary(total=0)
        self._failed: set[str] = set()
        self._workers_live = False
        self._numbers = itertools.count()

    def begin(self, cells: Sequence[Cell], retry_failed: bool, check: bool = False) -> None:
        """Find out what is there; with ``check``, that it is sound too (or `merge` finds out)."""
        records.write_study(self.store.directory, self.study)
        self.cells = list(cells)
        present = self.store.finished(self.study, self.cells)
        if check:
            present = {cell for cell in present if self._is_sound(cell)}
        self.missing = [cell for cell in self.cells if cell not in present]
        self.summary = Summary(total=len(self.cells), reused=len(present))
        self._failed = records.failed_digests(self.store.directory)
        if self._failed:
            self._judge_failed(retry_failed)
        self.observer.begun(self.summary.total, self.summary.reused)

    def _judge_failed(self, retry: bool) -> None:
        """Leave out the cells that failed before, or forget that they did."""
        kept = []
        for cell in self.missing:
            digest = self.study.digest(cell)
            if digest not in self._failed:
                kept.append(cell)
            elif retry:
                records.remove_failure(self.store.directory, digest)
                kept.append(cell)
            else:
                file, error = records.failure(self.store.directory, digest)
                self.summary.failures.append(Failure(cell, error, file))
        self.missing = kept
        self.summary.failed_before = len(self.summary.failures)

    def _is_sound(self, cell: Cell) -> bool:
        """Whether a cell's file can be trusted; if not, it is set aside."""
        try:
            self.store.read(self.study, cell)
        except FileNotFoundError:
            return False
        except BadCellFile as error:
            aside = self.store.set_aside(self.study, cell)
            self.observer.note(f"the file of {cell} is bad ({error}); moved to {aside}")
            return False
        return True

    def merge(self, output: Path, command_line: str | None) -> bool:
        """Write the result, unless a cell turns out to be missing."""
        provenance = {} if command_line is None else {"command_line": command_line}
        try:
            results.merge(self.study, self._read, output, provenance)
        except _Unsound:
            self.missing = [cell for cell in self.cells if not self._is_sound(cell)]
            self.summary.reused = self.summary.total - len(self.missing)
            self.summary.computed = 0
            return False
        return True

    def _read(self, cell: Cell) -> CellResult:
        try:
            return self.store.read(self.study, cell)
        except (BadCellFile, FileNotFoundError):
            raise _Unsound from None

    def compute(self, executor: Executor, in_flight: int) -> None:
        """Run the missing cells; those of a job that fails once more, each on its own."""
        waiting = deque(self._job(cells) for cells in self.study.jobs(self.missing))
        running: dict[Future[list[CellResult]], _Job] = {}
        writing: set[Future[int]] = set()
        with (
            records.Announcement(self.store.directory) as announcement,
            ThreadPoolExecutor(_WRITERS) as writers,
        ):
            while waiting or running or writing:
                while waiting and len(running) < in_flight and len(writing) < 2 * _WRITERS:
                    job = waiting.popleft()
                    running[self._submit(executor, job)] = job
                announcement.update(self._under_way(running))
                under_way: list[Future[Any]] = [*running, *writing]
                done, _ = wait(under_way, timeout=_POLL, return_when=FIRST_COMPLETED)
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
                        writing.add(writers.submit(self._keep, job, future.result()))
                    elif job.last_chance:
                        self.summary.failures.append(self._report(job.cells[0], error))
                    else:
                        self.observer.note(
                            f"{len(job.cells)} circuits are tried once more ({_last_line(error)})"
                        )
                        waiting.extendleft(self._job((cell,), last=True) for cell in job.cells)
                self._tell(executor, running)
        self.missing = []

    def _job(self, cells: tuple[Cell, ...], last: bool = False) -> _Job:
        return _Job(cells, next(self._numbers), last)

    def _submit(self, executor: Executor, job: _Job) -> Future[list[CellResult]]:
        if isinstance(executor, LocalPool | ThreadedPool):
            return executor.submit_watched(job.number, run_cells, self.study, job.cells)
        try:
            return executor.submit(_run_cells_alone, self.study, job.cells)
        except (BrokenExecutor, RuntimeError) as error:
            raise OSError(f"the executor runs nothing any more ({error})") from error

    def _check_workers(self, executor: Executor) -> None:
        """After the first death of a worker, see whether any can live; cells are to blame if so."""
        if self._workers_live or not isinstance(executor, LocalPool):
            return
        error = _error(executor.submit(int))
        if error is not None:
            raise OSError(
                f"worker processes die as soon as they start ({_last_line(error)}); in a script of "
                'your own, call this under `if __name__ == "__main__":`'
            ) from error
        self._workers_live = True

    def _under_way(self, running: Mapping[Future[list[CellResult]], _Job]) -> list[str]:
        # Executors that say which of their jobs wait are believed.
        started = [job for future, job in running.items() if future.running()]
        jobs = started or list(running.values())
        return [self.study.digest(cell) for job in jobs for cell in job.cells]

    def _keep(self, job: _Job, found: list[CellResult]) -> int:
        for cell, result in zip(job.cells, found, strict=True):
            self.store.write(self.study, cell, result)
            digest = self.study.digest(cell)
            if digest in self._failed:
                records.remove_failure(self.store.directory, digest)
        return len(job.cells)

    def _tell(self, executor: Executor, running: Mapping[Future[list[CellResult]], _Job]) -> None:
        parts = executor.fractions() if isinstance(executor, LocalPool | ThreadedPool) else {}
        under_way = sum(len(job.cells) * parts.get(job.number, 0.0) for job in running.values())
        self.observer.advanced(self.summary.reused + self.summary.computed + under_way)

    def _report(self, cell: Cell, error: BaseException) -> Failure:
        """Write a failed cell's traceback to a file."""
        report = "".join(traceback.format_exception(error))
        digest = self.study.digest(cell)
        file = records.write_failure(self.store.directory, digest, cell, report)
        return Failure(cell, _last_line(error), file)


class _Unsound(Exception):
    """A cell that should be there is not."""


def _error(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError:
        raise OSError("the executor has dropped its work; has its scheduler ended?") from None


def _last_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


_TURN = threading.Lock()


def _run_cells_alone(study: Study, cells: Sequence[Cell]) -> list[CellResult]:
    """Run cells in a process whose threads may all be asked to, as those of a Dask worker.

    Brian2 has state for the whole process; and one BLAS thread makes the same sums everywhere.
    """
    with _TURN, threadpoolctl.threadpool_limits(1):
        return run_cells(study, cells)
