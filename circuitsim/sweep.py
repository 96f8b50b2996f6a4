"""Convergence studies of the weights' SNR over a grid: ``python -m circuitsim.sweep``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitsim import cli

if TYPE_CHECKING:
    from circuitsim.studies.runner import Summary
    from circuitsim.studies.study import Study

# Options of the study whose names differ from its fields, or from those of what it is made of.
OPTIONS = {"n_neurons": "--neurons", "peak": "--learning-rate", "scale": "--learning-rate"}


def parser() -> cli.Parser:
    """Return the parser of the command's options."""
    p = cli.Parser(
        prog="python -m circuitsim.sweep",
        description="Run circuits over a grid of parameters and study how their weights converge. "
        "The grid is the product of --k, --gamma, --alpha and --neurons, each with --trials "
        "circuits. Finished circuits are kept beside the output and never run twice.",
    )
    grid = p.add_argument_group("grid (each option takes several values)")
    grid.add_argument(
        "--k",
        type=int,
        nargs="+",
        default=[3, 6, 9],
        metavar="K",
        help="kernel sizes; a circuit has K x K inputs",
    )
    grid.add_argument(
        "--gamma",
        type=float,
        nargs="+",
        default=[0.1, 0.01, 0.001],
        metavar="G",
        help="pull towards the initial weights, dimensionless",
    )
    grid.add_argument(
        "--alpha",
        type=float,
        nargs="+",
        default=[10.0],
        metavar="A",
        help="strength of inhibition, dimensionless",
    )
    grid.add_argument(
        "--neurons",
        type=int,
        nargs="+",
        default=[100],
        metavar="N",
        help="excitatory neurons in a pool",
    )
    grid.add_argument(
        "--trials",
        type=int,
        default=10,
        metavar="T",
        help="circuits for each point of the grid, with weights and inputs of their own",
    )

    model = p.add_argument_group("model (defaults: the published protocol)")
    model.add_argument(
        "--rule",
        default="circuit",
        metavar="RULE",
        help="plasticity rule: circuit, mean_subtracted or inhibition_gated",
    )
    model.add_argument(
        "--presentations",
        type=int,
        default=2000,
        metavar="P",
        help="input patterns shown to each circuit, one after another",
    )
    model.add_argument(
        "--presentation",
        type=float,
        default=150.0,
        metavar="MS",
        help="how long each pattern is shown, in ms",
    )
    model.add_argument(
        "--correlation",
        type=float,
        default=0.0,
        metavar="RHO",
        help="correlation between any two inputs, dimensionless",
    )
    model.add_argument(
        "--tau", type=float, default=30.0, metavar="MS", help="time constant of the rates, in ms"
    )
    model.add_argument(
        "--b", type=float, default=1.0, metavar="B", help="baseline rate, dimensionless"
    )
    model.add_argument(
        "--momentum",
        type=float,
        default=0.95,
        metavar="MU",
        help="heavy-ball momentum of a step of 1 ms (of an update, for "
        "mean_subtracted), dimensionless",
    )
    model.add_argument(
        "--learning-rate",
        type=float,
        default=None,
        metavar="RATE",
        help="learning rate of a step of 1 ms at t = 0 (of the first update, for "
        "mean_subtracted), dimensionless; None: 3e-4 (5e-4), as published",
    )
    model.add_argument(
        "--dt", type=float, default=1.0, metavar="MS", help="step of forward Euler, in ms"
    )
    model.add_argument(
        "--seed", type=int, default=0, metavar="SEED", help="fixes all weights and inputs"
    )

    how = p.add_argument_group("how to run it")
    how.add_argument(
        "--engine",
        default="brian2",
        metavar="ENGINE",
        help="brian2 (the network of neurons) or propagator (the same numbers from the "
        "exact solution)",
    )
    how.add_argument(
        "--codegen",
        default="auto",
        metavar="HOW",
        help="code of the engine: auto, cpp_standalone, cython or numpy for brian2; "
        "auto, numba or numpy for propagator",
    )
    how.add_argument(
        "--jobs",
        type=int,
        default=None,
        metavar="J",
        help="processes to use; None: the cores available",
    )
    how.add_argument(
        "--output",
        type=Path,
        default=Path("sweep.nc"),
        metavar="FILE.nc",
        help="netCDF file to write, with a plot FILE.png and finished circuits in "
        "FILE.cells beside it",
    )
    how.add_argument(
        "--overwrite",
        action="store_true",
        default=argparse.SUPPRESS,
        help="replace an output that holds another sweep",
    )
    how.add_argument(
        "--dry-run",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print the grid and how long it would take, from a short timed pilot, and "
        "write nothing",
    )
    return p


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return cli.run(parser(), _body, arguments, OPTIONS)


def _body(options: argparse.Namespace) -> int:
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    from circuitsim.engines import registry
    from circuitsim.progress import Progress
    from circuitsim.studies import Study, pilot, runner

    given: dict[str, Any] = {name: getattr(options, name) for name in Study.__dataclass_fields__}
    study = Study(**given)
    jobs = cli.jobs(options.jobs)
    cli.check_memory(study)
    # What cannot work is said before anything starts; and "auto" must mean the same for every cell.
    study = replace(study, codegen=registry.get(study.engine, study.codegen).codegen)
    output = _checked_output(options.output, study, getattr(options, "overwrite", False))
    if hasattr(options, "dry_run"):
        print(pilot.estimate(study, jobs, runner.cells_directory(output)))
        return 0

    store = runner.cells_directory(output)
    options.kept.append(lambda: _kept(store))
    started = time.monotonic()
    with Progress(store) as observer:
        summary = runner.run(study, output, jobs=jobs, observer=observer)
    if summary.failures:
        return _report_failures(summary, store)
    _present(output, summary)
    took = time.monotonic() - started
    for line in pilot.faster_way(study, study.cells[-summary.computed :], jobs, took):
        print(line)
    return 0


def _checked_output(output: Path, study: Study, overwrite: bool) -> Path:
    """Return the output's path if the study may be written there."""
    from circuitsim.studies import results
    from circuitsim.validation import ParameterError

    if output.suffix != ".nc":
        raise ParameterError("output", "must end in .nc", str(output))
    if not output.parent.is_dir():
        raise ParameterError("output", f"the directory {output.parent} does not exist", str(output))
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise ParameterError(
            "output", f"the directory {output.parent} cannot be written", str(output)
        )
    if output.is_dir():
        raise ParameterError("output", "is a directory; name a file", str(output))
    if output.exists() or output.is_symlink():
        try:
            existing = results.study_of(results.load(output), output)
        except (ParameterError, FileNotFoundError) as error:
            raise ParameterError(
                "output", f"exists and is no sweep that could be replaced ({error})", str(output)
            ) from None
        if not study.extends(existing) and not overwrite:
            raise ParameterError(
                "output",
                f"holds another sweep ({study.difference(existing)}); choose another file, or give "
                "--overwrite",
                str(output),
            )
    return output


def _kept(directory: Path) -> str:
    from circuitsim.studies.store import Store

    count = len(Store(directory).digests())
    if not count:
        return ""
    return f"{count} finished circuits are kept in {directory}: the same command goes on from there"


def _report_failures(summary: Summary, store: Path) -> int:
    for failure in summary.failures[:5]:
        print(f"failed: {failure.cell}: {failure.error} ({failure.file})", file=sys.stderr)
    print(
        f"{len(summary.failures)} of {summary.total} circuits failed; their tracebacks are in "
        f"{store / 'failed'}, and the others are kept in {store}. No result was written.",
        file=sys.stderr,
    )
    return cli.EXIT_FAILED


def _present(output: Path, summary: Summary) -> None:
    from circuitsim import plots
    from circuitsim.files import atomic_write
    from circuitsim.studies import results, tables

    dataset = results.load(output)
    picture = output.with_suffix(".png")
    with atomic_write(picture) as temporary:
        plots.sweep(dataset).savefig(temporary, format="png", dpi=150)
    print(tables.summary(dataset))
    print(f"\nresult: {output}\nplot:   {picture}")


if __name__ == "__main__":
    sys.exit(main())
