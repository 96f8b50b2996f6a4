"""What a study costs beside its circuits.

Prints how much faster two processes are than one on a study of 200 circuits, the overhead of a
circuit, and what very many tiny circuits need: to be written, listed, resumed and merged.

    python benchmarks/studies.py [--repeat 3] [--jobs 2] [--tiny 100000]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np

from circuitsim import studies
from circuitsim.running import local, state
from circuitsim.running.campaign import Arrays
from circuitsim.running.records import Place
from circuitsim.running.store import Store
from circuitsim.studies.registry import KINDS
from circuitsim.studies.sweep import CURVES, LIMITS, Cell, Study, load_seconds

REAL = Study(k=(9,), gamma=(0.1, 0.01), trials=100, presentations=6000, engine="propagator",
             codegen="numpy")  # fmt: skip


class Instant(Executor):
    """Makes up results, so that only what a study does with them takes time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Give made-up results of cells at once."""
        study, cells = args
        future: Future[Any] = Future()
        future.set_result([_made_up(study, cell) for cell in cells])
        return future


def _made_up(study: Study, cell: Cell) -> Arrays:
    numbers = np.random.default_rng(cell.trial).random(study.presentations + 1)
    weights = np.resize(numbers, (cell.neurons, cell.k**2))
    made = dict.fromkeys(CURVES, numbers)
    return made | {"limits": np.ones(len(LIMITS)), "weights": weights, "seconds": np.array([0.1])}


def timed(what: str, call: Callable[[], Any], cells: int) -> Any:
    """Call a function and print how long it took, for each cell too."""
    started = time.perf_counter()
    returned = call()
    seconds = time.perf_counter() - started
    print(f"{what:<36}{seconds:>9.2f} s {1e3 * seconds / cells:>9.3f} ms a circuit")
    return returned


def speedup(repeat: int, jobs: int) -> None:
    """Compare processes on a study of circuits that are real work."""
    spent: dict[int, list[float]] = {1: [], jobs: []}
    for _ in range(repeat):
        for count, seconds in spent.items():
            with tempfile.TemporaryDirectory() as directory:
                output = Path(directory) / "out.nc"
                started = time.perf_counter()
                studies.run(REAL, output, jobs=count)
                seconds.append(time.perf_counter() - started)
                engine = float(load_seconds(output).sum()) / count
            overhead = 1e3 * (seconds[-1] - engine) / REAL.size
            print(f"{REAL.size} circuits, {count} processes: {seconds[-1]:.1f} s, of which the "
                  f"engine {engine:.1f} s; overhead {overhead:.1f} ms a circuit")  # fmt: skip
    ratios = [one / more for one, more in zip(*spent.values(), strict=True)]
    print(f"{jobs} processes are {np.median(ratios):.2f} times as fast as one (median; "
          f"{min(ratios):.2f} to {max(ratios):.2f})")  # fmt: skip


def many(count: int) -> None:
    """Time what is done with very many tiny circuits."""
    gammas = tuple(1e-5 * (1 + i) for i in range(max(1, count // 100)))
    tiny = Study(k=(2,), neurons=(4,), gamma=gammas, trials=100, presentations=10)
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "out.nc"
        store = Store(Place(output).record)
        timed("run (circuits that take no time)", lambda: studies.run(tiny, output, Instant()),
              tiny.size)  # fmt: skip
        timed("find out what is there", lambda: store.finished(tiny, tiny.cells), tiny.size)
        timed("run again: merge", lambda: studies.run(tiny, output, Instant()), tiny.size)
        output.unlink()
        found = timed("status, counts", lambda: state.read(output, KINDS), tiny.size)
        timed("status, table", lambda: list(found.campaign.so_far(found.reader(print))), tiny.size)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"most memory: {memory:.0f} MB")


def main() -> None:
    """Print the figures."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--tiny", type=int, default=100_000)
    options = p.parse_args()
    print(f"{local.available_cores()} cores")
    if options.repeat:
        speedup(options.repeat, options.jobs)
    if options.tiny:
        many(options.tiny)


if __name__ == "__main__":
    main()
