"""Networks that share weights, or do not, compared: which trainings that takes, and their results.

Each variant is trained with crops of every padding and with every seed, on all training images;
what counts is the accuracy on test images after the last epoch. Its learning rate is the one that
did best on validation images in short trainings before: sharing wants a higher one than no sharing,
since averaging the steps of many positions makes them smaller.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circuitsim import measures
from circuitsim.public import own
from circuitsim.validation import ParameterError, dimensionless, in_range, integer, one_of
from circuitsim.vision import checkpoints
from circuitsim.vision.datasets import NAMES, Dataset
from circuitsim.vision.evaluation import SCORES
from circuitsim.vision.networks import Architecture
from circuitsim.vision.runs import Run
from circuitsim.vision.sharing import INSTANT, Sharing, former
from circuitsim.vision.training import Progress, Training, check_images, history, split

__dir__ = own(__name__, "FURTHER", "VARIABLES", "VARIANTS")

VARIANTS = (
    "conv", "lc", "instant-1", "instant-10", "instant-100", "circuit-10", "inhibition_gated-10",
)  # fmt: skip
FURTHER = 3  # times that rates are tried beyond either end of those given
_EPOCHS = ("variant", "padding", "seed", "epoch")
VARIABLES = {
    "train_loss": (_EPOCHS, "cross-entropy during training", "nat"),
    "train_top1": (_EPOCHS, "top-1 accuracy during training", "1"),
    "test_loss": (_EPOCHS, "cross-entropy on test images", "nat"),
    "test_top1": (_EPOCHS, "top-1 accuracy on test images", "1"),
    "test_top5": (_EPOCHS, "top-5 accuracy on test images", "1"),
    "snr_w": ((*_EPOCHS, "layer"), "SNR_w (Eq. 6), mean over pools", "1"),
    "snr_w_before_sleep": ((*_EPOCHS, "layer"), "SNR_w before the epoch's last sleep", "1"),
    "seconds": (_EPOCHS, "time spent on the epoch", "s"),
    "seconds_asleep": (_EPOCHS, "of these, spent on sleeps", "s"),
    "learning_rate": (("variant",), "learning rate chosen", "1"),
    "trial_rate": (("variant", "trial"), "learning rate tried", "1"),
    "trial_top1": (("variant", "trial"), "top-1 accuracy on validation images", "1"),
}


@dataclass(frozen=True)
class Variant:
    """What is compared.

    Parameters
    ----------
    name : str
        ``conv``; ``lc``, locally connected and never asleep; or how locally connected layers share
        weights (``instant`` or the name of a rule) and the batches from one sleep to the next:
        ``instant-10``, ``circuit-10``.

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
        form = "must be conv, lc, or how to share with the batches between sleeps, like instant-10"
        if not method.isidentifier() or not re.fullmatch("[1-9][0-9]{0,8}", every):
            raise ParameterError("variants", form, self.name)
        try:
            Sharing(method)
        except ParameterError as error:
            raise ParameterError(
                "variants", f"{form}; how to share {error.rule}", self.name
            ) from None

    @property
    def connectivity(self) -> str:
        """As in `Architecture`."""
        return "conv" if self.name == "conv" else "lc"

    @property
    def method(self) -> str | None:
        """As in `Sharing`; None without sleep."""
        return None if self.name in ("conv", "lc") else self.name.partition("-")[0]

    @property
    def every(self) -> int | None:
        """Batches from one sleep to the next; None without sleep."""
        return None if self.method is None else int(self.name.partition("-")[2])


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
        Fields of `Sharing` for variants that simulate sleep; ``border`` is among them.

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
                shown = tuple(v.name if isinstance(v, Variant) else v for v in values)
                raise ParameterError(option, "must be different values, at least one", shown)
        integer("seeds", self.seeds, minimum=1)
        for rate in self.rates:
            in_range("rates", dimensionless("rates", rate), rate, above=0)
        if list(self.rates) != sorted(self.rates):
            raise ParameterError("rates", "must be in ascending order", self.rates)
        integer("rate_epochs", self.rate_epochs, minimum=1)
        object.__setattr__(
            self, "sleep", {**self.sleep, "border": self.sleep.get("border", "asleep")}
        )
        in_range("validation", dimensionless("validation", self.validation), self.validation,
                 above=0, below=1)  # fmt: skip
        one_of("dataset", self.dataset, NAMES)
        # What cannot be trained is said before anything starts.
        architecture = Architecture((32, 32, 3), 10, self.network, width=self.width)
        object.__setattr__(self, "width", architecture.width)
        for variant in self.variants:
            for padding in self.paddings:
                for trial in (True, False):
                    job = Job(variant, padding, 0, self.rates[0], trial)
                    self.training(job)
            self.sharing(variant)

    @classmethod
    def from_json(cls, text: str) -> Comparison:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError, TypeError, KeyError
            If it is no such text, or a value is out of range.
        """
        content = json.loads(text)
        names = [name.partition("-") for name in content["variants"]]
        if "border" not in content["sleep"]:  # from before it was a field, with other names
            names = [(former({"method": m})["method"], dash, every) for m, dash, every in names]
            content["sleep"]["border"] = "awake"
        content["variants"] = tuple(Variant("".join(parts)) for parts in names)
        for name in ("paddings", "rates"):
            content[name] = tuple(content[name])
        return cls(**content)

    def to_json(self) -> str:
        """Return a text from which `from_json` makes an equal comparison."""
        return json.dumps(asdict(self) | {"variants": [v.name for v in self.variants]})

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

    def check_images(self, data: Dataset) -> None:
        """Refuse images on which the jobs could not be done; raises as `training.check_images`."""
        trials = len(self.rates) > 1  # they have fewer images than the others
        job = Job(self.variants[0], max(self.paddings), 0, self.rates[0], trials)
        training = self.training(job)
        check_images(training, split(data.train, training.validation, training.seed)[0])

    def sharing(self, variant: Variant) -> Sharing | None:
        """Return how a variant shares weights."""
        if variant.method is None:
            return None
        return Sharing(variant.method, **(self.sleep if variant.method != INSTANT else {}))

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

    def total(self, results: Mapping[str, Result]) -> int:
        """Epochs of all jobs, as far as results tell."""
        trials = sum(len(self.trials(variant, results)) for variant in self.variants)
        return trials * self.rate_epochs + len(self.final()) * self.epochs

    def left(self, results: Mapping[str, Result]) -> int:
        """Epochs of those jobs that are not over."""
        names = {Job(v, p, s, 0.0, False).name for v, p, s in self.final()}
        names_of_trials = {job.name for v in self.variants for job in self.trials(v, results)}
        return len(names - set(results)) * self.epochs + (
            len(names_of_trials - set(results)) * self.rate_epochs
        )

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
        mine = {
            "dataset": self.dataset, "network": self.network, "width": self.width,
            "connectivity": job.variant.connectivity,
            **asdict(self.training(job)), **_fields(self.sharing(job.variant)),
        }  # fmt: skip
        its = {
            "dataset": run.dataset, "network": run.architecture.network,
            "width": run.architecture.width, "connectivity": run.architecture.connectivity,
            **asdict(run.training), **_fields(run.sharing),
        }  # fmt: skip
        for name, expected in mine.items():
            if its.get(name) != expected:
                raise ParameterError(
                    "runs",
                    f"{job.name} in it is of another comparison, with the {name.replace('_', ' ')} "
                    f"{its.get(name)} and not {expected}; name another directory",
                    str(directory.parent),
                )


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
    if content is None:
        return None
    try:
        progress = Progress(**content)
        if progress.finished is not True:
            return None
        if not progress.history or "test_top1" not in history(progress.history):
            raise ValueError("its history says nothing of test images")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise checkpoints.damaged(directory / checkpoints.ARRAYS, error) from None
    return Result(progress.history)


def condensed(comparison: Comparison, results: Mapping[str, Result]) -> xr.Dataset:
    """Put the results of all trainings into one Dataset.

    Parameters
    ----------
    comparison : Comparison
        What was compared.
    results : mapping
        By the names of jobs; what is missing is NaN.

    Returns
    -------
    xarray.Dataset
        Over variant, padding, seed, epoch and layer the variables of a training's history;
        ``learning_rate`` over variant; and over variant and trial, those that were tried
        (``trial_rate``) and what they led to (``trial_top1``). In the attributes, ``comparison``.
    """
    finals = {(v, p, s): Job(v, p, s, 0.0, False).name for v, p, s in comparison.final()}
    rows = {key: results[name].rows for key, name in finals.items() if name in results}
    layers = list(dict.fromkeys(la for r in rows.values() for row in r for la in row["snr_w"]))
    trials = [comparison.trials(variant, results) for variant in comparison.variants]
    coordinates: dict[str, Any] = {
        "variant": [v.name for v in comparison.variants],
        "padding": list(comparison.paddings),
        "seed": np.arange(comparison.seeds),
        "epoch": np.arange(1, comparison.epochs + 1),
        "layer": layers or ["none"],
        "trial": np.arange(max(1, *map(len, trials))),
    }
    sizes = {name: len(values) for name, values in coordinates.items()}
    dataset = xr.Dataset(
        {
            name: (
                dims,
                np.full([sizes[d] for d in dims], np.nan),
                {"long_name": label, "units": u},
            )
            for name, (dims, label, u) in VARIABLES.items()
        },
        coordinates,
        {"comparison": comparison.to_json()},
    )
    for (variant, padding, seed), of_run in rows.items():
        place = {"variant": variant.name, "padding": padding, "seed": seed}
        for epoch, row in enumerate(of_run, 1):
            where = {**place, "epoch": epoch}
            for part in ("train", "test"):
                for score, value in zip(SCORES, row[part], strict=True):
                    if f"{part}_{score}" in VARIABLES:
                        dataset[f"{part}_{score}"].loc[where] = value
            for name in ("seconds", "seconds_asleep"):
                dataset[name].loc[where] = row[name]
            for name in ("snr_w", "snr_w_before_sleep"):
                for layer, value in row[name].items():
                    dataset[name].loc[{**where, "layer": layer}] = value
    for variant, jobs in zip(comparison.variants, trials, strict=True):
        chosen = comparison.rate(variant, results)
        dataset["learning_rate"].loc[{"variant": variant.name}] = chosen or np.nan
        for n, job in enumerate(jobs):
            tried = {"variant": variant.name, "trial": n}
            dataset["trial_rate"].loc[tried] = job.rate
            accuracy = _score(results.get(job.name))
            dataset["trial_top1"].loc[tried] = np.nan if accuracy is None else accuracy
    return dataset


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    variant : str
    padding : int
    seeds : int
        How many trainings it is about.
    rate : float
        Learning rate.
    test, spread : float
        Top-1 accuracy on test images after the last epoch, mean and standard deviation over seeds.
    train : float
        That on training images, during the last epoch.
    gap : float
        Share of the gap between lc and conv that the variant closes, by the means over the seeds
        that all three have; NaN if conv is not better than lc.
    snr_before : float
        SNR_w before the last sleep of an epoch, geometric mean over layers, seeds and epochs.
    snr : float
        SNR_w in the end, geometric mean over layers and seeds.
    seconds : float
        Of the fastest epoch, which other work on the machine disturbed least.
    asleep : float
        Share of an epoch's time spent on sleeps, the median over epochs and seeds.
    """

    variant: str
    padding: int
    seeds: int
    rate: float
    test: float
    spread: float
    train: float
    gap: float
    snr_before: float
    snr: float
    seconds: float
    asleep: float


def table(dataset: xr.Dataset) -> list[Row]:
    """Summarise each variant and padding of `condensed`, by the trainings that are finished."""
    return [
        _row(dataset.sel(variant=variant, padding=padding), dataset.sel(padding=padding))
        for padding in dataset["padding"].to_numpy()
        for variant in dataset["variant"].to_numpy()
    ]


def _row(point: xr.Dataset, all_variants: xr.Dataset) -> Row:
    last = point.isel(epoch=-1)
    test = last["test_top1"].to_numpy()
    there = np.isfinite(test)
    return Row(
        str(point["variant"].item()),
        int(point["padding"]),
        int(there.sum()),
        float(point["learning_rate"]),
        float(test[there].mean()) if there.any() else math.nan,
        float(test[there].std(ddof=1)) if there.sum() > 1 else math.nan,
        float(last["train_top1"].to_numpy()[there].mean()) if there.any() else math.nan,
        _gap(all_variants.isel(epoch=-1)["test_top1"], str(point["variant"].item())),
        geometric_mean(point["snr_w_before_sleep"].to_numpy()),
        geometric_mean(last["snr_w"].to_numpy()),
        float(point["seconds"].min()),
        float((point["seconds_asleep"] / point["seconds"]).median()),
    )


def _gap(accuracy: xr.DataArray, variant: str) -> float:
    names = accuracy["variant"].to_numpy()
    if variant in ("conv", "lc") or not {"conv", "lc"} <= set(names):
        return math.nan
    three = accuracy.sel(variant=["lc", variant, "conv"]).transpose("seed", "variant").to_numpy()
    three = three[np.isfinite(three).all(axis=1)]
    if not len(three):
        return math.nan
    lc, this, conv = three.mean(axis=0)
    return float((this - lc) / (conv - lc)) if conv > lc else math.nan


def geometric_mean(values: NDArray[np.float64]) -> float:
    """Geometric mean of SNRs, up to `measures.SAME_SNR_W` each; NaN if none is a number."""
    values = np.minimum(values[~np.isnan(values)], measures.SAME_SNR_W)
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(values).mean())) if values.size else math.nan


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


def _fields(sharing: Sharing | None) -> dict[str, Any]:
    fields = {"method": None} if sharing is None else asdict(sharing)
    return {f"sharing's {name}": repr(value) for name, value in fields.items()}
