"""Training of image classifiers: ``python -m circuitsim.classify train``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitsim.commands import cli
from circuitsim.commands.images import SLEEP, add_border, add_data, add_jobs, load_data

if TYPE_CHECKING:
    from circuitsim.vision.runs import Run
    from circuitsim.vision.sharing import Sharing
    from circuitsim.vision.training import Progress, Trainer

HELP = "train a network"
DESCRIPTION = (
    "Train a network and write it, with the history of its training, into a directory: run.json "
    "(what is trained), checkpoint.npz (the network) and history.nc. The numbers depend on the "
    "options and the data alone, not on the number of threads, nor on having been interrupted."
)

_ALWAYS = ("border", "periods", "moments")  # have an effect on averaging too
_OF_SLEEP = ("presentations", "presentations_per_input", "gamma", "alpha", *_ALWAYS)


def add_options(p: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_data(p.add_argument_group("images"), "digits")
    network = p.add_argument_group("network")
    network.add_argument(
        "--network",
        default="small",
        metavar="NAME",
        help="small (4 layers) or resnet20",
    )
    network.add_argument(
        "--connectivity",
        default="lc",
        metavar="NAME",
        help="lc (locally connected) or conv (convolutional)",
    )
    network.add_argument(
        "--width",
        type=int,
        default=None,
        metavar="W",
        help="channels of the first layer; None: 32 in small, 16 in resnet20",
    )
    awake = p.add_argument_group("awake")
    awake.add_argument("--epochs", type=int, default=10, metavar="E", help="epochs of training")
    awake.add_argument(
        "--batch-size",
        type=int,
        default=128,
        metavar="B",
        help="images in a batch, repetitions included",
    )
    awake.add_argument("--optimiser", default="adamw", metavar="NAME", help="adamw or sgd")
    awake.add_argument(
        "--learning-rate",
        type=float,
        default=None,
        metavar="RATE",
        help="learning rate of the first batch; None: 0.001 with adamw, 0.1 with sgd",
    )
    awake.add_argument(
        "--weight-decay",
        type=float,
        default=None,
        metavar="D",
        help="pull of weights to 0, as a factor of the weights; None: 0.01 with adamw, 0.0005 with "
        "sgd",
    )
    awake.add_argument(
        "--momentum",
        type=float,
        default=None,
        metavar="MU",
        help="momentum of sgd; None: 0.9",
    )
    awake.add_argument(
        "--schedule",
        default="cosine",
        metavar="NAME",
        help="how the learning rate changes: constant, cosine (to 0) or step",
    )
    awake.add_argument(
        "--milestones",
        type=int,
        nargs="+",
        default=None,
        metavar="E",
        help="epochs after which the learning rate takes a step; None: half and three quarters of "
        "them",
    )
    awake.add_argument(
        "--factor",
        type=float,
        default=None,
        metavar="F",
        help="what each step multiplies the learning rate by; None: 0.25",
    )
    awake.add_argument(
        "--crop-padding",
        type=int,
        default=0,
        metavar="P",
        help="black pixels added on every side of an image before a random crop of its size",
    )
    awake.add_argument(
        "--crop-size",
        type=int,
        default=None,
        metavar="S",
        help="rows and columns of random crops to train on, and of the middle to test with; None: "
        "those of the images",
    )
    awake.add_argument(
        "--crop-scale",
        type=float,
        default=None,
        metavar="SHARE",
        help="smallest share of an image's area in a crop: crops of random size and proportions "
        "are resized; None: they are not",
    )
    awake.add_argument("--flips", action="store_true", help="mirror every second image or so")
    awake.add_argument(
        "--repetitions",
        type=int,
        default=1,
        metavar="R",
        help="crops of each image within a batch",
    )
    awake.add_argument(
        "--validation",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the training images that is set aside for validation; 0: none",
    )
    awake.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="SEED",
        help="fixes weights, validation images, order, crops and sleeps",
    )
    asleep = p.add_argument_group("asleep")
    asleep.add_argument(
        "--sharing",
        default="none",
        metavar="HOW",
        help="how locally connected layers share weights: none; instant (averaging); or the rule "
        "by which they sleep: circuit, inhibition_gated, mean_subtracted, or another that is "
        "linear, as 'name = signal'",
    )
    asleep.add_argument(
        "--share-every",
        type=int,
        default=None,
        metavar="B",
        help="batches from one sleep to the next; must be given unless --sharing is none",
    )
    asleep.add_argument(
        "--sleep-length",
        default="learning",
        metavar="HOW",
        help="how many of its presentations a sleep has: learning (in proportion to the learning "
        "rate since the last one) or constant (all)",
    )
    for name, unit, letter, what, default in (
        ("presentations", int, "P", "input patterns shown in a sleep", "as the next says"),
        (
            "presentations-per-input",
            float,
            "P",
            "the same, for each input of a neuron, so that layers that differ in it sleep alike",
            f"{SLEEP['presentations_per_input']:g}",
        ),
        (
            "gamma",
            float,
            "G",
            "pull towards the weights before the sleep, dimensionless",
            f"{SLEEP['gamma']:g}",
        ),
        ("alpha", float, "A", "strength of inhibition, dimensionless", f"{SLEEP['alpha']:g}"),
        ("tau", float, "MS", "time constant of the rates, in ms", "30"),
        (
            "sharing-rate",
            float,
            "RATE",
            "learning rate in a sleep, of a step of 1 ms (of an update, for mean_subtracted), "
            "dimensionless",
            "one that suits the number of inputs",
        ),
    ):
        asleep.add_argument(
            f"--{name}",
            type=unit,
            default=None,
            metavar=letter,
            help=f"{what}; None: {default}",
        )
    add_border(asleep, None)
    asleep.add_argument(
        "--periods",
        type=int,
        default=None,
        metavar="1|2",
        help="1: patterns repeat every k positions, which leaves k x k kernels "
        "in a channel; 2: every k and then every k + 1, which leaves one; None: 1",
    )
    asleep.add_argument(
        "--moments",
        default=None,
        metavar="HOW",
        help="what the optimiser remembers of single weights in a sleep: own (stays) or shared (as "
        "the weights are); None: own",
    )
    how = p.add_argument_group("how to run it")
    add_jobs(how)
    how.add_argument(
        "--output",
        type=Path,
        default=Path("classifier"),
        metavar="RUN",
        help="directory to write",
    )
    how.add_argument(
        "--resume",
        action="store_true",
        help="go on where the run in this directory stopped, with its own options; begin it if it "
        "has not begun",
    )


def body(options: argparse.Namespace) -> int:
    """Train a network; return the exit code."""
    from circuitsim.files import provenance
    from circuitsim.files.locks import Taken
    from circuitsim.vision import checkpoints, parallel
    from circuitsim.vision.runs import Run

    directory: Path = options.output
    threads = cli.jobs(options.jobs)
    trained = (directory / checkpoints.ARRAYS).exists()
    begun = trained or (directory / checkpoints.DESCRIPTION).exists()
    if trained and not options.resume:
        raise cli.UsageError(
            f"--output {directory}: holds a run already; give --resume to go on with it, or name "
            "another directory"
        )
    if begun and options.resume:
        try:
            run = Run.read(directory)
        except FileNotFoundError as error:
            raise cli.UsageError(f"--output {error}") from None
        _check_same(options, run)
        data = load_data(options, run.dataset, run)
    else:
        data = load_data(options, options.dataset)
        run = _described(options, data)
    with parallel.threads(threads), _Observer(run) as observer, _sharing_options():
        options.kept.append(lambda: _kept(directory))
        try:
            made = provenance.versions() | provenance.made_here()
            made["command_line"] = options.command_line
            _, diverged = run.carry_out(directory, data, observer.advanced, made, wait=False)
        except Taken as error:
            raise cli.UsageError(
                f"--output {directory}: another process is training it: {error}"
            ) from None
        except (NotADirectoryError, PermissionError) as error:
            raise cli.UsageError(f"--output {directory}: {error.strerror}") from None
    if diverged is not None:
        print(
            f"{options.prog}: error: {diverged}; try a lower --learning-rate; {_kept(directory)}",
            file=sys.stderr,
        )
        return cli.EXIT_FAILED
    print(f"\nrun: {directory}")
    return 0


def _described(options: argparse.Namespace, data: Any) -> Run:
    """Describe the run that the options ask for."""
    from circuitsim.vision.runs import Run
    from circuitsim.vision.training import Training

    names = set(Training.__dataclass_fields__) - {"milestones", "factor"}
    given = {name: getattr(options, name) for name in names}
    for name in ("milestones", "factor"):
        value = getattr(options, name)
        if value is not None:
            if options.schedule != "step":
                raise cli.UsageError(f"--{name} has no effect without --schedule step")
            given[name] = tuple(value) if name == "milestones" else value
    return Run.new(
        data,
        Training(**given),
        _sharing(options),
        network=options.network,
        connectivity=options.connectivity,
        width=options.width,
    )


def _sharing(options: argparse.Namespace) -> Sharing | None:
    from circuitsim.values import ms
    from circuitsim.vision.sharing import Sharing

    method, fields = options.sharing, {"sharing_rate": "learning_rate"}
    names: tuple[str, ...] = (*_OF_SLEEP, "tau", "sharing_rate")
    given = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
    rule = None
    if method != "none":
        with _sharing_options():
            rule = Sharing(method).rule
    if rule is None:  # neither presentations nor what they depend on
        idle = [n for n in given if n not in _ALWAYS or method == "none"]
        idle += ["sleep_length"] if options.sleep_length != "learning" else []
    else:
        idle = [n for n in ("alpha", "tau") if n in given and rule.per_presentation]
    if idle:
        option = idle[0].replace("_", "-")
        raise cli.UsageError(f"--{option} has no effect with --sharing {method}")
    if "presentations" in given and "presentations_per_input" in given:
        raise cli.UsageError("--presentations and --presentations-per-input: leave one out")
    if method == "none":
        return None
    if options.share_every is None:
        raise cli.UsageError(f"--sharing {method} needs --share-every, the batches between sleeps")
    if "tau" in given:
        given["tau"] = given["tau"] * ms
    if rule is not None:
        given = SLEEP | given
    with _sharing_options():
        return Sharing(method, **{fields.get(n, n): v for n, v in given.items()})


@contextmanager
def _sharing_options() -> Iterator[None]:
    """Name the option of sharing in an error, not one of the same name."""
    from circuitsim.validation import ParameterError

    of_rule = dict.fromkeys(("Sharing.method", "Rule.name", "Rule.signal"), "sharing")
    options = {"Sharing.learning_rate": "sharing_rate", **of_rule}
    try:
        yield
    except ParameterError as error:
        if error.parameter not in options:
            raise
        raise ParameterError(options[error.parameter], error.rule, error.value) from None


def _check_same(options: argparse.Namespace, run: Run) -> None:
    """Refuse options that differ both from their defaults and from the run that is to go on."""
    from dataclasses import asdict

    from circuitsim.values import in_ms
    from circuitsim.vision.sharing import Sharing

    of_run: dict[str, Any] = {"dataset": run.dataset, "sharing": "none"}
    of_run |= asdict(run.architecture) | asdict(run.training)
    if run.sharing is not None:
        sharing = asdict(run.sharing)
        of_run |= {"sharing": sharing["method"], "sharing_rate": sharing["learning_rate"]}
        of_run |= {n: sharing.get(n) for n in _OF_SLEEP}
        if sharing.get("tau") is not None:
            of_run["tau"] = float(in_ms(sharing["tau"]))
    free = (
        "data",
        "download",
        "image_size",
        "channels",
        "test_share",
        "skip_bad",
        "workers",
        "jobs",
        "output",
        "resume",
        "subcommand",
        "command_line",
        "kept",
        "prog",
    )
    if options.sharing != "none":
        with _sharing_options():
            options.sharing = Sharing(options.sharing).method  # a definition in its usual form
    parser = cli.Parser()
    add_options(parser)
    defaults = parser.parse_args([])
    for name, value in vars(options).items():
        value = tuple(value) if isinstance(value, list) else value
        if name in free or value == getattr(defaults, name) or value == of_run.get(name):
            continue
        option = "--" + name.replace("_", "-")
        raise cli.UsageError(
            f"{option}: the run in {options.output} has {of_run.get(name)}; leave it out to "
            "go on with it, or name another --output"
        )


def _kept(directory: Path) -> str:
    from circuitsim.vision import checkpoints
    from circuitsim.vision.training import Progress

    content = checkpoints.read_progress(directory)
    if content is None:
        return "no checkpoint had been written yet"
    progress = Progress(**content)
    return (
        f"the checkpoint after {progress.epoch} epochs and {progress.batch} batches is in "
        f"{directory}: the same command with --resume goes on from there"
    )


class _Observer:
    """Prints a line for every epoch, and shows how the present one goes on a terminal."""

    def __init__(self, run: Run) -> None:
        self._run, self._epochs = run, run.training.epochs
        self._parts: tuple[str, ...] = ()
        self._printed = 0
        self._bar: Any = None

    def __enter__(self) -> _Observer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _begin(self, progress: Progress, trainer: Trainer) -> None:
        from circuitsim.commands.progress import bar

        for note in trainer.notes():
            print(f"note: {note}", file=sys.stderr)
        self._parts = trainer.parts
        self._printed = len(progress.history)
        if progress.batches:
            print(f"going on after {progress.epoch} epochs and {progress.batch} batches")
        print((" " * 6 + "".join(f"  {part:16}" for part in self._parts)).rstrip())
        print(
            " epoch" + "  loss    top-1   " * len(self._parts) + "      time     left", flush=True
        )
        done = progress.batches / trainer.per_epoch
        self._bar = bar(self._epochs, f"0/{self._epochs} epochs: ", initial=done)

    def advanced(self, progress: Progress, trainer: Trainer) -> None:
        if self._bar is None:
            self._begin(progress, trainer)
        done = progress.batches / trainer.per_epoch
        if progress.images:
            loss, top1, _ = progress.means
            self._bar.set_description_str(
                f"{done:.1f}/{self._epochs} epochs, loss {loss:.3f}, top-1 {100 * top1:.0f} %: ",
                refresh=False,
            )
        self._bar.update(done - self._bar.n)
        for number in range(self._printed, len(progress.history)):
            self._print(progress.history[: number + 1])
        self._printed = len(progress.history)

    def _print(self, history: list[dict[str, Any]]) -> None:
        seconds = [row["seconds"] for row in history]
        left = sum(seconds) / len(seconds) * (self._epochs - len(history))
        scores = "".join(
            f"  {history[-1][part][0]:6.4f}  {100 * history[-1][part][1]:6.2f} %"
            for part in self._parts
        )
        self._bar.clear()
        print(
            f"{len(history):3}/{self._epochs:<2}{scores}  "
            f"{seconds[-1]:6.1f} s  {self._bar.format_interval(left):>7}",
            flush=True,
        )
