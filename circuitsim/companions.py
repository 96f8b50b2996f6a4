"""Figures beside Figure 4 of the paper: ``python -m circuitsim.companions``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from circuitsim import cli, drawing

if TYPE_CHECKING:
    from circuitsim.studies import figures


def parser() -> cli.Parser:
    """Return the parser of the command's options."""
    p = cli.Parser(
        prog="python -m circuitsim.companions",
        description="Draw two figures beside Figure 4 of the paper, with its protocol. rates: the "
        "rates of a circuit in its first and last presentations, and the fast fixed point to which "
        "they settle. endpoint: how the circuit passes the end point of its weights and drifts "
        "back as their mean decays, far less so when the rule is gated by inhibition. Each is "
        "written as a figure (.pdf, .png), its data (.nc) and its caption (.md).",
    )
    p.add_argument(
        "--figure",
        nargs="+",
        default=None,
        metavar="FIGURE",
        help="figures to draw: rates, endpoint; None: both, or that in the file to --redraw",
    )
    model = p.add_argument_group("model")
    model.add_argument(
        "--k",
        type=int,
        default=3,
        metavar="K",
        help="kernel size; a circuit has K x K inputs",
    )
    model.add_argument(
        "--gamma",
        type=float,
        default=0.01,
        metavar="G",
        help="pull towards the initial weights, dimensionless",
    )
    model.add_argument(
        "--alpha",
        type=float,
        nargs="+",
        default=[3.0, 10.0, 30.0],
        metavar="A",
        help="strengths of inhibition in endpoint, dimensionless (rates has the published 10)",
    )
    model.add_argument(
        "--neurons", type=int, default=100, metavar="N", help="excitatory neurons in a pool"
    )
    model.add_argument(
        "--trials",
        type=int,
        default=10,
        metavar="T",
        help="circuits for each alpha in endpoint, with weights and inputs of their own",
    )
    model.add_argument(
        "--presentations",
        type=int,
        default=None,
        metavar="P",
        help="input patterns shown to each circuit; None: 2000 in rates, 10000 in endpoint",
    )
    model.add_argument(
        "--long",
        type=int,
        default=60_000,
        metavar="P",
        help="input patterns in the runs of endpoint at a small constant learning rate",
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
        "--codegen",
        default="auto",
        metavar="HOW",
        help="code of the propagator: auto, numba or numpy",
    )
    how.add_argument(
        "--jobs",
        type=int,
        default=None,
        metavar="J",
        help="threads to use (one without numba); None: the cores available",
    )
    drawing.add_options(how, "rates.* and endpoint.*")
    return p


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return cli.run(parser(), _body, arguments, drawing.OPTIONS)


def _body(options: argparse.Namespace) -> int:
    from circuitsim.studies import companions

    directory = drawing.checked_directory(options.output)
    made = _run(options) if options.redraw is None else _read(options)

    from circuitsim import plots

    draw = {"rates": plots.rates, "endpoint": plots.endpoint}
    for data in made:
        drawing.write(
            directory / data.figure,
            draw[data.figure](data.groups),
            companions.caption(data),
            companions.table(data),
            data if options.redraw is None else None,
        )
    return 0


def _run(options: argparse.Namespace) -> list[figures.Data]:
    from circuitsim.engines import registry
    from circuitsim.studies import companions, figures
    from circuitsim.validation import integer

    names = drawing.chosen("figure", options.figure, tuple(companions.FIGURES))
    shared = ("k", "gamma", "alpha", "neurons", "trials", "presentations", "seed")
    given = {option: getattr(options, option) for option in shared}
    # What cannot work is said before anything starts.
    given["codegen"] = registry.get("propagator", options.codegen).codegen
    studies = {name: companions.study(name, **given) for name in names}
    jobs = cli.jobs(options.jobs)
    for study in studies.values():
        cli.check_memory(study)
    integer("long", options.long, minimum=2)
    made = []
    for name, study in studies.items():
        with drawing.running() as advanced:
            if name == "rates":
                groups = companions.rates(study, advanced)
            else:
                groups = companions.endpoint(study, options.long, jobs, advanced)
        made.append(figures.Data(name, groups, options.command_line))
    return made


def _read(options: argparse.Namespace) -> list[figures.Data]:
    from circuitsim.studies import companions

    data = drawing.redrawn(options, parser(), companions.load, "figure")
    drawing.chosen("figure", options.figure, [data.figure])
    return [data]


if __name__ == "__main__":
    sys.exit(main())
