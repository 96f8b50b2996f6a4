"""What a sleep of a locally connected layer costs.

Prints, for layers of the networks `small` and `resnet20`, milliseconds of processor time on one
thread for the operator of a sleep (once for all layers with equally many inputs and the same seed)
and for applying it to the layer. One pool is compared with `circuitsim.simulate` before anything is
timed.

    python benchmarks/sharing.py [--presentations P]
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
from circuitsim.vision.geometry import Geometry
from circuitsim.vision.pools import pools
from circuitsim.vision.sharing import Sharing

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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--presentations", type=int, default=None, help="default: 10 per input")
    sharing = Sharing("circuit", parser.parse_args().presentations)
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
