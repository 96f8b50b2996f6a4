"""Files that claim to hold much more than they do: refused before memory is taken for it."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from circuitsim.checks.validation import ParameterError
from circuitsim.files import arrays
from circuitsim.files.arrays import BadFile
from circuitsim.studies.origins import Origin, _of_file
from circuitsim.studies.sweep import _patterns
from circuitsim.vision import archives, datasets, predictivity
from circuitsim.vision.archives import BadArchive

SIZE = 0xFFFFFFF0  # the most that a zip archive says without further fields


def npy(shape, content=bytes(32), descr="<f8"):
    stream = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + content


def zipped(path, method=zipfile.ZIP_STORED, claims=False, **members):
    """An archive of some members, all of which may claim to be of four gigabytes."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    if claims:
        content = bytearray(path.read_bytes())
        for mark, at in ((b"PK\3\4", 18), (b"PK\1\2", 20)):
            found = content.find(mark)
            while found >= 0:
                struct.pack_into("<II", content, found + at, SIZE, SIZE)
                found = content.find(mark, found + 1)
        path.write_bytes(content)
    return path


READERS = {
    "array": (lambda path: archives.read_array(path, "weights"), BadArchive),
    "cell": (lambda path: arrays.read(path, {"weights": ((4,), np.dtype("f8"))}), BadFile),
    "bytes": (lambda path: arrays.read_bytes_of(path, "weights", 2**24), BadFile),
    "images": (lambda path: datasets.load("npz", path), ParameterError),
    "stimuli": (lambda path: predictivity.stimuli(path, (2, 2, 1)), ParameterError),
    "initial": (lambda path: _of_file(str(path), 0), ParameterError),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("claim", ["of the archive", "of the array", "of both", "in LZMA"])
def test_archives_that_claim_much(reader, claim, tmp_path):
    read, error = READERS[reader]
    shape = (10**6, 10**6) if claim in ("of the array", "of both") else (4,)
    content = npy(shape)
    members = dict.fromkeys(("weights_npy", "images_npy", "labels_npy", "a_png"), content)
    path = zipped(
        tmp_path / "x.npz",
        zipfile.ZIP_LZMA if claim == "in LZMA" else zipfile.ZIP_STORED,
        claims=claim in ("of the archive", "of both"),
        **members,
    )
    tracemalloc.start()
    try:
        with pytest.raises(error):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 80e6  # an image file may have 64 MiB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [npy((10**6, 10**6)), npy((0, 10**30)), npy((-1,)), npy((2**62, 4)), npy((4,), descr="|V0"),
     npy((4,), descr="|O"), npy((4,))[:-1], npy((4,)) + b"x", b"", b"\x93NUMPY"],
)  # fmt: skip
def test_array_files_that_claim_much(content, tmp_path):
    """As inputs of a sweep, and as responses of neurons."""
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(BadArchive):
        archives.read_npy(path)
    with pytest.raises(ParameterError, match=r"must be an \.npy file of numbers"):
        _patterns(str(path), "")
    with pytest.raises(BadArchive):
        archives.read_array(zipped(tmp_path / "x.npz", a_npy=content), "a")
    assert isinstance(_of_file(str(zipped(tmp_path / "y.npz", weights_npy=npy((1, 4)))), 0), Origin)
