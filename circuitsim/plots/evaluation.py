"""What a trained network gets right and wrong, how sure it is, and its first kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from circuitsim.plots.style import COLOURS, TEXT_WIDTH, THIN, panel_letter, paper

_NAMED = 25  # classes up to which each is named
_KERNELS = 8  # outputs whose kernels are shown
_LONGEST = 14  # letters of a name that is shown whole


def evaluation(report: xr.Dataset) -> Figure:
    """Draw a report of a trained network.

    Confusion matrix, accuracy by class, calibration, and kernels of the first layer at a few
    positions of one pool, awake and asleep.

    Parameters
    ----------
    report : xarray.Dataset
        Made by `circuitsim.vision.evaluation.report`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    with paper():
        figure = Figure(figsize=(TEXT_WIDTH, 6.4))
        halves: Any = figure.subfigures(2, 1, height_ratios=(1.25, 1))
        upper, lower = halves
        left, right = upper.subplots(1, 2, width_ratios=(1.25, 1))
        _confusion(left, report)
        panel_letter(left, "A")
        _by_class(right, report)
        panel_letter(right, "B")
        below, beside = lower.subfigures(1, 2, width_ratios=(1, 1.35))
        axis = below.subplots()
        _calibration(axis, report)
        panel_letter(axis, "C")
        _kernels(beside, report)
    return figure


def _confusion(axis: Axes, report: xr.Dataset) -> None:
    counts = report["confusion"].to_numpy().astype(float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axis.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    axis.spines[["top", "right"]].set_visible(True)
    names = [_short(str(name)) for name in report["class"].to_numpy()]
    if len(names) <= _NAMED:
        axis.set_xticks(range(len(names)), names, rotation=90)
        axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="taken for", ylabel="class")
    bar = axis.figure.colorbar(image, ax=axis, shrink=0.8, pad=0.02)
    bar.set_label("images of the class (%)")
    bar.outline.set_linewidth(0.6)


def _by_class(axis: Axes, report: xr.Dataset) -> None:
    accuracy = 100 * report["class_accuracy"].to_numpy()
    low, high = 100 * report["class_accuracy_interval"].to_numpy().T
    names = [_short(str(name)) for name in report["class"].to_numpy()]
    if len(names) <= _NAMED:
        places = np.arange(len(names))
        axis.barh(places, np.nan_to_num(accuracy), height=0.7, color=COLOURS[5])
        errors = np.nan_to_num([accuracy - low, high - accuracy])
        axis.errorbar(accuracy, places, xerr=errors, fmt="none", ecolor="black", lw=THIN)
        axis.set_yticks(places, names)
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.set(xlabel="accuracy (%)", xlim=(0, 100))
        axis.axvline(100 * float(report["top1"]), color="black", lw=THIN, ls="--")
    else:
        order = np.argsort(accuracy)
        axis.fill_between(range(len(order)), low[order], high[order], color=COLOURS[0], alpha=0.2)
        axis.plot(accuracy[order], color=COLOURS[0], lw=1.2)
        axis.set(xlabel="classes, by accuracy", ylabel="accuracy (%)", ylim=(0, 100))
        axis.axhline(100 * float(report["top1"]), color="black", lw=THIN, ls="--")


def _calibration(axis: Axes, report: xr.Dataset) -> None:
    there = report["bin_images"].to_numpy() > 0
    sure = 100 * report["bin_confidence"].to_numpy()[there]
    right = 100 * report["bin_accuracy"].to_numpy()[there]
    low, high = 100 * report["bin_accuracy_interval"].to_numpy()[there].T
    axis.plot([0, 100], [0, 100], color="0.6", lw=THIN, ls="--")
    errors = np.maximum([right - low, high - right], 0)
    axis.errorbar(sure, right, yerr=errors, fmt="o-", color=COLOURS[0], markersize=3, lw=1.2,
                  elinewidth=THIN)  # fmt: skip
    axis.set(xlabel="confidence (%)", ylabel="accuracy (%)", xlim=(0, 100), ylim=(0, 102))
    error = 100 * float(report["calibration_error"])
    axis.text(0.04, 0.96, f"calibration error {error:.1f} %", transform=axis.transAxes, va="top",
              fontsize=7.5)  # fmt: skip


def _kernels(figure: Any, report: xr.Dataset) -> None:
    """One row for each state and position, one column for each output."""
    kernels = report["kernels"].transpose(
        "state", "position", "kernel_row", "kernel_column", "channel", "output"
    )
    shown = kernels.to_numpy()[..., :_KERNELS]
    states, positions, outputs = shown.shape[0], shown.shape[1], shown.shape[-1]
    axes = figure.subplots(states * positions, outputs, squeeze=False)
    for state in range(states):
        for position in range(positions):
            row = state * positions + position
            for output in range(outputs):
                # The same scale for one output, awake and asleep.
                largest = np.abs(shown[..., output]).max() or 1.0
                _kernel(axes[row, output], shown[state, position, ..., output] / largest)
            where = f"{int(report['row'][position])}, {int(report['column'][position])}"
            axes[row, 0].set_ylabel(
                where, rotation=0, ha="right", va="center", labelpad=3, fontsize=6.5
            )
        name = str(report["state"].to_numpy()[state])
        axes[state * positions, 0].set_title(name, loc="left", fontsize=7.5, pad=2)
    figure.supxlabel("kernels of the first layer, by position", fontsize=8)
    axes[0, 0].annotate("D", (0, 1), xytext=(-30, 4), xycoords="axes fraction",
                        textcoords="offset points", fontweight="bold", fontsize=10)  # fmt: skip


def _kernel(axis: Axes, kernel: NDArray[np.float64]) -> None:
    if kernel.shape[2] == 3:
        axis.imshow(np.clip(0.5 + kernel / 2, 0, 1), interpolation="nearest")
    else:
        axis.imshow(kernel.mean(axis=2), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
