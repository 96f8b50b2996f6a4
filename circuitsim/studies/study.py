"""A study: a grid of circuits, each run for several trials, and how one of them is run."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim import measures, rules, theory
from circuitsim.engines import registry
from circuitsim.engines.batch import Progress
from circuitsim.engines.simulation import simulate
from circuitsim.inputs import GaussianInputs, StackedInputs, check_correlation, equicorrelated
from circuitsim.parameters import DT, PRESENTATION, PUBLISHED_RATES, Circuit, Plasticity
from circuitsim.validation import (
    ParameterError,
    dimensionless,
    in_range,
    integer,
    whole_steps,
)
from circuitsim.values import ms

SCHEME = 1  # raise it when the same study would give other numbers
CELLS_PER_JOB = 10  # circuits in one engine call: enough to be fast, few enough to lose little

DIGEST_LENGTH = 32  # of the name of a cell's result

# What is measured along a run, and once for each circuit.
CURVES = ("snr_w", "inverse_snr_w", "mean_weight_cosine")
LIMITS = (
    "theory_inverse_snr_w",
    "fixed_point_inverse_snr_w",
    "theory_snr_w",
    "fixed_point_snr_w",
)
DIMENSIONS = ("k", "gamma", "alpha", "neurons", "trial")


@dataclass(frozen=True, order=True)
class Cell:
    """One circuit of a study: a point of its grid, and a trial."""

    k: int
    neurons: int
    gamma: float
    alpha: float
    trial: int

    def to_json(self) -> str:
        """Return all fields as text, always the same."""
        # As json.dumps writes it, at a tenth of its cost: a study may have 100,000 cells.
        return (
            f'{{"alpha": {self.alpha!r}, "gamma": {self.gamma!r}, "k": {self.k}, '
            f'"neurons": {self.neurons}, "trial": {self.trial}}}'
        )


@dataclass
class CellResult:
    """What running a cell gives.

    Attributes
    ----------
    curves : dict of ndarray, shape (presentation,)
        `CURVES` from the start (0) to the last presentation.
    limits : dict of float
        `LIMITS`.
    weights : ndarray, shape (neuron, input)
        At the end.
    seconds : float
        Its share of the time that the engine took.
    """

    curves: dict[str, NDArray[np.float64]]
    limits: dict[str, float]
    weights: NDArray[np.float64]
    seconds: float


@dataclass(frozen=True)
class Study:
    """A convergence study of the weights' SNR over a grid.

    Parameters
    ----------
    k : sequence of int
        Kernel sizes; a circuit has K = k^2 inputs for each channel.
    gamma, alpha : sequence of float
        Pull towards the initial weights, strength of inhibition.
    neurons : sequence of int
        Neurons in a pool.
    rule : str
        Plasticity rule: whatever `circuitsim.rules.get` takes. A rule that is not one of this
        package's is kept with its definition, ``"name = signal"``.
    trials : int
        Circuits with weights and inputs of their own for each point of the grid.
    presentations : int
        Length of a run.
    engine, codegen : str
        As in `circuitsim.simulate`.
    seed : int
        Fixes all weights and inputs, together with k, neurons, channels and the number of a trial
        alone.
    correlation : float
        Correlation between any two inputs.
    tau, presentation, dt : float
        Time constant of the rates, duration of a presentation and step, in ms.
    b : float
        Baseline rate.
    momentum, learning_rate : float, optional
        Heavy-ball momentum; learning rate of a step of 1 ms at the start (of an update, for a rule
        that makes one a presentation), by default as published.
    channels : int
        Channels of the input patterns.

    Raises
    ------
    ParameterError, DimensionMismatchError
        If a value is out of its range, repeated, or does not go with the others.
    """

    k: tuple[int, ...] = (3, 6, 9)
    gamma: tuple[float, ...] = (0.1, 0.01, 0.001)
    alpha: tuple[float, ...] = (10.0,)
    neurons: tuple[int, ...] = (100,)
    rule: str = "circuit"
    trials: int = 10
    presentations: int = 2000
    engine: str = "brian2"
    codegen: str = "auto"
    seed: int = 0
    correlation: float = 0.0
    tau: float = 30.0
    b: float = 1.0
    presentation: float = float(PRESENTATION / ms)
    dt: float = float(DT / ms)
    momentum: float = 0.95
    learning_rate: float | None = None
    channels: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", str(rules.get(self.rule, "Study.rule")))
        registry.find(self.engine, "Study.engine").check_rule(self.definition)
        for name in ("trials", "presentations", "channels"):
            integer(f"Study.{name}", getattr(self, name), minimum=1)
        integer("Study.seed", self.seed, minimum=0)
        for name, minimum in (("k", 1), ("neurons", 2)):
            values = self._values(name)
            checked = tuple(integer(f"Study.{name}", v, minimum=minimum) for v in values)
            object.__setattr__(self, name, _distinct(name, checked))
        for name in ("gamma", "alpha"):
            numbers = tuple(dimensionless(f"Study.{name}", v) for v in self._values(name))
            object.__setattr__(self, name, _distinct(name, numbers))
        for name in ("tau", "presentation", "dt", "b", "momentum", "correlation", "learning_rate"):
            given = getattr(self, name)
            if name == "learning_rate" and given is None:
                continue
            value = dimensionless(f"Study.{name}", given)
            if name in ("tau", "presentation", "dt"):
                in_range(f"Study.{name}", value, given, above=0, unit="ms")
            object.__setattr__(self, name, value)
        whole_steps(self.presentation, self.dt)
        if self.per_presentation and len(self.alpha) > 1:
            raise ParameterError(
                "Study.alpha",
                f"the rule {self.definition.name} has no inhibition; give one value",
                self.alpha,
            )
        for k in self.k:
            check_correlation(self.correlation, self.n_inputs(k))
        for gamma, alpha in itertools.product(self.gamma, self.alpha):
            self.plasticity(gamma).check_step(self.dt)
            circuit = self.circuit(2, alpha)
            if not self.per_presentation:
                circuit.check_step(self.dt)

    def _values(self, name: str) -> tuple[Any, ...]:
        values = getattr(self, name)
        if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str):
            values = (values,)
        if len(values) == 0:
            raise ParameterError(f"Study.{name}", "needs at least one value", values)
        return tuple(values)

    @property
    def definition(self) -> rules.Rule:
        """The rule itself: its signal, and what follows from it."""
        return rules.get(self.rule)

    @property
    def per_presentation(self) -> bool:
        """Whether the rule makes one update a presentation."""
        return self.definition.per_presentation

    def n_inputs(self, k: int) -> int:
        """Inputs of a circuit, K: the pixels of its kernel, (row, column, channel)."""
        return k**2 * self.channels

    @property
    def size(self) -> int:
        """Number of all circuits."""
        axes = (self.k, self.neurons, self.gamma, self.alpha)
        return math.prod(len(axis) for axis in axes) * self.trials

    @property
    def cells(self) -> list[Cell]:
        """All circuits, in the order in which they are run."""
        grid = itertools.product(self.k, self.neurons, self.gamma, self.alpha, range(self.trials))
        return [Cell(*point) for point in grid]

    @property
    def parts(self) -> int:
        """Number of jobs that all cells make."""
        return len(self.k) * len(self.neurons) * self._parts_of_a_shape

    def part(self, number: int) -> tuple[Cell, ...]:
        """Return one job of the fixed list that all cells make, ``jobs(cells)[number]``.

        Raises
        ------
        ParameterError
            If there is no such job.
        """
        if not 0 <= number < self.parts:
            raise ParameterError("Study.cell", f"must be from 0 to {self.parts - 1}", number)
        shape, place = divmod(number, self._parts_of_a_shape)
        k, neurons = list(itertools.product(self.k, self.neurons))[shape]
        points = itertools.product(self.gamma, self.alpha, range(self.trials))
        first = place * CELLS_PER_JOB
        chosen = itertools.islice(points, first, first + CELLS_PER_JOB)
        return tuple(Cell(k, neurons, *point) for point in chosen)

    @property
    def _parts_of_a_shape(self) -> int:
        return -(-len(self.gamma) * len(self.alpha) * self.trials // CELLS_PER_JOB)

    def circuit(self, neurons: int, alpha: Any) -> Circuit:
        """Circuits of a batch, with their alphas."""
        return Circuit(n_neurons=neurons, tau=self.tau * ms, alpha=alpha, b=self.b)

    def plasticity(self, gamma: Any) -> Plasticity:
        """Plasticity of a batch, with its gammas."""
        rate = PUBLISHED_RATES[self.per_presentation]
        if self.learning_rate is not None:
            rate = rate.starting_at(self.learning_rate)
        return Plasticity(self.rule, gamma=gamma, momentum=self.momentum, learning_rate=rate)

    def initial_weights(self, cell: Cell) -> NDArray[np.float64]:
        """Initial weights of a cell, 1 + N(0, 1), shape (neuron, input)."""
        rng = np.random.default_rng(self._seed(cell, 0))
        return 1 + rng.standard_normal((cell.neurons, self.n_inputs(cell.k)))

    def inputs(self, cell: Cell) -> GaussianInputs:
        """Inputs of a cell."""
        return GaussianInputs(
            self.presentations,
            self.n_inputs(cell.k),
            self._seed(cell, 1),
            self.covariance(cell.k),
        )

    def covariance(self, k: int) -> NDArray[np.float64] | None:
        """Covariance of the inputs, None for the identity."""
        if self.correlation == 0:
            return None
        return equicorrelated(self.correlation, self.n_inputs(k))

    def to_json(self) -> str:
        """Return all parameters as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: Any) -> Study:
        """Return the study that `to_json` has described; parameters it does not know are left out.

        Raises
        ------
        ValueError
            If the text describes no valid study.
        """
        try:
            values = json.loads(text)
            known = {f.name for f in fields(cls)}
            lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
            return cls(**{name: v for name, v in (values | lists).items() if name in known})
        except (
            TypeError,
            ValueError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            raise ValueError(f"it describes no valid study: {error}") from None

    def extends(self, other: Study) -> bool:
        """Whether this study has all cells of another, and perhaps more."""
        return not self.difference(other)

    def difference(self, other: Study) -> str:
        """What keeps this study from having all cells of another, in words; empty if nothing."""
        differences = []
        for name, mine in asdict(self).items():
            theirs = getattr(other, name)
            if name in ("k", "gamma", "alpha", "neurons"):
                missing = [f"{v:g}" for v in theirs if v not in mine]
                if missing:
                    differences.append(f"{name} {', '.join(missing)} is not in this one")
            elif name == "trials":
                if mine < theirs:
                    differences.append(f"{theirs} trials, not {mine}")
            elif mine != theirs:
                differences.append(f"{name} {theirs}, not {mine}")
        return "; ".join(differences)

    def memory(self) -> dict[str, float]:
        """Bytes that running the study takes at least, by the parameter that matters most to it."""
        points = len(self.gamma) * len(self.alpha)
        shapes = len(self.k) * len(self.neurons)
        sizes = {"k": max(self.k) ** 2, "channels": self.channels, "neurons": max(self.neurons)}
        synapses = math.prod(sizes.values())
        return {
            # Weights, momentum and what they are made from, in one engine call.
            max(sizes, key=lambda name: sizes[name]): 80.0 * synapses,
            "trials": points * self.trials * (8.0 * synapses + 300 * shapes),
            "presentations": 24.0 * (self.presentations + 1) * points * shapes * self.trials,
        }

    def _seed(self, cell: Cell, purpose: int) -> np.random.SeedSequence:
        # Not of gamma, alpha, rule or engine: these are compared on the same weights and inputs.
        key: tuple[int, ...] = (cell.k, cell.neurons, cell.trial, purpose)
        if self.channels > 1:  # else as before there were channels
            key = (*key, self.channels)
        return np.random.SeedSequence(self.seed, spawn_key=key)

    def digest(self, cell: Cell) -> str:
        """Name of a cell's result: a digest of all that determines its numbers."""
        return hashlib.sha256(f"[{self._common}, {cell.to_json()}]".encode()).hexdigest()[
            :DIGEST_LENGTH
        ]

    @cached_property
    def _common(self) -> str:
        values = {"scheme": SCHEME} | {
            name: value
            for name, value in asdict(self).items()
            if name not in ("k", "gamma", "alpha", "neurons", "trials")
            and (name, value) != ("channels", 1)  # cells from before there were channels
        }
        return json.dumps(values, sort_keys=True)

    def jobs(self, cells: Sequence[Cell]) -> list[tuple[Cell, ...]]:
        """Split cells into jobs: batches of equal shape for one engine call each."""
        return [
            batch
            for _, same_shape in itertools.groupby(cells, key=lambda c: (c.k, c.neurons))
            for batch in batched(tuple(same_shape), CELLS_PER_JOB)
        ]


def _distinct(name: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    seen = set()
    for value in values:
        if value in seen:
            raise ParameterError(f"Study.{name}", "must not be given twice", value)
        seen.add(value)
    return values


def batched(items: Sequence[Cell], size: int) -> list[tuple[Cell, ...]]:
    """Split a sequence into tuples of at most ``size``."""
    return [tuple(items[i : i + size]) for i in range(0, len(items), size)]


def run_cells(
    study: Study, cells: Sequence[Cell], progress: Progress | None = None
) -> list[CellResult]:
    """Run cells that share k and neurons in one engine call.

    A cell's numbers do not depend on which others are run with it.

    Parameters
    ----------
    study : Study
        What the cells belong to.
    cells : sequence of Cell
        At least one.
    progress : callable, optional
        Called with the fraction done.

    Returns
    -------
    list of CellResult
        In the order of ``cells``.
    """
    started = time.perf_counter()
    first = cells[0]
    trials = sorted({cell.trial: cell for cell in cells}.items())
    place = {trial: i for i, (trial, _) in enumerate(trials)}
    w_init = np.stack([study.initial_weights(cell) for cell in cells])
    inputs = StackedInputs(
        [study.inputs(cell) for _, cell in trials], [place[cell.trial] for cell in cells]
    )
    run = simulate(
        w_init,
        inputs,
        study.circuit(first.neurons, np.array([cell.alpha for cell in cells])),
        study.plasticity(np.array([cell.gamma for cell in cells])),
        presentation=study.presentation * ms,
        dt=study.dt * ms,
        engine=study.engine,
        codegen=study.codegen,
        progress=progress,
    )
    seconds = (time.perf_counter() - started) / len(cells)
    return [
        CellResult(
            curves={name: run[name].to_numpy()[i] for name in CURVES},
            limits=_limits(study, cell, w_init[i]),
            weights=run["weights"].to_numpy()[i],
            seconds=seconds,
        )
        for i, cell in enumerate(cells)
    ]


def _limits(study: Study, cell: Cell, w_init: NDArray[np.float64]) -> dict[str, float]:
    """Measures at the fixed point of Eq. 5 (theory) and of the rule itself (fixed point).

    Those of a rule without a closed form are NaN.
    """
    limits = dict.fromkeys(LIMITS, float("nan"))
    for prefix, rule in (("theory", "mean_subtracted"), ("fixed_point", study.rule)):
        if rules.get(rule).averaged is None:
            continue
        covariance = study.covariance(cell.k)
        weights = theory.fixed_point(w_init, cell.gamma, rule, cell.alpha, covariance, limit=True)
        limits[f"{prefix}_inverse_snr_w"] = float(measures.inverse_snr_w(weights))
        limits[f"{prefix}_snr_w"] = float(measures.snr_w(weights))
    return limits
