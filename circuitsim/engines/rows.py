"""A pool of neurons in few rows: its mean, and an orthonormal basis of the deviations from it.

Neurons with the same input obey the same linear equations, so a linear combination of neurons
evolves like a neuron. Deviations from the mean span at most as many directions as there are inputs
(up to three times as many, if the weights start away from w_init and with a velocity), however many
neurons there are.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from circuitsim.engines.batch import Array, Batch


@dataclass
class Rows:
    """Linear combinations of a pool's neurons.

    Attributes
    ----------
    init : ndarray, shape (circuit, row, input)
        Their initial weights.
    moved : ndarray, shape (circuit, row, input)
        Their weights less the initial ones.
    velocity : ndarray, shape (circuit, row, input)
        Change of their weights per step (per ms in continuous time).
    rate : ndarray, shape (circuit, row)
        Their rates above baseline, r - b.
    inhibition : ndarray, shape (circuit, row)
        Rate of the interneuron above its baseline; of no meaning for deviations, which do not feel
        it.
    """

    init: Array
    moved: Array
    velocity: Array
    rate: Array
    inhibition: Array

    def of_circuits(self, which: slice) -> Rows:
        """Views of some circuits' rows."""
        return Rows(*(getattr(self, part.name)[which] for part in fields(self)))

    def copy(self) -> Rows:
        """Return a copy that shares nothing."""
        return Rows(*(getattr(self, part.name).copy() for part in fields(self)))


@dataclass
class Pool:
    """The state of a batch in rows.

    Attributes
    ----------
    basis : ndarray, shape (circuit, neuron, row), or None
        The neurons' deviations from the mean are ``basis @ rows``; None if each neuron has its
        own row.
    deviations, mean : Rows
        The mean has one row.
    """

    basis: Array | None
    deviations: Rows
    mean: Rows

    def neurons(self, deviations: Array, mean: Array) -> Array:
        """Values of all neurons, (circuit, neuron, ...), from those of the rows and of the mean."""
        values = deviations.copy() if self.basis is None else self.basis @ deviations
        values += mean
        return values


def reduced(batch: Batch, step: float, with_velocity: bool = True) -> Pool:
    """Bring the state of a batch into rows.

    Parameters
    ----------
    batch : Batch
        Whose ``state`` and ``w_init``.
    step : float
        Time in ms for which `Rows.velocity` counts.
    with_velocity : bool
        False where it does not matter: without momentum.
    """
    state = batch.state
    n_circuits, n_neurons, n_inputs = batch.shape
    # Only what differs between neurons takes up directions: on a fresh start w_init alone.
    moves = not np.array_equal(state.weights, batch.w_init)
    in_motion = with_velocity and state.velocity.any()
    parts = [
        batch.w_init,
        state.weights - batch.w_init if moves else None,
        step * state.velocity if in_motion else None,
        state.rate[..., np.newaxis],
    ]
    means = []
    deviations = []
    for width, part in zip((n_inputs, n_inputs, n_inputs, 1), parts, strict=True):
        mean, deviation = np.zeros((n_circuits, 1, width)), None
        if part is not None:
            mean, deviation = _centred(part)
        means.append(mean)
        deviations.append(deviation if deviation is not None and deviation.any() else None)

    present = [deviation for deviation in deviations if deviation is not None]
    if not present:
        present.append(np.zeros((n_circuits, n_neurons, 1)))
    stacked = present[0] if len(present) == 1 else np.concatenate(present, axis=-1)
    basis: Array | None
    if stacked.shape[-1] < n_neurons:
        basis, factors = _orthonormal(stacked)
    else:
        basis, factors = None, stacked
    rows = []
    for mean, deviation in zip(means, deviations, strict=True):
        width = mean.shape[-1]
        if deviation is None:
            rows.append(np.zeros((n_circuits, factors.shape[1], width)))
        else:
            rows.append(np.ascontiguousarray(factors[..., :width]))
            factors = factors[..., width:]

    init, moved, velocity, rate = rows
    inhibition = np.zeros(rate.shape[:2])
    of_deviations = Rows(init, moved, velocity, rate[..., 0], inhibition)
    init, moved, velocity, rate = means
    inhibition = (state.rate_inh - batch.rest_inh)[:, np.newaxis]
    of_mean = Rows(init, moved, velocity, rate[..., 0] - batch.b[:, np.newaxis], inhibition)
    return Pool(basis, of_deviations, of_mean)


def _centred(values: Array) -> tuple[Array, Array]:
    """Mean over neurons and deviations from it, the mean's rounding corrected."""
    mean = values.mean(axis=1, keepdims=True)
    deviations = values - mean
    correction = deviations.mean(axis=1, keepdims=True)
    deviations -= correction
    return mean + correction, deviations


def _orthonormal(columns: Array) -> tuple[Array, Array]:
    """Thin QR decomposition of (..., neuron, column), with many more neurons than columns.

    Blocks of neurons that fit the cache are decomposed first, and then what is left of them.
    """
    *circuits, n_neurons, n_columns = columns.shape
    size = max(64, 2 * n_columns)
    n_blocks = n_neurons // size
    if n_blocks < 4:
        return np.linalg.qr(columns)
    blocked = n_blocks * size
    blocks = (*circuits, n_blocks, size, n_columns)
    within, factors = np.linalg.qr(columns[..., :blocked, :].reshape(blocks))
    factors = factors.reshape(*circuits, n_blocks * n_columns, n_columns)
    left = np.concatenate([factors, columns[..., blocked:, :]], axis=-2)
    between, factors = _orthonormal(left)

    basis = np.empty(columns.shape)
    split = between[..., : n_blocks * n_columns, :]
    basis[..., :blocked, :] = (
        within @ split.reshape(*circuits, n_blocks, n_columns, n_columns)
    ).reshape(*circuits, blocked, n_columns)
    basis[..., blocked:, :] = between[..., n_blocks * n_columns :, :]
    return basis, factors
