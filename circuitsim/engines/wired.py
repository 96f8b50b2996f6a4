"""A layer as one circuit in plain numbers: who is wired to whom, and the steps of all its pools.

`Wired` is to a layer what `circuitsim.engines.batch.Batch` is to pools: what an engine needs,
checked already. `by_steps` makes the steps of all neurons at once in NumPy; the same in Brian2 is
`circuitsim.engines.wired_network`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circuitsim.checks.validation import ParameterError
from circuitsim.dynamics import Dynamics
from circuitsim.engines.batch import Array, Progress
from circuitsim.inputs import InputSource
from circuitsim.parameters import Plasticity
from circuitsim.public import own

__dir__ = own(__name__)

_BLOCK = 64  # presentations whose sheets are drawn at a time


@dataclass
class Wired:
    """A sheet of inputs, neurons with receptive fields on it, and their interneurons.

    Attributes
    ----------
    w_init : ndarray, shape (position, input, output channel)
        Of the positions that sleep.
    fields : ndarray of int, shape (position, input)
        The cell of the sheet that each input is.
    pool : ndarray of int, shape (position,)
        Those of a pool share an interneuron, one for each output channel.
    phase : ndarray of int, shape (cell,)
        Cells of one phase are laterally connected.
    gain : float
        Of the lateral connections; 1 for the limit in which they repeat a pattern exactly.
    drives : InputSource, shape (presentation, cell)
        What each cell is driven by alone.
    alpha, tau, tau_inh, b : float
        Times in ms.
    dynamics : Dynamics
    plasticity : Plasticity
    steps : int
    dt : float
        In ms.
    record : ndarray of int
        After how many presentations weights are kept; ascending, the last is all of them.
    """

    w_init: Array
    fields: NDArray[np.int64]
    pool: NDArray[np.int64]
    phase: NDArray[np.int64]
    gain: float
    drives: InputSource
    alpha: float
    tau: float
    tau_inh: float
    b: float
    dynamics: Dynamics
    plasticity: Plasticity
    steps: int
    dt: float
    record: NDArray[np.int64]

    @property
    def n_presentations(self) -> int:
        """Number of patterns."""
        return self.drives.shape[0]

    def learning_rates(self, presentation: int) -> Array:
        """Learning rate of each step of a presentation (of its one update)."""
        schedule = self.plasticity.learning_rate
        if self.plasticity.definition.per_presentation:
            return schedule.at(np.array([presentation]))
        numbers = self.steps * presentation + np.arange(self.steps)
        rates = self.plasticity.per_step(self.dt).rate_factor * schedule.at(numbers * self.dt)
        return np.where(numbers >= schedule.first_step(self.dt), rates, 0.0)

    def sheets(self) -> Iterator[Array]:
        """Give the activity of all cells, settled, in one presentation after another.

        A cell with the drive I obeys tau dx/dt = -x + g xbar + (1 - g) I, where xbar is the mean
        over the cells of its phase, and settles at x = Ibar + (1 - g)(I - Ibar).
        """
        cells = np.bincount(self.phase)
        for first in range(0, self.n_presentations, _BLOCK):
            for drive in self.drives.block(first, min(first + _BLOCK, self.n_presentations)):
                mean = (np.bincount(self.phase, drive) / cells)[self.phase]
                yield mean + (1 - self.gain) * (drive - mean)


@dataclass
class Slept:
    """What an engine makes of a `Wired`.

    Attributes
    ----------
    weights : ndarray, shape (record, position, input, output channel)
    rate : ndarray, shape (position, output channel)
    rate_inh : ndarray, shape (pool, output channel)
    """

    weights: Array
    rate: Array
    rate_inh: Array


def by_steps(wired: Wired, progress: Progress | None = None) -> Slept:
    """Run a layer in NumPy, synapses following once a presentation (`circuitsim.equations`).

    Raises
    ------
    ParameterError
        If the rule is not linear in the rates.
    """
    linear = wired.plasticity.definition.linear
    if linear is None:
        raise ParameterError(
            "Plasticity.rule",
            "is not linear in the rates, which the stepper of layers needs; use engine='brian2'",
            wired.plasticity.definition.signal,
        )
    run = _Steps(wired, linear.rate, linear.common)
    advance = run.update if wired.plasticity.definition.per_presentation else run.present
    kept = [wired.w_init] if 0 in wired.record else []
    for number, sheet in enumerate(wired.sheets()):
        advance(sheet[wired.fields], wired.learning_rates(number))
        if number + 1 in wired.record:
            kept.append(wired.w_init + run.moved)
        if progress is not None:
            progress((number + 1) / wired.n_presentations)
    return Slept(np.array(kept), run.rate + wired.b, run.rate_inh)


class _Steps:
    """The state of a layer, its rates above their baseline."""

    def __init__(self, wired: Wired, rate: float, common: float) -> None:
        self.wired, self._of_rate, self._of_common = wired, rate, common
        self.moved = np.zeros_like(wired.w_init)
        self._momentum = np.zeros_like(wired.w_init)
        positions, _, channels = wired.w_init.shape
        self.rate = np.full((positions, channels), -wired.b)
        self.rate_inh = np.zeros((int(wired.pool.max(initial=-1)) + 1, channels))
        self._mean = _mean_over(wired.pool)
        self._gamma = float(np.asarray(wired.plasticity.gamma))

    def update(self, x: Array, rates: Array) -> None:
        """Make the one update of a presentation of what each position sees, (position, input)."""
        z = _drive(x, self.wired.w_init + self.moved)
        signal = self._of_rate * z + self._of_common * self._mean(z)[self.wired.pool]
        change = x[:, :, np.newaxis] * signal[:, np.newaxis] + self._gamma * self.moved
        self._momentum *= self.wired.plasticity.momentum
        self._momentum -= rates[0] * change
        self.moved += self._momentum

    def present(self, x: Array, rates: Array) -> None:
        """Make the steps of a presentation."""
        wired, gamma = self.wired, self._gamma
        pool, momentum = wired.pool, wired.plasticity.per_step(wired.dt).momentum
        square = np.square(x).sum(axis=1, keepdims=True)
        z_init, z_moved, z_momentum = (
            _drive(x, of) for of in (wired.w_init, self.moved, self._momentum)
        )
        along, velocity = np.zeros((2, *self.rate.shape))
        kept, from_momentum, to_momentum, momentum_kept = 1.0, 0.0, 0.0, 1.0
        r, r_inh = self.rate, self.rate_inh
        fast, slow = wired.dt / wired.tau, wired.dt / wired.tau_inh
        for rate in rates:
            z = z_init + kept * z_moved + from_momentum * z_momentum + along * square
            mean = self._mean(r)
            r = r + fast * (z - r - wired.alpha * r_inh[pool])
            r_inh = r_inh + slow * (mean - r_inh)
            signal = self._of_rate * r
            if self._of_common:
                signal += self._of_common * r_inh[pool]
            velocity = momentum * velocity - rate * (signal + gamma * along)
            along = along + velocity
            to_momentum = momentum * to_momentum - rate * gamma * kept
            kept += to_momentum
            momentum_kept = momentum * momentum_kept - rate * gamma * from_momentum
            from_momentum += momentum_kept
        self.rate, self.rate_inh = r, r_inh
        x = x[:, :, np.newaxis]
        self.moved, self._momentum = (
            kept * self.moved + from_momentum * self._momentum + along[:, np.newaxis] * x,
            to_momentum * self.moved + momentum_kept * self._momentum + velocity[:, np.newaxis] * x,
        )


def _drive(x: Array, weights: Array) -> Array:
    """What each position's channels are driven by: (position, output channel)."""
    return np.matmul(x[:, np.newaxis], weights)[:, 0]


def _mean_over(pool: NDArray[np.int64]) -> Callable[[Array], Array]:
    """Return what takes means over pools, (position, channel) to (pool, channel)."""
    order = np.argsort(pool, kind="stable")
    sizes = np.bincount(pool)
    starts = np.cumsum(sizes) - sizes
    return lambda values: np.add.reduceat(values[order], starts) / sizes[:, np.newaxis]
