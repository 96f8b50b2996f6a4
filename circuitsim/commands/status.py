"""How far a study is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from circuitsim.commands import waiting

if TYPE_CHECKING:
    from circuitsim.running.state import State

HELP = "tell how far a study is"
DESCRIPTION = (
    "Tell how many circuits of a sweep (or of a figure, or trainings of a comparison) are "
    "finished, running, failed and missing, how long those that run will take, and print the table "
    "of what is finished. Changes nothing; the study may be running."
)
OPTIONS = {"file": "", "output": ""}  # the argument has no name
_LISTED = 50  # failed tasks that are shown


def add_options(p: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    p.add_argument("output", type=Path, metavar="FILE.nc", help="result of the study, or to be it")
    p.add_argument(
        "--no-table", action="store_true", help="only count, which is faster for a large study"
    )


def body(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    with waiting.told(f"reading {options.output}"):
        from circuitsim.running import state
        from circuitsim.studies.registry import KINDS

        found = state.read(options.output, KINDS)
    print("\n".join(_counts(found, options.output)), flush=True)
    _print_failed(found)
    if options.no_table:
        return 0
    print()
    if found.groups is not None:
        print(found.campaign.table(found.groups))
        return 0
    read = found.reader(lambda message: print(message, file=sys.stderr))
    for line in found.campaign.so_far(read):
        print(line)
    return 0


def _counts(state: State, output: Path) -> list[str]:
    from circuitsim.running.campaign import spoken

    where = ", ".join(f"process {p.pid} on {p.host}" for p in state.processes)
    lines = [
        (state.campaign.things, str(len(state.tasks))),
        ("finished", str(len(state.finished))),
        ("running", f"{len(state.running)}" + (f" ({where})" if where else "")),
        ("failed", str(len(state.failed))),
        ("missing", str(state.missing)),
        ("merged", f"in {output}" if state.groups is not None else "no"),
    ]
    if state.processes:
        left = state.seconds_left
        lines.append(("left", "not known yet" if left is None else f"about {spoken(left)}"))
    return [f"{name:<11} {value}" for name, value in lines]


def _print_failed(state: State) -> None:
    from circuitsim.running import records

    for task in sorted(state.failed)[:_LISTED]:
        file, error = records.failure(state.store.directory, state.campaign.digest(task))
        print(f"failed: {task}: {error} ({file})")
    if len(state.failed) > _LISTED:
        print(f"... and {len(state.failed) - _LISTED} more")
