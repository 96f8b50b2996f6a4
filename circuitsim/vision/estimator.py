"""A trained network as an estimator of scikit-learn's kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.public import own
from circuitsim.validation import ParameterError
from circuitsim.vision import evaluation, parallel
from circuitsim.vision.layers import Array, softmax
from circuitsim.vision.networks import Network
from circuitsim.vision.runs import Run

__dir__ = own(__name__)


def load(run: str | os.PathLike[str], threads: int = 1) -> Classifier:
    """Read a trained network.

    Parameters
    ----------
    run : path
        Directory that ``python -m circuitsim.classify train`` has written. The training need not be
        finished.
    threads : int
        Threads to use. What is predicted does not depend on them.

    Raises
    ------
    FileNotFoundError
        If it holds no run.
    ParameterError
        If its files are damaged, or of another version.
    """
    directory = Path(run)
    found = Run.read(directory)
    return Classifier(found, found.network(directory), threads)


class Classifier:
    """A trained network, which predicts the classes of images.

    Images are uint8, (image, row, column, channel), of the size that it was trained on; classes are
    numbers.

    Parameters
    ----------
    run : Run
        What was trained.
    network : Network
        The network.
    threads : int
        Threads to use.

    Attributes
    ----------
    classes_ : array of int, shape (class,)
        What `predict` may return.
    class_names : tuple of str
        What the classes are called.

    Examples
    --------
    >>> classifier = load("classifier")  # doctest: +SKIP
    >>> classifier.predict(digits.test.images[:3])  # doctest: +SKIP
    array([4, 9, 6])
    """

    _estimator_type = "classifier"

    def __init__(self, run: Run, network: Network, threads: int = 1) -> None:
        self.run, self.network, self.threads = run, network, threads
        self.classes_ = np.arange(run.architecture.n_classes)
        self.class_names = run.class_names

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that this is a classifier."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False),
        )

    def logits(self, images: ArrayLike) -> Array:
        """Return the network's output, (image, class).

        Raises
        ------
        ParameterError
            If the images have another type or shape.
        """
        given = np.asarray(images)
        shape = self.run.architecture.input_shape
        if given.dtype != np.uint8 or given.ndim != 4 or given.shape[1:] != shape:
            raise ParameterError(
                "images",
                "must be uint8 of the shape (image, row, column, channel) with "
                f"{' x '.join(map(str, shape))}",
                f"{given.dtype} {given.shape}",
            )
        if len(given) == 0:
            return np.zeros((0, len(self.classes_)), np.float32)
        with parallel.threads(self.threads):
            return evaluation.logits(self.network, given, *self.run.statistics)

    def predict(self, images: ArrayLike) -> NDArray[np.int64]:
        """Return the likeliest class of each image; raises as `logits`."""
        return self.logits(images).argmax(axis=1)

    def predict_proba(self, images: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class, (image, class); raises as `logits`."""
        return softmax(self.logits(images).astype(float))

    def score(self, images: ArrayLike, labels: ArrayLike) -> float:
        """Return the share of images whose class is predicted.

        Raises
        ------
        ParameterError
            As `logits`, or if there is not one label for each image.
        """
        predicted, wanted = self.predict(images), np.asarray(labels)
        if wanted.shape != predicted.shape or len(wanted) == 0:
            raise ParameterError(
                "labels", f"must be {len(predicted)}, one for each image", wanted.shape
            )
        return float(np.mean(predicted == wanted))
