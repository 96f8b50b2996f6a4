"""Train small networks in float64: alone, or over the ranks that mpirun has started with this.

``python train_in_double.py PLACE`` writes a run into PLACE/NAME for each of `CASES`, and one into
PLACE/gone-on that goes on if it has begun, and is left in its second epoch else.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from circuitsim.vision import evaluation, ranks, runs, training
from circuitsim.vision.datasets import Dataset, ImageSet
from circuitsim.vision.networks import Network
from circuitsim.vision.sharing import Sharing
from circuitsim.vision.training import Training

COMMON = {"epochs": 2, "batch_size": 40, "share_every": 3, "validation": 0.2}
CROPPED = {"repetitions": 2, "crop_padding": 1, "flips": True}
CASES = {
    "averaged": (
        Training(**COMMON, **CROPPED, optimiser="sgd", learning_rate=0.1),
        Sharing("instant", moments="shared"),
    ),
    "asleep": (Training(**COMMON, learning_rate=0.01), Sharing("circuit", 20, alpha=5.0)),
}


class Left(Exception):
    """Somebody ends a training."""


def main(place: Path) -> None:
    """Train all."""
    plain = evaluation.prepared
    for module in (evaluation, training):
        module.prepared = lambda *given: plain(*given).astype(np.float64)
    runs.Network = lambda architecture, rng: Network(architecture, rng, np.float64)
    rng = np.random.default_rng(0)
    sets = [
        ImageSet(rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8), np.arange(n) % 3)
        for n in (150, 40)
    ]
    data = Dataset("random", *sets, ("a", "b", "c"), "drawn")

    def carry_out(name: str, case: str, batches: int | None = None) -> None:
        def advanced(progress: training.Progress, _: object) -> None:
            if progress.batches == batches:
                raise Left

        run = runs.Run.new(data, *CASES[case], network="small", connectivity="lc", width=2)
        run.carry_out(place / name, data, advanced)

    with ranks.together(ranks.joined()):
        for case in CASES:
            carry_out(case, case)
        if (place / "gone-on").exists():
            carry_out("gone-on", "asleep")
            return
        try:
            carry_out("gone-on", "asleep", batches=4)
        except Left:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
