"""Learned weights of a sweep as ``.npz``."""

from __future__ import annotations

import argparse
from pathlib import Path

from circuitsim.commands import cli, waiting

HELP = "write learned weights of a sweep as .npz"
DESCRIPTION = "Write learned weights of a sweep to an .npz file that loads without pickle."
OPTIONS = {"file": ""}  # the argument has no name


def add_options(p: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    p.add_argument("file", type=Path, metavar="FILE.nc", help="result of a sweep")
    p.add_argument(
        "--output",
        type=Path,
        default=None,
        metavar="FILE.npz",
        help="file to write; by default the sweep's name with -kK.npz for its ending",
    )
    p.add_argument(
        "--k",
        type=int,
        default=None,
        metavar="K",
        help="kernel size; needed if the sweep has several",
    )
    p.add_argument(
        "--neurons",
        type=int,
        default=None,
        metavar="N",
        help="neurons in a pool; needed if the sweep has several",
    )
    p.add_argument(
        "--gamma",
        type=float,
        nargs="+",
        default=None,
        metavar="G",
        help="pulls towards the initial weights; by default all",
    )
    p.add_argument(
        "--alpha",
        type=float,
        nargs="+",
        default=None,
        metavar="A",
        help="strengths of inhibition; by default all",
    )
    p.add_argument(
        "--trial",
        type=int,
        nargs="+",
        default=None,
        metavar="T",
        help="numbers of trials, from 0; by default all",
    )

    p.add_argument(
        "--overwrite", action="store_true", help="replace a file that holds something else"
    )


def body(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    import numpy as np

    from circuitsim.studies.export import export_weights

    chosen = {name: getattr(options, name) for name in ("k", "neurons", "gamma", "alpha", "trial")}
    try:
        with waiting.told(f"reading {options.file}"):
            written = export_weights(
                options.file, options.output, **chosen, overwrite=options.overwrite
            )
            with np.load(written, allow_pickle=False) as arrays:
                shape = arrays["weights"].shape
    except FileNotFoundError as error:
        raise cli.UsageError(str(error)) from None
    print(f"{written}: weights of {shape[0]} circuits, {shape[1]} neurons, {shape[2]} inputs")
    return 0
