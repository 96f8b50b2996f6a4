"""Run the cells of a study on any executor, and keep what is finished."""

from __future__ import annotations

import os
import traceback
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path

import filelock

from circuitsim.studies import results
from circuitsim.studies.local import LocalPool
from circuitsim.studies.store import BadCellFile, Store
from circuitsim.studies.study import Cell, CellResult, Study, run_cells
from circuitsim.validation import ParameterError

_POLL = 0.2  # seconds between looks at what runs
_IN_FLIGHT = 64  # jobs handed to an executor at once: enough for any, and memory stays bounded


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
        Cells of the study, those there before, and those computed now.
    failures : list of Failure
        Cells without a result.
    """

    total: int
    reused: int = 0
    computed: int = 0
    failures: list[Failure] = field(default_factory=list)


def cells_directory(output: Path) -> Path:
    """Directory of a study's finished cells, beside its result."""
    return output.with_name(output.name.removesuffix(".nc") + ".cells")


def run(
    study: Study,
    output: str | os.PathLike[str],
    executor: Executor | None = None,
    *,
    jobs: int = 1,
    observer: Observer | None = None,
) -> Summary:
    """Run what is missing of a study, and write its result once all of it is there.

    Every finished cell is kept in a directory beside ``output`` (``sweep.cells`` for ``sweep.nc``)
    and never computed again, by this study or by another that shares it. The result is the same to
    the last bit however often the study was interrupted, and wherever its cells ran.

    Parameters
    ----------
    study : Study
        What to run.
    output : path
        netCDF file to write.
    executor : concurrent.futures.Executor, optional
        Where cells run, e.g. a Dask client's ``get_executor()``. Processes on this machine by
        default; then the calling script needs the usual ``if __name__ == "__main__":``.
    jobs : int
        How many processes.
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
        If something cannot be written.
    """
    output = Path(output)
    store = Store(cells_directory(output))
    observer = observer or Observer()
    store.directory.mkdir(exist_ok=True)
    lock = filelock.FileLock(store.directory / "lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ParameterError(
            "output", "is being written by another sweep; wait for it, or choose another", output
        ) from None
    with lock:
        return _Run(study, output, store, observer).execute(executor, jobs)


class _Run:
    def __init__(self, study: Study, output: Path, store: Store, observer: Observer) -> None:
        self.study, self.output, self.store, self.observer = study, output, store, observer
        self.cells = study.cells
        self.summary = Summary(total=len(self.cells))

    def execute(self, executor: Executor | None, jobs: int) -> Summary:
        reused = self._sound(self.store.finished(self.study, self.cells))
        self.summary.reused = len(reused)
        self.observer.begun(len(self.cells), len(reused))
        missing = [cell for cell in self.cells if cell not in reused]
        if missing:
            if executor is not None:
                self._compute(missing, executor)
            else:
                with LocalPool(jobs) as pool:
                    self._compute(missing, pool)
        if not self.summary.failures:
            results.merge(self.study, lambda cell: self.store.read(self.study, cell), self.output)
        return self.summary

    def _sound(self, cells: set[Cell]) -> set[Cell]:
        """Return the cells whose files can be trusted, and set the others aside."""
        sound = set()
        for cell in cells:
            try:
                self.store.read(self.study, cell)
                sound.add(cell)
            except BadCellFile as error:
                aside = self.store.set_aside(self.study, cell)
                self.observer.note(f"the file of {cell} is bad ({error}); moved to {aside}")
        return sound

    def _compute(self, cells: Sequence[Cell], executor: Executor) -> None:
        """Run cells in batches; those of a batch that fails once more, each on its own."""
        failed = self._run_jobs(self.study.jobs(cells), executor, _IN_FLIGHT)
        if not failed:
            return
        self.observer.note(f"{sum(len(job) for job, _ in failed)} circuits are tried once more")
        # Those that may kill their process one at a time, so that they take no other with them.
        for suspect, in_flight in ((False, _IN_FLIGHT), (True, 1)):
            again = [
                (cell,)
                for job, error in failed
                if isinstance(error, BrokenExecutor) == suspect
                for cell in job
            ]
            for (cell,), error in self._run_jobs(again, executor, in_flight):
                self.summary.failures.append(self._report(cell, error))

    def _run_jobs(
        self, jobs: Sequence[tuple[Cell, ...]], executor: Executor, in_flight: int
    ) -> list[tuple[tuple[Cell, ...], BaseException]]:
        """Run jobs, keep their results, and return those that failed with their errors."""
        waiting = deque(enumerate(jobs))
        running: dict[Future[list[CellResult]], tuple[int, tuple[Cell, ...]]] = {}
        failed: list[tuple[tuple[Cell, ...], BaseException]] = []
        while waiting or running:
            while waiting and len(running) < in_flight:
                number, job = waiting.popleft()
                running[self._submit(executor, number, job)] = (number, job)
            done, _ = wait(running, timeout=_POLL, return_when=FIRST_COMPLETED)
            for future in done:
                number, job = running.pop(future)
                error = future.exception()
                if error is None:
                    for cell, result in zip(job, future.result(), strict=True):
                        self.store.write(self.study, cell, result)
                    self.summary.computed += len(job)
                else:
                    failed.append((job, error))
            parts = executor.fractions() if isinstance(executor, LocalPool) else {}
            under_way = sum(len(job) * parts.get(n, 0.0) for n, job in running.values())
            self.observer.advanced(self.summary.reused + self.summary.computed + under_way)
        return failed

    def _submit(
        self, executor: Executor, number: int, job: tuple[Cell, ...]
    ) -> Future[list[CellResult]]:
        if isinstance(executor, LocalPool):
            return executor.submit_watched(number, run_cells, self.study, job)
        return executor.submit(run_cells, self.study, job)

    def _report(self, cell: Cell, error: BaseException) -> Failure:
        """Write a failed cell's traceback to a file."""
        file = self.store.directory / "failed" / f"{self.study.digest(cell)}.txt"
        file.parent.mkdir(exist_ok=True)
        text = "".join(traceback.format_exception(error))
        file.write_text(f"{cell}\n\n{text}")
        last = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        return Failure(cell, last, file)
