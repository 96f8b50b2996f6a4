"""CIFAR-10 and CIFAR-100 in their official files, trusted with nothing.

Both official layouts, as archives or unpacked:

* binary: records of one byte for the label (CIFAR-100: two, the fine label last) and 3,072 bytes
  for an image, channel by channel. Sizes and labels are checked, and any such images are welcome.
* python: pickles, which could do anything to those who read them. They are read only if their
  checksum is the official one, and even then nothing but arrays, numbers and texts comes out.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from circuitsim.checks.validation import ParameterError
from circuitsim.files import open_regular
from circuitsim.vision.archives import BadArchive, read_members

ADDRESS = "https://www.cs.toronto.edu/~kriz/"

_PIXELS = 3 * 32 * 32
_NAMES_SIZE = 65_536  # bytes of a list of class names, at most


class Images(NamedTuple):
    """Images (image, row, column, channel) with their labels (image,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Layout(ABC):
    """A data set in one of its official layouts.

    Parameters
    ----------
    archive, md5 : str
        Name of the archive, and its official checksum.
    folder : str
        What it unpacks to.
    files : mapping
        From the names of its files to how many images each has; the last is to test with.
    class_names : tuple of str
        Name of class 0, 1, ...
    """

    archive: str
    md5: str
    folder: str
    files: Mapping[str, int]
    class_names: tuple[str, ...]

    verified: ClassVar[bool] = False  # whether files that are unpacked have official checksums

    @property
    def url(self) -> str:
        """Official address of the archive."""
        return ADDRESS + self.archive

    @property
    @abstractmethod
    def largest(self) -> dict[str, int]:
        """Files to read, and the most bytes that each may have."""

    @abstractmethod
    def _parse(self, name: str, content: bytes) -> Images:
        """Images of a file; raise a ValueError if it is not what it should be."""

    @abstractmethod
    def _check(self, contents: Mapping[str, bytes], md5: str | None) -> None:
        """Raise a ValueError if what was read must not be looked into (archive's MD5 or None)."""

    def places(self, directory: Path) -> Iterator[Path]:
        """Where a directory has it: unpacked, or as an archive."""
        for folder in (directory / self.folder, directory):
            if any((folder / name).is_file() for name in self.files):
                yield folder
        archive = directory / self.archive
        if archive.is_file():
            yield archive

    def read(self, place: Path) -> tuple[Images, Images, str, str]:
        """Read what is in one of the `places`.

        Returns
        -------
        train, test : Images
        source : str
            Where they are from, with the checksum of an archive.
        note : str
            What the user should know of it; empty if it is the official one.

        Raises
        ------
        ParameterError
            If a file is missing or not what it should be.
        OSError
            If it cannot be read.
        """
        source, md5, note = str(place), None, ""
        try:
            if place.is_dir():
                contents = {
                    name: _content(place / name, most)
                    for name, most in self.largest.items()
                    if name in self.files or (place / name).exists()
                }
            else:
                contents, md5 = read_members(place, self.largest)
                known = "official" if md5 == self.md5 else "not the official one"
                if md5 != self.md5:
                    note = f"{place} is not the official archive: its MD5 is {md5}, not {self.md5}"
                source = f"{place} (MD5 {md5}, {known})"
            missing = [name for name in self.files if name not in contents]
            if missing:
                raise ValueError(f"lacks {', '.join(missing)}")
            self._check(contents, md5)
            parts = [self._images(name, contents.pop(name)) for name in self.files]
        except (BadArchive, ValueError) as error:
            where = "" if place.is_dir() else f"{place.name}: "
            raise ParameterError("data", f"{where}{error}", str(place)) from None
        *train, test = parts
        images, labels = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
        if place.is_dir() and not self.verified:
            note = (
                f"the files in {place} are taken for the official ones: they have the right sizes, "
                f"and no checksum of theirs is known (that of {self.archive} is)"
            )
        return Images(images, labels), test, source, note

    def _images(self, name: str, content: bytes) -> Images:
        images, labels = self._parse(name, content)
        highest = len(self.class_names) - 1
        if labels.min() < 0 or labels.max() > highest:
            wrong = labels[(labels < 0) | (labels > highest)][0]
            raise ValueError(f"{name} has the label {wrong}; labels are from 0 to {highest}")
        planes = images.reshape(-1, 3, 32, 32)
        return Images(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels)


def _content(path: Path, most: int) -> bytes:
    """Content of a file; a ValueError if it is missing, no regular file or larger than that."""
    try:
        with open_regular(path) as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        raise ValueError(f"lacks {path.name}") from None
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    if len(content) > most:
        raise ValueError(f"{path.name} is larger than the {most} bytes that it may have")
    return content


@dataclass(frozen=True)
class Binary(Layout):
    """The binary layout.

    Parameters
    ----------
    label_bytes : int
        Bytes before each image, the last of which is its label.
    names : str
        File with the names of the classes, one a line; it may be missing.
    """

    label_bytes: int
    names: str

    @property
    def largest(self) -> dict[str, int]:
        sizes = {name: self._size(name) for name in self.files}
        return sizes | {self.names: _NAMES_SIZE}

    def _size(self, name: str) -> int:
        return self.files[name] * (self.label_bytes + _PIXELS)

    def _check(self, contents: Mapping[str, bytes], md5: str | None) -> None:
        if self.names not in contents:
            return
        names = contents[self.names].decode("utf-8", errors="replace").split()
        if names != list(self.class_names):
            raise ValueError(
                f"{self.names} has other classes than the official {len(self.class_names)}, "
                f"{', '.join(self.class_names[:3])}, ..."
            )

    def _parse(self, name: str, content: bytes) -> Images:
        size = self._size(name)
        if len(content) != size:
            raise ValueError(f"{name} has {len(content)} bytes and must have {size}")
        records = np.frombuffer(content, np.uint8).reshape(self.files[name], -1)
        labels = records[:, self.label_bytes - 1].astype(np.int64)
        return Images(records[:, self.label_bytes :], labels)


@dataclass(frozen=True)
class Pickled(Layout):
    """The python layout.

    Parameters
    ----------
    sums : mapping
        Official checksums of the files.
    label_key : bytes
        What labels are called.
    """

    sums: Mapping[str, str]
    label_key: bytes

    verified: ClassVar[bool] = True

    _MOST: ClassVar[int] = _PIXELS + 128  # bytes of an image with its labels and its file's name

    @property
    def largest(self) -> dict[str, int]:
        return {name: count * self._MOST for name, count in self.files.items()}

    def _check(self, contents: Mapping[str, bytes], md5: str | None) -> None:
        if md5 == self.md5:
            return
        if md5 is None:
            sums = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
            wrong = [name for name in self.files if sums[name] != self.sums[name]]
            if not wrong:
                return
            what = (
                f"{wrong[0]} has the MD5 {sums[wrong[0]]}, not the official {self.sums[wrong[0]]}"
            )
        else:
            what = f"has the MD5 {md5}, not the official {self.md5}"
        raise ValueError(
            f"{what}; a pickle is read only if it is the official one, so use the binary version"
        )

    def _parse(self, name: str, content: bytes) -> Images:
        batch = _unpickled(name, content)
        images, labels = batch.get(b"data"), batch.get(self.label_key)
        count = self.files[name]
        if (
            not isinstance(images, np.ndarray)
            or images.dtype != np.uint8
            or images.shape != (count, _PIXELS)
        ):
            raise ValueError(f"{name} has no images of the shape ({count}, {_PIXELS})")
        if not isinstance(labels, list) or len(labels) != count:
            raise ValueError(f"{name} has no {count} labels")
        if not all(type(label) is int for label in labels):
            raise ValueError(f"{name} has labels that are no whole numbers")
        return Images(images, np.array(labels, dtype=np.int64))


def _unpickled(name: str, content: bytes) -> dict[Any, Any]:
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a pickle can raise anything
        raise ValueError(f"{name} is no pickle of arrays ({error})") from None
    if not isinstance(batch, dict):
        raise ValueError(f"{name} is no pickled dictionary")
    return batch


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows nothing but what NumPy's arrays are made of."""

    # How a pickle makes an array; NumPy has moved it from one private module to another.
    _ARRAYS: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ARRAYS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


DIGITS = tuple("0123456789")
CLASSES_10 = tuple(
    "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
)
CLASSES_100 = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
    mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
    porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
    snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """.split()  # noqa: SIM905
)

_BATCHES = {f"data_batch_{number}": 10_000 for number in range(1, 6)} | {"test_batch": 10_000}

# In the order in which they are looked for. The first of each is the one to download.
LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "cifar10": (
        Binary(
            archive="cifar-10-binary.tar.gz",
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            folder="cifar-10-batches-bin",
            files={f"{name}.bin": count for name, count in _BATCHES.items()},
            class_names=CLASSES_10,
            label_bytes=1,
            names="batches.meta.txt",
        ),
        Pickled(
            archive="cifar-10-python.tar.gz",
            md5="c58f30108f718f92721af3b95e74349a",
            folder="cifar-10-batches-py",
            files=_BATCHES,
            class_names=CLASSES_10,
            sums={
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                "test_batch": "40351d587109b95175f43aff81a1287e",
            },
            label_key=b"labels",
        ),
    ),
    "cifar100": (
        Binary(
            archive="cifar-100-binary.tar.gz",
            md5="03b5dce01913d631647c71ecec9e9cb8",
            folder="cifar-100-binary",
            files={"train.bin": 50_000, "test.bin": 10_000},
            class_names=CLASSES_100,
            label_bytes=2,
            names="fine_label_names.txt",
        ),
        Pickled(
            archive="cifar-100-python.tar.gz",
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            folder="cifar-100-python",
            files={"train": 50_000, "test": 10_000},
            class_names=CLASSES_100,
            sums={
                "train": "16019d7e3df5f24257cddd939b257f8d",
                "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            },
            label_key=b"fine_labels",
        ),
    ),
}
