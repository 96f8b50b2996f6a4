"""Optimisers, and how their learning rate changes while a network is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from circuitsim.public import own
from circuitsim.vision import kernels
from circuitsim.vision.layers import Array
from circuitsim.vision.parallel import over

__dir__ = own(__name__)


class Optimiser:
    """Changes parameters against their gradients.

    Parameters
    ----------
    parameters, gradients : dict of str to array
        Arrays of the same names and shapes; those of a network.
    weight_decay : float
        Pull of the kernels' weights to 0 (biases, and the scales and shifts of batch norm, are left
        alone); what it multiplies depends on the optimiser.
    momentum : float
        >= 0 and < 1; how much of its memory of gradients a step leaves.

    Attributes
    ----------
    state : dict of str to array
        What the next step depends on besides the parameters, named ``moment.parameter``.
    """

    moments: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        parameters: dict[str, Array],
        gradients: dict[str, Array],
        weight_decay: float = 0.0,
        momentum: float = 0.9,
    ) -> None:
        self._parameters, self._gradients = parameters, gradients
        self._decay, self._momentum = weight_decay, momentum
        self.steps = 0
        self.state = {
            f"{moment}.{name}": np.zeros_like(p)
            for moment in self.moments
            for name, p in parameters.items()
        }

    def step(self, rate: float) -> None:
        """Change the parameters, with a learning rate of ``rate``."""
        self.steps += 1
        code = kernels.chosen()
        change = getattr(code, type(self).__name__.lower())
        pieces = [
            (name, slice(first, first + code.PIECE))
            for name, p in self._parameters.items()
            for first in range(0, p.size, code.PIECE)
        ]

        def update(n: int) -> None:
            name, piece = pieces[n]
            decay = self._decay if name.endswith("weights") else 0.0
            moments = [self.state[f"{m}.{name}"].reshape(-1)[piece] for m in self.moments]
            parameter = self._parameters[name].reshape(-1)[piece]
            gradient = self._gradients[name].reshape(-1)[piece]
            change(parameter, gradient, moments, self._numbers(rate, decay))

        over(update, len(pieces))

    def _numbers(self, rate: float, decay: float) -> tuple[float, ...]:
        """Return what the kernel of the optimiser's name wants."""
        raise NotImplementedError


class SGD(Optimiser):
    """Gradient descent with momentum: v <- momentum v + gradient + decay w, w <- w - rate v."""

    moments = ("velocity",)

    def _numbers(self, rate: float, decay: float) -> tuple[float, ...]:
        return self._momentum, decay, rate


class AdamW(Optimiser):
    """Adam whose weight decay, w <- w - rate decay w, is apart from the gradient.

    The momentum is its beta_1.

    References
    ----------
    I. Loshchilov and F. Hutter, ICLR 2019, arXiv:1711.05101.
    """

    moments = ("mean", "square")
    beta_2 = 0.999
    epsilon = 1e-8

    def _numbers(self, rate: float, decay: float) -> tuple[float, ...]:
        first, second = self._momentum, self.beta_2
        # rate * (mean/(1 - first^t)) / (sqrt(square/(1 - second^t)) + epsilon)
        correction = 1 / math.sqrt(1 - second**self.steps)
        rate_now = rate / (1 - first**self.steps)
        return first, second, correction, self.epsilon, rate_now, 1 - rate * decay


def step_factor(done: float, milestones: Sequence[int], factor: float) -> float:
    """Share of the learning rate after ``done`` epochs: ``factor`` for every milestone passed."""
    return float(factor ** sum(done >= m for m in milestones))


def cosine_factor(done: float, epochs: int) -> float:
    """Share of the learning rate after ``done`` of ``epochs`` epochs, from 1 to 0.

    I. Loshchilov and F. Hutter, ICLR 2017, arXiv:1608.03983, without restarts.
    """
    return 0.5 * (1 + math.cos(math.pi * done / epochs))
