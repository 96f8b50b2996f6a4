"""What a layer's weights are worth: a linear readout of its responses to images, in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

from circuitsim import processwide
from circuitsim.checks.validation import ParameterError, array, function, integer
from circuitsim.public import own
from circuitsim.vision.augmentation import channel_statistics
from circuitsim.vision.datasets import Dataset, ImageSet
from circuitsim.vision.evaluation import wilson
from circuitsim.vision.geometry import Geometry

__dir__ = own(__name__, "PENALTIES")

PENALTIES = tuple(10.0**power for power in range(-6, 1))  # per image; features have variance 1
_IMAGES_AT_ONCE = 2000
_VALIDATED = 10  # one of how many images to learn from chooses the penalty


@dataclass(frozen=True)
class Grid:
    """A pool's neurons as the positions of a locally connected layer without padding.

    A square number of neurons covers a square grid. Its stride is the largest with which all
    fields lie in the image, and what is left of the image is the same on both sides (or one pixel
    more at the end).

    Parameters
    ----------
    image_shape : tuple of int
        Rows and columns of the images; both at least the kernel.
    kernel : int
        Rows, and columns, of a field.
    neurons : int
        Number of positions, a square number.

    Raises
    ------
    ParameterError
        If the neurons are no square number, or their fields do not fit into the image.

    Examples
    --------
    >>> grid = Grid((32, 32), kernel=3, neurons=100)
    >>> grid.side, grid.geometry.stride, grid.margins
    (10, 3, (1, 1))
    """

    image_shape: tuple[int, int]
    kernel: int
    neurons: int

    def __post_init__(self) -> None:
        if self.side**2 != self.neurons:
            raise ParameterError(
                "neurons", "must be a square number, to cover a square grid", self.neurons
            )
        if self.side - 1 + self.kernel > min(self.image_shape):
            rows, columns = self.image_shape
            raise ParameterError(
                "neurons",
                f"make a grid of {self.side} x {self.side} fields of {self.kernel} x "
                f"{self.kernel}, which does not fit into images of {rows} x {columns}",
                self.neurons,
            )

    @property
    def side(self) -> int:
        """Positions in a row, and in a column."""
        return math.isqrt(self.neurons)

    @property
    def geometry(self) -> Geometry:
        """Of the layer on the part of the image that its fields cover."""
        stride = (min(self.image_shape) - self.kernel) // max(self.side - 1, 1)
        covered = (self.side - 1) * stride + self.kernel
        return Geometry((covered, covered), self.kernel, max(stride, 1))

    @property
    def margins(self) -> tuple[int, int]:
        """Rows above, and columns to the left, of what the fields cover."""
        covered = self.geometry.input_shape
        rows, columns = (
            (size - part) // 2 for size, part in zip(self.image_shape, covered, strict=True)
        )
        return rows, columns

    def fields(self) -> Iterator[tuple[int, int, slice, slice]]:
        """Row and column in the grid, and rows and columns of the image, of each neuron."""
        stride, (above, left) = self.geometry.stride, self.margins
        for neuron in range(self.neurons):
            row, column = divmod(neuron, self.side)
            top, start = above + row * stride, left + column * stride
            yield row, column, slice(top, top + self.kernel), slice(start, start + self.kernel)


@dataclass(frozen=True)
class Result:
    """How well a readout does.

    Attributes
    ----------
    accuracy : float
        Share of the test images whose class it tells.
    train_accuracy : float
        The same for the images that it was fitted to.
    penalty : float
        Ridge penalty that did best on held-out images, per image and for features of variance 1.
    n_features : int
        Numbers that it reads.
    n_tested : int
        Number of the test images.
    """

    accuracy: float
    train_accuracy: float
    penalty: float
    n_features: int
    n_tested: int = 0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of 95 % for the accuracy, over draws of as many test images."""
        number = np.array(max(self.n_tested, 1))
        low, high = wilson(self.accuracy * number, number)
        return float(low), float(high)


def readout(
    weights: ArrayLike,
    grid: Grid,
    dataset: Dataset,
    pooling: int = 2,
    progress: Callable[[float], None] | None = None,
) -> Result:
    """Fit a linear readout to a layer's pooled responses, and test it.

    Images are brought to zero mean and unit variance in each colour; responses are rectified and
    averaged over neighbouring positions. The readout is a ridge regression onto the classes (one
    for the image's own, else zero), solved in closed form. Its penalty is the one of `PENALTIES`
    that does best for every tenth image to learn from when fitted to the others; then it is fitted
    to all.

    Parameters
    ----------
    weights : array_like, shape (neuron, input, channel)
        Of the layer: for each position of the grid its weights from a field's pixels (row, column,
        colour) to each output channel.
    grid : Grid
        Where the neurons look.
    dataset : Dataset
        Images to learn from and to test with.
    pooling : int
        Rows, and columns, of positions that are averaged over.
    progress : callable, optional
        Called now and then with the fraction done.

    Returns
    -------
    Result

    Raises
    ------
    ParameterError
        If shapes do not fit each other.
    """
    function("progress", progress)
    layout = ("neuron", "input", "channel")
    kernels = array("weights", weights, layout, finite=False).astype(np.float32)
    colours = dataset.train.images.shape[3]
    expected = (grid.neurons, grid.kernel**2 * colours)
    if kernels.shape[:2] != expected:
        raise ParameterError(
            "weights",
            f"must have the shape ({expected[0]}, {expected[1]}, channel) for {expected[0]} fields "
            f"of {grid.kernel} x {grid.kernel} pixels in {colours} colours",
            kernels.shape,
        )
    if grid.image_shape != dataset.train.images.shape[1:3]:
        raise ParameterError(
            "grid", f"must be one for images of {dataset.train.images.shape[1:3]}", grid.image_shape
        )
    if not 1 <= integer("pooling", pooling, minimum=1) <= grid.side:
        raise ParameterError("pooling", f"must be from 1 to {grid.side} positions", pooling)
    statistics = channel_statistics(dataset.train.sample())
    mean, deviation = (statistic.astype(np.float32) for statistic in statistics)
    total = len(dataset.train) * 2 + len(dataset.test)
    done = 0

    def responses(part: ImageSet) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        nonlocal done
        for start in range(0, len(part), _IMAGES_AT_ONCE):
            chosen = slice(start, start + _IMAGES_AT_ONCE)
            images = (part.images[chosen] - mean) / deviation
            yield _pooled(images, kernels, grid, pooling), part.labels[chosen]
            done += len(images)
            if progress is not None:
                progress(done / total)

    return _fit(responses, dataset)


def pixels(dataset: Dataset) -> Result:
    """Fit the same readout to the pixels themselves: what a layer's responses have to beat.

    Parameters
    ----------
    dataset : Dataset
        Images to learn from and to test with.

    Returns
    -------
    Result
    """
    statistics = channel_statistics(dataset.train.sample())
    mean, deviation = (statistic.astype(np.float32) for statistic in statistics)

    def values(part: ImageSet) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        for start in range(0, len(part), _IMAGES_AT_ONCE):
            chosen = slice(start, start + _IMAGES_AT_ONCE)
            images = ((part.images[chosen] - mean) / deviation).astype(np.float32)
            yield images.reshape(len(images), -1), part.labels[chosen]

    return _fit(values, dataset)


_Responses = Callable[[ImageSet], Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]]


def _pooled(
    images: NDArray[np.float32], kernels: NDArray[np.float32], grid: Grid, pooling: int
) -> NDArray[np.float32]:
    """Rectified responses (image, feature), averaged over neighbours."""
    side = -(-grid.side // pooling)
    pooled = np.zeros((side, side, len(images), kernels.shape[2]), np.float32)
    counts = np.zeros((side, side, 1, 1), np.float32)
    with processwide.one_blas_thread():
        for weights, (row, column, rows, columns) in zip(kernels, grid.fields(), strict=True):
            response = images[:, rows, columns].reshape(len(images), -1) @ weights
            place = row // pooling, column // pooling
            pooled[place] += np.maximum(response, 0, out=response)
            counts[place] += 1
    pooled /= counts
    return pooled.transpose(2, 0, 1, 3).reshape(len(images), -1)


class _Moments:
    """Sums over images that a ridge regression needs."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        self.n = 0
        self.square = np.zeros((n_features, n_features))
        self.cross = np.zeros((n_features, n_classes))
        self.sum = np.zeros(n_features)
        self.targets = np.zeros(n_classes)

    def add(self, features: NDArray[np.float32], targets: NDArray[np.float32]) -> None:
        self.n += len(features)
        exact = features.astype(float)  # or what depends linearly on others would not cancel
        self.square += exact.T @ exact
        self.cross += exact.T @ targets
        self.sum += exact.sum(axis=0)
        self.targets += targets.sum(axis=0, dtype=float)

    def __add__(self, other: _Moments) -> _Moments:
        both = _Moments(*self.cross.shape)
        for name in vars(both):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    def solve(self, penalty: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coefficients (feature, class) and constants (class,)."""
        mean, target = self.sum / self.n, self.targets / self.n
        covariance = self.square / self.n - np.outer(mean, mean)
        spread = np.sqrt(np.maximum(np.diag(covariance), 0))
        # Responses that are always the same tell nothing; their coefficients become zero.
        scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-6)
        covariance *= np.outer(scale, scale)
        np.fill_diagonal(covariance, 1 + penalty)
        cross = (self.cross / self.n - np.outer(mean, target)) * scale[:, np.newaxis]
        factors = cho_factor(covariance, overwrite_a=True, check_finite=False)
        coefficients = cho_solve(factors, cross, check_finite=False) * scale[:, np.newaxis]
        return coefficients, target - mean @ coefficients


def _fit(responses: _Responses, dataset: Dataset) -> Result:
    n_classes = len(dataset.class_names)
    one_hot = np.eye(n_classes, dtype=np.float32)
    learned = held_out = None
    checked = []
    for features, labels in responses(dataset.train):
        if learned is None or held_out is None:
            learned, held_out = (_Moments(features.shape[1], n_classes) for _ in range(2))
        mask = np.zeros(len(labels), dtype=bool)
        mask[_VALIDATED - 1 :: _VALIDATED] = True
        learned.add(features[~mask], one_hot[labels[~mask]])
        held_out.add(features[mask], one_hot[labels[mask]])
        checked.append((features[mask], labels[mask]))
    assert learned is not None  # no set of images is empty
    assert held_out is not None

    penalties: tuple[float, ...] = PENALTIES if held_out.n else PENALTIES[-1:]
    tried = [_correct(checked, learned.solve(penalty)) for penalty in penalties]
    penalty = penalties[int(np.argmax(tried))]
    solution = (learned + held_out).solve(penalty)
    return Result(
        accuracy=_correct(responses(dataset.test), solution) / len(dataset.test),
        train_accuracy=_correct(responses(dataset.train), solution) / len(dataset.train),
        penalty=penalty,
        n_features=len(solution[0]),
        n_tested=len(dataset.test),
    )


def _correct(
    responses: Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]
    | list[tuple[NDArray[np.float32], NDArray[np.int64]]],
    solution: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> int:
    coefficients, constants = solution[0].astype(np.float32), solution[1]
    return sum(
        int(np.count_nonzero(np.argmax(features @ coefficients + constants, axis=1) == labels))
        for features, labels in responses
    )
