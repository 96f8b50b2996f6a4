"""How well features of images predict the responses of neurons to them.

The measure of the paper's comparison with the ventral stream: from the features that a layer of a
network has for the images, partial least squares (PLS) predicts each neuron's response to images
that it was not fitted to. The correlation of predictions with responses, divided by the highest
that noise lets one expect, is the layer's *predictivity* of the neuron.

    >>> from circuitsim.vision import predictivity
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    >>> responses = images.reshape(60, -1).T[:5] / 255  # five neurons, each of which sees a pixel
    >>> found = predictivity.measure({"pixels": predictivity.pixels(images)}, responses)
    >>> found.median_correlation.dims, found.sizes["neuron"]
    (('layer',), 5)

References
----------
M. Schrimpf et al., "Brain-Score", bioRxiv 407007 (2018), whose regression this is.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from circuitsim.checks.validation import (
    ParameterError,
    array,
    count,
    dimensionless,
    in_range,
    integer,
)
from circuitsim.files import open_regular
from circuitsim.public import own
from circuitsim.vision import pictures
from circuitsim.vision.archives import BadArchive, check_method
from circuitsim.vision.augmentation import prepared
from circuitsim.vision.networks import Network
from circuitsim.vision.pictures import Form

__dir__ = own(__name__, "COMPONENTS", "RELIABLE")

COMPONENTS = 25  # of the regression, as in the paper
_REPEATS = ("neuron", "image", "repeat")
RELIABLE = 0.1  # reliability from which a neuron's correlation is divided by its ceiling
_AT_A_TIME = 256  # images
_LARGEST = 2**26  # bytes of an image file
_ORIENTATIONS = 8
_WAVELENGTHS = (4.0, 8.0, 16.0)  # pixels

Array = NDArray[np.float64]


# --- features -------------------------------------------------------------------------------------


def stimuli(
    path: str | os.PathLike[str],
    shape: tuple[int, int, int],
    order: Sequence[str] | None = None,
) -> tuple[list[str], NDArray[np.uint8]]:
    """Read images from a directory or a ``.zip`` file, in the order of their names.

    Parameters
    ----------
    path : path
        Files in it that are no images by their names, or hidden, are left out.
    shape : tuple of int
        Rows, columns and channels that images are brought to: the largest part in the middle of
        these proportions is cut out and resized.
    order : sequence of str, optional
        Names of the files, of all of them, in another order.

    Returns
    -------
    names : list of str
    images : ndarray of uint8, shape (image, row, column, channel)

    Raises
    ------
    ParameterError
        If there are none, one cannot be read, or ``order`` does not name each once.
    """
    form = Form(*shape, resize=True)
    images: dict[str, NDArray[np.uint8]] = {}

    def decode(name: str, content: bytes) -> None:
        images[name] = pictures.decode(io.BytesIO(content), form)

    _each(Path(path), decode)
    names = _ordered(list(images), order)
    return names, np.stack([images[name] for name in names])


def survey(
    path: str | os.PathLike[str], order: Sequence[str] | None = None
) -> tuple[list[str], str, tuple[int, int, int]]:
    """Look at stimuli without decoding them.

    Parameters
    ----------
    path, order
        As in `stimuli`, which says what is raised.

    Returns
    -------
    names : list of str
    digest : str
        32 hexadecimal digits that stand for names, contents and order.
    shape : tuple of int
        Rows, columns and channels of the first image.
    """
    digests: dict[str, bytes] = {}
    shapes: dict[str, tuple[int, int, int]] = {}

    def look(name: str, content: bytes) -> None:
        digests[name] = hashlib.sha256(content).digest()
        shapes[name] = pictures.look(io.BytesIO(content))

    _each(Path(path), look)
    names = _ordered(list(digests), order)
    whole = hashlib.sha256()
    for name in names:
        # A stimulus is what it shows, wherever it is kept.
        whole.update(hashlib.sha256(name.rpartition("/")[2].encode(errors="replace")).digest())
        whole.update(digests[name])
    return names, whole.hexdigest()[:32], shapes[names[0]]


def _each(place: Path, take: Callable[[str, bytes], None]) -> None:
    """Call a function with the name and content of each image file, in the order of the names."""
    number = 0
    try:
        for name, content in _files(place):
            try:
                take(name, content)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            number += 1
        if not number:
            raise ValueError("it holds no images")
    # The last of these are zipfile's, for damaged files.
    except (
        OSError, ValueError, KeyError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile,
        BadArchive,
    ) as error:  # fmt: skip
        why = " ".join(str(error).split())[:300]
        if isinstance(error, OSError) and error.strerror:
            which = Path(error.filename).name if str(error.filename or place) != str(place) else ""
            why = f"{which}: {error.strerror}" if which else error.strerror
        raise ParameterError("stimuli", f"cannot be read ({why})", str(place)) from None


def _ordered(names: list[str], order: Sequence[str] | None) -> list[str]:
    if order is None:
        return names
    known = {name: name for name in names}
    if len({name.rpartition("/")[2] for name in names}) == len(names):
        known |= {name.rpartition("/")[2]: name for name in names}
    for name in order:
        if name not in known:
            raise ParameterError("order", "must name files of the stimuli; there is none", name)
    found = [known[name] for name in order]
    missing = sorted(set(names) - set(found))
    if missing or len(found) != len(names):
        what = f"{missing[0]} is missing" if missing else "one is there twice"
        raise ParameterError(
            "order", f"must name each of the {len(names)} stimuli once ({what})",
            f"{len(found)} names",
        )  # fmt: skip
    return found


def _files(place: Path) -> Iterable[tuple[str, bytes]]:
    """Names and contents of image files, in the order of the names."""
    if place.is_dir():
        for name in sorted(os.listdir(place)):
            if _wanted(name):
                with open_regular(place / name) as file:
                    yield name, _limited(name, file.read(_LARGEST + 1))
        return
    with open_regular(place) as file, zipfile.ZipFile(file) as archive:
        members = [m for m in archive.infolist() if not m.is_dir() and _wanted(m.filename)]
        if len({m.filename for m in members}) < len(members):
            raise ValueError("it has two files of one name")
        for member in sorted(members, key=lambda m: m.filename):
            check_method(member)
            with archive.open(member) as inner:
                yield member.filename, _limited(member.filename, inner.read(_LARGEST + 1))


def _wanted(name: str) -> bool:
    parts = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and os.path.splitext(name)[1].lower() in pictures.EXTENSIONS


def _limited(name: str, content: bytes) -> bytes:
    if len(content) > _LARGEST:
        raise ValueError(f"{name} has more than {_LARGEST} bytes")
    return content


def network_features(
    network: Network, images: NDArray[np.uint8], mean: ArrayLike, deviation: ArrayLike
) -> dict[str, NDArray[np.float32]]:
    """Return the features of images in every layer of a network.

    Parameters
    ----------
    network : Network
        Trained or not.
    images : ndarray of uint8, shape (image, row, column, channel)
        What it is shown.
    mean, deviation : array_like, shape (channel,)
        Of the images that it was trained on (``run_.statistics`` of a classifier).

    Returns
    -------
    dict of array, shape (image, feature)
        By the names of layers, in their order: activities after batch norm and ReLU, of blocks with
        a shortcut after it, their mean over positions (``pool``) and the logits (``linear``).

    Raises
    ------
    ParameterError
        If the network takes images of another shape.
    """
    wanted = network.architecture.input_shape
    if images.ndim != 4 or images.shape[1:] != wanted:
        raise ParameterError("images", f"must be of {' x '.join(map(str, wanted))}", images.shape)
    statistics = np.asarray(mean, float), np.asarray(deviation, float)
    found: dict[str, list[NDArray[np.float32]]] = {}
    for first in range(0, len(images), _AT_A_TIME):
        x = prepared(images[first : first + _AT_A_TIME], *statistics)
        for name, activity in network.activities(x):
            flat = activity.reshape(len(activity), -1).astype(np.float32)
            found.setdefault(name, []).append(flat)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def untrained(network: Network, images: NDArray[np.uint8], seed: int = 0) -> Network:
    """Return a network of the same kind with random weights, a baseline for the trained one.

    Its batch norm has the statistics of the images themselves, as a trained one's has of others.

    Parameters
    ----------
    network : Network
        What kind of network.
    images : ndarray of uint8, shape (image, row, column, channel)
        What its batch norm is adapted to.
    seed : int
        Of the weights.
    """
    from circuitsim.vision.augmentation import channel_statistics
    from circuitsim.vision.layers import BatchNorm2D

    other = Network(network.architecture, np.random.default_rng(seed))
    norms = [layer for layer in other.layers.values() if isinstance(layer, BatchNorm2D)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    x = prepared(images[:_AT_A_TIME], *channel_statistics(images))
    other.forward(x, training=True)
    other.forward(x[..., :1])  # drops what a gradient would need
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return other


def pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the pixels of images themselves, (image, feature): a baseline."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def gabor_energies(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the energy of edges in images, (image, feature): a baseline like complex cells of V1.

    Grey images are filtered by pairs of Gabor functions, even and odd, of 8 orientations and the
    wavelengths 4, 8 and 16 pixels (of those that fit into the image twice); the square root of the
    sum of their squares is averaged over windows of a wavelength, and the mean brightness of the
    largest windows is added.

    Parameters
    ----------
    images : ndarray of uint8, shape (image, row, column, channel)
        Grey or colour.
    """
    parts = [images[n : n + _AT_A_TIME] for n in range(0, len(images), _AT_A_TIME)]
    return np.concatenate([_energies(part.mean(axis=3) / 255) for part in parts])


def _energies(grey: Array) -> NDArray[np.float32]:
    rows, columns = grey.shape[1:]
    spectrum = np.fft.fft2(grey - grey.mean(axis=(1, 2), keepdims=True))
    waves = [w for w in _WAVELENGTHS if 2 * w <= min(rows, columns)] or [min(rows, columns) / 2]
    features = [_pooled(grey, max(waves))]
    down, across = np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None, :]
    for wave in waves:
        spread = 0.4 / wave  # of the filter's spectrum: about one octave
        for n in range(_ORIENTATIONS):
            angle = np.pi * n / _ORIENTATIONS
            centre = np.cos(angle) / wave, np.sin(angle) / wave
            distance = (down - centre[0]) ** 2 + (across - centre[1]) ** 2
            # Around one frequency and not its negative: even filter and, imaginary, odd filter.
            filtered = np.fft.ifft2(spectrum * np.exp(-distance / 2 / spread**2))
            features.append(_pooled(np.abs(filtered), wave))
    return np.concatenate(features, axis=1).astype(np.float32)


def _pooled(maps: NDArray[Any], window: float) -> NDArray[Any]:
    """Means over windows of about so many pixels, (image, window)."""
    rows, columns = (max(1, round(size / window)) for size in maps.shape[1:])
    parts = [
        band.mean(axis=(1, 2))
        for strip in np.array_split(maps, rows, axis=1)
        for band in np.array_split(strip, columns, axis=2)
    ]
    return np.stack(parts, axis=1)


# --- neurons --------------------------------------------------------------------------------------


def reliability(repeats: ArrayLike, splits: int = 100, seed: int = 0) -> Array:
    """Return how reliable neurons' mean responses are: their correlation with those of new repeats.

    The repeats of each image are divided into halves at random; the correlation r of the means of
    the halves over images gives, by Spearman and Brown, 2 r/(1 + r) for the mean of all; the mean
    over splits is returned. No prediction of the mean can be expected to correlate with it by more
    than the square root of it, the *noise ceiling*.

    Parameters
    ----------
    repeats : array_like, shape (neuron, image, repeat)
        Responses; NaN where there is none.
    splits : int
        Divisions to average over.
    seed : int
        Fixes them.

    Returns
    -------
    ndarray, shape (neuron,)
        NaN for a neuron without two images that have two repeats, or whose responses are all alike.

    Raises
    ------
    ParameterError
        If the shape is another.
    """
    values = array("repeats", repeats, _REPEATS, finite=False)
    count("splits", splits, minimum=1)
    there = np.isfinite(values)
    counts = there.sum(axis=2)
    filled = np.where(there, values, 0.0)
    rng = np.random.default_rng(integer("seed", seed, minimum=0))
    total = np.zeros(len(values))
    for _ in range(splits):
        # Ranks at random, those that are missing last: the first half of each image's repeats.
        rank = np.argsort(
            np.argsort(np.where(there, rng.random(values.shape), 2.0), axis=2), axis=2
        )
        first = there & (rank < (counts // 2)[..., None])
        second = there & ~first
        with np.errstate(invalid="ignore", divide="ignore"):
            one, other = ((filled * h).sum(axis=2) / h.sum(axis=2) for h in (first, second))
        total += _correlations(one, other, counts >= 2)
    r = total / splits
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(r > -1, 2 * r / (1 + r), np.nan)


def _correlations(a: Array, b: Array, used: NDArray[np.bool_]) -> Array:
    """Correlation over the last axis, of what is used; NaN where one does not vary."""
    number = used.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = (np.where(used, v, 0.0) for v in (a, b))
        x, y = (np.where(used, v - v.sum(axis=-1, keepdims=True) / number, 0.0) for v in (x, y))
        scale = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
        small = (
            1e-12
            * number[..., 0]
            * np.abs(np.where(used, a, 0)).max(axis=-1)
            * np.abs(np.where(used, b, 0)).max(axis=-1)
        )
        return np.where(scale > small, (x * y).sum(axis=-1) / scale, np.nan)


# --- predictivity ---------------------------------------------------------------------------------


def measure(
    features: Mapping[str, ArrayLike],
    responses: ArrayLike,
    repeats: ArrayLike | None = None,
    *,
    baselines: Mapping[str, ArrayLike] | None = None,
    components: int = COMPONENTS,
    folds: int = 5,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    advanced: Callable[[float], None] | None = None,
) -> xr.Dataset:
    """Measure how well the layers of a network predict neurons.

    Images are divided into folds at random. For each, PLS with so many components is fitted to the
    other folds (features and responses centred, all neurons at once) and predicts it; the
    correlation over its images of predictions with responses is averaged over folds. A prediction
    that is constant counts as 0.

    The *best* layer is chosen for each fold by the median over neurons of correlations on the other
    folds, so that its score does not gain from the choice. Intervals are of the bootstrap over
    neurons.

    Parameters
    ----------
    features : mapping of str to array_like, shape (image, feature)
        Of each layer.
    responses : array_like, shape (neuron, image)
        Mean responses to the same images, in the same order.
    repeats : array_like, shape (neuron, image, repeat), optional
        Single responses, NaN where there is none, for the noise ceilings (see `reliability`).
    baselines : mapping, optional
        As ``features``, but none of them can be the best layer.
    components : int
        Of the regression.
    folds : int
        At least 2; 3 where there is more than one layer to choose from.
    resamples : int
        Of the bootstrap.
    confidence : float
        Of its intervals.
    seed : int
        Fixes folds, splits and resamples.
    advanced : callable, optional
        Called with the share of the work that is done.

    Returns
    -------
    xarray.Dataset
        ``correlation`` (layer, neuron, fold); ``best_layer`` (fold); ``reliability`` and
        ``ceiling`` (neuron); ``predictivity`` (layer, neuron), the mean correlation over the
        ceiling, NaN where reliability is below `RELIABLE`; ``median_correlation`` and
        ``median_predictivity`` (layer) with ``_interval`` (layer, bound). A last layer ``best`` is
        that of the choice, and baselines follow the layers; ``kind`` tells them apart.

    Raises
    ------
    ParameterError
        If numbers of images differ, or numbers are not finite, or there are too few images.
    """
    values = _finite("responses", responses, ("neuron", "image"))
    given = {**features, **(baselines or {})}
    if not features or len(given) < len(features) + len(baselines or {}) or "best" in given:
        raise ParameterError(
            "features", 'must have names of their own, at least one, and none "best"', list(given)
        )
    settings: dict[str, Any] = {
        "components": components, "folds": folds, "resamples": resamples,
        "confidence": confidence, "seed": seed,
    }  # fmt: skip
    check(values.shape, len(features), **settings)
    correlation = correlations(
        given, values, components=components, folds=folds, seed=seed, advanced=advanced
    )
    reliable = np.full(len(values), np.nan)
    if repeats is not None:
        single = array("repeats", repeats, _REPEATS, finite=False)
        if single.shape[:2] != values.shape:
            raise ParameterError(
                "repeats",
                f"must be (neuron, image, repeat) with {values.shape[0]} neurons and "
                f"{values.shape[1]} images, as responses have",
                single.shape,
            )
        reliable = reliability(single, seed=seed)
    chosen = best_layers(correlation[: len(features)])
    best = at_best(correlation, chosen)
    return _collected(
        np.concatenate([correlation, best[np.newaxis]]), chosen, reliable, list(given),
        len(features), settings,
    )  # fmt: skip


def check(
    shape: tuple[int, ...],
    layers: int,
    *,
    components: int = COMPONENTS,
    folds: int = 5,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> None:
    """Refuse settings that do not do for responses of a shape, (neuron, image).

    Parameters
    ----------
    shape : tuple of int
        Of the responses.
    layers : int
        That the best is chosen from.
    components, folds, resamples, confidence, seed
        As in `measure`.

    Raises
    ------
    ParameterError
    """
    n_images = shape[1]
    integer("folds", folds, minimum=3 if layers > 1 else 2)
    integer("resamples", resamples, minimum=1)
    integer("seed", seed, minimum=0)
    in_range("confidence", dimensionless("confidence", confidence), confidence, above=0, below=1)
    if n_images < 3 * folds:
        raise ParameterError(
            "responses", f"must be to three images for each of {folds} folds", shape
        )
    fewest = n_images - -(-n_images // folds)
    if not 1 <= integer("components", components, minimum=1) < fewest:
        raise ParameterError(
            "components", f"must be less than the {fewest} images that are fitted to", components
        )


def correlations(
    features: Mapping[str, ArrayLike],
    responses: Array,
    *,
    components: int,
    folds: int,
    seed: int,
    advanced: Callable[[float], None] | None = None,
) -> Array:
    """Return the correlation of predictions with responses, (layer, neuron, fold).

    Parameters
    ----------
    features, responses, components, folds, seed, advanced
        As in `measure`.

    Returns
    -------
    ndarray
        0 where a prediction is constant, NaN where a neuron's responses are.

    Raises
    ------
    ParameterError
        If numbers of images differ, or features are not finite.
    """
    n_neurons, n_images = responses.shape
    tested = np.array_split(np.random.default_rng([seed, 0]).permutation(n_images), folds)
    found = np.empty((len(features), n_neurons, folds))
    for n, (name, values) in enumerate(features.items()):
        layer = _finite(f"features[{name!r}]", values, ("image", "feature"))
        if len(layer) != n_images:
            raise ParameterError(
                f"features[{name!r}]", f"must be of {n_images} images, as responses are",
                layer.shape,
            )  # fmt: skip
        found[n] = _cross_validated(layer, responses, tested, components)
        if advanced is not None:
            advanced((n + 1) / len(features))
    found[:, np.ptp(responses, axis=1) == 0] = np.nan  # of such neurons nothing can be said
    return found


def at_best(correlation: Array, chosen: NDArray[np.int64]) -> Array:
    """Correlations (neuron, fold) of the layers chosen for each fold, of (layer, neuron, fold)."""
    return np.stack([correlation[layer, :, fold] for fold, layer in enumerate(chosen)], axis=-1)


def ceilings(reliable: ArrayLike) -> Array:
    """Return the noise ceilings of neurons; NaN where reliability is below `RELIABLE`."""
    values = array("reliable", reliable, ("...",), finite=False)
    return np.sqrt(np.where(values >= RELIABLE, np.minimum(values, 1), np.nan))


def mean_responses(repeats: ArrayLike) -> Array:
    """Return each neuron's mean response to each image, (neuron, image), of the repeats there are.

    Raises
    ------
    ParameterError
        If the shape is no (neuron, image, repeat), or an image has no repeat at all.
    """
    values = array("repeats", repeats, _REPEATS, finite=False)
    there = np.isfinite(values)
    if not there.any(axis=2).all():
        neuron, image = np.argwhere(~there.any(axis=2))[0]
        raise ParameterError(
            "repeats",
            "must have one response at least of each neuron to each image; leave others out",
            f"none of neuron {neuron} to image {image}",
        )
    return np.where(there, values, 0).sum(axis=2) / there.sum(axis=2)


def _finite(name: str, given: ArrayLike, axes: tuple[str, ...]) -> Array:
    found = array(name, given, axes, finite=False)
    bad = int((~np.isfinite(found)).sum())
    if bad:
        hint = "; mean_responses(repeats) takes the mean of those there are, or leave neurons out"
        raise ParameterError(
            name, f"must be finite{hint if name == 'responses' else ''}",
            f"{bad} of {found.size} numbers are NaN or infinite",
        )  # fmt: skip
    return found


def _cross_validated(
    features: Array, responses: Array, tested: Sequence[NDArray[np.int64]], components: int
) -> Array:
    """Correlation of predictions with responses, (neuron, fold)."""
    found = np.empty((len(responses), len(tested)))
    if features.shape[1] > features.shape[0]:  # once for all folds
        centred = features - features.mean(axis=0)
        features = _coordinates(centred @ centred.T)
    for fold, test in enumerate(tested):
        train = np.setdiff1d(np.arange(features.shape[0]), test)
        predicted = regress(features[train], responses[:, train].T, features[test], components)
        r = _correlations(
            predicted.T, responses[:, test], np.ones((len(responses), len(test)), bool)
        )
        found[:, fold] = np.where(np.isfinite(r), r, 0.0)
    return found


def regress(features: Array, responses: Array, new: Array, components: int) -> Array:
    """Predict responses to new images by partial least squares.

    Each component is the direction of features along which they vary most with all responses: the
    leading singular vector of their covariance, of what the components before have left. (That is
    what scikit-learn's ``PLSRegression(scale=False)`` iterates towards.)

    Parameters
    ----------
    features : array, shape (image, feature)
        Of the images to fit to.
    responses : array, shape (image, neuron)
        To the same images.
    new : array, shape (new image, feature)
        Features of the images to predict responses to.
    components : int
        Fewer are taken where features have no more directions, or nothing is left to explain.

    Returns
    -------
    ndarray, shape (new image, neuron)
    """
    mean, level = features.mean(axis=0), responses.mean(axis=0)
    x, other, y = features - mean, new - mean, responses - level
    return level + other @ _coefficients(x, y, components)


def _coordinates(products: Array) -> Array:
    """As many features as there are images, from the images' products with each other.

    Products are all that the regression depends on: it does not change as features are turned.
    """
    squares, directions = np.linalg.eigh(products)
    kept = squares > 1e-12 * squares[-1]
    return directions[:, kept] * np.sqrt(squares[kept])


def _coefficients(x: Array, y: Array, components: int) -> Array:
    """Coefficients (feature, neuron) of partial least squares; both are centred."""
    weights, loadings, outputs = [], [], []
    first = None
    for _ in range(min(components, *x.shape)):
        cross = x.T @ y
        wide = cross.shape[1] > cross.shape[0]
        _, vectors = np.linalg.eigh(cross @ cross.T if wide else cross.T @ cross)
        direction = vectors[:, -1] if wide else cross @ vectors[:, -1]
        size = float(np.linalg.norm(cross))
        first = first or size
        if size <= 1e-12 * first:  # nothing is left; or there was nothing
            break
        direction /= np.linalg.norm(direction)
        score = x @ direction
        square = score @ score
        loading, output = x.T @ score / square, y.T @ score / square
        x, y = x - np.outer(score, loading), y - np.outer(score, output)
        weights.append(direction)
        loadings.append(loading)
        outputs.append(output)
    if not weights:
        return np.zeros((x.shape[1], y.shape[1]))
    w, p, q = (np.stack(part, axis=1) for part in (weights, loadings, outputs))
    return w @ np.linalg.solve(p.T @ w, q.T)


def best_layers(correlation: Array) -> NDArray[np.int64]:
    """For each fold, the number of the layer that is best on the others, by (layer, neuron, fold).

    That is the one with the largest median over neurons.
    """
    folds = correlation.shape[2]
    if len(correlation) == 1:
        return np.zeros(folds, np.int64)
    medians = [
        np.nanmedian(np.delete(correlation, fold, axis=2).mean(axis=2), axis=1)
        for fold in range(folds)
    ]
    return np.argmax(np.nan_to_num(medians, nan=-np.inf), axis=1)


def _collected(
    correlation: Array,
    chosen: NDArray[np.int64],
    reliable: Array,
    names: list[str],
    n_layers: int,
    settings: Mapping[str, Any],
) -> xr.Dataset:
    ceiling = ceilings(reliable)
    means = correlation.mean(axis=2)
    kinds = ["layer"] * n_layers + ["baseline"] * (len(names) - n_layers) + ["best"]
    variables: dict[str, Any] = {
        "correlation": (
            ("layer", "neuron", "fold"), correlation,
            {"long_name": "correlation of predictions with responses", "units": "1"},
        ),
        "predictivity": (
            ("layer", "neuron"), means / ceiling,
            {"long_name": "mean correlation over the noise ceiling", "units": "1"},
        ),
        "reliability": (
            "neuron", reliable,
            {"long_name": "reliability of mean responses (split halves, Spearman-Brown)",
             "units": "1"},
        ),
        "ceiling": (
            "neuron", ceiling, {"long_name": "noise ceiling of a correlation", "units": "1"},
        ),
        "best_layer": (
            "fold", [names[layer] for layer in chosen],
            {"long_name": "layer that is best on the other folds"},
        ),
    }  # fmt: skip
    for name, of_neurons in (("correlation", means), ("predictivity", means / ceiling)):
        median, bounds = medians(
            of_neurons, settings["resamples"], settings["confidence"], settings["seed"]
        )
        what = "correlation" if name == "correlation" else "predictivity"
        variables[f"median_{name}"] = (
            "layer", median, {"long_name": f"median over neurons of the {what}", "units": "1"},
        )  # fmt: skip
        variables[f"median_{name}_interval"] = (
            ("layer", "bound"), bounds,
            {"long_name": f"interval of the median {what} (bootstrap over neurons)", "units": "1"},
        )  # fmt: skip
    coordinates: dict[str, Any] = {
        "layer": ("layer", [*names, "best"], {"long_name": "layer, baseline or best layer"}),
        "kind": ("layer", kinds, {"long_name": "whether it is a layer"}),
        "bound": ("bound", ["lower", "upper"], {"long_name": "bound of the interval"}),
    }
    return xr.Dataset(variables, coordinates, attrs=dict(settings))


def medians(of_neurons: Array, resamples: int, confidence: float, seed: int) -> tuple[Array, Array]:
    """Return medians over neurons, and their intervals by the bootstrap over neurons.

    Parameters
    ----------
    of_neurons : ndarray, shape (..., neuron)
        Neurons for which one of the values is NaN are left out for all.
    resamples, confidence, seed
        As in `measure`; each draws the same neurons for all.

    Returns
    -------
    medians : ndarray, shape (...,)
    intervals : ndarray, shape (..., 2)
        NaN if no neuron is left.
    """
    rows = of_neurons.reshape(-1, of_neurons.shape[-1])
    bounds = np.full((len(rows), 2), np.nan)
    middle = np.full(len(rows), np.nan)
    known = np.isfinite(rows).all(axis=0)
    if known.any():
        values = rows[:, known]
        middle = np.median(values, axis=1)
        rng = np.random.default_rng([seed, 1])
        picked = rng.integers(values.shape[1], size=(resamples, values.shape[1]))
        tail = (1 - confidence) / 2
        bounds = np.stack(
            [np.quantile(np.median(row[picked], axis=1), [tail, 1 - tail]) for row in values]
        )
    shape = of_neurons.shape[:-1]
    return middle.reshape(shape), bounds.reshape(*shape, 2)
