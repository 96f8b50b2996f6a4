"""Rates after every step, rebuilt from what the propagator knows of each presentation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitsim.engines.batch import Array, Batch
from circuitsim.engines.rows import Pool


class RateTraces:
    """Rates of all neurons after every step of a batch.

    Parameters
    ----------
    batch : Batch
    pool : Pool
        Its state in rows.
    which : ndarray of int, shape (circuit,)
        For each circuit, which set of coefficients is its own.

    Attributes
    ----------
    rate : ndarray, shape (circuit, time, neuron)
    rate_inh : ndarray, shape (circuit, time)
    """

    def __init__(self, batch: Batch, pool: Pool, which: NDArray[np.intp]) -> None:
        n_circuits, n_neurons, _ = batch.shape
        n_steps = batch.n_presentations * batch.steps
        self.rate = np.empty((n_circuits, n_steps, n_neurons))
        self.rate_inh = np.empty((n_circuits, n_steps))
        self._b, self._rest_inh = batch.b, batch.rest_inh
        self._pool = pool
        self._which = which
        self._done = 0
        self._clear()

    def _clear(self) -> None:
        self._deviation_after: list[Array] = []
        self._mean_after: list[Array] = []
        self._deviation_before: list[Array] = []
        self._mean_before: list[Array] = []

    def after_step(self, deviation: Array, mean: Array) -> None:
        """Take in the coefficients of a step, see `_kernels_numpy.euler`."""
        self._deviation_after.append(deviation[..., self._which, :])
        self._mean_after.append(mean[..., self._which, :])

    def before_presentation(self, deviation: Array, mean: Array) -> None:
        """Take in the state at the start of a presentation, see `_kernels_numpy.present`."""
        self._deviation_before.append(deviation)
        self._mean_before.append(mean)

    def finish_block(self) -> None:
        """Rebuild the rates of the presentations taken in since the last call."""
        # (circuit, presentation, step, source) @ (circuit, presentation, source, neuron)
        factors = np.moveaxis(np.array(self._deviation_after), (-2, -1), (0, 1))
        sources = np.stack(self._deviation_before, axis=1)
        if self._pool.basis is not None:
            sources = sources @ self._pool.basis.swapaxes(-1, -2)[:, np.newaxis]
        rate = factors @ sources

        factors = np.moveaxis(np.array(self._mean_after), (-2, -1), (0, 1))
        means, inhibition = np.einsum(
            "cpthk,cpk->hcpt", factors, np.stack(self._mean_before, axis=1)[..., 0]
        )
        rate += means[..., np.newaxis]
        rate += self._b[:, np.newaxis, np.newaxis, np.newaxis]

        n_circuits, n_presentations, n_steps, n_neurons = rate.shape
        block = slice(self._done, self._done + n_presentations * n_steps)
        self.rate[:, block] = rate.reshape(n_circuits, -1, n_neurons)
        self.rate_inh[:, block] = inhibition.reshape(n_circuits, -1) + self._rest_inh[:, np.newaxis]
        self._done = block.stop
        self._clear()
