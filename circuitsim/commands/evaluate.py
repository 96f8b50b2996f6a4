"""How good a trained network is: ``python -m circuitsim.classify evaluate``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitsim.commands import cli, reports, waiting
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
        "--weights",
        default=None,
        metavar="FILE:LAYER",
        help="test it with the weights that circuits have made of a layer: awake, after their "
        "sleep, and exactly shared, with statistics of batch norm taken anew; FILE is the result "
        "of a sweep that began with --initial RUN:LAYER, or what export wrote of it, and LAYER may "
        "be left out",
    )
    p.add_argument(
        "--overwrite", action="store_true", help="replace an output that holds something else"
    )
    p.add_argument(
        "--report",
        type=Path,
        default=None,
        metavar="DIR",
        help="write evaluation.* there: accuracy by class, confusion matrix, calibration, and the "
        "first layer's kernels awake and asleep, as a figure with its data; with --weights, "
        "slept.*: kernels before and after, SNR over presentations, accuracies; made if need be",
    )


def body(options: argparse.Namespace) -> int:
    """Test a network; return the exit code."""
    output: Path | None = options.output
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise cli.UsageError(f"--output {output}: must be a file in a directory that exists")
    with waiting.told(f"reading {options.run}, and images"):
        from circuitsim.checks.validation import ParameterError
        from circuitsim.files import write_text
        from circuitsim.vision import evaluation

        classifier = loaded(options.run, options.jobs)
        name = options.dataset or classifier.run_.dataset
        data = load_data(options, name, classifier.run_)
    if data.class_names != classifier.class_names:
        raise ParameterError(
            "dataset", f"has other classes than the network, which knows {classifier.run_.dataset}",
            name,
        )  # fmt: skip
    kind = "evaluation" if options.weights is None else "slept"
    attributes = _attributes(name, classifier.run_)
    if options.report is not None:
        reports.checked(options.report, kind, attributes, options.overwrite)
    if options.weights is not None:
        return _with_weights(options, classifier, data, attributes)
    labels = data.test.labels
    with waiting.told("testing the network"):
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
        table = "".join(",".join(row) + "\n" for row in rows)
        cli.check_new(output, table.encode("utf-8", "surrogateescape"), options.overwrite, "output")
        write_text(output, table)
    if options.report is not None:
        run = classifier.run_
        made = evaluation.report(
            found, labels, data.class_names, classifier.network_, run.sharing,
            seed=run.training.seed,
        )  # fmt: skip
        _write(options, "evaluation", made, attributes)
    return 0


def _with_weights(
    options: argparse.Namespace, classifier: Any, data: Any, attributes: dict[str, str]
) -> int:
    """Test with the weights of a layer before and after its sleep."""
    from circuitsim.checks.validation import ParameterError
    from circuitsim.studies import slept
    from circuitsim.vision import parallel

    if options.output is not None:
        raise cli.UsageError("--output has no effect with --weights: leave one of them out")
    # A name may have a colon, and the layer may be left out.
    path, layer = Path(options.weights), None
    if not path.exists() and ":" in options.weights:
        file, _, layer = options.weights.rpartition(":")
        path = Path(file)
    try:
        learned = slept.learned(path)
    except FileNotFoundError as error:
        raise cli.UsageError(f"--weights: {error}") from None
    except ParameterError as error:
        raise ParameterError("weights", error.rule, error.value) from None
    with parallel.threads(cli.jobs(options.jobs)), waiting.told("testing the network"):
        made = slept.evaluate(classifier, data, learned, layer)
    study = learned.study
    print(
        f"{made.images} test images of {data.name}; {made.layer} before and after a sleep by the "
        f"rule {study.rule}\nof {study.presentations} presentations; statistics of batch norm "
        "taken anew from the images to learn from\n"
    )
    states = [str(state) for state in made["state"].to_numpy()]
    width = max(map(len, states)) + 2
    print(f"{'weights':<{width}}{'top-1':>9}{'interval':>16}{'loss':>9}  against awake")
    for n, state in enumerate(states):
        low, high = 100 * made["interval"].to_numpy()[n]
        gained, lost = int(made["gained"][n]), int(made["lost"][n])
        print(
            f"{state:<{width}}{100 * float(made['top1'][n]):>7.2f} %"
            f"{f'{low:.1f} to {high:.1f}':>16}{float(made['loss'][n]):>9.4f}"
            + (f"  +{gained} -{lost} images" if n else "")
        )
    if options.report is not None:
        _write(options, "slept", made, attributes)
    return 0


def _attributes(name: str, run: Any) -> dict[str, str]:
    """What a report is of."""
    import json

    sharing = "none" if run.sharing is None else str(run.sharing)
    return {"dataset": name, "run": json.dumps(run.plain()), "sharing": sharing}


def _write(options: argparse.Namespace, kind: str, made: Any, attributes: dict[str, str]) -> None:
    title = f"How a network classifies {attributes['dataset']}"
    further = {"title": title, "report": kind}
    reports.write(options.report, kind, made, kind, attributes | further, options.command_line)


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
