"""The result of a study: one netCDF-4 file with all curves and the learned weights."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import brian2
import numpy as np
import xarray as xr

import circuitsim
from circuitsim.engines.simulation import LONG_NAMES
from circuitsim.files import atomic_write
from circuitsim.studies.study import CURVES, DIMENSIONS, LIMITS, Cell, CellResult, Study
from circuitsim.validation import ParameterError

FORMAT = "circuitsim sweep"
FORMAT_VERSION = 1
CITATION = (
    "R. Pogodin, Y. Mehta, T. P. Lillicrap, P. E. Latham, Towards Biologically Plausible "
    "Convolutional Networks, NeurIPS 2021, arXiv:2106.13031"
)

ATTRIBUTES = {
    "k": ("kernel size; a circuit has k^2 inputs", "1"),
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

    with atomic_write(path) as temporary:
        temporary.unlink()  # the library wants to make its file itself
        for (i, k), (m, neurons) in product(enumerate(study.k), enumerate(study.neurons)):
            axes = (len(study.gamma), len(study.alpha), 1, study.trials)
            weights = np.empty((*axes, neurons, k**2))
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
            _write(labelled, temporary, group)
        root = _labelled(
            {name: ((*DIMENSIONS, "presentation"), curves[name]) for name in CURVES}
            | {name: (DIMENSIONS, limits[name]) for name in LIMITS},
            study,
        )
        root.attrs = attributes(study) | dict(provenance or {})
        _write(root, temporary, None)
        _write(_labelled({"seconds": (DIMENSIONS, seconds)}, study), temporary, "provenance")


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
        "citation": CITATION,
        "circuitsim_version": circuitsim.__version__,
        "brian2_version": brian2.__version__,
        "numpy_version": np.__version__,
        "python_version": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "git_revision": _git_revision(),
        "command_line": " ".join(sys.argv),
    }


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
    dataset = read(path, None)
    study = study_of(dataset, path)
    wanted = {name: len(_axis(study, name)) for name in DIMENSIONS}
    wanted["presentation"] = study.presentations + 1
    missing = [name for name in (*CURVES, *LIMITS) if name not in dataset]
    if dict(dataset.sizes) != wanted or missing:
        raise ParameterError("file", "must have the dimensions and variables of a sweep", str(path))
    return dataset


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
    study = study_of(read(path, None), path)
    k, neurons = only("k", study.k, k), only("neurons", study.neurons, neurons)
    weights = read(path, weights_group(study.neurons, k, neurons))["weights"]
    shape = (len(study.gamma), len(study.alpha), 1, study.trials, neurons, k**2)
    if weights.shape != shape:
        raise ParameterError("file", f"must have weights of the shape {shape}", weights.shape)
    return weights


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
    if dataset.attrs.get("format") != FORMAT:
        raise ParameterError("file", "must be the result of a circuitsim sweep", str(path))
    if dataset.attrs.get("format_version") != FORMAT_VERSION:
        raise ParameterError(
            "file", f"must be of format version {FORMAT_VERSION}", dataset.attrs["format_version"]
        )
    return parse_study(dataset.attrs.get("study"), path)


def parse_study(text: Any, path: Path) -> Study:
    """Return the study that a file's attribute ``study`` describes.

    Raises
    ------
    ParameterError
        If it describes none.
    """
    try:
        values = json.loads(text)
        known = {f.name for f in fields(Study)}
        lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
        return Study(**{n: v for n, v in (values | lists).items() if n in known})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ParameterError("file", f"describes no valid study ({error})", str(path)) from None


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


def _write(dataset: xr.Dataset, path: Path, group: str | None) -> None:
    dataset.to_netcdf(path, mode="a", group=group, engine="h5netcdf", format="NETCDF4")


def read(
    path: Path,
    group: str | None,
    what: str = "the result of a sweep",
    at_most: float = np.inf,
) -> xr.Dataset:
    """Read one group of a netCDF file into memory.

    Parameters
    ----------
    path : Path
        The file.
    group : str or None
        None for the root.
    what : str
        What the file should be, for the message.
    at_most : float
        Bytes that the numbers may take.

    Raises
    ------
    ParameterError
        If it cannot be read, or is larger.
    FileNotFoundError
        If there is no file.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a directory")
        with xr.open_dataset(path, group=group, engine="h5netcdf") as dataset:
            if dataset.nbytes > at_most:
                raise ValueError(f"it has {dataset.nbytes / 1e6:.3g} MB of numbers")
            return dataset.load()
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ParameterError("file", f"cannot be read as {what} ({reason})", str(path)) from None


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
