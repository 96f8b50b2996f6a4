"""How similar the weights of a pool are: Eq. 6 of the paper and its relatives.

All functions take weights of shape (..., neuron, input) and return an array of shape (...).
A *pool* is the set of neurons that should share their weights. Bars are means over it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.checks.validation import (
    ParameterError,
    array,
    dimensionless,
    fitting,
    in_range,
)
from circuitsim.inputs import check_covariance
from circuitsim.public import own

if TYPE_CHECKING:
    import xarray as xr

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
    return cosine(*_means(weights, w_init))


def mean_weight_kept(weights: ArrayLike, w_init: ArrayLike) -> NDArray[np.float64]:
    """Length of the pool's mean weights, as a share of that of its mean initial weights.

    Parameters and errors as in `mean_weight_cosine`.

    Examples
    --------
    >>> float(mean_weight_kept([[1.0, 0.0]], [[0.0, 2.0]]))
    0.5
    """
    mean, initial = _means(weights, w_init)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.linalg.norm(mean, axis=-1) / np.linalg.norm(initial, axis=-1)


def snr_z(weights: ArrayLike, covariance: ArrayLike) -> NDArray[np.float64]:
    """Signal-to-noise ratio of what neurons make of their inputs, the drives z_i = w_i x.

    The variance of the mean drive over inputs, wbar C wbar, by that of the neurons' deviations from
    it, averaged over the pool. Unlike `snr_w` it looks only where inputs go: with fewer patterns
    than inputs (a singular C) weights keep what they had in all other directions, which no drive
    tells of.

    Parameters
    ----------
    weights : array_like, shape (..., neuron, input)
        Dimensionless.
    covariance : array_like, shape (input, input)
        C of the inputs, symmetric and without negative eigenvalues.

    Returns
    -------
    ndarray, shape (...)
        Infinite where all drives are the same; NaN where there is no drive at all.

    Raises
    ------
    ParameterError
        As `snr_w`; or if C is of another shape, or no covariance.

    Examples
    --------
    >>> weights = [[1.0, 4.0], [3.0, -4.0]]
    >>> float(snr_z(weights, np.eye(2)))
    0.23529411764705882
    >>> float(snr_z(weights, [[1.0, 0.0], [0.0, 0.0]]))
    4.0
    """
    w = array("weights", weights, ("...", "neuron", "input"), finite=False)
    c = check_covariance(covariance, w.shape[-1])
    mean = w.mean(axis=-2)
    deviations = w - mean[..., None, :]
    signal = np.einsum("...j,jk,...k->...", mean, c, mean)
    noise = np.einsum("...ij,jk,...ik->...", deviations, c, deviations) / w.shape[-2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.maximum(signal, 0) / np.maximum(noise, 0)


def presentations_until(run: xr.Dataset, inverse_snr_w: float) -> xr.DataArray:
    """Presentations that it takes until weights are so much alike.

    Parameters
    ----------
    run : Dataset
        Of `circuitsim.simulate` or `circuitsim.load`.
    inverse_snr_w : float
        > 0; how low `inverse_snr_w` is to be for the first time.

    Returns
    -------
    DataArray
        Number of the first of the presentations recorded at which it is, over whatever other
        dimensions the run has; NaN where it never is.

    Raises
    ------
    ParameterError
        If the number is not > 0, or the Dataset is no such run.

    Examples
    --------
    >>> import xarray as xr
    >>> curve = xr.DataArray([1.0, 0.2, 0.05, 0.07], dims="presentation", name="inverse_snr_w")
    >>> run = curve.to_dataset().assign_coords(presentation=[0, 10, 20, 30])
    >>> float(presentations_until(run, 0.1))
    20.0
    """
    threshold = dimensionless("inverse_snr_w", inverse_snr_w)
    in_range("inverse_snr_w", threshold, inverse_snr_w, above=0)
    curve = getattr(run, "inverse_snr_w", None)
    if "presentation" not in getattr(curve, "coords", ()):
        raise ParameterError("run", "must be what simulate or load returns", type(run).__name__)
    reached = curve <= threshold
    found = run.presentation.where(reached).min("presentation")
    names = {"long_name": f"presentations until inverse SNR_w is {threshold:g}"}
    return found.rename("presentations").assign_attrs(names)


def snr_from_moments(mean: ArrayLike, variance: ArrayLike) -> NDArray[np.float64]:
    """Eq. 6 from the mean and variance over the pool, both of shape (..., input)."""
    mean, variance = _of_one_shape(mean=mean, variance=variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.mean(np.square(mean) / variance, axis=-1)


def inverse_snr_from_moments(mean: ArrayLike, variance: ArrayLike) -> NDArray[np.float64]:
    """`inverse_snr_w` from the mean and variance over the pool, both of shape (..., input)."""
    mean, variance = _of_one_shape(mean=mean, variance=variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.mean(variance / np.square(mean), axis=-1)


def cosine(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Cosine between vectors along the last axis."""
    a, b = _of_one_shape(a=a, b=b)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sum(a * b, axis=-1) / (
            np.sqrt(np.sum(a * a, axis=-1)) * np.sqrt(np.sum(b * b, axis=-1))
        )


def _of_one_shape(**values: ArrayLike) -> list[NDArray[np.float64]]:
    """Check two arrays of shape (..., input), of as many inputs, that broadcast."""
    first, second = (array(n, v, ("...", "input"), finite=False) for n, v in values.items())
    one, other = values
    fitting(other, second, first.shape, f"must fit {one}, {first.shape}")
    return [first, second]


def _means(weights: ArrayLike, w_init: ArrayLike) -> list[NDArray[np.float64]]:
    return _of_one_shape(weights=_moments(weights)[0], w_init=_moments(w_init, "w_init")[0])


def _moments(
    weights: ArrayLike, name: str = "weights"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    weights = array(name, weights, ("...", "neuron", "input"), finite=False)
    return weights.mean(axis=-2), weights.var(axis=-2)
