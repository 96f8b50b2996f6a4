"""Images to learn from: CIFAR-10, CIFAR-100 (A. Krizhevsky, 2009), and scikit-learn's digits."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circuitsim.validation import ParameterError, one_of, shown
from circuitsim.vision import cifar

NAMES = ("digits", "cifar10", "cifar100")
PLACE = "CIRCUITSIM_DATA"  # environment variable that names the directory of data sets


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels, which cannot be changed.

    Parameters
    ----------
    images : ndarray of uint8, shape (image, row, column, channel)
        Brightness from 0 to 255.
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
        if images.ndim != 4 or images.dtype != np.uint8 or images.size == 0:
            raise ParameterError(
                "ImageSet.images",
                "must be uint8 of the shape (image, row, column, channel)",
                (images.shape, str(images.dtype)),
            )
        if labels.shape != images.shape[:1] or labels.dtype != np.int64:
            raise ParameterError(
                "ImageSet.labels",
                f"must be int64, one for each of {len(images)} images",
                (labels.shape, str(labels.dtype)),
            )
        for name in ("images", "labels"):
            view = getattr(self, name).view()
            view.setflags(write=False)
            object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.images)


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


def load(name: str, data: str | os.PathLike[str] | None = None, download: bool = False) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    name : str
        ``"digits"`` (1,797 grey images of 8 x 8, every fifth of each class to test with; needs
        scikit-learn and no files), ``"cifar10"`` or ``"cifar100"`` (60,000 colour images of
        32 x 32, 10,000 of them to test with).
    data : path, optional
        Directory with an official archive, such as ``cifar-10-binary.tar.gz``, or with what it
        unpacks to; see `circuitsim.vision.cifar`. By default the one that the environment variable
        ``CIRCUITSIM_DATA`` names, else one of the user's caches.
    download : bool
        Whether to download the official binary archive (about 170 MB) there if nothing is there;
        needs pooch.

    Returns
    -------
    Dataset

    Raises
    ------
    ParameterError
        If there is no such data set, its files are missing or not what they should be, or a package
        is missing that it needs.
    OSError
        If a file cannot be read or downloaded.

    Examples
    --------
    >>> digits = load("digits")
    >>> digits.train.images.shape, digits.test.images.shape
    ((1442, 8, 8, 1), (355, 8, 8, 1))
    """
    one_of("dataset", name, NAMES)
    if name == "digits":
        return _digits()
    directory = data_directory(data)
    layouts = cifar.LAYOUTS[name]
    found = _find(layouts, directory)
    if found is None and download:
        _download(layouts[0], directory)
        found = _find(layouts, directory)
    if found is None:
        missing = f"holds no {name}" if directory.is_dir() else "there is no such directory"
        raise ParameterError(
            "data",
            f"{missing}; put {layouts[0].archive} from {layouts[0].url} there, have it fetched "
            f"(--download, or download=True), or name another directory (here, or in {PLACE})",
            str(directory),
        )
    layout, place = found
    train, test, source = layout.read(place)
    return Dataset(name, ImageSet(*train), ImageSet(*test), layout.class_names, source)


def data_directory(data: str | os.PathLike[str] | None = None) -> Path:
    """Return the directory of data sets: as given, else ``CIRCUITSIM_DATA``, else a cache."""
    given = os.environ.get(PLACE) if data is None else data
    if given:
        return Path(given)
    import platformdirs

    return platformdirs.user_cache_path("circuitsim") / "data"


def _find(layouts: tuple[cifar.Layout, ...], directory: Path) -> tuple[cifar.Layout, Path] | None:
    for layout in layouts:
        place = layout.find(directory)
        if place is not None:
            return layout, place
    return None


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
