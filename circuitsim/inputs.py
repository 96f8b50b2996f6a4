"""Input patterns: what all neurons of a pool see while they sleep.

A source of inputs has a ``shape`` of (presentation, input) or (presentation, circuit, input) and
gives any stretch of itself with ``block(start, stop)``, so that a run of any length needs memory
for one block only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.public import own
from circuitsim.validation import ParameterError, dimensionless, integer
from circuitsim.validation import array as checked_array

__dir__ = own(__name__)

_BLOCK = 512  # presentations drawn from one generator; part of what a seed means


class InputSource(Protocol):
    """Anything that gives inputs block by block."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(presentation, input) or (presentation, circuit, input)."""

    def block(self, start: int, stop: int) -> NDArray[np.float64]:
        """Inputs of the presentations from ``start`` up to ``stop``."""


class ArrayInputs(InputSource):
    """Inputs from an array of shape (presentation, input) or (presentation, circuit, input).

    Raises
    ------
    ParameterError
        If the array has another number of dimensions, is empty, or is not finite.
    """

    def __init__(self, array: ArrayLike) -> None:
        self._values = checked_array(
            "inputs",
            array,
            ("presentation", "input"),
            ("presentation", "circuit", "input"),
            empty=True,
        )

    @property
    def shape(self) -> tuple[int, ...]:
        return self._values.shape

    def block(self, start: int, stop: int) -> NDArray[np.float64]:
        return self._values[start:stop]


class GaussianInputs:
    """Independent Gaussian patterns with zero mean, standard normal by default.

    Every presentation's pattern is fixed by the seed and its number alone: a longer run starts
    with the patterns of a shorter one, and blocks can be drawn in any order.

    Parameters
    ----------
    n_presentations, n_inputs : int
        Shape of the source; >= 0 and >= 1.
    seed : int or numpy.random.SeedSequence
        What fixes the patterns.
    covariance : array_like, shape (input, input), optional
        Symmetric and positive semidefinite; the identity by default.

    Raises
    ------
    ParameterError
        If a value is out of its range.

    Examples
    --------
    >>> GaussianInputs(1000, 9, seed=1).block(0, 2).shape
    (2, 9)
    """

    def __init__(
        self,
        n_presentations: int,
        n_inputs: int,
        seed: int | np.random.SeedSequence,
        covariance: ArrayLike | None = None,
    ) -> None:
        n_presentations = integer("GaussianInputs.n_presentations", n_presentations, minimum=0)
        n_inputs = integer("GaussianInputs.n_inputs", n_inputs, minimum=1)
        if not isinstance(seed, np.random.SeedSequence):
            seed = np.random.SeedSequence(integer("GaussianInputs.seed", seed, minimum=0))
        self._seed = seed
        self._root: NDArray[np.float64] | None = None
        if covariance is not None:
            values, vectors = spectrum(check_covariance(covariance, n_inputs))
            self._root = (vectors * np.sqrt(values)) @ vectors.T
        self.shape = (n_presentations, n_inputs)

    def block(self, start: int, stop: int) -> NDArray[np.float64]:
        """Patterns of the presentations from ``start`` up to ``stop``, (presentation, input)."""
        stop = min(stop, self.shape[0])
        first = start // _BLOCK
        drawn = [self._draw(number) for number in range(first, -(-stop // _BLOCK))]
        patterns = np.concatenate(drawn or [np.empty((0, self.shape[1]))])
        patterns = patterns[start - first * _BLOCK : stop - first * _BLOCK]
        return patterns if self._root is None else patterns @ self._root

    def _draw(self, number: int) -> NDArray[np.float64]:
        key = (*self._seed.spawn_key, number)
        seed = np.random.SeedSequence(self._seed.entropy, spawn_key=key)
        return np.random.default_rng(seed).standard_normal((_BLOCK, self.shape[1]))


class StackedInputs:
    """Several sources of shape (presentation, input) side by side, one for each circuit.

    Parameters
    ----------
    sources : sequence of InputSource
        All of one shape.
    which : sequence of int
        For each circuit, the number of its source; circuits may share one.
    """

    def __init__(self, sources: Sequence[InputSource], which: Sequence[int]) -> None:
        self._sources = sources
        self._which = np.asarray(which)
        n_presentations, n_inputs = sources[0].shape
        self.shape = (n_presentations, len(self._which), n_inputs)

    def block(self, start: int, stop: int) -> NDArray[np.float64]:
        """Patterns as (presentation, circuit, input)."""
        patterns = np.stack([source.block(start, stop) for source in self._sources], axis=1)
        return patterns[:, self._which]


def as_source(inputs: ArrayLike | InputSource) -> InputSource:
    """Return ``inputs`` as a source: itself if it is one, else from an array (`ArrayInputs`)."""
    if hasattr(inputs, "block"):
        return cast(InputSource, inputs)
    return ArrayInputs(inputs)


def equicorrelated(rho: float, n_inputs: int) -> NDArray[np.float64]:
    """Covariance with ones on the diagonal and ``rho`` everywhere else.

    Parameters
    ----------
    rho : float
        Correlation between any two inputs, from -1/(n_inputs - 1) to 1.
    n_inputs : int
        >= 1.

    Returns
    -------
    ndarray, shape (input, input)

    Raises
    ------
    ParameterError
        If ``rho`` is out of its range: there are no such inputs.

    Examples
    --------
    >>> equicorrelated(0.5, 2).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    number = check_correlation(rho, n_inputs)
    return np.full((n_inputs, n_inputs), number) + (1 - number) * np.eye(n_inputs)


def check_correlation(rho: float, n_inputs: int) -> float:
    """Return ``rho`` as a float, or raise a `ParameterError` as `equicorrelated` does."""
    integer("n_inputs", n_inputs, minimum=1)
    number = dimensionless("correlation", rho)
    lowest = -1 / (n_inputs - 1) if n_inputs > 1 else -1.0
    # One unit in the last place of room, so that -1/(n - 1) itself passes.
    if number > 1 or number < lowest * (1 + 1e-15):
        raise ParameterError(
            "correlation", f"must be from {lowest:.4g} to 1 for {n_inputs} inputs", rho
        )
    return number


def check_covariance(covariance: ArrayLike, n_inputs: int) -> NDArray[np.float64]:
    """Return a covariance as an array of shape (input, input).

    Raises
    ------
    ParameterError
        If it has another shape, or is not finite, symmetric and positive semidefinite.
    """
    matrix = checked_array("covariance", covariance, ("...",), finite=False)
    if matrix.shape != (n_inputs, n_inputs):
        raise ParameterError(
            "covariance", f"must have the shape ({n_inputs}, {n_inputs})", matrix.shape
        )
    if not np.all(np.isfinite(matrix)) or not np.allclose(matrix, matrix.T, rtol=1e-10, atol=0):
        raise ParameterError("covariance", "must be finite and symmetric", matrix)
    values = np.linalg.eigvalsh(matrix)
    if values[0] < -1e-10 * max(abs(values[-1]), np.finfo(float).tiny):
        raise ParameterError(
            "covariance",
            f"must be positive semidefinite; one eigenvalue is {values[0]:.3g}",
            matrix,
        )
    return matrix


def spectrum(
    covariance: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues (input,) and eigenvectors (input, eigenvector) of a covariance.

    Eigenvalues that differ from zero only by rounding are returned as exactly zero.
    """
    values, vectors = np.linalg.eigh(covariance)
    negligible = len(values) * np.finfo(float).eps * np.max(np.abs(values), initial=0)
    return np.where(values > negligible, values, 0.0), vectors
