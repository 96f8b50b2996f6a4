"""Input patterns: what all neurons of a pool see while they sleep.

A source of inputs has a ``shape`` of (presentation, input) or (presentation, circuit, input) and
gives any stretch of itself with ``block(start, stop)``, so that a run of any length needs memory
for one block only.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim import noise
from circuitsim.checks.validation import (
    ParameterError,
    count,
    dimensionless,
    in_range,
    integer,
    one_of,
    regular,
)
from circuitsim.checks.validation import array as checked_array
from circuitsim.public import own

__dir__ = own(__name__)

_BLOCK = 512  # presentations drawn from one generator; part of what a seed means
_OWN = 1  # what tells the stream of neurons' own inputs from that of rates with the same seed


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
        n_presentations = count("GaussianInputs.n_presentations", n_presentations, minimum=0)
        n_inputs = count("GaussianInputs.n_inputs", n_inputs, minimum=1)
        self._seed = _seeded("GaussianInputs.seed", seed)
        self._root: NDArray[np.float64] | None = None
        if covariance is not None:
            values, vectors = spectrum(covariance, n_inputs)
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


class Noisy:
    """Inputs of which every neuron sees its own: x plus noise that stays for a presentation.

    Parameters
    ----------
    inputs : array_like or InputSource
        What all neurons have in common.
    private : float
        Standard deviation of each neuron's own part, independent over neurons, inputs and
        presentations; >= 0.
    seed : int or numpy.random.SeedSequence, or a sequence of them
        Of the noise: one for each circuit, or one for all of them, whose noise then differs by
        their numbers. Beside it, noise depends on the number of the presentation since the initial
        weights alone.

    Raises
    ------
    ParameterError
        If a value is out of its range.

    Examples
    --------
    >>> source = Noisy(np.zeros((50, 9)), private=0.1, seed=1)
    >>> source.shape, source.private_block(0, 2, (1, 100, 9)).shape
    ((50, 9), (2, 1, 100, 9))
    """

    def __init__(
        self,
        inputs: ArrayLike | InputSource,
        private: float,
        seed: int | np.random.SeedSequence | Sequence[int | np.random.SeedSequence] = 0,
    ) -> None:
        self._common = as_source(inputs)
        if hasattr(self._common, "private_block"):
            raise ParameterError(
                "Noisy.inputs", "must be the same for all neurons; give the noise once", inputs
            )
        self.private = dimensionless("Noisy.private", private)
        in_range("Noisy.private", self.private, private, minimum=0)
        one = isinstance(seed, str) or (isinstance(seed, np.ndarray) and seed.ndim == 0)
        several = isinstance(seed, Sequence | np.ndarray) and not one
        every: Any = seed if several else [seed]
        self._seeds = [_seeded("Noisy.seed", one) for one in every]
        self._several = several

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the common inputs."""
        return self._common.shape

    def block(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return the common inputs of some presentations."""
        return self._common.block(start, stop)

    def private_block(
        self, start: int, stop: int, shape: tuple[int, int, int], done: int = 0
    ) -> NDArray[np.float64]:
        """Inputs of each neuron.

        Parameters
        ----------
        start, stop : int
            Presentations of this source.
        shape : tuple of int
            (circuit, neuron, input)
        done : int
            Presentations before the first of this source.

        Returns
        -------
        ndarray, shape (presentation, circuit, neuron, input)

        Raises
        ------
        ParameterError
            If there are not as many seeds as circuits.
        """
        n_circuits, n_neurons, n_inputs = shape
        if self._several and len(self._seeds) != n_circuits:
            raise ParameterError(
                "Noisy.seed", f"must be one, or one for each of {n_circuits} circuits",
                len(self._seeds),
            )  # fmt: skip
        common = np.asarray(self.block(start, stop), dtype=float)
        every = self._seeds if self._several else self._seeds * n_circuits
        own = [(0,) if self._several else (circuit,) for circuit in range(n_circuits)]
        keys = noise.keys(
            [
                np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, *key, _OWN))
                for seed, key in zip(every, own, strict=True)
            ]
        )
        common = common.reshape(len(common), -1, n_inputs)
        found = np.empty((len(common), *shape))
        if find_spec("numba") is not None:
            from circuitsim import _noise_numba

            seen = np.array(common, order="C")
            _noise_numba.around(keys, done + start, self.private, seen, found)
            return found
        for number, of_circuits in enumerate(found, start=done + start):
            for key, of_one in zip(keys.tolist(), of_circuits, strict=True):
                of_one[:] = noise.normals(key, number, n_neurons, n_inputs)
        found *= self.private
        found += common[:, :, np.newaxis]
        return found


class Patterns:
    """Patterns that are given, one after another or in random order, over and over.

    Parameters
    ----------
    patterns : array_like, shape (pattern, input)
        M patterns, such as those that `patches` cuts from images.
    n_presentations : int, optional
        Length of the source; one for each pattern by default.
    order : {"random", "cyclic"}
        ``"random"``: each presentation shows any of them, independent of all others;
        ``"cyclic"``: from the first to the last, and again.
    seed : int or numpy.random.SeedSequence
        Of the random order. A longer source starts as a shorter one does.

    Attributes
    ----------
    covariance : ndarray, shape (input, input)
        C of the M patterns: the mean of x x^T over them, for `circuitsim.theory`.

    Raises
    ------
    ParameterError
        If a value is out of its range.

    Examples
    --------
    >>> source = Patterns([[1.0, 0.0], [0.0, 2.0]], n_presentations=3, order="cyclic")
    >>> source.block(0, 3).tolist()
    [[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]]
    >>> source.covariance.tolist()
    [[0.5, 0.0], [0.0, 2.0]]
    """

    def __init__(
        self,
        patterns: ArrayLike,
        n_presentations: int | None = None,
        order: str = "random",
        seed: int | np.random.SeedSequence = 0,
    ) -> None:
        self.patterns = checked_array("Patterns.patterns", patterns, ("pattern", "input"))
        number = len(self.patterns) if n_presentations is None else n_presentations
        number = count("Patterns.n_presentations", number, minimum=0)
        self.order = one_of("Patterns.order", order, ("random", "cyclic"))
        self._seed = _seeded("Patterns.seed", seed)
        self.shape = (number, self.patterns.shape[1])
        self.covariance = self.patterns.T @ self.patterns / len(self.patterns)

    def block(self, start: int, stop: int) -> NDArray[np.float64]:
        """Patterns of the presentations from ``start`` up to ``stop``, (presentation, input)."""
        stop = min(stop, self.shape[0])
        numbers = np.arange(start, stop)
        if self.order == "cyclic":
            return self.patterns[numbers % len(self.patterns)]
        first = start // _BLOCK
        drawn = [self._draw(number) for number in range(first, -(-stop // _BLOCK))]
        return self.patterns[np.concatenate([*drawn, numbers[:0]])[numbers - first * _BLOCK]]

    def _draw(self, number: int) -> NDArray[np.int64]:
        key = (*self._seed.spawn_key, number)
        seed = np.random.SeedSequence(self._seed.entropy, spawn_key=key)
        return np.random.default_rng(seed).integers(len(self.patterns), size=_BLOCK)


def patches(
    images: ArrayLike, k: int, number: int, seed: int | np.random.SeedSequence = 0
) -> NDArray[np.float64]:
    """Cut patches from images at random places, for `Patterns`.

    Parameters
    ----------
    images : array_like, shape (image, row, column) or (image, row, column, channel)
        Of any numbers.
    k : int
        Rows and columns of a patch.
    number : int
        How many; >= 2.
    seed : int or numpy.random.SeedSequence
        Fixes the places.

    Returns
    -------
    ndarray, shape (patch, input)
        K = k^2 channels inputs in the order (row, column, channel), each less its mean over
        patches, and all divided by their standard deviation, so that the mean variance is 1.

    Raises
    ------
    ParameterError
        If images are smaller than patches, or all the same.
    """
    cut = checked_array(
        "images", images, ("image", "row", "column"), ("image", "row", "column", "channel")
    )
    cut = cut.reshape(*cut.shape[:3], -1)
    k = count("k", k, minimum=1)
    number = count("number", number, minimum=2)
    if k > min(cut.shape[1:3]):
        raise ParameterError("k", f"must be at most {min(cut.shape[1:3])}, as images are", k)
    rng = np.random.default_rng(_seeded("seed", seed))
    which = rng.integers(len(cut), size=number)
    rows, columns = (rng.integers(size - k + 1, size=number) for size in cut.shape[1:3])
    inside = np.arange(k)
    found = cut[
        which[:, None, None],
        rows[:, None, None] + inside[:, None],
        columns[:, None, None] + inside,
    ].reshape(number, -1)
    found = found - found.mean(axis=0)
    scale = np.sqrt(np.mean(found**2))
    if scale == 0:
        raise ParameterError("images", "must differ: their patches are all the same", cut.shape)
    return found / scale


def _seeded(parameter: str, seed: int | np.random.SeedSequence) -> np.random.SeedSequence:
    if isinstance(seed, np.random.SeedSequence):
        return seed
    return np.random.SeedSequence(integer(parameter, seed, minimum=0))


class StackedInputs:
    """Several sources of shape (presentation, input) side by side, one for each circuit.

    Parameters
    ----------
    sources : sequence of InputSource
        All of one shape.
    which : sequence of int
        For each circuit, the number of its source; circuits may share one.

    Raises
    ------
    ParameterError
        If there are no sources, they have several shapes, or there is none of a number.
    """

    def __init__(self, sources: Sequence[InputSource], which: Sequence[int]) -> None:
        rule = "must be sources (presentation, input) of one shape"
        if not isinstance(sources, Sequence) or not all(hasattr(s, "block") for s in sources):
            raise ParameterError("StackedInputs.sources", rule, sources)
        shapes = {tuple(source.shape) for source in sources}
        if len(shapes) != 1 or len(shape := shapes.pop()) != 2:
            raise ParameterError("StackedInputs.sources", rule, sources)
        rule = f"must be numbers of sources, from 0 to {len(sources) - 1}"
        self._which = regular("StackedInputs.which", which, rule)
        whole = self._which.ndim == 1 and self._which.dtype.kind in "iu" and self._which.size
        if not whole or not np.isin(self._which, np.arange(len(sources))).all():
            raise ParameterError("StackedInputs.which", rule, which)
        self._sources = sources
        n_presentations, n_inputs = shape
        self.shape = (n_presentations, len(self._which), n_inputs)

    def block(self, start: int, stop: int) -> NDArray[np.float64]:
        """Patterns as (presentation, circuit, input)."""
        patterns = np.stack([source.block(start, stop) for source in self._sources], axis=1)
        return patterns[:, self._which]

    def of_circuits(self, which: slice) -> StackedInputs:
        """Return those of some circuits."""
        return StackedInputs(self._sources, self._which[which].tolist())


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
    number = check_correlation(rho, count("n_inputs", n_inputs, minimum=1))
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
    n_inputs = count("n_inputs", n_inputs, minimum=1)
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
    covariance: ArrayLike, n_inputs: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues (input,) and eigenvectors (input, eigenvector) of a covariance.

    Eigenvalues that differ from zero only by rounding are returned as exactly zero.

    Raises
    ------
    ParameterError
        As `check_covariance`.
    """
    values, vectors = np.linalg.eigh(check_covariance(covariance, n_inputs))
    negligible = len(values) * np.finfo(float).eps * np.max(np.abs(values), initial=0)
    return np.where(values > negligible, values, 0.0), vectors
