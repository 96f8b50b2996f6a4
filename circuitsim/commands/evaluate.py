"""How good a trained network is: ``python -m circuitsim.classify evaluate``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitsim.commands import cli
from circuitsim.commands.images import add_data, add_jobs, load_data

if TYPE_CHECKING:
    from collections.abc import Sequence

HELP = "test a trained network"
DESCRIPTION = (
    "Print loss, top-1 and top-5 accuracy of a trained network on the test images of a data set, "
    "and the confusion matrix: how many images of each class (row) were taken for each (column)."
)
_PRINTED = 20  # classes up to which the confusion matrix is printed
_WORST = 10  # of more classes, the pairs that are confused most


def add_options(p: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    p.add_argument("run", type=Path, metavar="RUN", help="directory that train has written")
    add_data(p, None)
    add_jobs(p)
    p.add_argument(
        "--output",
        type=Path,
        default=None,
        metavar="FILE.csv",
        help="write the confusion matrix there; by default it is not written",
    )
    p.add_argument(
        "--report",
        type=Path,
        default=None,
        metavar="DIR",
        help="write evaluation.* there: accuracy by class, confusion matrix, calibration, and the "
        "first layer's kernels awake and asleep, as a figure with its data; made if need be",
    )


def body(options: argparse.Namespace) -> int:
    """Test a network; return the exit code."""
    from circuitsim.checks.validation import ParameterError
    from circuitsim.files import write_text
    from circuitsim.vision import evaluation

    output: Path | None = options.output
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise cli.UsageError(f"--output {output}: must be a file in a directory that exists")
    if options.report is not None:
        _checked(options.report)
    classifier = loaded(options.run, options.jobs)
    name = options.dataset or classifier.run_.dataset
    data = load_data(options, name, classifier.run_)
    if data.class_names != classifier.class_names:
        raise ParameterError(
            "dataset", f"has other classes than the network, which knows {classifier.run_.dataset}",
            name,
        )  # fmt: skip
    labels = data.test.labels
    found = classifier.logits(data.test.images)
    loss, top1, top5 = evaluation.measured(found, labels)
    counts = evaluation.confusion(found.argmax(axis=1), labels, len(data.class_names))
    print(f"{len(labels)} test images of {name}")
    print(f"loss  {loss:.4f}\ntop-1 {100 * top1:.2f} %\ntop-5 {100 * top5:.2f} %\n")
    for line in _table(counts, data.class_names):
        print(line)
    if output is not None:
        rows = [["", *data.class_names]]
        rows += [[c, *map(str, row)] for c, row in zip(data.class_names, counts, strict=True)]
        write_text(output, "".join(",".join(row) + "\n" for row in rows))
    if options.report is not None:
        run = classifier.run_
        made = evaluation.report(
            found, labels, data.class_names, classifier.network_, run.sharing,
            seed=run.training.seed,
        )  # fmt: skip
        _write(options.report, made, name, run, options.command_line)
    return 0


def _checked(directory: Path) -> None:
    from circuitsim.checks.validation import ParameterError
    from circuitsim.commands.campaign import checked_directory

    try:
        checked_directory(directory)
    except ParameterError as error:
        raise ParameterError("report", error.rule, error.value) from None


def _write(directory: Path, made: Any, name: str, run: Any, command_line: str) -> None:
    """Write a report, its figure last."""
    import json

    from circuitsim import plots
    from circuitsim.files import netcdf, own_directory, provenance

    figure = plots.evaluation(made)
    stem = own_directory(directory) / "evaluation"
    attributes = {
        "title": f"How a network classifies {name}",
        "dataset": name,
        "run": json.dumps(run.plain()),
        "sharing": "none" if run.sharing is None else str(run.sharing),
        "citation": provenance.CITATION,
    }
    attributes |= provenance.versions() | provenance.made_here() | {"command_line": command_line}
    with netcdf.writing(stem.with_suffix(".nc")) as add:
        add(made.assign_attrs(attributes), None)
    for kind in (".pdf", ".png"):
        plots.save(figure, stem.with_suffix(kind))
    print(f"\nwritten: {stem}{{.nc,.pdf,.png}}")


def loaded(run: Path, threads: int | None) -> Any:
    """Read a trained network that the user named."""
    from circuitsim.vision.estimator import load

    try:
        return load(run, cli.jobs(threads))
    except FileNotFoundError as error:
        raise cli.UsageError(str(error)) from None


def _table(counts: Any, names: Sequence[str]) -> list[str]:
    width = max(max(map(len, names)), len(str(counts.max()))) + 1
    if len(names) <= _PRINTED:
        lines = ["".join(f"{n:>{width}}" for n in ("", *names))]
        return lines + [
            f"{name:>{width}}" + "".join(f"{n:{width}}" for n in row)
            for name, row in zip(names, counts, strict=True)
        ]
    pairs = sorted(
        ((int(n), i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if i != j),
        reverse=True,
    )
    return ["confused most often:"] + [
        f"{n:{width}}  {names[i]} taken for {names[j]}" for n, i, j in pairs[:_WORST]
    ]
