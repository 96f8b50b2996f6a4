"""The result of a study: one netCDF-4 file with all curves and the learned weights."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import circuitsim
from circuitsim.engines.simulation import LONG_NAMES
from circuitsim.studies import netcdf
from circuitsim.studies.study import CURVES, DIMENSIONS, LIMITS, Cell, CellResult, Study
from circuitsim.validation import ParameterError

FORMAT = "circuitsim sweep"
FORMAT_VERSION = 3  # 3: with a seal
CITATION = (
    "R. Pogodin, Y. Mehta, T. P. Lillicrap, P. E. Latham, Towards Biologically Plausible "
    "Convolutional Networks, NeurIPS 2021, arXiv:2106.13031"
)

# What the numbers may depend on, and what writes them.
_PACKAGES = ("brian2", "numpy", "scipy", "numba", "xarray", "h5netcdf", "h5py")

ATTRIBUTES = {
    "k": ("kernel size; a circuit has k^2 inputs for each channel", "1"),
    "gamma": ("pull towards the initial weights", "1"),
    "alpha": ("strength of inhibition", "1"),
    "neurons": ("number of neurons in a pool", "1"),
    "trial": ("number of the trial", "1"),
    "presentation": (LONG_NAMES["presentation"], "1"),
    "neuron": ("number of the neuron in its pool", "1"),
    "input": ("number of the input", "1"),
    "theory_inverse_snr_w": ("inverse SNR of the weights at the end point of Eq. 5", "1"),
    "fixed_point_inverse_snr_w": ("inverse SNR of the weights at the rule's own end point", "1"),
    "theory_snr_w": ("SNR of the weights at the end point of Eq. 5", "1"),
    "fixed_point_snr_w": ("SNR of the weights at the rule's own end point", "1"),
    "seconds": ("time spent on the cell, its share of an engine call", "s"),
} | {name: (LONG_NAMES[name], "1") for name in (*CURVES, "weights")}


def weights_group(study_neurons: tuple[int, ...], k: int, neurons: int) -> str:
    """Name of the group that holds the final weights of one k and number of neurons."""
    group = f"weights/k{k}"
    return group if len(study_neurons) == 1 else f"{group}/neurons{neurons}"


def merge(
    study: Study,
    read: Callable[[Cell], CellResult],
    path: Path,
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Write the result of a finished study, whole or not at all.

    Parameters
    ----------
    study : Study
        All of whose cells can be read.
    read : callable
        Gives the result of a cell.
    path : Path
        File to write; replaced if it is there.
    provenance : mapping, optional
        Further attributes.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    shape = tuple(len(_axis(study, name)) for name in DIMENSIONS)
    n_recorded = study.presentations + 1
    curves = {name: np.empty((*shape, n_recorded)) for name in CURVES}
    limits = {name: np.empty(shape) for name in LIMITS}
    seconds = np.empty(shape)

    with netcdf.writing(path) as add:
        for (i, k), (m, neurons) in product(enumerate(study.k), enumerate(study.neurons)):
            axes = (len(study.gamma), len(study.alpha), 1, study.trials)
            weights = np.empty((*axes, neurons, study.n_inputs(k)))
            for (g, gamma), (a, alpha), trial in product(
                enumerate(study.gamma), enumerate(study.alpha), range(study.trials)
            ):
                result, place = read(Cell(k, neurons, gamma, alpha, trial)), (i, g, a, m, trial)
                for name in CURVES:
                    curves[name][place] = result.curves[name]
                for name in LIMITS:
                    limits[name][place] = result.limits[name]
                seconds[place] = result.seconds
                weights[g, a, 0, trial] = result.weights
            dims = ("gamma", "alpha", "neurons", "trial", "neuron", "input")
            group = weights_group(study.neurons, k, neurons)
            labelled = _labelled({"weights": (dims, weights)}, study, neurons=[neurons])
            add(labelled, group)
        root = _labelled(
            {name: ((*DIMENSIONS, "presentation"), curves[name]) for name in CURVES}
            | {name: (DIMENSIONS, limits[name]) for name in LIMITS},
            study,
        )
        root.attrs = attributes(study) | dict(provenance or {})
        add(root, None)
        spent = _labelled({"seconds": (DIMENSIONS, seconds)}, study)
        add(spent, "provenance")


def attributes(study: Study) -> dict[str, str | int]:
    """What a result's attributes say of its study and of how it was made."""
    return {
        "title": "Convergence of the weights' signal-to-noise ratio",
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "study": study.to_json(),
        "rule": study.rule,
        "engine": study.engine,
        "codegen": study.codegen,
        "seed": study.seed,
        "channels": study.channels,
        "citation": CITATION,
        "circuitsim_version": circuitsim.__version__,
        **{f"{name}_version": _version(name) for name in _PACKAGES},
        "python_version": platform.python_version(),
        "machine": f"{platform.node()}: {platform.platform()}, {os.cpu_count()} processors",
        "git_revision": _git_revision(),
        "command_line": shlex.join(sys.orig_argv),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def study_in(path: Path) -> Study:
    """Return the study whose result a file holds, without reading any numbers.

    Raises
    ------
    ParameterError
        If it is no such file.
    FileNotFoundError
        If there is no file.
    """
    return _study(netcdf.attributes(path), path)


def load(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read the result of a sweep.

    Parameters
    ----------
    path : path
        File that ``python -m circuitsim.sweep`` wrote.

    Returns
    -------
    xarray.Dataset
        ``snr_w``, ``inverse_snr_w`` and ``mean_weight_cosine`` (k, gamma, alpha, neurons, trial,
        presentation), and over all but ``presentation`` their values at the end points:
        ``theory_inverse_snr_w`` and ``theory_snr_w`` (Eq. 5), ``fixed_point_inverse_snr_w`` and
        ``fixed_point_snr_w`` (the simulated rule's own). In memory; the file is closed.

    Raises
    ------
    ParameterError
        If it is no such file.
    FileNotFoundError
        If there is no file.
    """
    path = Path(path)
    study = study_in(path)
    return netcdf.read(path, None, _layout(study))


def load_weights(
    path: str | os.PathLike[str], k: int | None = None, neurons: int | None = None
) -> xr.DataArray:
    """Read the final weights of one kernel size from the result of a sweep.

    Parameters
    ----------
    path : path
        File that ``python -m circuitsim.sweep`` wrote.
    k, neurons : int, optional
        Kernel size and neurons in a pool; needed if the sweep has several.

    Returns
    -------
    xarray.DataArray
        (gamma, alpha, neurons, trial, neuron, input)

    Raises
    ------
    ParameterError
        If the file is not the result of a sweep, or has no such weights.
    FileNotFoundError
        If there is no file.
    """
    path = Path(path)
    study = study_in(path)
    k, neurons = only("k", study.k, k), only("neurons", study.neurons, neurons)
    group = weights_group(study.neurons, k, neurons)
    return netcdf.read(path, group, _layout(study))["weights"]


def load_seconds(path: str | os.PathLike[str]) -> xr.DataArray:
    """Read the time spent on each circuit of a sweep, its share of an engine call.

    Parameters
    ----------
    path : path
        File that ``python -m circuitsim.sweep`` wrote.

    Returns
    -------
    xarray.DataArray
        (k, gamma, alpha, neurons, trial), in s.

    Raises
    ------
    ParameterError
        If the file is not the result of a sweep.
    FileNotFoundError
        If there is no file.
    """
    path = Path(path)
    study = study_in(path)
    return netcdf.read(path, "provenance", _layout(study))["seconds"]


def _layout(study: Study) -> dict[str, netcdf.Layout]:
    """Groups of a result, and their variables' shapes."""
    sizes = dict.fromkeys(DIMENSIONS, study.trials) | {
        name: len(getattr(study, name)) for name in DIMENSIONS if name != "trial"
    }
    shape = tuple(sizes.values())
    axes = {name: (size,) for name, size in sizes.items()}
    n_recorded = study.presentations + 1
    layout: dict[str, netcdf.Layout] = {
        "": axes
        | {"presentation": (n_recorded,)}
        | dict.fromkeys(CURVES, (*shape, n_recorded))
        | dict.fromkeys(LIMITS, shape),
        "provenance": axes | {"seconds": shape},
    }
    for k, neurons in product(study.k, study.neurons):
        inner = {name: size for name, size in axes.items() if name != "k"}
        n_inputs = study.n_inputs(k)
        layout[weights_group(study.neurons, k, neurons)] = inner | {
            "neurons": (1,),
            "neuron": (neurons,),
            "input": (n_inputs,),
            "weights": (sizes["gamma"], sizes["alpha"], 1, sizes["trial"], neurons, n_inputs),
        }
    return layout


def only(name: str, available: Sequence[int], wanted: int | None) -> int:
    """Return the value wanted if it is available, or the only one there is.

    Raises
    ------
    ParameterError
        If it is not, or there are several.
    """
    if wanted is None and len(available) == 1:
        return available[0]
    if wanted is None or wanted not in available:
        raise ParameterError(name, f"must be one of {listed(available)}", wanted)
    return wanted


def listed(values: Sequence[float]) -> str:
    """Return values for a message, the first of them if they are many."""
    shown = [f"{v:g}" for v in values[:20]]
    return ", ".join(shown) + (", ..." if len(values) > 20 else "")


def study_of(dataset: xr.Dataset, path: Path) -> Study:
    """Return the study whose result a Dataset is.

    Raises
    ------
    ParameterError
        If it is none, or of a format that this version does not read.
    """
    return _study(dataset.attrs, path)


def _study(attributes: Mapping[str, Any], path: Path) -> Study:
    if attributes.get("format") != FORMAT:
        raise ParameterError("file", "must be the result of a circuitsim sweep", str(path))
    if attributes.get("format_version") != FORMAT_VERSION:
        raise ParameterError(
            "file", f"must be of format version {FORMAT_VERSION}", attributes.get("format_version")
        )
    return parse_study(attributes.get("study"), path)


def parse_study(text: Any, path: Path) -> Study:
    """Return the study that a file's attribute ``study`` describes.

    Raises
    ------
    ParameterError
        If it describes none.
    """
    try:
        return Study.from_json(text)
    except ValueError as error:
        raise ParameterError("file", f"cannot be read ({error})", str(path)) from None


def _axis(study: Study, name: str) -> list[Any]:
    return list(range(study.trials)) if name == "trial" else list(getattr(study, name))


def _labelled(variables: dict[str, Any], study: Study, **axes: list[int]) -> xr.Dataset:
    dataset = xr.Dataset(variables)
    for dim, size in dataset.sizes.items():
        name = str(dim)
        axis = axes.get(name)
        if axis is None:
            axis = _axis(study, name) if name in DIMENSIONS else list(range(size))
        dataset = dataset.assign_coords({name: axis})
    for variable in dataset.variables:
        long_name, units = ATTRIBUTES[str(variable)]
        dataset[variable].attrs = {"long_name": long_name, "units": units}
    return dataset


def _git_revision() -> str:
    """Revision of the source that runs, where that is a git checkout."""
    checkout = Path(circuitsim.__file__).parents[1]
    if not (checkout / ".git").exists():
        return "unknown"
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
