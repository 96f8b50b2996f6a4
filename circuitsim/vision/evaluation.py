"""How well a network classifies images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circuitsim.public import own
from circuitsim.vision import ranks
from circuitsim.vision.augmentation import middle, prepared
from circuitsim.vision.datasets import ImageSet
from circuitsim.vision.layers import (
    Array,
    BatchNorm2D,
    Conv2D,
    LocallyConnected2D,
    cross_entropy,
    softmax,
)
from circuitsim.vision.networks import Network
from circuitsim.vision.pools import pools
from circuitsim.vision.stored import announce

if TYPE_CHECKING:
    from circuitsim.vision.sharing import Sharing

__dir__ = own(__name__, "AT_A_TIME", "SCORES")

SCORES = ("loss", "top1", "top5")
AT_A_TIME = 256  # images; fixed, because rounding may depend on it
_POSITIONS = 3  # whose kernels are shown


def logits(
    network: Network, images: NDArray[np.uint8], mean: NDArray[Any], deviation: NDArray[Any]
) -> Array:
    """Return the network's output (image, class) for images (image, row, column, channel).

    Of larger images than the network takes, it is that of their middle.
    ``mean`` and ``deviation`` are those of the channels, for `prepared`.
    """
    together = ranks.here()
    every = [slice(n, n + AT_A_TIME) for n in range(0, len(images), AT_A_TIME)]
    groups = every[together.rank :: together.size]
    announce(images, groups)
    size = network.architecture.input_shape[:2]
    parts = [
        network.forward(prepared(middle(images[group], size), mean, deviation)) for group in groups
    ]
    if together.size == 1:
        return np.concatenate(parts)
    kind = next(iter(network.parameters().values())).dtype
    found = np.zeros((len(images), network.architecture.n_classes), kind)
    for group, part in zip(groups, parts, strict=True):
        found[group] = part
    return together.total(found)


def evaluate(
    network: Network, data: ImageSet, mean: NDArray[Any], deviation: NDArray[Any]
) -> list[float]:
    """Return loss, top-1 and top-5 accuracy on images; see `logits`."""
    return measured(logits(network, data.images, mean, deviation), data.labels)


def renew_statistics(
    network: Network, images: NDArray[np.uint8], mean: NDArray[Any], deviation: NDArray[Any]
) -> None:
    """Take the statistics of batch norm anew, as averages over batches of these images.

    What is kept of training is of the weights as they were then. See `logits` for the arguments.
    """
    norms = [layer for layer in network.layers.values() if isinstance(layer, BatchNorm2D)]
    momenta = [norm.momentum for norm in norms]
    size = network.architecture.input_shape[:2]
    for n, first in enumerate(range(0, len(images), AT_A_TIME)):
        for norm in norms:
            norm.momentum = 1 / (n + 1)  # makes a running average the mean of all so far
        batch = middle(images[first : first + AT_A_TIME], size)
        network.forward(prepared(batch, mean, deviation), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def measured(found: Array, labels: NDArray[np.int64]) -> list[float]:
    """Return loss, top-1 and top-5 accuracy of logits."""
    loss, _ = cross_entropy(found, labels)
    return [loss, *(float(h.mean()) for h in hits(found, labels))]


def hits(found: Array, labels: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether the label of each image is the likeliest class, and among the five likeliest."""
    of_label = found[np.arange(len(labels)), labels]
    rank = (found > of_label[:, None]).sum(axis=1)
    return rank < 1, rank < 5


def confusion(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], n_classes: int
) -> NDArray[np.int64]:
    """Return how many images of each class (row) were taken for each class (column)."""
    counts = np.bincount(labels * n_classes + predicted, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


def report(
    found: Array, labels: NDArray[np.int64], class_names: Sequence[str], network: Network,
    sharing: Sharing | None = None, *, bins: int = 15, seed: int = 0,
) -> xr.Dataset:  # fmt: skip
    """Tell what a network gets right and wrong, how sure it is, and what its first kernels are.

    Parameters
    ----------
    found : array, shape (image, class)
        Logits.
    labels : ndarray of int64, shape (image,)
        What is right.
    class_names : sequence of str
        By number.
    network : Network
        What has found them.
    sharing : Sharing, optional
        How it sleeps; averaging by default.
    bins : int
        Of the confidence, of equal widths.
    seed : int
        Of the sleep whose kernels are shown.

    Returns
    -------
    xarray.Dataset
        ``confusion`` (class, predicted), in images; ``class_accuracy`` and, with the bounds of the
        95 % interval of Wilson (1927), ``class_accuracy_interval``; ``bin_images``,
        ``bin_confidence``, ``bin_accuracy`` and its interval, and ``calibration_error``, the mean
        distance of confidence and accuracy over images (Guo et al. 2017); ``loss``, ``top1``,
        ``top5``; and ``kernels`` (state, position, kernel_row, kernel_column, channel, output) of
        the first layer at some positions of its largest pool, ``awake`` (as they are) and
        ``asleep`` (after one more sleep), where it is locally connected.
    """
    n_classes = len(class_names)
    counts = confusion(found.argmax(axis=1), labels, n_classes)
    number, right = counts.sum(axis=1), np.diag(counts)
    probabilities = softmax(found.astype(float))
    sure, correct = probabilities.max(axis=1), found.argmax(axis=1) == labels
    place = np.minimum((sure * bins).astype(int), bins - 1)
    in_bin = np.bincount(place, minlength=bins)
    right_in_bin = np.bincount(place, correct, bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, sure, bins) / in_bin
        accuracy, of_class = right_in_bin / in_bin, right / number
    error = np.nansum(np.abs(accuracy - confidence) * in_bin) / len(labels)
    kernels, places, states = _first_kernels(network, sharing, seed)
    loss, top1, top5 = measured(found, labels)

    def labelled(dims: Any, values: Any, long_name: str, units: str = "1") -> Any:
        return dims, values, {"long_name": long_name, "units": units}

    share = "share of images whose class is"
    axes = ("state", "position", "kernel_row", "kernel_column", "channel", "output")
    return xr.Dataset(
        {
            "confusion": labelled(
                ("class", "predicted"), counts, "images of a class taken for another", "count"
            ),
            "class_accuracy": labelled("class", of_class, f"{share} the likeliest, by class"),
            "class_accuracy_interval": labelled(
                ("class", "bound"), wilson(right, number), "its 95 % interval (Wilson)"
            ),
            "bin_images": labelled("bin", in_bin, "images in a bin of confidence", "count"),
            "bin_confidence": labelled("bin", confidence, "mean probability of what is likeliest"),
            "bin_accuracy": labelled("bin", accuracy, f"{share} the likeliest, by confidence"),
            "bin_accuracy_interval": labelled(
                ("bin", "bound"), wilson(right_in_bin, in_bin), "its 95 % interval (Wilson)"
            ),
            "calibration_error": labelled(
                (), error, "mean distance of confidence and accuracy, over images"
            ),
            "loss": labelled((), loss, "cross-entropy", "nat"),
            "top1": labelled((), top1, f"{share} the likeliest"),
            "top5": labelled((), top5, f"{share} among the five likeliest"),
            "kernels": labelled(axes, kernels, "weights of the first layer"),
        },
        {
            "class": ("class", list(class_names), {"long_name": "class"}),
            "predicted": ("predicted", list(class_names), {"long_name": "class it is taken for"}),
            "bound": ("bound", ["lower", "upper"], {"long_name": "bound of the interval"}),
            "state": ("state", states, {"long_name": "whether the layer has just slept"}),
            "row": labelled("position", places[:, 0], "row of the position"),
            "column": labelled("position", places[:, 1], "column of the position"),
        },
    )


def first_kernels(network: Network) -> Array:
    """Return the weights of the first layer, of a convolution as those of one position."""
    _, layer = _first(network)
    weights = layer.weights
    return weights if isinstance(layer, LocallyConnected2D) else weights[None, None]


def _first(network: Network) -> tuple[str, Conv2D | LocallyConnected2D]:
    return next(
        (n, la) for n, la in network.layers.items() if isinstance(la, (Conv2D, LocallyConnected2D))
    )


def _first_kernels(
    network: Network, sharing: Sharing | None, seed: int
) -> tuple[Array, NDArray[np.int64], list[str]]:
    """Kernels of the first layer, their positions, and whether it has just slept."""
    from circuitsim.vision.sharing import Sharing

    name, layer = _first(network)
    weights = layer.weights
    if name not in network.lc_layers():
        return weights[None, None], np.zeros((1, 2), np.int64), ["awake"]
    how = Sharing("instant") if sharing is None else sharing
    pool = max(pools(layer.geometry, inner=how.border == "awake") or pools(layer.geometry),
               key=lambda pool: pool.size)  # fmt: skip
    rows, columns = layer.geometry.output_shape
    every = [(r, c) for r in range(rows)[pool.rows] for c in range(columns)[pool.columns]]
    chosen = [every[n] for n in np.unique(np.linspace(0, len(every) - 1, _POSITIONS).astype(int))]
    asleep = how.share(weights.copy(), layer.geometry, [seed], 1.0)
    picked = np.stack([[w[place] for place in chosen] for w in (weights, asleep)])
    return picked, np.array(chosen), ["awake", "asleep"]


def wilson(hits: NDArray[Any], number: NDArray[Any]) -> NDArray[np.float64]:
    """Return the 95 % interval of a share (Wilson 1927), (..., bound); NaN of none."""
    z = 1.959963984540054
    with np.errstate(invalid="ignore", divide="ignore"):
        share = hits / number
        middle = (share + z**2 / (2 * number)) / (1 + z**2 / number)
        half = z * np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))
        half /= 1 + z**2 / number
    # Its ends at shares of 0 and 1 are these, which rounding misses.
    low = np.where(share == 0, 0.0, middle - half)
    high = np.where(share == 1, 1.0, middle + half)
    return np.stack([low, high], axis=-1)
