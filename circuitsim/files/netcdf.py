"""Groups of netCDF files that are checked before anything of them is believed.

A file ends with a seal, a checksum of all its bytes. HDF5 takes no notice of what follows its data,
so every program reads a sealed file; and here no damaged file gets as far as HDF5, which a single
changed bit can keep busy for ever. A seal tells damage, not malice: whoever can write a file can
seal it, so it is opened in a process with limits first, unless it was written here, and sizes are
checked before anything is read.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import xarray as xr
from xarray.backends import H5NetCDFStore

from circuitsim.checks.validation import ParameterError
from circuitsim.files import atomic_write, open_regular, trial

_tried: dict[str, str | None] = {}  # by their checksums, what is wrong with files opened before

_SEAL = b"\ncircuitsim sha256 "

Layout = Mapping[str, tuple[int, ...]]  # from the names of a group's variables to their shapes


@contextmanager
def writing(path: Path) -> Iterator[Callable[[xr.Dataset, str | None], None]]:
    """Give a function that adds a Dataset as a group (None: the root) of a new file.

    The file is made in memory and written as bytes: HDF5 does not survive a full disk.

    Raises
    ------
    OSError
        If the file cannot be written; then whatever was there is as it was.
    """
    content = io.BytesIO()
    with h5netcdf.File(content, "w") as file:

        def add(dataset: xr.Dataset, group: str | None) -> None:
            dataset = dataset.copy(deep=False)
            for variable in dataset.variables.values():
                variable.encoding["_FillValue"] = None  # every number means itself
                if variable.dtype.kind in "OU":
                    variable.encoding["dtype"] = "S1"
                variable.attrs = _written(variable.attrs)
            dataset.attrs = _written(dataset.attrs)
            dataset.dump_to_store(H5NetCDFStore(file, group=group, mode="a"))
            for variable in (file if group is None else file[group]).variables.values():
                if "_Encoding" in variable.attrs:  # which xarray has added
                    variable.attrs["_Encoding"] = _characters("utf-8")

        yield add
    with atomic_write(path) as temporary, content.getbuffer() as written:
        with temporary.open("wb") as target:
            target.write(written)
        _tried[seal(temporary)] = None


def _written(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes with texts as arrays of characters, which every reader of netCDF knows."""
    return {n: _characters(v) if isinstance(v, str) else v for n, v in attributes.items()}


def _characters(text: str) -> Any:
    # Names of files that are no UTF-8 are shown as they are written in Python.
    content = text.encode("utf-8", "backslashreplace") or b"\0"
    return np.array(content, h5py.string_dtype("utf-8", len(content)))


def seal(path: Path) -> str:
    """Add a checksum of a file's bytes at its end, and return it."""
    with path.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        file.write(_SEAL + digest.encode())
    return digest


def _check_seal(path: Path) -> str:
    with open_regular(path) as file:
        n_left = os.fstat(file.fileno()).st_size - len(_SEAL) - 64
        if n_left < 0:
            raise ValueError("it was cut short")
        digest = hashlib.sha256()
        while n_left:
            block = file.read(min(n_left, 2**20))
            if not block:
                raise ValueError("it was cut short")
            n_left -= len(block)
            digest.update(block)
        mark, said = file.read(len(_SEAL)), file.read(64)
    if mark != _SEAL:
        raise ValueError("it was cut short, or another program wrote it: no checksum at its end")
    if said != digest.hexdigest().encode():
        raise ValueError("it has changed since it was written: its checksum is another")
    return digest.hexdigest()


def attributes(path: Path, what: str, group: str = "/") -> dict[str, Any]:
    """Read a file's own attributes, or those of a group, without any of its numbers.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What it should be, for messages.
    group : str
        Whose attributes.

    Raises
    ------
    ParameterError
        If that is not possible.
    FileNotFoundError
        If there is no file.
    """
    return _guarded(path, lambda: _attributes(path, group), what)


def read(
    path: Path, groups: Iterable[str], layout: Mapping[str, Layout], what: str
) -> dict[str, xr.Dataset]:
    """Read groups of a file into memory.

    Parameters
    ----------
    path : Path
        The file.
    groups : iterable of str
        Their names, ``""`` for the root.
    layout : mapping
        Variables and their shapes for each group that the file has, ``""`` for the root. A file
        that has another one is not read, so that nothing more is allocated than was asked for.
    what : str
        What the file should be, for messages.

    Raises
    ------
    ParameterError
        If the file cannot be read, has another layout, or is not as it was written.
    FileNotFoundError
        If there is no file.
    """

    def checked() -> dict[str, xr.Dataset]:
        with _opened(path) as file:
            _check_layout(file, layout, path.stat().st_size)
            found = h5netcdf.File(file, "r")
            stores = {name: H5NetCDFStore(found, group=name or None) for name in groups}
            return {n: xr.open_dataset(s, decode_cf=False).load() for n, s in stores.items()}

    return _guarded(path, checked, what)


def _guarded(path: Path, read: Any, what: str) -> Any:
    """Call a function that reads a file; whatever goes wrong there is the file's fault."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        digest = _check_seal(path)
        if digest not in _tried:
            _tried[digest] = trial.refused(path)
        if reason := _tried[digest]:
            raise ValueError(reason)
        return read()
    # The libraries' exceptions for a damaged file are of any kind, MemoryError among them.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ParameterError(
            "file", f"cannot be read as {what} ({reason[:300]})", str(path)
        ) from None


def _opened(path: Path) -> h5py.File:
    # Without a lock, which not every file system has: results are never written in their place.
    return h5py.File(path, "r", locking=False)


def _attributes(path: Path, group: str) -> dict[str, Any]:
    with _opened(path) as file:
        found = file[group]
        trial.check_attributes(found, path.stat().st_size)
        return {name: _scalar(found.attrs[name]) for name in found.attrs}


def _scalar(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return np.asarray(value).item() if np.size(value) == 1 else value


def _check_layout(file: h5py.File, layout: Mapping[str, Layout], size: int) -> None:
    """Refuse a file that has other groups or variables than expected, or refers to other files."""
    children: dict[str, set[str]] = {name: set() for name in layout}
    for name in layout:
        while name:
            parent, _, child = name.rpartition("/")
            children.setdefault(parent, set()).add(child)
            name = parent
    for name, inner in children.items():
        found = file[name] if name else file
        variables = layout.get(name, {})
        if set(found) != inner | set(variables):
            raise ValueError(f"it has other variables than expected in {name or 'its root'}")
        for member in found:
            if not isinstance(found.get(member, getlink=True), h5py.HardLink):
                raise ValueError(f"{member} is a link to another place")
            wanted = h5py.Dataset if member in variables else h5py.Group
            if found.get(member, getclass=True) is not wanted:
                raise ValueError(f"{member} is not what is expected there")
        trial.check_attributes(found, size)
        for member, shape in variables.items():
            _check_variable(found[member], member, shape, size)


def _check_variable(variable: h5py.Dataset, name: str, shape: tuple[int, ...], size: int) -> None:
    if variable.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, not {variable.shape}")
    if variable.dtype not in (np.dtype("<f8"), np.dtype("<i8")):
        raise ValueError(f"{name} must hold numbers of 64 bits, not {variable.dtype}")
    # As many bytes in this very file as in memory: neither elsewhere nor blown up when read.
    stored = 8 * math.prod(shape)
    plain = variable.chunks is None and variable.external is None and not variable.is_virtual
    if not plain or variable.id.get_storage_size() != stored or stored > size:
        raise ValueError(f"{name} is not stored as it was written")
    trial.check_attributes(variable, size)
