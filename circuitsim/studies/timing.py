"""How long circuits would take, from timing a little of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from circuitsim.engines import registry
from circuitsim.running.campaign import spoken

_ENOUGH = 1.0  # seconds of presentations that tell how long one takes


@dataclass(frozen=True)
class _Timing:
    """Seconds of one job: to get ready once, and in each process, and to run."""

    synapses: int
    once: float
    each: float
    run: float


def faster_way(study: Any, cells: Sequence[Any], jobs: int, took: float) -> list[str]:
    """Say how long the propagator would take for cells that keep Brian2 busy for over a minute.

    Parameters
    ----------
    study : Study
        What the cells belong to.
    cells : sequence of Cell
        What is run.
    jobs : int
        Processes used.
    took : float
        What it takes in seconds with the study's own engine.

    Returns
    -------
    list of str
        One line, or none.
    """
    exact = registry.find(study.engine).exact
    if exact or took <= 60 or not cells:
        return []
    suited = replace(study, engine=registry.AUTO, codegen="auto")
    if not registry.find(suited.engine).exact:
        return []
    once, run = seconds(suited, cells, jobs)
    return [
        f"--engine {suited.engine} gives the same numbers, to rounding, in about "
        f"{spoken(once + run)}"
    ]


def seconds(study: Any, cells: Sequence[Any], jobs: int) -> tuple[float, float]:
    """Seconds to compile and to run, on so many processes."""
    work = sorted(study.jobs(cells), key=lambda job: (_synapses(job[0]), len(job)))
    timings = [_time(study, work[0])]
    if _synapses(work[-1][0]) > timings[0].synapses:
        timings.append(_time(study, work[-1]))
    low, high = timings[0], timings[-1]
    per_synapse = (high.run - low.run) / max(high.synapses - low.synapses, 1)
    run = sum(low.run + per_synapse * (_synapses(job[0]) - low.synapses) for job in work)
    shapes = {(job[0].k, job[0].neurons, len(job)) for job in work}
    # The pilot has compiled for its own shapes, and for all processes; or each process gets ready.
    once = (len(shapes) - len(timings)) * max(t.once for t in timings)
    busy = min(jobs, len(work))
    each = max(t.each for t in timings)
    return each + once / min(busy, len(shapes)), run / busy


def _time(study: Any, job: tuple[Any, ...]) -> _Timing:
    engine = registry.get(study.engine, study.codegen)
    short, long = engine.pilot(study.presentations)

    def measured(presentations: int) -> float:
        started = time.perf_counter()
        replace(study, presentations=presentations).run(job)
        return time.perf_counter() - started

    def of_length(presentations: int) -> tuple[float, float]:
        """Seconds to compile what is of this length alone, as Cython does, and to run."""
        first = measured(presentations)
        again = first if engine.codegen == "numpy" else measured(presentations)
        return max(first - again, 0.0), min(first, again)

    first = measured(short)
    if short == long:
        second = measured(long)
        run = second * study.presentations / long
        return _Timing(_synapses(job[0]), max(first - second, 0.0), 0.0, run)
    compiling, second = of_length(long)
    # The first run of all has made ready what takes longer than it; so the short one is run again,
    # and the long one is made long enough to tell the time of a presentation from all else.
    ready = measured(short)
    while second < 2 * ready and second - ready < _ENOUGH and long < study.presentations:
        long = min(4 * long, study.presentations)
        compiling, second = of_length(long)
    run = second + max(second - ready, 0.0) / (long - short) * (study.presentations - long)
    once = max(first - ready, 0.0) + compiling
    of_all = engine.threads
    return _Timing(_synapses(job[0]), once if of_all else 0.0, 0.0 if of_all else once, run)


def _synapses(cell: Any) -> int:
    return cell.neurons * cell.k**2  # times the channels, which are the same for all
