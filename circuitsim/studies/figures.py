"""What the studies behind figures share: how they run, and the file that keeps their numbers."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import circuitsim
from circuitsim.engines import registry
from circuitsim.studies import netcdf, results
from circuitsim.studies.local import LocalPool, ThreadedPool
from circuitsim.studies.study import Study, run_cells
from circuitsim.validation import ParameterError

FORMAT = "circuitsim figure"
FORMAT_VERSION = 1

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
    """Return where to run studies: threads, which start at once, where engines take them."""
    if not all(registry.find(study.engine).threads for study in studies):
        return LocalPool(jobs)
    # Compile here, where an interrupt is met at once.
    for study in studies:
        run_cells(replace(study, presentations=1), study.cells[:1])
    several = all(registry.get(s.engine, s.codegen).threads for s in studies)
    return ThreadedPool(jobs if several else 1)


def evenly_spaced(last: int, points: int) -> NDArray[np.int64]:
    """Numbers of presentations at equal distances from 0 to the last; all, if they are fewer."""
    return np.unique(np.linspace(0, last, points).round()).astype(np.int64)


def with_spread(values: NDArray[np.float64], digits: int) -> str:
    """Return the mean of values over trials and, of several, their standard deviation."""
    spread = f" +- {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


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
    return results.parse_study(group.attrs.get("study"), Path())


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
            "studies": json.dumps({name: g.attrs["study"] for name, g in data.groups.items()}),
            "command_line": data.command_line,
            "citation": results.CITATION,
            "circuitsim_version": circuitsim.__version__,
            "brian2_version": metadata.version("brian2"),
            "numpy_version": np.__version__,
            "python_version": platform.python_version(),
        }
    )
    with netcdf.writing(path) as add:
        add(root, None)
        for name, group in data.groups.items():
            add(_numbered(group), name)


def _numbered(group: xr.Dataset) -> xr.Dataset:
    """Replace names along an axis by numbers, with their meanings as the CF conventions say."""
    for name, axis in group.coords.items():
        if axis.dtype.kind in "OU":
            flags = {"flag_values": np.arange(axis.size), "flag_meanings": " ".join(axis.values)}
            numbered = xr.Variable(axis.dims, np.arange(axis.size), axis.attrs | flags)
            group = group.assign_coords({name: numbered})
    return group


def _named(group: xr.Dataset) -> xr.Dataset:
    """Replace numbers along an axis by the names that they mean."""
    for name, axis in group.coords.items():
        meanings = str(axis.attrs.get("flag_meanings", "")).split()
        if len(meanings) == axis.size > 0:
            attributes = {n: v for n, v in axis.attrs.items() if not n.startswith("flag_")}
            named = xr.Variable(axis.dims, np.array(meanings, dtype=object), attributes)
            group = group.assign_coords({name: named})
    return group


def load(
    path: Path,
    known: Mapping[str, Sequence[str]],
    contents: Callable[[str, Study], Contents],
) -> Data:
    """Read a figure's data, trusting nothing.

    Parameters
    ----------
    path : Path
        File that `save` wrote.
    known : mapping
        From the names of figures to those of their groups, of which a file may have some.
    contents : callable
        Gives what a group of a study must hold.

    Returns
    -------
    Data

    Raises
    ------
    ParameterError
        If it is no such file.
    FileNotFoundError
        If there is no file.
    """
    what = f"the data of {' or '.join(known)}"
    root = netcdf.attributes(path, what)
    figure = str(root.get("figure"))
    names = str(root.get("groups", "")).split()
    ours = root.get("format") == FORMAT and figure in known
    if not ours or not names or not set(names) <= set(known[figure]):
        raise ParameterError("file", f"must be {what}, which this command wrote", str(path))
    if root.get("format_version") != FORMAT_VERSION:
        version = root.get("format_version")
        raise ParameterError(
            "file", f"is of format version {version}, not {FORMAT_VERSION}", str(path)
        )
    studies = _studies(root, names, path)
    wanted = {name: contents(name, study) for name, study in studies.items()}
    layout: dict[str, netcdf.Layout] = {"": {}}
    layout |= {name: inside.shapes for name, inside in wanted.items()}
    groups = {name: _named(netcdf.read(path, name, layout, what)) for name in names}
    for name, group in groups.items():
        if results.parse_study(group.attrs.get("study"), path) != studies[name]:
            raise ParameterError("file", f"has {name} of another study", str(path))
        wanted[name].check(group, path)
    return Data(figure, groups, str(root.get("command_line", "unknown")))


def _studies(root: Mapping[str, Any], names: Sequence[str], path: Path) -> dict[str, Study]:
    try:
        texts = json.loads(root["studies"])
        studies = {name: results.parse_study(texts[name], path) for name in names}
    except (KeyError, TypeError, ValueError):
        raise ParameterError("file", "describes no valid studies", str(path)) from None
    size = path.stat().st_size
    for study in studies.values():
        # What the study would need is allocated only if the file can hold it.
        if 8 * study.trials > size or 8 * study.presentation / study.dt > size + 2**20:
            raise ParameterError("file", "is too small for its studies", str(path))
    return studies


@dataclass(frozen=True)
class Contents:
    """What a group holds.

    Attributes
    ----------
    variables : mapping
        From names to dimensions.
    axes : mapping
        From the names of dimensions to their coordinates.
    attributes : mapping
        Attributes that follow from the study.
    """

    variables: Mapping[str, tuple[str, ...]]
    axes: Mapping[str, NDArray[Any]]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> netcdf.Layout:
        """From the names of variables and coordinates to their shapes."""
        sizes = {name: len(axis) for name, axis in self.axes.items()}
        return {name: (size,) for name, size in sizes.items()} | {
            name: tuple(sizes[dim] for dim in dims) for name, dims in self.variables.items()
        }

    def check(self, group: xr.Dataset, path: Path) -> None:
        """Raise a `ParameterError` if a group has anything else, or what is not a number."""
        sound = (
            all(group[name].dims == dims for name, dims in self.variables.items())
            and all(np.array_equal(group[name], axis) for name, axis in self.axes.items())
            and not any(np.isnan(group[name]).any() for name in self.variables)
            and all(np.array_equal(group.attrs.get(n, ""), v) for n, v in self.attributes.items())
        )
        if not sound:
            raise ParameterError("file", "has not the numbers that it says it has", str(path))
