"""How networks that share weights compare with those that do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from circuitsim import measures
from circuitsim.plots.style import COLOURS, COLUMN, TEXT_WIDTH, THIN, panel_letter, paper

_METHODS = {"instant": 0, "circuit": 1, "inhibition_gated": 2, "mean_subtracted": 3}
_OTHER = 5  # colour of rules from outside
_MARKERS = {"instant": "o", "circuit": "s", "inhibition_gated": "D", "mean_subtracted": "^"}
_DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (4, 1, 1, 1)))
_CONV, _LC = COLOURS[6], COLOURS[4]


def classifiers(dataset: xr.Dataset) -> Figure:
    """Draw the comparison of networks that share weights with those that do not.

    A column for each padding of the crops. Rows: accuracy on test images against the interval from
    one sleep to the next; accuracy on test and on training images, and SNR_w before the last sleep
    of each epoch, over epochs. Means over seeds, with a standard deviation.

    Parameters
    ----------
    dataset : xarray.Dataset
        Data of a `circuitsim.studies.comparison.Comparison`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    paddings = dataset["padding"].to_numpy()
    variants = [str(name) for name in dataset["variant"].to_numpy()]
    curves = (
        ("test_top1", "test top-1 (%)"),
        ("train_top1", "training top-1 (%)"),
        ("snr_w_before_sleep", r"SNR$_w$"),
    )
    with paper():
        width = COLUMN if len(paddings) == 1 else max(TEXT_WIDTH, 2.4 * len(paddings))
        figure = Figure(figsize=(width, 7.6))
        axes = figure.subplots(1 + len(curves), len(paddings), sharey="row", squeeze=False)
        for column, padding in enumerate(paddings):
            part = dataset.sel(padding=padding)
            _against_interval(axes[0][column], part, variants)
            axes[0][column].set_title(
                f"crops with padding {padding}" if padding else "no random crops"
            )
            for axis, (name, _) in zip(axes[1:, column], curves, strict=True):
                for variant in variants:
                    _over_epochs(axis, part.sel(variant=variant), name, variant, variants)
                axis.set_xlim(1, max(2, int(dataset["epoch"][-1])))
                axis.xaxis.get_major_locator().set_params(integer=True)
            axes[-1][column].set_xlabel("epoch")
            for axis in axes[1:-1, column]:
                axis.tick_params(labelbottom=False)
        _decades(axes[-1])
        labels = ["test top-1 (%)", *(label for _, label in curves)]
        for letter, axis, label in zip("ABCD", axes[:, 0], labels, strict=True):
            panel_letter(axis, letter)
            axis.set_ylabel(label)
        figure.align_ylabels(axes[:, 0])
        figure.legend(
            handles=[_handle(variant, variants) for variant in variants],
            loc="outside lower center",
            ncols=3 if width > COLUMN else 2,
            columnspacing=1.0,
            handlelength=2.8,
        )
    return figure


def label(variant: str) -> str:
    """Name of a variant, as people read it."""
    if variant in ("conv", "lc"):
        return {"conv": "convolutional", "lc": "locally connected"}[variant]
    method, _, every = variant.partition("-")
    method = method.replace("_", " ")
    return f"{method}, every {'batch' if every == '1' else f'{every} batches'}"


def _against_interval(axis: Axes, part: xr.Dataset, variants: list[str]) -> None:
    every = sorted({int(v.partition("-")[2]) for v in variants if "-" in v}, reverse=True)
    places = {interval: n for n, interval in enumerate(every, 1)}
    # Methods side by side where they have the same interval.
    methods = list(dict.fromkeys(v.partition("-")[0] for v in variants if "-" in v))
    methods.sort(key=lambda method: _METHODS.get(method, _OTHER))
    shifts = dict(zip(methods, np.linspace(-0.12, 0.12, len(methods)), strict=True))
    last = 100 * part["test_top1"].isel(epoch=-1)
    lines: dict[str, list[tuple[float, float]]] = {}
    for variant in variants:
        mean, spread = _moments(last.sel(variant=variant).to_numpy()[:, np.newaxis])
        if np.isnan(mean[0]):
            continue
        colour = _style(variant, variants)[0]
        if variant in ("conv", "lc"):
            axis.axhline(mean[0], color=colour, lw=THIN, ls="-" if variant == "conv" else "--")
            axis.axhspan(mean[0] - spread[0], mean[0] + spread[0], color=colour, alpha=0.15, lw=0)
        if variant != "conv":
            method, _, interval = variant.partition("-")
            x = places[int(interval)] + shifts[method] if interval else 0.0
            lines.setdefault(colour, []).append((x, mean[0]))
            axis.errorbar(
                x, mean[0], spread[0], color=colour, marker=_MARKERS.get(method, "o"),
                markersize=4, capsize=2, lw=1.0,
            )  # fmt: skip
    for colour, points in lines.items():
        axis.plot(*zip(*sorted(points), strict=True), color=colour, lw=THIN, alpha=0.5)
    axis.set_xticks([0, *places.values()], ["never", *map(str, every)])
    axis.set_xlim(-0.4, len(every) + 0.4)
    axis.set_xlabel("batches from sleep to sleep")


def _over_epochs(axis: Axes, one: xr.Dataset, name: str, variant: str, variants: list[str]) -> None:
    values = one[name]
    if name == "snr_w_before_sleep":
        # Networks that never sleep have one SNR only.
        values = values.where(values.notnull(), one["snr_w"])
        values = xr.apply_ufunc(np.log, values.clip(max=measures.SAME_SNR_W)).mean("layer")
    else:
        values = 100 * values
    mean, spread = _moments(values.transpose("seed", "epoch").to_numpy())
    low, high = mean - spread, mean + spread
    if name == "snr_w_before_sleep":
        mean, low, high = np.exp(mean), np.exp(low), np.exp(high)
    if np.isnan(mean).all():
        return
    colour, dash = _style(variant, variants)
    epochs = one["epoch"].to_numpy()
    axis.plot(epochs, mean, color=colour, linestyle=dash, lw=1.2)
    axis.fill_between(epochs, low, high, color=colour, alpha=0.2, lw=0)


def _decades(axes: NDArray[Any]) -> None:
    """Give axes that share an ordinate a logarithmic one, of whole decades."""
    values = np.concatenate([line.get_ydata() for axis in axes for line in axis.lines] or [[]])
    axes[0].set_yscale("log")
    values = values[np.isfinite(values)]
    if values.size:
        low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
        axes[0].set_ylim(10**low, 10 ** max(high, low + 1))


def _moments(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation over the first axis, of what is there."""
    values = values[~np.isnan(values).all(axis=1)]
    if not len(values):
        return np.full(values.shape[1], np.nan), np.zeros(values.shape[1])
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    return values.mean(axis=0), spread


def _style(variant: str, variants: list[str]) -> tuple[str, object]:
    """A colour for each method, a dash for each interval."""
    if variant in ("conv", "lc"):
        return (_CONV, "-") if variant == "conv" else (_LC, "-")
    method = variant.partition("-")[0]
    alike = [v for v in variants if v.startswith(f"{method}-")]
    return COLOURS[_METHODS.get(method, _OTHER)], _DASHES[alike.index(variant) % len(_DASHES)]


def _handle(variant: str, variants: list[str]) -> Line2D:
    colour, dash = _style(variant, variants)
    marker = _MARKERS.get(variant.partition("-")[0], "o" if variant == "lc" else "")
    return Line2D([], [], color=colour, ls=dash, marker=marker, markersize=4, label=label(variant))
