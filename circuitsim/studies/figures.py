"""What the studies behind figures share: how they run, and the file that keeps their numbers."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import brian2
import numpy as np
import xarray as xr
from numpy.typing import NDArray

import circuitsim
from circuitsim.engines import registry
from circuitsim.files import atomic_write
from circuitsim.studies import results
from circuitsim.studies.local import LocalPool, ThreadedPool
from circuitsim.studies.study import Study, run_cells
from circuitsim.validation import ParameterError

FORMAT = "circuitsim figure"
FORMAT_VERSION = 1

_LARGEST_FILE = 1e9  # bytes of numbers

Groups = dict[str, xr.Dataset]


@dataclass(frozen=True)
class Data:
    """The numbers of a figure.

    Attributes
    ----------
    figure : str
        Its name.
    groups : dict
        From names to Datasets, each with its `Study` in the attributes.
    command_line : str
        What made them.
    """

    figure: str
    groups: Groups
    command_line: str


def pool(studies: Sequence[Study], jobs: int) -> LocalPool | ThreadedPool:
    """Return where to run studies: threads for the propagator, which start at once, or processes.

    Without compiled loops there is one thread: small NumPy operations of several would wait for
    each other most of the time.
    """
    if any(study.engine != "propagator" for study in studies):
        return LocalPool(jobs)
    # Compile here, where an interrupt is met at once.
    for study in studies:
        run_cells(replace(study, presentations=1), study.cells[:1])
    compiled = all(registry.get(s.engine, s.codegen).codegen == "numba" for s in studies)
    return ThreadedPool(jobs if compiled else 1)


def evenly_spaced(last: int, points: int) -> NDArray[np.int64]:
    """Numbers of presentations at equal distances from 0 to the last; all, if they are fewer."""
    return np.unique(np.linspace(0, last, points).round()).astype(np.int64)


def labelled(
    dataset: xr.Dataset, names: Mapping[str, tuple[str, str]], study: Study, title: str
) -> xr.Dataset:
    """Give a Dataset's variables their long names and units, and say what it is."""
    for variable in dataset.variables:
        long_name, units = names[str(variable)]
        dataset[variable].attrs = {"long_name": long_name, "units": units}
    dataset.attrs = {"title": title, "study": study.to_json(), "rule": study.rule}
    return dataset


def study_of(group: xr.Dataset) -> Study:
    """Return the study that a group of a figure's data was made by."""
    return results.parse_study(group.attrs.get("study"), Path(group.encoding.get("source", "")))


def save(data: Data, path: Path) -> None:
    """Write a figure's data to a netCDF-4 file, whole or not at all.

    The same data give the same bytes, with the same versions of what is used.

    Parameters
    ----------
    data : Data
        What to write; each of its groups becomes a group of the file.
    path : Path
        Replaced if it is there.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    root = xr.Dataset(
        attrs={
            "title": f"Numbers of the figure {data.figure}",
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "figure": data.figure,
            "groups": " ".join(data.groups),
            "command_line": data.command_line,
            "citation": results.CITATION,
            "circuitsim_version": circuitsim.__version__,
            "brian2_version": brian2.__version__,
            "numpy_version": np.__version__,
            "python_version": platform.python_version(),
        }
    )
    file: dict[str, Any] = {"engine": "h5netcdf", "format": "NETCDF4"}
    with atomic_write(path) as temporary:
        temporary.unlink()  # the library wants to make its file itself
        root.to_netcdf(temporary, mode="w", **file)
        for name, group in data.groups.items():
            compressed = {str(v): {"zlib": True, "shuffle": True} for v in group.data_vars}
            group.to_netcdf(temporary, mode="a", group=name, encoding=compressed, **file)


def load(path: Path, known: Mapping[str, Sequence[str]]) -> Data:
    """Read a figure's data.

    Parameters
    ----------
    path : Path
        File that `save` wrote.
    known : mapping
        From the names of figures to those of their groups, of which a file may have some.

    Returns
    -------
    Data
        Not checked further; see `check`.

    Raises
    ------
    ParameterError
        If it is no such file.
    FileNotFoundError
        If there is no file.
    """
    what = f"the data of {' or '.join(known)}"
    root = results.read(path, None, what, _LARGEST_FILE).attrs
    figure = str(root.get("figure"))
    if root.get("format") != FORMAT or figure not in known:
        raise ParameterError("file", f"must be {what}, which this command wrote", str(path))
    if root.get("format_version") != FORMAT_VERSION:
        raise ParameterError(
            "file",
            f"is of format version {root.get('format_version')}, not {FORMAT_VERSION}",
            str(path),
        )
    names = str(root.get("groups", "")).split()
    if not names or not set(names) <= set(known[figure]):
        raise ParameterError("file", f"must be {what}, which this command wrote", str(path))
    groups = {name: results.read(path, name, what, _LARGEST_FILE) for name in names}
    for group in groups.values():
        trials = study_of(group).trials
        if group.sizes.get("trial", trials) != trials:
            raise ParameterError("file", "has not the trials that it says it has", str(path))
    return Data(figure, groups, str(root.get("command_line", "unknown")))


def check(
    group: xr.Dataset,
    variables: Mapping[str, tuple[str, ...]],
    axes: Mapping[str, NDArray[Any]],
    path: Path,
) -> None:
    """Refuse a group that does not have exactly the numbers it should have.

    Parameters
    ----------
    group : xarray.Dataset
        As read.
    variables : mapping
        From names to dimensions.
    axes : mapping
        From the names of dimensions to their coordinates.
    path : Path
        The file, for the message.

    Raises
    ------
    ParameterError
        If anything is missing, not a number, or too much.
    """
    sound = (
        set(group.data_vars) == set(variables)
        and all(group[name].dims == dims for name, dims in variables.items())
        and set(group.coords) == set(axes)
        and all(np.array_equal(group[name], axis) for name, axis in axes.items())
        and all(group[name].dtype.kind in "if" for name in variables)
        and not any(np.isnan(group[name]).any() for name in variables)
    )
    if not sound:
        raise ParameterError("file", "has not the numbers that it says it has", str(path))
