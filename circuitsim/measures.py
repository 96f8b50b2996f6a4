"""How similar the weights of a pool are: Eq. 6 of the paper and its relatives.

All functions take weights of shape (..., neuron, input) and return an array of shape (...).
A *pool* is the set of neurons that should share their weights. Bars are means over it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.checks.validation import array
from circuitsim.public import own

__dir__ = own(__name__, "SAME_SNR_W")

SAME_SNR_W = 1e9  # from here on weights of single precision are the same for all purposes


def snr_w(weights: ArrayLike) -> NDArray[np.float64]:
    """Signal-to-noise ratio of the weights, Eq. 6: the mean over inputs of wbar_j^2 / var_j.

    Parameters
    ----------
    weights : array_like, shape (..., neuron, input)
        Dimensionless.

    Returns
    -------
    ndarray, shape (...)
        Infinite where an input's weights are all the same.

    Raises
    ------
    ParameterError
        If there are fewer than two dimensions, or one of the last two is empty.

    Examples
    --------
    >>> float(snr_w([[1.0, 4.0], [3.0, 4.0]]))
    inf
    >>> float(snr_w([[1.0, 2.0], [3.0, 6.0]]))
    4.0
    """
    return snr_from_moments(*_moments(weights))


def inverse_snr_w(weights: ArrayLike) -> NDArray[np.float64]:
    """Mean over inputs of the inverse ratios, var_j / wbar_j^2, as the published code plots it.

    Always at least ``1 / snr_w``, and larger by orders of magnitude when one mean weight is near
    zero. Same parameters and errors as `snr_w`.

    Examples
    --------
    >>> float(inverse_snr_w([[1.0, 2.0], [3.0, 6.0]]))
    0.25
    """
    return inverse_snr_from_moments(*_moments(weights))


def mean_weight_cosine(weights: ArrayLike, w_init: ArrayLike) -> NDArray[np.float64]:
    """Cosine between the pool's mean weights and its mean initial weights.

    Parameters
    ----------
    weights, w_init : array_like, shape (..., neuron, input)
        Present and initial weights; leading dimensions broadcast.

    Returns
    -------
    ndarray, shape (...)
        Between -1 and 1; NaN where a mean is zero.

    Raises
    ------
    ParameterError
        As in `snr_w`.

    Examples
    --------
    >>> float(mean_weight_cosine([[1.0, 0.0]], [[0.0, 2.0]]))
    0.0
    """
    return cosine(_moments(weights)[0], _moments(w_init)[0])


def mean_weight_kept(weights: ArrayLike, w_init: ArrayLike) -> NDArray[np.float64]:
    """Length of the pool's mean weights, as a share of that of its mean initial weights.

    Parameters and errors as in `mean_weight_cosine`.

    Examples
    --------
    >>> float(mean_weight_kept([[1.0, 0.0]], [[0.0, 2.0]]))
    0.5
    """
    mean, initial = _moments(weights)[0], _moments(w_init)[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.linalg.norm(mean, axis=-1) / np.linalg.norm(initial, axis=-1)


def snr_from_moments(mean: ArrayLike, variance: ArrayLike) -> NDArray[np.float64]:
    """Eq. 6 from the mean and variance over the pool, both of shape (..., input)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.mean(np.square(mean) / np.asarray(variance), axis=-1)


def inverse_snr_from_moments(mean: ArrayLike, variance: ArrayLike) -> NDArray[np.float64]:
    """`inverse_snr_w` from the mean and variance over the pool, both of shape (..., input)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.mean(np.asarray(variance) / np.square(mean), axis=-1)


def cosine(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Cosine between vectors along the last axis."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sum(a * b, axis=-1) / (
            np.sqrt(np.sum(a * a, axis=-1)) * np.sqrt(np.sum(b * b, axis=-1))
        )


def _moments(weights: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    weights = array("weights", weights, ("...", "neuron", "input"), finite=False)
    return weights.mean(axis=-2), weights.var(axis=-2)
