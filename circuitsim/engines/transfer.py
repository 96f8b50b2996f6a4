"""What a sequence of inputs does to any pool: linear maps from initial to final weights."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from circuitsim.checks.validation import ParameterError, array
from circuitsim.engines.batch import Array
from circuitsim.engines.propagator import Propagator
from circuitsim.engines.rows import Pool, Rows
from circuitsim.engines.simulation import make_batch
from circuitsim.inputs import InputSource, as_source
from circuitsim.parameters import DT, PRESENTATION, Circuit, Plasticity, or_published
from circuitsim.public import own

if TYPE_CHECKING:
    from brian2.units import Quantity

__dir__ = own(__name__)


@dataclass(frozen=True, eq=False)
class Transfer:
    """Final weights as a linear function of initial weights and initial rates.

    Neurons that see the same inputs differ only in their initial weights, so what a sequence of
    inputs makes of a pool follows from two matrices: one acts on each neuron's deviation from the
    pool's mean, the other on the mean. They serve any number of neurons, pools and layers. All have
    a leading dimension for circuits where `transfer` was given one.

    Attributes
    ----------
    deviation : ndarray, shape (input, input)
        A neuron's deviation from the mean weights ends as ``deviation_of_w_init @ deviation``.
    deviation_by_rate : ndarray, shape (input,)
        What is added for a unit of deviation of the neuron's initial rate from the mean rate.
    mean : ndarray, shape (input, input)
        The mean weights end as ``mean_of_w_init @ mean``.
    mean_by_rate : ndarray, shape (input,)
        What is added for a unit of the mean initial rate above baseline, rbar - b.
    mean_by_inhibition : ndarray, shape (input,)
        What is added for a unit of the interneuron's initial rate.
    b : ndarray, shape () or (circuit,)
        Baseline rate.
    """

    deviation: Array
    deviation_by_rate: Array
    mean: Array
    mean_by_rate: Array
    mean_by_inhibition: Array
    b: Array

    def __post_init__(self) -> None:
        for part in fields(self):
            getattr(self, part.name).setflags(write=False)

    def apply(
        self,
        weights: ArrayLike,
        rate: ArrayLike | None = None,
        rate_inh: ArrayLike | None = None,
    ) -> Array:
        """Final weights of pools.

        Parameters
        ----------
        weights : array_like, shape (..., neuron, input)
            Initial weights of any number of pools, (..., circuit, neuron, input) if this has
            circuits. Means are over ``neuron``.
        rate : array_like, shape (..., neuron), optional
            Initial rates; zero by default.
        rate_inh : array_like, shape (...), optional
            Initial rate of each pool's interneuron; zero by default.

        Returns
        -------
        ndarray, shape (..., neuron, input)
            float32 if the weights are, else float64.

        Raises
        ------
        ParameterError
            If the shape of the weights, or of rates, does not fit.
        """
        start = array("weights", weights, ("...", "neuron", "input"), finite=False)
        dtype = np.float32 if np.asarray(weights).dtype == np.float32 else np.float64
        start = start.astype(dtype, copy=False)
        n_inputs = self.mean_by_rate.shape[-1]
        if start.shape[-1] != n_inputs:
            raise ParameterError(
                "weights", f"must have the shape (..., neuron, {n_inputs})", start.shape
            )
        mean = start.mean(axis=-2, keepdims=True, dtype=np.float64).astype(dtype)
        parts = (part.swapaxes(-1, -2) for part in (start - mean, mean))
        final = self.of_weights(*parts).swapaxes(-1, -2)
        if rate is None and rate_inh is None and not self.b.any():
            return final  # rates at rest add nothing
        above = _fitting("rate", rate, start.shape[:-1]) - self.b[..., np.newaxis]
        inhibition = _fitting("rate_inh", rate_inh, start.shape[:-2])
        mean_above = above.mean(axis=-1, keepdims=True)
        deviations_above = (above - mean_above)[..., np.newaxis]
        by_rates = (
            mean_above * self.mean_by_rate + inhibition[..., np.newaxis] * self.mean_by_inhibition
        )
        final += deviations_above * self.deviation_by_rate[..., np.newaxis, :]
        final += by_rates[..., np.newaxis, :]
        return final

    def __getitem__(self, circuit: int) -> Transfer:
        """Those of one circuit, where there are several."""
        return Transfer(*(getattr(self, part.name)[circuit] for part in fields(self)))

    def astype(self, dtype: DTypeLike) -> Transfer:
        """The same maps in another precision."""
        return Transfer(*(getattr(self, part.name).astype(dtype) for part in fields(self)))

    def of_weights(self, deviations: Array, mean: Array) -> Array:
        """What final weights owe to initial weights, which is all where rates start at rest.

        Parameters
        ----------
        deviations : ndarray, shape (..., input, column)
            From the mean weights, float32 or float64. Columns may be neurons, or output channels of
            one neuron's position: all weights that see the same inputs.
        mean : ndarray, shape (..., input, 1 or column)
            Mean weights.

        Returns
        -------
        ndarray, shape (..., input, column)
            Of the same type.
        """
        deviation, of_mean = (
            matrix.swapaxes(-1, -2).astype(deviations.dtype, copy=False)
            for matrix in (self.deviation, self.mean)
        )
        final: Array = np.matmul(deviation, deviations)
        final += np.matmul(of_mean, mean)
        return final


def _fitting(name: str, rates: ArrayLike | None, shape: tuple[int, ...]) -> Array:
    """Rates of pools of this shape, or of all alike; zero by default."""
    if rates is None:
        return np.zeros(shape)
    given = array(name, rates, ("...",))
    try:
        return np.broadcast_to(given, shape)
    except ValueError:
        raise ParameterError(name, f"must have the shape {shape}", given.shape) from None


def transfer(
    inputs: ArrayLike | InputSource,
    circuit: Circuit | None = None,
    plasticity: Plasticity | None = None,
    presentation: Quantity = PRESENTATION,
    dt: Quantity | None = DT,
    codegen: str = "auto",
    threads: int = 1,
) -> Transfer:
    """Maps from initial to final weights that a sequence of inputs stands for.

    ``transfer(inputs, ...).apply(w_init)`` are the final weights of ``simulate(w_init, inputs,
    ...)``, which starts without momentum and, by default, with rates of zero. The cost is that of
    simulating one neuron for each input.

    Parameters
    ----------
    inputs : array_like or InputSource, shape (presentation, [circuit,] input)
        Input patterns, dimensionless.
    circuit : Circuit, optional
        The published one by default. Its number of neurons does not matter. Its array parameters,
        like gamma's, have one value for each circuit.
    plasticity : Plasticity, optional
        The circuit's rule as published by default.
    presentation : Quantity, time
        How long each pattern is shown.
    dt : Quantity, time
        Step of forward Euler; None for continuous time.
    codegen : str
        ``"auto"``, ``"numba"`` or ``"numpy"``.
    threads : int
        Number of threads that share the circuits; >= 1. Numbers do not depend on them.

    Returns
    -------
    Transfer

    Raises
    ------
    ParameterError, DimensionMismatchError
        As in `simulate`; and if the rule is not linear in the rates.

    Examples
    --------
    >>> import numpy as np, circuitsim as cs
    >>> rng = np.random.default_rng(0)
    >>> inputs = rng.standard_normal((50, 9))
    >>> w_init = 1 + rng.standard_normal((64, 100, 9))  # one pool for each of 64 channels
    >>> cs.transfer(inputs, codegen="numpy").apply(w_init).shape
    (64, 100, 9)
    """
    source = as_source(inputs)
    circuit, plasticity = or_published(circuit, plasticity)
    if not circuit.solvable or circuit.dynamics.raised:
        raise ParameterError(
            "circuit",
            "must be linear with neurons that are alike and rest at b, without noise, delay or "
            "b_inh, for a sequence of inputs to be a map",
            circuit,
        )
    circuit = circuit.replace(n_neurons=2)
    n_inputs = source.shape[-1]
    w_init = np.zeros((2, n_inputs))
    batch, has_circuits = make_batch(
        w_init, source, circuit, plasticity, presentation, dt, False, None, 1
    )
    n_circuits = batch.shape[0]
    # As many "neurons" as there are inputs, each with one weight of 1; and one for each rate.
    pool = Pool(None, _unit_rows(n_circuits, n_inputs, 1), _unit_rows(n_circuits, n_inputs, 2))
    Propagator(codegen, threads).propagate(batch, pool)
    # In place: these are most of the memory that it takes.
    deviation, mean = (
        np.add(rows.init, rows.moved, out=rows.moved) for rows in (pool.deviations, pool.mean)
    )
    parts = (
        deviation[:, :n_inputs],
        deviation[:, n_inputs],
        mean[:, :n_inputs],
        mean[:, n_inputs],
        mean[:, n_inputs + 1],
        batch.b.copy(),  # which may be the caller's
    )
    return Transfer(*(part if has_circuits else part[0, ...] for part in parts))


def _unit_rows(n_circuits: int, n_inputs: int, n_rates: int) -> Rows:
    """Rows that are one in one weight each, then in the rate, then in the interneuron's rate."""
    n_rows = n_inputs + n_rates
    # Each made as zeros, which take no memory before they are written.
    init, moved, velocity = (np.zeros((n_circuits, n_rows, n_inputs)) for _ in range(3))
    rate, inhibition = (np.zeros((n_circuits, n_rows)) for _ in range(2))
    weights = np.arange(n_inputs)
    init[:, weights, weights] = 1
    rate[:, n_inputs] = 1
    inhibition[:, n_inputs + 1 :] = 1
    return Rows(init=init, moved=moved, velocity=velocity, rate=rate, inhibition=inhibition)
