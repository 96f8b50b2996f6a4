"""How well a network classifies images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.public import own
from circuitsim.vision.augmentation import middle, prepared
from circuitsim.vision.datasets import ImageSet
from circuitsim.vision.layers import Array, cross_entropy
from circuitsim.vision.networks import Network
from circuitsim.vision.stored import announce

__dir__ = own(__name__, "SCORES")

SCORES = ("loss", "top1", "top5")
_AT_A_TIME = 256  # images; fixed, because rounding may depend on it


def logits(
    network: Network, images: NDArray[np.uint8], mean: NDArray[Any], deviation: NDArray[Any]
) -> Array:
    """Return the network's output (image, class) for images (image, row, column, channel).

    Of larger images than the network takes, it is that of their middle.
    ``mean`` and ``deviation`` are those of the channels, for `prepared`.
    """
    groups = [slice(n, n + _AT_A_TIME) for n in range(0, len(images), _AT_A_TIME)]
    announce(images, groups)
    size = network.architecture.input_shape[:2]
    parts = [
        network.forward(prepared(middle(images[group], size), mean, deviation)) for group in groups
    ]
    return np.concatenate(parts)


def evaluate(
    network: Network, data: ImageSet, mean: NDArray[Any], deviation: NDArray[Any]
) -> list[float]:
    """Return loss, top-1 and top-5 accuracy on images; see `logits`."""
    return measured(logits(network, data.images, mean, deviation), data.labels)


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
