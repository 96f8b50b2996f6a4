"""``.npz`` files that are checked before anything of them is believed; none holds a pickle."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from circuitsim.files import atomic_write, read_bytes

Layout = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]

_OVERHEAD = 4096  # more than the headers of any array file of ours


class BadFile(Exception):
    """A file is not what was once written."""


def write(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    flush: Literal["name", "content", "nothing"] = "name",
) -> None:
    """Write arrays, whole or not at all; see `atomic_write`."""
    with atomic_write(path, flush=flush) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read(path: Path, layout: Layout) -> dict[str, NDArray[Any]]:
    """Read a file of a given layout, allocating nothing before that is checked.

    Raises
    ------
    BadFile
        If it has another layout, or is damaged.
    FileNotFoundError
        If there is none.
    """
    most = sum(math.prod(shape) * dtype.itemsize + _OVERHEAD for shape, dtype in layout.values())
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path, most))) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if set(members) != {f"{name}.npy" for name in layout} or len(members) != len(
                archive.infolist()
            ):
                raise BadFile("it has other arrays than expected")
            for name, (shape, dtype) in layout.items():
                size = math.prod(shape) * dtype.itemsize
                info = members[f"{name}.npy"]
                stored = info.compress_type == zipfile.ZIP_STORED
                if not stored or not size <= info.file_size <= size + _OVERHEAD:
                    raise BadFile(f"{name} has another size than expected")
                # Reading to the end makes zipfile check the sum of the bytes.
                content = archive.read(info)
                header = _header(shape, dtype)
                if not content.startswith(header):
                    raise BadFile(f"{name} has another shape or type than expected")
                if len(content) != len(header) + size:
                    raise BadFile(f"{name} has another size than expected")
                arrays[name] = np.frombuffer(content, dtype, offset=len(header)).reshape(shape)
    except FileNotFoundError:
        raise
    # What zipfile raises for a damaged file is of many kinds.
    except Exception as error:
        raise BadFile(str(error) or type(error).__name__) from error
    return arrays


@cache
def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """What stands before an array's data in a ``.npy`` file of format 1.0."""
    stream = io.BytesIO()
    described = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()
