"""Locally connected layers against the usual way to write them, and a training step of ResNet-20.

The usual way, as in PyTorch: images first, all patches unfolded into a copy, and an einsum over
positions, which is a batched matrix product of transposed copies; back again by folding. It is
written here with NumPy and the same BLAS, so that only the arrangement differs. Results are checked
against each other first.

    python benchmarks/vision.py [--batch 128] [--threads 1 2] [--repeats 7] [--code numpy]
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from circuitsim.vision import kernels, parallel
from circuitsim.vision.layers import LocallyConnected2D, cross_entropy
from circuitsim.vision.networks import Architecture, Network
from circuitsim.vision.optimisers import AdamW
from circuitsim.vision.sharing import Sharing

# Functions of `_kernels_numpy` and `_kernels_numba`, and what they do in a step.
PARTS = {
    "forward": "products, forward",
    "weight_gradient": "products for weights, backward",
    "input_gradient": "products for inputs, backward",
    "moments": "moments of batch norm, forward",
    "normalise": "batch norm and ReLU, forward",
    "sums": "ReLU and sums of batch norm, backward",
    "unnormalise": "batch norm, backward",
}
SHAPES = ((3, 16, 32), (16, 16, 32), (32, 32, 16), (64, 64, 8))  # inputs, outputs, rows


class Unfolded:
    """A locally connected layer of kernel 3 and padding 1 on (image, channel, row, column)."""

    def __init__(self, weights: np.ndarray) -> None:
        positions, (*_, outputs) = weights.shape[0] * weights.shape[1], weights.shape
        # Unfolding sorts inputs by (channel, kernel row, kernel column).
        by_channel = weights.transpose(0, 1, 4, 2, 3, 5)
        self.weights = np.ascontiguousarray(by_channel).reshape(positions, -1, outputs)

    def forward(self, x: np.ndarray) -> np.ndarray:
        images, channels, rows, columns = x.shape
        padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
        patches = sliding_window_view(padded, (3, 3), axis=(2, 3)).transpose(0, 1, 4, 5, 2, 3)
        unfolded = np.ascontiguousarray(patches).reshape(images, channels * 9, rows * columns)
        # einsum("bkl,lko->bol")
        self.by_position = np.ascontiguousarray(unfolded.transpose(2, 0, 1))
        y = np.matmul(self.by_position, self.weights).transpose(1, 2, 0)
        return np.ascontiguousarray(y).reshape(images, -1, rows, columns)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images, outputs, rows, columns = gradient.shape
        flat = gradient.reshape(images, outputs, -1)
        by_position = np.ascontiguousarray(flat.transpose(2, 0, 1))
        of_weights = np.matmul(self.by_position.transpose(0, 2, 1), by_position)
        unfolded = np.matmul(by_position, self.weights.transpose(0, 2, 1)).transpose(1, 2, 0)
        parts = np.ascontiguousarray(unfolded).reshape(images, -1, 3, 3, rows, columns)
        padded = np.zeros((images, parts.shape[1], rows + 2, columns + 2), gradient.dtype)
        for i in range(3):
            for j in range(3):
                padded[:, :, i : i + rows, j : j + columns] += parts[:, :, i, j]
        return padded[:, :, 1:-1, 1:-1], of_weights


def best(run: Callable[[], Any], repeats: int) -> float:
    """Milliseconds of the fastest of several calls, after one that does not count."""
    run()
    took = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        took.append(time.perf_counter() - started)
    return 1e3 * min(took)


def agree(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Leave with an error if two results differ by more than rounding."""
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    if not difference < 1e-5:
        sys.exit(f"{what}: differs by {difference:.1e}")


def layers(batch: int, thread_numbers: list[int], repeats: int) -> None:
    """Time forward and backward of locally connected layers."""
    rng = np.random.default_rng(0)
    ways = ["unfolded", *(f"{n} thread{'s' * (n > 1)}" for n in thread_numbers)]
    print(f"locally connected layers, batch {batch}, kernel 3, stride 1, padding 1, float32")
    print("forward + backward in ms, and how many times faster than unfolded with one thread")
    print(f"{'inputs -> outputs, size':26}" + "".join(f"{way:>18}" for way in ways))
    for inputs, outputs, rows in SHAPES:
        layer = LocallyConnected2D((rows, rows), inputs, outputs, 3, padding=1, rng=rng)
        x = rng.standard_normal((rows, rows, inputs, batch), np.float32)
        into = rng.standard_normal((rows, rows, outputs, batch), np.float32)
        usual = Unfolded(layer.weights)
        x_usual, into_usual = (np.ascontiguousarray(a.transpose(3, 2, 0, 1)) for a in (x, into))

        def run_usual(usual: Any = usual, x: Any = x_usual, into: Any = into_usual) -> Any:
            return usual.forward(x), *usual.backward(into)

        def run(layer: Any = layer, x: Any = x, into: Any = into) -> Any:
            return layer.forward(x, training=True), layer.backward(into)

        with parallel.threads(1):
            y, of_x = run()
            y_usual, of_x_usual, of_weights = run_usual()
            agree(y.transpose(3, 2, 0, 1), y_usual, "output")
            agree(of_x.transpose(3, 2, 0, 1), of_x_usual, "input gradient")
            found = layer.gradients["weights"].transpose(0, 1, 4, 2, 3, 5)
            agree(found.reshape(of_weights.shape), of_weights, "weight gradient")
            slow = best(run_usual, repeats)
        cells = [f"{slow:18.1f}"]
        for number in thread_numbers:
            with parallel.threads(number):
                took = best(run, repeats)
            cells.append(f"{took:10.1f} ({slow / took:4.1f})")
        print(
            f"{f'{inputs} -> {outputs}, {rows} x {rows}':26}" + "".join(f"{c:>18}" for c in cells)
        )


class Clock:
    """Adds up the time that calls take, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            result = call(*arguments, **options)
            self.seconds[name] += time.perf_counter() - started
            return result

        return run


def step(connectivity: str, batch: int, threads: int, repeats: int) -> None:
    """Time a training step of a ResNet-20, and its parts (added up over threads)."""
    rng = np.random.default_rng(0)
    network = Network(Architecture((32, 32, 3), 10, "resnet20", connectivity), rng)
    optimiser = AdamW(network.parameters(), network.gradients(), 0.01)
    sharing = Sharing("instant")
    clock = Clock()
    code = kernels.chosen()
    for name, what in PARTS.items():
        for owner in (code.Products, code):
            if hasattr(owner, name):
                setattr(owner, name, clock.timed(f"  {what}", getattr(owner, name)))
                break
    x = rng.standard_normal((32, 32, 3, batch), np.float32)
    labels = rng.integers(10, size=batch)

    def learn() -> None:
        logits = clock.timed("forward", network.forward)(x, training=True)
        clock.timed("backward", network.backward)(cross_entropy(logits, labels)[1])
        clock.timed("AdamW", optimiser.step)(1e-3)

    def sleep() -> None:
        for layer in network.lc_layers().values():
            layer.weights = sharing.share(layer.weights, layer.geometry, 0)

    with parallel.threads(threads):
        whole = best(learn, repeats)
        clock.seconds.clear()
        for _ in range(repeats):
            learn()
        asleep = best(sleep, 2) if network.lc_layers() else None
    number = sum(p.size for p in network.parameters().values())
    print(f"\nResNet-20, {connectivity}, {number / 1e6:.1f} million weights, batch {batch}, ms")
    print(f"{'a step, the best':42}{whole:8.0f}   with {threads} thread{'s' * (threads > 1)}")
    for name in sorted(clock.seconds, key=lambda n: (n.split(", ")[-1].strip(), n.strip() != n)):
        print(f"{name:42}{1e3 * clock.seconds[name] / repeats:8.0f}")
    if asleep is not None:
        print(f"{'sharing all pools at once':42}{asleep:8.0f}   not in the step")
    arrays = sum(a.nbytes for a in optimiser.state.values()) + 8 * number
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"memory: weights, gradients and moments {arrays / 1e6:.0f} MB, the process at most ",
        end="",
    )
    print(f"{peak / 1e6:.0f} MB")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--code", choices=kernels.CODES, default="auto")
    options = parser.parse_args()
    with kernels.code(options.code):
        print(f"code: {kernels.chosen().__name__.rpartition('_')[2]}")
        layers(options.batch, options.threads, options.repeats)
        for connectivity in ("conv", "lc"):
            for number in options.threads:
                step(connectivity, options.batch, number, options.repeats)


if __name__ == "__main__":
    main()
