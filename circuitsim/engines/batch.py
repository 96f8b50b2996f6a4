"""The seam between those who want circuits run and the engines that run them.

A `Batch` is C circuits of equal shape in plain numbers, times in ms: what an engine needs, checked
already. An engine returns an `Outcome`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from circuitsim import noise
from circuitsim.checks.validation import ParameterError
from circuitsim.dynamics import Dynamics
from circuitsim.inputs import InputSource
from circuitsim.parameters import Plasticity
from circuitsim.rules import Rule

Array = NDArray[np.float64]
Progress = Callable[[float], None]  # called with the fraction done, from 0 to 1


@dataclass
class State:
    """Everything that changes while a batch runs.

    Attributes
    ----------
    weights : ndarray, shape (circuit, neuron, input)
    velocity : ndarray, shape (circuit, neuron, input)
        Heavy-ball momentum as the change of the weights per ms (per update, for a rule that makes
        one a presentation). At dt = 1 ms it is the published m.
    rate : ndarray, shape (circuit, neuron)
    rate_inh : ndarray, shape (circuit,) or (circuit, interneuron)
        The latter where the batch has connections.
    presentations : int
        How many have been done.
    elapsed : float
        Time that they took, in ms.
    past : ndarray, shape (circuit, step, interneuron), optional
        Rates of the interneurons before the present ones, the latest last, where inhibition is
        late: as many as the longest delay has steps, 0 where a circuit's is shorter.
    """

    weights: Array
    velocity: Array
    rate: Array
    rate_inh: Array
    presentations: int = 0
    elapsed: float = 0.0
    past: Array | None = None


@dataclass
class Batch:
    """C circuits with N neurons and K inputs each, over P presentations.

    Attributes
    ----------
    w_init : ndarray, shape (circuit, neuron, input)
        Weights towards which `gamma` pulls.
    inputs : InputSource
        Of shape (presentation, input) or (presentation, circuit, input).
    alpha, tau, b, gamma, tau_inh, sigma, b_inh : ndarray, shape (circuit,)
        `tau` and `tau_inh` in ms. `alpha` and `tau` may have the shape (circuit, neuron).
    plasticity : Plasticity
        Rule, momentum and learning rate; its gamma is superseded by `gamma`.
    steps : int
        Steps per presentation; 0 in continuous time.
    presentation : float
        Duration of a presentation in ms.
    dt : float or None
        Step in ms; None for continuous time.
    state : State
        Where to start.
    record : ndarray of int
        After how many presentations of this run, from 0 to P, the weights are measured; ascending.
    record_rates : bool
        Whether to return the rates after every step.
    arrays : frozenset of str
        Names of the parameters that were given for each circuit.
    dynamics : Dynamics
        The equations.
    seeds : sequence of numpy.random.SeedSequence
        Of each circuit's noise, if there is any.
    delay : ndarray of int, shape (circuit,)
        Steps by which inhibition is late.
    to_inh : ndarray, shape (circuit, interneuron, neuron), optional
        Weights of what an interneuron receives; the mean of all by default, of one interneuron.
    from_inh : ndarray, shape (circuit, neuron, interneuron), optional
        Weights of what a neuron receives; there if `to_inh` is.
    """

    w_init: Array
    inputs: InputSource
    alpha: Array
    tau: Array
    b: Array
    gamma: Array
    tau_inh: Array
    sigma: Array
    plasticity: Plasticity
    presentation: float
    dt: float | None
    steps: int
    state: State
    record: NDArray[np.int64]
    record_rates: bool = False
    arrays: frozenset[str] = frozenset()
    dynamics: Dynamics = Dynamics()  # noqa: RUF009
    seeds: Sequence[np.random.SeedSequence] = ()
    b_inh: Array = field(default_factory=lambda: np.zeros(1))
    delay: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    to_inh: Array | None = None
    from_inh: Array | None = None

    def __post_init__(self) -> None:
        self.b_inh = np.broadcast_to(self.b_inh, len(self.w_init))
        self.delay = np.broadcast_to(self.delay, len(self.w_init))

    @property
    def solvable(self) -> bool:
        """Whether it has closed solutions, as `circuitsim.Circuit.solvable`, and shared inputs."""
        alike = self.alpha.ndim == self.tau.ndim == 1
        prompt = not (self.sigma.any() or self.delay.any())
        alike = alike and self.to_inh is None and not self.private
        constants = {"alpha": self.alpha, "tau": self.tau, "tau_inh": self.tau_inh}
        return alike and prompt and self.dynamics.solvable(self.b, self.b_inh, **constants)

    def check_steps(self, engine: str) -> None:
        """Raise a `ParameterError` in continuous time, for an engine that makes steps."""
        if self.dt is None:
            exact = self.solvable and self.plasticity.definition.linear is not None
            remedy = (
                ", or engine='propagator'"
                if exact and self.plasticity.bounds is None
                else "; in continuous time run linear circuits without noise, of equal neurons"
            )
            raise ParameterError("dt", f"{engine} makes steps; use a time{remedy}", None)

    @property
    def rest_inh(self) -> Array:
        """Rate of the interneuron at which it does not inhibit, (circuit,)."""
        return self.b_inh if self.dynamics.raised else np.zeros(len(self.w_init))

    @property
    def signal(self) -> str:
        """The rule's signal, of the inhibition that these circuits' neurons feel."""
        return self.dynamics.felt(self.plasticity.definition.signal)

    @property
    def private(self) -> bool:
        """Whether every neuron sees an input of its own."""
        return hasattr(self.inputs, "private_block")

    @property
    def n_interneurons(self) -> int:
        """Interneurons of a circuit."""
        return 1 if self.to_inh is None else self.to_inh.shape[1]

    def connections(self) -> tuple[Array, Array]:
        """Return `to_inh` and `from_inh`, also where all neurons have the same of them."""
        if self.to_inh is not None and self.from_inh is not None:
            return self.to_inh, self.from_inh
        n_circuits, n_neurons, _ = self.shape
        return (
            np.full((n_circuits, 1, n_neurons), 1 / n_neurons),
            np.ones((n_circuits, n_neurons, 1)),
        )

    def noise(self, circuit: int, start: int, stop: int) -> Array:
        """Standard normal numbers of some presentations of a circuit, (presentation, step, neuron).

        They depend on the circuit's seed and on the number of the presentation alone.
        """
        key = int(noise.keys(self.seeds[circuit : circuit + 1])[0])
        done = self.state.presentations
        shape = self.steps, self.shape[1]
        numbers = [noise.normals(key, done + i, *shape) for i in range(start, stop)]
        return np.stack(numbers) if numbers else np.empty((0, *shape))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(circuit, neuron, input)."""
        return self.w_init.shape

    @property
    def n_presentations(self) -> int:
        """Length of the run."""
        return self.inputs.shape[0]

    def input_block(self, start: int, stop: int) -> Array:
        """Inputs of some presentations of this batch as (presentation, circuit, input).

        Raises
        ------
        ParameterError
            If the source gives something else than its shape says.
        """
        block = self._checked(self.inputs.block(start, stop), start, stop, self.inputs.shape[1:])
        if block.ndim == 2:
            block = block[:, np.newaxis]
        n_circuits, _, n_inputs = self.shape
        return np.broadcast_to(block, (len(block), n_circuits, n_inputs))

    def private_block(self, start: int, stop: int) -> Array:
        """The same for each neuron, (presentation, circuit, neuron, input); raises alike."""
        done = self.state.presentations
        block = self.inputs.private_block(start, stop, self.shape, done)  # type: ignore[attr-defined]
        return self._checked(block, start, stop, self.shape)

    def _checked(self, block: Any, start: int, stop: int, shape: tuple[int, ...]) -> Array:
        name = f"inputs, {type(self.inputs).__name__}.block({start}, {stop})"
        block = np.asarray(block)
        if block.shape != (stop - start, *shape):
            wanted = ", ".join(map(str, (stop - start, *shape)))
            raise ParameterError(name, f"must return an array of shape ({wanted})", block.shape)
        if block.dtype.kind not in "biuf" or not np.all(np.isfinite(block)):
            raise ParameterError(name, "must return numbers that are finite", block)
        return block.astype(float, copy=False)


@dataclass
class Outcome:
    """What an engine returns.

    Attributes
    ----------
    state : State
        The end of the run.
    snr_w, inverse_snr_w, mean_weight_cosine : ndarray, shape (circuit, record)
        As `Batch.record` says.
    rate_trace : ndarray, shape (circuit, time, neuron), optional
    rate_inh_trace : ndarray, shape (circuit, time), optional
        After every step.
    attributes : dict
        How it was run: names and values for the Dataset's attributes.
    """

    state: State
    snr_w: Array
    inverse_snr_w: Array
    mean_weight_cosine: Array
    rate_trace: Array | None = None
    rate_inh_trace: Array | None = None
    attributes: dict[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """How to run one batch.

    Parameters
    ----------
    codegen : str
        How its code is made, one of `codegens`.

    Attributes
    ----------
    codegens : tuple of str
        All ways there are, the first of them ``"auto"``.
    codegen : str
        The way chosen; not ``"auto"``, but what that stands for here.
    exact : bool
        Whether it solves a presentation as a whole, instead of making its steps: much faster, and
        for linear circuits and rules only.
    threads : bool
        Whether several runs at once are best made by threads of one process, and not by processes.
        Of the class: whether it ever is so; of an engine, whether it is with its `codegen`.
    """

    codegens: ClassVar[tuple[str, ...]]
    codegen: str
    exact: ClassVar[bool] = False
    threads: bool = False

    def __init__(self, codegen: str = "auto") -> None: ...

    @classmethod
    def check_rule(cls, rule: Rule) -> None:
        """Raise `ParameterError` for a rule that the engine cannot run."""

    @classmethod
    def stop(cls) -> None:
        """Kill what the engine has started outside of this process, which is about to end."""
        return None  # nothing, by default

    def run(self, batch: Batch, progress: Progress | None = None) -> Outcome:
        """Run a batch; raise `ParameterError` for what the engine cannot do.

        A circuit's numbers must not depend on which others are in the batch, to the last bit.
        """

    def pilot(self, n_presentations: int) -> tuple[int, int]:
        """Lengths of two short runs whose times tell how long a run of some length takes.

        If they are equal, the first is to get ready.
        """
