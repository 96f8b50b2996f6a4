"""Learned weights on their way to other programs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from circuitsim.checks.validation import ParameterError
from circuitsim.files import atomic_write
from circuitsim.files.provenance import CITATION
from circuitsim.studies.sweep import listed, load_weights, only, study_in

SCHEMA = "circuitsim weights"
SCHEMA_VERSION = 1


def export_weights(
    file: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    k: int | None = None,
    gamma: float | Sequence[float] | None = None,
    alpha: float | Sequence[float] | None = None,
    neurons: int | None = None,
    trial: int | Sequence[int] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write learned weights of a sweep as an ``.npz`` file that needs no pickle.

    The file (schema ``circuitsim weights``, version 1) has, for S chosen circuits,

    ========================  ==============================  ==================================
    array                     shape and type                  meaning
    ========================  ==============================  ==================================
    ``weights``               (S, neuron, input) float64      weights after the last presentation
    ``gamma``, ``alpha``      (S,) float64                    parameters of each circuit
    ``trial``                 (S,) int64                      its number
    ``tau_inh``, ...          (S,) float64                    what the sweep has set (``--set``)
    ``k``, ``neurons``        () int64                        kernel size, neurons in the pool
    ``channels``              () int64                        inputs are (row, column, channel)
    ``rule``, ``study``       () str                          the rule; all parameters, as JSON
    ``source``, ``citation``  () str                          the sweep's file; the paper
    ``schema``                () str                          ``"circuitsim weights"``
    ``schema_version``        () int64                        1
    ========================  ==============================  ==================================

    and loads with ``numpy.load(file, allow_pickle=False)``.

    Parameters
    ----------
    file : path
        Result of a sweep.
    output : path, optional
        File to write; by default the sweep's name with ``-k3.npz`` (and so on) for its ending.
    k, neurons : int, optional
        One kernel size and number of neurons; needed if the sweep has several.
    gamma, alpha : float or sequence of float, optional
        Which values; all by default.
    trial : int or sequence of int, optional
        Which trials; all by default.
    overwrite : bool
        Whether to replace a file that holds something else.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ParameterError
        If the file is not the result of a sweep, or has no such circuits; or if the output holds
        something else.
    OSError
        If a file is missing or cannot be written.
    """
    path = Path(file)
    study = study_in(path)
    k = only("k", study.k, k)
    weights = load_weights(path, k, only("neurons", study.neurons, neurons)).isel(neurons=0)
    chosen = {
        "gamma": _places("gamma", study.gamma, gamma),
        "alpha": _places("alpha", study.alpha, alpha),
        "trial": _places("trial", tuple(range(study.trials)), trial),
    }
    circuits = weights.isel(chosen).stack(circuit=("gamma", "alpha", *study.further, "trial"))
    circuits = circuits.transpose("circuit", "neuron", "input")
    target = Path(output) if output is not None else path.with_name(f"{path.stem}-k{k}.npz")
    if target.suffix != ".npz":
        raise ParameterError("output", "must end in .npz", str(target))
    if target.is_dir() or not target.parent.is_dir():
        raise ParameterError("output", "must be a file in a directory that exists", str(target))
    arrays: dict[str, Any] = {
        "weights": circuits.to_numpy(),
        "gamma": circuits["gamma"].to_numpy(),
        "alpha": circuits["alpha"].to_numpy(),
        "trial": circuits["trial"].to_numpy(),
        **{name: circuits[name].to_numpy() for name in study.further},
        "k": np.int64(k),
        "channels": np.int64(study.channels),
        "neurons": np.int64(circuits.sizes["neuron"]),
        "rule": study.rule,
        "study": study.to_json(),
        "source": path.name,
        "citation": CITATION,
        "schema": SCHEMA,
        "schema_version": np.int64(SCHEMA_VERSION),
    }
    with atomic_write(target) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
        stream.flush()
        if target.exists() and not overwrite and target.read_bytes() != temporary.read_bytes():
            raise ParameterError(
                "output",
                "holds something else; name another, or overwrite it (--overwrite)",
                str(target),
            )
    return target


def _places(name: str, available: tuple[float, ...], wanted: Any) -> list[int]:
    if wanted is None:
        return list(range(len(available)))
    places = []
    for value in np.atleast_1d(wanted).tolist():
        near = np.isclose(available, value, rtol=1e-9, atol=0)
        if not near.any():
            raise ParameterError(name, f"must be one of {listed(available)}", value)
        places.append(int(np.argmax(near)))
    return places
