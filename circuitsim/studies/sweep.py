"""A sweep: a grid of circuits, each run for several trials, and its file, table and plot."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from circuitsim import linear, measures, rules, theory
from circuitsim.checks import fields
from circuitsim.checks.fields import declare
from circuitsim.checks.names import nearest
from circuitsim.checks.validation import ParameterError, array, function, integer, whole_steps
from circuitsim.checks.values import ms
from circuitsim.engines import registry
from circuitsim.engines.simulation import LONG_NAMES, simulate
from circuitsim.files import reason
from circuitsim.initial import MEANS, mean_kernel
from circuitsim.inputs import (
    GaussianInputs,
    InputSource,
    Noisy,
    Patterns,
    StackedInputs,
    check_correlation,
    equicorrelated,
)
from circuitsim.parameters import PUBLISHED_RATES, Circuit, Plasticity, whole_delay
from circuitsim.running import results, runner
from circuitsim.running.campaign import (
    NUMBER,
    Arrays,
    Campaign,
    Group,
    Groups,
    Layout,
    Progress,
    batched,
    chosen_part,
    shown,
)
from circuitsim.studies import origins, settings, tables, timing
from circuitsim.studies.settings import Point, Settings

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

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

UNITS = (
    {
        "k": ("kernel size; a circuit has k^2 inputs for each channel", "1"),
        "gamma": ("pull towards the initial weights", "1"),
        "alpha": ("strength of inhibition", "1"),
        "neurons": ("number of neurons in a pool", "1"),
        "trial": ("number of the trial", "1"),
        "presentation": (LONG_NAMES["presentation"], "1"),
        "neuron": ("number of the neuron in its pool", "1"),
        "input": ("number of the input", "1"),
        "theory_inverse_snr_w": ("inverse SNR of the weights at the end point of Eq. 5", "1"),
        "fixed_point_inverse_snr_w": (
            "inverse SNR of the weights at the rule's own end point",
            "1",
        ),
        "theory_snr_w": ("SNR of the weights at the end point of Eq. 5", "1"),
        "fixed_point_snr_w": ("SNR of the weights at the rule's own end point", "1"),
        "seconds": ("time spent on the cell, its share of an engine call", "s"),
    }
    | settings.NUMBERS
    | {name: (LONG_NAMES[name], "1") for name in (*CURVES, "weights")}
)


@dataclass(frozen=True, order=True)
class Cell:
    """One circuit of a study: a point of its grid, and a trial."""

    k: int
    neurons: int
    gamma: float
    alpha: float
    trial: int
    settings: Point = ()

    def __str__(self) -> str:
        point = {n: getattr(self, n) for n in ("k", "neurons", "gamma", "alpha")}
        every = {**point, **dict(self.settings), "trial": self.trial}
        return ", ".join(f"{name}={value}" for name, value in every.items())

    def to_json(self) -> str:
        """Return all fields as text, always the same."""
        # As json.dumps writes it, at a tenth of its cost: a study may have 100,000 cells.
        return (
            f'{{"alpha": {self.alpha!r}, "gamma": {self.gamma!r}, "k": {self.k}, '
            f'"neurons": {self.neurons}, '
            # Left out where there are none, as in cells from before there were any.
            + (f'"settings": {json.dumps(dict(self.settings))}, ' if self.settings else "")
            + f'"trial": {self.trial}}}'
        )


@dataclass(frozen=True)
class Study(Campaign[Cell]):
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
        As in `circuitsim.simulate`; one for all circuits, so that ``"auto"`` becomes the exact one
        only if it can run them all.
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
    initial_mean : str
        Mean of the initial weights, as `circuitsim.initial.mean_kernel` makes it. Where it is not
        ``"ones"`` trials differ in it, and means pass through zero: look at ``snr_w`` rather than
        at ``inverse_snr_w``.
    initial : str, optional
        Weights to begin with: ``RUN:LAYER``, whose pools are the circuits, or ``FILE.npz``; then k,
        neurons, trials and channels are those of the weights (`circuitsim.studies.origins`).
    channels : int
        Channels of the input patterns.
    pools : tuple of int
        Where weights are given, how many circuits have each number of neurons; found by itself.
    initial_digest : str
        Where weights are given, a checksum of them; found by itself.
    inputs : str, optional
        File ``.npy`` with patterns (pattern, input), of which each presentation shows any; Gaussian
        ones by default.
    settings : mapping
        Further parameters of `circuitsim.Circuit`, plain numbers with times in ms: each with one
        value or several, which are dimensions of the grid. ``private`` is the standard deviation of
        each neuron's own input (`circuitsim.inputs.Noisy`). Texts, such as ``transfer``, have one.
    patterns : str
        Digest of what ``inputs`` holds; found where it is not given.

    Raises
    ------
    ParameterError, DimensionMismatchError
        If a value is out of its range, repeated, or does not go with the others.
    """

    k: tuple[int, ...] = declare(
        (3, 6, 9),
        "kernel sizes; a circuit has K x K inputs for each of its --channels",
        "K",
        minimum=1,
    )
    gamma: tuple[float, ...] = declare(
        (0.1, 0.01, 0.001), "pull towards the initial weights, dimensionless", "G"
    )
    alpha: tuple[float, ...] = declare((10.0,), "strength of inhibition, dimensionless", "A")
    neurons: tuple[int, ...] = declare((100,), "excitatory neurons in a pool", "N", minimum=2)
    rule: str = declare(
        "circuit",
        "plasticity rule: circuit, mean_subtracted or inhibition_gated; the name of one of "
        "--rules-from or of an installed package; or one in place, 'mine = r - b - 0.5*r_inh'",
        "RULE",
    )
    trials: int = declare(
        10,
        "circuits for each point of the grid, with weights and inputs of their own",
        "T",
        minimum=1,
    )
    presentations: int = declare(
        2000, "input patterns shown to each circuit, one after another", "P", minimum=1
    )
    engine: str = declare(
        "brian2",
        "brian2 (the network of neurons), propagator (the same numbers from the exact solution of "
        "linear circuits, a thousand times faster), stepper (compiled steps of any circuit), or "
        "auto: the propagator where it can, else the stepper, as the file then says",
        "ENGINE",
    )
    codegen: str = declare(
        "auto",
        "code of the engine: auto, cpp_standalone, cython or numpy for brian2; auto, numba or "
        "numpy for propagator and stepper",
        "HOW",
    )
    seed: int = declare(0, "fixes all weights and inputs", "SEED")
    correlation: float = declare(0.0, "correlation between any two inputs, dimensionless", "RHO")
    tau: float = declare(30.0, "time constant of the rates, in ms", "MS", above=0, unit="ms")
    b: float = declare(1.0, "baseline rate, dimensionless", "B")
    presentation: float = declare(
        150.0, "how long each pattern is shown, in ms", "MS", above=0, unit="ms"
    )
    dt: float = declare(1.0, "step of forward Euler, in ms", "MS", above=0, unit="ms")
    momentum: float = declare(
        0.95,
        "heavy-ball momentum of a step of 1 ms (of an update, for mean_subtracted), dimensionless",
        "MU",
    )
    learning_rate: float | None = declare(
        None,
        "learning rate of a step of 1 ms at t = 0 (of the first update, for mean_subtracted), "
        "dimensionless; by default 3e-4 (5e-4), as published",
        "RATE",
    )
    initial_mean: str = declare(
        "ones",
        "mean of the initial weights, to which each neuron adds noise N(0, 1): ones, as published; "
        "or gabor or normal, a kernel of each trial's own with a mean square of 1",
        "MEAN",
        choices=lambda: MEANS,
    )
    initial: str | None = declare(
        None,
        "weights to begin with: RUN:LAYER, a layer of a network that classify train has trained, "
        "whose pools are the circuits, or FILE.npz, with weights (circuit, neuron, input) as "
        "export writes them; --k, --neurons, --trials and --channels follow from them",
        "FROM",
    )
    channels: int = declare(
        1, "channels of the input patterns, such as the 3 of colour images", "C", minimum=1
    )
    # What `initial` is, so that a result says it: how many circuits have each number of neurons,
    # and a checksum of the weights.
    pools: tuple[int, ...] = ()
    initial_digest: str = ""
    inputs: str | None = declare(
        None,
        "file of patterns to show, an array (pattern, input), each presentation any of them; by "
        "default Gaussian patterns",
        "FILE.npy",
    )
    settings: Settings = ()
    patterns: str = ""

    kind = called = "sweep"
    part_size = f" of up to {CELLS_PER_JOB} circuits"
    what = "the result of a sweep"
    format = ("circuitsim sweep", 3)  # 3: with a seal
    scheme = SCHEME
    reproducible = False
    infinite = ("snr_w",)  # weights that are all the same to the last bit
    undefined = ("limits",)  # those of a rule without a closed form
    units = UNITS
    grid = ("k", "gamma", "alpha", "neurons")
    counted = ("trials",)

    def __post_init__(self) -> None:
        fields.check(self)
        self._begin()
        object.__setattr__(self, "rule", str(rules.get(self.rule, "Study.rule")))
        object.__setattr__(self, "settings", settings.checked(self.settings))
        self._check_inputs()
        if self.engine == registry.AUTO:
            object.__setattr__(self, "engine", self._suited())
        registry.find(self.engine, "Study.engine").check_rule(self.definition)
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
            for point in self.points:
                self._check_circuit(self.circuit(None, alpha, point), dict(point))

    def _suited(self) -> str:
        """Return the engine that "auto" stands for."""
        circuits = (self.circuit(None, alpha, p) for p in self.points for alpha in self.alpha)
        private = any(dict(point).get("private") for point in self.points)
        return registry.suited(self.plasticity(0.0), all(c.solvable for c in circuits), private)

    def _check_circuit(self, circuit: Circuit, point: Mapping[str, float]) -> None:
        if not self.per_presentation:
            circuit.check_step(self.dt)
        if "delay" in point:
            whole_delay(point["delay"], self.dt)
        plain = (self.per_presentation or circuit.solvable) and not point.get("private")
        if not plain and registry.find(self.engine).exact:
            raise ParameterError(
                "Study.engine",
                "runs linear circuits, without noise or delay and with neurons that are alike and "
                "see the same; use engine='stepper'",
                self.engine,
            )
        imperfect = [name for name, _ in self.settings if name != "private"]
        if self.per_presentation and imperfect:
            raise ParameterError(
                "Study.settings",
                f"the rule {self.definition.name} has no circuit; leave this out",
                imperfect[0],
            )

    def _check_inputs(self) -> None:
        if self.inputs is None:
            if self.patterns:
                raise ParameterError("Study.patterns", "needs inputs", self.patterns)
            return
        if self.correlation:
            raise ParameterError(
                "Study.correlation", "has no effect with patterns of inputs", self.correlation
            )
        object.__setattr__(self, "inputs", os.path.abspath(self.inputs))
        if self.patterns:  # as a result says it, whose file may be elsewhere
            return
        found = _patterns.__wrapped__(self.inputs, "")  # it may have changed
        object.__setattr__(self, "patterns", _digest(found))
        for k in self.k:
            if self.n_inputs(k) != found.shape[1]:
                raise ParameterError(
                    "Study.k",
                    f"must have as many inputs, k^2 for each channel, as the patterns: "
                    f"{found.shape[1]}",
                    k,
                )

    @property
    def points(self) -> list[Point]:
        """Every combination of the settings that are numbers; one that is empty without any."""
        axes = self.further
        grid = itertools.product(*axes.values())
        return [tuple(zip(axes, values, strict=True)) for values in grid]

    @property
    def further(self) -> dict[str, tuple[float, ...]]:
        """Dimensions that settings add to the grid, with their values."""
        return {name: v for name, v in self.settings if name in settings.NUMBERS}  # type: ignore[misc]

    @property
    def texts(self) -> dict[str, str]:
        """Settings that are texts."""
        return {name: str(v[0]) for name, v in self.settings if name in settings.TEXTS}

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Dimensions of the grid in the result, the trial last."""
        return (*self.grid, *self.further, "trial")

    def _begin(self) -> None:
        """Take from given weights what follows from them; what was read of a file has it."""
        if self.initial is None:
            if fields.listed(self.pools) or self.initial_digest:
                raise ParameterError("Study.pools", "have no meaning without initial", self.pools)
            object.__setattr__(self, "pools", ())  # or an empty list
            return
        if self.initial_mean != fields.default(Study, "initial_mean"):
            raise ParameterError(
                "Study.initial_mean", "has no effect with initial; leave it out", self.initial_mean
            )
        if not self.initial_digest:
            origin = origins.read(self.initial)
            sizes = {size: len(weights) for size, weights in origin.pools.items()}
            found = {
                "k": (origin.k,),
                "neurons": tuple(sizes),
                "trials": max(sizes.values()),
                "channels": origin.channels,
            }
            for name, value in found.items():
                if getattr(self, name) not in (value, fields.default(Study, name)):
                    raise ParameterError(
                        f"Study.{name}", f"is that of the weights in {self.initial}; leave it out",
                        getattr(self, name),
                    )  # fmt: skip
            found |= {"pools": tuple(sizes.values()), "initial_digest": origin.digest}
            for name, value in found.items():
                object.__setattr__(self, name, value)
            fields.check(self)  # a pool of one neuron, say
        whole = all(isinstance(n, int) and 0 < n <= self.trials for n in self.pools)
        if not whole or len(self.pools) != len(self.neurons) or len(self.k) != 1:
            raise ParameterError("Study.pools", "must count circuits of each size", self.pools)

    def trials_of(self, neurons: int) -> int:
        """Number of circuits of each point of the grid with so many neurons."""
        if not self.pools:
            return self.trials
        return self.pools[self.neurons.index(neurons)]

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
        return (
            len(self.k) * len(self.gamma) * len(self.alpha) * len(self.points)
            * sum(map(self.trials_of, self.neurons))
        )  # fmt: skip

    @property
    def cells(self) -> list[Cell]:
        """All circuits, in the order in which they are run."""
        return [
            Cell(k, neurons, *point, settings=at)
            for k, neurons, at in itertools.product(self.k, self.neurons, self.points)
            for point in self._points(neurons)
        ]

    def _points(self, neurons: int) -> Iterator[tuple[float, float, int]]:
        return itertools.product(self.gamma, self.alpha, range(self.trials_of(neurons)))

    @property
    def parts(self) -> int:
        """Number of jobs that all cells make."""
        return len(self.k) * len(self.points) * sum(map(self._parts_of, self.neurons))

    def part(self, number: int) -> tuple[Cell, ...]:
        """Return one job of the fixed list that all cells make, ``jobs(cells)[number]``.

        Raises
        ------
        ParameterError
            If there is no such job.
        """
        place = chosen_part(number, self.parts)
        for k, neurons, at in itertools.product(self.k, self.neurons, self.points):
            if place < self._parts_of(neurons):
                first = place * CELLS_PER_JOB
                chosen = itertools.islice(self._points(neurons), first, first + CELLS_PER_JOB)
                return tuple(Cell(k, neurons, *point, settings=at) for point in chosen)
            place -= self._parts_of(neurons)
        raise AssertionError("there are as many parts as all sizes have")

    def _parts_of(self, neurons: int) -> int:
        return -(-len(self.gamma) * len(self.alpha) * self.trials_of(neurons) // CELLS_PER_JOB)

    def tasks(
        self, done: Mapping[Cell, Arrays] | None = None, parts: Sequence[int] | None = None
    ) -> list[Cell]:
        """List all circuits, or those of some parts, in the order in which they are run."""
        if parts is None:
            return self.cells
        return [cell for number in parts for cell in self.part(number)]

    def run(self, tasks: Sequence[Cell], progress: Progress | None = None) -> list[Arrays]:
        """Run cells in one engine call; see ``run_cells``."""
        return run_cells(self, tasks, progress)

    def cost(self, task: Cell) -> float:
        """How long a circuit takes: the propagator's rows are as many as neurons or inputs."""
        inputs = self.n_inputs(task.k)
        rows = min(task.neurons, inputs) if registry.find(self.engine).exact else task.neurons
        return float(self.presentations) * (100 + rows * inputs)

    @property
    def threads(self) -> bool:
        """Whether threads can run it, which start at once: only compiled loops leave Python."""
        return registry.get(self.engine, self.codegen).threads

    @property
    def compiled(self) -> str:
        """Code is made once for each kernel size, or for all."""
        ways = {"numpy": "", "numba": "compiling, once"}
        return ways.get(self.codegen, "compiling, once for each size")

    stop = staticmethod(registry.stop)

    def prepare(self) -> None:
        """Compile what threads run, where an interrupt is met at once."""
        if self.threads:
            run_cells(replace(self, presentations=1), self.cells[:1])

    def circuit(self, neurons: int | None, alpha: Any, point: Point = ()) -> Circuit:
        """Circuits of a batch, with their alphas, at a point of the settings."""
        values: dict[str, Any] = {"tau": self.tau * ms, "b": self.b}
        values |= settings.of_circuit(point, self.texts)
        return Circuit(n_neurons=neurons, alpha=alpha, **values)

    def plasticity(self, gamma: Any) -> Plasticity:
        """Plasticity of a batch, with its gammas."""
        rate = PUBLISHED_RATES[self.per_presentation]
        if self.learning_rate is not None:
            rate = rate.starting_at(self.learning_rate)
        return Plasticity(self.rule, gamma=gamma, momentum=self.momentum, learning_rate=rate)

    def initial_weights(self, cell: Cell) -> NDArray[np.float64]:
        """Initial weights of a cell, shape (neuron, input): its mean kernel and N(0, 1), or given.

        Raises
        ------
        ParameterError
            If the weights given are no longer there, or are others by now.
        """
        if self.initial is not None:
            origin = origins.read(self.initial)
            if origin.digest != self.initial_digest:
                raise ParameterError(
                    "initial", "holds other weights than those that this study began with",
                    self.initial,
                )  # fmt: skip
            return origin.pools[cell.neurons][cell.trial]
        rng = np.random.default_rng(self._seed(cell, 0))
        noise = rng.standard_normal((cell.neurons, self.n_inputs(cell.k)))
        kernel = np.random.default_rng(self._seed(cell, 2))
        return mean_kernel(self.initial_mean, cell.k, kernel, self.channels) + noise

    def source(self, cell: Cell) -> InputSource:
        """Inputs of a cell."""
        seed = self._seed(cell, 1)
        if self.inputs is not None:
            return Patterns(_patterns(self.inputs, self.patterns), self.presentations, seed=seed)
        return GaussianInputs(
            self.presentations,
            self.n_inputs(cell.k),
            seed,
            self.covariance(cell.k),
        )

    def covariance(self, k: int) -> NDArray[np.float64] | None:
        """Covariance of the inputs, None for the identity."""
        if self.inputs is not None:
            return Patterns(_patterns(self.inputs, self.patterns)).covariance
        if self.correlation == 0:
            return None
        return equicorrelated(self.correlation, self.n_inputs(k))

    def memory(self) -> dict[str, float]:
        """Bytes that running the study takes at least, by the parameter that matters most to it."""
        points = len(self.gamma) * len(self.alpha) * len(self.points)
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

    def noise(self, cell: Cell, of: str) -> int:
        """Seed of a cell's noise, and of what its circuit leaves to be drawn."""
        purpose = {"rates": 3, "inputs": 4}[of]
        return int(self._seed(cell, purpose).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def digest(self, task: Cell) -> str:
        """Name of a cell's result: a digest of all that determines its numbers."""
        text = f"[{self._common}, {task.to_json()}]"
        return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]

    def describe(self, task: Cell) -> str:
        """Return a cell as text."""
        return task.to_json()

    def layout(self, task: Cell) -> Layout:
        """Curves from the start (0) to the last presentation, end points, final weights, time."""
        layout: Layout = dict.fromkeys(CURVES, ((self.presentations + 1,), NUMBER))
        layout["limits"] = ((len(LIMITS),), NUMBER)
        layout["weights"] = ((task.neurons, self.n_inputs(task.k)), NUMBER)
        layout["seconds"] = ((1,), NUMBER)  # its share of an engine call
        return layout

    @cached_property
    def _common(self) -> str:
        values = {"scheme": SCHEME} | {
            name: value
            for name, value in asdict(self).items()
            # Where weights or patterns are given, what they are counts, not where.
            if name
            not in (
                "k",
                "gamma",
                "alpha",
                "neurons",
                "trials",
                "initial",
                "pools",
                "settings",
                "inputs",
            )
            # Cells from before there were channels, other means, and what is given.
            and (name, value)
            not in (
                ("channels", 1),
                ("initial_mean", "ones"),
                ("initial_digest", ""),
                ("patterns", ""),
            )
        }
        values |= {"texts": self.texts} if self.texts else {}
        return json.dumps(values, sort_keys=True)

    def jobs(self, tasks: Sequence[Cell]) -> list[tuple[Cell, ...]]:
        """Split cells into jobs: batches of equal shape for one engine call each."""
        return [
            batch
            for _, same_shape in itertools.groupby(
                tasks, key=lambda c: (c.k, c.neurons, c.settings)
            )
            for batch in batched(tuple(same_shape), CELLS_PER_JOB)
        ]

    # -- the file ----------------------------------------------------------------------------------

    def groups(self) -> dict[str, Group]:
        """Curves and end points; the final weights of each shape; seconds."""
        return self._groups()

    def former_groups(self) -> list[dict[str, Group]]:
        """Where pools differ in size, their groups had an axis of sizes, which fitted no parent."""
        return [self._groups(formerly=True)] if len(self.neurons) > 1 else []

    def _groups(self, formerly: bool = False) -> dict[str, Group]:
        dims = self.dimensions
        axes = {name: getattr(self, name) for name in self.grid} | self.further
        axes["trial"] = range(self.trials)
        curves: dict[str, tuple[str, ...]] = dict.fromkeys(CURVES, (*dims, "presentation"))
        groups = {}
        for k, neurons in itertools.product(self.k, self.neurons):
            inner = {n: axis for n, axis in axes.items() if n not in ("k", "neurons")}
            if len(self.neurons) == 1 or formerly:
                inner["neurons"] = (neurons,)
            inner |= {"neuron": range(neurons), "input": range(self.n_inputs(k))}
            weights = tuple(n for n in (*dims, "neuron", "input") if n in inner)
            groups[self.weights_group(k, neurons)] = Group(inner, {"weights": weights})
        groups[""] = Group(
            axes | {"presentation": range(self.presentations + 1)},
            curves | dict.fromkeys(LIMITS, dims),
        )
        return groups | {"provenance": Group(axes, {"seconds": dims})}

    def weights_group(self, k: int, neurons: int) -> str:
        """Name of the group that holds the final weights of one k and number of neurons."""
        group = f"weights/k{k}"
        return group if len(self.neurons) == 1 else f"{group}/neurons{neurons}"

    def collect(self, read: Callable[[Cell], Arrays]) -> Iterator[tuple[str, Arrays, str]]:
        """Put circuits where they belong; the weights of one shape at a time are in memory."""
        more = tuple(map(len, self.further.values()))
        points = (len(self.gamma), len(self.alpha))
        shape = (len(self.k), *points, len(self.neurons), *more, self.trials)
        # Where there are fewer circuits of one size than of another, the rest is NaN.
        nothing = float("nan")
        numbers = {name: np.full((*shape, self.presentations + 1), nothing) for name in CURVES}
        numbers |= {name: np.full(shape, nothing) for name in LIMITS}
        seconds = np.full(shape, nothing)
        shapes = itertools.product(enumerate(self.k), enumerate(self.neurons))
        for (i, k), (m, neurons) in shapes:
            inner = (*points, *more, self.trials, neurons, self.n_inputs(k))
            weights = np.full(inner, nothing)
            for g, a, *at, trial in np.ndindex(*points, *more, self.trials_of(neurons)):
                axes = zip(at, self.further.items(), strict=True)
                point = tuple((name, values[n]) for n, (name, values) in axes)
                result = read(Cell(k, neurons, self.gamma[g], self.alpha[a], trial, point))
                place = (i, g, a, m, *at, trial)
                for name in CURVES:
                    numbers[name][place] = result[name]
                for name, value in zip(LIMITS, result["limits"], strict=True):
                    numbers[name][place] = value
                seconds[place] = result["seconds"][0]
                weights[(g, a, *at, trial)] = result["weights"]
            if len(self.neurons) == 1:
                weights = weights[:, :, np.newaxis]
            yield self.weights_group(k, neurons), {"weights": weights}, "Final weights"
        yield "", numbers, "Convergence of the weights' signal-to-noise ratio"
        yield "provenance", {"seconds": seconds}, "Time spent"

    def attributes(self) -> dict[str, Any]:
        """Return the study as text, and what people look for first."""
        names = ("rule", "engine", "codegen", "seed", "channels")
        return super().attributes() | {name: getattr(self, name) for name in names}

    # -- before it starts, and what came out -------------------------------------------------------

    def outline(self) -> list[tuple[str, str]]:
        """Say what would be run."""
        lines = [(name, " ".join(map(shown, getattr(self, name)))) for name in self.grid]
        lines += [(name, " ".join(map(shown, values))) for name, values in self.settings]
        if self.inputs is not None:
            lines.append(("inputs", self.inputs))
        return [
            *([] if self.initial is None else [("initial", self.initial)]),
            *lines,
            ("trials", " ".join(map(str, self.pools or (self.trials,)))),
            ("rule", f"{self.rule}, {self.presentations} presentations"),
            ("engine", self.engine),
        ]

    def pilot(self, tasks: Sequence[Cell], jobs: int) -> tuple[float, float]:
        """Time a few presentations of the smallest and of the largest circuits."""
        return timing.seconds(self, tasks, jobs)

    def faster(self, tasks: Sequence[Cell], jobs: int, seconds: float) -> list[str]:
        """Say how long an exact engine would take for what keeps another busy for over a minute."""
        return timing.faster_way(self, tasks, jobs, seconds)

    def table(self, groups: Groups) -> str:
        """Return the table that ends a sweep."""
        return tables.summary(groups[""])

    def so_far(self, read: Callable[[Cell], Arrays | None]) -> Iterator[str]:
        """Give the lines of the table of a study that is not finished."""
        return tables.so_far(self.rows_so_far(read), self.presentations, self.trials)

    def rows_so_far(self, read: Callable[[Cell], Arrays | None]) -> Iterator[tables.Row]:
        """Summarise every point of the grid from the trials that are finished.

        ``read`` gives the result of a cell, None for one that is not finished.
        """
        theory, own_end = (
            LIMITS.index(f"{end}_inverse_snr_w") for end in ("theory", "fixed_point")
        )
        grid = list(itertools.product(*(getattr(self, name) for name in self.grid)))
        for at, (k, gamma, alpha, neurons) in itertools.product(self.points, grid):
            trials = range(self.trials_of(neurons))
            cells = (Cell(k, neurons, gamma, alpha, trial, at) for trial in trials)
            found = [result for result in map(read, cells) if result is not None]
            limits = np.array([result["limits"] for result in found]).reshape(-1, len(LIMITS))
            inverse = np.array([result["inverse_snr_w"] for result in found])
            point = (k, gamma, alpha, neurons, at)
            yield tables.row(point, inverse, limits[:, theory], limits[:, own_end])

    def difference(self, other: Any) -> str:
        """As of every campaign; of settings more values may be added, and files may be moved."""
        if type(other) is not type(self):
            return super().difference(other)
        both = zip(self.settings, other.settings, strict=False)
        same = [name for name, _ in self.settings] == [name for name, _ in other.settings]
        same = same and all(
            set(its) <= set(ours) and (name in settings.NUMBERS or ours == its)
            for (name, ours), (_, its) in both
        )
        alike: dict[str, Any] = {"inputs": self.inputs} if self.patterns and other.patterns else {}
        alike |= {"settings": self.settings} if same else {}
        other = copy.copy(other)
        other.__dict__.update(alike)
        return super().difference(other)

    def draw(self, groups: Groups) -> Figure:
        """Plot the inverse SNR of the weights over presentations, a panel for each k."""
        from circuitsim import plots

        return plots.sweep(groups[""])


def run_cells(
    study: Study, cells: Sequence[Cell], progress: Progress | None = None
) -> list[Arrays]:
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
    list of dict
        In the order of ``cells``; see `Study.layout`.
    """
    started = time.perf_counter()
    first = cells[0]
    trials = sorted({cell.trial: cell for cell in cells}.items())
    place = {trial: i for i, (trial, _) in enumerate(trials)}
    w_init = np.stack([study.initial_weights(cell) for cell in cells])
    inputs: InputSource = StackedInputs(
        [study.source(cell) for _, cell in trials], [place[cell.trial] for cell in cells]
    )
    if private := dict(first.settings).get("private"):
        inputs = Noisy(inputs, private, [study.noise(cell, "inputs") for cell in cells])
    run = simulate(
        w_init,
        inputs,
        study.circuit(first.neurons, np.array([cell.alpha for cell in cells]), first.settings),
        study.plasticity(np.array([cell.gamma for cell in cells])),
        presentation=study.presentation * ms,
        dt=study.dt * ms,
        engine=study.engine,
        codegen=study.codegen,
        progress=progress,
        seed=[study.noise(cell, "rates") for cell in cells],
    )
    seconds = (time.perf_counter() - started) / len(cells)
    return [
        {name: run[name].to_numpy()[i] for name in (*CURVES, "weights")}
        | {"limits": _limits(study, cell, w_init[i]), "seconds": np.array([seconds])}
        for i, cell in enumerate(cells)
    ]


def _limits(study: Study, cell: Cell, w_init: NDArray[np.float64]) -> NDArray[np.float64]:
    """All of ``LIMITS``, at the fixed point of Eq. 5 (theory) and of the rule itself (fixed point).

    Those of a rule without a closed form are NaN.
    """
    limits = dict.fromkeys(LIMITS, float("nan"))
    for prefix, rule in (("theory", "mean_subtracted"), ("fixed_point", study.rule)):
        if rules.get(rule).averaged is None:
            continue
        weights = _end_point(study, cell, w_init, rule)
        if weights is None:
            continue
        limits[f"{prefix}_inverse_snr_w"] = float(measures.inverse_snr_w(weights))
        limits[f"{prefix}_snr_w"] = float(measures.snr_w(weights))
    return np.array(list(limits.values()))


def _end_point(
    study: Study, cell: Cell, w_init: NDArray[np.float64], rule: str
) -> NDArray[np.float64] | None:
    """Where a rule's weights end; None of the study's own where its circuit has no closed form."""
    covariance = study.covariance(cell.k)
    if rule != study.rule or not (cell.settings or study.texts):
        return theory.fixed_point(w_init, cell.gamma, rule, cell.alpha, covariance, limit=True)
    circuit = study.circuit(cell.neurons, cell.alpha, cell.settings)
    if not circuit.dynamics.linear:
        return None
    private = dict(cell.settings).get("private", 0.0)
    plasticity, seed = study.plasticity(cell.gamma), [study.noise(cell, "rates")]
    found = linear.end_point(w_init, circuit, plasticity, covariance, private, seed=seed)
    return found if np.isfinite(found).all() else None


@lru_cache(maxsize=2)
def _patterns(path: str, digest: str) -> NDArray[np.float64]:
    """Read patterns, and be sure that they are those of a digest, if there is one."""
    from circuitsim.vision import archives

    try:
        found = archives.read_npy(Path(path))
    except (OSError, ValueError, archives.BadArchive) as error:
        raise ParameterError(
            "Study.inputs", f"must be an .npy file of numbers ({reason(error)})", path
        ) from None
    patterns = array("Study.inputs", found, ("pattern", "input"))
    if digest and _digest(patterns) != digest:
        raise ParameterError("Study.inputs", "has changed since this was begun", path)
    return patterns


def _digest(patterns: NDArray[np.float64]) -> str:
    text = f"{patterns.shape}".encode() + np.ascontiguousarray(patterns).tobytes()
    return hashlib.sha256(text).hexdigest()[:DIGEST_LENGTH]


def sweep(
    *,
    output: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
    **grid: Any,
) -> xr.Dataset:
    """Run circuits over a grid of parameters, and return how their weights converge.

    What ``python -m circuitsim.sweep`` does, in this process: the same circuits, numbers, files.

    Parameters
    ----------
    output : path, optional
        netCDF file to keep the result in, with the finished circuits in a directory beside it: what
        is there already is not run again. By default nothing is kept.
    jobs : int
        How many circuits' batches at a time: above 1 in threads, where the engine takes them, else
        in processes, for which a script needs the usual ``if __name__ == "__main__":``.
    progress : callable, optional
        Called now and then with the fraction done.
    **grid
        As `circuitsim.studies.Study` takes them: ``k=[3, 5], gamma=[0.1, 0.01], rule="circuit"``.
        Settings may stand for themselves: ``tau_inh=[30, 90], transfer="relu"``.

    Returns
    -------
    xarray.Dataset
        As `load` returns it; `circuitsim.plot` draws it.

    Raises
    ------
    ParameterError
        If a value is out of its range, or the file holds another sweep.
    RuntimeError
        If circuits fail, as those do whose weights diverge.

    Examples
    --------
    >>> import circuitsim as cs
    >>> found = cs.sweep(k=[2, 3], gamma=0.01, trials=2, presentations=50, engine="propagator")
    >>> found.inverse_snr_w.sizes["presentation"]
    51
    """
    names = (*settings.NUMBERS, *settings.TEXTS)
    more = {n: grid.pop(n) for n in names if n in grid and n not in Study.__dataclass_fields__}
    grid |= {"settings": dict(settings.checked(grid.get("settings", ()))) | more} if more else {}
    unknown = sorted(grid.keys() - Study.__dataclass_fields__.keys())
    if unknown:
        near = nearest(unknown[0], (*Study.__dataclass_fields__, *names))
        meant = f"did you mean {near}?" if near else "see circuitsim.studies.Study"
        raise ParameterError(unknown[0], f"is no parameter of a sweep: {meant}", grid[unknown[0]])
    study = Study(**grid)
    study = replace(study, codegen=registry.get(study.engine, study.codegen).codegen)
    workers = integer("jobs", jobs, minimum=1)
    function("progress", progress)
    with ExitStack() as stack:
        if output is None:
            home = stack.enter_context(TemporaryDirectory(prefix="circuitsim-"))
            path = Path(home) / "sweep.nc"
        else:
            path = _not_of_another(Path(output), study)
        here = None if study.threads or workers > 1 else runner.Here()
        summary = runner.run(
            study, path, here, jobs=workers, observer=_Told(progress), keep=output is not None
        )
        if summary.failures:
            first = summary.failures[0]
            raise RuntimeError(
                f"{len(summary.failures)} of {summary.total} circuits failed, the first, "
                f"{first.task}, with {first.error}"
            )
        return load(path)


class _Told(runner.Observer):
    """Passes on the share that is done."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def advanced(self, share: float, done: float, total: int) -> None:
        if self._progress is not None:
            self._progress(share)


def _not_of_another(path: Path, study: Study) -> Path:
    if path.suffix != ".nc":
        raise ParameterError("output", "must end in .nc", str(path))
    if not path.absolute().parent.is_dir():
        raise ParameterError("output", "must be in a directory that exists", str(path))
    if path.exists() and not study.extends(there := study_in(path)):
        raise ParameterError(
            "output", f"holds another sweep ({study.difference(there)}); choose another", str(path)
        )
    return path


def load(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read the result of a sweep.

    Parameters
    ----------
    path : path
        File that ``python -m circuitsim.sweep`` wrote.

    Returns
    -------
    xarray.Dataset
        ``snr_w``, ``inverse_snr_w`` and ``mean_weight_cosine`` (k, gamma, alpha, neurons, trial,
        presentation), and over all but ``presentation`` their values at the end points:
        ``theory_inverse_snr_w`` and ``theory_snr_w`` (Eq. 5), ``fixed_point_inverse_snr_w`` and
        ``fixed_point_snr_w`` (the simulated rule's own). In memory; the file is closed.

    Raises
    ------
    ParameterError
        If it is no such file.
    FileNotFoundError
        If there is no file.
    """
    path = Path(path)
    return results.group(path, study_in(path), "")


def load_weights(
    path: str | os.PathLike[str], k: int | None = None, neurons: int | None = None
) -> xr.DataArray:
    """Read the final weights of one kernel size from the result of a sweep.

    Parameters
    ----------
    path : path
        File that ``python -m circuitsim.sweep`` wrote.
    k, neurons : int, optional
        Kernel size and neurons in a pool; needed if the sweep has several.

    Returns
    -------
    xarray.DataArray
        (gamma, alpha, neurons, trial, neuron, input)

    Raises
    ------
    ParameterError
        If the file is not the result of a sweep, or has no such weights.
    FileNotFoundError
        If there is no file.
    """
    path = Path(path)
    study = study_in(path)
    k, neurons = only("k", study.k, k), only("neurons", study.neurons, neurons)
    weights = results.group(path, study, study.weights_group(k, neurons))["weights"]
    if "neurons" in weights.dims:
        return weights
    return weights.expand_dims(neurons=[neurons], axis=2)


def load_seconds(path: str | os.PathLike[str]) -> xr.DataArray:
    """Read the time spent on each circuit of a sweep, its share of an engine call.

    Parameters
    ----------
    path : path
        File that ``python -m circuitsim.sweep`` wrote.

    Returns
    -------
    xarray.DataArray
        (k, gamma, alpha, neurons, trial), in s.

    Raises
    ------
    ParameterError
        If the file is not the result of a sweep.
    FileNotFoundError
        If there is no file.
    """
    path = Path(path)
    return results.group(path, study_in(path), "provenance")["seconds"]


def study_in(path: Path) -> Study:
    """Return the study whose result a file holds; raises as `load`."""
    found = results.identify(path, [Study])
    assert isinstance(found, Study)
    return found


def only(name: str, available: Sequence[int], wanted: int | None) -> int:
    """Return the value wanted if it is available, or the only one there is.

    Raises
    ------
    ParameterError
        If it is not, or there are several.
    """
    if wanted is None and len(available) == 1:
        return available[0]
    if wanted is None:
        raise ParameterError(name, f"must be given: it may be {listed(available)}", None)
    if wanted not in available:
        raise ParameterError(name, f"must be one of {listed(available)}", wanted)
    return wanted


def listed(values: Sequence[float]) -> str:
    """Return values for a message, the first of them if they are many."""
    return ", ".join(map(shown, values[:20])) + (", ..." if len(values) > 20 else "")
