"""What is said of a comparison of classifiers: its table and its caption."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circuitsim import measures
from circuitsim.checks.fields import default
from circuitsim.plots.classifiers import has_pools, label
from circuitsim.running.campaign import shown
from circuitsim.vision.sharing import AWAKE, INSTANT, TIMES, Sharing

_INPUTS = 144  # of neurons that an example of what a sleep leaves is about


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    variant : str
    padding : int
    seeds : int
        How many trainings it is about.
    rate : float
        Learning rate.
    test, spread : float
        Top-1 accuracy on test images after the last epoch, mean and standard deviation over seeds.
    train : float
        That on training images, during the last epoch.
    gap : float
        Share of the gap between lc and conv that the variant closes, by the means over the seeds
        that all three have; NaN if conv is not better than lc.
    gap_error : float
        Standard error of that ratio of means over seeds, in which the three belong together.
    snr_before : float
        SNR_w before the last sleep of an epoch, geometric mean over layers, seeds and epochs.
    snr : float
        SNR_w in the end, geometric mean over layers and seeds.
    seconds : float
        Of the fastest epoch, which other work on the machine disturbed least.
    asleep : float
        Share of an epoch's time spent on sleeps, the median over epochs and seeds.
    """

    variant: str
    padding: int
    seeds: int
    rate: float
    test: float
    spread: float
    train: float
    gap: float
    gap_error: float
    snr_before: float
    snr: float
    seconds: float
    asleep: float


def rows(dataset: xr.Dataset) -> list[Row]:
    """Summarise each variant and padding by the trainings that are finished."""
    return [
        _row(dataset.sel(variant=variant, padding=padding), dataset.sel(padding=padding))
        for padding in dataset["padding"].to_numpy()
        for variant in dataset["variant"].to_numpy()
    ]


def _row(point: xr.Dataset, all_variants: xr.Dataset) -> Row:
    last = point.isel(epoch=-1)
    test = last["test_top1"].to_numpy()
    there = np.isfinite(test)
    return Row(
        str(point["variant"].item()),
        int(point["padding"]),
        int(there.sum()),
        float(point["learning_rate"]),
        float(test[there].mean()) if there.any() else math.nan,
        float(test[there].std(ddof=1)) if there.sum() > 1 else math.nan,
        float(last["train_top1"].to_numpy()[there].mean()) if there.any() else math.nan,
        *_gap(all_variants.isel(epoch=-1)["test_top1"], str(point["variant"].item())),
        geometric_mean(point["snr_w_before_sleep"].to_numpy()),
        geometric_mean(last["snr_w"].to_numpy()),
        float(point["seconds"].min()),
        float((point["seconds_asleep"] / point["seconds"]).median()),
    )


def _gap(accuracy: xr.DataArray, variant: str) -> tuple[float, float]:
    none = math.nan, math.nan
    names = accuracy["variant"].to_numpy()
    if variant in ("conv", "lc") or not {"conv", "lc"} <= set(names):
        return none
    three = accuracy.sel(variant=["lc", variant, "conv"]).transpose("seed", "variant").to_numpy()
    three = three[np.isfinite(three).all(axis=1)]
    if not len(three):
        return none
    closed, whole = three[:, 1] - three[:, 0], three[:, 2] - three[:, 0]
    if not whole.mean() > 0:
        return none
    gap = closed.mean() / whole.mean()
    # The usual estimate for a ratio of means: what is left of `closed` after `gap * whole`.
    left = (closed - gap * whole).std(ddof=1) if len(three) > 1 else math.nan
    return float(gap), float(left / math.sqrt(len(three)) / whole.mean())


def geometric_mean(values: NDArray[np.float64]) -> float:
    """Geometric mean of SNRs, up to `measures.SAME_SNR_W` each; NaN if none is a number."""
    values = np.minimum(values[~np.isnan(values)], measures.SAME_SNR_W)
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(values).mean())) if values.size else math.nan


def as_csv(rows: list[Row]) -> str:
    """Return the table for other programs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([f.name for f in fields(Row)])
    for row in rows:
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in astuple(row)])
    return text.getvalue()


_COLUMNS = (
    "variant", "padding", "rate", "test top-1 (%)", "seeds", "training top-1 (%)",
    "gap closed (%)", "SNR_w before sleep", "SNR_w", "s/epoch", "asleep (%)",
)  # fmt: skip


def _cells(row: Row, seeds: int) -> tuple[str, ...]:
    """Return what the table says of a variant, by column."""
    return (
        row.variant,
        str(row.padding),
        _shown(row.rate, "g"),
        _shown(100 * row.test, ".2f")
        + (f" ± {100 * row.spread:.2f}" if math.isfinite(row.spread) else ""),
        f"{row.seeds}/{seeds}",
        _shown(100 * row.train, ".2f"),
        _shown(100 * row.gap, ".0f")
        + (f" ± {100 * row.gap_error:.0f}" if math.isfinite(row.gap_error) else ""),
        _snr(row.snr_before),
        _snr(row.snr),
        _shown(row.seconds, ".3g"),
        _shown(100 * row.asleep, ".0f"),
    )


def _markdown(rows: list[Row], seeds: int) -> str:
    cells = [_COLUMNS, *((label(row.variant), *_cells(row, seeds)[1:]) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    )


def as_text(rows: list[Row], seeds: int) -> str:
    """Return what of the table fits a terminal."""
    short = {
        "test top-1 (%)": "test (%)",
        "training top-1 (%)": "train",
        "padding": "pad",
        "gap closed (%)": "closed",
    }
    chosen = [n for n, name in enumerate(_COLUMNS) if "sleep" not in name and name != "s/epoch"]
    cells = [_COLUMNS, *(_cells(row, seeds) for row in rows)]
    lines = [[short.get(line[n], line[n]) for n in chosen] for line in cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


def _shown(value: float, how: str) -> str:
    return format(value, how) if math.isfinite(value) else "-"


def _snr(value: float) -> str:
    return "∞" if value > 0.999 * measures.SAME_SNR_W else _shown(value, ".3g")


_SCHEDULES = {
    "constant": "at a constant learning rate",
    "cosine": "with a cosine schedule",
    "step": "with a learning rate that is 0.25 times as high after half and three quarters of them",
}


def caption(comparison: Any, data: xr.Dataset, command_line: str) -> str:
    """Describe the figure, its settings and its table, as Markdown."""
    found = rows(data)
    dynamic = [
        v
        for v in comparison.variants
        if "-" in v and not v.startswith((f"{INSTANT}-", f"{AWAKE}-", "lc-", "conv-"))
    ]
    names = {v.partition("-")[0] for v in comparison.variants}
    asleep = names - {"conv", "lc"}
    awake = [v for v in comparison.variants if v.startswith(f"{AWAKE}-")]
    sleep = ", ".join(
        f"{n.replace('_', ' ')} {shown(v)}{' ms' * (n in TIMES)}"
        for n, v in comparison.sleep.items()
    )
    paragraphs = [
        "# Classifiers that share weights in their sleep, and others",
        f"`{command_line}`",
        _figure(comparison, data, names),
        f"All networks are trained with AdamW{_memory(comparison)} for "
        f"{_epochs(comparison.epochs)} of batches of {comparison.batch_size}, "
        f"{_SCHEDULES[comparison.schedule]}, on all training images, and "
        "what counts is the accuracy on test images after the last epoch. "
        + (
            "The gap closed is (variant - lc)/(conv - lc), of means over the seeds that all three "
            "have, ± the standard error of that ratio over seeds; it is left out where conv is no "
            "better than lc. "
            if {"conv", "lc"} < set(comparison.variants)
            else ""
        )
        + "Seconds are those of the fastest epoch, with one thread; other work on the machine "
        "makes them longer. "
        + ("Asleep is the median over epochs. " if asleep else "")
        + "Training accuracy is measured while the network changes, in the last epoch."
        + (
            " SNRs are geometric means over layers and seeds, that before sleep over epochs too."
            if has_pools(data)
            else ""
        )
        + (_who_shares(comparison.sleep) if asleep else ""),
    ]
    if dynamic:
        paragraphs.append(
            f"Sleep of {', '.join(label(v) for v in dynamic)}: {sleep}, "
            + {
                "learning": "the presentations in proportion to the learning rate since the last "
                "sleep",
                "constant": "all presentations in each sleep",
            }[comparison.sleep_length]
            + "; other values are the defaults "
            "of `circuitsim.vision.sharing.Sharing`. A sleep also makes the mean weights "
            "of each pool decay, the faster the weaker inhibition is"
            + (
                ""
                if comparison.sleep["border"] == "asleep"
                else ", whereas border positions, which do not sleep, keep theirs"
            )
            + f". {_kept([comparison.sharing(v) for v in dynamic])} (The circuit of the paper's "
            "Figure 4 has alpha 10.)"
        )
    if awake:
        rate = comparison.sharing(awake[0]).rate_awake
        paragraphs.append(
            f"Weights of {', '.join(label(v) for v in awake)} are shared without sleep, by noise "
            f"beside the images of a batch (`circuitsim.vision.awake`), which removes {rate:g} of "
            "deviations on average, less as the learning rate falls. Asleep is what that took, "
            "and SNRs before sleep are those before it."
        )
    if len(comparison.rates) > 1:
        share = 100 * comparison.validation
        paragraphs.append(
            f"Learning rates were chosen for each variant, with crops of padding "
            f"{comparison.paddings[0]} and seed 0, by the accuracy on {share:g} % of the training "
            f"images after {_epochs(comparison.rate_epochs)} of "
            "training on the others, with a schedule of their own (%):\n\n" + _trials(data)
        )
    missing = [f"{label(r.variant)}, padding {r.padding}" for r in found if r.seeds == 0]
    if missing:
        paragraphs.append("Not finished: " + "; ".join(missing) + ".")
    paragraphs.append(_markdown(found, comparison.seeds))
    return "\n\n".join(paragraphs) + "\n"


def _figure(comparison: Any, data: xr.Dataset, names: set[str]) -> str:
    """Say what is to be seen in each panel, of networks of these names."""
    networks = ["convolutional"] * ("conv" in names) + ["locally connected"] * ("lc" in names)
    if names - {"conv", "lc"}:
        networks.append("locally connected with sleeps in which neurons of a pool share weights")
    if networks[1:]:
        networks[-1] = f"and {networks[-1]}"
    never = (("conv", "convolutional (solid)"), ("lc", "never asleep (dashed)"))
    drawn = [text for name, text in never if name in names]
    lines = f"; line{'s' * (len(drawn) > 1)}: {' and '.join(drawn)}" if drawn else ""
    return (
        f"Networks `{comparison.network}` of width {comparison.width} on {comparison.dataset}: "
        f"{'; '.join(networks)}. **A** Accuracy on test images after the last epoch against the "
        f"number of batches from one sleep to the next{lines}. "
        "**B**, **C** Accuracy on test images, and on training images during the epoch. "
        + (
            "**D** SNR of weights (Eq. 6), the geometric mean over layers, before the last sleep "
            "of each epoch; 10⁹ stands for more (weights that are the same but for rounding). "
            if has_pools(data)
            else ""
        )
        + "Bands and bars are one standard deviation over seeds."
        + (" The first layer is convolutional in all of them." if comparison.first_conv else "")
    )


def _who_shares(sleep: Mapping[str, Any]) -> str:
    """Say which positions share weights, and what else is shared."""
    said = {
        "asleep": " Border positions share weights too.",
        "awake": " Border positions share weights only in `instant`.",
    }[sleep["border"]]
    if sleep.get("periods") == 2:
        said += (
            " Sleeps have two stages, of pools that repeat every k and every k + 1 positions, so "
            "that one kernel is left in a channel."
        )
    if sleep.get("moments") == "shared":
        said += " What the optimiser remembers of single weights is shared with them."
    return said


def _kept(sharings: Sequence[Sharing]) -> str:
    """Say what sleeps leave."""
    stage = "a stage of a whole sleep" if sharings[0].periods == 2 else "a whole sleep"
    left = {sharing.method.partition(" =")[0]: sharing.kept(_INPUTS) for sharing in sharings}
    shares = "; ".join(
        f"{kept.deviation:.2g} of deviations and {kept.mean:.3g} of the mean by {name}"
        for name, kept in left.items()
    )
    return f"Of {_INPUTS} inputs, and much the same of any number, {stage} leaves {shares}."


def _epochs(number: int) -> str:
    return f"{number} epoch{'s' * (number > 1)}"


def _memory(comparison: Any) -> str:
    usual = comparison.momentum == default(type(comparison), "momentum")
    return "" if usual else f" of momentum (beta_1) {comparison.momentum:g}"


def _trials(data: xr.Dataset) -> str:
    """Return a table of what learning rates led to."""
    rates = sorted({float(r) for r in data["trial_rate"].to_numpy().flat if math.isfinite(r)})
    lines = [
        "| variant | " + " | ".join(f"{rate:g}" for rate in rates) + " |",
        "|---" * (1 + len(rates)) + "|",
    ]
    for variant in data["variant"].to_numpy():
        one = data.sel(variant=variant)
        found = {
            float(rate): f"{100 * top1:.2f}"
            for rate, top1 in zip(
                one["trial_rate"].to_numpy(), one["trial_top1"].to_numpy(), strict=True
            )
            if math.isfinite(top1)
        }
        chosen = float(one["learning_rate"])
        if chosen in found:
            found[chosen] = f"**{found[chosen]}**"
        cells = (found.get(rate, "") for rate in rates)
        lines.append(f"| {label(str(variant))} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
