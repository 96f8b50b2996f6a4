"""Every input's own row, carried through a block of presentations by two products of matrices.

Rows only move along the inputs that they see (`circuitsim.engines.coefficients`). So through a
block of presentations X (presentation, input) it is enough to follow how much of each input is
added to each row: what rows project on an input is what they did at the start of the block, which
is one product with X, and what inputs before it have added, which is in X X^T. Rows are made up at
the end of the block, which is the other product.

Without input, what has moved (D) and its velocity (M) change by the same matrix [[a, c], [e, f]] in
each presentation. In the frame of its eigenvectors that is a slow part, the rows proper, and a fast
one, which momentum alone keeps: it forgets all but the last few inputs, and is kept as how much of
each of those is in it.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dgemm

from circuitsim.engines.batch import Array
from circuitsim.engines.coefficients import Coefficients
from circuitsim.engines.rows import Pool, Rows

LEAST = 64  # inputs for which this is worth it
_TOGETHER = 64  # presentations in a block: products are fast, and little is done between them
_REMEMBERED = 16  # presentations, of the fast part


class Frame(NamedTuple):
    """Eigenvectors of what presentations do to rows without input, for each circuit.

    Attributes
    ----------
    slow, fast : ndarray, shape (circuit,)
        Eigenvalues.
    out : ndarray, shape (circuit, 2, 2)
        Eigenvectors in columns: D and M from the slow and the fast part.
    into : ndarray, shape (circuit, 2, 2)
        Back.
    """

    slow: Array
    fast: Array
    out: Array
    into: Array

    @classmethod
    def of(cls, weights: Array) -> Frame | None:
        """Return that of a, c, e, f (circuit, 4), or None if the fast part remembers too much."""
        if not np.isfinite(weights).all():
            return None
        values, vectors = np.linalg.eig(weights.reshape(-1, 2, 2))
        order = np.argsort(-np.abs(values), axis=-1)
        slow, fast = np.take_along_axis(values, order, axis=-1).T
        if np.iscomplexobj(values) or np.any(np.abs(fast) ** _REMEMBERED >= np.abs(slow) * 1e-18):
            return None
        out = np.take_along_axis(vectors, order[:, np.newaxis], axis=-1)
        return cls(slow, fast, out, np.linalg.inv(out))


class Blocks:
    """Unit rows on their way through the presentations of a batch.

    Parameters
    ----------
    kernels : module
        `_kernels_numpy` or `_kernels_numba`.
    pool : Pool
        Rows of deviations and of the mean that have not moved: first one for each input, which is
        one in that, then others, which are in none, as `circuitsim.engines.transfer` makes them.
        Their end is written there by `finish`.
    frame : Frame
    """

    def __init__(self, kernels: ModuleType, pool: Pool, frame: Frame) -> None:
        self._of_circuits = [
            [_Rows(kernels, rows, circuit, frame) for rows in (pool.deviations, pool.mean)]
            for circuit in range(len(frame.slow))
        ]

    def advance(self, chunk: slice, inputs: Array, coefficients: Coefficients) -> None:
        """Carry some circuits through presentations (presentation, circuit, input)."""
        for i, of_circuit in enumerate(self._of_circuits[chunk]):
            _, *matrices = (values[i] for values in coefficients)
            for first in range(0, len(inputs), _TOGETHER):
                block = slice(first, first + _TOGETHER)
                x = np.ascontiguousarray(inputs[block, i])
                products = x @ x.T
                for rows, matrix in zip(of_circuit, matrices, strict=True):
                    rows.advance(x, products, matrix[block])

    def finish(self) -> None:
        """Write how far rows have moved, and their rates, into the pool; velocities stay."""
        for of_circuit in self._of_circuits:
            for rows in of_circuit:
                rows.finish()


class _Rows:
    """Deviations or the mean of one circuit."""

    def __init__(self, kernels: ModuleType, rows: Rows, circuit: int, frame: Frame) -> None:
        self._kernels, self._end, self._circuit = kernels, rows, circuit
        self._eigenvalues = float(frame.slow[circuit]), float(frame.fast[circuit])
        self._out, self._into = frame.out[circuit], frame.into[circuit]
        init = rows.init[circuit]
        self._rates = np.array([rows.rate[circuit], rows.inhibition[circuit]])
        self._slow = np.zeros(init.shape)
        # How much of each of the last inputs, and these.
        self._fast = np.zeros((_REMEMBERED, init.shape[0]))
        self._seen = np.zeros((_REMEMBERED, init.shape[1]))

    def advance(self, x: Array, products: Array, matrix: Array) -> None:
        """Carry them through a block of presentations, whose inputs have these products."""
        slow, fast = self._eigenvalues
        n, n_rows = len(x), len(self._slow)
        age = np.arange(n)
        between = np.maximum(np.subtract.outer(age, age) - 1, 0)
        in_frame = self._in_frame(matrix)
        # Projections on each input: of y without what has moved, then of both parts, which is what
        # is left of them from the start of the block and what inputs before add to them; and rates.
        starts = np.zeros((n, 5, n_rows))
        starts[:, 0, : x.shape[1]] = x
        np.multiply(x @ self._slow.T, _faded(slow, age), out=starts[:, 1])
        np.multiply(x @ self._seen.T @ self._fast, _faded(fast, age), out=starts[:, 2])
        by_slow, by_fast = (products * _faded(of, age)[between, 0] for of in (slow, fast))
        added_slow, added_fast = added = np.empty((2, n, n_rows))
        self._kernels.through(in_frame, by_slow, by_fast, starts, self._rates, added, _REMEMBERED)

        added_slow *= _faded(slow, age[::-1])
        added_fast *= _faded(fast, age[::-1])
        # self._slow * slow**n + added_slow.T @ x, in place; BLAS takes columns first.
        dgemm(1, x.T, added_slow.T, slow**n, self._slow.T, trans_b=True, overwrite_c=True)
        self._fast = np.concatenate([self._fast * fast**n, added_fast])[-_REMEMBERED:]
        self._seen = np.concatenate([self._seen, x])[-_REMEMBERED:]

    def _in_frame(self, matrix: Array) -> Array:
        """`Coefficients` from y without what has moved, both parts and rates, to parts and rates.

        Deviations are given a rate of the interneuron, which they do not feel.
        """
        n, n_out, n_in = matrix.shape
        whole = np.zeros((n, 4, 5))
        whole[:, 3, 4] = 1
        whole[:, :n_out, :n_in] = matrix
        before, after = np.eye(5), np.eye(4)
        before[0, 1:3] = before[1, 1:3] = self._out[0]
        before[2, 1:3] = self._out[1]
        after[:2, :2] = self._into
        in_frame: Array = after @ whole @ before
        return in_frame

    def finish(self) -> None:
        """Write how far they have moved, and their rates."""
        by_slow, by_fast = self._out[0]
        end, circuit = self._end, self._circuit
        moved = end.moved[circuit]
        np.matmul(self._fast.T * by_fast, self._seen, out=moved)
        moved += by_slow * self._slow
        end.rate[circuit], end.inhibition[circuit] = self._rates


def _faded(eigenvalue: float, age: NDArray[np.int64]) -> Array:
    """What is left after so many presentations, as a column."""
    return np.power(eigenvalue, age)[:, np.newaxis]
