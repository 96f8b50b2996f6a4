"""Images of files: decoded once into a file that is mapped into memory, or again and again.

A set that is not large when decoded is kept in the cache, in ``images/`` of ``CIRCUITSIM_CACHE``
(by default the user's cache directory): the bytes of all images, and beside them a description with
their checksum, which is compared each time. The name is a digest of all that the bytes depend on:
names, sizes and times of the files, and how they are decoded. Whatever is there may be deleted. A
larger set is decoded as it is needed, by other processes ahead of training.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray

from circuitsim.checks.validation import ParameterError
from circuitsim.files import (
    atomic_write,
    entries,
    private,
    read_text,
    remove_abandoned,
    write_text,
)
from circuitsim.files.locks import locked
from circuitsim.public import own
from circuitsim.vision.decoding import Ahead, Decoder
from circuitsim.vision.pictures import Form

__dir__ = own(__name__)

LARGEST = 4 * 2**30  # bytes of images that are kept decoded
_VERSION = 1  # of what is kept
_LITTLE = 2**25  # bytes of files, and of what is to be looked up, that are not worth a process
_MOST_WORKERS = 8  # unless more are asked for
_OF_FILE = 2**11  # bytes that opening a file is worth
_SHOWN = 3  # names in a message

Advanced = Callable[[int, int], None]


class Lazy:
    """Images that are read when they are asked for: as an array (image, row, column, channel).

    Parameters
    ----------
    source : ndarray or Files
        Where images come from, by number.
    index : array of int
        Which of them these are.

    Notes
    -----
    Indexing by a slice, or an array of numbers or truth values, gives an array, of these images and
    no others; `numpy.asarray` gives all.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, source: NDArray[np.uint8] | Files, index: NDArray[np.int64]) -> None:
        self._source, self._index = source, index

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Images, rows, columns and channels."""
        rows, columns, channels = self._source.shape[1:]
        return len(self._index), rows, columns, channels

    @property
    def size(self) -> int:
        """Number of bytes."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, chosen: Any) -> NDArray[np.uint8]:
        if isinstance(chosen, tuple):
            return self[chosen[0]][(slice(None), *chosen[1:])]
        found = self._index[chosen]
        if np.ndim(found) == 0:
            return self._source[np.array([found])][0]
        return self._source[found]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[n] for n in range(len(self)))

    def subset(self, chosen: Any) -> Lazy:
        """Return some of the images, without reading them."""
        return Lazy(self._source, self._index[chosen])

    def announce(self, groups: Iterable[Any]) -> None:
        """Say in which groups, and in which order, images will be asked for.

        Those of files are decoded ahead. What is returned does not depend on it.
        """
        if isinstance(self._source, Files):
            self._source.announce(self._index[group] for group in groups)

    def identity(self) -> bytes | None:
        """What tells these from other images without reading them; None if they must be read."""
        if not isinstance(self._source, Files):
            return None
        return hashlib.sha256(self._source.identity + self._index.astype("<i8").tobytes()).digest()


def announce(images: Any, groups: Iterable[Any]) -> None:
    """Say in which groups images will be asked for, if that matters; see `Lazy.announce`."""
    if isinstance(images, Lazy):
        images.announce(groups)


class Files:
    """Image files as an array, decoded as they are asked for.

    Parameters
    ----------
    listed : Listed
    form : Form
    decoder : Decoder
    """

    def __init__(self, listed: Listed, form: Form, decoder: Decoder) -> None:
        self.shape = (len(listed.paths), *form.shape)
        self.identity = listed.digest(form)
        self._root, self._paths = listed
        self._ahead = Ahead(decoder, listed.paths, form)

    def announce(self, groups: Iterable[NDArray[np.int64]]) -> None:
        """See `Lazy.announce`."""
        self._ahead.announce(group.tolist() for group in groups)

    def __getitem__(self, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        numbers = chosen.tolist()
        for place, answer in enumerate(self._ahead.take(numbers)):
            if isinstance(answer, str):
                raise unreadable(self._root, [(self._paths[numbers[place]], answer)], _WAY_OUT)
            images[place] = answer
        return images


class Listed(NamedTuple):
    """Files of images.

    Attributes
    ----------
    root : str
        The directory that they are in.
    paths : list of str
    """

    root: str
    paths: list[str]

    def digest(self, form: Any) -> bytes:
        """Return a digest of all that their decoded bytes depend on."""
        digest = hashlib.sha256(repr((_VERSION, PIL.__version__, form)).encode())
        for path in self.paths:
            stat = os.stat(path) if os.path.exists(path) else None
            known = (stat.st_size, stat.st_mtime_ns) if stat else None
            digest.update(repr((os.path.relpath(path, self.root), known)).encode())
        return digest.digest()


@dataclass(frozen=True)
class Decoded:
    """What has become of a list of files.

    Attributes
    ----------
    images : ndarray or Lazy
        Of the files that could be read.
    read : array of bool, shape (file,)
        Which could.
    bad : list of (str, str)
        Those that could not, and why.
    """

    images: Any
    read: NDArray[np.bool_]
    bad: list[tuple[str, str]]


def decode(
    listed: Listed,
    size: tuple[int, int] | None,
    channels: int | None,
    *,
    skip_bad: bool = False,
    stream: bool | None = None,
    workers: int | None = None,
    advanced: Advanced | None = None,
) -> Decoded:
    """Bring files to one form.

    Parameters
    ----------
    listed : Listed
        The files.
    size : tuple of int, optional
        Rows and columns to which the middle of each image is brought; by default all files must
        have as many as the first.
    channels : {1, 3}, optional
        By default 1 if all files are grey, else 3.
    skip_bad : bool
        Leave out what cannot be read.
    stream : bool, optional
        Whether to decode files when they are asked for rather than to keep what was decoded; by
        default if it is more than `LARGEST` bytes.
    workers : int, optional
        Processes that decode; by default one for each core, and none for few files.
    advanced : callable, optional
        Called with the number of files done and that of all.

    Raises
    ------
    ParameterError
        If files cannot be read, or differ in size.
    OSError
        If nothing can be written that is as large as the images.
    """
    decoder = Decoder(_workers(workers, listed))
    try:
        found = _kept(listed, size, channels, skip_bad, stream, decoder, advanced)
        if isinstance(found, Decoded):
            return found
        form = found
        everything = np.arange(len(listed.paths))
        bad: list[tuple[str, str]] = []
        if skip_bad:
            _, bad = _write(None, listed, form, True, decoder, advanced)
        read = ~np.isin(np.array(listed.paths, object), [path for path, _ in bad])
        return Decoded(Lazy(Files(listed, form, decoder), everything[read]), read, bad)
    finally:
        decoder.close()  # started again when images are asked for


def unreadable(root: str, bad: Sequence[tuple[str, str]], way_out: str) -> ParameterError:
    """Return the error that names files which cannot be read."""
    shown = "; ".join(f"{_name(path)}: {why}" for path, why in bad[:_SHOWN])
    more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    number = "one file" if len(bad) == 1 else f"{len(bad)} files"
    return ParameterError("data", f"{number} cannot be read{way_out} ({shown}{more})", root)


_WAY_OUT = "; --skip-bad (skip_bad=True) goes on without"


def _name(path: str) -> str:
    return os.fsencode(os.path.join(*Path(path).parts[-2:])).decode("utf-8", "backslashreplace")


def _workers(given: int | None, listed: Listed) -> int:
    if given is not None:
        return given
    if (
        sum(_OF_FILE + (os.path.getsize(p) if os.path.exists(p) else 0) for p in listed.paths)
        <= _LITTLE
    ):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, _MOST_WORKERS)


def _form(
    listed: Listed, size: tuple[int, int] | None, channels: int | None, decoder: Decoder
) -> Form:
    """Find the form of files; those that cannot be read do not count."""
    if size is not None and channels is not None:
        return Form(*size, channels, resize=True)
    first, found = None, channels
    bad: list[tuple[str, str]] = []
    done = 0
    for group in decoder.all(listed.paths, None):
        for path, answer in zip(listed.paths[done : done + len(group)], group, strict=True):
            if isinstance(answer, str):
                bad.append((path, answer))
                continue
            first = first or (path, answer[:2])
            found = 3 if answer[2] == 3 and channels is None else found
            if size is None and answer[:2] != first[1]:
                raise ParameterError(
                    "image_size",
                    "must be given for images of several sizes: "
                    f"{_name(first[0])} has {first[1][0]} x {first[1][1]} pixels, {_name(path)} "
                    f"{answer[0]} x {answer[1]}",
                    None,
                )
        done += len(group)
        if size is not None and found == 3:
            break
    if first is None:
        raise unreadable(listed.root, bad, "")
    rows, columns = first[1] if size is None else size
    return Form(rows, columns, 1 if found is None else found, resize=size is not None)


def _kept(
    listed: Listed,
    size: tuple[int, int] | None,
    channels: int | None,
    skip_bad: bool,
    stream: bool | None,
    decoder: Decoder,
    advanced: Advanced | None,
) -> Decoded | Form:
    """Images decoded before, or now; only their form if they are not to be kept."""
    if stream:
        return _form(listed, size, channels, decoder)
    key = listed.digest((size, channels, skip_bad)).hex()
    home = _home()
    if home is None:
        form = _form(listed, size, channels, decoder)
        if stream is None and _bytes(listed, form) > LARGEST:
            return form
        with tempfile.TemporaryFile(prefix="circuitsim-") as file:
            found, bad = _write(file, listed, form, skip_bad, decoder, advanced)
            return _mapped(file, listed, form, found, bad)
    place = home / key
    with locked(place.with_suffix(".lock"), wait=True):
        known = _stored(place, listed)
        if known is not None:
            return known
        form = _form(listed, size, channels, decoder)
        if stream is None and _bytes(listed, form) > LARGEST:
            return form
        remove_abandoned(entries(home))
        images = place.with_suffix(".images")
        with atomic_write(images) as temporary, temporary.open("wb+") as file:
            found, bad = _write(file, listed, form, skip_bad, decoder, advanced)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        content = {"form": astuple(form), "sha256": digest, "images": found, "bad": bad}
        write_text(place.with_suffix(".json"), json.dumps(content) + "\n")
        with place.with_suffix(".images").open("rb") as file:
            return _mapped(file, listed, form, found, bad)


def _bytes(listed: Listed, form: Form) -> int:
    return len(listed.paths) * math.prod(form.shape)


def _home() -> Path | None:
    """The directory of images that were decoded before; None if it cannot be written."""
    with suppress(OSError):
        home = private.cache(executable=False) / "images"
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=home):
            return home if private.is_private(home) else None
    return None


def _stored(place: Path, listed: Listed) -> Decoded | None:
    """What was kept, if it is whole."""
    with suppress(OSError, ValueError, TypeError, KeyError, IndexError):
        content = json.loads(read_text(place.with_suffix(".json"), at_most=2**26))
        form, found = Form(*content["form"]), int(content["images"])
        bad = [(str(path), str(why)) for path, why in content["bad"]]
        with place.with_suffix(".images").open("rb") as file:
            size = found * math.prod(form.shape)
            if os.fstat(file.fileno()).st_size != size or found + len(bad) != len(listed.paths):
                return None
            if hashlib.file_digest(file, "sha256").hexdigest() != content["sha256"]:
                return None
            return _mapped(file, listed, form, found, bad)
    return None


def _mapped(
    file: Any, listed: Listed, form: Form, found: int, bad: Sequence[tuple[str, str]]
) -> Decoded:
    images = np.memmap(file, np.uint8, "r", shape=(found, *form.shape))
    read = ~np.isin(np.array(listed.paths, object), [path for path, _ in bad])
    return Decoded(images, read, list(bad))


def _write(
    file: BinaryIO | None,
    listed: Listed,
    form: Form,
    skip_bad: bool,
    decoder: Decoder,
    advanced: Advanced | None,
) -> tuple[int, list[tuple[str, str]]]:
    """Write the pixels of all files, or only look who has some.

    Returns of how many files, and which could not be read.
    """
    bad: list[tuple[str, str]] = []
    done = found = 0
    for group in decoder.all(listed.paths, form):
        for path, answer in zip(listed.paths[done : done + len(group)], group, strict=True):
            if isinstance(answer, str):
                bad.append((path, answer))
            elif skip_bad or not bad:
                found += 1
                if file is not None:
                    file.write(answer.tobytes())
        done += len(group)
        if advanced is not None:
            advanced(done, len(listed.paths))
    if bad and not (skip_bad and found):
        raise unreadable(listed.root, bad, _WAY_OUT if found else "")
    if file is not None:
        file.flush()
    return found, bad


@contextmanager
def shown_progress() -> Iterator[Advanced]:
    """Give a callable that shows on a terminal how many files are decoded; silent in a pipe."""
    from tqdm import tqdm

    with tqdm(
        disable=None, leave=False, ncols=79, nrows=20,
        bar_format="decoding images: {n}/{total} |{bar}| {remaining} left",
    ) as bar:  # fmt: skip

        def advanced(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        yield advanced
