"""Training of image classifiers: awake by gradient descent, asleep by sharing weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circuitsim.checks import fields, interrupts
from circuitsim.checks.fields import declare
from circuitsim.checks.validation import ParameterError, dimensionless, integer
from circuitsim.files import netcdf
from circuitsim.public import own
from circuitsim.vision import checkpoints, ranks
from circuitsim.vision.augmentation import augmented, prepared
from circuitsim.vision.awake import Disturbance, check_rate
from circuitsim.vision.datasets import ImageSet
from circuitsim.vision.evaluation import SCORES, evaluate, hits
from circuitsim.vision.layers import Array, BatchNorm2D, cross_entropy
from circuitsim.vision.networks import Network
from circuitsim.vision.optimisers import SGD, AdamW, Optimiser, cosine_factor, step_factor
from circuitsim.vision.sharing import AWAKE, Sharing, layer_snr_w

__dir__ = own(__name__, "OPTIMISERS", "SCHEDULES")

OPTIMISERS: dict[str, type[Optimiser]] = {"adamw": AdamW, "sgd": SGD}
SCHEDULES = ("constant", "cosine", "step")
SLEEP_LENGTHS = ("learning", "constant")
HISTORY = "history.nc"
MEASURED = 32  # batches over which the statistics of batch norm are averaged
# Keys of the random numbers' seeds beside the user's.
_INITIAL, _SPLIT, _ORDER, _AUGMENTATION, _SLEEP, _STATISTICS = range(6)


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Parameters
    ----------
    epochs : int
        How often every image is seen (with ``repetitions`` crops each time); a remainder that fills
        no batch is left out, another one in each epoch.
    batch_size : int
        Images in a batch, repetitions included.
    optimiser : {"adamw", "sgd"}
    learning_rate : float, optional
        That of the first batch; if None 0.001 with AdamW and 0.1 with SGD.
    weight_decay : float, optional
        Pull of weights to 0, see `optimisers`; if None 0.01 with AdamW and 0.0005 with SGD.
    momentum : float, optional
        Share of the gradients before that a batch leaves in the optimiser's memory (beta_1 of
        AdamW); 0.9 if None.
    schedule : {"constant", "cosine", "step"}
        How the learning rate changes: not, to 0 along half a cosine, or by ``factor`` when each of
        ``milestones`` epochs are over.
    milestones : tuple of int, optional
        Half and three quarters of ``epochs``, rounded up, if None or empty.
    factor : float
    crop_padding : int
        Black rows and columns added on every side of an image before a crop is drawn.
    crop_size : int, optional
        Rows and columns of the crops that the network is trained on; it is tested with the middle
        of images. By default crops have the size of images.
    crop_scale : float, optional
        Smallest share of an image's area that a crop may have: crops are of random size and
        proportions (up to 4 : 3), and resized. By default they are not.
    flips : bool
        Mirror every image left and right with a probability of 1/2.
    repetitions : int
        Crops of each image within a batch; ``batch_size`` must be a multiple.
    validation : float
        Share of the training images that is set aside for validation, of each class alike.
    share_every : int, optional
        Batches from one sleep to the next, or from one with noise to the next where weights are
        shared awake; None if they are not shared.
    sleep_length : {"learning", "constant"}
        How many of its presentations a simulated sleep has (what the rate of learning from noise
        is, for weights that are shared awake): in proportion to the mean learning rate
        since the last one, all where that is ``learning_rate``; or all of them always. (As the
        learning rate falls, training brings less of what a sleep is to remove, and repairs less of
        what else it does.)
    seed : int
        Fixes weights, split, order, crops and sleeps.

    Raises
    ------
    ParameterError
        If a value is out of range.
    """

    epochs: int = declare(10, "epochs of training", "E", minimum=1)
    batch_size: int = declare(128, "images in a batch, repetitions included", "B", minimum=2)
    optimiser: str = declare("adamw", "adamw or sgd", "NAME", choices=lambda: OPTIMISERS)
    learning_rate: float | None = declare(
        None, "learning rate of the first batch; by default 0.001 with adamw, 0.1 with sgd", "RATE",
        above=0,
    )  # fmt: skip
    weight_decay: float | None = declare(
        None,
        "pull of weights to 0, as a factor of the weights; by default 0.01 with adamw, 0.0005 with "
        "sgd",
        "D",
        minimum=0,
    )
    momentum: float | None = declare(
        None,
        "share of the gradients before that each batch leaves in the optimiser's memory (beta_1 of "
        "adamw); by default 0.9",
        "MU",
        minimum=0,
        below=1,
    )
    schedule: str = declare(
        "cosine",
        "how the learning rate changes: constant, cosine (to 0) or step",
        "NAME",
        choices=lambda: SCHEDULES,
    )
    milestones: tuple[int, ...] | None = declare(
        None,
        "epochs after which the learning rate takes a step; by default half and three quarters of "
        "them",
        "E",
        repeated=True,
    )
    factor: float = declare(0.25, "what each step multiplies the learning rate by", "F", above=0)
    crop_padding: int = declare(
        0, "black pixels added on every side of an image before a random crop of its size", "P"
    )
    crop_size: int | None = declare(
        None,
        "rows and columns of random crops to train on, and of the middle to test with; by default "
        "those of the images",
        "S",
        minimum=1,
        below=100_000,
    )
    crop_scale: float | None = declare(
        None,
        "smallest share of an image's area in a crop: crops of random size and proportions are "
        "resized; by default they are not",
        "SHARE",
        above=0,
        below=1,
    )
    flips: bool = declare(False, "mirror every second image or so")
    repetitions: int = declare(
        1, "crops of each image within a batch", "R", minimum=1, below=10_000
    )
    validation: float = declare(
        0.1,
        "share of the training images that is set aside for validation; 0: none",
        "SHARE",
        minimum=0,
        below=1,
    )
    share_every: int | None = declare(
        None,
        "batches from one sleep, or one with noise, to the next; must be given unless --sharing is "
        "none",
        "B",
        minimum=1,
    )
    sleep_length: str = declare(
        "learning",
        "how many of its presentations a sleep has: learning (in proportion to the learning rate "
        "since the last one) or constant (all)",
        "HOW",
        choices=lambda: SLEEP_LENGTHS,
    )
    seed: int = declare(0, "fixes weights, validation images, order, crops and sleeps", "SEED")

    def __post_init__(self) -> None:
        fields.check(self, prefix="")
        if self.crop_scale is not None and self.crop_padding:
            raise ParameterError("crop_padding", "has no effect with crop_scale", self.crop_padding)
        adam = self.optimiser == "adamw"
        # Up, so that one epoch is not begun at a rate that has taken both steps. Where there are
        # none, the milestones are no more than a part of a description, which stays as it is.
        rounded = math.ceil if self.schedule == "step" else math.floor
        defaults = {
            "learning_rate": 0.001 if adam else 0.1,
            "weight_decay": 0.01 if adam else 0.0005,
            "momentum": 0.9,
            "milestones": (rounded(self.epochs / 2), rounded(self.epochs * 3 / 4)),
        }
        for name, default in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        if self.batch_size % self.repetitions:
            raise ParameterError(
                "repetitions",
                f"must divide the images of a batch ({self.batch_size})",
                self.repetitions,
            )

    def rate(self, done: float) -> float:
        """Return the learning rate after so many epochs."""
        assert self.learning_rate is not None
        if self.schedule == "cosine":
            return self.learning_rate * cosine_factor(done, self.epochs)
        if self.schedule == "step":
            assert self.milestones is not None
            return self.learning_rate * step_factor(done, self.milestones, self.factor)
        return self.learning_rate


class Diverged(ArithmeticError):
    """The loss is no number any more."""


@dataclass
class Progress:
    """How far a training is: what `checkpoints` keep beside arrays."""

    epoch: int = 0  # epochs that are over
    batch: int = 0  # batches that are over in the present one
    batches: int = 0  # batches that are over in all
    images: int = 0  # seen in the present epoch, of which the sums are
    sums: list[float] = field(default_factory=lambda: [0.0] * len(SCORES))
    seconds: float = 0.0  # spent on the present epoch
    asleep: float = 0.0  # of these, on sleeps
    snr_w: dict[str, float] = field(default_factory=dict)  # before the epoch's last sleep, by layer
    history: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False

    def check(self, epochs: int, per_epoch: int) -> None:
        """Raise an error, of any kind that reading data raises, unless this could be."""
        for name in ("epoch", "batch", "batches", "images"):
            integer(name, getattr(self, name), minimum=0)
        done = self.epoch * per_epoch + self.batch
        if self.epoch > epochs or self.batch > per_epoch or self.batches != done:
            raise ValueError("its numbers of epochs and batches contradict each other")
        if self.finished != (self.epoch == epochs) or len(self.history) != self.epoch:
            raise ValueError("its history has another length")
        if len(self.sums) != len(SCORES):
            raise ValueError("it has other sums than expected")
        for number in (*self.sums, self.seconds, self.asleep):
            dimensionless("progress", number)
        for snr in self.snr_w.values():
            float(snr)
        history(self.history)

    @property
    def means(self) -> list[float]:
        """Loss, top-1 and top-5 accuracy in the present epoch so far."""
        return [s / max(self.images, 1) for s in self.sums]


def initial_rng(seed: int) -> np.random.Generator:
    """Return what draws a network's first weights."""
    return _rng(seed, _INITIAL)


def split(data: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet | None]:
    """Divide images into those to train on and those for validation, the same share of each class.

    The latter are None if ``share`` is 0.

    Raises
    ------
    ParameterError
        If no image is left to train on, or none set aside though there should be.
    """
    rng = _rng(seed, _SPLIT)
    held_out = np.zeros(len(data.labels), bool)
    for label in np.unique(data.labels):
        of_label = rng.permutation(np.flatnonzero(data.labels == label))
        held_out[of_label[: round(share * len(of_label))]] = True
    if held_out.all():
        raise ParameterError("validation", "leaves no image to train on", share)
    if share and not held_out.any():
        raise ParameterError(
            "validation", "sets no image aside, of so few in each class; 0 asks for none", share
        )
    if not share:
        return data, None
    return data.subset(~held_out), data.subset(held_out)


def check_images(training: Training, data: ImageSet) -> None:
    """Refuse a training for which there are too few images, or too small ones.

    Raises
    ------
    ParameterError
    """
    if len(data) < training.batch_size // training.repetitions:
        raise ParameterError(
            "batch_size", f"there are only {len(data)} images to train on", training.batch_size
        )
    rows, columns, channels = data.images.shape[1:]
    if training.crop_size is not None and training.crop_size > min(rows, columns):
        raise ParameterError(
            "crop_size", f"must not be larger than the images ({rows} x {columns})",
            training.crop_size,
        )  # fmt: skip
    if training.crop_scale is not None and (
        data.images.dtype != np.uint8 or channels not in (1, 3)
    ):
        raise ParameterError(
            "crop_scale", "needs images of bytes, grey or in three colours",
            f"{channels} channels of {data.images.dtype}",
        )  # fmt: skip
    if training.crop_padding >= min(rows, columns):
        raise ParameterError(
            "crop_padding",
            f"must be smaller than the images ({rows} x {columns}), or crops show nothing of them",
            training.crop_padding,
        )


def _check_content(part: str, data: ImageSet) -> None:
    """Refuse what would train without an error, or with a misleading one, and mean nothing."""
    labels, images = data.labels, data.images
    if part == "train" and (labels == labels[0]).all():
        raise ParameterError(
            "labels", "must be of two classes or more, or there is nothing to learn",
            f"all {labels[0]}",
        )  # fmt: skip
    # Bytes are finite, and images that are read when they are used are bytes.
    if (
        isinstance(images, np.ndarray)
        and images.dtype != np.uint8
        and not np.isfinite(images).all()
    ):
        raise ParameterError(
            "images", "must be finite; leave those out that are not, or fill them in with "
            "numpy.nan_to_num", f"NaN or infinite pixels in {part}",
        )  # fmt: skip


class Trainer:
    """One training of one network.

    Parameters
    ----------
    network : Network
    training : Training
    sharing : Sharing or None
        How the network's locally connected layers share weights when it sleeps.
    data : mapping of str to ImageSet
        ``train``, and what else is to be evaluated after every epoch: ``validation``, ``test``.
    mean, deviation : array, shape (channel,)
        Of the images, for `prepared`.

    Raises
    ------
    ParameterError
        If the images do not suffice (see `check_images`), are not finite or all of one class; or if
        the network cannot sleep like that.
    """

    def __init__(
        self,
        network: Network,
        training: Training,
        sharing: Sharing | None,
        data: Mapping[str, ImageSet],
        mean: NDArray[Any],
        deviation: NDArray[Any],
    ) -> None:
        self.network, self.training, self.progress = network, training, Progress()
        self._sharing = sharing
        self._data = dict(data)
        self._mean, self._deviation = mean, deviation
        decay, momentum = training.weight_decay, training.momentum
        assert decay is not None
        assert momentum is not None
        self._optimiser: Optimiser = OPTIMISERS[training.optimiser](
            network.parameters(), network.gradients(), decay, momentum
        )
        check_images(training, data["train"])
        for part, images in data.items():
            _check_content(part, images)
        self.different = training.batch_size // training.repetitions  # images of a batch
        self.per_epoch = len(data["train"].labels) // self.different
        if self.different < ranks.here().size:
            raise ParameterError(
                "batch_size", f"must have an image at least for each of {ranks.here().size} "
                "processes that train together", training.batch_size,
            )  # fmt: skip
        if self._awake and ranks.here().size > 1:
            raise ParameterError(
                "sharing", "awake is learned by one process; start it without mpirun", "awake"
            )
        if sharing is not None:
            # A rate that is too high for one of the layers is found before anything starts. This
            # needs no weights, and one sleep's matrices for all layers with equally many inputs.
            layers = network.lc_layers().values()
            inputs = {math.prod(layer.weights.shape[2:5]) for layer in layers}
            by_matrices = sharing.rule is not None and sharing.circuit is None
            for n_inputs in sorted(inputs) if by_matrices else ():
                sharing.maps(n_inputs, self._sleep_seed(1))
            for n_inputs in sorted(inputs) if sharing.method == AWAKE else ():
                check_rate(sharing.rate_awake, n_inputs, training.batch_size)

    def notes(self) -> list[str]:
        """What a user may not expect of sleep: where it will do nothing."""
        sharing, every = self._sharing, self.training.share_every
        if sharing is None or every is None:
            return []
        total = self.training.epochs * self.per_epoch
        if every > total:
            return [
                f"a sleep is due every {every} batches and the training has {total}, so that the "
                "network never sleeps; share more often, or train for longer"
            ]
        awake = [
            name
            for name, layer in self.network.lc_layers().items()
            if all(
                pool.size < 2
                for stage in range(sharing.periods)
                for pool in sharing.pools(layer.geometry, stage)
            )
        ]
        if not awake:
            return []
        remedy = " or borders that sleep too" if sharing.border == "awake" else ""
        return [
            f"no two positions of {', '.join(awake)} see the same pattern, so there the sleep "
            f"shares nothing; larger images{remedy} may help"
        ]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the sets of images, ``train`` first."""
        return tuple(self._data)

    def run(
        self,
        directory: Path | None,
        advanced: Callable[[Progress], None],
        checkpoint_every: float = 300.0,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """Train up to the end; go on where the progress is.

        Parameters
        ----------
        directory : Path or None
            Where to write checkpoints, at the end of every epoch and every ``checkpoint_every``
            seconds, and the history. None: nowhere.
        advanced : callable
            Is given the progress after every batch and every epoch.
        checkpoint_every : float
            Seconds.
        attributes : mapping, optional
            What else the history is to say.

        Raises
        ------
        Diverged
            If the loss is no number any more. The last checkpoint is of a time when it was one.
        OSError
            If files cannot be written.
        """
        progress = self.progress
        if progress.history:  # whoever was stopped may have left the one of an epoch before
            self._write_history(directory, attributes)
        written = began = time.monotonic()
        while progress.epoch < self.training.epochs:
            # Every draw is keyed by where the training is, not taken from one stream, so that a
            # training that goes on from a checkpoint has no generator's state to restore.
            order = _rng(self.training.seed, _ORDER, progress.epoch).permutation(
                len(self._data["train"].labels)
            )
            batches = range(progress.batch, self.per_epoch)
            self._data["train"].announce(self._chosen(order, batch) for batch in batches)
            while progress.batch < self.per_epoch:
                self._batch(order)
                now = time.monotonic()
                progress.seconds += now - began
                began = now
                advanced(progress)
                due = now - written > checkpoint_every and progress.batch < self.per_epoch
                if self._decided(due):
                    self._write(directory)
                    written = time.monotonic()
            self._end_epoch(began)
            self._write(directory)
            self._write_history(directory, attributes)
            written = began = time.monotonic()
            advanced(progress)

    def _decided(self, due: bool) -> bool:
        """Return what rank 0 says."""
        together = ranks.here()
        if together.size == 1:
            return due
        return bool(together.total(np.array([float(due and together.rank == 0)]))[0])

    def follow(self) -> None:
        """Be where rank 0 is, which may have gone on from a checkpoint."""
        together = ranks.here()
        if together.size == 1:
            return
        self.progress = together.first(lambda: self.progress)
        self._optimiser.steps = self.progress.batches
        for array in self._arrays().values():
            together.shared(array)

    def seconds_per_epoch(self, batches: int = 3) -> float:
        """Estimate how long an epoch takes, by training for a few batches; of no further use then.

        Sleeps are counted as often as they come, evaluation as a third of a step for each image.
        """
        order = np.arange(len(self._data["train"].labels))
        self._batch(order, asleep=False)  # the first one makes arrays ready
        began = time.monotonic()
        for _ in range(batches):
            self.progress.batch = 0
            self._batch(order, asleep=False)
        step = (time.monotonic() - began) / batches
        evaluated = sum(len(data.labels) for name, data in self._data.items() if name != "train")
        seconds = step * (self.per_epoch + MEASURED / 3)
        seconds += step / 3 * evaluated / self.training.batch_size
        if self.training.share_every is not None:
            sleep = self.progress.asleep
            if self._awake:
                self.progress.batch, self.progress.batches = 0, self.training.share_every - 1
                self._batch(order)
            else:
                self._sleep(1)
            sleep = self.progress.asleep - sleep
            seconds += sleep * self.per_epoch / self.training.share_every
        return seconds

    def resume(self, directory: Path) -> None:
        """Go to where a directory's checkpoint is; to the start if there is none.

        Raises
        ------
        ParameterError
            If the checkpoint is damaged, or of another network.
        """
        content = checkpoints.read_progress(directory)
        if content is None:
            return
        try:
            self.progress = Progress(**content)
            self.progress.check(self.training.epochs, self.per_epoch)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise checkpoints.damaged(directory / checkpoints.ARRAYS, error) from None
        self._optimiser.steps = self.progress.batches
        checkpoints.read_arrays(directory, self._arrays())

    def _batch(self, order: NDArray[np.int64], asleep: bool = True) -> None:
        interrupts.check()
        training, progress, data = self.training, self.progress, self._data["train"]
        # Crops of one image lie in one batch: its gradient is averaged over places, which is what
        # makes repetitions a substitute for shared weights.
        chosen = np.repeat(self._chosen(order, progress.batch), training.repetitions)
        rng = _rng(training.seed, _AUGMENTATION, progress.epoch, progress.batch)
        labels, together, images = data.labels[chosen], ranks.here(), training.batch_size
        number, rest = divmod(progress.batches + 1, training.share_every or math.inf)
        due = asleep and rest == 0
        crops = self._crops(chosen, rng, images)
        disturbed = self._disturbed(int(number), len(chosen)) if due and self._awake else {}
        logits = self.network.forward(crops, training=True)
        loss, gradient = cross_entropy(logits, labels)
        found = [loss * len(labels), *(float(s.sum()) for s in hits(logits, labels))]
        if together.size > 1:
            found = together.total(np.array(found)).tolist()
            loss = found[0] / images
            gradient *= len(labels) / images
        if not math.isfinite(loss):  # before weights, and then checkpoints, are spoilt by it
            raise self._diverged(f"the loss became {loss}")
        self.network.backward(gradient)
        if together.size > 1:
            for of in self.network.gradients().values():
                of[...] = together.total(of)
        self._optimiser.step(training.rate(progress.epoch + progress.batch / self.per_epoch))
        progress.sums = [a + b for a, b in zip(progress.sums, found, strict=True)]
        # Sums rather than means, so that an epoch can be gone on with in its middle.
        progress.images += images
        progress.batch += 1
        progress.batches += 1
        if due and self._awake:
            self._learn_from_noise(disturbed)
        elif due:
            self._sleep(int(number))

    def _chosen(self, order: NDArray[np.int64], batch: int) -> NDArray[np.int64]:
        """Return this rank's images of a batch, each once."""
        return order[batch * self.different : (batch + 1) * self.different][self._part]

    @property
    def _part(self) -> slice:
        """Which images of a batch are those of this rank."""
        return ranks.here().part(self.different)

    def _crops(
        self, chosen: NDArray[np.int64], rng: np.random.Generator, number: int,
        part: slice | None = None,
    ) -> Array:  # fmt: skip
        """Crops of images, which are this rank's part of so many."""
        if part is None:
            mine, times = self._part, self.training.repetitions
            part = slice(mine.start * times, mine.stop * times)
        training, images = self.training, self._data["train"].images[chosen]
        crops = augmented(
            images, rng, training.crop_padding, training.flips,
            self.network.architecture.input_shape[:2], training.crop_scale, part, number,
        )  # fmt: skip
        return prepared(crops, self._mean, self._deviation)

    @property
    def _awake(self) -> bool:
        """Whether weights are shared by noise while the network learns."""
        return self._sharing is not None and self._sharing.method == AWAKE

    def _disturbed(self, number: int, images: int) -> dict[str, Disturbance]:
        """Give all layers that share weights noise for the next forward pass."""
        assert self._sharing is not None
        given = {}
        for place, (name, layer) in enumerate(self.network.lc_layers().items()):
            rng = _rng(*self._sleep_seed(number), place)
            sleeping, border = self._sharing.pools(layer.geometry), self._sharing.border
            given[name] = Disturbance.drawn(layer, sleeping, images, rng, border)
            layer.disturbance = given[name]
        return given

    def _learn_from_noise(self, disturbed: Mapping[str, Disturbance]) -> None:
        """Let weights follow the product of outputs and noise, in the batch that had it."""
        assert self._sharing is not None
        progress, began = self.progress, time.monotonic()
        self._measure_before_sharing()
        rate = self._sharing.rate_awake * self._sleep_length()
        for name, layer in self.network.lc_layers().items():
            disturbed[name].learn(layer, rate)
        progress.asleep += sum(noise.seconds for noise in disturbed.values())
        progress.asleep += time.monotonic() - began

    def _measure_before_sharing(self) -> None:
        progress, every = self.progress, self.training.share_every
        assert every is not None
        if progress.batch + every > self.per_epoch:
            # No other sleep follows in this epoch. Right after a sleep weights are alike by
            # construction; how far they diverge while awake is seen just before one.
            progress.snr_w = self._snr_w()

    def _sleep(self, number: int) -> None:
        assert self._sharing is not None
        progress, began = self.progress, time.monotonic()
        self._measure_before_sharing()
        seed, length = self._sleep_seed(number), self._sleep_length()
        together, layers = ranks.here(), self.network.lc_layers().items()
        for name, layer in layers if together.rank == 0 else ():
            # One seed for all layers, so that those with equally many inputs share an operator.
            asked = (layer.geometry, seed, length)
            self._sharing.share(layer.weights, *asked, out=layer.weights)
            if self._sharing.moments == "shared":
                # Otherwise the next steps pull weights apart again that a sleep has made alike: the
                # optimiser goes on in directions, and with step sizes, of single positions.
                for moment in self._optimiser.moments:
                    memory = self._optimiser.state[f"{moment}.{name}.weights"]
                    self._sharing.share_moments(memory, *asked, out=memory)
        if together.size > 1:  # the result of one for all
            for name, layer in layers:
                together.shared(layer.weights)
                for moment in self._optimiser.moments:
                    together.shared(self._optimiser.state[f"{moment}.{name}.weights"])
        progress.asleep += time.monotonic() - began

    def _sleep_length(self) -> float:
        """Return the share of its presentations that the sleep after the present batch has."""
        training, batches = self.training, self.progress.batches
        if training.sleep_length == "constant":
            return 1.0
        assert training.share_every is not None
        # What is learned between two sleeps is in proportion to the learning rate, and so is what
        # the sleep has to remove; a longer one would only cost weights their mean.
        since = range(batches - training.share_every, batches)
        return float(np.mean([training.rate(n / self.per_epoch) for n in since])) / training.rate(0)

    def _snr_w(self) -> dict[str, float]:
        # Of the positions that are to share weights: those of networks that never do are all.
        border = "asleep" if self._sharing is None else self._sharing.border
        return {
            name: layer_snr_w(layer.weights, layer.geometry, border)
            for name, layer in self.network.lc_layers().items()
        }

    def _sleep_seed(self, number: int) -> list[int]:
        return [self.training.seed, _SLEEP, number]

    def _measure_statistics(self) -> None:
        """Average the statistics of batch norm over batches, with the weights as they are.

        Running averages would be those of the weights before the last sleep.
        """
        norms = [la for la in self.network.layers.values() if isinstance(la, BatchNorm2D)]
        momenta = [norm.momentum for norm in norms]
        rng = _rng(self.training.seed, _STATISTICS, self.progress.epoch)
        number, size = len(self._data["train"].labels), self.training.batch_size
        for n in range(MEASURED):
            for norm in norms:
                norm.momentum = 1 / (n + 1)  # makes a running average the mean of all so far
            chosen = rng.choice(number, min(size, number), replace=False)
            part = ranks.here().part(len(chosen))
            crops = self._crops(chosen[part], rng, len(chosen), part)
            self.network.forward(crops, training=True)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def _end_epoch(self, began: float) -> None:
        progress = self.progress
        row: dict[str, Any] = {"train": progress.means}
        self._measure_statistics()
        for part, data in self._data.items():
            if part != "train":
                row[part] = evaluate(self.network, data, self._mean, self._deviation)
                if not math.isfinite(row[part][0]):
                    raise self._diverged(f"the loss on the {part} images is {row[part][0]}")
        row["snr_w"] = self._snr_w()
        row["snr_w_before_sleep"] = progress.snr_w
        row["seconds_asleep"] = progress.asleep
        row["seconds"] = progress.seconds + time.monotonic() - began
        progress.history.append(row)
        progress.epoch += 1
        progress.batch, progress.images, progress.seconds = 0, 0, 0.0
        progress.asleep, progress.snr_w = 0.0, {}
        progress.sums = [0.0] * len(SCORES)
        progress.finished = progress.epoch == self.training.epochs

    def _diverged(self, what: str) -> Diverged:
        progress = self.progress
        return Diverged(
            f"{what} in epoch {progress.epoch + 1}, batch {progress.batch + 1}, with the learning "
            f"rate {self.training.rate(progress.epoch + progress.batch / self.per_epoch):.3g}"
        )

    def _write_history(self, directory: Path | None, attributes: Mapping[str, str] | None) -> None:
        if directory is not None and ranks.here().rank == 0:
            write_history(directory / HISTORY, self.progress.history, attributes or {})

    def _write(self, directory: Path | None) -> None:
        for name, values in self.network.parameters().items():
            if not np.isfinite(values).all():
                raise self._diverged(f"{name} has numbers that are not finite")
        if directory is not None and ranks.here().rank == 0:
            checkpoints.write_arrays(directory, self._arrays(), asdict(self.progress))

    def _arrays(self) -> dict[str, Array]:
        """All that a checkpoint holds; what only training needs is dropped in the end."""
        arrays = network_arrays(self.network)
        if not self.progress.finished:
            arrays |= {f"optimiser.{n}": a for n, a in self._optimiser.state.items()}
        return arrays


def network_arrays(network: Network) -> dict[str, Array]:
    """Return all that a trained network consists of, by the names in checkpoints."""
    return {f"parameter.{n}": a for n, a in network.parameters().items()} | {
        f"state.{n}": a for n, a in network.state().items()
    }


def history(rows: Sequence[Mapping[str, Any]]) -> xr.Dataset:
    """Return the history of a training, one number for every epoch.

    Parameters
    ----------
    rows : sequence of mapping
        Those in `Progress`.
    """
    # What has no unit is given none: "1" would stand beside every label of a plot.
    what: dict[str, tuple[str, dict[str, str]]] = {
        "loss": ("cross-entropy", {"units": "nat"}),
        "top1": ("share of images whose class is the likeliest", {}),
        "top5": ("share of images whose class is among the five likeliest", {}),
    }
    parts = {"train": "during training", "validation": "validation images", "test": "test images"}
    variables: dict[str, Any] = {}
    for part, of_part in parts.items():
        for n, name in enumerate(SCORES):
            if all(part in row for row in rows):
                values = [row[part][n] for row in rows]
                label = {"long_name": f"{what[name][0]}, {of_part}"} | what[name][1]
                variables[f"{part}_{name}"] = ("epoch", np.array(values, float), label)
    layers = list(rows[0]["snr_w"]) if rows else []
    if layers:
        values = [[row["snr_w"][layer] for layer in layers] for row in rows]
        label = {"long_name": "SNR_w (Eq. 6), mean over pools"}
        variables["snr_w"] = (("epoch", "layer"), np.array(values, float), label)
        nothing = dict.fromkeys(layers, float("nan"))
        before = [(row["snr_w_before_sleep"] or nothing) for row in rows]
        label = {"long_name": "SNR_w before the last sleep of the epoch"}
        values = [[row[layer] for layer in layers] for row in before]
        variables["snr_w_before_sleep"] = (("epoch", "layer"), np.array(values, float), label)
    seconds = {"long_name": "time spent on the epoch, evaluation included", "units": "s"}
    variables["seconds"] = ("epoch", np.array([row["seconds"] for row in rows], float), seconds)
    asleep = np.array([row["seconds_asleep"] for row in rows], float)
    label = {"long_name": "of these, spent on sleeps", "units": "s"}
    variables["seconds_asleep"] = ("epoch", asleep, label)
    epochs = ("epoch", np.arange(1, len(rows) + 1), {"long_name": "epochs trained"})
    coordinates: dict[str, Any] = {"epoch": epochs}
    if layers:
        coordinates["layer"] = ("layer", layers, {"long_name": "locally connected layer"})
    return xr.Dataset(variables, coordinates)


def write_history(
    path: Path, rows: Sequence[Mapping[str, Any]], attributes: Mapping[str, str]
) -> None:
    """Write the history as netCDF, whole or not at all.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    with netcdf.writing(path) as add:
        add(history(rows).assign_attrs(attributes), None)


def _rng(seed: int, *keys: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, *keys]))
