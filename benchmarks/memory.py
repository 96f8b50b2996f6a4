"""How much memory a training takes, against what `classify train --dry-run` says.

Each network is trained for two batches, evaluated and, where it sleeps, put to sleep, in a process
of its own on one thread, and the highest memory of that process (`ru_maxrss`), without the images,
is compared with the estimate.

    python benchmarks/memory.py
"""

from __future__ import annotations

import resource
import subprocess
import sys

import numpy as np

from circuitsim.vision import parallel
from circuitsim.vision.datasets import Dataset, ImageSet
from circuitsim.vision.runs import Run
from circuitsim.vision.sharing import Sharing
from circuitsim.vision.training import Training

# Network, connectivity, width, rows and columns of an image, images in a batch, sharing.
TRAININGS = (
    ("small", "conv", 32, 32, 128, "none"),
    ("small", "conv", 32, 32, 512, "none"),
    ("small", "lc", 32, 32, 128, "none"),
    ("small", "lc", 32, 32, 128, "circuit"),
    ("resnet20", "conv", 16, 32, 128, "none"),
    ("resnet20", "conv", 16, 32, 256, "none"),
    ("resnet20", "lc", 16, 32, 64, "none"),
    ("resnet18", "conv", 32, 64, 64, "none"),
    ("resnet18", "lc", 8, 64, 32, "none"),
)


def measure(number: int) -> tuple[int, int]:
    """Return estimate and highest memory of one of the trainings, in bytes."""
    network, connectivity, width, size, batch, sharing = TRAININGS[number]
    rng = np.random.default_rng(0)
    sets = [
        ImageSet(rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8), np.arange(n) % 10)
        for n in (2 * batch, 1000)
    ]
    data = Dataset("random", *sets, tuple("abcdefghij"), "drawn")
    asleep = None if sharing == "none" else Sharing(sharing, presentations_per_input=0.5)
    training = Training(
        epochs=1, batch_size=batch, share_every=None if asleep is None else 2, validation=0.0
    )
    with parallel.threads(1):
        run = Run.new(
            data, training, asleep, network=network, connectivity=connectivity, width=width
        )
        run.trainer(data).run(None, lambda progress: None)
    highest = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return run.sizes()[1], highest - sum(images.images.nbytes for images in sets)


def main() -> None:
    if len(sys.argv) > 1:
        print(*measure(int(sys.argv[1])))
        return
    print(f"{'network':<32}{'estimate':>10}{'highest':>10}{'ratio':>8}")
    for number, what in enumerate(TRAININGS):
        told = subprocess.run(
            [sys.executable, __file__, str(number)], capture_output=True, text=True, check=True
        ).stdout.split()
        estimate, highest = map(int, told)
        name = " ".join(map(str, what))
        print(
            f"{name:<32}{estimate / 1e9:>7.2f} GB{highest / 1e9:>7.2f} GB{estimate / highest:>8.2f}"
        )


if __name__ == "__main__":
    main()
