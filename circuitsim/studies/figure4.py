"""Figure 4 of the paper: its protocol, its numbers, their file, and what they are checked against.

A panel is an `xarray.Dataset` with

==============================  ================================  ================================
variable                        dimensions                        meaning
==============================  ================================  ================================
``inverse_snr_w``               (k, gamma, trial, presentation)   after some of the presentations
``theory_inverse_snr_w``        (k, gamma, trial)                 at the end point of Eq. 5
``fixed_point_inverse_snr_w``   (k, gamma, trial)                 at the simulated rule's own
``averaged_inverse_snr_w``      (k, gamma, trial)                 at its own, with the transients of
                                                                  each presentation
``best_inverse_snr_w``          (k, gamma, trial)                 lowest after any presentation
``best_presentation``           (k, gamma, trial)                 after which one that was
``final_snr_w``                 (k, gamma, trial)                 Eq. 6 after the last one
==============================  ================================  ================================

and with its `Study` in the attributes. In the file each panel is a group of its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circuitsim import measures, theory
from circuitsim.engines import registry
from circuitsim.engines.batch import Progress
from circuitsim.studies import figures, results
from circuitsim.studies.local import run_all
from circuitsim.studies.study import Cell, CellResult, Study, run_cells
from circuitsim.validation import one_of
from circuitsim.values import ms

FIGURE = "figure4"
STORED = 201  # points of a curve that are kept: as many as a figure of this size can show

_DIMENSIONS = ("k", "gamma", "trial")
_VARIABLES = {
    "inverse_snr_w": (*_DIMENSIONS, "presentation"),
    "theory_inverse_snr_w": _DIMENSIONS,
    "fixed_point_inverse_snr_w": _DIMENSIONS,
    "averaged_inverse_snr_w": _DIMENSIONS,
    "best_inverse_snr_w": _DIMENSIONS,
    "best_presentation": _DIMENSIONS,
    "final_snr_w": _DIMENSIONS,
}
_NAMES = results.ATTRIBUTES | {
    "averaged_inverse_snr_w": ("inverse SNR of the weights at the averaged end point", "1"),
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
        If a value is out of its range, or there is no such panel.
    """
    made: dict[str, Study] = {}
    for name in panels:
        protocol = PROTOCOLS[one_of("panel", name, PROTOCOLS)]
        length = protocol.presentations if presentations is None else presentations
        study = Study(rule=protocol.rule, presentations=length, **options)
        made[name] = study if study.per_presentation else replace(study, alpha=(alpha,))
    return made


def compute(
    studies: Mapping[str, Study],
    jobs: int = 1,
    advanced: Callable[[float], None] | None = None,
) -> figures.Groups:
    """Run all circuits of some panels.

    Every circuit has the weights, inputs and numbers that it has in a sweep with the same seed.

    Parameters
    ----------
    studies : mapping
        From the panels' names to their studies.
    jobs : int
        Threads or processes to use.
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
    with figures.pool(list(studies.values()), jobs) as pool:
        tasks = [(_run_job, studies[name], job) for name, job in work]
        batches = run_all(pool, tasks, cost, advanced)
    finished: dict[str, dict[Cell, CellResult]] = {name: {} for name in studies}
    for (name, job), batch in zip(work, batches, strict=True):
        finished[name].update(zip(job, batch, strict=True))
    return {name: _panel(name, study, finished[name]) for name, study in studies.items()}


def _run_job(study: Study, job: Sequence[Cell], progress: Progress) -> list[CellResult]:
    try:
        return run_cells(study, job, progress)
    except FloatingPointError as error:
        raise FloatingPointError(f"k = {job[0].k}: {error}") from None


def _panel(name: str, study: Study, finished: Mapping[Cell, CellResult]) -> xr.Dataset:
    axes = _axes(study)
    kept = axes["presentation"]
    shape = tuple(len(axes[name]) for name in _DIMENSIONS)
    numbers: dict[str, NDArray[Any]] = {
        variable: np.empty((*shape, len(kept)) if "presentation" in dims else shape)
        for variable, dims in _VARIABLES.items()
    }
    numbers["best_presentation"] = np.empty(shape, dtype=np.int64)
    points = product(study.k, study.gamma, range(study.trials))
    for place, (k, gamma, trial) in zip(np.ndindex(shape), points, strict=True):
        cell = Cell(k, study.neurons[0], gamma, study.alpha[0], trial)
        result = finished[cell]
        inverse = result.curves["inverse_snr_w"]
        best = int(np.argmin(inverse))
        numbers["inverse_snr_w"][place] = inverse[kept]
        numbers["best_inverse_snr_w"][place] = inverse[best]
        numbers["best_presentation"][place] = best
        numbers["final_snr_w"][place] = result.curves["snr_w"][-1]
        for limit in ("theory_inverse_snr_w", "fixed_point_inverse_snr_w"):
            numbers[limit][place] = result.limits[limit]
        numbers["averaged_inverse_snr_w"][place] = _averaged(study, cell)
    variables = {variable: (dims, numbers[variable]) for variable, dims in _VARIABLES.items()}
    title = f"Figure 4{name.upper()}: {PROTOCOLS[name].summary}"
    panel = figures.labelled(xr.Dataset(variables, axes), _NAMES, study, title)
    return panel.assign_attrs(_attributes(study))


def _attributes(study: Study) -> dict[str, Any]:
    """What a drawing takes from a panel's attributes."""
    return {"rule": study.rule} | ({} if study.per_presentation else {"alpha": study.alpha[0]})


def _averaged(study: Study, cell: Cell) -> float:
    """Measure at the end point that includes the transients of each presentation."""
    weights = theory.fixed_point(
        study.initial_weights(cell),
        cell.gamma,
        study.rule,
        cell.alpha,
        study.covariance(cell.k),
        study.tau * ms,
        study.presentation * ms,
        study.dt * ms,
        limit=True,
    )
    return float(measures.inverse_snr_w(weights))


def _axes(study: Study) -> dict[str, NDArray[Any]]:
    return {
        "k": np.array(study.k),
        "gamma": np.array(study.gamma),
        "trial": np.arange(study.trials),
        "presentation": figures.evenly_spaced(study.presentations, STORED),
    }


def load(path: Path) -> figures.Data:
    """Read the data of Figure 4.

    Parameters
    ----------
    path : Path
        File that ``python -m circuitsim.figure4`` wrote.

    Returns
    -------
    Data
        The panels are its groups.

    Raises
    ------
    ParameterError
        If it is no such file.
    FileNotFoundError
        If there is no file.
    """
    return figures.load(
        path,
        {FIGURE: tuple(PROTOCOLS)},
        lambda _, study: figures.Contents(_VARIABLES, _axes(study), _attributes(study)),
    )


def table(data: figures.Data) -> str:
    """Compare every curve with theory, in lines of at most 79 columns.

    Parameters
    ----------
    data : Data
        As `load` returns it.

    Returns
    -------
    str
        For each panel, k and gamma, as log10 of the inverse SNR of the weights: the last value
        with its standard deviation over trials; the end point of Eq. 5 (the theoretical minimum),
        the circuit's own, and that with the transients of each presentation, each with how far
        above it the last value is; and the best value of each trial (the mean) with the
        presentations until then (the median).
    """
    lines = ["log10 of the inverse SNR of the weights, mean over trials"]
    for name, panel in data.groups.items():
        study = figures.study_of(panel)
        lines += [
            "",
            f"{name.upper()}  {PROTOCOLS[name].summary}",
            f"   after {study.presentations:,} presentations, {study.trials} trial"
            + "s" * (study.trials > 1)
            + ("" if study.per_presentation else f", alpha = {study.alpha[0]:g}"),
            f"{'k':>2} {'gamma':>5} {'last':>13}"
            + "".join(f" {title:>8} above" for title in _limits_shown(study).values())
            + f" {'best':>5} {'after':>5}",
        ]
        for k, gamma in product(study.k, study.gamma):
            lines.append(_line(panel.sel(k=k, gamma=gamma), study, k, gamma))
    lines += [
        "",
        "Eq. 5: theoretical minimum; own end: the circuit's own end point with settled",
        "rates; averaged: with the transients of each presentation; above: how far the",
        "last value is; best: lowest of all; after: presentations until then, median",
    ]
    return "\n".join(lines)


def _limits_shown(study: Study) -> dict[str, str]:
    """Which end points a panel is compared with, and what they are called there."""
    limits = {"theory": "Eq. 5"}
    if not study.per_presentation:
        limits |= {"fixed_point": "own end", "averaged": "averaged"}
    return limits


def _line(point: xr.Dataset, study: Study, k: int, gamma: float) -> str:
    with np.errstate(divide="ignore"):
        logs = {name: np.log10(point[name].to_numpy()) for name in _VARIABLES}
    last = logs["inverse_snr_w"][:, -1]
    mean = float(last.mean())
    line = f"{k:>2} {gamma:>5g} {figures.with_spread(last, 2):>13}"
    for limit in _limits_shown(study):
        end = float(logs[f"{limit}_inverse_snr_w"].mean())
        line += f" {end:>8.2f} {mean - end:>5.2f}"
    line += f" {logs['best_inverse_snr_w'].mean():>5.2f}"
    return line + f" {np.median(point['best_presentation']):>5.0f}"


def caption(data: figures.Data) -> str:
    """Describe the figure, its settings and what differs from the paper, as Markdown.

    Parameters
    ----------
    data : Data
        As `load` returns it.
    """
    panels = data.groups
    made = {name: figures.study_of(panel) for name, panel in panels.items()}
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
        f"After {results.CITATION}, Figure 4. Made by `{data.command_line}`.",
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
        table(data),
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
    if any(registry.find(study.engine).exact for study in made.values()):
        texts.append(
            "The published steps are performed in another order of arithmetic (the exact "
            "propagator), which agrees with stepping to rounding, and in double precision."
        )
    if "b" in panels:
        texts.append(
            "B has one line more for each gamma, the circuit's own end point. For finite alpha the "
            "circuit loses part of the mean of the weights too, so it does not tend to the "
            "theoretical minimum: deviations shrink faster than the mean, the curve falls below "
            "the end point where gamma is small, and drifts back as the mean decays. That line "
            "takes rates to be settled at all times. With the transients of each presentation "
            "(averaged, below; see the figure endpoint) the end point is higher; at the published "
            "settings the circuit with gamma = 0.1 has reached it."
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
