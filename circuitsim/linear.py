"""Theory of every linear circuit: its signal is A z, and its weights end where A says.

Where a circuit's equations are linear, the settled signal of a rule is A z with one N x N matrix,
whoever is connected to whom and however neurons differ. Averaged over inputs, the weights W of
shape (neuron, input) then move by -(A W C + gamma (W - W_init)), and come to rest where that is 0.
Where every neuron sees an input of its own besides, with the variance s2, they move by
-s2 diag(A) W more: neuron i's signal follows its own noise by A_ii alone.

`circuitsim.theory.fixed_point` is the special case of neurons that are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.checks.validation import (
    ParameterError,
    array,
    count,
    dimensionless,
    in_range,
    milliseconds,
    pool_shape,
    whole_steps,
)
from circuitsim.checks.values import PerNeuron
from circuitsim.dynamics import averaged
from circuitsim.inputs import spectrum
from circuitsim.parameters import Circuit, Plasticity, or_published, whole_delay
from circuitsim.public import own

if TYPE_CHECKING:
    from brian2.units import Quantity

    from circuitsim.rules import LinearSignal

__dir__ = own(__name__)

Array = NDArray[np.float64]


def signal_matrix(
    circuit: Circuit | None = None,
    rule: str = "circuit",
    n_neurons: int = 100,
    presentation: Quantity | None = None,
    dt: Quantity | None = None,
    seed: int | Sequence[int] = 0,
) -> Array:
    """Matrix A with which a rule's signal follows the drive: signal = A z.

    Parameters
    ----------
    circuit : Circuit, optional
        Linear; one. The published one by default.
    rule : str
        A linear rule, or one with an average that is.
    n_neurons : int
        Number of neurons, where the circuit does not say it.
    presentation : Quantity, time, optional
        How long each input is shown, to average the signal over it as rates settle (see
        `circuitsim.theory.gains`). For ever by default.
    dt : Quantity, time, optional
        Step of forward Euler; continuous time by default. Of no effect on settled rates.
    seed : int or sequence of int
        Of what the circuit leaves to be drawn, as in `circuitsim.simulate`.

    Returns
    -------
    ndarray, shape (neuron, neuron)

    Raises
    ------
    ParameterError
        If the circuit or rule is not linear, or there are several circuits.

    Examples
    --------
    >>> signal_matrix(Circuit(2, alpha=1.0)).round(12).tolist()
    [[0.75, -0.25], [-0.25, 0.75]]
    """
    circuit, _ = or_published(circuit, None)
    number = circuit.n_neurons or count("n_neurons", n_neurons, minimum=1)
    plasticity = Plasticity(rule)
    found = _matrices(circuit, plasticity, number, None, presentation, dt, seed)
    if len(found) > 1:
        raise ParameterError("circuit", "must be one; its arrays stand for several", len(found))
    return found[0]


def end_point(
    w_init: ArrayLike,
    circuit: Circuit | None = None,
    plasticity: Plasticity | None = None,
    covariance: ArrayLike | None = None,
    private: float = 0.0,
    presentation: Quantity | None = None,
    dt: Quantity | None = None,
    seed: int | Sequence[int] = 0,
) -> Array:
    """Weights at which a linear circuit comes to rest, averaged over inputs.

    Solves A W C + s2 diag(A) W + gamma (W - W_init) = 0, with A as `signal_matrix` returns it.

    Parameters
    ----------
    w_init : array_like, shape (neuron, input) or (circuit, neuron, input)
        Initial weights.
    circuit, plasticity : Circuit, Plasticity, optional
        The published ones by default; arrays of parameters and gamma have one value for each
        circuit, as in `circuitsim.simulate`.
    covariance : array_like, shape (input, input), optional
        C, the mean over inputs of x x^T; the identity by default.
    private : float
        Standard deviation of each neuron's own input, as of `circuitsim.inputs.Noisy`.
    presentation, dt, seed
        As in `signal_matrix`.

    Returns
    -------
    ndarray, shape of ``w_init``
        NaN in directions in which weights diverge.

    Raises
    ------
    ParameterError
        If the circuit or rule is not linear, or shapes do not fit.

    Examples
    --------
    Even the ideal rule loses its mean where inputs are not the same for all:

    >>> w_init = np.ones((100, 1))
    >>> ideal = Plasticity("mean_subtracted", gamma=0.01)
    >>> float(end_point(w_init, None, ideal, private=0.1).mean().round(3))
    0.503
    """
    weights = array("w_init", w_init, ("neuron", "input"), ("circuit", "neuron", "input"))
    circuit, plasticity = or_published(circuit, plasticity)
    own_variance = dimensionless("private", private) ** 2
    in_range("private", private, private, minimum=0)
    n_neurons, n_inputs = pool_shape("w_init", weights)
    values, vectors = np.ones(n_inputs), np.eye(n_inputs)
    if covariance is not None:
        values, vectors = spectrum(covariance, n_inputs)
    n_circuits = len(weights) if weights.ndim == 3 else None
    matrices = _matrices(circuit, plasticity, n_neurons, n_circuits, presentation, dt, seed)
    every = np.broadcast_to(weights, (len(matrices), n_neurons, n_inputs))
    gammas = np.broadcast_to(np.asarray(plasticity.gamma), len(matrices))
    found = np.empty(every.shape)
    for matrix, gamma, initial, ends in zip(matrices, gammas, every, found, strict=True):
        rotated = initial @ vectors
        for value in np.unique(values):
            columns = values == value
            acts = value * matrix + own_variance * np.diag(np.diag(matrix))
            rotated[:, columns] = _rest(acts, float(gamma), rotated[:, columns])
        ends[:] = rotated @ vectors.T
    return found if weights.ndim == 3 or len(matrices) > 1 else found[0]


def _rest(acts: Array, gamma: float, initial: Array) -> Array:
    """Where -(acts w + gamma (w - initial)) is 0, if that is where w goes."""
    if not acts.any():
        return initial
    pulled = acts + gamma * np.eye(len(acts))
    modes = np.linalg.eigvals(pulled).real
    if modes.min() <= 1e-12 * np.abs(modes).max():
        return np.full_like(initial, np.nan)
    return np.asarray(np.linalg.solve(pulled, gamma * initial), dtype=float)


def _matrices(
    circuit: Circuit,
    plasticity: Plasticity,
    n_neurons: int,
    n_circuits: int | None,
    presentation: Quantity | None,
    dt: Quantity | None,
    seed: int | Sequence[int],
) -> list[Array]:
    """Signal matrices of all circuits, one if there is no array of parameters."""
    rule = plasticity.definition
    rule.gain_of_mean(0.0)  # refuses what has no average that is linear
    signal = rule.averaged
    assert signal is not None
    if rule.per_presentation:
        matrix = signal.rate * np.eye(n_neurons) + signal.common / n_neurons
        gammas = np.size(plasticity.gamma) if np.ndim(plasticity.gamma) else 1
        return [matrix] * (n_circuits or gammas)
    if not circuit.dynamics.linear:
        raise ParameterError(
            "circuit", "must be linear for a closed form", circuit.dynamics.excitatory
        )
    given = [circuit.n_circuits, n_circuits]
    given.append(np.size(plasticity.gamma) if np.ndim(plasticity.gamma) else None)
    lengths = {length for length in given if length is not None}
    if len(lengths) > 1:
        raise ParameterError("circuit", "arrays over circuits must have one length", given)
    common = lengths.pop() if lengths else None
    circuit.check_neurons(n_neurons, n_circuits is not None)
    if circuit.n_neurons not in (None, n_neurons):
        raise ParameterError(
            "w_init", f"must have as many neurons as the circuit, {circuit.n_neurons}", n_neurons
        )
    drawn = circuit.drawn(n_neurons, seed, common)
    times = None
    if presentation is not None:
        duration = milliseconds("presentation", presentation)
        in_range("presentation", duration, presentation, above=0, unit="ms")
        step = None if dt is None else milliseconds("dt", dt)
        if step is not None:
            in_range("dt", step, dt, above=0, unit="ms")
            drawn.check_step(step)
            whole_steps(duration, step)
        times = duration, step
    alike = drawn.n_circuits is None
    number = 1 if alike else common or 1
    made = [_matrix(drawn, signal, n_neurons, c, times) for c in range(number)]
    return made * (common or 1) if alike else made


def _matrix(
    circuit: Circuit,
    signal: LinearSignal,
    n_neurons: int,
    which: int,
    times: tuple[float, float | None] | None,
) -> Array:
    """Signal matrix of one circuit of which nothing is left to be drawn."""

    def one(value: Any) -> Any:
        if isinstance(value, PerNeuron):
            return np.asarray(value[which] if value.ndim == 2 else value)
        return np.asarray(value)[which] if np.ndim(value) else value

    to_inh, from_inh = np.full((1, n_neurons), 1 / n_neurons), np.ones((n_neurons, 1))
    if circuit.connected:
        m = circuit.interneurons
        to_inh = _weights(circuit.connect_ei, (m, n_neurons), 1 / n_neurons, which)
        from_inh = _weights(circuit.connect_ie, (n_neurons, m), 1 / m, which)

    parameters = (one(circuit.alpha), one(circuit.tau_ms), one(circuit.tau_inh_ms))
    slopes = circuit.dynamics.slopes(
        *(np.broadcast_to(np.asarray(value), n_neurons) for value in parameters)
    )
    m = len(to_inh)
    jacobian = np.zeros((n_neurons + m, n_neurons + m))
    jacobian[:n_neurons, :n_neurons] = np.diag(slopes.rate)
    jacobian[:n_neurons, n_neurons:] = slopes.inhibition[:, np.newaxis] * from_inh
    # The interneurons' equation has no parameter in which neurons differ.
    jacobian[n_neurons:, :n_neurons] = slopes.received[0] * to_inh
    jacobian[n_neurons:, n_neurons:] = slopes.leak[0] * np.eye(m)
    drive = np.zeros((n_neurons + m, n_neurons))
    drive[:n_neurons] = np.diag(slopes.drive)
    settled = np.asarray(-np.linalg.solve(jacobian, drive), dtype=float)
    read = np.hstack([signal.rate * np.eye(n_neurons), signal.common * from_inh])
    if times is None:
        return read @ settled
    duration, step = times
    delay = float(one(circuit.delay_ms))
    if step is None and delay:
        raise ParameterError("dt", "must be given where inhibition is late", None)
    if step is not None and (late := whole_delay(delay, step)):
        # Besides r and r_inh there is r_inh before, each as it was a step later a step ago.
        size = n_neurons + m
        jacobian = np.pad(jacobian, (0, late * m))
        jacobian[:n_neurons, -m:] = jacobian[:n_neurons, n_neurons:size]
        jacobian[:n_neurons, n_neurons:size] = 0
        jacobian[size:, n_neurons:-m] = np.eye(late * m) / step
        jacobian[size:, size:] -= np.eye(late * m) / step
        read = np.hstack([read[:, :n_neurons], np.zeros((n_neurons, late * m)), read[:, -m:]])
        settled = np.vstack([settled, np.tile(settled[n_neurons:], (late, 1))])
    return read @ averaged(jacobian, settled, duration, step)


def _weights(given: Any, shape: tuple[int, int], default: float, which: int) -> Array:
    if given is None:
        return np.full(shape, default)
    weights = np.asarray(given)
    return weights[which] if weights.ndim == 3 else weights
