"""How the equations are advanced in time: one update a presentation, or forward Euler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from circuitsim.engines.batch import Array, Batch
from circuitsim.engines.coefficients import Coefficients, Dynamics, of_updates


class Scheme(Protocol):
    """What the propagator has to know of a scheme."""

    @property
    def step(self) -> float:
        """Time in ms for which the velocity in `Rows` counts (1 where it counts per update)."""

    def rates(self, first: int, stop: int) -> Array:
        """Learning rates, shape (..., presentation), of some presentations of this run.

        In continuous time, the times in ms at which they start: the rate varies within them.
        """

    def coefficients(self, rates: Array, square: Array, dynamics: Dynamics) -> Coefficients:
        """Coefficients from what `rates` gives, |x|^2 (circuit, presentation) and parameters."""


@dataclass(frozen=True)
class Updates(Scheme):
    """One update a presentation, from the drive itself."""

    batch: Batch

    @property
    def step(self) -> float:
        return 1.0

    def rates(self, first: int, stop: int) -> Array:
        done = self.batch.state.presentations
        return self.batch.plasticity.learning_rate.at(done + np.arange(first, stop))

    def coefficients(self, rates: Array, square: Array, dynamics: Dynamics) -> Coefficients:
        return of_updates(rates, square, dynamics, self.batch.plasticity.momentum)


@dataclass(frozen=True)
class Euler(Scheme):
    """Forward Euler, the weights updated at every step with the rates of its end.

    Attributes
    ----------
    batch : Batch
    kernel : callable
        ``euler`` of one of the modules with kernels.
    """

    batch: Batch
    kernel: Callable[..., Coefficients]

    @property
    def dt(self) -> float:
        """Step in ms."""
        assert self.batch.dt is not None
        return self.batch.dt

    @property
    def step(self) -> float:
        return self.dt

    def rates(self, first: int, stop: int) -> Array:
        plasticity, n_steps = self.batch.plasticity, self.batch.steps
        done = round(self.batch.state.elapsed / self.dt)
        steps = done + n_steps * np.arange(first, stop) + np.arange(n_steps)[:, np.newaxis]
        rates = plasticity.learning_rate.at(steps * self.dt)
        rates = plasticity.per_step(self.dt).rate_factor * rates
        return np.where(steps >= plasticity.learning_rate.first_step(self.dt), rates, 0.0)

    def coefficients(
        self, rates: Array, square: Array, dynamics: Dynamics, **options: Any
    ) -> Coefficients:
        momentum = self.batch.plasticity.per_step(self.dt).momentum
        return self.kernel(rates, square, dynamics, self.dt, momentum, **options)
