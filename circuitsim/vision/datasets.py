"""Images to learn from: scikit-learn's digits, CIFAR (A. Krizhevsky, 2009), and the user's own."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.checks.validation import (
    ParameterError,
    dimensionless,
    function,
    in_range,
    integer,
    one_of,
    regular,
    shown,
)
from circuitsim.files import reason
from circuitsim.public import own
from circuitsim.vision import cifar, folders
from circuitsim.vision.archives import BadArchive, array_names, read_array
from circuitsim.vision.folders import set_aside
from circuitsim.vision.stored import Advanced, Lazy, Listed, announce, decode, shown_progress

__dir__ = own(__name__, "NAMES", "PLACE", "SOURCES")

PLACE = "CIRCUITSIM_DATA"  # environment variable that names the directory of data sets


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels, which cannot be changed.

    Parameters
    ----------
    images : ndarray of uint8 or float32, or Lazy, shape (image, row, column, channel)
        Brightness from 0 to 255, or finite numbers of any kind.
    labels : ndarray of int64, shape (image,)
        Number of each image's class.

    Raises
    ------
    ParameterError
        If shapes or types are others, or there are no images.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.dtype not in (np.uint8, np.float32) or images.size == 0:
            raise ParameterError(
                "ImageSet.images",
                "must be uint8 or float32 of the shape (image, row, column, channel)",
                (images.shape, str(images.dtype)),
            )
        if labels.shape != images.shape[:1] or labels.dtype != np.int64:
            raise ParameterError(
                "ImageSet.labels",
                f"must be int64, one for each of {len(images)} images",
                (labels.shape, str(labels.dtype)),
            )
        for name in ("images", "labels"):
            if not isinstance(getattr(self, name), Lazy):
                view = getattr(self, name).view()
                view.setflags(write=False)
                object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, chosen: NDArray[Any]) -> ImageSet:
        """Return some of the images, in memory only if these are.

        Parameters
        ----------
        chosen : array of bool or int
            Which.
        """
        images: Any = self.images
        if isinstance(images, np.memmap):
            images = Lazy(images, np.arange(len(images)))
        images = images.subset(chosen) if isinstance(images, Lazy) else images[chosen]
        return ImageSet(images, self.labels[chosen])

    def announce(self, groups: Iterable[Any]) -> None:
        """Say in which groups images will be asked for; see `stored.Lazy.announce`."""
        announce(self.images, groups)

    def sample(self, most: int = 20_000) -> NDArray[np.uint8]:
        """Return images to take statistics of: all, or of files so many at even distances."""
        images: Any = self.images
        if isinstance(images, Lazy) and images.identity() is not None:
            return images[:: -(-len(images) // most)]
        return images


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, split into images to learn from and images to test with.

    Parameters
    ----------
    name : str
        What it is called.
    train, test : ImageSet
        The split.
    class_names : tuple of str
        Name of class 0, 1, ...
    source : str
        Where it is from.
    notes : tuple of str
        What its user may not expect, such as files that were left out.

    Raises
    ------
    ParameterError
        If a label has no name, or images to learn from and to test with differ in shape.
    """

    name: str
    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    source: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in (self.train, self.test):
            extremes = int(part.labels.min()), int(part.labels.max())
            if extremes[0] < 0 or extremes[1] >= len(self.class_names):
                raise ParameterError(
                    "Dataset.labels", f"must be from 0 to {len(self.class_names) - 1}", extremes
                )
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise ParameterError(
                "Dataset.test",
                f"must have images of the shape {self.train.images.shape[1:]}, as train has",
                self.test.images.shape[1:],
            )

    def digest(self) -> str:
        """Return the SHA-256 of images and labels (of files, of their names, sizes and times)."""
        digest = hashlib.sha256()
        for part in (self.train, self.test):
            images: Any = part.images
            digest.update(repr(images.shape).encode())
            identity = images.identity() if isinstance(images, Lazy) else None
            if identity is not None:
                digest.update(identity)
            else:
                for first in range(0, len(images), 1000):
                    digest.update(np.ascontiguousarray(images[first : first + 1000]))
            digest.update(np.ascontiguousarray(part.labels, "<i8"))
        return digest.hexdigest()


def load(
    name: str,
    data: str | os.PathLike[str] | None = None,
    download: bool = False,
    **options: Any,
) -> Dataset:
    """Load a data set by its name.

    Parameters
    ----------
    name : str
        One of `NAMES`: ``"digits"`` (1,797 grey images of 8 x 8, every fifth of each class to test
        with; needs scikit-learn and no files), ``"cifar10"`` or ``"cifar100"`` (60,000 colour
        images of 32 x 32, 10,000 of them to test with), ``"folder"`` (`from_folder`),
        ``"tiny-imagenet"`` (`from_tiny_imagenet`), ``"imagenet"`` (`from_imagenet`) or ``"npz"``
        (`from_npz`).
    data : path, optional
        Directory (of ``npz``, file) with the data set. For CIFAR, one with an official archive,
        such as ``cifar-10-binary.tar.gz``, or with what it unpacks to; see
        `circuitsim.vision.cifar`. By default the one that the environment variable
        ``CIRCUITSIM_DATA`` names, else, for CIFAR, one of the user's caches.
    download : bool
        Whether to download CIFAR's official binary archive (about 170 MB) there if nothing is
        there; needs pooch.
    **options
        Those of the function that is named above; None is as good as not given. One that the data
        set does not take is refused.

    Returns
    -------
    Dataset

    Raises
    ------
    ParameterError
        If there is no such data set, its files are missing or not what they should be, an option
        has no effect, or a package is missing that it needs.
    OSError
        If a file cannot be read or downloaded.

    Examples
    --------
    >>> digits = load("digits")
    >>> digits.train.images.shape, digits.test.images.shape
    ((1442, 8, 8, 1), (355, 8, 8, 1))
    """
    source = SOURCES[one_of("dataset", name, SOURCES)]
    given = {option: value for option, value in options.items() if value is not None}
    if data is not None:
        given["data"] = os.fspath(data)
    if download:
        given["download"] = True
    for option, value in given.items():
        if option not in source.options:
            takers = ", ".join(n for n, other in SOURCES.items() if option in other.options)
            hint = f"; --dataset {takers} takes it" if takers else ""
            raise ParameterError(option, f"has no effect with the data set {name}{hint}", value)
    if source.given and "data" not in given:
        if not os.environ.get(PLACE):
            raise ParameterError(
                "data", f"must be given for --dataset {name}: {source.given}", None
            )
        given["data"] = os.environ[PLACE]
    return source.load(**given)


def from_folder(
    data: str | os.PathLike[str],
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    test_share: float | None = None,
    skip_bad: bool = False,
    stream: bool | None = None,
    workers: int | None = None,
    progress: Advanced | None = None,
) -> Dataset:
    """Load images from folders, one for each class.

    Parameters
    ----------
    data : path
        Directory with ``train/CLASS/*.png`` and ``test/CLASS/*.png`` (or ``val/``); or with
        ``CLASS/*.png`` alone, of which a share is set aside to test with. Files may be PNG, JPEG,
        BMP, GIF, PPM, TIFF or WEBP, in folders within folders too; classes are numbered in the
        order of their names.
    image_size : int or tuple of int, optional
        Rows and columns to which images are brought: the largest part in the middle that has these
        proportions is cut out and resized. By default images must all be of one size.
    channels : {1, 3}, optional
        Grey or colour; by default grey if all images are.
    test_share : float, optional
        Share of each class that is set aside, the same images each time; 0.2 by default. Refused
        where images to test with are given.
    skip_bad : bool
        Go on without files that cannot be read.
    stream : bool, optional
        Whether to decode images when they are needed rather than once into a cache
        (`circuitsim.vision.stored`); by default if they take more than 4 GiB decoded.
    workers : int, optional
        Processes that decode; by default one for each core, and none for few files. Numbers do not
        depend on it.
    progress : callable, optional
        Called with the number of files decoded and that of all.

    Returns
    -------
    Dataset

    Raises
    ------
    ParameterError
        If there are no such folders, a class has no images, files cannot be read, or an option is
        out of range.
    OSError
        If a directory cannot be read, or there is no room for the decoded images.
    """
    return _of_files(
        "folder", data, image_size=image_size, channels=channels, test_share=test_share,
        skip_bad=skip_bad, stream=stream, workers=workers, progress=progress,
    )  # fmt: skip


def from_tiny_imagenet(
    data: str | os.PathLike[str],
    *,
    image_size: int | tuple[int, int] | None = None,
    skip_bad: bool = False,
    stream: bool | None = None,
    workers: int | None = None,
    progress: Advanced | None = None,
) -> Dataset:
    """Load TinyImageNet in its official layout: 200 classes of 500 images, 10,000 to test with.

    Parameters
    ----------
    data : path
        Directory ``tiny-imagenet-200``, or the one around it; see
        `circuitsim.vision.folders.tiny_imagenet`.
    image_size
        64 by default, as images are.
    skip_bad, stream, workers, progress
        As in `from_folder`, which says what is returned and raised.
    """
    return _of_files(
        "tiny-imagenet", data, image_size=image_size or 64, channels=3, skip_bad=skip_bad,
        stream=stream, workers=workers, progress=progress,
    )  # fmt: skip


def from_imagenet(
    data: str | os.PathLike[str],
    *,
    image_size: int | tuple[int, int] | None = None,
    skip_bad: bool = False,
    stream: bool | None = None,
    workers: int | None = None,
    progress: Advanced | None = None,
) -> Dataset:
    """Load ImageNet (ILSVRC 2012), of any number of classes, in its usual layout.

    Parameters
    ----------
    data : path
        Directory with ``train/WNID/*.JPEG`` and ``val/``; see
        `circuitsim.vision.folders.imagenet`.
    image_size
        224 by default.
    skip_bad, stream, workers, progress
        As in `from_folder`, which says what is returned and raised.
    """
    return _of_files(
        "imagenet", data, image_size=image_size or 224, channels=3, skip_bad=skip_bad,
        stream=stream, workers=workers, progress=progress,
    )  # fmt: skip


def from_npz(data: str | os.PathLike[str], *, test_share: float | None = None) -> Dataset:
    """Load arrays from an ``.npz`` file.

    Parameters
    ----------
    data : path
        File with the arrays ``x_train``, ``y_train``, ``x_test``, ``y_test``, as Keras names them;
        ``train_images``, ``train_labels``, ``test_images``, ``test_labels`` (and ``val_``, which
        are not used), as MedMNIST does; or ``images`` and ``labels``. ``class_names`` may be there
        too.
    test_share : float, optional
        As in `from_folder`, for ``images`` and ``labels``.

    Returns
    -------
    Dataset

    Raises
    ------
    ParameterError
        If the file cannot be read or has other arrays; else as `from_arrays`.
    """
    path = Path(data)
    arrays = _npz(path)
    for names in _NPZ:
        if all(name in arrays for name in names):
            break
    else:
        wanted = "; or ".join(", ".join(names) for names in _NPZ)
        raise ParameterError(
            "data", f"must have the arrays {wanted} (has {', '.join(arrays) or 'none'})", str(path)
        )
    read = {name: _npz(path, name) for name in (*names, "class_names") if name in arrays}
    made = from_arrays(
        *(read[name] for name in names),
        class_names=read.get("class_names"),
        test_share=test_share,
        name="npz",
        source=str(path),
    )
    rest = sorted(set(arrays) - set(read))
    notes = (f"not used: {', '.join(rest)} in {path}",) if rest else ()
    return replace(made, notes=notes)


def from_arrays(
    images: ArrayLike,
    labels: ArrayLike,
    test_images: ArrayLike | None = None,
    test_labels: ArrayLike | None = None,
    *,
    class_names: ArrayLike | None = None,
    test_share: float | None = None,
    name: str = "arrays",
    source: str = "",
) -> Dataset:
    """Make a data set of arrays.

    Parameters
    ----------
    images, test_images : array_like, shape (image, row, column) or (image, row, column, channel)
        Bytes; or numbers from 0 to 1 or from 0 to 255, which are rounded to bytes.
    labels, test_labels : array_like, shape (image,) or (image, 1)
        Whole numbers or texts of any kind.
    class_names : array_like of str, optional
        What labels 0, 1, ... are called; by default the labels themselves.
    test_share : float, optional
        As in `from_folder`, where no images to test with are given.
    name, source : str
        As in `Dataset`.

    Returns
    -------
    Dataset

    Raises
    ------
    ParameterError
        If shapes or values are others.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> made = from_arrays(rng.random((50, 8, 8)), np.arange(50) % 5 + 3)
    >>> made.train.images.shape, made.class_names
    ((40, 8, 8, 1), ('3', '4', '5', '6', '7'))
    """
    arrays, found = as_bytes("images", images), _as_labels("labels", labels, len(images))  # type: ignore[arg-type]
    if (test_images is None) != (test_labels is None):
        raise ParameterError("test_labels", "must be given with test_images, and only then", None)
    rule = "must be texts, one for each of the labels 0, 1, ..."
    names = np.unique(found) if class_names is None else regular("class_names", class_names, rule)
    if class_names is not None:
        if names.ndim != 1 or names.dtype.kind not in "US" or found.dtype.kind not in "iu":
            raise ParameterError("class_names", rule, class_names)
        numbers, of = np.arange(len(names)), "numbers of class_names"
    else:
        numbers, of = names, "those of images to learn from"
    train = ImageSet(arrays, _numbered("labels", found, numbers, of))
    if test_images is None or test_labels is None:
        chosen = set_aside(train.labels, _share(0.2 if test_share is None else test_share))
        train, test = _parted(train, chosen)
    else:
        if test_share is not None:
            raise _no_share(test_share)
        tested = as_bytes("test_images", test_images)
        found = _as_labels("test_labels", test_labels, len(tested))
        test = ImageSet(tested, _numbered("test_labels", found, numbers, of))
    return Dataset(name, train, test, tuple(map(str, names.tolist())), source)


def as_bytes(name: str, images: ArrayLike) -> NDArray[np.uint8]:
    """Return images as bytes, (image, row, column, channel).

    Parameters
    ----------
    name : str
        What they are called in messages.
    images : array_like
        As in `from_arrays`.

    Raises
    ------
    ParameterError
        If they have another shape, or values that are neither from 0 to 1 nor from 0 to 255.
    """
    rule = "must be numbers of the shape (image, row, column) or (image, row, column, channel)"
    given = regular(name, images, rule)
    if given.ndim == 3:
        given = given[..., np.newaxis]
    if given.ndim != 4 or given.size == 0 or given.dtype.kind not in "buif":
        raise ParameterError(name, rule, f"{np.shape(images)} {given.dtype}")
    if given.shape[3] > 4 and given.shape[1] in (1, 3):
        raise ParameterError(
            name,
            "must have channels last; images.transpose(0, 2, 3, 1) makes them so",
            given.shape,
        )
    if given.dtype == np.uint8:
        return given
    if given.dtype == bool:
        return given.astype(np.uint8) * np.uint8(255)
    if not np.isfinite(given).all():
        bad = int((~np.isfinite(given)).reshape(len(given), -1).any(axis=1).sum())
        raise ParameterError(
            name, "must be finite; leave these images out, or fill them in with "
            "numpy.nan_to_num", f"{bad} images with pixels that are NaN or infinite",
        )  # fmt: skip
    least, most = given.min(), given.max()
    if least < 0 or most > 255:
        deep = "; images // 256 makes bytes of 16 bits" if given.dtype == np.uint16 else ""
        raise ParameterError(
            name, f"must be from 0 to 1 or from 0 to 255{deep}", f"from {least:g} to {most:g}"
        )
    unit = given.dtype.kind == "f" and most <= 1
    return np.rint(given * 255.0 if unit else given).astype(np.uint8)


def data_directory(data: str | os.PathLike[str] | None = None) -> Path:
    """Return the directory of data sets: as given, else ``CIRCUITSIM_DATA``, else a cache."""
    given = os.environ.get(PLACE) if data is None else data
    if given:
        return Path(given)
    import platformdirs

    return platformdirs.user_cache_path("circuitsim") / "data"


def _cifar(
    name: str, data: str | os.PathLike[str] | None = None, download: bool = False
) -> Dataset:
    directory = data_directory(data)
    layouts = cifar.LAYOUTS[name]
    found, failed = _read_cifar(layouts, directory)
    if found is None and download:
        _download(layouts[0], directory)
        found, failed = _read_cifar(layouts, directory)
    if found is None and failed:
        rest = (
            f"; delete {failed[0].value}, and have it fetched again (--download, or download=True)"
        )
        raise ParameterError("data", failed[0].rule + rest, failed[0].value)
    if found is None:
        missing = f"holds no {name}" if directory.is_dir() else "there is no such directory"
        raise ParameterError(
            "data",
            f"{missing}; put {layouts[0].archive} from {layouts[0].url} there, have it fetched "
            f"(--download, or download=True), or name another directory (here, or in {PLACE})",
            str(directory),
        )
    layout, (train, test, source), note = found
    notes = (
        tuple(f"{error.value}: {error.rule}; {source} was read in its place" for error in failed)
        + note
    )
    return Dataset(name, ImageSet(*train), ImageSet(*test), layout.class_names, source, notes)


def _read_cifar(
    layouts: tuple[cifar.Layout, ...], directory: Path
) -> tuple[Any, list[ParameterError]]:
    """Read the first of a directory's copies that is whole; tell what the ones before it lack."""
    failed: list[ParameterError] = []
    for layout in layouts:
        for place in layout.places(directory):
            try:
                *read, note = layout.read(place)
            except ParameterError as error:
                failed.append(error)
            else:
                return (layout, read, (note,) if note else ()), failed
    return None, failed


def _digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ParameterError(
            "dataset", "needs scikit-learn: pip install circuitsim[vision]", "digits"
        ) from None
    loaded = load_digits()
    # From 0..16 to the whole range of a byte.
    images = np.round(loaded.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
    labels = loaded.target.astype(np.int64)
    tested = np.zeros(len(labels), dtype=bool)
    for label in range(len(cifar.DIGITS)):
        tested[np.flatnonzero(labels == label)[4::5]] = True
    train, test = (ImageSet(images[chosen], labels[chosen]) for chosen in (~tested, tested))
    return Dataset("digits", train, test, cifar.DIGITS, "scikit-learn")


def _download(layout: cifar.Layout, directory: Path) -> None:
    """Download an archive, whole and with the official checksum or not at all."""
    try:
        import pooch
    except ImportError:
        raise ParameterError(
            "download", "needs pooch: pip install circuitsim[vision]", True
        ) from None
    pooch.get_logger().setLevel("WARNING")
    fetch = pooch.HTTPDownloader(timeout=30, progressbar=sys.stderr.isatty())
    try:
        pooch.retrieve(layout.url, f"md5:{layout.md5}", layout.archive, directory, downloader=fetch)
    # OSError is also what a missing network ends in; ValueError, another checksum.
    except (OSError, ValueError) as error:
        raise OSError(
            f"{layout.archive} cannot be downloaded ({type(error).__name__}: {shown(str(error))}); "
            f"put it into {directory} by hand, from {layout.url}"
        ) from error


def _of_files(
    name: str,
    data: str | os.PathLike[str],
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    test_share: float | None = None,
    skip_bad: bool = False,
    stream: bool | None = None,
    workers: int | None = None,
    progress: Advanced | None = None,
) -> Dataset:
    size = _size(image_size)
    function("progress", progress)
    if channels not in (None, 1, 3):
        raise ParameterError("channels", "must be 1 (grey) or 3 (colour)", channels)
    if workers is not None:
        integer("workers", workers, minimum=0)
    found = folders.LAYOUTS[name](Path(data))
    notes = list(found.notes)
    parts = [found.train, found.test or folders.Part()]
    labels = np.array([label for part in parts for label in part.labels], np.int64)
    tested = np.arange(len(labels)) >= len(found.train.paths)
    if found.test is None:
        tested = set_aside(labels, _share(0.2 if test_share is None else test_share))
    elif test_share is not None:
        raise _no_share(test_share)
    paths = [path for part in parts for path in part.paths]
    order = np.argsort(tested, kind="stable")  # those to learn from first, each part in one piece
    listed = Listed(str(found.root), [paths[n] for n in order])
    with shown_progress() as shown_there:
        decoded = decode(
            listed, size, channels, skip_bad=skip_bad, stream=stream, workers=workers,
            advanced=progress or shown_there,
        )  # fmt: skip
    labels, tested = labels[order][decoded.read], tested[order][decoded.read]
    if decoded.bad:
        first = "; ".join(f"{path}: {why}" for path, why in decoded.bad[:3])
        more = "; ..." if len(decoded.bad) > 3 else ""
        notes.append(f"left out {len(decoded.bad)} files that cannot be read ({first}{more})")
    n_train = int(np.count_nonzero(~tested))
    gone = sorted(set(range(len(found.class_names))) - set(labels[:n_train].tolist()))
    if gone or n_train == len(labels):
        lost = (
            f"no image of the class {found.class_names[gone[0]]}" if gone else "none to test with"
        )
        raise ParameterError("data", f"has {lost} that could be read", str(found.root))
    images: Any = decoded.images
    cut: Callable[[slice], Any] = images.subset if isinstance(images, Lazy) else images.__getitem__
    train, test = (
        ImageSet(cut(part), labels[part]) for part in (slice(0, n_train), slice(n_train, None))
    )
    return Dataset(name, train, test, found.class_names, str(found.root), tuple(notes))


def _parted(whole: ImageSet, tested: NDArray[np.bool_]) -> tuple[ImageSet, ImageSet]:
    if not tested.any():
        raise ParameterError(
            "labels", "must have two images of some class, to set one aside to test with", "fewer"
        )
    return whole.subset(~tested), whole.subset(tested)


def _size(given: Any) -> tuple[int, int] | None:
    if given is None:
        return None
    rule = "must be one number, or rows and columns"
    pair = tuple(np.atleast_1d(regular("image_size", given, rule)).tolist())
    pair = pair * 2 if len(pair) == 1 else pair
    if len(pair) != 2:
        raise ParameterError("image_size", rule, given)
    rows, columns = (integer("image_size", number, minimum=1) for number in pair)
    return rows, columns


def _share(share: float) -> float:
    in_range("test_share", dimensionless("test_share", share), share, above=0, below=1)
    return share


def _no_share(share: float) -> ParameterError:
    return ParameterError("test_share", "has no effect where images to test with are given", share)


_NPZ = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("images", "labels"),
    ("x", "y"),
    ("X", "y"),
)


def _npz(path: Path, name: str | None = None) -> Any:
    """Names of the arrays in a file, or one of them."""
    try:
        return array_names(path) if name is None else read_array(path, name)
    except FileNotFoundError:
        raise ParameterError("data", "there is no such file", str(path)) from None
    except (BadArchive, OSError, ValueError) as error:
        raise ParameterError(
            "data", f"cannot be read as .npz ({reason(error)})", str(path)
        ) from None


def _as_labels(name: str, labels: ArrayLike, number: int) -> NDArray[Any]:
    """Labels as a 1-d array of whole numbers or texts."""
    rule = f"must be {number}, one for each image"
    given = regular(name, labels, rule)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim == 2 and given.shape[0] == number:
        raise ParameterError(
            name, "must be one for each image; labels.argmax(axis=1) makes them of one-hot rows",
            given.shape,
        )  # fmt: skip
    if given.shape != (number,):
        raise ParameterError(name, rule, given.shape)
    if given.dtype.kind == "S":
        given = np.char.decode(given, "utf-8", "backslashreplace")
    if given.dtype.kind == "f" and np.isfinite(given).all() and (given == np.rint(given)).all():
        given = given.astype(np.int64)
    if given.dtype.kind not in "iubU":
        raise ParameterError(name, "must be whole numbers or texts", str(given.dtype))
    return given


def _numbered(name: str, labels: NDArray[Any], values: NDArray[Any], of: str) -> NDArray[np.int64]:
    """Place of each label among values that are sorted, and what these are, for messages."""
    places = np.searchsorted(values, labels).clip(0, len(values) - 1)
    if labels.dtype.kind != values.dtype.kind and "U" in (labels.dtype.kind, values.dtype.kind):
        raise ParameterError(name, "must be of the kind of the others, numbers or texts", labels)
    wrong = labels[values[places] != labels]
    if len(wrong):
        known = f"{values[0]} to {values[-1]}" if len(values) > 5 else ", ".join(map(str, values))
        raise ParameterError(name, f"must be {of}, {known}", wrong[0])
    return places.astype(np.int64)


@dataclass(frozen=True)
class Source:
    """Where a named data set comes from.

    Parameters
    ----------
    load : callable
        Loads it.
    what : str
        What it is, for a line of help.
    options : frozenset of str
        What may be given to ``load``.
    given : str
        What ``data`` must name; empty if it need not be given.
    """

    load: Callable[..., Dataset]
    what: str
    options: frozenset[str] = frozenset()
    given: str = ""


_OF_CIFAR = frozenset({"data", "download"})
_OF_FILES = frozenset({"data", "image_size", "skip_bad", "stream", "workers", "progress"})

SOURCES: dict[str, Source] = {
    "digits": Source(_digits, "needs no files"),
    "cifar10": Source(partial(_cifar, "cifar10"), "official files", _OF_CIFAR),
    "cifar100": Source(partial(_cifar, "cifar100"), "official files", _OF_CIFAR),
    "folder": Source(
        from_folder, "images in folders of classes", _OF_FILES | {"channels", "test_share"},
        "a directory with train/CLASS/*.png and test/ or val/, or with CLASS/*.png",
    ),
    "tiny-imagenet": Source(
        from_tiny_imagenet, "its official layout", _OF_FILES, "the directory tiny-imagenet-200",
    ),
    "imagenet": Source(
        from_imagenet, "its usual layout", _OF_FILES,
        "a directory with train/WNID/*.JPEG and val/",
    ),
    "npz": Source(
        from_npz, "arrays as Keras or MedMNIST name them", frozenset({"data", "test_share"}),
        "an .npz file",
    ),
}  # fmt: skip
NAMES = tuple(SOURCES)
