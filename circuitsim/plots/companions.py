"""Companions of Figure 4: a circuit's rates, and where its weights end."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import AutoMinorLocator, FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from circuitsim.plots.style import (
    COLOURS,
    ENDS,
    INVERSE_SNR,
    TEXT_WIDTH,
    THIN,
    Picture,
    legend_below,
    mean_and_band,
    panel_letter,
    paper,
    rule_style,
    rule_words,
)

_GREY = "0.3"
_DASHED = (0, (4, 2))
_LIMITS = {name: ENDS[name][0] for name in ("settled", "averaged")}


def rates(groups: Mapping[str, xr.Dataset]) -> Figure:
    """Draw the rates of some neurons and of the interneuron in two stretches of a run.

    Dashed, the fast fixed point to which they settle in each presentation.

    Parameters
    ----------
    groups : mapping
        ``rates``: a Dataset as `circuitsim.studies.rates.Rates` makes it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    dataset = groups["rates"]
    time = dataset["time"].to_numpy()
    borders = np.linspace(0, time[-1], dataset.sizes["presentation"] + 1)
    with paper():
        figure = Picture(figsize=(TEXT_WIDTH, 3.4))
        axes = figure.subplots(
            2,
            dataset.sizes["stretch"],
            sharex=True,
            sharey="row",
            squeeze=False,
            height_ratios=(2, 1),
        )
        for column, first in zip(axes.T, dataset["stretch"].to_numpy(), strict=True):
            shown = dataset.sel(stretch=first)
            for axis, name in zip(column, ("rate", "rate_inh"), strict=True):
                for border in borders[1:-1]:
                    axis.axvline(border, color="0.85", linewidth=0.6, zorder=0)
                curves = shown[name].to_numpy().reshape(len(time), -1).T
                settled = shown[f"settled_{name}"].to_numpy().reshape(len(borders) - 1, 2, -1)
                colours = COLOURS if name == "rate" else (_GREY,)
                for number, values in enumerate(curves):
                    colour = colours[number % len(colours)]
                    axis.plot(time, values, color=colour, linewidth=1.0)
                    for edges, levels in zip(pairwise(borders), settled[..., number], strict=True):
                        axis.plot(edges, levels, color=colour, linestyle=_DASHED, linewidth=THIN)
            column[0].set_title(
                f"after {first:,} presentations" if first else "first presentations"
            )
            column[-1].set_xlabel("time (ms)")
            column[-1].xaxis.set_major_locator(FixedLocator(borders.tolist()))
        axes[0, 0].set_ylabel("rate $r_i$")
        axes[1, 0].set_ylabel(r"rate $r_\mathrm{inh}$")
        for letter, axis in zip("AB", axes[:, 0], strict=True):
            panel_letter(axis, letter)
        figure.legend(
            handles=[
                Line2D([], [], color=_GREY, linewidth=1.0, label="rate"),
                Line2D(
                    [],
                    [],
                    color=_GREY,
                    linestyle=_DASHED,
                    linewidth=THIN,
                    label="fast fixed point, weights of the moment",
                ),
            ],
            loc="outside lower center",
            ncols=2,
        )
    return figure


def endpoint(groups: Mapping[str, xr.Dataset]) -> Figure:
    """Draw how the weights of circuits become alike, how much of their mean is kept, and the ends.

    A row for the inverse SNR and one for the mean; a column for each alpha at the published
    learning rate, and one with the ends of long runs at a small constant learning rate over alpha.

    Parameters
    ----------
    groups : mapping
        As `circuitsim.studies.endpoint.Endpoint` makes them.

    Returns
    -------
    matplotlib.figure.Figure
    """
    published = groups["published"]
    alphas = published["alpha"].to_numpy()
    with paper():
        columns = len(alphas) + 1
        figure = Picture(figsize=(max(TEXT_WIDTH, 1.75 * columns), 3.8))
        axes = figure.subplots(2, columns, sharex="col", sharey="row", squeeze=False)
        for row, name in zip(axes, ("inverse_snr_w", "mean_weight_kept"), strict=True):
            for axis, alpha in zip(row, alphas, strict=False):
                _run(axis, published.sel(alpha=alpha), name)
            _ends(row[-1], groups["long"], groups["theory"], name)
        for axis, alpha in zip(axes[0], alphas, strict=False):
            axis.set_title(rf"$\alpha$ = {alpha:g}")
        for axis in axes[1, :-1]:
            axis.set_xlabel("presentations")
        axes[0, -1].set_title("end of long runs")
        axes[1, -1].set_xlabel(r"inhibition $\alpha$")
        axes[0, 0].set_ylabel(INVERSE_SNR)
        axes[1, 0].set_ylabel("share of the mean kept")
        axes[1, 0].set_ylim(0, 1.05)
        for letter, axis in zip("AB", axes[:, 0], strict=True):
            panel_letter(axis, letter)
        legend_below(figure, _handles(published))
    return figure


def _run(axis: Axes, dataset: xr.Dataset, name: str) -> None:
    x = dataset["presentation"].to_numpy()
    for rule in dataset["rule"].to_numpy():
        colour, _ = rule_style(rule)
        of_rule = dataset.sel(rule=rule)
        values = _drawn(of_rule[name].transpose("trial", "presentation"))
        mean_and_band(axis, x, values, colour)
        for limit, dash in _LIMITS.items():
            level = float(_drawn(of_rule[f"{limit}_{name}"]).mean())
            axis.axhline(level, color=colour, linestyle=dash, linewidth=THIN)
    axis.xaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
    axis.xaxis.set_minor_locator(AutoMinorLocator(2))


def _ends(axis: Axes, long: xr.Dataset, theory: xr.Dataset, name: str) -> None:
    for rule in long["rule"].to_numpy():
        colour, marker = rule_style(rule)
        for limit, dash in _LIMITS.items():
            line = theory[f"{limit}_{name}"].sel(rule=rule)
            axis.plot(
                line["alpha"].to_numpy(), _drawn(line), color=colour, linestyle=dash, linewidth=THIN
            )
        values = _drawn(long[name].sel(rule=rule).transpose("trial", "alpha"))
        axis.errorbar(
            long["alpha"].to_numpy(),
            values.mean(axis=0),
            values.std(axis=0, ddof=1) if len(values) > 1 else None,
            color=colour,
            linestyle="none",
            marker=marker,
            markersize=3.5,
            elinewidth=1.0,
        )
    axis.set_xscale("log")
    alphas = long["alpha"].to_numpy()
    axis.xaxis.set_major_locator(FixedLocator(alphas.tolist()))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(lambda alpha, _: f"{alpha:g}")


def _drawn(values: xr.DataArray) -> NDArray[np.float64]:
    numbers = values.to_numpy()
    return np.log10(numbers) if "inverse_snr_w" in str(values.name) else numbers


def _handles(published: xr.Dataset) -> list[Line2D]:
    handles = [
        Line2D([], [], color=rule_style(rule)[0], label=rule_words(rule))
        for rule in published["rule"].to_numpy()
    ]
    for style, label in (
        *(({"linestyle": dash}, ENDS[name][1]) for name, dash in _LIMITS.items()),
        ({"linestyle": "none", "marker": "o", "markersize": 3.5}, "long runs"),
    ):
        handles.append(Line2D([], [], color=_GREY, linewidth=THIN + 0.2, label=label, **style))
    return handles
