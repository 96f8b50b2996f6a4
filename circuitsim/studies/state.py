"""How far a study is, from what its processes leave on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr

from circuitsim.studies import records, results, tables
from circuitsim.studies.runner import cells_directory
from circuitsim.studies.store import BadCellFile, Store
from circuitsim.studies.study import Cell, Study
from circuitsim.validation import ParameterError


@dataclass(frozen=True)
class State:
    """How far a study is.

    Attributes
    ----------
    study : Study
    store : Store
        Of its cells.
    finished, running, failed : set of Cell
        No cell is in two of them; the others are missing. Files of finished cells are there, and
        are checked when they are read.
    processes : list of Running
        That work on it.
    result : xarray.Dataset or None
        If it is merged.
    """

    study: Study
    store: Store
    finished: set[Cell]
    running: set[Cell]
    failed: set[Cell]
    processes: list[records.Running]
    result: xr.Dataset | None

    @property
    def missing(self) -> int:
        """Number of cells that are neither finished nor running, and have not failed."""
        if self.result is not None:
            return 0
        return self.study.size - len(self.finished) - len(self.running) - len(self.failed)


def read(output: Path) -> State:
    """Find out how far a study is; nothing is changed, and it may be running.

    Raises
    ------
    ParameterError
        If there is no study with this output.
    """
    directory = cells_directory(output)
    store = Store(directory)
    recorded = _recorded(directory, output)
    result = _result(output)
    if result is not None:
        merged = results.study_of(result, output)
        if recorded in (None, merged):
            return State(merged, store, set(merged.cells), set(), set(), [], result)
    if recorded is None:
        raise ParameterError(
            "output", f"there is no study: neither {output} nor {directory}/study.json", str(output)
        )
    processes = records.read_running(directory)
    present, failed = store.digests(), records.failed_digests(directory)
    under_way = frozenset().union(*(process.digests for process in processes))
    cells: dict[str, set[Cell]] = {"finished": set(), "running": set(), "failed": set()}
    for cell in recorded.cells:
        digest = recorded.digest(cell)
        for name, digests in (("finished", present), ("running", under_way), ("failed", failed)):
            if digest in digests:
                cells[name].add(cell)
                break
    return State(recorded, store, **cells, processes=processes, result=None)


def _recorded(directory: Path, output: Path) -> Study | None:
    try:
        return records.read_study(directory)
    except (records.BadRecord, OSError) as error:
        if output.exists():
            return None  # the result itself says it
        raise ParameterError(
            "output", f"{directory} cannot be read ({error}); run the sweep again", str(output)
        ) from None


def _result(output: Path) -> xr.Dataset | None:
    try:
        return results.load(output)
    except FileNotFoundError:
        return None
    except ParameterError:
        if cells_directory(output).is_dir():
            return None  # it is not finished
        raise


def rows(state: State, note: Callable[[str], None]) -> Iterator[tables.Row]:
    """Summarise every point of a study's grid from the trials that are finished.

    Parameters
    ----------
    state : State
        Of the study.
    note : callable
        Is told of files that cannot be trusted; these count as missing.
    """
    if state.result is not None:
        yield from tables.rows(state.result)
        return
    study = state.study
    for k, gamma, alpha, neurons in product(study.k, study.gamma, study.alpha, study.neurons):
        found = []
        for trial in range(study.trials):
            cell = Cell(k, neurons, gamma, alpha, trial)
            if cell in state.finished:
                try:
                    found.append(state.store.read(study, cell))
                except (BadCellFile, OSError) as error:
                    note(f"the file of {cell} is bad ({error})")
        yield tables.row(
            (k, gamma, alpha, neurons),
            np.array([result.curves["snr_w"] for result in found]),
            np.array([result.limits["theory_snr_w"] for result in found]),
            np.array([result.limits["fixed_point_snr_w"] for result in found]),
        )
