"""The propagator against a plain loop over steps, on the simulations behind Figure 4B.

90 circuits of 100 neurons (k = 3, 6, 9; gamma = 0.1, 0.01, 0.001; 10 trials), 10,000 presentations
of 150 steps, SNR after every presentation. The plain loop would take hours: a few presentations of
it are timed and scaled. Results are checked against each other first. And: what more neurons cost.

    python benchmarks/propagator.py [--presentations 10000] [--threads 2]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import threadpoolctl

from circuitsim import Plasticity
from circuitsim.engines.batch import Batch, Outcome, State
from circuitsim.engines.propagator import Propagator
from circuitsim.inputs import ArrayInputs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import reference

KERNELS = (3, 6, 9)
GAMMAS = (0.1, 0.01, 0.001)
TRIALS = 10
STEPS = 150
LOOPED = 4  # presentations of the plain loop


def batch(k: int, presentations: int, neurons: int = 100, trials: int = TRIALS) -> Batch:
    """The circuits of one kernel size; those of a trial share their weights and inputs."""
    rng = np.random.default_rng(k)
    n_inputs, gammas = k * k, len(GAMMAS)
    w_init = np.tile(1 + rng.standard_normal((trials, neurons, n_inputs)), (gammas, 1, 1))
    n_circuits = gammas * trials
    inputs = rng.standard_normal((presentations, trials, n_inputs))
    return Batch(
        w_init=w_init,
        inputs=ArrayInputs(np.tile(inputs, (1, gammas, 1))),
        alpha=np.full(n_circuits, 10.0),
        tau=np.full(n_circuits, 30.0),
        b=np.ones(n_circuits),
        gamma=np.repeat(GAMMAS, trials),
        plasticity=Plasticity(),
        presentation=float(STEPS),
        dt=1.0,
        steps=STEPS,
        state=State(
            w_init.copy(),
            np.zeros(w_init.shape),
            np.zeros((n_circuits, neurons)),
            np.zeros(n_circuits),
        ),
        record=np.arange(presentations + 1),
    )


def timed(run: Callable[[Batch], Outcome], of: Batch) -> tuple[float, Outcome]:
    """Seconds and result of a run."""
    started = time.perf_counter()
    outcome = run(of)
    return time.perf_counter() - started, outcome


def check(outcome: Outcome, expected: Outcome, what: str) -> None:
    """Leave with an error if two results differ by more than rounding."""
    weights = np.abs(outcome.state.weights - expected.state.weights).max()
    inverse = np.abs(outcome.inverse_snr_w / expected.inverse_snr_w - 1).max()
    if weights > 1e-11 or inverse > 1e-10:
        sys.exit(f"{what}: weights differ by {weights:.1e}, inverse SNR by {inverse:.1e} relative")


def figure(presentations: int, threads: int) -> None:
    """Time the simulations behind Figure 4B."""
    engines = {"NumPy": Propagator("numpy")}
    try:
        engines["Numba, 1 thread"] = Propagator("numba")
        engines[f"Numba, {threads} threads"] = Propagator("numba", threads)
    except ValueError as error:
        print(f"left out: {error}\n")
    seconds = dict.fromkeys(["plain loop over steps, scaled", *engines], 0.0)
    loop, *_ = seconds

    compiling = {name: timed(engine.run, batch(3, 1))[0] for name, engine in engines.items()}
    for k in KERNELS:
        few = batch(k, LOOPED)
        one = batch(k, LOOPED, trials=1)
        took, expected = timed(reference.run, one)
        # Three circuits of one trial stand for thirty.
        seconds[loop] += took / LOOPED * presentations * TRIALS
        for name, engine in engines.items():
            check(engine.run(one), expected, f"{name}, k = {k}, against the plain loop")
            engine.run(few)
        whole, first = batch(k, presentations), None
        for name, engine in engines.items():
            took, outcome = timed(engine.run, whole)
            seconds[name] += took
            first = first or outcome
            check(outcome, first, f"{name}, k = {k}, against {next(iter(engines))}")

    print(f"Figure 4B, {presentations} presentations, 90 circuits; all results agree")
    print(f"{'':32}{'seconds':>12}{'ratio':>12}")
    for name, took in seconds.items():
        print(f"{name:32}{took:12.4g}{seconds[loop] / took:12.4g}")
    print(f"(loop timed on {LOOPED} presentations of 9 circuits; in the first call of each engine,")
    print(f" compiling included: {', '.join(f'{n} {t:.2g} s' for n, t in compiling.items())})\n")


def neurons(presentations: int) -> None:
    """Time pools of different sizes, apart from reading weights in and writing them out."""
    print(f"k = 3, 3 circuits, {presentations} presentations; seconds")
    print(f"{'neurons':>12}{'in and out':>14}{'the rest':>12}")
    for size in (100, 10_000, 1_000_000):
        engine = Propagator()
        short, whole = (batch(3, n, size, trials=1) for n in (1, presentations))
        engine.run(short)
        in_and_out = min(timed(engine.run, short)[0] for _ in range(5))
        rest = min(timed(engine.run, whole)[0] for _ in range(5)) - in_and_out
        print(f"{size:12}{in_and_out:14.4g}{rest:12.4g}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--presentations", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with threadpoolctl.threadpool_limits(1):
        figure(options.presentations, options.threads)
        neurons(10 * options.presentations)  # long enough to tell from what memory takes


if __name__ == "__main__":
    main()
