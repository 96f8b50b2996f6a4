"""How the weights' SNR converges: curves of a run, of a sweep, and Figure 4 of the paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import AutoMinorLocator, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from circuitsim import measures, rules, theory
from circuitsim.checks.validation import ParameterError
from circuitsim.checks.values import ms
from circuitsim.dynamics import Dynamics
from circuitsim.plots.circuit import before_and_after
from circuitsim.plots.style import (
    COLOURS,
    COLUMN,
    ENDS,
    INVERSE_SNR,
    TEXT_WIDTH,
    THIN,
    Picture,
    legend_below,
    mean_and_band,
    note,
    panel_letter,
    paper,
)

_GREY = "0.3"
_GRID = ("k", "gamma", "alpha", "neurons")
_DASHES = ("-", (0, (6, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)))


def sweep(dataset: xr.Dataset) -> Figure:
    """Plot a sweep: log10 of the weights' inverse SNR over presentations, a panel for each k.

    A colour for each gamma, a dash for each alpha, a panel too for each value of further settings.
    Mean over trials with a band of one standard deviation; dotted, the end point of Eq. 5 (the
    paper's theoretical minimum); dash-dotted, the simulated rule's own end point, for settled
    rates, if it has one.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `circuitsim.load` returns it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    own_dims = (*_GRID, "trial")
    further = [str(n) for n in dataset["theory_inverse_snr_w"].dims if n not in own_dims]
    names = ("k", "neurons", *further)
    panels = list(product(*(dataset[name].to_numpy() for name in names)))
    gammas, alphas = (dataset[name].to_numpy() for name in ("gamma", "alpha"))
    channels = int(dataset.attrs.get("channels", 1))
    several_neurons = len(dataset["neurons"]) > 1
    own = _has_own_end(dataset) and bool(dataset["fixed_point_inverse_snr_w"].notnull().any())
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    lines = -(-len(panels) // columns)
    with paper():
        narrow = COLUMN if len(gammas) + len(alphas) <= 5 else 1.4 * COLUMN
        size = (max(narrow, 2.4 * columns), 0.3 + (2.0 + 0.15 * len(further)) * lines)
        figure = Picture(figsize=size)
        axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for axis, panel in zip(axes.flat, panels, strict=False):
            at = dict(zip(names, panel, strict=True))
            for colour, gamma in zip(_colours(len(gammas)), gammas, strict=True):
                of_gamma = dataset.sel(at | {"gamma": gamma})
                limit(axis, of_gamma["theory_inverse_snr_w"].isel(alpha=0), colour, "theory")
                for dash, alpha in zip(_dashes(len(alphas)), alphas, strict=True):
                    point = of_gamma.sel(alpha=alpha)
                    curve(axis, point["inverse_snr_w"], colour, dash)
                    if own:
                        limit(axis, point["fixed_point_inverse_snr_w"], colour, "settled")
            title = f"$k$ = {at['k']}" + (f", {channels} channels" if channels > 1 else "")
            title += f", {at['neurons']} neurons" if several_neurons else ""
            for name in further:
                unit = dataset[name].attrs.get("units", "")
                title += f"\n{name} = {at[name]:g} {unit}".rstrip()
            axis.set_title(title)
            axis.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10], integer=True))
        for number, axis in enumerate(axes.flat):
            if number >= len(panels):
                axis.remove()
            elif number + columns >= len(panels):  # nothing is below it
                axis.set_xlabel("presentations")
                axis.tick_params(labelbottom=True)
        for row in axes:
            row[0].set_ylabel(INVERSE_SNR)
        legend_below(figure, _legend(gammas, alphas, ["theory", "settled"] if own else ["theory"]))
    return figure


def run(dataset: xr.Dataset, covariance: ArrayLike | None = None) -> Figure:
    """Plot how the weights of circuits become alike, and kernels before and after.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `circuitsim.simulate` returns it, of one circuit or a batch.
    covariance : array_like, shape (input, input), optional
        Mean over inputs of x x^T, for the end points; by default the identity, that of independent
        inputs N(0, 1).

    Returns
    -------
    matplotlib.figure.Figure
        On the left the inverse SNR of the weights over presentations, a colour for each circuit,
        with the end points of its rule where they are known; on the right the weights of ten
        neurons of the (first) circuit, as images if the inputs make a square.

    Raises
    ------
    ParameterError
        If the Dataset is not a result of `circuitsim.simulate`.
    """
    for name in ("inverse_snr_w", "weights", "w_init"):
        if name not in dataset:
            raise ParameterError("run", f"must be a result of circuitsim.simulate: has no {name}",
                                 sorted(map(str, dataset.data_vars)))  # fmt: skip
    circuits = dataset if "circuit" in dataset.dims else dataset.expand_dims("circuit")
    colours = _colours(circuits.sizes["circuit"])
    drawn: list[str] = []
    with paper():
        figure = Picture(figsize=(TEXT_WIDTH, 2.6))
        panels = figure.subplot_mosaic("AB;AC", width_ratios=(1.1, 1))
        left = panels["A"]
        for number, colour in enumerate(colours):
            one = circuits.isel(circuit=number)
            curve(left, one["inverse_snr_w"].expand_dims("trial"), colour)
            for name, level in _ends(one, covariance).items():
                limit(left, level, colour, name)
                drawn += [] if name in drawn else [name]
        left.set(xlabel="presentations", ylabel=INVERSE_SNR)
        left.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True))
        first = circuits.isel(circuit=0)
        weights = (first[name].to_numpy() for name in ("w_init", "weights"))
        before_and_after((panels["B"], panels["C"]), *weights)
        words = _told_apart(circuits)
        handles = [Line2D([], [], color=c, label=w) for c, w in zip(colours, words, strict=True)]
        legend_below(figure, [*handles, *_limits(drawn)])
    return figure


def _told_apart(circuits: xr.Dataset) -> list[str]:
    """What circuits of a batch differ in, in words."""
    signs = {"gamma": r"$\gamma$", "alpha": r"$\alpha$", "tau": r"$\tau$", "b": "$b$"}
    varied = [name for name in signs if name in circuits and circuits[name].dims == ("circuit",)]
    rule = str(circuits.attrs.get("rule", "circuit")).partition(" =")[0].replace("_", " ")
    words = []
    for number in range(circuits.sizes["circuit"]):
        values = [f"{signs[n]} = {float(circuits[n][number]):g}" for n in varied]
        more = f"circuit {number}" if circuits.sizes["circuit"] > 1 else rule
        words.append(", ".join(values) or more)
    return words


def _ends(one: xr.Dataset, covariance: ArrayLike | None) -> dict[str, xr.DataArray]:
    """Inverse SNR at the end points of a circuit's rule, where there is a closed form."""
    of = one.attrs
    scalar = all(name in one and not one[name].ndim for name in ("gamma", "alpha", "tau"))
    if not scalar or "rule" not in of:
        return {}
    start, gamma, alpha = one["w_init"].to_numpy(), float(one["gamma"]), float(one["alpha"])
    ends = {"theory": theory.fixed_point(start, gamma, "mean_subtracted", 0.0, covariance)}
    published = Dynamics()
    linear = of.get("excitatory", "").endswith(published.excitatory) and of.get(
        "interneuron", ""
    ).endswith(published.interneuron)
    try:
        rule = rules.get(of["rule"])
        if rule.averaged is not None and not rule.per_presentation and linear:
            ends["averaged"] = theory.fixed_point(
                start, gamma, rule.name, alpha, covariance, float(one["tau"]) * ms,
                of["presentation_ms"] * ms,
                of["dt_ms"] * ms if np.isfinite(of["dt_ms"]) else None, limit=True,
            )  # fmt: skip
    except ParameterError:  # of another session's rules
        pass
    return {
        name: xr.DataArray(measures.inverse_snr_w(weights))
        for name, weights in ends.items()
        if np.isfinite(weights).all()
    }


def figure4(panels: Mapping[str, xr.Dataset]) -> Figure:
    """Draw Figure 4 of the paper: log10 of the weights' inverse SNR over presentations.

    A row for each panel, a column for each k, a colour for each gamma. Mean over trials with a band
    of one standard deviation; dotted, the end point of Eq. 5 (the paper's theoretical minimum);
    dashed, that of the circuit itself, with the transients of each presentation.

    Parameters
    ----------
    panels : mapping
        From the panels' names to Datasets, as a file of `circuitsim.studies.figure4.Figure4` holds
        them.

    Returns
    -------
    matplotlib.figure.Figure
    """
    some = next(iter(panels.values()))
    kernels, gammas = some["k"].to_numpy(), some["gamma"].to_numpy()
    with paper():
        width = COLUMN if len(kernels) == 1 else max(TEXT_WIDTH, 1.8 * len(kernels))
        figure = Picture(figsize=(width, 0.3 + 1.8 * len(panels)))
        axes = figure.subplots(len(panels), len(kernels), sharex="row", sharey=True, squeeze=False)
        for row, (name, dataset) in zip(axes, panels.items(), strict=True):
            for axis, k in zip(row, kernels, strict=True):
                for colour, gamma in zip(_colours(len(gammas)), gammas, strict=True):
                    point = dataset.sel(k=k, gamma=gamma)
                    limit(axis, point["theory_inverse_snr_w"], colour, "theory")
                    if _has_own_end(dataset):
                        limit(axis, point["averaged_inverse_snr_w"], colour, "averaged")
                    curve(axis, point["inverse_snr_w"], colour)
                axis.xaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
                axis.xaxis.set_minor_locator(AutoMinorLocator(2))
            panel_letter(row[0], name.upper())
            row[0].set_ylabel(INVERSE_SNR)
            what = "ideal rule (Eq. 4)"
            if _has_own_end(dataset):
                what = rf"circuit, $\alpha$ = {dataset.attrs['alpha']:g}"
            note(row[0], what)
        for axis, k in zip(axes[0], kernels, strict=True):
            axis.set_title(f"$k$ = {k}")
        for axis in axes[-1]:
            axis.set_xlabel("presentations")
        ends = ["theory"] + ["averaged"] * any(map(_has_own_end, panels.values()))
        legend_below(figure, _legend(gammas, [], ends))
    return figure


def curve(axis: Axes, inverse_snr: xr.DataArray, colour: str, dash: object = "-") -> None:
    """Draw the mean and standard deviation over trials of the logarithm of an inverse SNR."""
    x = inverse_snr["presentation"].to_numpy()
    with np.errstate(divide="ignore"):
        values = np.log10(inverse_snr.transpose("trial", "presentation").to_numpy())
    values = values[~np.isnan(values).any(axis=1)]  # of given weights there may be fewer
    shown = _thinned(len(x))
    mean_and_band(axis, x[shown], values[:, shown], colour, dash)


def limit(axis: Axes, inverse_snr: xr.DataArray, colour: str, end: str) -> None:
    """Draw an end point (of `ENDS`), the mean over trials, as a horizontal line."""
    known = inverse_snr.to_numpy()[inverse_snr.notnull().to_numpy()]
    with np.errstate(divide="ignore"):
        value = float(np.log10(known).mean()) if known.size else float("nan")
    if np.isfinite(value):
        # Dots on top, so that they show where lines of both kinds coincide.
        above = 2.1 if end == "theory" else 2.0
        axis.axhline(value, color=colour, linestyle=ENDS[end][0], linewidth=THIN, zorder=above)


def _has_own_end(dataset: xr.Dataset) -> bool:
    """Whether the rule's own end point is another than that of Eq. 5."""
    return dataset.attrs.get("rule") != "mean_subtracted"


def _colours(number: int) -> Sequence[str]:
    """As many colours: those of the palette, or shades where they do not suffice."""
    if number <= len(COLOURS):
        return COLOURS[:number]
    return [to_hex(shade) for shade in colormaps["viridis"](np.linspace(0, 0.92, number))]


def _dashes(number: int) -> list[Any]:
    return [_DASHES[i % len(_DASHES)] for i in range(number)]


def _legend(gammas: Iterable[float], alphas: Iterable[float], ends: Sequence[str]) -> list[Line2D]:
    """A colour for each gamma, a dash for each alpha where there are several, and end points."""
    gammas, alphas = list(gammas), list(alphas)
    handles = [
        Line2D([], [], color=colour, label=rf"$\gamma$ = {gamma:g}")
        for colour, gamma in zip(_colours(len(gammas)), gammas, strict=True)
    ]
    if len(alphas) > 1:
        handles += [
            Line2D([], [], color=_GREY, linestyle=dash, label=rf"$\alpha$ = {alpha:g}")
            for dash, alpha in zip(_dashes(len(alphas)), alphas, strict=True)
        ]
    return handles + _limits(ends)


def _limits(ends: Sequence[str]) -> list[Line2D]:
    return [
        Line2D([], [], color=_GREY, linestyle=dash, linewidth=THIN + 0.2, label=label)
        for dash, label in map(ENDS.__getitem__, ends)
    ]


def _thinned(length: int) -> NDArray[np.int64]:
    """Which of many points to draw: no more than the paper can show."""
    return np.unique(np.linspace(0, length - 1, min(length, 800)).astype(np.int64))
