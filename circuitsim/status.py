"""How far a sweep is: ``python -m circuitsim.status sweep.nc``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from circuitsim import cli

if TYPE_CHECKING:
    from circuitsim.studies.state import State

OPTIONS = {"file": "", "output": ""}  # the argument has no name
_LISTED = 50  # failed circuits that are shown


def parser() -> cli.Parser:
    """Return the parser of the command's options."""
    p = cli.Parser(
        prog="python -m circuitsim.status",
        description="Tell how many circuits of a sweep are finished, running, failed and missing, "
        "and print the table of what is finished. Changes nothing; the sweep may be running.",
    )
    p.add_argument(
        "output", type=Path, metavar="FILE.nc", help="what the sweep was given as --output"
    )
    p.add_argument(
        "--no-table",
        action="store_true",
        default=argparse.SUPPRESS,
        help="only count, which is faster for a large study",
    )
    return p


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return cli.run(parser(), _body, arguments, OPTIONS)


def _body(options: argparse.Namespace) -> int:
    from circuitsim.studies import state, tables

    found = state.read(options.output)
    print(_counts(found, options.output), flush=True)
    _print_failed(found)
    if hasattr(options, "no_table"):
        return 0
    print()
    if found.result is not None:
        print(tables.summary(found.result))
        return 0
    rows = state.rows(found, lambda message: print(message, file=sys.stderr))
    for line in tables.so_far(rows, found.study.presentations, found.study.trials):
        print(line)
    return 0


def _counts(state: State, output: Path) -> str:
    study = state.study
    where = ", ".join(f"process {p.pid} on {p.host}" for p in state.processes)
    merged = f"in {output}" if state.result is not None else "no"
    return "\n".join(
        [
            f"circuits    {study.size}",
            f"finished    {len(state.finished)}",
            f"running     {len(state.running)}" + (f" ({where})" if where else ""),
            f"failed      {len(state.failed)}",
            f"missing     {state.missing}",
            f"merged      {merged}",
        ]
    )


def _print_failed(state: State) -> None:
    from circuitsim.studies import records

    for cell in sorted(state.failed)[:_LISTED]:
        file, error = records.failure(state.store.directory, state.study.digest(cell))
        print(f"failed: {cell}: {error} ({file})")
    if len(state.failed) > _LISTED:
        print(f"... and {len(state.failed) - _LISTED} more")


if __name__ == "__main__":
    sys.exit(main())
