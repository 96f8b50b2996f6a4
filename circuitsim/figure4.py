"""Figure 4 of the paper at its published protocol, from nothing: ``python -m circuitsim.figure4``.

R. Pogodin, Y. Mehta, T. P. Lillicrap, P. E. Latham, Towards Biologically Plausible Convolutional
Networks, NeurIPS 2021, arXiv:2106.13031. The caption that is written beside the figure tells what
differs from the paper.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from circuitsim import cli, drawing

if TYPE_CHECKING:
    from circuitsim.studies import figures


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
        help="threads to use (processes for brian2; one without numba); None: the cores available",
    )
    drawing.add_options(how, "figure4.* (figure4a.* or figure4b.* for one panel)")
    return p


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return cli.run(parser(), _body, arguments, drawing.OPTIONS)


def _body(options: argparse.Namespace) -> int:
    from circuitsim.studies import figure4

    directory = drawing.checked_directory(options.output)
    data = _run(options) if options.redraw is None else _read(options)

    from circuitsim import plots

    both = len(data.groups) == len(figure4.PROTOCOLS)
    drawing.write(
        directory / (figure4.FIGURE + "".join(data.groups) * (not both)),
        plots.figure4(data.groups),
        figure4.caption(data),
        figure4.table(data),
        data if options.redraw is None else None,
    )
    return 0


def _run(options: argparse.Namespace) -> figures.Data:
    from circuitsim.engines import registry
    from circuitsim.studies import figure4, figures

    names = ("k", "gamma", "alpha", "neurons", "trials", "presentations", "seed", "engine")
    # What cannot work is said before anything starts; and the caption says what "auto" meant.
    codegen = registry.get(options.engine, options.codegen).codegen
    studies = figure4.studies(
        drawing.chosen("panel", options.panel, tuple(figure4.PROTOCOLS)),
        codegen=codegen,
        **{name: getattr(options, name) for name in names},
    )
    jobs = cli.jobs(options.jobs)
    for study in studies.values():
        cli.check_memory(study)
    with drawing.running() as advanced:
        panels = figure4.compute(studies, jobs, advanced)
    return figures.Data(figure4.FIGURE, panels, options.command_line)


def _read(options: argparse.Namespace) -> figures.Data:
    from circuitsim.studies import figure4

    data = drawing.redrawn(options, parser(), figure4.load, "panel")
    names = drawing.chosen("panel", options.panel, tuple(data.groups))
    return replace(data, groups={name: data.groups[name] for name in names})


if __name__ == "__main__":
    sys.exit(main())
