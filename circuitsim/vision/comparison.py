"""Networks that share weights, or do not, compared: which trainings that takes, and their results.

Each variant is trained with crops of every padding and with every seed, on all training images, and
tested once, after its last epoch. Its learning rate is the one that did best on validation images in
short trainings before: sharing wants a higher one than no sharing, since averaging the steps of many
positions makes them smaller.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from circuitsim.validation import ParameterError, dimensionless, in_range, integer, one_of
from circuitsim.vision import checkpoints
from circuitsim.vision.networks import Architecture
from circuitsim.vision.runs import Run
from circuitsim.vision.sharing import METHODS, Sharing
from circuitsim.vision.training import SCORES, Training

VARIANTS = (
    "conv", "lc", "instant-1", "instant-10", "instant-100", "circuit-10", "gated-10",
)  # fmt: skip
FURTHER = 3  # times that rates are tried beyond either end of those given


@dataclass(frozen=True)
class Variant:
    """What is compared.

    Parameters
    ----------
    name : str
        ``conv``; ``lc``, locally connected and never asleep; or how locally connected layers share
        weights, and the batches from one sleep to the next: ``instant-10``, ``circuit-10``.

    Raises
    ------
    ParameterError
        If it is none of these.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name in ("conv", "lc"):
            return
        method, _, every = self.name.partition("-")
        methods = [m for m in METHODS if m != "none"]
        if method not in methods or not (every.isascii() and every.isdigit() and int(every) > 0):
            raise ParameterError(
                "variants",
                f"must be conv, lc, or {', '.join(methods)} with the batches from one sleep to the "
                "next, like instant-10",
                self.name,
            )

    @property
    def connectivity(self) -> str:
        """As in `Architecture`."""
        return "conv" if self.name == "conv" else "lc"

    @property
    def method(self) -> str:
        """As in `Sharing`."""
        return "none" if self.name in ("conv", "lc") else self.name.partition("-")[0]

    @property
    def every(self) -> int | None:
        """Batches from one sleep to the next; None without sleep."""
        return None if self.method == "none" else int(self.name.partition("-")[2])


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes
    ----------
    variant : Variant
    padding : int
        Of the crops.
    seed : int
    rate : float
        Learning rate.
    trial : bool
        Whether it is a short training for the choice of the learning rate.
    """

    variant: Variant
    padding: int
    seed: int
    rate: float
    trial: bool

    @property
    def name(self) -> str:
        """Name of its directory."""
        last = f"rate{self.rate:g}" if self.trial else f"seed{self.seed}"
        return f"{self.variant.name}_padding{self.padding}_{last}"


@dataclass(frozen=True)
class Comparison:
    """All that determines the numbers of a comparison, but for the images.

    Parameters
    ----------
    variants : tuple of Variant
    paddings : tuple of int
        Black pixels around an image before a crop is drawn. Learning rates are chosen with the
        first of them.
    seeds : int
        How many, from 0.
    dataset, network : str
    width : int, optional
        As in `Architecture`.
    epochs, batch_size : int
    rates : tuple of float
        Learning rates to choose from. If the lowest or highest is the best, others beyond it are
        tried, each by the list's last step lower or higher, up to three times.
    rate_epochs : int
        Length of the trainings by which rates are chosen.
    validation : float
        Share of the training images on which these are compared.
    sleep : mapping
        Fields of `Sharing` for variants that simulate sleep.

    Raises
    ------
    ParameterError
        If a value is out of range.
    """

    variants: tuple[Variant, ...] = tuple(map(Variant, VARIANTS))
    paddings: tuple[int, ...] = (0, 4)
    seeds: int = 3
    dataset: str = "cifar10"
    network: str = "small"
    width: int | None = None
    epochs: int = 10
    batch_size: int = 128
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    rate_epochs: int = 2
    validation: float = 0.1
    sleep: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("variants", "paddings", "rates"):
            values = getattr(self, name)
            option = name if name != "paddings" else "crop_padding"
            if len(set(values)) < len(values) or not values:
                raise ParameterError(option, "must be different values, at least one", values)
        integer("seeds", self.seeds, minimum=1)
        for rate in self.rates:
            in_range("rates", dimensionless("rates", rate), rate, above=0)
        if list(self.rates) != sorted(self.rates):
            raise ParameterError("rates", "must be in ascending order", self.rates)
        integer("rate_epochs", self.rate_epochs, minimum=1)
        in_range("validation", dimensionless("validation", self.validation), self.validation,
                 above=0, below=1)  # fmt: skip
        one_of("dataset", self.dataset, ("digits", "cifar10", "cifar100"))
        # What cannot be trained is said before anything starts.
        architecture = Architecture((32, 32, 3), 10, self.network, width=self.width)
        object.__setattr__(self, "width", architecture.width)
        for variant in self.variants:
            for padding in self.paddings:
                for trial in (True, False):
                    job = Job(variant, padding, 0, self.rates[0], trial)
                    self.training(job)
            self.sharing(variant)

    def training(self, job: Job) -> Training:
        """Return how a job trains."""
        return Training(
            epochs=self.rate_epochs if job.trial else self.epochs,
            batch_size=self.batch_size,
            learning_rate=job.rate,
            crop_padding=job.padding,
            validation=self.validation if job.trial else 0.0,
            share_every=job.variant.every,
            seed=job.seed,
        )

    def sharing(self, variant: Variant) -> Sharing | None:
        """Return how a variant shares weights."""
        if variant.method == "none":
            return None
        return Sharing(variant.method, **(self.sleep if variant.method != "instant" else {}))

    def next(self, results: Mapping[str, Result]) -> list[Job]:
        """List the jobs that can be started now, in the order in which to do so.

        Parameters
        ----------
        results : mapping
            Those that are over, by the jobs' names.
        """
        # Seed by seed, so that what is there compares all variants as early as possible.
        found: dict[str, Job] = {}
        for seed in range(self.seeds):
            for padding in self.paddings:
                for variant in self.variants:
                    chosen = self.rate(variant, results)
                    jobs = self.trials(variant, results)
                    if chosen is not None:
                        jobs = [Job(variant, padding, seed, chosen, False)]
                    found |= {job.name: job for job in jobs}
        return [job for name, job in found.items() if name not in results]

    def trials(self, variant: Variant, results: Mapping[str, Result]) -> list[Job]:
        """List the short trainings of a variant that are needed, as far as results tell."""
        rates = list(self.rates)

        def jobs() -> list[Job]:
            return [Job(variant, self.paddings[0], 0, rate, True) for rate in rates]

        if len(rates) == 1:
            return []
        lower, higher = rates[0] / rates[1], rates[-1] / rates[-2]
        for _ in range(FURTHER):
            scores = [_score(results.get(job.name)) for job in jobs()]
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

    def rate(self, variant: Variant, results: Mapping[str, Result]) -> float | None:
        """Return the learning rate chosen for a variant; None as long as it is open."""
        if len(self.rates) == 1:
            return self.rates[0]
        jobs = self.trials(variant, results)
        scores = [_score(results.get(job.name)) for job in jobs]
        known = [score for score in scores if score is not None]
        if len(known) < len(scores) or not max(known) > 0:
            return None
        return jobs[int(np.argmax(known))].rate

    def final(self) -> list[tuple[Variant, int, int]]:
        """List all variants, paddings and seeds, in the order of the work."""
        return [(v, p, s) for s in range(self.seeds) for p in self.paddings for v in self.variants]

    def check(self, job: Job, directory: Path) -> None:
        """Refuse a directory that holds another training than a job's.

        Raises
        ------
        ParameterError
        """
        run = Run.read(directory)
        mine = (
            self.dataset, self.network, self.width, job.variant.connectivity, self.training(job),
            _fields(self.sharing(job.variant)),
        )  # fmt: skip
        its = (
            run.dataset, run.architecture.network, run.architecture.width,
            run.architecture.connectivity, run.training, _fields(run.sharing),
        )  # fmt: skip
        for expected, given in zip(mine, its, strict=True):
            if expected != given:
                raise ParameterError(
                    "runs", f"{job.name} in it is of another comparison: it has {given}, not "
                    f"{expected}; name another directory", str(directory.parent),
                )  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What came of a training.

    Attributes
    ----------
    rows : list of dict
        The history, one for each epoch; up to where it diverged.
    diverged : bool
    """

    rows: list[dict[str, Any]]
    diverged: bool = False


def read(directory: Path) -> Result | None:
    """Read the history of a finished training; None if it is not finished.

    Raises
    ------
    ParameterError
        If it is damaged.
    """
    content = checkpoints.read_progress(directory) if directory.is_dir() else None
    if content is None or content.get("finished") is not True:
        return None
    try:
        rows = list(content["history"])
        for row in rows:
            for part in ("train", "test"):
                if len(list(map(float, row[part]))) != len(SCORES):
                    raise ValueError("its history has other columns")
            for name in ("snr_w", "snr_w_before_sleep"):
                for value in row[name].values():
                    float(value)
            for name in ("seconds", "seconds_asleep"):
                float(row[name])
        if not rows:
            raise ValueError("its history is empty")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise checkpoints.damaged(directory / checkpoints.ARRAYS, error) from None
    return Result(rows)


def _score(result: Result | None) -> float | None:
    """Accuracy on validation images; none is worse than that of a training that diverged."""
    if result is None:
        return None
    if result.diverged or "validation" not in result.rows[-1]:
        return 0.0
    score = float(result.rows[-1]["validation"][1])
    return score if math.isfinite(score) else 0.0


def _rounded(rate: float) -> float:
    return float(f"{rate:.6g}")


def _fields(sharing: Sharing | None) -> Any:
    from dataclasses import asdict

    return None if sharing is None else {n: repr(v) for n, v in asdict(sharing).items()}
