"""Every engine against a plain loop over steps, on the same circuits.

Prints, and with --write also keeps under figures/: microseconds for a step of one circuit, as
ratios to a plain NumPy loop, over the number of neurons, of inputs and of circuits; and the
largest relative difference between every pair of engines for every rule. Results are compared
before anything is timed.

    python benchmarks/engines.py [--write]
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import threadpoolctl
from brian2 import ms

import circuitsim as cs
from circuitsim import measures, plots
from circuitsim.engines import standalone
from circuitsim.files import atomic_write

FIGURES = Path(__file__).resolve().parents[1] / "figures"
STEPS = 150
BASE = {"neurons": 100, "inputs": 81, "circuits": 30}
AXES = {"neurons": (10, 100, 300), "inputs": (9, 36, 81), "circuits": (1, 10, 30)}
LOOP = "plain NumPy loop"
# Engine, code generation, and presentations of a short and a long run: the difference is timed.
ENGINES = {
    "Brian2 per synapse, C++": ("brian2_per_synapse", "cpp_standalone", 1, 4),
    "Brian2, NumPy": ("brian2", "numpy", 2, 16),
    "Brian2, C++": ("brian2", "cpp_standalone", 20, 120),
    "stepper, Numba": ("stepper", "numba", 100, 1000),
    "propagator, NumPy": ("propagator", "numpy", 100, 1000),
    "propagator, Numba": ("propagator", "numba", 1000, 10_000),
}


@dataclass(frozen=True)
class Problem:
    """Circuits at the published protocol, a third of them with each gamma."""

    neurons: int
    inputs: int
    circuits: int

    def weights(self) -> np.ndarray:
        rng = np.random.default_rng(0)
        return 1 + rng.standard_normal((self.circuits, self.neurons, self.inputs))

    def patterns(self, presentations: int) -> np.ndarray:
        rng = np.random.default_rng(1)
        return rng.standard_normal((presentations, self.circuits, self.inputs))

    def gammas(self) -> np.ndarray:
        return np.resize([0.1, 0.01, 0.001], self.circuits)


def loop(problem: Problem, presentations: int) -> tuple[np.ndarray, np.ndarray]:
    """Protocol B step by step, one circuit after another: final weights and inverse SNRs."""
    patterns, ended, measured = problem.patterns(presentations), [], []
    for c, w_init in enumerate(problem.weights()):
        gamma = problem.gammas()[c]
        w, m, r, r_inh, t = w_init.copy(), np.zeros_like(w_init), np.zeros(len(w_init)), 0.0, 0
        for x in patterns[:, c]:
            for _ in range(STEPS):
                z = w @ x
                r, r_inh = (
                    r + (-r + z - 10.0 * r_inh + 1.0) / 30.0,
                    r_inh + (-r_inh + r.mean() - 1.0) / 30.0,
                )
                rate = 3e-4 / np.sqrt(1 + t / 2) if t > 50 else 0.0
                m = 0.95 * m - rate * (np.outer(r - 1.0, x) + gamma * (w - w_init))
                w = w + m
                t += 1
            inverse = measures.inverse_snr_w(w)
        ended.append(w)
        measured.append(inverse)
    return np.array(ended), np.array(measured)


def run(name: str, problem: Problem, presentations: int, rule: str = "circuit"):
    """Run an engine on a problem."""
    engine, codegen, *_ = ENGINES[name]
    return cs.simulate(
        problem.weights(),
        problem.patterns(presentations),
        cs.Circuit(n_neurons=problem.neurons),
        cs.Plasticity(rule, gamma=problem.gammas()),
        presentation=STEPS * ms,
        engine=engine,
        codegen=codegen,
    )


def seconds(function, *arguments) -> float:
    """Time a call."""
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def per_step(name: str, problem: Problem) -> float:
    """Microseconds for a step of one circuit, apart from what any run takes."""
    work = STEPS * problem.circuits * 1e-6
    if name == LOOP:
        return seconds(loop, problem, 2) / (2 * work)
    *_, short, long = ENGINES[name]
    run(name, problem, short)  # compile
    run(name, problem, long)
    took = [seconds(run, name, problem, n) for n in (short, long) for _ in range(2)]
    return (min(took[2:]) - min(took[:2])) / ((long - short) * work)


def check(engines: list[str]) -> None:
    """Leave with an error unless all engines give the loop's numbers."""
    problem = Problem(20, 9, 3)
    weights, inverse = loop(problem, 4)
    for name in engines:
        found = run(name, problem, 4)
        error = max(
            np.abs(found.weights.values / weights - 1).max(),
            np.abs(found.inverse_snr_w.values[:, -1] / inverse - 1).max(),
        )
        if error > 1e-10:
            sys.exit(f"{name} differs from the loop by {error:.1e}")


def timings(engines: list[str]) -> dict[str, dict[tuple[str, int], float]]:
    """Microseconds a step and circuit for every engine along every axis."""
    found: dict[str, dict[tuple[str, int], float]] = {name: {} for name in (LOOP, *engines)}
    for axis, values in AXES.items():
        for value in values:
            problem = Problem(**(BASE | {axis: value}))
            for name in found:
                found[name][axis, value] = per_step(name, problem)
                print(
                    f"  {axis} = {value}: {name}: {found[name][axis, value]:.3g} us",
                    file=sys.stderr,
                )
    return found


def timing_table(found: dict[str, dict[tuple[str, int], float]]) -> str:
    """Ratios to the loop, as Markdown."""
    points = list(found[LOOP])
    lines = [
        "| how many times as fast as the loop | "
        + " | ".join(f"{a} {v}" for a, v in points)
        + " |",
        "|---|" + "---:|" * len(points),
        f"| {LOOP}, us a step and circuit | "
        + " | ".join(f"({found[LOOP][p]:.3g} us)" for p in points)
        + " |",
    ]
    for name, times in found.items():
        if name != LOOP:
            ratios = " | ".join(f"{found[LOOP][p] / times[p]:.3g}" for p in points)
            lines.append(f"| {name} | {ratios} |")
    return "\n".join(lines)


def agreement_table(engines: list[str]) -> str:
    """Largest relative differences between all pairs of engines for all rules, as Markdown."""
    problem, presentations = Problem(30, 16, 3), 100
    lines = [
        f"Largest differences after {presentations} presentations of {STEPS} steps (published "
        f"protocol, {problem.neurons} neurons, {problem.inputs} inputs): weights relative to the "
        "largest, inverse SNR each relative to itself.",
        "",
        "| rule | engines | weights | inverse SNR |",
        "|---|---|---:|---:|",
    ]
    for rule in cs.rules.RULES:
        runs = {name: run(name, problem, presentations, rule) for name in engines}
        for a, b in itertools.combinations(engines, 2):
            weights = (
                np.abs(runs[a].weights - runs[b].weights).max() / np.abs(runs[b].weights).max()
            )
            inverse = np.abs(runs[a].inverse_snr_w / runs[b].inverse_snr_w - 1).max()
            lines.append(f"| {rule} | {a} / {b} | {float(weights):.1e} | {float(inverse):.1e} |")
    return "\n".join(lines)


def available() -> list[str]:
    """Engines that work here."""
    engines = list(ENGINES)
    if not standalone.compiler_works():
        engines = [name for name in engines if "C++" not in name]
    try:
        import numba  # noqa: F401
    except ImportError:
        engines = [name for name in engines if "Numba" not in name]
    return engines


def main() -> None:
    """Print the tables, and write them with the plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="keep tables and plot under figures/")
    options = parser.parse_args()
    engines = available()
    with threadpoolctl.threadpool_limits(1):
        check(engines)
        agreement = agreement_table(engines)
        print(agreement, end="\n\n")
        if options.write:
            write("agreement.md", agreement)
        found = timings(engines)
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, {_processor()}"
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}"
    base = ", ".join(f"{value} {name}" for name, value in BASE.items())
    table = f"One process on {machine}; {versions}. Where not said otherwise: {base}.\n\n"
    table += timing_table(found)
    print(table)
    if options.write:
        write("engines.md", table)
        plots.save(plots.timings(found), FIGURES / "engines.png")


def write(name: str, text: str) -> None:
    """Keep a table under figures/."""
    with atomic_write(FIGURES / name) as path:
        path.write_text(f"Made by `python benchmarks/engines.py --write`.\n\n{text}\n")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
