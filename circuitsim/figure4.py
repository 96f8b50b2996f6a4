"""Figure 4 of the paper at its published protocol, from nothing: ``python -m circuitsim.figure4``.

R. Pogodin, Y. Mehta, T. P. Lillicrap, P. E. Latham, Towards Biologically Plausible Convolutional
Networks, NeurIPS 2021, arXiv:2106.13031. The caption that is written beside the figure tells what
differs from the paper.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from circuitsim import cli

if TYPE_CHECKING:
    from circuitsim.studies import figure4

# Options whose names differ from those of what they set.
OPTIONS = {"n_neurons": "--neurons", "file": "--redraw"}


def parser() -> cli.Parser:
    """Return the parser of the command's options."""
    p = cli.Parser(
        prog="python -m circuitsim.figure4",
        description="Draw Figure 4 of the paper: how the weights of a pool become alike, under the "
        "ideal rule (panel a) and in the circuit (panel b). All defaults are the published "
        "protocol. Writes the figure (.pdf, .png), its data (.nc) and its caption (.md), and "
        "prints how each curve compares with theory.",
    )
    p.add_argument(
        "--panel",
        nargs="+",
        default=None,
        metavar="PANEL",
        help="panels to draw: a, b; None: both, or those in the file to --redraw",
    )
    model = p.add_argument_group("model (defaults: the published protocol)")
    model.add_argument(
        "--k",
        type=int,
        nargs="+",
        default=[3, 6, 9],
        metavar="K",
        help="kernel sizes; a circuit has K x K inputs",
    )
    model.add_argument(
        "--gamma",
        type=float,
        nargs="+",
        default=[0.1, 0.01, 0.001],
        metavar="G",
        help="pull towards the initial weights, dimensionless",
    )
    model.add_argument(
        "--alpha",
        type=float,
        default=10.0,
        metavar="A",
        help="strength of inhibition in panel b, dimensionless",
    )
    model.add_argument(
        "--neurons", type=int, default=100, metavar="N", help="excitatory neurons in a pool"
    )
    model.add_argument(
        "--trials",
        type=int,
        default=10,
        metavar="T",
        help="circuits for each k and gamma, with weights and inputs of their own",
    )
    model.add_argument(
        "--presentations",
        type=int,
        default=None,
        metavar="P",
        help="input patterns shown to each circuit; None: 2000 in panel a, 10000 in panel b",
    )
    model.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="SEED",
        help="fixes all weights and inputs, as in a sweep",
    )
    how = p.add_argument_group("how to run it")
    how.add_argument(
        "--engine",
        default="propagator",
        metavar="ENGINE",
        help="propagator (the exact solution of the network's steps) or brian2 (the network "
        "itself, minutes instead of seconds)",
    )
    how.add_argument(
        "--codegen",
        default="auto",
        metavar="HOW",
        help="code of the engine: auto, numba or numpy for propagator; auto, cpp_standalone, "
        "cython or numpy for brian2",
    )
    how.add_argument(
        "--jobs",
        type=int,
        default=None,
        metavar="J",
        help="threads to use (processes for brian2); None: the cores available",
    )
    how.add_argument(
        "--output",
        type=Path,
        default=Path("figures"),
        metavar="DIR",
        help="directory for figure4.* (figure4a.*, figure4b.* for one panel), made if need be",
    )
    how.add_argument(
        "--redraw",
        type=Path,
        default=None,
        metavar="FILE.nc",
        help="run nothing and draw what this file holds; None: run",
    )
    return p


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return cli.run(parser(), _body, arguments, OPTIONS)


def _body(options: argparse.Namespace) -> int:
    from circuitsim.studies import figure4

    directory = cli.checked_directory(options.output)
    if options.redraw is None:
        panels, made_by = _run(options), options.command_line
    else:
        cli.refuse_beside(options, parser(), "redraw", "panel", "output")
        panels, made_by = _read(options.redraw, options.panel)

    from circuitsim import plots
    from circuitsim.files import write_text

    name = "figure4" if len(panels) == len(figure4.PROTOCOLS) else "figure4" + "".join(panels)
    directory.mkdir(exist_ok=True)
    files = [directory / f"{name}.{kind}" for kind in ("nc", "pdf", "png", "md")]
    if options.redraw is None:
        figure4.save(panels, files[0], made_by)
    else:
        del files[0]
    figure = plots.figure4(panels)
    for file in files[-3:-1]:
        plots.save(figure, file)
    write_text(files[-1], figure4.caption(panels, made_by))
    print(figure4.table(panels))
    print("\nwritten:", *files)
    return 0


def _run(options: argparse.Namespace) -> figure4.Panels:
    from circuitsim.engines import registry
    from circuitsim.progress import line
    from circuitsim.studies import figure4

    names = ("k", "gamma", "alpha", "neurons", "trials", "presentations", "seed")
    studies = figure4.studies(
        options.panel or tuple(figure4.PROTOCOLS),
        **{name: getattr(options, name) for name in (*names, "engine", "codegen")},
    )
    jobs = cli.jobs(options.jobs)
    for study in studies.values():
        cli.check_memory(study)
    registry.get(options.engine, options.codegen)  # says what cannot work before it is started
    with line() as advanced:
        try:
            return figure4.compute(studies, jobs, advanced)
        except FloatingPointError as error:
            raise cli.UsageError(str(error)) from None


def _read(file: Path, wanted: list[str] | None) -> tuple[figure4.Panels, str]:
    from circuitsim.studies import figure4
    from circuitsim.validation import ParameterError

    try:
        panels, made_by = figure4.load(file)
    except FileNotFoundError as error:
        raise cli.UsageError(f"--redraw {error}") from None
    for name in wanted or ():
        if name not in panels:
            raise ParameterError(
                "panel", f"must be one of those in {file}: {' '.join(panels)}", name
            )
    return {name: panels[name] for name in panels if name in (wanted or panels)}, made_by


if __name__ == "__main__":
    sys.exit(main())
