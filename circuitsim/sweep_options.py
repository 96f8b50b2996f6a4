"""Options of the sweep, read and written."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from circuitsim import cli

if TYPE_CHECKING:
    from circuitsim.studies.study import Study

DEFAULT_OUTPUT = Path("sweep.nc")


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
        help="kernel sizes; a circuit has K x K inputs for each of its --channels",
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
        help="plasticity rule: circuit, mean_subtracted or inhibition_gated; the name of one of "
        "--rules-from or of an installed package; or one in place, 'mine = r - b - 0.5*r_inh'",
    )
    model.add_argument(
        "--rules-from",
        type=Path,
        default=None,
        metavar="FILE.py",
        help="Python file to run first, which registers rules; None: no file",
    )
    model.add_argument(
        "--channels",
        type=int,
        default=1,
        metavar="C",
        help="channels of the input patterns, such as the 3 of colour images",
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
        help="processes to use, each on one core; None: the cores available",
    )
    where = how.add_mutually_exclusive_group()
    where.add_argument(
        "--scheduler",
        default=None,
        metavar="ADDRESS",
        help="run on the Dask cluster whose scheduler is there, e.g. tcp://node1:8786; needs "
        "circuitsim[cluster]; None: on this machine",
    )
    where.add_argument(
        "--scheduler-file",
        type=Path,
        default=None,
        metavar="FILE",
        help="the same, for the scheduler that wrote this file",
    )
    how.add_argument(
        "--output",
        type=Path,
        default=None,
        metavar="FILE.nc",
        help="netCDF file to write, with a plot FILE.png and finished circuits in FILE.cells "
        f"beside it; None: {DEFAULT_OUTPUT} (with --reproduce, a file that is not kept)",
    )
    how.add_argument(
        "--overwrite",
        action="store_true",
        default=argparse.SUPPRESS,
        help="replace an output that holds another sweep",
    )
    how.add_argument(
        "--retry-failed",
        action="store_true",
        default=argparse.SUPPRESS,
        help="try circuits again that failed in an earlier run; else they are left out",
    )
    _add_modes(p)
    return p


def _add_modes(p: cli.Parser) -> None:
    group = p.add_argument_group(
        "what else to do (one of these)",
        "A study is a fixed list of parts of up to 10 circuits each, which --dry-run counts; "
        "`python -m circuitsim.status FILE.nc` tells how far it is.",
    )
    mode = group.add_mutually_exclusive_group()
    mode.add_argument(
        "--dry-run",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print the grid, its parts and how long it would take, from a short timed pilot, "
        "and write nothing",
    )
    mode.add_argument(
        "--cell",
        type=int,
        nargs="+",
        default=None,
        metavar="I",
        help="run only these parts of the study (from 0), in this process, and write their "
        "circuits' files alone: any number of such commands may run at once; None: all parts",
    )
    mode.add_argument(
        "--merge",
        action="store_true",
        default=argparse.SUPPRESS,
        help="run nothing; write the output from the circuits that --cell has finished",
    )
    mode.add_argument(
        "--write-slurm",
        type=Path,
        default=None,
        metavar="FILE",
        help="run nothing; write a script for sbatch that runs all parts as an array of tasks; "
        "None: no script",
    )
    mode.add_argument(
        "--reproduce",
        type=Path,
        default=None,
        metavar="FILE.nc",
        help="run the study of this result again and print how much differs; exit code 0 if "
        "nothing does by more than 1e-9 of its value, else 1; None: run the study given",
    )


def command_line(study: Study, output: Path) -> list[str]:
    """Return the command that runs a study, with every option that its numbers depend on."""
    command = [sys.executable, "-m", "circuitsim.sweep"]
    for name, value in asdict(study).items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, tuple):
            command += [option, *map(str, value)]
        elif value is not None:  # joined, or a negative number would be taken for an option
            command.append(f"{option}={value}")
    return [*command, f"--output={output.absolute()}"]
