"""What sharing tolerates: a pair of panels for each kind of imperfection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from circuitsim.plots.style import (
    ENDS,
    INVERSE_SNR,
    TEXT_WIDTH,
    THIN,
    panel_letter,
    paper,
    rule_style,
    rule_words,
)

_PANELS: dict[str, tuple[str, ...]] = {
    "A": ("b",),
    "B": ("private",),
    "C": ("sigma",),
    "D": ("spread_alpha", "spread_tau"),
    "E": ("connect", "interneurons"),
    "F": ("tau_inh", "delay"),
}
_LABELS = {
    "b": "baseline $b$ of rectified rates",
    "private": "s.d. of own inputs",
    "sigma": "s.d. of noise of rates",
    "spread_alpha": r"spread of $\alpha$ (open: of $\tau$)",
    "connect": "connection probability",
    "interneurons": "interneurons (open)",
    "tau_inh": r"$\tau_\mathrm{inh}$ (ms)",
    "delay": "delay (ms; open)",
}
_GREY = "0.3"
_DASHED = ENDS["averaged"][0]
_MARKERS = "osD^v"


def robustness(groups: Mapping[str, xr.Dataset], alpha: float = 10.0) -> Figure:
    """Draw the inverse SNR of the weights, and the share of their mean kept, over imperfections.

    Parameters
    ----------
    groups : mapping
        As `circuitsim.studies.robustness.Robustness` makes them.
    alpha : float
        Strength of inhibition.

    Returns
    -------
    matplotlib.figure.Figure
    """
    with paper():
        figure = Figure(figsize=(TEXT_WIDTH, 6.6))
        rows = figure.subplots(4, 3, sharey="row", height_ratios=(1.3, 1, 1.3, 1))
        for number, (letter, names) in enumerate(_PANELS.items()):
            half, column = divmod(number, 3)
            upper, lower = rows[2 * half, column], rows[2 * half + 1, column]
            for place, name in enumerate(names):
                _pair(upper, lower, groups[name], name, place > 0, alpha)
            panel_letter(upper, letter)
        for half in (0, 2):
            rows[half, 0].set_ylabel(INVERSE_SNR)
            rows[half + 1, 0].set_ylabel("share of the mean")
        for axis in rows[1::2].flat:
            axis.set_ylim(0, 1.05)
        figure.legend(handles=_handles(groups), loc="outside lower center", ncols=4)
    return figure


def _pair(
    upper: Axes, lower: Axes, dataset: xr.Dataset, name: str, second: bool, alpha: float
) -> None:
    axes = [upper, lower]
    linear_axis = name in ("connect", "delay")
    if second and name in ("interneurons", "delay"):  # values of another kind: above the panel
        axes = [axis.twiny() for axis in axes]
        axes[0].set_xlabel(_LABELS[name])
        axes[1].tick_params(labeltop=False, top=False)
        for axis in axes:
            axis.spines["top"].set_visible(True)
    elif not second:
        lower.set_xlabel(_LABELS[name])
    several = "k" in dataset.dims
    x = dataset[name].to_numpy()
    for rule in dataset["rule"].to_numpy():
        colour = rule_style(str(rule))[0]
        for number, k in enumerate(dataset["k"].to_numpy() if several else [None]):
            shown = dataset.sel(rule=rule) if k is None else dataset.sel(rule=rule, k=k)
            face = "white" if second else colour
            style: dict[str, Any] = {
                "color": colour, "marker": _MARKERS[number % len(_MARKERS)], "markersize": 3.2,
                "linewidth": 1.0, "markerfacecolor": face, "clip_on": False,
            }  # fmt: skip
            axes[0].plot(x, _median(shown["last_inverse_snr_w"]), **style)
            axes[1].plot(x, _median(shown["mean_weight_kept"]), **style)
            best = style | {"marker": 7, "linestyle": "none"}
            axes[0].plot(x, _median(shown["best_inverse_snr_w"]), **best)
            ends: dict[str, Any] = {"color": colour, "linestyle": _DASHED, "linewidth": THIN}
            axes[0].plot(x, _median(shown["end_inverse_snr_w"]), **ends)
            axes[1].plot(x, _median(shown["end_mean_weight_kept"]), **ends)
            if several and k is not None:
                needed = k * np.sqrt(1 + 1 / (1 + alpha) ** 2)
                for axis in axes:
                    axis.axvline(needed, color="0.6", linestyle=":", linewidth=THIN, zorder=0)
    for axis in axes:
        if linear_axis:
            axis.set_xticks(x)
        elif len(x) > 1:
            axis.set_xscale("log")
            axis.set_xticks(x, [f"{value:g}" for value in x])
            axis.xaxis.set_minor_locator(NullLocator())
    axes[0].tick_params(labelbottom=False)


def _median(values: xr.DataArray) -> NDArray[np.float64]:
    numbers = values.median("trial").to_numpy()
    return np.log10(numbers) if str(values.name).endswith("snr_w") else numbers


def _handles(groups: Mapping[str, xr.Dataset]) -> list[Line2D]:
    rules = groups["b"]["rule"].to_numpy()
    handles = [
        Line2D(
            [],
            [],
            color=rule_style(str(rule))[0],
            marker="o",
            markersize=3.2,
            label=rule_words(str(rule)),
        )
        for rule in rules
    ]
    line: dict[str, Any] = {"color": _GREY, "linestyle": "none", "markersize": 3.5}
    handles.append(Line2D([], [], **(line | {"marker": 7}), label="lowest on the way"))
    handles.append(
        Line2D([], [], color=_GREY, linestyle=_DASHED, linewidth=THIN, label="end point (theory)")
    )
    for marker, k in zip(_MARKERS, groups["b"]["k"].to_numpy(), strict=False):
        handles.append(Line2D([], [], **line, marker=marker, label=f"A: k = {k}"))
    return handles
