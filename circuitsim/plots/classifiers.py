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
from circuitsim.plots.style import (
    COLOURS,
    COLUMN,
    TEXT_WIDTH,
    THIN,
    Picture,
    legend_below,
    panel_letter,
    paper,
    rule_style,
)

_DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (4, 1, 1, 1)))
_NEVER = {"conv": COLOURS[6], "lc": COLOURS[4]}  # do not sleep


def classifiers(dataset: xr.Dataset) -> Figure:
    """Draw the comparison of networks that share weights with those that do not.

    A column for each padding of the crops. Rows: accuracy on test images against the interval from
    one sleep to the next; accuracy on test and on training images, and SNR_w before the last sleep
    of each epoch (where anything has pools), over epochs. Means and standard deviations over seeds.

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
    curves = [("test_top1", "test top-1 (%)"), ("train_top1", "training top-1 (%)")]
    with_snr = has_pools(dataset)
    if with_snr:
        curves.append(("snr_w_before_sleep", "SNR$_w$ (Eq. 6)\n(higher = more alike)"))
    with paper():
        width = COLUMN if len(paddings) == 1 else max(TEXT_WIDTH, 2.4 * len(paddings))
        figure = Picture(figsize=(width, 1.75 * (1 + len(curves))))
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
        if with_snr:
            _decades(axes[-1])
        labels = ["test top-1 (%)", *(label for _, label in curves)]
        for letter, axis, label in zip("ABCD"[: len(labels)], axes[:, 0], labels, strict=True):
            panel_letter(axis, letter)
            axis.set_ylabel(label)
        figure.align_ylabels(axes[:, 0])
        legend_below(figure, [_handle(v, variants) for v in variants], handlelength=2.8)
    return figure


def has_pools(dataset: xr.Dataset) -> bool:
    """Whether any network's weights have an SNR: convolutional ones have none."""
    return any(bool(dataset[n].notnull().any()) for n in ("snr_w", "snr_w_before_sleep"))


def label(variant: str) -> str:
    """Name of a variant, as people read it."""
    method, _, rest = variant.partition("-")
    if method in _NEVER:
        name = {"conv": "convolutional", "lc": "locally connected"}[method]
        return f"{name}, {rest[1:]} crops of each image" if rest else name
    method = method.replace("_", " ")
    return f"{method}, every {'batch' if rest == '1' else f'{rest} batches'}"


def _interval(variant: str) -> int | None:
    """Batches from one sleep to the next; None without sleep."""
    method, _, rest = variant.partition("-")
    return None if method in _NEVER else int(rest)


def _intervals(variants: list[str]) -> list[int]:
    return sorted({found for v in variants if (found := _interval(v)) is not None})


def _against_interval(axis: Axes, part: xr.Dataset, variants: list[str]) -> None:
    every = _intervals(variants)
    places: dict[int | None, int] = {interval: n for n, interval in enumerate(every)}
    places[None] = len(every)
    last = 100 * part["test_top1"].isel(epoch=-1)
    lines: dict[str, list[tuple[int, float]]] = {}
    for variant in variants:
        mean, spread = _moments(last.sel(variant=variant).to_numpy()[:, np.newaxis])
        if np.isnan(mean[0]):
            continue
        colour, _, marker = _style(variant, variants)
        x = places[_interval(variant)]
        if _interval(variant) is None:
            axis.axhline(mean[0], color=colour, lw=THIN, ls="--" if marker else "-")
            axis.axhspan(mean[0] - spread[0], mean[0] + spread[0], color=colour, alpha=0.15, lw=0)
        else:
            lines.setdefault(colour, []).append((x, mean[0]))
        if marker:
            axis.errorbar(
                x, mean[0], spread[0], color=colour, marker=marker, markersize=4, capsize=2, lw=1.0
            )
    for colour, points in lines.items():
        axis.plot(*zip(*sorted(points), strict=True), color=colour, lw=THIN, alpha=0.5)
    axis.set_xticks(list(places.values()), [*map(str, every), "never"])
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
    colour, dash, _ = _style(variant, variants)
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


def _style(variant: str, variants: list[str]) -> tuple[str, Any, str]:
    """A colour and a marker for each method, a dash for each interval."""
    method, _, rest = variant.partition("-")
    if method in _NEVER:
        return _NEVER[method], _DASHES[1] if rest else "-", "o" if method == "lc" else ""
    colour, marker = rule_style(method)
    every = _intervals(variants).index(int(rest))
    return colour, _DASHES[every % len(_DASHES)], marker


def _handle(variant: str, variants: list[str]) -> Line2D:
    colour, dash, marker = _style(variant, variants)
    return Line2D([], [], color=colour, ls=dash, marker=marker, markersize=4, label=label(variant))
