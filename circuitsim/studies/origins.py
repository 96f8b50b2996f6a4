"""Weights that circuits begin with: a layer of a trained network, or of a file."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitsim.checks.validation import ParameterError
from circuitsim.files import reason
from circuitsim.public import own

if TYPE_CHECKING:
    from circuitsim.vision.geometry import Geometry

__dir__ = own(__name__)

CURVES = 64  # pools whose SNR is kept beside what their weights are worth
Pools = dict[int, NDArray[np.float64]]  # by their sizes, (pool, neuron, input)


@dataclass(frozen=True, eq=False)
class Origin:
    """Weights of pools, before circuits sleep.

    Attributes
    ----------
    k, channels : int
        Rows and columns of kernels, and their channels: the inputs of a neuron.
    pools : dict of array
        By their numbers of neurons, weights (pool, neuron, input), inputs as (row, column,
        channel).
    """

    k: int
    channels: int
    pools: Pools

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that stand for the numbers."""
        found = hashlib.sha256(repr((self.k, self.channels)).encode())
        for size, weights in sorted(self.pools.items()):
            found.update(repr((size, weights.shape)).encode())
            found.update(np.ascontiguousarray(weights, "<f8").tobytes())
        return found.hexdigest()[:32]


def read(given: str) -> Origin:
    """Read the weights that ``--initial`` names.

    Parameters
    ----------
    given : str
        ``RUN:LAYER``, a layer of a trained network, or ``FILE.npz``, arrays of weights.

    Returns
    -------
    Origin
        Its `Origin.pools` are what `circuitsim.simulate` takes as ``w_init``.

    Raises
    ------
    ParameterError
        If there are none, or they are not what they should be.
    """
    name = os.fspath(given)
    if name.endswith(".npz"):
        path = Path(name)
        if not path.exists():
            raise ParameterError("initial", "there is no such file", name)
        return _of_file(name, path.stat().st_mtime_ns)
    run, colon, layer = name.rpartition(":")
    if not (colon and run and layer):
        raise ParameterError("initial", "must be RUN:LAYER or FILE.npz", name)
    from circuitsim.vision import checkpoints

    path = Path(run) / checkpoints.ARRAYS
    if not path.exists():
        raise ParameterError("initial", f"there is no trained network in {run}", name)
    return _of_layer(run, layer, path.stat().st_mtime_ns)


@lru_cache(2)
def _of_layer(run: str, layer: str, _changed: int) -> Origin:
    """Read the pools of a layer of a trained network.

    A pool is what sleeps together: positions whose fields see the same pattern, of one output
    channel (`circuitsim.vision.pools`). Those of one position are left out, and stay as they are.
    """
    from circuitsim.vision.estimator import load

    layers = load(run).network_.lc_layers()
    if layer not in layers:
        known = ", ".join(layers) or "none, since the network is convolutional"
        raise ParameterError(
            "initial", f"must name a locally connected layer of {run} after the colon: {known}",
            layer,
        )  # fmt: skip
    weights, geometry = layers[layer].weights, layers[layer].geometry
    found = gathered(weights.astype(np.float64), geometry)
    if not found:
        raise ParameterError(
            "initial", "must name a layer in which positions see the same pattern; those of this "
            "one all see others", layer,
        )  # fmt: skip
    return Origin(geometry.kernel, weights.shape[4], found)


@lru_cache(2)
def _of_file(name: str, _changed: int) -> Origin:
    """Read ``weights`` (circuit, neuron, input), or of one circuit, and ``k`` and ``channels``.

    Without the latter two, inputs are those of a square kernel of one channel.
    """
    from circuitsim.vision import archives

    try:
        names = archives.array_names(Path(name))
        if "weights" not in names:
            raise ParameterError("initial", f"must have an array weights, not {names}", name)
        weights = archives.read_array(Path(name), "weights")
        sizes = {
            n: int(archives.read_array(Path(name), n)) for n in ("k", "channels") if n in names
        }
    except (archives.BadArchive, OSError, ValueError, TypeError) as error:
        raise ParameterError("initial", f"cannot be read ({reason(error)})", name) from None
    if weights.ndim == 2:
        weights = weights[np.newaxis]
    if weights.ndim != 3 or 0 in weights.shape or weights.dtype.kind not in "fiu":
        raise ParameterError(
            "initial", "must have weights of shape (circuit, neuron, input) or (neuron, input)",
            f"{weights.dtype} of {weights.shape}",
        )  # fmt: skip
    weights = weights.astype(np.float64)
    if not np.isfinite(weights).all():
        raise ParameterError("initial", "must have finite weights", name)
    inputs, channels = weights.shape[2], sizes.get("channels", 1)
    k = sizes.get("k", math.isqrt(inputs // max(channels, 1)))
    if channels < 1 or k**2 * channels != inputs:
        raise ParameterError(
            "initial", f"must have k x k x channels inputs, not {inputs} for k = {k} and "
            f"{channels} channels; give arrays k and channels, too", name,
        )  # fmt: skip
    return Origin(k, channels, {weights.shape[1]: weights})


def gathered(weights: NDArray[np.float64], geometry: Geometry) -> Pools:
    """Return the pools of a layer, output channel by output channel, by their numbers of neurons.

    Parameters
    ----------
    weights : ndarray, shape (row, column, kernel row, kernel column, channel, output channel)
        Of a locally connected layer.
    geometry : Geometry
        Of the layer.
    """
    from circuitsim.vision.pools import pools

    found: dict[int, list[NDArray[np.float64]]] = {}
    for pool in pools(geometry):
        if pool.size > 1:
            of_pool = weights[pool.rows, pool.columns]
            flat = of_pool.reshape(pool.size, -1, weights.shape[-1])
            found.setdefault(pool.size, []).append(flat.transpose(2, 0, 1))
    return {size: np.concatenate(parts) for size, parts in sorted(found.items())}


def scattered(
    changed: Pools, weights: NDArray[np.float64], geometry: Geometry
) -> NDArray[np.float64]:
    """Return the layer with other weights in its pools: what undoes `gathered`."""
    from circuitsim.vision.pools import pools

    made, used = weights.copy(), dict.fromkeys(changed, 0)
    for pool in pools(geometry):
        if pool.size in changed:
            first = used[pool.size]
            used[pool.size] += weights.shape[-1]
            of_pool = changed[pool.size][first : used[pool.size]].transpose(1, 2, 0)
            place = made[pool.rows, pool.columns]
            made[pool.rows, pool.columns] = of_pool.reshape(place.shape)
    return made
