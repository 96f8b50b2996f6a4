"""How long a study would take, from timing a little of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from circuitsim.engines import registry
from circuitsim.studies.store import Store
from circuitsim.studies.study import CELLS_PER_JOB, Cell, Study, run_cells


@dataclass(frozen=True)
class _Timing:
    """Seconds of one job: to get ready for the first time, and to run."""

    synapses: int
    once: float
    run: float


def estimate(study: Study, jobs: int, directory: Path) -> str:
    """Describe a study's grid, and how long what is missing of it would take.

    A few presentations of the smallest and of the largest circuits are run; the others are
    interpolated. What the pilot compiles is kept for the study itself.

    Parameters
    ----------
    study : Study
        What would be run.
    jobs : int
        Processes that it would use.
    directory : Path
        Where finished cells would be.

    Returns
    -------
    str
        To print.
    """
    cells = study.cells
    finished = Store(directory).finished(study, cells)
    missing = [cell for cell in cells if cell not in finished]
    lines = [
        f"k           {' '.join(map(str, study.k))}",
        f"gamma       {' '.join(f'{g:g}' for g in study.gamma)}",
        f"alpha       {' '.join(f'{a:g}' for a in study.alpha)}",
        f"neurons     {' '.join(map(str, study.neurons))}",
        f"trials      {study.trials}",
        f"rule        {study.rule}, {study.presentations} presentations",
        f"engine      {study.engine}, {jobs} process{'es' if jobs > 1 else ''}",
        f"circuits    {len(cells)}, of which {len(finished)} are finished",
        f"parts       {study.parts} of up to {CELLS_PER_JOB} circuits: --cell 0 to "
        f"{study.parts - 1}",
    ]
    if missing:
        once, run = _seconds(study, missing, jobs)
        lines.append(f"estimate    {_spoken(once + run)}, from a pilot")
        if once > 1:
            lines[-1] += f" ({_spoken(once)} of it to compile what is not compiled yet)"
        lines += faster_way(study, missing, jobs, once + run)
    return "\n".join(lines)


def faster_way(study: Study, cells: list[Cell], jobs: int, seconds: float) -> list[str]:
    """Say how long the propagator would take for cells that keep Brian2 busy for over a minute.

    Parameters
    ----------
    study : Study
        What the cells belong to.
    cells : list of Cell
        What is run.
    jobs : int
        Processes used.
    seconds : float
        What it takes with the study's own engine.

    Returns
    -------
    list of str
        One line, or none.
    """
    if registry.find(study.engine).exact or seconds <= 60 or study.definition.linear is None:
        return []
    once, run = _seconds(replace(study, engine="propagator", codegen="auto"), cells, jobs)
    return [
        f"--engine propagator gives the same numbers, to rounding, in about {_spoken(once + run)}"
    ]


def _seconds(study: Study, cells: list[Cell], jobs: int) -> tuple[float, float]:
    """Seconds to compile and to run, on so many processes."""
    work = sorted(study.jobs(cells), key=lambda job: (_synapses(job[0]), len(job)))
    timings = [_time(study, work[0])]
    if _synapses(work[-1][0]) > timings[0].synapses:
        timings.append(_time(study, work[-1]))
    low, high = timings[0], timings[-1]
    per_synapse = (high.run - low.run) / max(high.synapses - low.synapses, 1)
    run = sum(low.run + per_synapse * (_synapses(job[0]) - low.synapses) for job in work)
    shapes = {(job[0].k, job[0].neurons, len(job)) for job in work}
    # The pilot has compiled for its own shapes.
    once = (len(shapes) - len(timings)) * max(t.once for t in timings)
    busy = min(jobs, len(work))
    return once / min(busy, len(shapes)), run / busy


def _time(study: Study, job: tuple[Cell, ...]) -> _Timing:
    short, long = registry.get(study.engine, study.codegen).pilot(study.presentations)

    def seconds(presentations: int) -> float:
        started = time.perf_counter()
        run_cells(replace(study, presentations=presentations), job)
        return time.perf_counter() - started

    first, second = seconds(short), seconds(long)
    if short == long:
        run = second * study.presentations / long
    else:
        run = second + max(second - first, 0.0) / (long - short) * (study.presentations - long)
    return _Timing(_synapses(job[0]), max(first - second, 0.0), run)


def _synapses(cell: Cell) -> int:
    return cell.neurons * cell.k**2  # times the channels, which are the same for all


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
