"""The result of a campaign: a sealed netCDF-4 file, written, declared and checked here alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from circuitsim.checks.validation import ParameterError
from circuitsim.files import netcdf, provenance
from circuitsim.running.campaign import Arrays, Campaign, Group, Groups


def write(
    campaign: Campaign[Any],
    read: Callable[[Any], Arrays],
    path: Path,
    further: Mapping[str, str] | None = None,
) -> None:
    """Write the result of a finished campaign, whole or not at all.

    Parameters
    ----------
    campaign : Campaign
        All of whose tasks can be read.
    read : callable
        Gives the result of a task.
    path : Path
        File to write; replaced if it is there.
    further : mapping, optional
        Further attributes.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    declared = campaign.groups()
    root = {"format": campaign.format[0], "format_version": campaign.format[1]}
    root |= campaign.attributes() | {"citation": provenance.CITATION} | provenance.versions()
    root |= {} if campaign.reproducible else provenance.made_here()
    root |= further or {}
    with netcdf.writing(path) as add:
        if "" not in declared:
            add(xr.Dataset(attrs=root), None)
        for name, numbers, title in campaign.collect(read):
            dataset = labelled(campaign, declared[name], numbers, title)
            if not name:
                dataset.attrs |= root
            add(_numbered(dataset), name or None)


def labelled(campaign: Campaign[Any], group: Group, numbers: Arrays, title: str) -> xr.Dataset:
    """Put the numbers of a group into a Dataset with axes, long names, units and attributes."""
    variables = {name: (dims, numbers[name]) for name, dims in group.variables.items()}
    axes = {name: _values(values) for name, values in group.axes.items()}
    dataset = xr.Dataset(variables, axes)
    for variable in dataset.variables:
        long_name, units = campaign.units[str(variable)]
        dataset[variable].attrs = {"long_name": long_name, "units": units}
    dataset.attrs = {"title": title} | {
        name: value.to_json() if isinstance(value, Campaign) else value
        for name, value in group.attributes.items()
    }
    return dataset


def identify(path: Path, kinds: Iterable[type[Campaign[Any]]]) -> Campaign[Any]:
    """Return the campaign whose result a file holds, without reading any numbers.

    Parameters
    ----------
    path : Path
        The file.
    kinds : iterable of type
        What it may be.

    Raises
    ------
    ParameterError
        If it is none of these.
    FileNotFoundError
        If there is no file.
    """
    return _identified(path, list(kinds))[0]


def _identified(
    path: Path, kinds: list[type[Campaign[Any]]]
) -> tuple[Campaign[Any], dict[str, Any]]:
    what = " or ".join(kind.what for kind in kinds) if len(kinds) < 4 else "the result of a study"
    root = netcdf.attributes(path, what)
    kind = next((kind for kind in kinds if kind.recognises(root)), None)
    if kind is None:
        raise ParameterError("file", f"must be {what}, which this command wrote", str(path))
    if root.get("format_version") != kind.format[1]:
        version = root.get("format_version")
        raise ParameterError(
            "file", f"is of format version {version}, not {kind.format[1]}", str(path)
        )
    try:
        found = kind.from_attributes(root, lambda name: netcdf.attributes(path, what, name))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, ParameterError) and error.parameter == "file":
            raise
        reason = str(error) if str(error).startswith("it ") else "it describes no valid study"
        raise ParameterError("file", f"cannot be read ({reason})", str(path)) from None
    return found, root


def load(path: Path, kinds: Iterable[type[Campaign[Any]]]) -> tuple[Campaign[Any], Groups, str]:
    """Read a result, trusting nothing.

    Parameters
    ----------
    path : Path
        File that `write` wrote.
    kinds : iterable of type
        What it may be.

    Returns
    -------
    Campaign
        What it is the result of.
    dict
        From the names of its groups, ``""`` for the root, to Datasets in memory.
    str
        The command that made it.

    Raises
    ------
    ParameterError
        If it is no such file, or has not the numbers that it says it has.
    FileNotFoundError
        If there is no file.
    """
    campaign, root = _identified(path, list(kinds))
    return (
        campaign,
        _groups(path, campaign, campaign.groups()),
        str(root.get("command_line", "unknown")),
    )


def group(path: Path, campaign: Campaign[Any], name: str) -> xr.Dataset:
    """Read one group of a campaign's result; raises as `load`."""
    return _groups(path, campaign, [name])[name]


def _groups(path: Path, campaign: Campaign[Any], names: Collection[str]) -> Groups:
    """Read some groups as they are laid out now, or were formerly."""
    layouts = [campaign.groups(), *campaign.former_groups()]
    while True:
        declared = layouts.pop(0)
        layout: dict[str, netcdf.Layout] = {"": {}}
        layout |= {name: group.shapes for name, group in declared.items()}
        try:
            found = netcdf.read(path, names, layout, campaign.what)
            return {n: _checked(found[n], declared[n], n, path) for n in names}
        except ParameterError:
            if not layouts:
                raise


def _checked(dataset: xr.Dataset, declared: Group, name: str, path: Path) -> xr.Dataset:
    """Return a group as it was written, or raise a `ParameterError`."""
    for attribute, wanted in declared.attributes.items():
        found = dataset.attrs.get(attribute, "")
        if isinstance(wanted, Campaign):
            try:
                same = type(wanted).from_json(found) == wanted
            except ValueError as error:
                raise ParameterError("file", f"cannot be read ({error})", str(path)) from None
            if not same:
                raise ParameterError("file", f"has {name} of another study", str(path))
        elif not np.array_equal(found, wanted):
            raise ParameterError("file", "has not the numbers that it says it has", str(path))
    sound = all(dataset[variable].dims == dims for variable, dims in declared.variables.items())
    names = {}
    for axis, values in declared.axes.items():
        wanted, found = _values(values), dataset[axis]
        if wanted.dtype.kind == "O":
            sound &= np.array_equal(found, np.arange(len(wanted)))
            attributes = {n: v for n, v in found.attrs.items() if not n.startswith("flag_")}
            names[axis] = xr.Variable((axis,), wanted, attributes)
        else:  # what is computed differs in its last bits between machines
            sound &= np.allclose(found, wanted, rtol=1e-12, atol=0)
    if declared.complete:
        sound &= not any(np.isnan(dataset[variable]).any() for variable in declared.variables)
    if not sound:
        raise ParameterError("file", "has not the numbers that it says it has", str(path))
    return _plotted_well(dataset.assign_coords(names))


def _plotted_well(dataset: xr.Dataset) -> xr.Dataset:
    """Leave out the unit "1", which would stand in brackets beside every label of a plot."""
    for variable in dataset.variables.values():
        if variable.attrs.get("units") == "1":
            del variable.attrs["units"]
    return dataset


def _values(axis: Any) -> np.ndarray[Any, Any]:
    values = np.asarray(axis)
    return values.astype(object) if values.dtype.kind in "OUS" else values


def _numbered(dataset: xr.Dataset) -> xr.Dataset:
    """Replace names along an axis by numbers, with their meanings as the CF conventions say."""
    for name, axis in dataset.coords.items():
        if axis.dtype.kind == "O":
            flags = {"flag_values": np.arange(axis.size), "flag_meanings": " ".join(axis.values)}
            numbered = xr.Variable(axis.dims, np.arange(axis.size), axis.attrs | flags)
            dataset = dataset.assign_coords({name: numbered})
    return dataset
