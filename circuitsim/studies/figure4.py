"""Figure 4 of the paper: its protocol, its numbers, their file, and what they are checked against.

A panel is an `xarray.Dataset` with

==============================  ================================  ================================
variable                        dimensions                        meaning
==============================  ================================  ================================
``inverse_snr_w``               (k, gamma, trial, presentation)   after some of the presentations
``theory_inverse_snr_w``        (k, gamma, trial)                 at the end point of Eq. 5
``fixed_point_inverse_snr_w``   (k, gamma, trial)                 at the simulated rule's own
``best_inverse_snr_w``          (k, gamma, trial)                 lowest after any presentation
``best_presentation``           (k, gamma, trial)                 after which one that was
``final_snr_w``                 (k, gamma, trial)                 Eq. 6 after the last one
==============================  ================================  ================================

and with its `Study` in the attributes. In the file each panel is a group of its name.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import brian2
import numpy as np
import xarray as xr
from numpy.typing import NDArray

import circuitsim
from circuitsim.files import atomic_write
from circuitsim.studies import results
from circuitsim.studies.local import LocalPool, ThreadedPool
from circuitsim.studies.study import Cell, CellResult, Study, run_cells
from circuitsim.validation import ParameterError, one_of

FORMAT = "circuitsim figure 4"
FORMAT_VERSION = 1
STORED = 201  # points of a curve that are kept: as many as a figure of this size can show

_POLL = 0.1  # seconds between looks at what runs
_LARGEST_FILE = 1e9  # bytes of numbers
_DIMENSIONS = ("k", "gamma", "trial")
_VARIABLES = {
    "inverse_snr_w": (*_DIMENSIONS, "presentation"),
    "theory_inverse_snr_w": _DIMENSIONS,
    "fixed_point_inverse_snr_w": _DIMENSIONS,
    "best_inverse_snr_w": _DIMENSIONS,
    "best_presentation": _DIMENSIONS,
    "final_snr_w": _DIMENSIONS,
}
_ATTRIBUTES = results.ATTRIBUTES | {
    "best_inverse_snr_w": ("lowest inverse SNR of the weights after any presentation", "1"),
    "best_presentation": ("presentations until the lowest inverse SNR of the weights", "1"),
    "final_snr_w": ("signal-to-noise ratio of the weights (Eq. 6) at the end", "1"),
}


@dataclass(frozen=True)
class Protocol:
    """What is published of a panel.

    Attributes
    ----------
    rule : str
    presentations : int
    summary : str
        For tables and captions.
    """

    rule: str
    presentations: int
    summary: str


PROTOCOLS = {
    "a": Protocol("mean_subtracted", 2_000, "Eq. 4, one update a presentation"),
    "b": Protocol("circuit", 10_000, "the circuit (Eqs. 7-9), an update at every step of 1 ms"),
}

Panels = dict[str, xr.Dataset]


def studies(
    panels: Sequence[str] = ("a", "b"),
    presentations: int | None = None,
    alpha: float = 10.0,
    **options: Any,
) -> dict[str, Study]:
    """Return the studies that make the panels.

    Parameters
    ----------
    panels : sequence of str
        ``"a"``, ``"b"``.
    presentations : int, optional
        As published by default.
    alpha : float
        Strength of inhibition in panel B.
    **options
        What else differs from the published protocol, as for `Study`.

    Raises
    ------
    ParameterError
        If a value is out of its range, or a panel does not exist or is asked for twice.
    """
    made: dict[str, Study] = {}
    for name in panels:
        protocol = PROTOCOLS[one_of("panel", name, PROTOCOLS)]
        if name in made:
            raise ParameterError("panel", "must not be given twice", name)
        length = protocol.presentations if presentations is None else presentations
        study = Study(rule=protocol.rule, presentations=length, **options)
        made[name] = study if study.per_presentation else replace(study, alpha=(alpha,))
    if not made:
        raise ParameterError("panel", "needs at least one value", panels)
    return dict(sorted(made.items()))


def compute(
    studies: Mapping[str, Study],
    jobs: int = 1,
    advanced: Callable[[float], None] | None = None,
) -> Panels:
    """Run all circuits of some panels.

    Every circuit has the weights, inputs and numbers that it has in a sweep with the same seed.

    Parameters
    ----------
    studies : mapping
        From the panels' names to their studies.
    jobs : int
        Threads to use, or processes for an engine that is not made of compiled loops.
    advanced : callable, optional
        Called now and then with the share of the work that is done.

    Returns
    -------
    dict
        From the panels' names to Datasets.

    Raises
    ------
    ParameterError
        If an engine cannot do what is asked.
    FloatingPointError
        If weights diverge; the message names k.
    """
    work = [(name, job) for name, study in studies.items() for job in study.jobs(study.cells)]
    cost = [studies[name].presentations * len(job) * job[0].k ** 4 for name, job in work]
    finished: dict[str, dict[Cell, CellResult]] = {name: {} for name in studies}
    with _pool(studies, jobs) as pool:
        running = {}
        # The longest first, so that all cores are busy until the end.
        for number in sorted(range(len(work)), key=lambda number: -cost[number]):
            name, job = work[number]
            running[pool.submit_watched(number, run_cells, studies[name], job)] = number
        while running:
            done, _ = wait(running, timeout=_POLL, return_when=FIRST_COMPLETED)
            for future in done:
                name, job = work[running.pop(future)]
                try:
                    finished[name].update(zip(job, future.result(), strict=True))
                except FloatingPointError as error:
                    raise FloatingPointError(f"k = {job[0].k}: {error}") from error
            if advanced is not None:
                parts = pool.fractions()
                left = sum(cost[n] * (1 - parts.get(n, 0.0)) for n in running.values())
                advanced(1 - left / sum(cost))
    return {name: _panel(name, study, finished[name]) for name, study in studies.items()}


def _pool(studies: Mapping[str, Study], jobs: int) -> LocalPool | ThreadedPool:
    if any(study.engine != "propagator" for study in studies.values()):
        return LocalPool(jobs)
    # Compile here, where an interrupt is met at once.
    for study in studies.values():
        run_cells(replace(study, presentations=1), study.cells[:1])
    return ThreadedPool(jobs)


def stored_presentations(last: int) -> NDArray[np.int64]:
    """After how many presentations a curve's values are kept, evenly from 0 to the last."""
    return np.unique(np.linspace(0, last, STORED).round()).astype(np.int64)


def _panel(name: str, study: Study, finished: Mapping[Cell, CellResult]) -> xr.Dataset:
    kept = stored_presentations(study.presentations)
    axes = {"k": study.k, "gamma": study.gamma, "trial": tuple(range(study.trials))}
    shape = tuple(len(axis) for axis in axes.values())
    numbers: dict[str, NDArray[Any]] = {
        variable: np.empty((*shape, len(kept)) if "presentation" in dims else shape)
        for variable, dims in _VARIABLES.items()
    }
    numbers["best_presentation"] = np.empty(shape, dtype=np.int64)
    points = product(study.k, study.gamma, range(study.trials))
    for place, (k, gamma, trial) in zip(np.ndindex(shape), points, strict=True):
        result = finished[Cell(k, study.neurons[0], gamma, study.alpha[0], trial)]
        inverse = result.curves["inverse_snr_w"]
        best = int(np.argmin(inverse))
        numbers["inverse_snr_w"][place] = inverse[kept]
        numbers["best_inverse_snr_w"][place] = inverse[best]
        numbers["best_presentation"][place] = best
        numbers["final_snr_w"][place] = result.curves["snr_w"][-1]
        for limit in ("theory_inverse_snr_w", "fixed_point_inverse_snr_w"):
            numbers[limit][place] = result.limits[limit]
    dataset = xr.Dataset(
        {variable: (dims, numbers[variable]) for variable, dims in _VARIABLES.items()},
        {**{axis: list(values) for axis, values in axes.items()}, "presentation": kept},
    )
    for variable in dataset.variables:
        long_name, units = _ATTRIBUTES[str(variable)]
        dataset[variable].attrs = {"long_name": long_name, "units": units}
    dataset.attrs = {
        "title": f"Figure 4{name.upper()}: {PROTOCOLS[name].summary}",
        "rule": study.rule,
        "study": json.dumps(asdict(study)),
    }
    if not study.per_presentation:
        dataset.attrs["alpha"] = study.alpha[0]
    return dataset


def study_of(panel: xr.Dataset) -> Study:
    """Return the study that a panel is made of."""
    return results.parse_study(panel.attrs.get("study"), Path(panel.encoding.get("source", "")))


def save(panels: Mapping[str, xr.Dataset], path: Path, command_line: str) -> None:
    """Write panels to a netCDF-4 file, whole or not at all.

    The same panels give the same bytes, with the same versions of what is used.

    Parameters
    ----------
    panels : mapping
        From names to Datasets, as `compute` returns them.
    path : Path
        Replaced if it is there.
    command_line : str
        What made them.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    root = xr.Dataset(
        attrs={
            "title": "Figure 4: convergence of the weights' signal-to-noise ratio",
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "panels": " ".join(panels),
            "command_line": command_line,
            "citation": results.CITATION,
            "circuitsim_version": circuitsim.__version__,
            "brian2_version": brian2.__version__,
            "numpy_version": np.__version__,
            "python_version": platform.python_version(),
        }
    )
    with atomic_write(path) as temporary:
        temporary.unlink()  # the library wants to make its file itself
        root.to_netcdf(temporary, mode="w", engine="h5netcdf", format="NETCDF4")
        for name, panel in panels.items():
            compressed = {str(v): {"zlib": True, "shuffle": True} for v in panel.data_vars}
            panel.to_netcdf(
                temporary,
                mode="a",
                group=name,
                engine="h5netcdf",
                format="NETCDF4",
                encoding=compressed,
            )


def load(path: Path) -> tuple[Panels, str]:
    """Read the file of a figure.

    Parameters
    ----------
    path : Path
        That `save` wrote.

    Returns
    -------
    panels : dict
        From names to Datasets, as `compute` returns them.
    command_line : str
        What made them.

    Raises
    ------
    ParameterError
        If it is no such file.
    FileNotFoundError
        If there is no file.
    """
    what = "the data of Figure 4"
    root = results.read(path, None, what, _LARGEST_FILE).attrs
    if root.get("format") != FORMAT:
        raise ParameterError("file", f"must be {what}, written by circuitsim.figure4", str(path))
    if root.get("format_version") != FORMAT_VERSION:
        version = root.get("format_version")
        raise ParameterError(
            "file", f"is of format version {version}, not {FORMAT_VERSION}", str(path)
        )
    panels = {}
    for name in str(root.get("panels", "")).split():
        panel = results.read(path, one_of("file", name, PROTOCOLS), what, _LARGEST_FILE)
        _check(panel, results.parse_study(panel.attrs.get("study"), path), path)
        panels[name] = panel
    if not panels:
        raise ParameterError("file", "has no panels", str(path))
    return panels, str(root.get("command_line", "unknown"))


def _check(panel: xr.Dataset, study: Study, path: Path) -> None:
    """Refuse numbers that are not those of the study they claim to be of."""
    axes = {
        "k": np.array(study.k),
        "gamma": np.array(study.gamma),
        "trial": np.arange(study.trials) if study.trials < _LARGEST_FILE else np.empty(0),
        "presentation": stored_presentations(study.presentations),
    }
    sound = (
        set(panel.data_vars) == set(_VARIABLES)
        and all(panel[name].dims == dims for name, dims in _VARIABLES.items())
        and set(panel.coords) == set(axes)
        and all(np.array_equal(panel[name], axis) for name, axis in axes.items())
        and all(panel[name].dtype.kind in "if" for name in _VARIABLES)
        and all(not np.isnan(panel[name]).any() for name in _VARIABLES)
    )
    if not sound:
        raise ParameterError("file", "has not the numbers that it says it has", str(path))


def table(panels: Mapping[str, xr.Dataset]) -> str:
    """Compare every curve with theory, in lines of at most 79 columns.

    Parameters
    ----------
    panels : mapping
        From names to Datasets.

    Returns
    -------
    str
        For each panel, k and gamma, as log10 of the inverse SNR of the weights: the last value
        with its standard deviation over trials; the end point of Eq. 5 (the theoretical minimum),
        and how far above it the last value is; the same for the circuit's own end point; and the
        best value of each trial (the mean) with the presentations until then (the median).
    """
    lines = ["log10 of the inverse SNR of the weights, mean over trials"]
    for name, panel in panels.items():
        study = study_of(panel)
        own = not study.per_presentation
        lines += [
            "",
            f"{name.upper()}  {PROTOCOLS[name].summary}",
            f"   after {study.presentations:,} presentations, {study.trials} trial"
            + "s" * (study.trials > 1)
            + (f", alpha = {study.alpha[0]:g}" if own else ""),
            f"{'k':>4} {'gamma':>8} {'last':>15} {'Eq. 5':>8} {'above':>6}"
            + (f" {'own end':>8} {'above':>6}" if own else "")
            + f" {'best':>7} {'after':>7}",
        ]
        for k, gamma in product(study.k, study.gamma):
            lines.append(_line(panel.sel(k=k, gamma=gamma), k, gamma, own))
    lines += ["", "Eq. 5: the theoretical minimum" + "; own end: the circuit's own end point" * own]
    return "\n".join(lines)


def _line(point: xr.Dataset, k: int, gamma: float, own: bool) -> str:
    with np.errstate(divide="ignore"):
        logs = {name: np.log10(point[name].to_numpy()) for name in _VARIABLES}
    last = logs["inverse_snr_w"][:, -1]
    mean = float(last.mean())
    spread = f" +- {last.std(ddof=1):.2f}" if len(last) > 1 else ""
    theory, end_point = (
        float(logs[f"{which}_inverse_snr_w"].mean()) for which in ("theory", "fixed_point")
    )
    return (
        f"{k:>4} {gamma:>8g} {f'{mean:.2f}{spread}':>15} {theory:>8.2f} {mean - theory:>6.2f}"
        + (f" {end_point:>8.2f} {mean - end_point:>6.2f}" if own else "")
        + f" {logs['best_inverse_snr_w'].mean():>7.2f}"
        + f" {np.median(point['best_presentation']):>7.0f}"
    )


def caption(panels: Mapping[str, xr.Dataset], command_line: str) -> str:
    """Describe the figure, its settings and what differs from the paper, as Markdown.

    Parameters
    ----------
    panels : mapping
        From names to Datasets.
    command_line : str
        What made them.
    """
    made = {name: study_of(panel) for name, panel in panels.items()}
    study = next(iter(made.values()))
    letters = " and ".join(name.upper() for name in panels)
    several = f"{study.trials} trials" if study.trials > 1 else "one trial"
    lines = [
        f"# Figure 4{letters if len(panels) == 1 else ''}",
        "",
        f"Convergence of the weights of a pool of {study.neurons[0]} neurons: log10 of the inverse "
        f"signal-to-noise ratio of the weights over presentations; mean of {several}"
        + (", and one standard deviation (band)" if study.trials > 1 else "")
        + ". Dotted: the theoretical minimum (the end point of Eq. 5)."
        + (" Dash-dotted: the circuit's own end point." if "b" in panels else ""),
        "",
        *(f"- **{name.upper()}** {_settings(name, s)}" for name, s in made.items()),
        "",
        f"After {results.CITATION}, Figure 4. Made by `{command_line}`.",
        "",
        "## Settings",
        "",
        f"- k = {_listed(study.k)} (k^2 inputs); gamma = {_listed(study.gamma)}.",
        "- Initial weights 1 + N(0, 1), inputs N(0, 1), all independent; one input for all neurons "
        "of a pool, new for each presentation.",
        f"- Seed {study.seed}. A trial's weights and inputs depend on the seed, k, the number of "
        "neurons and the trial alone: the same for every gamma and in both panels, and the same "
        "as in a sweep with this seed.",
        f"- Engine {study.engine} (codegen {study.codegen}), double precision.",
        "- End points are computed from each trial's own initial weights.",
        "",
        "## What differs from the paper",
        "",
        *(f"- {text}" for text in _differences(panels, made)),
        "",
        "## Data",
        "",
        f"The netCDF-4 file has a group for each panel ({', '.join(panels)}). Of each curve it "
        f"keeps {STORED} points at equal distances, or all if there are fewer, for every trial; "
        "the figure shows these. The best value of a curve and when it was reached are from all "
        "presentations. `--redraw` draws the file again.",
        "",
        "## Check",
        "",
        "```",
        table(panels),
        "```",
        "",
    ]
    return "\n".join(lines)


def _settings(name: str, study: Study) -> str:
    rate = study.plasticity(study.gamma[0]).learning_rate
    text = (
        f"`{study.rule}`: {PROTOCOLS[name].summary}. {study.presentations:,} presentations; "
        f"momentum {study.momentum:g}; learning rate `{rate!r}`"
    )
    if not study.per_presentation:
        text += (
            f"; alpha = {study.alpha[0]:g}, tau = {study.tau:g} ms, b = {study.b:g}; forward Euler "
            f"with dt = {study.dt:g} ms, each input shown for {study.presentation:g} ms, rates 0 "
            "at the start and carried over from one presentation to the next"
        )
    return text + "."


def _differences(panels: Mapping[str, xr.Dataset], made: Mapping[str, Study]) -> list[str]:
    published = studies(tuple(made))
    texts = [
        f"{letter.upper()}: {field} = {_listed(value)}; published: {_listed(getattr(of, field))}."
        for letter, of in published.items()
        for field, value in asdict(made[letter]).items()
        if value != getattr(of, field) and field not in ("engine", "codegen", "seed")
    ]
    texts += [
        "Our own random draws: the published ones are not available. Here all gammas and both "
        "panels share them, so that differences between curves are not differences between draws.",
        "The measure is that of the published code, the mean over inputs of var_j / wbar_j^2 "
        f"(`inverse_snr_w`), not the inverse of Eq. 6, which is lower: by {_gap(panels):.3f} in "
        "log10 at the end, on average. A mean weight near zero raises it, and widens the band.",
        "The logarithm is taken of each trial, before the mean and standard deviation.",
    ]
    if any(study.engine == "propagator" for study in made.values()):
        texts.append(
            "The published steps are performed in another order of arithmetic (the exact "
            "propagator), which agrees with stepping to rounding, and in double precision."
        )
    if "b" in panels:
        texts.append(
            "B has one line more for each gamma, the circuit's own end point. For finite alpha the "
            "circuit loses part of the mean of the weights too, so it does not tend to the "
            "theoretical minimum: it dips below its own end point and drifts back."
        )
    return texts


def _gap(panels: Mapping[str, xr.Dataset]) -> float:
    """How far the measure drawn lies above the inverse of Eq. 6 at the end, in log10."""
    gaps = [
        np.log10(panel["inverse_snr_w"][..., -1] * panel["final_snr_w"])
        for panel in panels.values()
    ]
    return float(np.mean(gaps))


def _listed(values: Any) -> str:
    values = values if isinstance(values, tuple | list) else [values]
    return ", ".join(v if isinstance(v, str) else f"{v:g}" for v in values)
