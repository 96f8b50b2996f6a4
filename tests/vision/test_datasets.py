"""Image files: read whole when they are right, refused with one clear error when they are not."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import socket
import struct
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuitsim.checks.validation import ParameterError
from circuitsim.vision import cifar, datasets

SMALL = {"data_batch_1": 3, "data_batch_2": 3, "test_batch": 2, "train": 5, "test": 2}


def images_of(count, classes, rng):
    """Random images (image, row, column, channel) and labels."""
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return images, rng.integers(0, classes, count)


def planes(images):
    """Images as CIFAR has them: channel by channel, (image, byte)."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def array_pickle(array):
    """Opcodes of a pickled array of bytes, as NumPy 1 and Python 2 wrote them."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    def number(value):
        return b"J" + struct.pack("<i", value)

    content = array.tobytes()
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) * 2 + number(0) + b"tb"
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"t"
    made += text(b"b") + b"tR"
    shape = b"(" + b"".join(map(number, array.shape)) + b"t"
    data = b"T" + struct.pack("<i", len(content)) + content
    return made + b"(" + number(1) + shape + dtype + b"I00\n" + data + b"tb"


def pickled(images, labels, key):
    """A file of CIFAR's python version."""
    listed = b"(" + b"".join(b"K" + bytes([label]) for label in labels) + b"l"
    name = b"U" + bytes([len(key)]) + key
    return b"\x80\x02}(U\x04data" + array_pickle(planes(images)) + name + listed + b"u."


class Source:
    """Files of a small data set in one of the layouts, and what should be read from them."""

    def __init__(self, name, number, rng):
        layout = cifar.LAYOUTS[name][number]
        stems = {file: SMALL.get(file.removesuffix(".bin")) for file in layout.files}
        self.layout = replace(layout, files={f: n for f, n in stems.items() if n})
        self.name, self.files = name, {}
        classes = len(layout.class_names)
        self.expected = {}
        for file, count in self.layout.files.items():
            images, labels = images_of(count, classes, rng)
            labels[0] = classes - 1
            self.expected[file] = images, labels
            if isinstance(layout, cifar.Binary):
                coarse = rng.integers(0, 20, (count, layout.label_bytes - 1))
                columns = [coarse, labels[:, np.newaxis], planes(images)]
                self.files[file] = np.concatenate(columns, axis=1).astype(np.uint8).tobytes()
            else:
                self.files[file] = pickled(images, labels, layout.label_key)
        if isinstance(layout, cifar.Binary):
            self.files[layout.names] = ("\n".join(layout.class_names) + "\n\n").encode()

    def official(self):
        """The layout, with the present files' checksums as the official ones."""
        if not isinstance(self.layout, cifar.Pickled):
            return self.layout
        sums = {file: hashlib.md5(content).hexdigest() for file, content in self.files.items()}
        return replace(self.layout, sums=sums)

    def unpack(self, directory, official=True):
        folder = directory / self.layout.folder
        folder.mkdir(parents=True)
        for file, content in self.files.items():
            (folder / file).write_bytes(content)
        return self.official() if official else self.layout

    def pack(self, directory, official=True, extra=()):
        content = packed(self.files, self.layout.folder, extra)
        (directory / self.layout.archive).write_bytes(content)
        return replace(self.layout, md5=hashlib.md5(content).hexdigest() if official else "0" * 32)


def packed(files, folder, extra=()):
    """A .tar.gz archive; ``extra`` are further members with their content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        for file, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member, content in extra:
            if len(content) < member.size:  # it lies
                archive.fileobj.write(member.tobuf())
                archive.offset += 512
            else:
                archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


LAYOUTS = [("cifar10", 0), ("cifar10", 1), ("cifar100", 0), ("cifar100", 1)]


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Load a data set, with one layout only, from the test's directory."""

    def loaded(name, layout):
        monkeypatch.setattr(cifar, "LAYOUTS", {name: (layout,)})
        return datasets.load(name, tmp_path)

    return loaded


@pytest.mark.parametrize("way", ["unpack", "pack"])
@pytest.mark.parametrize(("name", "number"), LAYOUTS)
def test_reads_what_was_written(name, number, way, tmp_path, rng, load):
    source = Source(name, number, rng)
    dataset = load(name, getattr(source, way)(tmp_path))
    *train, test = source.expected.values()
    for part, expected in ((dataset.train, train), (dataset.test, [test])):
        np.testing.assert_array_equal(part.images, np.concatenate([e[0] for e in expected]))
        np.testing.assert_array_equal(part.labels, np.concatenate([e[1] for e in expected]))
        assert part.images.dtype == np.uint8
        assert part.labels.dtype == np.int64
    assert dataset.class_names == source.layout.class_names
    assert str(tmp_path) in dataset.source
    with pytest.raises(ValueError, match="read-only"):
        dataset.train.images[0] = 0


def test_the_folder_itself_may_be_named(tmp_path, rng, monkeypatch):
    source = Source("cifar10", 0, rng)
    monkeypatch.setattr(cifar, "LAYOUTS", {"cifar10": (source.unpack(tmp_path),)})
    monkeypatch.setenv("CIRCUITSIM_DATA", str(tmp_path / source.layout.folder))
    assert len(datasets.load("cifar10").train) == 6


@pytest.mark.slow
def test_full_size(tmp_path):
    """The official sizes, with files that are all zeros and take no space."""
    layout = cifar.LAYOUTS["cifar10"][0]
    for file in layout.files:
        with (tmp_path / file).open("wb") as stream:
            stream.truncate(30_730_000)
    dataset = datasets.load("cifar10", tmp_path)
    assert dataset.train.images.shape == (50_000, 32, 32, 3)
    assert dataset.test.images.shape == (10_000, 32, 32, 3)


def refused(load, name, layout, *texts):
    with pytest.raises(ParameterError) as caught:
        load(name, layout)
    message = str(caught.value)
    assert message.startswith("data: ")
    assert "\n" not in message
    for text in texts:
        assert text in message, message


@pytest.mark.parametrize("way", ["unpack", "pack"])
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c[:-1], "has 9218 bytes and must have 9219"),
        (lambda c: c + b"x", "9219"),
        (lambda c: b"", "has 0 bytes and must have 9219"),
        (lambda c: c[:3073] + b"\x0a" + c[3074:], "label 10; labels are from 0 to 9"),
        (None, "lacks data_batch_2.bin"),
    ],
)
def test_wrong_binary_files(change, text, way, tmp_path, rng, load):
    source = Source("cifar10", 0, rng)
    file = "data_batch_2.bin"
    content = source.files.pop(file)
    if change is not None:
        source.files[file] = change(content)
    refused(load, "cifar10", getattr(source, way)(tmp_path), "data_batch_2.bin", text)


def test_other_classes(tmp_path, rng, load):
    source = Source("cifar10", 0, rng)
    source.files["batches.meta.txt"] = b"cat\ndog\n"
    refused(load, "cifar10", source.unpack(tmp_path), "batches.meta.txt has other classes")


def test_what_is_no_file(tmp_path, rng, load):
    source = Source("cifar10", 0, rng)
    layout = source.unpack(tmp_path)
    path = tmp_path / layout.folder / "data_batch_1.bin"
    path.unlink()
    os.mkfifo(path)
    refused(load, "cifar10", layout, "data_batch_1.bin: it is not a regular file")


def test_tampered_pickles_are_not_opened(tmp_path, rng, load, monkeypatch):
    monkeypatch.setattr(cifar, "_ArraysOnly", None)  # opening one would fail otherwise
    source = Source("cifar10", 1, rng)
    layout = source.unpack(tmp_path)
    path = tmp_path / layout.folder / "data_batch_2"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused(load, "cifar10", layout, "data_batch_2 has the MD5", "use the binary version")


def test_python_archives_must_be_official(tmp_path, rng, load, monkeypatch):
    monkeypatch.setattr(cifar, "_ArraysOnly", None)
    layout = Source("cifar100", 1, rng).pack(tmp_path, official=False)
    refused(load, "cifar100", layout, "has the MD5", "not the official 000", "binary version")


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (lambda path: pickle.dumps(Attack(path)), "asks for posix.mkdir"),
        (lambda path: pickle.dumps({"data": Attack(path)}, protocol=2), "asks for posix.mkdir"),
        (lambda path: b"cbuiltins\neval\n.", "asks for builtins.eval"),
        (lambda path: b"cnumpy\nload\n.", "asks for numpy.load"),
        (lambda path: b"cnumpy\nndarray.tofile\n.", "asks for numpy.ndarray.tofile"),
        (lambda path: pickle.dumps([1, 2]), "no pickled dictionary"),
        (lambda path: pickle.dumps({b"labels": [1, 2]}), "no images of the shape (2, 3072)"),
        (lambda path: b"\x80\x02}", "is no pickle of arrays"),
        (lambda path: b"", "is no pickle of arrays"),
    ],
)
def test_pickles_give_arrays_only(content, text, tmp_path, rng, load):
    """Even a pickle with the official checksum could do nothing else."""
    source = Source("cifar10", 1, rng)
    source.files["test_batch"] = content(tmp_path / "made")
    refused(load, "cifar10", source.unpack(tmp_path), "test_batch", text)
    assert not (tmp_path / "made").exists()


def test_wrong_content_of_pickles(tmp_path, rng, load):
    images, labels = images_of(2, 10, rng)
    for number, (content, text) in enumerate(
        [
            (pickled(images[:1], labels, b"labels"), "no images of the shape"),
            (pickled(images, labels[:1], b"labels"), "no 2 labels"),
            (pickled(images, labels, b"other"), "no 2 labels"),
            (pickled(images, np.array([1, 11]), b"labels"), "label 11"),
        ]
    ):
        source = Source("cifar10", 1, rng)
        source.files["test_batch"] = content
        directory = tmp_path / str(number)
        layout = source.unpack(directory)
        with pytest.raises(ParameterError, match=text):
            layout.read(*layout.places(directory))


def member(name, kind=tarfile.REGTYPE, link="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        (member("../data_batch_1.bin"), "a name that leads out of it, '../data_batch_1.bin'"),
        (member("a/../../b"), "a name that leads out"),
        (member("/etc/passwd"), "a name that leads out"),
        (member("x", tarfile.SYMTYPE, "/etc/passwd"), "no plain file, 'x'"),
        (member("data_batch_1.bin", tarfile.SYMTYPE, "/etc/passwd"), "no plain file"),
        (member("x", tarfile.LNKTYPE, "cifar-10-batches-bin/test_batch.bin"), "no plain file"),
        (member("x", tarfile.FIFOTYPE), "no plain file"),
        (member("x", tarfile.CHRTYPE), "no plain file"),
        (member("other/test_batch.bin", size=5), "test_batch.bin twice"),
        (member("readme.html", size=999_999_999_999), "claims 999999999999 bytes"),
        (member("a/data_batch_2.bin", size=999_999_999_999), "claims 999999999999 bytes"),
        (member("b", tarfile.XHDTYPE, size=999_999_999_999), "damaged or no .tar.gz archive"),
        (member("b", tarfile.GNUTYPE_LONGNAME, size=999_999_999_999), "damaged or no .tar.gz"),
        (member("y" * 500, tarfile.SYMTYPE), "yyy..."),
    ],
)
def test_hostile_archives(extra, text, tmp_path, rng, load):
    source = Source("cifar10", 0, rng)
    layout = source.pack(tmp_path, extra=[(extra, bytes(min(extra.size, 100)))])
    refused(load, "cifar10", layout, text)
    assert os.listdir(tmp_path) == [layout.archive]


@pytest.mark.parametrize("inside", ["test_batch.bin", "other"])
def test_bombs(inside, tmp_path, load, rng):
    """A small archive that unpacks to much more than the files: refused long before that."""
    source = Source("cifar10", 0, rng)
    source.files |= {inside: bytes(50_000_000)}
    layout = source.pack(tmp_path)
    assert (tmp_path / layout.archive).stat().st_size < 10**6
    refused(load, "cifar10", layout, "more than")


@pytest.mark.slow
def test_many_small_files(tmp_path, load, rng):
    """Which would be looked at one by one, a million in an archive of a megabyte."""
    source = Source("cifar10", 0, rng)
    layout = source.pack(tmp_path, extra=[(member(f"{n}"), b"") for n in range(1000)])
    refused(load, "cifar10", layout, "holds more than 1000 files")


def test_bomb_in_a_name(tmp_path, load, rng):
    """Long names are stored as members of their own, which readers like to read whole."""
    source = Source("cifar10", 0, rng)
    source.files = {"n" * 20_000_000: b""} | source.files
    refused(load, "cifar10", source.pack(tmp_path), "unpacks to more than")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        gzip.compress(b"no archive"),
        gzip.compress(bytes(10240)),
        packed({"a": b"b"}, "c")[:-20],
    ],
    # Parallel test processes must agree on names, and compressed bytes hold the time.
    ids=["empty", "text", "compressed text", "zeros", "cut"],
)
def test_what_is_no_archive(content, tmp_path, load, rng):
    layout = Source("cifar10", 0, rng).layout
    (tmp_path / layout.archive).write_bytes(content)
    refused(load, "cifar10", layout, layout.archive)


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(data=st.data())
def test_damaged_archives(data, tmp_path, monkeypatch):
    """Any flipped byte or cut is found, as gzip sums up all bytes; or else it changed nothing."""
    source = Source("cifar10", 0, np.random.default_rng(0))
    content = bytearray(packed(source.files, source.layout.folder))
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[at:]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    (tmp_path / source.layout.archive).write_bytes(content)
    monkeypatch.setattr(cifar, "LAYOUTS", {"cifar10": (source.layout,)})
    try:
        dataset = datasets.load("cifar10", tmp_path)
    except ParameterError:
        return
    test_images, test_labels = source.expected["test_batch.bin"]
    np.testing.assert_array_equal(dataset.test.images, test_images)
    np.testing.assert_array_equal(dataset.test.labels, test_labels)


def test_nothing_there(tmp_path):
    for directory, text in ((tmp_path, "holds no cifar10"), (tmp_path / "no", "no such directory")):
        with pytest.raises(ParameterError, match=text) as caught:
            datasets.load("cifar10", directory)
        assert "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz" in str(caught.value)
    with pytest.raises(ParameterError, match="must be one of cifar10, cifar100, digits, folder"):
        datasets.load("mnist")


def test_no_network(tmp_path, monkeypatch):
    def unreachable(*_):
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    with pytest.raises(OSError, match="cannot be downloaded") as caught:
        datasets.load("cifar10", tmp_path, download=True)
    assert f"put it into {tmp_path} by hand, from https://" in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("honest", [True, False])
def test_download(honest, tmp_path, monkeypatch, rng):
    """What comes is kept only if its checksum is the official one."""
    import pooch

    source = Source("cifar10", 0, rng)
    layout = source.pack(tmp_path, official=honest)
    content = (tmp_path / layout.archive).read_bytes()
    asked = []

    def fetch(self, url, output_file, _pooch, **_):
        asked.append(url)
        with open(output_file, "wb") as file:
            file.write(content)

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fetch)
    monkeypatch.setattr(cifar, "LAYOUTS", {"cifar10": (layout,)})
    there = tmp_path / "new" / "place"
    if honest:
        for _ in range(2):
            assert len(datasets.load("cifar10", there, download=True).train) == 6
        assert "official" in datasets.load("cifar10", there).source
    else:
        with pytest.raises(OSError, match="cannot be downloaded"):
            datasets.load("cifar10", there, download=True)
        assert os.listdir(there) == []
    assert asked == [f"https://www.cs.toronto.edu/~kriz/{layout.archive}"]


@pytest.mark.parametrize("half", ["archive", "folder"])
def test_half_of_a_download_is_fetched_again(half, tmp_path, monkeypatch, rng):
    source = Source("cifar10", 0, rng)
    layout = source.pack(tmp_path)
    archive = tmp_path / layout.archive
    whole = archive.read_bytes()
    if half == "archive":
        archive.write_bytes(whole[: len(whole) // 2])
    else:
        archive.unlink()
        source.files.pop("data_batch_2.bin")
        source.unpack(tmp_path)
    monkeypatch.setattr(cifar, "LAYOUTS", {"cifar10": (layout,)})
    with pytest.raises(ParameterError, match=r"delete .*, and have it fetched again \(--download"):
        datasets.load("cifar10", tmp_path)
    monkeypatch.setattr(datasets, "_download", lambda *_: archive.write_bytes(whole))
    data = datasets.load("cifar10", tmp_path, download=True)
    assert len(data.train) == 6
    assert len(data.notes) == (half == "folder")


def test_half_unpacked_beside_a_whole_archive(tmp_path, monkeypatch, rng):
    source = Source("cifar10", 0, rng)
    layout = source.pack(tmp_path)
    source.files.pop("data_batch_2.bin")
    source.unpack(tmp_path)
    monkeypatch.setattr(cifar, "LAYOUTS", {"cifar10": (layout,)})
    data = datasets.load("cifar10", tmp_path)
    np.testing.assert_array_equal(data.test.images, source.expected["test_batch.bin"][0])
    (note,) = data.notes
    assert f"{layout.folder}: lacks data_batch_2.bin; {tmp_path / layout.archive}" in note


@pytest.mark.parametrize(
    ("way", "official", "told"),
    [
        ("pack", True, []),
        ("pack", False, ["is not the official archive: its MD5 is "]),
        ("unpack", True, ["are taken for the official ones"]),
    ],
)
def test_what_is_not_known_to_be_official_is_noted(way, official, told, tmp_path, load, rng):
    python = Source("cifar10", 1, rng)
    layout = getattr(Source("cifar10", 0, rng), way)(tmp_path, official=official)
    notes = load("cifar10", layout).notes
    assert len(notes) == len(told)
    assert all(text in note for text, note in zip(told, notes, strict=True))
    assert load("cifar10", python.unpack(tmp_path)).notes == ()


def test_digits():
    digits = datasets.load("digits")
    assert len(digits.train) + len(digits.test) == 1797
    assert digits.train.images.max() == 255
    for part in (digits.train, digits.test):
        counts = np.bincount(part.labels, minlength=10)
        assert counts.max() - counts.min() <= 0.06 * len(part)
    pixels = {image.tobytes() for image in digits.train.images}
    assert sum(image.tobytes() in pixels for image in digits.test.images) == 0


def test_sets_are_checked():
    images, labels = np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int64)
    good = datasets.ImageSet(images, labels)
    with pytest.raises(ParameterError, match="must be uint8"):
        datasets.ImageSet(images.astype(float), labels)
    with pytest.raises(ParameterError, match="one for each of 2 images"):
        datasets.ImageSet(images, labels[:1])
    with pytest.raises(ParameterError, match="must be from 0 to 0"):
        datasets.Dataset("x", good, datasets.ImageSet(images, labels + 1), ("a",))
    with pytest.raises(ParameterError, match="images of the shape"):
        datasets.Dataset("x", good, datasets.ImageSet(images[:, :3], labels), ("a",))
    images[0] = 1  # the caller's own array stays writable
