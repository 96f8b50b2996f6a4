"""What a sleep of a locally connected layer costs.

Prints, for layers of the networks `small` and `resnet20`, milliseconds of processor time on one
thread for the operator of a sleep (once for all layers with equally many inputs and the same seed)
and for applying it to the layer. One pool is compared with `circuitsim.simulate` before anything is
timed.

With `--steps`, prints instead the processor time of a training step of `small` on images of
32 x 32: without sharing, and where every step has a sleep, or noise beside its images, in turn.

    python benchmarks/sharing.py [--presentations P | --steps [--width W]]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
import threadpoolctl

import circuitsim as cs
from circuitsim.inputs import GaussianInputs
from circuitsim.vision import memory, parallel
from circuitsim.vision.datasets import Dataset, ImageSet
from circuitsim.vision.geometry import Geometry
from circuitsim.vision.pools import pools
from circuitsim.vision.runs import Run
from circuitsim.vision.sharing import Sharing
from circuitsim.vision.training import Training

# Rows and columns of the input, stride, channels in and out.
LAYERS = {
    "small": ((32, 2, 3, 32), (16, 1, 32, 32), (16, 2, 32, 64), (8, 1, 64, 64)),
    "resnet20": ((32, 1, 3, 16), (32, 1, 16, 16), (16, 1, 32, 32), (8, 1, 64, 64)),
}


def weights_of(layer: tuple[int, ...]) -> tuple[np.ndarray, Geometry]:
    """Random weights of a layer, and where its fields lie."""
    size, stride, channels, outputs = layer
    geometry = Geometry((size, size), 3, stride, padding=1)
    shape = (*geometry.output_shape, 3, 3, channels, outputs)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32), geometry


def check(sharing: Sharing, layer: tuple[int, ...]) -> None:
    """Leave with an error unless a pool ends as a simulation of it does."""
    weights, geometry = weights_of(layer)
    pool = next(p for p in pools(geometry) if p.phase == (0, 0))  # sees the pattern as it is
    start, end = (
        w[pool.rows, pool.columns, ..., 0].reshape(pool.size, -1).astype(float)
        for w in (weights, sharing.share(weights, geometry, 1))
    )
    n_inputs = start.shape[1]
    run = cs.simulate(
        start,
        GaussianInputs(sharing.presentations or 10 * n_inputs, n_inputs, 1),
        cs.Circuit(pool.size, b=0.0),
        cs.Plasticity(gamma=sharing.gamma, learning_rate=cs.ConstantRate(0.05 / (150 * n_inputs))),
        engine="propagator",
    )
    difference = np.abs(run.weights.to_numpy() - end).max()
    if difference > 1e-5:  # weights are of single precision
        sys.exit(f"a pool of {layer} ends {difference:.1e} away from its simulation")


def milliseconds(work: Callable[[], object]) -> float:
    """Least processor time of a few calls."""
    taken = []
    for _ in range(3):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return 1e3 * min(taken)


def steps(width: int) -> None:
    """Print what a step with sharing takes, of a network as `classify compare` trains it."""
    rng = np.random.default_rng(0)
    sets = [
        ImageSet(rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), np.arange(n) % 10)
        for n in (256, 10)
    ]
    data = Dataset("random", *sets, tuple("abcdefghij"), "drawn")
    short = {"presentations_per_input": 0.5, "gamma": 1e-3, "alpha": 50.0}
    ways = {"none": None, "instant": Sharing("instant"), "awake": Sharing("awake")}
    ways |= {name: Sharing(name, **short) for name in ("circuit", "inhibition_gated")}
    order, taken = np.arange(256), {name: [] for name in ways}
    with parallel.threads(1), memory.reused():
        trainers = {}
        for name, way in ways.items():
            every = None if way is None else 1
            training = Training(epochs=1, batch_size=128, share_every=every, validation=0.0)
            run = Run.new(data, training, way, network="small", connectivity="lc", width=width)
            trainers[name] = run.trainer(data)
        for _ in range(12):
            for name, trainer in trainers.items():
                trainer.progress.batch = 0
                started = time.process_time()
                trainer._batch(order)
                taken[name].append(time.process_time() - started)
    plain = min(taken["none"])
    for name, times in taken.items():
        more = f", {100 * (min(times) / plain - 1):.0f} % more" if name != "none" else ""
        print(f"{name:<18}{1e3 * min(times):>6.0f} ms{more}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--presentations", type=int, default=None, help="default: 10 per input")
    parser.add_argument("--steps", action="store_true", help="time steps of a training")
    parser.add_argument("--width", type=int, default=16, help="of that network")
    options = parser.parse_args()
    if options.steps:
        steps(options.width)
        return
    sharing = Sharing("circuit", options.presentations)
    seeds = iter(range(10**6))
    print(f"{'layer':<34}{'inputs':>8}{'presentations':>15}{'operator, ms':>14}{'apply, ms':>12}")
    with threadpoolctl.threadpool_limits(1):
        for network, layers in LAYERS.items():
            for layer in layers:
                check(sharing, layer)
                weights, geometry = weights_of(layer)
                n_inputs = 9 * layer[2]
                operator = milliseconds(lambda n=n_inputs: sharing.maps(n, [next(seeds)]))
                apply = milliseconds(lambda w=weights, g=geometry: sharing.share(w, g, 1))
                size, stride, channels, outputs = layer
                name = f"{network} {channels}->{outputs}, {size} x {size}, stride {stride}"
                presentations = sharing.presentations or 10 * n_inputs
                print(f"{name:<34}{n_inputs:>8}{presentations:>15}{operator:>14.1f}{apply:>12.1f}")


if __name__ == "__main__":
    main()
