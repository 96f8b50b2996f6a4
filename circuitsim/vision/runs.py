"""A training with all that determines its numbers, and the directory that holds it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.checks.validation import ParameterError
from circuitsim.checks.values import in_ms, ms
from circuitsim.files import entries, own_directory, provenance, remove_abandoned
from circuitsim.files.locks import locked
from circuitsim.public import own
from circuitsim.vision import checkpoints, ranks
from circuitsim.vision.augmentation import channel_statistics
from circuitsim.vision.datasets import Dataset
from circuitsim.vision.evaluation import AT_A_TIME
from circuitsim.vision.networks import Architecture, Network, sizes
from circuitsim.vision.sharing import TIMES, Sharing, former, of_plain, plain
from circuitsim.vision.training import (
    OPTIMISERS,
    Diverged,
    Progress,
    Trainer,
    Training,
    initial_rng,
    network_arrays,
    split,
)

__dir__ = own(__name__)

# Measured: bytes of Python, its libraries and compiled code, and what training and evaluation keep
# of an image, in what `circuitsim.vision.networks.sizes` counts.
_PROGRAM, _KEPT, _EVALUATED = 230_000_000, 1.25, 0.5


@dataclass(frozen=True)
class Run:
    """What is trained on what, and how.

    Parameters
    ----------
    dataset : str
        Name of the data set.
    digest : str
        SHA-256 of its images and labels.
    class_names : tuple of str
    mean, deviation : tuple of float
        Of each channel of the images to train on, 0 to 255.
    architecture : Architecture
    training : Training
    sharing : Sharing or None

    Raises
    ------
    ParameterError
        If the parts do not fit together.
    """

    dataset: str
    digest: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    architecture: Architecture
    training: Training
    sharing: Sharing | None

    def __post_init__(self) -> None:
        if self.sharing is None and self.training.share_every is not None:
            raise ParameterError(
                "share_every", "needs a way of sharing, --sharing", self.training.share_every
            )
        if self.sharing is not None:
            if self.architecture.connectivity != "lc":
                raise ParameterError(
                    "sharing", "needs --connectivity lc: others have no weights to share",
                    self.sharing.method,
                )  # fmt: skip
            if self.training.share_every is None:
                raise ParameterError(
                    "share_every", "must be given, the batches from one sleep to the next", None
                )

    @classmethod
    def new(
        cls,
        data: Dataset,
        training: Training,
        sharing: Sharing | None,
        **architecture: Any,
    ) -> Run:
        """Describe a training on a data set.

        Raises
        ------
        ParameterError
            If the parts do not fit together.
        """
        if len(data.class_names) < 2:
            raise ParameterError(
                "dataset", "must have two classes or more, or there is nothing to learn", data.name
            )
        shape: Any = data.train.images.shape[1:]
        if training.crop_size is not None:
            shape = (training.crop_size, training.crop_size, shape[2])
        train, _ = split(data.train, training.validation, training.seed)
        mean, deviation = channel_statistics(train.sample())
        return cls(
            data.name,
            data.digest(),
            tuple(data.class_names),
            tuple(map(float, mean)),
            tuple(map(float, deviation)),
            Architecture(shape, len(data.class_names), **architecture),
            training,
            sharing,
        )

    @classmethod
    def read(cls, directory: Path) -> Run:
        """Read what a directory's run is.

        Raises
        ------
        FileNotFoundError
            If it holds none.
        ParameterError
            If its description is damaged.
        """
        content = checkpoints.read_description(directory)
        try:
            sharing, training = content["sharing"], content["training"]
            if sharing is not None and sharing["method"] == "none":
                # What earlier versions could write for a network that never sleeps.
                sharing, training = None, training | {"share_every": None}
            if sharing is not None:
                sharing = _sharing(sharing)
            run = cls(
                content["dataset"],
                content["digest"],
                tuple(map(str, content["class_names"])),
                tuple(map(float, content["mean"])),
                tuple(map(float, content["deviation"])),
                Architecture(**content["architecture"]),
                Training(**training),
                sharing,
            )
            channels, classes = run.architecture.input_shape[2], run.architecture.n_classes
            lengths = len(run.mean), len(run.deviation), len(run.class_names)
            if lengths != (channels, channels, classes):
                raise ValueError("its parts do not fit together")
            if not np.isfinite([*run.mean, *run.deviation]).all() or min(run.deviation) <= 0:
                raise ValueError("the statistics of its images are out of range")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise checkpoints.damaged(directory / checkpoints.DESCRIPTION, error) from None
        return run

    def write(self, directory: Path, provenance: Mapping[str, Any]) -> None:
        """Write this description into a directory.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        content = self.plain() | {"provenance": dict(provenance)}
        checkpoints.write_description(directory, content)

    def plain(self) -> dict[str, Any]:
        """Return this description as JSON has it."""
        content = asdict(self)
        if self.sharing is not None:
            for name in TIMES:
                content["sharing"][name] = float(in_ms(getattr(self.sharing, name)))
            del content["sharing"]["circuit"]  # left out where there is none, as before there were
            if self.sharing.circuit is not None:
                content["sharing"]["circuit"] = plain(self.sharing.circuit)
        return content

    def sizes(self) -> tuple[int, int]:
        """Return how many parameters the network has, and about how many bytes its training takes.

        These are weights, gradients and what the optimiser remembers, what layers keep of a batch,
        a part of that in the network's evaluation, and the program, without the images
        (``benchmarks/memory.py`` measures it).
        """
        parameters, activities = sizes(self.architecture)
        copies = 2 + len(OPTIMISERS[self.training.optimiser].moments)
        if self.sharing is not None:
            copies += 1  # of the largest layer at least, while it sleeps
        # Arrays of a batch and those of evaluation differ in size, so that both are kept for later.
        images = _KEPT * self.training.batch_size + _EVALUATED * AT_A_TIME
        return parameters, _PROGRAM + round(4 * (copies * parameters + images * activities))

    def check_memory(self) -> None:
        """Refuse a network that does not fit into this machine's memory.

        Raises
        ------
        ParameterError
            With the number.
        """
        parameters, needed = self.sizes()
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > available:
            raise ParameterError(
                "width",
                f"makes a network of {parameters:,} parameters, whose training takes about "
                f"{needed / 1e9:.3g} GB of memory, and this machine has {available / 1e9:.3g}; "
                "take a smaller width, smaller images or fewer in a batch",
                self.architecture.width,
            )

    def trainer(self, data: Dataset) -> Trainer:
        """Make the network and its trainer, at the start.

        Raises
        ------
        ParameterError
            If the data set is another one, or the network does not fit into memory.
        """
        self.check_memory()
        if data.digest() != self.digest:
            raise ParameterError(
                "dataset", "its images are not those that the run began with", data.name
            )
        train, validation = split(data.train, self.training.validation, self.training.seed)
        sets = {"train": train, "validation": validation, "test": data.test}
        return Trainer(
            Network(self.architecture, initial_rng(self.training.seed)),
            self.training,
            self.sharing,
            {name: images for name, images in sets.items() if images is not None},
            *self.statistics,
        )

    def carry_out(
        self,
        directory: Path,
        data: Dataset,
        advanced: Callable[[Progress, Trainer], None],
        made: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> tuple[Trainer, Diverged | None]:
        """Train up to the end, in a directory that holds nothing or the beginning of this run.

        Parameters
        ----------
        directory : Path
            Made if need be.
        data : Dataset
            Its images.
        advanced : callable
            Is given the progress, and the trainer, at the start, after every batch and every epoch.
        made : mapping, optional
            What the run's files say of how they were made; that of this process by default.
        wait : bool
            If another process trains there, whether to wait until it has ended.

        Returns
        -------
        Trainer
            With its progress.
        Diverged or None
            If the loss was no number any more. The last checkpoint is of a time when it was one.

        Raises
        ------
        ParameterError
            If the directory holds another run, or is damaged.
        circuitsim.files.locks.Taken
            If another process trains there, and this one is not to wait.
        OSError
            If files cannot be written.
        """
        trainer = self.trainer(data)
        made = provenance.versions() | provenance.made_here() if made is None else made
        with ExitStack() as held:

            def begin() -> None:
                held.enter_context(locked(own_directory(directory) / ".lock", wait=wait))
                remove_abandoned(entries(directory))
                if (directory / checkpoints.ARRAYS).exists():
                    self.check_same(directory)
                    trainer.resume(directory)
                else:
                    self.write(directory, made)

            ranks.here().first(begin)
            trainer.follow()
            advanced(trainer.progress, trainer)
            attributes = {
                "title": "History of the training of an image classifier",
                "run": json.dumps(self.plain()),
                "sharing": "none" if self.sharing is None else str(self.sharing),
                **made,
            }
            try:
                trainer.run(
                    directory, lambda progress: advanced(progress, trainer), attributes=attributes
                )
            except Diverged as error:
                return trainer, error
        return trainer, None

    def check_same(self, directory: Path) -> None:
        """Refuse a directory that holds another run.

        Raises
        ------
        ParameterError
        """
        if not (directory / checkpoints.DESCRIPTION).exists():
            return
        mine, its = (_flat(run.plain()) for run in (self, Run.read(directory)))
        for name, value in mine.items():
            if its.get(name) != value:
                raise ParameterError(
                    "runs",
                    f"{directory.name} in it is of another run, with {name.replace('_', ' ')} "
                    f"{its.get(name)} and not {value}; name another directory",
                    str(directory.parent),
                )

    @property
    def statistics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the channels of images."""
        return np.array(self.mean), np.array(self.deviation)

    def network(self, directory: Path) -> Network:
        """Read the network as it was trained so far.

        Raises
        ------
        ParameterError
            If there is no checkpoint, or it is damaged.
        """
        if checkpoints.read_progress(directory) is None:
            raise ParameterError("run", "has no checkpoint yet; let it train", str(directory))
        try:
            network = Network(self.architecture)
        except (MemoryError, ValueError):  # of what a description asks for that lies
            reason = ValueError("its network does not fit into this machine's memory")
            raise checkpoints.damaged(directory / checkpoints.DESCRIPTION, reason) from None
        checkpoints.read_arrays(directory, network_arrays(network), others=["optimiser."])
        return network


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by their names, such as ``training.epochs``."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def _sharing(fields: Mapping[str, Any]) -> Sharing:
    fields = former(fields)
    readers = dict.fromkeys(TIMES, lambda value: value * ms) | {"circuit": of_plain}
    return Sharing(**{n: readers[n](v) if n in readers else v for n, v in fields.items()})
