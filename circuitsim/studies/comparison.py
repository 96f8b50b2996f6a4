"""Networks that share weights, or do not, compared: which trainings that takes, and their results.

Each variant is trained with crops of every padding and with every seed, on all training images;
what counts is the accuracy on test images after the last epoch. Its learning rate is the one that
did best on validation images in short trainings before: sharing wants a higher one than no sharing,
since averaging the steps of many positions makes them smaller. A training that diverges is a result
like others: one that the search for a rate exists to find.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from circuitsim.checks import fields
from circuitsim.checks.fields import declare, same
from circuitsim.checks.validation import ParameterError, one_of
from circuitsim.checks.values import in_ms, is_time, ms
from circuitsim.public import own
from circuitsim.running.campaign import (
    NUMBER,
    Arrays,
    Campaign,
    Group,
    Groups,
    Layout,
    Progress,
    chosen_part,
    digest_of,
)
from circuitsim.vision import datasets, parallel
from circuitsim.vision.datasets import Dataset
from circuitsim.vision.evaluation import SCORES
from circuitsim.vision.networks import Architecture, Network
from circuitsim.vision.runs import Run
from circuitsim.vision.sharing import AWAKE, INSTANT, TIMES, Sharing, former
from circuitsim.vision.training import Training, check_images, split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__dir__ = own(__name__, "VARIANTS", "FURTHER")

VARIANTS = (
    "conv", "lc", "instant-1", "instant-10", "instant-100", "circuit-10", "inhibition_gated-10",
)  # fmt: skip
_ALL_SLEEPS = ("periods", "moments")  # what averaging has in common with sleep by a rule
_TIMES = {name: in_ms(getattr(Sharing(), name)) for name in TIMES}
FURTHER = 3  # times that rates are tried beyond either end of those given

_EPOCHS = ("variant", "padding", "seed", "epoch")
_LAYERS = (*_EPOCHS, "layer")
_VARIABLES = {
    **dict.fromkeys(("train_loss", "train_top1", "test_loss", "test_top1", "test_top5"), _EPOCHS),
    **dict.fromkeys(("snr_w", "snr_w_before_sleep"), _LAYERS),
    **dict.fromkeys(("seconds", "seconds_asleep"), _EPOCHS),
    "learning_rate": ("variant",),
    **dict.fromkeys(("trial_rate", "trial_top1"), ("variant", "trial")),
}


@dataclass(frozen=True)
class Variant:
    """What is compared.

    Parameters
    ----------
    name : str
        ``conv``; ``lc``, locally connected and never asleep; ``lc-x4``, the same with four crops of
        each image within a batch; or how locally connected layers share weights (``instant``,
        ``awake`` or the name of a rule) and the batches from one sleep to the next: ``instant-10``,
        ``circuit-10``.

    Raises
    ------
    ParameterError
        If it is none of these.
    """

    name: str

    def __post_init__(self) -> None:
        if re.fullmatch("(conv|lc)(-x[1-9][0-9]{0,3})?", self.name):
            return
        method, _, every = self.name.partition("-")
        form = (
            "must be conv, lc, lc-x4 (with 4 crops of each image), or how to share with the "
            "batches between sleeps, like instant-10"
        )
        if not method.isidentifier() or not re.fullmatch("[1-9][0-9]{0,8}", every):
            raise ParameterError("variants", form, self.name)
        try:
            _check_method(method)
        except ParameterError as error:
            raise ParameterError(
                "variants", f"{form}; how to share {error.rule}", self.name
            ) from None

    @property
    def connectivity(self) -> str:
        """As in `Architecture`."""
        return "conv" if self.name.partition("-")[0] == "conv" else "lc"

    @property
    def method(self) -> str | None:
        """As in `Sharing`; None without sleep."""
        method = self.name.partition("-")[0]
        return None if method in ("conv", "lc") else method

    @property
    def every(self) -> int | None:
        """Batches from one sleep to the next; None without sleep."""
        return None if self.method is None else int(self.name.partition("-")[2])

    @property
    def repetitions(self) -> int:
        """Crops of each image within a batch."""
        return 1 if self.method is not None else int(self.name.partition("-x")[2] or 1)


@lru_cache
def _check_method(method: str) -> None:
    Sharing(method)  # once a name, not for each of the many times that a variant is looked at


class Job(NamedTuple):
    """One training.

    Attributes
    ----------
    variant : str
    padding : int
        Of the crops.
    seed : int
    rate : float
        Learning rate.
    trial : bool
        Whether it is a short training for the choice of the learning rate.
    """

    variant: str
    padding: int
    seed: int
    rate: float
    trial: bool

    @property
    def name(self) -> str:
        """Name of its directory."""
        last = f"rate{self.rate:g}" if self.trial else f"seed{self.seed}"
        return f"{self.variant}_padding{self.padding}_{last}"

    def __str__(self) -> str:
        last = f"rate {self.rate:g}" if self.trial else f"seed {self.seed}"
        return f"{self.variant}, padding {self.padding}, {last}"


@dataclass(frozen=True)
class Comparison(Campaign[Job]):
    """All that determines the numbers of a comparison, but for the images.

    Parameters
    ----------
    variants : sequence of str
        See `Variant`.
    paddings : sequence of int
        Black pixels around an image before a crop is drawn. Learning rates are chosen with the
        first of them.
    seeds : int
        How many, from 0.
    dataset, network : str
    width : int, optional
        As in `Architecture`.
    first_conv : bool
        Keep the first layer of locally connected networks convolutional.
    epochs, batch_size : int
    rates : sequence of float
        Learning rates to choose from. If the lowest or highest is the best, others beyond it are
        tried, each by the list's last step lower or higher, up to three times.
    rate_epochs : int
        Length of the trainings by which rates are chosen.
    validation : float
        Share of the training images on which these are compared.
    schedule, momentum, sleep_length
        As in `Training`.
    sleep : mapping
        Fields of `Sharing` for variants that simulate sleep, ``tau`` and ``dt`` times or
        numbers of ms; ``border`` is among them. ``periods`` and ``moments`` are those of averaging,
        too.
    images : mapping
        Options of `datasets.load` that change the images, such as their size.
    loading : mapping
        Those that do not: where the images are (``data``), and how they are read. Not part of what
        determines the numbers.
    home : path, optional
        Directory that holds the trainings.

    Raises
    ------
    ParameterError
        If a value is out of range.
    """

    variants: tuple[str, ...] = declare(
        VARIANTS,
        "conv, lc (locally connected), or how lc shares weights (instant, awake, or a rule) and "
        "the batches from one sleep, or one with noise, to the next",
        "NAME",
    )
    paddings: tuple[int, ...] = declare(
        (0, 4),
        "black pixels added on every side of an image before a random crop of its size; learning "
        "rates are chosen with the first",
        "P",
    )
    seeds: int = declare(3, "trainings of each, with seeds 0 to T-1", "T", minimum=1)
    dataset: str = "cifar10"
    network: str = same(Architecture, "network")
    width: int | None = same(Architecture, "width")
    first_conv: bool = same(Architecture, "first_conv")
    epochs: int = same(Training, "epochs")
    batch_size: int = same(Training, "batch_size")
    rates: tuple[float, ...] = declare(
        (1e-3, 2e-3, 4e-3),
        "learning rates that each variant's is chosen from; further ones if the best is the "
        "lowest or the highest; one alone is used as it is",
        "RATE",
        above=0,
    )
    rate_epochs: int = declare(
        2, "epochs of the short trainings that choose the rate", "E", minimum=1
    )
    validation: float = declare(
        0.1,
        "share of the training images by which the rate is chosen; the network that is tested is "
        "trained on all",
        "SHARE",
        above=0,
        below=1,
    )
    schedule: str = same(
        Training,
        "schedule",
        text="how the learning rate changes: constant, cosine (to 0) or step (x 0.25 after half "
        "and three quarters of the epochs)",
    )
    momentum: float = same(
        Training,
        "momentum",
        default=0.9,
        text="share of the gradients before that each batch leaves in the memory of AdamW (beta_1)",
    )
    sleep_length: str = same(Training, "sleep_length")
    sleep: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)
    loading: Mapping[str, Any] = field(default_factory=dict, compare=False)
    home: Path | None = field(default=None, compare=False)
    # What only a result's file knows: how many rates were tried, and the names of layers.
    trials_made: int = field(default=0, compare=False)

    kind = "compare"
    called = "comparison"
    what = "the data of a comparison of classifiers"
    things = "trainings"
    adaptive = True
    format = ("circuitsim comparison", 1)
    grid = ("variants", "paddings")
    counted = ("seeds",)
    undefined = ("train", "validation", "test", "snr_w", "snr_w_before_sleep", "seconds",
                 "seconds_asleep")  # fmt: skip
    units: ClassVar[Mapping[str, tuple[str, str]]] = {
        "variant": ("how layers are connected and share weights", "1"),
        "padding": ("black pixels around an image before a crop is drawn", "1"),
        "seed": ("number of the training", "1"),
        "epoch": ("epochs trained", "1"),
        "layer": ("locally connected layer", "1"),
        "trial": ("number of the learning rate tried", "1"),
        "train_loss": ("cross-entropy during training", "nat"),
        "train_top1": ("top-1 accuracy during training", "1"),
        "test_loss": ("cross-entropy on test images", "nat"),
        "test_top1": ("top-1 accuracy on test images", "1"),
        "test_top5": ("top-5 accuracy on test images", "1"),
        "snr_w": ("SNR_w (Eq. 6), mean over pools", "1"),
        "snr_w_before_sleep": ("SNR_w before the epoch's last sleep", "1"),
        "seconds": ("time spent on the epoch", "s"),
        "seconds_asleep": ("of these, spent on sleeps", "s"),
        "learning_rate": ("learning rate chosen", "1"),
        "trial_rate": ("learning rate tried", "1"),
        "trial_top1": ("top-1 accuracy on validation images", "1"),
    }

    def __post_init__(self) -> None:
        fields.check(self, prefix="")
        if list(self.rates) != sorted(self.rates):
            raise ParameterError("rates", "must be in ascending order", self.rates)
        if not isinstance(self.sleep, Mapping):
            raise ParameterError("sleep", "must be a dict of fields of Sharing", self.sleep)
        sleep = {**self.sleep, "border": self.sleep.get("border", "asleep")}
        sleep = {n: float(in_ms(v)) if is_time(v) else v for n, v in sleep.items()}
        # A file from before there was such a choice describes the same comparison.
        usual = {name: fields.default(Sharing, name) for name in _ALL_SLEEPS} | _TIMES
        sleep = {n: v for n, v in sleep.items() if n not in usual or v != usual[n]}
        object.__setattr__(self, "sleep", sleep)
        one_of("dataset", self.dataset, datasets.NAMES)
        # What cannot be trained is said before anything starts.
        architecture = Architecture((32, 32, 3), 10, self.network, width=self.width)
        object.__setattr__(self, "width", architecture.width)
        if self.first_conv and not any(map(self._first_conv, self.variants)):
            raise ParameterError("first_conv", "has no effect where all variants are conv", True)
        for variant in self.variants:
            for padding in self.paddings:
                for trial in (True, False):
                    self.training(Job(variant, padding, 0, self.rates[0], trial))
            self.sharing(variant)

    @classmethod
    def from_json(cls, text: Any) -> Comparison:
        """Read what `to_json` wrote, or an earlier version.

        Raises
        ------
        ValueError
            If it is no such text, or a value is out of range.
        """
        try:
            content = json.loads(text)
            if "border" not in content["sleep"]:  # from before it was a field, with other names
                names = [name.partition("-") for name in content["variants"]]
                content["variants"] = [
                    former({"method": method})["method"] + dash + every
                    for method, dash, every in names
                ]
                content["sleep"]["border"] = "awake"
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"it describes no valid comparison: {error}") from None
        return super().from_json(json.dumps(content))

    # -- how a job trains --------------------------------------------------------------------------

    def training(self, job: Job) -> Training:
        """Return how a job trains."""
        settings: dict[str, Any] = {
            "epochs": self.rate_epochs if job.trial else self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": job.rate,
            "crop_padding": job.padding,
            "validation": self.validation if job.trial else 0.0,
            "share_every": Variant(job.variant).every,
            "seed": job.seed,
            "schedule": self.schedule,
            "momentum": self.momentum,
            "repetitions": Variant(job.variant).repetitions,
        }
        if "sleep_length" in self.heeded(job.variant):
            settings["sleep_length"] = self.sleep_length
        return Training(**settings)

    def sharing(self, variant: str) -> Sharing | None:
        """Return how a variant shares weights."""
        if variant not in self._sharings:
            self._sharings[variant] = self._sharing(variant)
        return self._sharings[variant]

    @cached_property
    def _sharings(self) -> dict[str, Sharing | None]:
        return {}  # that are known already: each is asked for by all trainings, and checks itself

    def _sharing(self, variant: str) -> Sharing | None:
        method = Variant(variant).method
        if method is None:
            return None
        given = dict(self.sleep)
        if method == INSTANT:
            given = {n: v for n, v in given.items() if n in _ALL_SLEEPS} | {"border": "asleep"}
        if method == AWAKE:
            given = {"border": given["border"]}
        given |= {name: given[name] * ms for name in _TIMES if name in given}
        return Sharing(method, **given)

    def heeded(self, variant: str) -> frozenset[str]:
        """Names of what says how to sleep that have an effect on a variant."""
        sharing = self.sharing(variant)
        if sharing is None:
            return frozenset()
        if sharing.method == INSTANT:
            return frozenset(_ALL_SLEEPS)
        return sharing.heeded

    def check_images(self, data: Dataset) -> None:
        """Refuse images on which the jobs could not be done; raises as `training.check_images`."""
        trials = len(self.rates) > 1  # they have fewer images than the others
        job = Job(self.variants[0], max(self.paddings), 0, self.rates[0], trials)
        training = self.training(job)
        check_images(training, split(data.train, training.validation, training.seed)[0])

    def check(self, store: Path) -> None:
        """Refuse images that do not do, and a directory with trainings of another comparison."""
        data = self._images()
        self.check_images(data)
        for job in self.tasks():
            self.describe_run(job, data).check_same(store / job.name)

    def directory(self, store: Path) -> Comparison:
        """Return this comparison with the directory that holds the trainings."""
        return replace(self, home=store.absolute())

    def _images(self) -> Dataset:
        options = {**self.images, **self.loading}
        return _loaded(self.dataset, json.dumps(options, default=str))

    def describe_run(self, job: Job, data: Dataset) -> Run:
        """Return the description of a job's training."""
        return Run.new(
            data, self.training(job), self.sharing(job.variant), network=self.network,
            connectivity=Variant(job.variant).connectivity, width=self.width,
            first_conv=self._first_conv(job.variant),
        )  # fmt: skip

    def _first_conv(self, variant: str) -> bool:
        """Whether a variant's first layer is convolutional in spite of the others."""
        return self.first_conv and Variant(variant).connectivity == "lc"

    # -- what is to be done ------------------------------------------------------------------------

    @property
    def parts(self) -> int:
        """One for each training that counts; a part chooses its variant's learning rate too."""
        return len(self.variants) * len(self.paddings) * self.seeds

    def final(self) -> list[tuple[str, int, int]]:
        """List all variants, paddings and seeds, in the order of the work.

        Seed by seed, so that what is there compares all variants as early as possible.
        """
        return [(v, p, s) for s in range(self.seeds) for p in self.paddings for v in self.variants]

    def tasks(
        self, done: Mapping[Job, Arrays] | None = None, parts: Sequence[int] | None = None
    ) -> list[Job]:
        """List the trainings that results so far make possible, in the order of the work."""
        done = done or {}
        final = self.final()
        if parts is not None:
            final = [final[chosen_part(number, len(final))] for number in parts]
        found: dict[Job, None] = {}
        for variant, padding, seed in final:
            found |= dict.fromkeys(self.trials(variant, done))
            chosen = self.rate(variant, done)
            if chosen is not None:
                found[Job(variant, padding, seed, chosen, False)] = None
        return list(found)

    def trials(self, variant: str, done: Mapping[Job, Arrays]) -> list[Job]:
        """List the short trainings of a variant that are needed, as far as results tell."""
        rates = list(self.rates)

        def jobs() -> list[Job]:
            return [Job(variant, self.paddings[0], 0, rate, True) for rate in rates]

        if len(rates) == 1:
            return []
        lower, higher = rates[0] / rates[1], rates[-1] / rates[-2]
        for _ in range(FURTHER):
            scores = [_score(done.get(job)) for job in jobs()]
            if None in scores:
                break
            best = int(np.argmax([s for s in scores if s is not None]))
            # Not both ends: a step away from one makes the other no end.
            if best == 0:
                rates.insert(0, _rounded(rates[0] * lower))
            elif best == len(rates) - 1:
                rates.append(_rounded(rates[-1] * higher))
            else:
                break
        return jobs()

    def rate(self, variant: str, done: Mapping[Job, Arrays]) -> float | None:
        """Return the learning rate chosen for a variant; None as long as it is open."""
        if len(self.rates) == 1:
            return self.rates[0]
        jobs = self.trials(variant, done)
        scores = [_score(done.get(job)) for job in jobs]
        known = [score for score in scores if score is not None]
        if len(known) < len(scores) or not max(known) > 0:
            return None
        return jobs[int(np.argmax(known))].rate

    def cost(self, task: Job) -> float:
        """Epochs."""
        return float(self.rate_epochs if task.trial else self.epochs)

    def run(self, tasks: Sequence[Job], progress: Progress | None = None) -> list[Arrays]:
        """Train, each in a directory of its own; go on with what is there."""
        return [self._train(job, progress) for job in tasks]

    def _train(self, job: Job, progress: Progress | None) -> Arrays:
        assert self.home is not None
        data = self._images()
        run, epochs = self.describe_run(job, data), self.training(job).epochs
        with parallel.threads(1):
            trained, diverged = run.carry_out(
                self.home / job.name,
                data,
                lambda p, of: progress(p.batches / (of.per_epoch * epochs)) if progress else None,
            )
        return self._condensed(job, trained.progress.history, diverged is not None)

    def _condensed(self, job: Job, history: Sequence[Mapping[str, Any]], diverged: bool) -> Arrays:
        """Put a history into arrays; what comes after a training has diverged is NaN."""
        result = {
            name: np.full(shape, np.nan)
            for name, (shape, dtype) in self.layout(job).items()
            if dtype == NUMBER
        }
        nothing = dict.fromkeys(self._layers(job.variant), math.nan)
        for epoch, row in enumerate(history):
            for name in result:
                value = row[name]
                if name.startswith("snr_w"):
                    value = list((value or nothing).values())
                result[name][epoch] = value
        return result | {"diverged": np.array([int(diverged)])}

    # -- how results are kept ----------------------------------------------------------------------

    def digest(self, task: Job) -> str:
        """Name of a training's result."""
        sharing = self.sharing(task.variant)
        training = asdict(self.training(task))
        # A result from before there was such a choice has the name that it had.
        more = {"first_conv": True} if self._first_conv(task.variant) else {}
        if self.momentum == fields.default(Comparison, "momentum"):
            training["momentum"] = None
        return digest_of(
            kind=self.kind, scheme=self.scheme, dataset=self.dataset, network=self.network,
            width=self.width, connectivity=Variant(task.variant).connectivity,
            training=training, sharing=repr(sharing), images=dict(self.images),
            **more,
        )  # fmt: skip

    def describe(self, task: Job) -> str:
        """Return the job as text."""
        return str(task)

    def layout(self, task: Job) -> Layout:
        """What a history says of each epoch."""
        epochs, layers = self.training(task).epochs, len(self._layers(task.variant))
        scores = ("train", "validation" if task.trial else "test")
        return {
            **dict.fromkeys(scores, ((epochs, len(SCORES)), NUMBER)),
            **dict.fromkeys(("snr_w", "snr_w_before_sleep"), ((epochs, layers), NUMBER)),
            **dict.fromkeys(("seconds", "seconds_asleep"), ((epochs,), NUMBER)),
            "diverged": ((1,), np.dtype("<i8")),
        }

    def _layers(self, variant: str) -> tuple[str, ...]:
        if Variant(variant).connectivity != "lc":
            return ()
        return _lc_layers(self.network, self.first_conv)

    def tell(self, task: Job, result: Arrays) -> str:
        """Say how accurate a network has become."""
        if result["diverged"][0]:
            return f"{task}: diverged at the rate {task.rate:g}"
        part = "validation" if task.trial else "test"
        train, other = (100 * result[p][-1, 1] for p in ("train", part))
        return f"{task}: {train:.1f} % training, {other:.1f} % {part}"

    # -- the file ----------------------------------------------------------------------------------

    @property
    def file_name(self) -> str:
        """Name of its files."""
        return "classifiers"

    @property
    def _axes(self) -> dict[str, Any]:
        layers = any(self._layers(variant) for variant in self.variants)
        return {
            "variant": self.variants,
            "padding": self.paddings,
            "seed": range(self.seeds),
            "epoch": range(1, self.epochs + 1),
            "layer": _lc_layers(self.network, self.first_conv) if layers else ("none",),
            "trial": range(self.trials_made),
        }

    def attributes(self) -> dict[str, Any]:
        """Return the comparison as text, and what only its results tell."""
        return {
            "comparison": self.to_json(),
            "layers": " ".join(self._axes["layer"]),
            "trials": self.trials_made,
        }

    @classmethod
    def from_attributes(
        cls, attributes: Mapping[str, Any], of_group: Callable[[str], Mapping[str, Any]]
    ) -> Comparison:
        """Return the comparison that a file describes."""
        found = cls.from_json(attributes["comparison"])
        found = replace(found, trials_made=int(attributes["trials"]))
        if str(attributes["layers"]).split() != list(found._axes["layer"]):
            raise ValueError("it describes other layers than its network has")
        return found

    def complete(self, done: Mapping[Job, Arrays]) -> Comparison:
        """Return this comparison with what its results tell of its file."""
        tried = [len(self.trials(variant, done)) for variant in self.variants]
        return replace(self, trials_made=max(1, *tried))

    def groups(self) -> dict[str, Group]:
        """All in the root."""
        return {"": Group(self._axes, _VARIABLES)}

    def collect(self, read: Callable[[Job], Arrays]) -> Iterator[tuple[str, Arrays, str]]:
        """Put the results of all trainings together; what is missing is NaN."""
        axes = self._axes
        numbers = {
            name: np.full([len(axes[d]) for d in dims], np.nan) for name, dims in _VARIABLES.items()
        }
        done = {job: read(job) for job in self._finished(read)}
        places = {
            name: {value: n for n, value in enumerate(axes[name])}
            for name in ("variant", "padding", "seed")
        }
        for job, result in done.items():
            if job.trial:
                continue
            place = tuple(places[name][getattr(job, name)] for name in places)
            for part in ("train", "test"):
                for score, values in zip(SCORES, result[part].T, strict=True):
                    if f"{part}_{score}" in numbers:
                        numbers[f"{part}_{score}"][place] = values
            for name in ("seconds", "seconds_asleep"):
                numbers[name][place] = result[name]
            for name in ("snr_w", "snr_w_before_sleep"):
                if result[name].shape[1]:
                    numbers[name][place] = result[name]
        for v, variant in enumerate(self.variants):
            rate = self.rate(variant, done)
            numbers["learning_rate"][v] = np.nan if rate is None else rate
            for n, job in enumerate(self.trials(variant, done)):
                accuracy = _score(done.get(job))
                numbers["trial_rate"][v, n] = job.rate
                numbers["trial_top1"][v, n] = np.nan if accuracy is None else accuracy
        yield "", numbers, "Image classifiers that share weights, and others"

    # -- what came out -----------------------------------------------------------------------------

    def outline(self) -> list[tuple[str, str]]:
        """Say what would be trained."""
        rates = ", ".join(f"{rate:g}" for rate in self.rates)
        chosen = f" chosen from {rates} in {self.rate_epochs} epochs" if len(self.rates) > 1 else ""
        first = ", first layer conv" if self.first_conv else ""
        return [
            ("variants", " ".join(self.variants)),
            ("paddings", " ".join(map(str, self.paddings))),
            ("seeds", str(self.seeds)),
            ("network", f"{self.network}, width {self.width}, on {self.dataset}{first}"),
            ("epochs", f"{self.epochs}, batches of {self.batch_size}"),
            ("rates", rates if not chosen else chosen.strip()),
        ]

    def pilot(self, tasks: Sequence[Job], jobs: int) -> tuple[float, float]:
        """Time some batches of one training of each kind of layer, and of those that sleep.

        Trainings whose learning rate is not chosen yet are counted too.
        """
        data = self._images()
        finals = [Job(v, p, s, self.rates[0], False) for v, p, s in self.final()]
        left = list(tasks) + [
            job
            for job in finals
            if not any(t[:3] == job[:3] and not t.trial for t in tasks)
            and any(t.variant == job.variant and t.trial for t in tasks)
        ]
        per_epoch: dict[str, float] = {}
        began = time.monotonic()
        with parallel.threads(1):
            for variant in dict.fromkeys(job.variant for job in left):
                job = next(job for job in left if job.variant == variant)
                per_epoch[variant] = self.describe_run(job, data).trainer(data).seconds_per_epoch()
        once = time.monotonic() - began
        total = sum(self.cost(job) * per_epoch[job.variant] for job in left)
        return once, total / max(min(jobs, len(left)), 1)

    def table(self, groups: Groups) -> str:
        """Return what of the table fits a terminal."""
        from circuitsim.studies import comparison_report as report

        return report.as_text(report.rows(groups[""]), self.seeds)

    def so_far(self, read: Callable[[Job], Arrays | None]) -> Iterator[str]:
        """Give the table of the trainings that are finished."""
        done = {job: found for job in self._finished(read) if (found := read(job)) is not None}
        if not done:
            return
        made = self.complete(done)
        from circuitsim.running.results import labelled

        for name, numbers, title in made.collect(lambda job: done[job]):
            dataset = labelled(made, made.groups()[name], numbers, title)
            yield from made.table({"": dataset}).splitlines()

    def _finished(self, read: Callable[[Job], Arrays | None]) -> list[Job]:
        """List the trainings that `read` has results of; it may raise KeyError for others."""
        done: dict[Job, Arrays] = {}
        while True:
            new = {}
            for job in self.tasks(done):
                if job not in done:
                    try:
                        found = read(job)
                    except KeyError:
                        found = None
                    if found is not None:
                        new[job] = found
            if not new:
                return list(done)
            done |= new

    def caption(self, groups: Groups, command_line: str) -> str:
        """Describe the figure, its settings and its table, as Markdown."""
        from circuitsim.studies import comparison_report as report

        return report.caption(self, groups[""], command_line)

    def draw(self, groups: Groups) -> Figure:
        """Draw accuracies and SNRs."""
        from circuitsim import plots

        return plots.classifiers(groups[""])

    def further_files(self, groups: Groups) -> dict[str, str]:
        """The table for other programs."""
        from circuitsim.studies import comparison_report as report

        return {".csv": report.as_csv(report.rows(groups[""]))}

    def failed(self, groups: Groups) -> list[str]:
        """Which final trainings have diverged, or could not begin for want of a learning rate."""
        last, lines = groups[""]["test_top1"].isel(epoch=-1), []
        for variant, padding, seed in self.final():
            if np.isnan(last.sel(variant=variant, padding=padding, seed=seed)):
                rate = float(groups[""]["learning_rate"].sel(variant=variant))
                why = f"diverged at the rate {rate:g}" if rate > 0 else "every rate tried diverged"
                lines.append(f"{variant}, padding {padding}, seed {seed}: {why}")
        return lines

    def notes(self, groups: Groups) -> list[str]:
        """Which trainings that were to choose a rate have diverged, which is what they are for."""
        data = groups[""]
        wild = [
            f"{variant} at {float(rate):g}"
            for variant in self.variants
            for rate, score in zip(
                data["trial_rate"].sel(variant=variant).to_numpy(),
                data["trial_top1"].sel(variant=variant).to_numpy(), strict=True,
            )
            if score == 0
        ]  # fmt: skip
        return [f"diverged in the search for a learning rate: {', '.join(wild)}"] if wild else []


@lru_cache(1)
def _loaded(name: str, options: str) -> Dataset:
    return datasets.load(name, **json.loads(options))


@lru_cache
def _lc_layers(network: str, first_conv: bool) -> tuple[str, ...]:
    """Names of a network's locally connected layers, which depend on nothing else."""
    architecture = Architecture((32, 32, 3), 10, network, "lc", 1, first_conv)
    return tuple(Network(architecture).lc_layers())


def _score(result: Arrays | None) -> float | None:
    """Accuracy on validation images; none is worse than that of a training that diverged."""
    if result is None:
        return None
    score = float(result["validation"][-1, 1])
    return 0.0 if result["diverged"][0] or not math.isfinite(score) else score


def _rounded(rate: float) -> float:
    return float(f"{rate:.6g}")
