"""Networks ``small``, ``resnet20`` and ``resnet18``, convolutional or locally connected."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuitsim.checks import fields
from circuitsim.checks.fields import declare
from circuitsim.checks.validation import ParameterError, integer, regular
from circuitsim.public import own
from circuitsim.vision.layers import (
    Array,
    BatchNorm2D,
    Conv2D,
    GlobalAveragePool,
    Layer,
    Linear,
    LocallyConnected2D,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    outlined,
)

__dir__ = own(__name__, "CONNECTIVITIES", "NETWORKS")

NETWORKS = ("small", "resnet20", "resnet18")
CONNECTIVITIES = {"conv": Conv2D, "lc": LocallyConnected2D}
KERNEL = 3
_WIDTHS = {"small": 32, "resnet20": 16, "resnet18": 32}


@dataclass(frozen=True)
class Architecture:
    """Which network to make.

    Parameters
    ----------
    input_shape : tuple of int
        Rows, columns and channels of an image.
    n_classes : int
        At least 2.
    network : {"small", "resnet20", "resnet18"}
        ``small``: four layers with strides 2, 1, 2, 1 and widths w, w, 2 w, 2 w. ``resnet20``: that
        of He et al. 2016 with n = 3 and widths w, 2 w, 4 w; its shortcuts have no parameters.
        ``resnet18``: theirs for ImageNet, of half the width in the paper: 7 x 7 with stride 2, the
        largest of 3 x 3 with stride 2, then four stages of two blocks of widths w, 2 w, 4 w, 8 w,
        with shortcuts of 1 x 1 where the shape changes. Other kernels are 3 x 3 with padding 1, and
        none has biases; batch norm and ReLU follow each; in the end there are the mean over
        positions and a linear layer.
    connectivity : {"conv", "lc"}
        Whether kernels are shared or locally connected.
    width : int, optional
        Channels of the first layer; 16 for ``resnet20`` and 32 for others if None.
    first_conv : bool
        Keep the first layer convolutional in a network that is locally connected otherwise.

    Raises
    ------
    ParameterError
        If a value is out of range.
    """

    input_shape: tuple[int, int, int]
    n_classes: int
    network: str = declare(
        "small",
        "small (4 layers), resnet20, or resnet18 (made for images of 64 x 64 and more)", "NAME",
        choices=lambda: NETWORKS,
    )  # fmt: skip
    connectivity: str = declare(
        "lc", "lc (locally connected) or conv (convolutional)", "NAME",
        choices=lambda: CONNECTIVITIES,
    )  # fmt: skip
    width: int | None = declare(
        None, "channels of the first layer; by default 16 in resnet20, 32 in others", "W",
        minimum=1, below=1_000_000,
    )  # fmt: skip
    first_conv: bool = declare(
        False, "keep the first layer convolutional in a network that is locally connected otherwise"
    )

    def __post_init__(self) -> None:
        rule = "must be (rows, columns, channels)"
        if regular("input_shape", self.input_shape, rule).shape != (3,):
            raise ParameterError("input_shape", rule, self.input_shape)
        shape = tuple(integer("input_shape", n, minimum=1) for n in self.input_shape)
        object.__setattr__(self, "input_shape", shape)
        integer("n_classes", self.n_classes, minimum=2)
        fields.check(self, prefix="")
        if self.first_conv and self.connectivity == "conv":
            raise ParameterError(
                "first_conv", "has no effect with connectivity conv, where all layers are", True
            )
        if self.width is None:
            object.__setattr__(self, "width", _WIDTHS[self.network])


class Network:
    """A network of layers, from images to logits.

    Parameters
    ----------
    architecture : Architecture
    rng : numpy.random.Generator, optional
        Draws the weights; they are 0 if None, to be set.
    dtype : float32 or float64

    Attributes
    ----------
    architecture : Architecture
    layers : dict of str to Layer
        Those with parameters or a state, by name.
    """

    def __init__(
        self,
        architecture: Architecture,
        rng: np.random.Generator | None = None,
        dtype: Any = np.float32,
    ) -> None:
        self.architecture = architecture
        build = {"small": _small, "resnet20": _resnet20, "resnet18": _resnet18}[
            architecture.network
        ]
        self._body = build(architecture, rng, dtype)
        self.layers = {
            name: layer for name, layer in self._body.named("") if layer.parameters or layer.state
        }

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return logits (image, class) of prepared images (row, column, channel, image)."""
        return self._body.forward(x, training)

    def activities(self, x: Array) -> Iterator[tuple[str, Array]]:
        """Give the output of each layer for prepared images, image first, by the layer's name.

        Those of receptive fields are taken after batch norm and ReLU, (image, row, column,
        channel), residual blocks as one; ``pool`` and ``linear`` follow, (image, feature).
        """
        shown = self._shown()
        for inner, layer in self._body.layers.items():
            x = layer.forward(x)
            if inner in shown:
                yield shown[inner], x if isinstance(layer, Linear) else np.moveaxis(x, -1, 0)

    def activity_names(self) -> list[str]:
        """Names of the layers that `activities` gives, in their order."""
        return list(self._shown().values())

    def _shown(self) -> dict[str, str]:
        """Layers whose output is an activity, and what it is called: by what is rectified."""
        found, name = {}, ""
        for inner, layer in self._body.layers.items():
            if isinstance(layer, (ReLU, Residual, GlobalAveragePool, Linear)):
                found[inner] = name if isinstance(layer, ReLU) else inner
            elif not isinstance(layer, BatchNorm2D):
                name = inner
        return found

    def backward(self, gradient: Array) -> None:
        """Set the gradients of all layers from that of the logits."""
        self._body.backward(gradient, wanted=False)

    def lc_layers(self) -> dict[str, LocallyConnected2D]:
        """Return the locally connected layers by name."""
        return {n: la for n, la in self.layers.items() if isinstance(la, LocallyConnected2D)}

    def parameters(self) -> dict[str, Array]:
        """Return what is learned, by full names such as ``layer1.weights``."""
        return self._all("parameters")

    def gradients(self) -> dict[str, Array]:
        """Return the gradients of the parameters, by the same names."""
        return self._all("gradients")

    def state(self) -> dict[str, Array]:
        """Return the running statistics of batch norm, by full names such as ``norm1.mean``."""
        return self._all("state")

    def _all(self, kind: str) -> dict[str, Array]:
        return {
            f"{name}.{inner}": array
            for name, layer in self.layers.items()
            for inner, array in getattr(layer, kind).items()
        }


def sizes(architecture: Architecture) -> tuple[int, int]:
    """Return how many parameters a network has, and how many numbers training keeps for an image.

    The latter are the outputs of each layer with weights before and after batch norm, ReLU and
    pools, with their frames of zeros, and the gradients of the largest of them.
    """
    with outlined():
        network = Network(architecture)
    kept, largest = math.prod(architecture.input_shape), 0
    for layer in network.layers.values():
        if isinstance(layer, (Conv2D, LocallyConnected2D)):
            rows, columns = layer.geometry.output_shape
            outputs = rows * columns * layer.out_channels
            framed = (rows + 2) * (columns + 2) * layer.out_channels
            kept += outputs + framed
            largest = max(largest, outputs + math.prod(layer.geometry.input_shape)
                          * layer.in_channels)  # fmt: skip
    return sum(p.size for p in network.parameters().values()), kept + largest


class _Builder:
    """Adds layers and keeps the shape that they leave."""

    def __init__(
        self, architecture: Architecture, rng: np.random.Generator | None, dtype: Any
    ) -> None:
        *size, self.channels = architecture.input_shape
        self.size = (size[0], size[1])
        self._local = CONNECTIVITIES[architecture.connectivity]
        self._next = Conv2D if architecture.first_conv else self._local
        self._rng, self._dtype = rng, dtype

    def local(self, channels: int, stride: int = 1, kernel: int = KERNEL) -> tuple[Layer, Layer]:
        """Receptive fields with their batch norm."""
        layer = self._next(
            self.size,
            self.channels,
            channels,
            kernel,
            stride,
            padding=kernel // 2,
            rng=self._rng,
            dtype=self._dtype,
        )
        self._next = self._local
        self.size, self.channels = layer.geometry.output_shape, channels
        return layer, BatchNorm2D(channels, dtype=self._dtype)

    def largest(self) -> Layer:
        """Fields of which the largest input counts."""
        layer = MaxPool2D(self.size)
        self.size = layer.geometry.output_shape
        return layer

    def shortcut(self, channels: int, stride: int) -> Layer:
        """A shortcut of 1 x 1 to so many channels, beside what follows."""
        size, before = self.size, self.channels
        layer, norm = self.local(channels, stride, kernel=1)
        self.size, self.channels = size, before
        return Sequential({"layer": layer, "norm": norm})

    def linear(self, outputs: int) -> Layer:
        return Linear(self.channels, outputs, rng=self._rng, dtype=self._dtype)


def _small(architecture: Architecture, rng: np.random.Generator | None, dtype: Any) -> Sequential:
    build = _Builder(architecture, rng, dtype)
    width = architecture.width or 0
    layers: dict[str, Layer] = {}
    for n, (factor, stride) in enumerate([(1, 2), (1, 1), (2, 2), (2, 1)], start=1):
        layers[f"layer{n}"], layers[f"norm{n}"] = build.local(factor * width, stride)
        layers[f"relu{n}"] = ReLU()
    layers["pool"] = GlobalAveragePool()
    layers["linear"] = build.linear(architecture.n_classes)
    return Sequential(layers)


def _resnet20(
    architecture: Architecture, rng: np.random.Generator | None, dtype: Any
) -> Sequential:
    build = _Builder(architecture, rng, dtype)
    width = architecture.width or 0
    layers: dict[str, Layer] = {}
    layers["layer1"], layers["norm1"] = build.local(width)
    layers["relu1"] = ReLU()
    for stage, block in ((s, b) for s in (1, 2, 3) for b in (1, 2, 3)):
        stride = 2 if stage > 1 and block == 1 else 1
        branch: dict[str, Layer] = {}
        branch["layer1"], branch["norm1"] = build.local(width * 2 ** (stage - 1), stride)
        branch["relu1"] = ReLU()
        branch["layer2"], branch["norm2"] = build.local(width * 2 ** (stage - 1))
        # The shortcut ends where the branch does: both halve odd sizes upwards.
        layers[f"stage{stage}.block{block}"] = Residual(Sequential(branch), stride)
    layers["pool"] = GlobalAveragePool()
    layers["linear"] = build.linear(architecture.n_classes)
    return Sequential(layers)


def _resnet18(
    architecture: Architecture, rng: np.random.Generator | None, dtype: Any
) -> Sequential:
    build = _Builder(architecture, rng, dtype)
    layers: dict[str, Layer] = {}
    layers["layer1"], layers["norm1"] = build.local(architecture.width or 0, 2, kernel=7)
    layers["relu1"] = ReLU()
    layers["maxpool"] = build.largest()
    for stage, block in ((s, b) for s in (1, 2, 3, 4) for b in (1, 2)):
        stride = 2 if stage > 1 and block == 1 else 1
        width = (architecture.width or 0) * 2 ** (stage - 1)
        shortcut = build.shortcut(width, stride) if stride > 1 else None
        branch: dict[str, Layer] = {}
        branch["layer1"], branch["norm1"] = build.local(width, stride)
        branch["relu1"] = ReLU()
        branch["layer2"], branch["norm2"] = build.local(width)
        layers[f"stage{stage}.block{block}"] = Residual(Sequential(branch), stride, shortcut)
    layers["pool"] = GlobalAveragePool()
    layers["linear"] = build.linear(architecture.n_classes)
    return Sequential(layers)
