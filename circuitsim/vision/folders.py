"""Where image files of a data set lie, and of which class they are.

Three layouts: folders of classes, TinyImageNet and ImageNet. Files and folders whose names begin
with a dot, and others that systems leave behind, are not looked at; links are followed. Names of
classes are compared in Unicode's composed form, as one system writes "é" as one letter and another
as two.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circuitsim.checks.validation import ParameterError
from circuitsim.files import open_regular
from circuitsim.public import own
from circuitsim.vision.pictures import EXTENSIONS

__dir__ = own(__name__)

_LEFT_BEHIND = ("thumbs.db", "desktop.ini", "__macosx", "icon\r")
_TRAIN, _TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation")
_LIST = 2**26  # bytes of a list of labels, at most

LIST_NAMES = (
    "LOC_val_solution.csv",
    "val_annotations.txt",
    "val.txt",
    "ILSVRC2012_validation_ground_truth.txt",
    "imagenet_2012_validation_synset_labels.txt",
)


@dataclass
class Part:
    """Image files with their classes.

    Attributes
    ----------
    paths : list of str
    labels : list of int
    """

    paths: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


@dataclass
class Found:
    """The files of a data set.

    Attributes
    ----------
    root : Path
        The directory that they are in.
    class_names : tuple of str
    train, test : Part
        ``test`` is None where there is one level of folders only.
    notes : list of str
        What the user may not expect.
    """

    root: Path
    class_names: tuple[str, ...]
    train: Part
    test: Part | None
    notes: list[str] = field(default_factory=list)


def class_folders(root: Path) -> Found:
    """Find ``train/CLASS/*.png`` with ``test/`` or ``val/``, or ``CLASS/*.png`` alone.

    Raises
    ------
    ParameterError
        If there are no such folders, a class has no images, or one to test with is unknown.
    """
    folders = _folders(_directory(root))
    named: dict[str, list[str]] = {}
    for name in folders:
        named.setdefault(name.lower(), []).append(name)
    trains = [name for lower in _TRAIN for name in named.get(lower, [])]
    tests = [name for lower in _TEST for name in named.get(lower, [])]
    if not trains:
        if tests and set(folders) <= set(tests):
            raise _refused(root, f"has {tests[0]}/ and no train/")
        return _one_level(root, folders)
    notes = []
    others = sorted(set(folders) - {trains[0], *tests[:1]})
    if others:
        notes.append(f"not used: {', '.join(f'{_shown(name)}/' for name in others)} in {root}")
    train_root = folders[trains[0]]
    classes = _folders(train_root)
    train = _of_classes(train_root, classes, list(classes), notes)
    test = None
    if tests:
        test_root = folders[tests[0]]
        tested = _folders(test_root)
        if not tested and _files(test_root, []):
            raise _refused(
                test_root,
                "has images and no folders of classes, so that nothing tells what they show; move "
                "it away to set a share of train/ aside",
            )
        test = _tested(test_root, tested, list(classes), notes, trains[0])
        missing = [name for name in classes if name not in tested]
        if missing:
            notes.append(
                f"{len(missing)} classes have no images to test with: {_some(missing)}"
                if len(missing) > 1
                else f"the class {_shown(missing[0])} has no images to test with"
            )
    return Found(root, tuple(map(_shown, classes)), train, test, notes)


def _one_level(root: Path, folders: Mapping[str, Path]) -> Found:
    notes: list[str] = []
    if not folders and _files(root, []):
        raise _refused(
            root, "has images and no folders; put those of each class into one of its own"
        )
    if not folders:
        raise _refused(root, "holds no folders of images, one for each class")
    if len(folders) == 1:
        (only,) = folders
        inner = list(_folders(folders[only]))
        hint = f"; name {root / only}, which has {len(inner)}" if len(inner) > 1 else ""
        raise _refused(root, f"has one folder, {_shown(only)}, and so one class{hint}")
    train = _of_classes(root, folders, list(folders), notes)
    return Found(root, tuple(map(_shown, folders)), train, None, notes)


def tiny_imagenet(root: Path) -> Found:
    """Find TinyImageNet in its official layout; its validation images are those to test with.

    ``wnids.txt`` has the classes, ``train/CLASS/images/`` their images, and
    ``val/val_annotations.txt`` the classes of those in ``val/images/`` (or these lie in folders).

    Raises
    ------
    ParameterError
        If something is missing or does not fit.
    """
    root = _nested(root, ("tiny-imagenet-200",), "wnids.txt", "tiny-imagenet-200.zip")
    names = _lines(root / "wnids.txt")
    classes = _folders(_directory(root / "train"))
    notes: list[str] = []
    _same_classes(root / "train", classes, names)
    # Boxes are listed beside the images of each class: nobody misses them.
    train = _of_classes(root / "train", classes, names, [])
    val = _directory(root / "val")
    if (val / "val_annotations.txt").exists():
        rows = [line.split() for line in _lines(val / "val_annotations.txt")]
        test = _of_list(
            val / "images", {row[0]: row[1] for row in rows if len(row) > 1}, names,
            val / "val_annotations.txt",
        )  # fmt: skip
    else:
        tested = _folders(val)
        if not set(tested) & set(names):
            raise _refused(val, "has no val_annotations.txt, nor folders of classes")
        test = _tested(val, tested, names, notes)
    return Found(root, tuple(names), train, test, notes)


def imagenet(root: Path) -> Found:
    """Find ImageNet (ILSVRC 2012) as it is usually laid out; validation images are to test with.

    ``train/WNID/*.JPEG``, and ``val/WNID/*.JPEG`` or all in ``val/`` with an official list of their
    classes beside it: ``LOC_val_solution.csv``, ``val.txt`` (a name and a class in each line), the
    development kit's ``ILSVRC2012_validation_ground_truth.txt`` with ``meta.mat``, or
    ``imagenet_2012_validation_synset_labels.txt``. Any number of classes will do.

    Raises
    ------
    ParameterError
        If something is missing or does not fit.
    """
    root = _nested(
        root, ("ILSVRC/Data/CLS-LOC", "imagenet", "ILSVRC2012", "ILSVRC"), "train",
        "ILSVRC2012_img_train.tar",
    )  # fmt: skip
    notes: list[str] = []
    classes = _folders(_directory(root / "train"))
    if not classes:
        raise _refused(root / "train", "holds no folders, one for each class")
    names = list(classes)
    train = _of_classes(root / "train", classes, names, notes)
    val = _directory(root / "val")
    folders = _folders(val)
    if folders:
        test = _tested(val, folders, names, notes)
    else:
        test = _flat_validation(root, val, names)
    return Found(root, tuple(map(_shown, names)), train, test, notes)


def _flat_validation(root: Path, val: Path, names: Sequence[str]) -> Part:
    for place in (val, root, *root.parents[:3], *(root.glob("ILSVRC2012_devkit*/data"))):
        for name in LIST_NAMES:
            if (place / name).is_file():
                return _of_list(val, _classes_in(place / name, val, names), names, place / name)
    raise _refused(
        val, f"holds images in no folders, and none of {', '.join(LIST_NAMES)} tells their classes"
    )


def _classes_in(path: Path, val: Path, names: Sequence[str]) -> dict[str, str]:
    """From the names of validation images to their classes, as one of the official lists says."""
    lines = _lines(path)
    if path.suffix == ".csv":
        rows = [line.replace(",", " ").split() for line in lines[1:]]
    elif len(lines[0].split()) > 1:
        rows = [line.split() for line in lines]
    else:
        images = sorted(_files(val, []), key=lambda p: os.path.basename(p))
        if len(images) != len(lines):
            raise _refused(path, f"has {len(lines)} lines for {len(images)} images")
        rows = [[os.path.basename(i), *line.split()] for i, line in zip(images, lines, strict=True)]
        if lines[0].strip().isdecimal():
            wnids = _of_numbers(path.parent / "meta.mat")
            rows = [[image, wnids.get(number, number)] for image, number in rows]
    short = [row for row in rows if len(row) < 2]
    if short:
        raise _refused(path, f"has a line that names no class, {' '.join(short[0])!r}")
    if all(row[1].isdecimal() for row in rows):  # the class's number in the order of names
        rows = [
            [row[0], names[int(row[1])] if int(row[1]) < len(names) else row[1]] for row in rows
        ]
    return {os.path.splitext(row[0])[0]: row[1] for row in rows}


def _of_numbers(path: Path) -> dict[str, str]:
    """WordNet's name of each number, as the development kit has it."""
    from scipy.io import loadmat

    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > 2**21:
                raise ValueError("it is larger than the official one")
            synsets = loadmat(file, variable_names=["synsets"], squeeze_me=True)["synsets"]
        return {str(int(s["ILSVRC2012_ID"])): str(s["WNID"]) for s in synsets}
    except Exception as error:  # the library's are of any kind
        raise _refused(
            path, f"must be the development kit's, for the numbers of classes ({error})"
        ) from None


def _of_list(folder: Path, classes: Mapping[str, str], names: Sequence[str], listed: Path) -> Part:
    """Images of one folder, with the classes that a list says."""
    known = {os.path.splitext(name)[0]: wnid for name, wnid in classes.items()}
    number = {name: n for n, name in enumerate(names)}
    part = Part()
    for path in _files(_directory(folder), []):
        stem = os.path.splitext(os.path.basename(path))[0]
        if stem not in known:
            raise _refused(listed, f"does not tell the class of {_shown(os.path.basename(path))}")
        if known[stem] not in number:
            raise _refused(
                listed,
                f"gives {_shown(stem)} the class {_shown(known[stem])}, which train/ has not",
            )
        part.paths.append(path)
        part.labels.append(number[known[stem]])
    missing = len(known) - len(part.paths)
    if missing or not part.paths:
        raise _refused(folder, f"lacks {missing} of the {len(known)} images in {listed.name}")
    return part


def _of_classes(
    root: Path, folders: Mapping[str, Path], names: Sequence[str], notes: list[str]
) -> Part:
    part = Part()
    strays: list[str] = []
    empty: list[str] = []
    for label, name in enumerate(names):
        if name not in folders:
            continue
        before = len(strays)
        paths = _files(folders[name], strays)
        if not paths:
            inside = f" (only {_shown(strays[before])})" if strays[before:] else ""
            empty.append(f"{_shown(name)}{inside}")
        part.paths += paths
        part.labels += [label] * len(paths)
    if empty:
        what = f"has no images of the class {empty[0]}" if len(empty) == 1 else (
            f"has no images of {len(empty)} classes, {_some(empty)}"
        )  # fmt: skip
        raise _refused(root, f"{what}; add some, or remove the folder")
    if strays:
        kinds = Counter(os.path.splitext(name)[1].lower() or "no ending" for name in strays)
        told = ", ".join(f"{n} with {kind}" for kind, n in kinds.most_common(3))
        notes.append(
            f"left out in {root}, being no images by their names: {told}, such as "
            f"{_shown(strays[0])}"
        )
    return part


def _tested(
    root: Path, folders: Mapping[str, Path], names: Sequence[str], notes: list[str],
    trained: str = "train",
) -> Part:  # fmt: skip
    """Images to test with, in folders of classes that there are images to learn from of."""
    unknown = sorted(set(folders) - set(names))
    if unknown:
        raise _refused(root, f"has the class {_shown(unknown[0])}, which {trained}/ has not")
    return _of_classes(root, folders, names, notes)


def _files(folder: Path, strays: list[str]) -> list[str]:
    """Image files in a folder and those within it, in the order of their names."""
    found: list[str] = []
    for path in _walk(os.fspath(folder), set()):
        if os.path.splitext(path)[1].lower() in EXTENSIONS:
            found.append(path)
        else:
            strays.append(os.path.basename(path))
    return found


def _walk(folder: str, within: set[tuple[int, int]]) -> Iterator[str]:
    stat = os.stat(folder)
    here = (stat.st_dev, stat.st_ino)
    if here in within:  # a link to a folder around it
        return
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: _order(entry.name))
    for entry in entries:
        if _ours(entry.name):
            if entry.is_dir():
                yield from _walk(entry.path, within | {here})
            else:
                yield entry.path


def _folders(root: Path) -> dict[str, Path]:
    """Folders in a directory, by their names in Unicode's composed form and in their order."""
    with os.scandir(root) as found:
        names = [entry.name for entry in found if _ours(entry.name) and entry.is_dir()]
    folders: dict[str, Path] = {}
    for name in sorted(names, key=_order):
        if _composed(name) in folders:
            raise _refused(root, f"has two folders that are written {_shown(name)}; join them")
        folders[_composed(name)] = root / name
    return folders


def _order(name: str) -> tuple[str, str]:
    return _composed(name), name


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _ours(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _LEFT_BEHIND


def _nested(root: Path, inner: Sequence[str], sign: str, archive: str) -> Path:
    """Where a data set is: here or in one of the folders in which archives have it."""
    for place in (root, *(root / name for name in inner)):
        if (place / sign).exists():
            return place
    packed = [path for path in (root, *(root.parents[:1])) if (path / archive).is_file()]
    if packed:
        raise _refused(root, f"has no {sign}; unpack {packed[0] / archive} first")
    raise _refused(_directory(root), f"has no {sign}, neither by itself nor in {inner[0]}/")


def _same_classes(root: Path, folders: Mapping[str, Path], names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name, n in Counter(names).items() if n > 1)
        raise _refused(root.parent / "wnids.txt", f"has {twice} twice")
    for what, which in (("lacks", set(names) - set(folders)), ("has", set(folders) - set(names))):
        if which:
            raise _refused(root, f"{what} the class {_shown(min(which))}, unlike wnids.txt")


def _lines(path: Path) -> list[str]:
    try:
        with open_regular(path) as file:
            content = file.read(_LIST + 1)
        if len(content) > _LIST:
            raise ValueError("it is larger than any official one")
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise _refused(path, f"cannot be read ({why})") from None
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        raise _refused(path, "is empty")
    return lines


def _directory(path: Path) -> Path:
    if not path.is_dir():
        what = "is no directory" if path.exists() else "there is no such directory"
        raise _refused(path, what)
    return path


def _refused(path: Path, rule: str) -> ParameterError:
    where = os.fsencode(path).decode("utf-8", "backslashreplace")
    return ParameterError("data", f"{_shown(path.name)}: {rule}", where)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(_shown(name) for name in names[:3])
    return f"{shown}, ..." if len(names) > 3 else shown


def _shown(name: str) -> str:
    """Show a name, whatever its bytes are, on one line."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def set_aside(labels: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which images are to test with: a share of each class, always the same ones.

    At least one image of each class that has two, and never all.
    """
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        of_label = np.flatnonzero(labels == label)
        number = min(max(1, round(share * len(of_label))), len(of_label) - 1)
        order = np.random.default_rng([0, len(of_label)]).permutation(of_label)
        chosen[order[:number]] = True
    return chosen


LAYOUTS: dict[str, Callable[[Path], Found]] = {
    "folder": class_folders,
    "tiny-imagenet": tiny_imagenet,
    "imagenet": imagenet,
}
