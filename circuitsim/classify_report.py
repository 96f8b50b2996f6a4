"""The files that report a comparison of classifiers: table, figure, caption and data."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

    from circuitsim.vision.comparison import Comparison, Row

FIGURE = "classifiers"
FORMAT = "circuitsim comparison"
FORMAT_VERSION = 1


def write(data: xr.Dataset, directory: Path, command_line: str, with_data: bool) -> None:
    """Write figure, table and caption, and print the table.

    Parameters
    ----------
    data : xarray.Dataset
        As `circuitsim.vision.comparison.condensed` returns it.
    directory : Path
        Made if need be.
    command_line : str
        What made the data.
    with_data : bool
        Whether to write the data too.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    from circuitsim import plots
    from circuitsim.files import write_text
    from circuitsim.vision.comparison import Comparison, table

    directory.mkdir(exist_ok=True)
    stem = directory / FIGURE
    written = []
    if with_data:
        written.append(stem.with_suffix(".nc"))
        save(data, written[-1], command_line)
    figure = plots.classifiers(data)
    for kind in (".pdf", ".png"):
        written.append(stem.with_suffix(kind))
        plots.save(figure, written[-1])
    rows = table(data)
    comparison = Comparison.from_json(data.attrs["comparison"])
    written.append(stem.with_suffix(".csv"))
    write_text(written[-1], _csv(rows))
    written.append(stem.with_suffix(".md"))
    write_text(written[-1], _caption(comparison, data, rows, command_line))
    print(_text(rows, comparison.seeds))
    print(f"\nwritten: {stem}{{{','.join(path.suffix for path in written)}}}")


def load(path: Path) -> tuple[xr.Dataset, str]:
    """Read the data of a comparison, trusting nothing.

    Returns
    -------
    xarray.Dataset
        As `circuitsim.vision.comparison.condensed` returned it.
    str
        The command that made it.

    Raises
    ------
    ParameterError
        If it is no such file.
    FileNotFoundError
        If there is no file.
    """
    import numpy as np

    from circuitsim.studies import netcdf
    from circuitsim.validation import ParameterError
    from circuitsim.vision.comparison import VARIABLES, Comparison

    what = "the data of a comparison of classifiers"
    root = netcdf.attributes(path, what)
    if (root.get("format"), root.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise ParameterError("file", f"must be {what}, of version {FORMAT_VERSION}", str(path))
    try:
        comparison = Comparison.from_json(root["comparison"])
        layers, trials = str(root["layers"]).split(), int(root["trials"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise ParameterError("file", "describes no valid comparison", str(path)) from None
    sizes = {
        "variant": len(comparison.variants),
        "padding": len(comparison.paddings),
        "seed": comparison.seeds,
        "epoch": comparison.epochs,
        "layer": len(layers),
        "trial": trials,
    }
    layout = {name: tuple(sizes[d] for d in dims) for name, (dims, _, _) in VARIABLES.items()}
    layout |= {name: (size,) for name, size in sizes.items()}
    data = netcdf.read(path, None, {"": layout}, what)
    axes = {
        "variant": [v.name for v in comparison.variants],
        "padding": list(comparison.paddings),
        "seed": np.arange(comparison.seeds),
        "epoch": np.arange(1, comparison.epochs + 1),
        "layer": layers,
        "trial": np.arange(trials),
    }
    if any(data[name].dims != dims for name, (dims, _, _) in VARIABLES.items()):
        raise ParameterError("file", "has not the numbers that it says it has", str(path))
    return data.assign_coords(axes), str(root.get("command_line", "unknown"))


def save(data: xr.Dataset, path: Path, command_line: str) -> None:
    """Write the data as netCDF-4, whole or not at all; as `write`.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    import platform

    import numpy as np

    import circuitsim
    from circuitsim.studies import netcdf
    from circuitsim.studies.results import CITATION

    # Names become numbers: those of variants are in the comparison, those of layers beside it.
    bare = data.assign_coords({n: np.arange(data.sizes[n]) for n in ("variant", "layer")})
    bare.attrs = data.attrs | {
        "title": "Image classifiers that share weights, and others",
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "layers": " ".join(map(str, data["layer"].to_numpy())),
        "trials": data.sizes["trial"],
        "command_line": command_line,
        "citation": CITATION,
        "circuitsim_version": circuitsim.__version__,
        "numpy_version": np.__version__,
        "python_version": platform.python_version(),
    }
    with netcdf.writing(path) as add:
        add(bare, None)


def _csv(rows: list[Row]) -> str:
    from circuitsim.vision.comparison import Row

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
        _shown(100 * row.gap, ".0f"),
        _snr(row.snr_before),
        _snr(row.snr),
        _shown(row.seconds, ".3g"),
        _shown(100 * row.asleep, ".0f"),
    )


def _markdown(rows: list[Row], seeds: int) -> str:
    from circuitsim.plots.classifiers import label

    cells = [_COLUMNS, *((label(row.variant), *_cells(row, seeds)[1:]) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    )


def _text(rows: list[Row], seeds: int) -> str:
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
    from circuitsim.measures import SAME_SNR_W

    return "∞" if value > 0.999 * SAME_SNR_W else _shown(value, ".3g")


def _caption(comparison: Comparison, data: xr.Dataset, rows: list[Row], command_line: str) -> str:
    from circuitsim.plots.classifiers import label

    dynamic = [v for v in comparison.variants if v.method not in (None, "instant")]
    sleep = ", ".join(
        f"{n.replace('_', ' ')} {v if isinstance(v, str) else format(v, 'g')}"
        for n, v in comparison.sleep.items()
    )
    paragraphs = [
        "# Classifiers that share weights in their sleep, and others",
        f"`{command_line}`",
        f"Networks `{comparison.network}` of width {comparison.width} on {comparison.dataset}: "
        "convolutional; locally connected; and locally connected with sleeps in which neurons of a "
        "pool share weights. **A** Accuracy on test images after the last epoch against the number "
        "of batches from one sleep to the next; lines: convolutional (solid) and never asleep "
        "(dashed). **B**, **C** Accuracy on test images, and on training images during the epoch. "
        "**D** SNR of weights (Eq. 6), the geometric mean over layers, before the last sleep of "
        "each epoch; 10⁹ stands for more (weights that are the same but for rounding). "
        "Bands and bars are one standard deviation over seeds.",
        f"All networks are trained with AdamW for {comparison.epochs} epochs of batches of "
        f"{comparison.batch_size}, with a cosine schedule, on all training images, and what counts "
        "is the accuracy on test images after the last epoch. The gap closed is "
        "(variant - lc)/(conv - lc), of means over the seeds that all three have; it is left out "
        "where conv is no better than lc. Seconds are those of the fastest epoch, with one thread; "
        "other work on the machine makes them longer. Asleep is the median over epochs. Training "
        "accuracy is measured while the network changes, in the last epoch. SNRs are geometric "
        "means over layers and seeds, that before sleep over epochs too. "
        + (
            "Border positions share weights too."
            if comparison.sleep["border"] == "asleep"
            else "Border positions share weights only in `instant`."
        ),
    ]
    if dynamic:
        paragraphs.append(
            f"Sleep of {', '.join(label(v.name) for v in dynamic)}: {sleep}, the presentations in "
            "proportion to the learning rate since the last sleep; other values are the defaults "
            "of `circuitsim.vision.sharing.Sharing`. A sleep also makes the mean weights "
            "of each pool decay, the faster the weaker inhibition is"
            + (
                ""
                if comparison.sleep["border"] == "asleep"
                else ", whereas border positions, which do not sleep, keep theirs"
            )
            + ": that is why these sleeps are short, and inhibition "
            "is stronger than in the circuit of the paper's Figure 4 (alpha 10)."
        )
    if len(comparison.rates) > 1:
        share = 100 * comparison.validation
        paragraphs.append(
            f"Learning rates were chosen for each variant, with crops of padding "
            f"{comparison.paddings[0]} and seed 0, by the accuracy on {share:g} % of the training "
            f"images after {comparison.rate_epochs} epoch{'s' * (comparison.rate_epochs > 1)} of "
            "training on the others, with a schedule of their own (%):\n\n" + _trials(data)
        )
    missing = [f"{label(r.variant)}, padding {r.padding}" for r in rows if r.seeds == 0]
    if missing:
        paragraphs.append("Not finished: " + "; ".join(missing) + ".")
    paragraphs.append(_markdown(rows, comparison.seeds))
    return "\n\n".join(paragraphs) + "\n"


def _trials(data: xr.Dataset) -> str:
    """Return a table of what learning rates led to."""
    from circuitsim.plots.classifiers import label

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
