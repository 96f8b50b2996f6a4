"""How well networks predict recorded neurons, beside baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuitsim.plots.style import COLOURS, TEXT_WIDTH, THIN, panel_letter, paper

_GREY = "0.55"
_UNTRAINED = "untrained_"
_LONGEST = 22  # letters of a name that is shown whole


def predictivity(groups: Mapping[str, xr.Dataset], networks: Sequence[str]) -> Figure:
    """Draw how well networks predict neurons, and by which layers.

    Left, networks at their best layers, untrained networks and baselines: neurons, medians and
    their intervals. Right, all layers of the networks, trained and untrained.

    Parameters
    ----------
    groups : mapping of str to xarray.Dataset
        Data of a `circuitsim.studies.predictivity.Predictivity`.
    networks : sequence of str
        Names of the trained networks.

    Returns
    -------
    matplotlib.figure.Figure
    """
    root = groups[""]
    known = bool(np.isfinite(root["median_predictivity"]).any())
    name = "predictivity" if known else "correlation"
    label = "correlation / noise ceiling" if known else "correlation"
    sources = [str(source) for source in root["source"].to_numpy()]
    colours = {network: COLOURS[n % len(COLOURS)] for n, network in enumerate(networks)}
    with paper():
        height = max(3.0, 0.22 * len(sources) + 0.8)
        figure = Figure(figsize=(TEXT_WIDTH, height))
        left, right = figure.subplots(1, 2)
        _compared(left, root, sources, colours, name)
        left.set_xlabel(label)
        panel_letter(left, "A")
        longest = 1
        for network in networks:
            for source, dash in ((network, "-"), (_UNTRAINED + network, "--")):
                _by_layer(right, groups[source], colours[network], dash, name)
            longest = max(longest, groups[network].sizes["layer"])
        layers = {tuple(map(str, groups[n]["layer"].to_numpy())) for n in networks}
        if len(layers) == 1:
            ticks = range(longest)
            right.set_xticks(ticks, next(iter(layers)), rotation=45, ha="right",
                             rotation_mode="anchor")  # fmt: skip
        else:
            right.set_xlabel("number of the layer")
        right.set_ylabel(label)
        right.set_xlim(-0.3, longest - 0.7)
        panel_letter(right, "B")
    return figure


def _compared(
    axis: Axes, root: xr.Dataset, sources: list[str], colours: Mapping[str, str], name: str
) -> None:
    rng = np.random.default_rng(0)  # neurons beside each other, the same each time
    for place, source in enumerate(sources):
        one = root.sel(source=source)
        colour = colours.get(source, colours.get(source.removeprefix(_UNTRAINED), _GREY))
        neurons = one[name].to_numpy()
        heights = place + rng.uniform(-0.25, 0.25, len(neurons))
        axis.plot(neurons, heights, ".", color=colour, markersize=2.5, alpha=0.35, mew=0)
        median, (low, high) = float(one[f"median_{name}"]), one[f"median_{name}_interval"].values
        if np.isfinite(median):
            open_face = "white" if source not in colours else colour
            axis.errorbar(median, place, xerr=[[median - low], [high - median]], fmt="o",
                          color=colour, markerfacecolor=open_face, markersize=4, capsize=2,
                          lw=1.2)  # fmt: skip
    axis.axvline(0, color="0.7", lw=THIN)
    axis.set_yticks(range(len(sources)), [_short(source) for source in sources])
    axis.set_ylim(len(sources) - 0.4, -0.6)
    axis.margins(x=0.03)


def _by_layer(axis: Axes, of: xr.Dataset, colour: str, dash: str, name: str) -> None:
    median, bounds = of[f"median_{name}"].to_numpy(), of[f"median_{name}_interval"].to_numpy()
    places = np.arange(len(median))
    axis.plot(places, median, color=colour, linestyle=dash, lw=1.2, marker="o", markersize=2.5)
    if dash == "-":
        axis.fill_between(places, *bounds.T, color=colour, alpha=0.15, lw=0)


def _short(name: str) -> str:
    name = name.replace("_", " ")
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
