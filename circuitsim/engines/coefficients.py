"""What one presentation does to a linear circuit, in a handful of numbers.

While an input x is shown, weights move only along x and by the decay that all neurons share. Let D
be how far a neuron's weights w have moved from w_init, and M their change per step. Then after any
number of steps

    D <- a D + c M + p x,        M <- e D + f M + q x,

where a, c, e, f belong to the circuit, and p and q are the neuron's. Its rate u = r - b, p and q
obey a linear recursion that is driven by the projections of its weights at the start of the
presentation,

    y = w.x,    d = D.x,    v = M.x,

by its rate then and, for the pool's mean, by the rate h of the interneuron. So p, q, u (and h) at
the end are a small matrix times (y, d, v, u, h) at the start. Deviations from the pool's mean do
not feel the interneuron: all of them share one matrix, the mean has another. Both depend on the
input only through s = |x|^2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from circuitsim.dynamics import Slopes
from circuitsim.engines.batch import Array
from circuitsim.rules import LinearSignal


class Coefficients(NamedTuple):
    """What each presentation does to each circuit.

    Attributes
    ----------
    weights : ndarray, shape (circuit, presentation, 4)
        a, c, e, f.
    deviation : ndarray, shape (circuit, presentation, 3, 4)
        p, q, u of a deviation from the mean after the presentation (rows), from y, d, v, u at its
        start (columns).
    mean : ndarray, shape (circuit, presentation, 4, 5)
        p, q, u, h of the mean, from y, d, v, u, h.
    """

    weights: Array
    deviation: Array
    mean: Array

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> Coefficients:
        """Space for the coefficients of (circuit, presentation)."""
        return cls(*(np.empty((*shape, *end)) for end in ((4,), (3, 4), (4, 5))))

    @classmethod
    def joined(cls, parts: Iterable[Coefficients]) -> Coefficients:
        """Coefficients of the circuits in all parts."""
        return cls(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    def of_circuits(self, which: NDArray[np.intp]) -> Coefficients:
        """Coefficients of some circuits, by number."""
        return Coefficients(*(values[which] for values in self))


class Dynamics(NamedTuple):
    """Parameters that the coefficients depend on.

    Attributes
    ----------
    signal : LinearSignal
        The rule.
    slopes : Slopes, of arrays of shape (circuit,)
        The circuits, per ms.
    gamma : ndarray, shape (circuit,)
    """

    signal: LinearSignal
    slopes: Slopes
    gamma: Array

    def of_circuits(self, which: slice) -> Dynamics:
        """Parameters of some circuits."""
        return Dynamics(self.signal, self.slopes.of_circuits(which), self.gamma[which])


def of_updates(rates: Array, square: Array, dynamics: Dynamics, momentum: float) -> Coefficients:
    """Coefficients of rules that make one update a presentation, from the drive itself.

    Parameters
    ----------
    rates : ndarray, shape (presentation,)
        Learning rate of each update.
    square : ndarray, shape (circuit, presentation)
        |x|^2, for its shape.
    dynamics : Dynamics
        Rule and gamma.
    momentum : float
        Heavy-ball momentum of an update.
    """
    signal = dynamics.signal
    rates = np.broadcast_to(rates, square.shape)
    weights = np.empty((*square.shape, 4))
    weights[..., 2] = -rates * dynamics.gamma[:, np.newaxis]
    weights[..., 0] = 1 + weights[..., 2]
    weights[..., [1, 3]] = momentum
    deviation, mean = np.zeros((*square.shape, 3, 4)), np.zeros((*square.shape, 4, 5))
    deviation[..., :2, 0] = -signal.rate * rates[..., np.newaxis]
    mean[..., :2, 0] = -(signal.rate + signal.common) * rates[..., np.newaxis]
    deviation[..., 2, 3] = mean[..., 2, 3] = mean[..., 3, 4] = 1
    return Coefficients(weights, deviation, mean)
