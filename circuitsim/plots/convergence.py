"""How the weights' SNR converges: the curves of a sweep, and Figure 4 of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import AutoMinorLocator, MaxNLocator
from numpy.typing import NDArray

from circuitsim.plots.style import (
    COLOURS,
    COLUMN,
    TEXT_WIDTH,
    THIN,
    mean_and_band,
    note,
    panel_letter,
    paper,
)

_DASHES = ("-", (0, (6, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)))


def sweep(dataset: xr.Dataset) -> Figure:
    """Plot the curves of a sweep: log10 of 1/SNR_w over presentations, a panel for each k.

    Mean over trials with a band of one standard deviation; dotted, the end point of Eq. 5 (the
    paper's theoretical minimum); dash-dotted, the simulated rule's own end point if it has one.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `circuitsim.load` returns it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    panels = list(product(dataset["k"].to_numpy(), dataset["neurons"].to_numpy()))
    series = list(product(dataset["gamma"].to_numpy(), dataset["alpha"].to_numpy()))
    channels = int(dataset.attrs.get("channels", 1))
    several_alphas, several_neurons = (len(dataset[name]) > 1 for name in ("alpha", "neurons"))
    own = _has_own_end(dataset) and bool(dataset["fixed_point_snr_w"].notnull().any())
    labels = [
        rf"$\gamma$ = {gamma:g}" + (rf", $\alpha$ = {alpha:g}" if several_alphas else "")
        for gamma, alpha in series
    ]
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    legend_lines = -(-(len(series) + 2) // columns)
    height = 2.4 * lines + 0.2 * legend_lines + 0.3
    figure = Figure(figsize=(max(COLUMN, 2.6 * columns), height), layout="constrained")
    axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axis, (k, neurons) in zip(axes.flat, panels, strict=False):
        for number, (gamma, alpha) in enumerate(series):
            point = dataset.sel(k=k, neurons=neurons, gamma=gamma, alpha=alpha)
            colour, dash = _style(number)
            curve(axis, 1 / point["snr_w"], colour, dash)
            limit(axis, 1 / point["theory_snr_w"], colour, ":")
            if own:
                limit(axis, 1 / point["fixed_point_snr_w"], colour, "-.")
        title = f"k = {k}" + (f", {channels} channels" if channels > 1 else "")
        axis.set_title(title + (f", {neurons} neurons" if several_neurons else ""), fontsize=9)
        _tidy(axis)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for row in axes:
        row[0].set_ylabel(r"$\log_{10}\,(1/\mathrm{SNR}_w)$", fontsize=9)
    for axis in axes.flat[max(0, len(panels) - columns) : len(panels)]:
        axis.set_xlabel("presentations", fontsize=9)
    figure.legend(
        handles=_legend(labels, "the rule's own end point" if own else ""),
        loc="outside lower center",
        ncols=min(len(series) + 2, 2 * columns),
        fontsize=7.5,
        frameon=False,
        handlelength=2.4,
    )
    return figure


def figure4(panels: Mapping[str, xr.Dataset]) -> Figure:
    """Draw Figure 4 of the paper: log10 of the weights' inverse SNR over presentations.

    A row for each panel, a column for each k, a colour for each gamma. Mean over trials with a band
    of one standard deviation; dotted, the end point of Eq. 5 (the paper's theoretical minimum);
    dash-dotted, the end point of the circuit itself.

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
        figure = Figure(figsize=(width, 0.5 + 1.8 * len(panels)))
        axes = figure.subplots(len(panels), len(kernels), sharex="row", sharey=True, squeeze=False)
        for row, (name, dataset) in zip(axes, panels.items(), strict=True):
            for axis, k in zip(row, kernels, strict=True):
                for number, gamma in enumerate(gammas):
                    point = dataset.sel(k=k, gamma=gamma)
                    colour, dash = _style(number)
                    limit(axis, point["theory_inverse_snr_w"], colour, ":")
                    if _has_own_end(dataset):
                        limit(axis, point["fixed_point_inverse_snr_w"], colour, "-.")
                    curve(axis, point["inverse_snr_w"], colour, dash)
                axis.xaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
                axis.xaxis.set_minor_locator(AutoMinorLocator(2))
            panel_letter(row[0], name.upper())
            row[0].set_ylabel(r"$\log_{10}$ inverse SNR$_w$")
            what = "ideal rule (Eq. 4)"
            if _has_own_end(dataset):
                what = rf"circuit, $\alpha$ = {dataset.attrs['alpha']:g}"
            note(row[0], what)
        for axis, k in zip(axes[0], kernels, strict=True):
            axis.set_title(f"$k$ = {k}")
        for axis in axes[-1]:
            axis.set_xlabel("presentations")
        figure.legend(
            handles=_legend(
                [rf"$\gamma$ = {gamma:g}" for gamma in gammas],
                "circuit's own end point" if any(map(_has_own_end, panels.values())) else "",
            ),
            loc="outside lower center",
            ncols=len(gammas) + 2 if width > COLUMN else 2,
            columnspacing=1.5,
        )
    return figure


def curve(axis: Axes, inverse_snr: xr.DataArray, colour: str, dash: object = "-") -> None:
    """Draw the mean and standard deviation over trials of the logarithm of an inverse SNR."""
    x = inverse_snr["presentation"].to_numpy()
    with np.errstate(divide="ignore"):
        values = np.log10(inverse_snr.transpose("trial", "presentation").to_numpy())
    shown = _thinned(len(x))
    mean_and_band(axis, x[shown], values[:, shown], colour, dash)


def limit(axis: Axes, inverse_snr: xr.DataArray, colour: str, dash: str) -> None:
    """Draw an end point, the mean over trials, as a horizontal line."""
    with np.errstate(divide="ignore"):
        value = float(np.log10(inverse_snr.to_numpy()).mean())
    if np.isfinite(value):
        # Dots on top, so that they show where lines of both kinds coincide.
        above = 2.1 if dash == ":" else 2.0
        axis.axhline(value, color=colour, linestyle=dash, linewidth=THIN, zorder=above)


def _has_own_end(dataset: xr.Dataset) -> bool:
    """Whether the rule's own end point is another than that of Eq. 5."""
    return dataset.attrs.get("rule") != "mean_subtracted"


def _style(number: int) -> tuple[str, object]:
    """Colour and dashes of a series."""
    return COLOURS[number % len(COLOURS)], _DASHES[number // len(COLOURS) % len(_DASHES)]


def _legend(labels: Sequence[str], own_end_point: str) -> list[Line2D]:
    handles = []
    for number, label in enumerate(labels):
        colour, dash = _style(number)
        handles.append(Line2D([], [], color=colour, linestyle=dash, label=label))
    limits = [(":", "theoretical minimum (Eq. 5)")]
    if own_end_point:
        limits.append(("-.", own_end_point))
    for dash, label in limits:
        line = Line2D([], [], color="0.3", linestyle=dash, linewidth=THIN + 0.2, label=label)
        handles.append(line)
    return handles


def _thinned(length: int) -> NDArray[np.int64]:
    """Which of many points to draw: no more than the paper can show."""
    return np.unique(np.linspace(0, length - 1, min(length, 800)).astype(np.int64))


def _tidy(axis: Axes) -> None:
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0)
