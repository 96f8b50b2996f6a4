"""Figures, drawn without touching the state of matplotlib.pyplot."""

from __future__ import annotations

from itertools import product

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

# Okabe and Ito's palette, readable with any colour vision, in an order that also differs in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
COLUMN, TEXT_WIDTH = 3.4, 7.0  # inches: one column of a paper, and both
_DASHES = ("-", (0, (6, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)))


def sweep(dataset: xr.Dataset) -> Figure:
    """Plot the curves of a sweep: log10 of 1/SNR_w over presentations, a panel for each k.

    Mean over trials with a band of one standard deviation; dotted, the end point of Eq. 5 (the
    paper's theoretical minimum); dash-dotted, the simulated rule's own end point.

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
            curve(axis, point["presentation"].to_numpy(), point["snr_w"], colour, dash)
            limit(axis, point["theory_snr_w"], colour, ":")
            if dataset.attrs.get("rule") != "mean_subtracted":
                limit(axis, point["fixed_point_snr_w"], colour, "-.")
        many = len(dataset["neurons"]) > 1
        axis.set_title(f"k = {k}" + (f", {neurons} neurons" if many else ""), fontsize=9)
        _tidy(axis)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for row in axes:
        row[0].set_ylabel(r"$\log_{10}\,(1/\mathrm{SNR}_w)$", fontsize=9)
    for axis in axes.flat[max(0, len(panels) - columns) : len(panels)]:
        axis.set_xlabel("presentations", fontsize=9)
    figure.legend(
        handles=_legend(dataset, series),
        loc="outside lower center",
        ncols=min(len(series) + 2, 2 * columns),
        fontsize=7.5,
        frameon=False,
        handlelength=2.4,
    )
    return figure


def curve(
    axis: Axes, x: NDArray[np.int64], snr: xr.DataArray, colour: str, dash: object = "-"
) -> None:
    """Draw the mean and spread over trials of log10 (1/SNR)."""
    with np.errstate(divide="ignore"):
        values = -np.log10(snr.transpose("trial", "presentation").to_numpy())
    mean, spread = values.mean(axis=0), values.std(axis=0)
    shown = _thinned(len(x))
    axis.plot(x[shown], mean[shown], color=colour, linestyle=dash, linewidth=1.2)
    axis.fill_between(
        x[shown], (mean - spread)[shown], (mean + spread)[shown], color=colour, alpha=0.2, lw=0
    )


def limit(axis: Axes, snr: xr.DataArray, colour: str, dash: str) -> None:
    """Draw an end point, the mean over trials, as a horizontal line."""
    with np.errstate(divide="ignore"):
        value = float(-np.log10(snr.to_numpy()).mean())
    if np.isfinite(value):
        axis.axhline(value, color=colour, linestyle=dash, linewidth=0.9)


def _style(number: int) -> tuple[str, object]:
    """Colour and dashes of a series."""
    return COLOURS[number % len(COLOURS)], _DASHES[number // len(COLOURS) % len(_DASHES)]


def _legend(dataset: xr.Dataset, series: list[tuple[float, float]]) -> list[Line2D]:
    handles = []
    for number, (gamma, alpha) in enumerate(series):
        colour, dash = _style(number)
        names = [rf"$\gamma$ = {gamma:g}"]
        if len(dataset["alpha"]) > 1:
            names.append(rf"$\alpha$ = {alpha:g}")
        handles.append(Line2D([], [], color=colour, linestyle=dash, label=", ".join(names)))
    handles.append(Line2D([], [], color="0.3", linestyle=":", label="theoretical minimum (Eq. 5)"))
    if dataset.attrs.get("rule") != "mean_subtracted":
        handles.append(
            Line2D([], [], color="0.3", linestyle="-.", label="the rule's own end point")
        )
    return handles


def _thinned(length: int) -> NDArray[np.int64]:
    """Which of many points to draw: no more than the paper can show."""
    return np.unique(np.linspace(0, length - 1, min(length, 800)).astype(np.int64))


def _tidy(axis: Axes) -> None:
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0)
