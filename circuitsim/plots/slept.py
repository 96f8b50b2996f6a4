"""Pools that have slept in the circuit, as a layer: kernels, SNR and accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuitsim.plots.style import COLOURS, TEXT_WIDTH, THIN, Picture, panel_letter, paper

_OUTPUTS, _POSITIONS = 6, 3  # kernels that are shown


def slept(dataset: xr.Dataset) -> Figure:
    """Draw kernels before and after the sleep, the SNR of every pool, and accuracies.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `circuitsim.studies.slept.evaluate`, or `circuitsim.studies.readouts.evaluate`, makes it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    with paper():
        figure = Picture(figsize=(TEXT_WIDTH, 2.5))
        parts: Any = figure.subfigures(1, 3, width_ratios=(1.2, 1, 1.1))
        _kernels(parts[0], dataset)
        axis = parts[1].subplots()
        panel_letter(axis, "B")
        _snr(axis, dataset)
        axis = parts[2].subplots()
        panel_letter(axis, "C")
        _accuracies(axis, dataset)
    return figure


def _kernels(figure: Any, dataset: xr.Dataset) -> None:
    """A column for each output channel, a row for each position, before and after."""
    means = dataset["kernels"].mean("channel")
    order = ("stage", "position", "output", "kernel_row", "kernel_column")
    shown = means.transpose(*order).to_numpy()[:, :_POSITIONS, :_OUTPUTS]
    stages, positions, outputs = shown.shape[:3]
    axes = figure.subplots(stages * positions, outputs, squeeze=False)
    for stage, position, output in np.ndindex(stages, positions, outputs):
        limit = float(np.abs(shown[:, :, output]).max()) or 1.0
        axis = axes[stage * positions + position, output]
        axis.imshow(shown[stage, position, output], cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for stage, name in enumerate(("before sleep", "after sleep")):
        axes[stage * positions, 0].set_title(name, loc="left", fontsize=7.5, pad=2)
    figure.supxlabel("output channels", fontsize=8)
    axes[0, 0].annotate("A", (0, 1), xytext=(-12, 4), xycoords="axes fraction",
                        textcoords="offset points", fontweight="bold", fontsize=10)  # fmt: skip


def _snr(axis: Axes, dataset: xr.Dataset) -> None:
    if "snr_w" in dataset:
        x = dataset["presentation"].to_numpy()
        for curve in dataset["snr_w"].transpose("presentation", ...).to_numpy().T:
            axis.semilogy(x, curve, color=COLOURS[1], linewidth=0.8, alpha=0.5)
    axis.set(xlabel="presentations", ylabel="SNR$_w$ of each pool")


def _accuracies(axis: Axes, dataset: xr.Dataset) -> None:
    top1, interval = (100 * dataset[name].to_numpy() for name in ("top1", "interval"))
    places = np.arange(len(top1))
    errors = np.maximum(np.abs(interval - top1[:, None]).T, 0)
    axis.errorbar(top1, places, xerr=errors, fmt="o", color=COLOURS[0], markersize=4, lw=1.2)
    if dataset.sizes.get("repeat", 1) > 1:
        each = 100 * dataset["accuracy"].transpose("repeat", "state").to_numpy()
        axis.plot(each.T, places, "|", color="0.4", markersize=5)
    axis.margins(x=0.05)
    axis.axvline(top1[0], color="black", lw=THIN, ls="--")
    names = [str(name).replace("asleep, ", "asleep\n") for name in dataset["state"].to_numpy()]
    axis.set_yticks(places, names)
    axis.set_ylim(len(top1) - 0.5, -0.5)
    axis.set(xlabel="accuracy (%)")
