"""Image classifiers as estimators of scikit-learn's kind.

`Classifier` follows scikit-learn's conventions without inheriting from it, so that it is there, and
does the same, whether or not scikit-learn is installed.
"""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.checks.validation import ParameterError, regular, shown
from circuitsim.public import own
from circuitsim.vision import evaluation, parallel
from circuitsim.vision.augmentation import channel_statistics
from circuitsim.vision.datasets import ImageSet
from circuitsim.vision.layers import Array, softmax
from circuitsim.vision.networks import KERNEL, Architecture, Network
from circuitsim.vision.runs import Run
from circuitsim.vision.sharing import Sharing
from circuitsim.vision.stored import Lazy
from circuitsim.vision.training import Diverged, Trainer, Training, history, initial_rng, split

_BATCH = 128  # images in a batch, if there are as many
_DIFFERENT = ("batch_size", "seed")  # fields of Training that are other parameters here

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

    Returns
    -------
    Classifier
        Fitted, with the parameters of the training; its ``classes_`` are numbers.

    Raises
    ------
    FileNotFoundError
        If it holds no run.
    ParameterError
        If its files are damaged, or of another version.

    Examples
    --------
    After ``python -m circuitsim.classify train --output classifier``::

        classifier = load("classifier")
        classifier.predict(digits.test.images[:3])
    """
    directory = Path(run)
    found = Run.read(directory)
    network, training = found.network(directory), found.training
    of_training = {
        name: getattr(training, name)
        for name in Training.__dataclass_fields__
        if name not in _DIFFERENT
    }
    classifier = Classifier(
        network=found.architecture.network,
        connectivity=found.architecture.connectivity,
        width=found.architecture.width,
        first_conv=found.architecture.first_conv,
        sharing=found.sharing,
        batch_size=training.batch_size,
        random_state=training.seed,
        threads=threads,
        **of_training,
    )
    classifier._fitted(found, network, np.arange(found.architecture.n_classes), (0.0, 255.0))
    return classifier


class Classifier:
    """A convolutional or locally connected network that learns to classify images.

    Parameters
    ----------
    network, connectivity, width, first_conv
        As in `circuitsim.vision.networks.Architecture`.
    sharing : Sharing or str, optional
        How locally connected layers share weights when the network sleeps, every ``share_every``
        batches; a text is the method.
    share_every, sleep_length, epochs, optimiser, learning_rate, weight_decay, momentum, schedule, \
milestones, factor, crop_padding, crop_size, crop_scale, flips, repetitions, validation
        As in `circuitsim.vision.training.Training`.
    batch_size : int or "auto"
        Images in a batch; 128, or all where there are fewer, if "auto".
    image_shape : tuple of int, optional
        Rows and columns (and channels) of images that are given as rows of a 2-d array, as
        scikit-learn's other estimators want them. One number may be -1: what is left. ``(1, -1)``
        takes each row for an image of one row, such as a spectrum.
    random_state : int, numpy.random.RandomState or None
        Fixes weights, order, crops and sleeps. None: another result each time, drawn by NumPy's
        global generator.
    threads : int
        Threads to use. Numbers do not depend on them.

    Attributes
    ----------
    classes_ : array, shape (class,)
        Labels, in order.
    image_shape_ : tuple of int
        Rows, columns and channels of the images.
    n_features_in_ : int
        Numbers in an image.
    network_ : Network
        The trained network.
    run_ : Run
        All that determines it.
    history_ : xarray.Dataset
        Loss, accuracy and SNR of the weights over epochs (only after `fit`).
    class_names : tuple of str
        What the classes are called.

    Notes
    -----
    Images are (image, row, column), (image, row, column, channel), or rows of a 2-d array. Each
    channel is brought to zero mean and unit variance, those of the images to learn from, so that
    bytes, numbers from 0 to 1 and standardised ones are learned alike; what is predicted must be on
    the scale of what was learned. (Bytes are put on it; for other numbers that are not there is a
    warning.)

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> images, labels = rng.random((60, 8, 8)), np.array(["dark", "light"] * 30)
    >>> images[labels == "light"] += 1
    >>> classifier = Classifier(epochs=5, width=4, batch_size=10).fit(images / 2, labels)
    >>> classifier.score(images / 2, labels) > 0.9
    True
    """

    _estimator_type = "classifier"  # scikit-learn before 1.6

    def __init__(
        self,
        *,
        network: str = "small",
        connectivity: str = "lc",
        width: int | None = None,
        first_conv: bool = False,
        sharing: Sharing | str | None = None,
        share_every: int | None = None,
        sleep_length: str = "learning",
        epochs: int = 10,
        batch_size: int | str = "auto",
        optimiser: str = "adamw",
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        momentum: float | None = None,
        schedule: str = "cosine",
        milestones: tuple[int, ...] = (),
        factor: float = 0.25,
        crop_padding: int = 0,
        crop_size: int | None = None,
        crop_scale: float | None = None,
        flips: bool = False,
        repetitions: int = 1,
        validation: float = 0.0,
        image_shape: tuple[int, ...] | None = None,
        random_state: Any = 0,
        threads: int = 1,
    ) -> None:
        self.network, self.connectivity = network, connectivity
        self.width, self.first_conv = width, first_conv
        self.sharing, self.share_every, self.sleep_length = sharing, share_every, sleep_length
        self.epochs, self.batch_size, self.optimiser = epochs, batch_size, optimiser
        self.learning_rate, self.weight_decay, self.momentum = learning_rate, weight_decay, momentum
        self.schedule, self.milestones, self.factor = schedule, milestones, factor
        self.crop_padding, self.crop_size = crop_padding, crop_size
        self.crop_scale, self.flips, self.repetitions = crop_scale, flips, repetitions
        self.validation, self.image_shape = validation, image_shape
        self.random_state, self.threads = random_state, threads

    # --- parameters, as scikit-learn asks for them ------------------------------------------------

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name."""
        return {name: getattr(self, name) for name in sorted(self._names())}

    def set_params(self, **params: Any) -> Classifier:
        """Set parameters by name.

        Raises
        ------
        ParameterError
            If there is no such parameter.
        """
        for name, value in params.items():
            if name not in self._names():
                raise ParameterError(
                    name, f"is no parameter; must be one of {', '.join(self._names())}", value
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        given = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if repr(value) != repr(defaults[name].default)
        ]
        return f"{type(self).__name__}({', '.join(given)})"

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn what this is."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=self.image_shape is not None, three_d_array=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        """Tell scikit-learn whether this can predict."""
        return hasattr(self, "network_")

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the classes are called, in the order of ``classes_``."""
        self._check_fitted()
        return self.run_.class_names

    # --- learning ---------------------------------------------------------------------------------

    def fit(self, X: ArrayLike, y: ArrayLike) -> Classifier:
        """Train a network on images.

        Parameters
        ----------
        X : array_like
            Images: bytes or other numbers, of one of the shapes in the notes above.
        y : array_like, shape (image,)
            Their labels: numbers or texts of any kind.

        Returns
        -------
        Classifier
            This one.

        Raises
        ------
        ParameterError
            If a parameter is out of range, images or labels do not fit, are not finite, or are of
            one class.
        Diverged
            If the loss is no number any more.
        """
        images, shape = self._images(X, None)
        classes, labels = _classes(y, len(images))
        if len(images) < 2:
            raise ParameterError("X", "must be at least two images", "1 sample")
        if min(shape[:2]) < KERNEL and self.image_shape is None:
            _warn(
                f"images of {shape[0]} x {shape[1]} are smaller than kernels of {KERNEL} x "
                f"{KERNEL}, the rest of which sees nothing; give larger images, or image_shape if "
                "it is meant so"
            )
        training = self._training(len(images))
        data = ImageSet(images, labels)
        train, validation = split(data, training.validation, training.seed)
        mean, deviation = channel_statistics(train.sample())
        sharing = Sharing(self.sharing) if isinstance(self.sharing, str) else self.sharing
        size: Any = (*[training.crop_size or 0] * 2, shape[2]) if training.crop_size else shape
        run = Run(
            "arrays",
            "",
            tuple(map(str, classes.tolist())),
            tuple(map(float, mean)),
            tuple(map(float, deviation)),
            Architecture(
                size, len(classes), self.network, self.connectivity, self.width, self.first_conv
            ),
            training,
            sharing,
        )
        parts = {"train": train, **({} if validation is None else {"validation": validation})}
        with parallel.threads(self.threads):
            net = Network(run.architecture, initial_rng(training.seed))
            trainer = Trainer(net, training, sharing, parts, *run.statistics)
            for note in trainer.notes():
                _warn(note)
            try:
                trainer.run(None, lambda _: None)
            except Diverged as error:
                rate = f"than learning_rate={training.learning_rate:g}"
                raise Diverged(f"{error}; try a lower one {rate}") from None
            # Layers let go of what they keep for a gradient that nobody will ask for.
            evaluation.logits(net, images[:1], *run.statistics)
        whole = images.dtype == np.uint8
        span = (0.0, 255.0) if whole else (float(images.min()), float(images.max()))
        self._fitted(run, net, classes, span, shape)
        self.history_ = history(trainer.progress.history)
        if isinstance(X, np.ndarray) or not hasattr(X, "columns"):
            self.__dict__.pop("feature_names_in_", None)
        else:
            self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        return self

    def _training(self, number: int) -> Training:
        options = {
            name: getattr(self, name)
            for name in Training.__dataclass_fields__
            if name not in _DIFFERENT
        }
        repetitions, held_out = self.repetitions, self.validation
        if not (isinstance(repetitions, int) and repetitions >= 1):  # Training will refuse it
            repetitions = 1
        if not (isinstance(held_out, float) and 0 <= held_out < 1):
            held_out = 0.0
        most = max(2, int(number * (1 - held_out)) * repetitions)
        batch_size: Any = self.batch_size
        if isinstance(batch_size, str):
            if batch_size != "auto":
                raise ParameterError("batch_size", 'must be a whole number or "auto"', batch_size)
            # A multiple of the repetitions, as batches are of whole images.
            batch_size = min(max(_BATCH // repetitions, 1) * repetitions, most)
        elif isinstance(batch_size, (int, np.integer)) and batch_size > most:
            _warn(f"batch_size={batch_size} is more than there are images: batches are of {most}")
            batch_size = most
        return Training(batch_size=batch_size, seed=_seed(self.random_state), **options)

    def _fitted(
        self,
        run: Run,
        network: Network,
        classes: NDArray[Any],
        span: tuple[float, float],
        shape: tuple[int, int, int] | None = None,
    ) -> None:
        self.run_, self.network_, self.classes_ = run, network, classes
        self.image_shape_ = shape or run.architecture.input_shape
        self.n_features_in_ = int(np.prod(self.image_shape_))
        self._span = span

    # --- predicting -------------------------------------------------------------------------------

    def logits(self, X: ArrayLike) -> Array:
        """Return the network's output, (image, class).

        Parameters
        ----------
        X : array_like
            Images, as in `fit`.

        Raises
        ------
        ParameterError
            If the images have another shape, or are not finite.
        sklearn.exceptions.NotFittedError
            If there is no network yet (without scikit-learn, a `ParameterError`).
        """
        self._check_fitted()
        images, _ = self._images(X, self.image_shape_)
        if len(images) == 0:
            return np.zeros((0, len(self.classes_)), np.float32)
        with parallel.threads(self.threads):
            return evaluation.logits(self.network_, images, *self.run_.statistics)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the likeliest class of each image; takes and raises what `logits` does."""
        likeliest = self.logits(X).argmax(axis=1)
        return self.classes_[likeliest]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class, (image, class); as `logits`."""
        return softmax(self.logits(X).astype(float))

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the share of images whose class is predicted.

        Parameters
        ----------
        X : array_like
            Images, as in `fit`.
        y : array_like, shape (image,)
            Their labels, as in ``classes_``; or their names, as in ``class_names``.
        sample_weight : array_like, shape (image,), optional
            What each image counts; all the same by default.

        Raises
        ------
        ParameterError
            As `logits`, or if there is not one label, and one weight, for each image, or labels are
            of another kind than classes.
        """
        predicted, wanted = self.predict(X), _column(np.asarray(y))
        if wanted.shape != predicted.shape or len(wanted) == 0:
            raise ParameterError(
                "y", f"must be {len(predicted)} labels, one for each image", wanted.shape
            )
        texts = [a.dtype.kind in "USO" and isinstance(a[0], str) for a in (wanted, self.classes_)]
        if texts == [True, False] and set(wanted.tolist()) <= set(self.class_names):
            places = {name: place for place, name in enumerate(self.class_names)}
            wanted = self.classes_[[places[name] for name in wanted.tolist()]]
        elif texts[0] != texts[1]:
            known = ", ".join(shown(c) for c in self.classes_[:3].tolist())
            raise ParameterError(
                "y", f"must be of the kind of classes_ ({known}, ...) or of class_names", wanted[0]
            )
        weights = None
        if sample_weight is not None:
            rule = f"must be {len(wanted)} numbers, one for each image"
            weights = regular("sample_weight", sample_weight, rule)
            if weights.shape != wanted.shape or weights.dtype.kind not in "biuf":
                raise ParameterError("sample_weight", rule, sample_weight)
        return float(np.average(predicted == wanted, weights=weights))

    def _check_fitted(self) -> None:
        if self.__sklearn_is_fitted__():
            return
        message = f"This {type(self).__name__} is not fitted yet; call fit first, or vision.load"
        if sys.modules.get("sklearn"):
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(message)
        raise ParameterError("fit", message, "unfitted")

    def _images(
        self, given: Any, fitted: tuple[int, int, int] | None
    ) -> tuple[NDArray[Any], tuple[int, int, int]]:
        """Images as bytes or float32, (image, row, column, channel), and their shape."""
        if isinstance(given, Lazy) and self._fits(given.shape[1:], fitted):
            images: Any = given  # read when they are needed
            return images, given.shape[1:]
        images = _numbers(given)
        if fitted is not None and images.ndim == 2:
            if images.shape[1] != self.n_features_in_:
                raise ParameterError(
                    "X",
                    f"X has {images.shape[1]} features, but {type(self).__name__} is expecting "
                    f"{self.n_features_in_} features as input: the numbers of images of "
                    f"{' x '.join(map(str, fitted))}",
                    images.shape,
                )
            images = images.reshape(-1, *fitted)
        elif images.ndim == 2:
            images = _unfolded(images, self.image_shape)
        elif images.ndim == 3:
            images = images[..., np.newaxis]
        if images.ndim != 4:
            raise ParameterError(
                "X",
                "must be images: (image, row, column), (image, row, column, channel), or (image, "
                "number) with image_shape. Reshape your data: one image is X[np.newaxis]",
                images.shape,
            )
        if fitted is None and images.shape[3] > 4 and images.shape[1] in (1, 3):
            _warn(
                f"images of the shape {images.shape[1:]} are taken to have {images.shape[3]} "
                "channels; if they come first, give X.transpose(0, 2, 3, 1)"
            )
        if fitted is None and (len(images) == 0 or 0 in images.shape):
            raise ParameterError(
                "X",
                f"Found array with {len(images)} sample(s) and {images[:1].size} feature(s) (shape="
                f"{np.shape(given)}) while a minimum of 1 is required.",
                np.shape(given),
            )
        shape: Any = images.shape[1:]
        if not self._fits(shape, fitted):
            assert fitted is not None
            raise ParameterError(
                "X", f"must be images of {' x '.join(map(str, fitted))}, as those of fit", shape
            )
        return (images if fitted is None else self._on_scale(images)), shape

    def _fits(self, shape: tuple[int, ...], fitted: tuple[int, int, int] | None) -> bool:
        """Whether images have the shape that was fitted, or one out of which crops were cut."""
        if fitted is None or shape == fitted:
            return True
        larger = shape[0] >= fitted[0] and shape[1] >= fitted[1] and shape[2] == fitted[2]
        return self.run_.training.crop_size is not None and larger

    def _on_scale(self, images: NDArray[Any]) -> NDArray[Any]:
        """Images on the scale of those that were learned, as far as one can tell."""
        least, most = self._span
        if not images.size or least < 0:
            return images
        if images.dtype == np.uint8:
            return images.astype(np.float32) / np.float32(255) if most <= 1 else images
        found = float(images.max())
        if most > 2 and 0 < found <= 1 and images.min() >= 0:
            _warn(
                f"these images have numbers up to {found:g}, and those of fit up to {most:g}; "
                "multiply them by 255 if they are from 0 to 1"
            )
        elif most <= 1 and found > 2:
            _warn(
                f"these images have numbers up to {found:g}, and those of fit up to {most:g}; "
                "divide them by 255 if they are from 0 to 255"
            )
        return images


def _warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn whoever called a method from outside."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"] == __name__:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _seed(given: Any) -> int:
    if given is None:
        return int(np.random.randint(2**31))  # noqa: NPY002 (as scikit-learn does)
    if isinstance(given, (np.random.RandomState, np.random.Generator)):
        draw = getattr(given, "integers", None) or given.randint  # type: ignore[union-attr]
        return int(draw(2**31))
    return given


def _numbers(given: Any) -> NDArray[Any]:
    """Images as bytes or float32."""
    if hasattr(given, "toarray"):
        raise ParameterError(
            "X", "must not be sparse: images are dense; give X.toarray()", type(given).__name__
        )
    array = regular("X", given, "must be images of one size")
    if array.dtype.kind == "O":
        try:
            array = array.astype(float)
        except (TypeError, ValueError) as error:
            raise type(error)(f"X: must be images of numbers, all of one size ({error})") from None
    if array.dtype.kind == "c":
        raise ParameterError("X", "Complex data not supported: must be real numbers", array.dtype)
    if array.dtype.kind not in "buif":
        raise ParameterError("X", "must be numbers", str(array.dtype))
    if array.dtype == np.uint8:
        return array
    with np.errstate(over="ignore"):
        found = array.astype(np.float32)
    if not np.isfinite(found).all():
        what = "NaN" if np.isnan(found).any() else "infinity or a value too large for float32"
        bad = int((~np.isfinite(found)).reshape(len(found), -1).any(axis=1).sum())
        raise ParameterError(
            "X", f"Input X contains {what}; leave such images out, or fill them in with "
            "numpy.nan_to_num", f"{bad} of {len(found)} images",
        )  # fmt: skip
    return found


def _unfolded(rows: NDArray[Any], image_shape: Any) -> NDArray[Any]:
    """Images that were given as rows of a 2-d array."""
    if rows.shape[0] == 0 or rows.shape[1] == 0:
        raise ParameterError(
            "X",
            f"Found array with {rows.shape[0]} sample(s) and {rows.shape[1]} feature(s) (shape="
            f"{rows.shape}) while a minimum of 1 is required.",
            rows.shape,
        )
    if image_shape is None:
        side = round(np.sqrt(rows.shape[1]))
        hint = f", such as ({side}, {side})" if side**2 == rows.shape[1] else ""
        raise ParameterError(
            "image_shape", f"must be given for images that are rows of a 2-d array{hint}", None
        )
    rule = "must be rows and columns (and channels), one of which may be -1"
    given = np.atleast_1d(regular("image_shape", image_shape, rule))
    shape = tuple(given.tolist())
    pair = given.ndim == 1 and len(shape) in (2, 3)
    if not pair or given.dtype.kind not in "iu" or min(shape) < -1:
        raise ParameterError("image_shape", rule, image_shape)
    try:
        images = rows.reshape(len(rows), *shape)
    except ValueError:
        raise ParameterError(
            "image_shape", f"must fit rows of {rows.shape[1]} numbers", image_shape
        ) from None
    return images[..., np.newaxis] if len(shape) == 2 else images


def _column(labels: NDArray[Any]) -> NDArray[Any]:
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _classes(given: Any, number: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Labels in order, and the place of each image's among them."""
    if given is None:
        raise ParameterError(
            "y", "Classifier requires y to be passed, but the target y is None", None
        )
    array = regular("y", given, f"must be {number} labels, one for each image")
    labels = _column(array)
    if labels is not array:
        message = "A column-vector y was passed when a 1d array was expected; give y.ravel()"
        category: type[Warning] = UserWarning
        if sys.modules.get("sklearn"):
            from sklearn.exceptions import DataConversionWarning

            category = DataConversionWarning
        _warn(message, category)
    if labels.shape != (number,):
        raise ParameterError("y", f"must be {number} labels, one for each image", labels.shape)
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise ParameterError("y", "Input y contains NaN or infinity", "not finite")
        if (labels != np.rint(labels)).any():
            raise ParameterError(
                "y",
                "Unknown label type: continuous. Must be classes, numbers without fractions or "
                "texts",
                labels[labels != np.rint(labels)][0],
            )
    try:
        classes, places = np.unique(labels, return_inverse=True)
    except TypeError:
        raise ParameterError("y", "must be labels of one kind, numbers or texts", given) from None
    if len(classes) < 2:
        raise ParameterError(
            "y", "must have at least two classes: of one class there is nothing to learn",
            f"1 class, {shown(classes[:1].tolist())}",
        )  # fmt: skip
    return classes, places.astype(np.int64).reshape(-1)
