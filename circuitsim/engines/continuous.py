"""Continuous time: the coefficients of a presentation from the circuit's differential equations.

Heavy-ball momentum mu for each step of 1 ms is a low-pass filter with the time constant
1 ms/(1 - mu), so that D, the weights less w_init, and their velocity V (per ms) obey

    dD/dt = V,    dV/dt = -(1 - mu) V - l(t) (signal x + gamma D)

or, without momentum, dD/dt = -l(t) (signal x + gamma D), where l is the learning rate of a step of
1 ms. As in discrete time, D and V move only along x and by a common decay. The equations that are
left for the coefficients are linear, and vary in time as l(t) does. They are solved by Taylor
series on segments of the presentation that are short enough for the series to converge at once and
for l(t) to be a polynomial, to rounding.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.polynomial.polynomial import polyfromroots
from numpy.typing import NDArray

from circuitsim.engines.batch import Array, Batch
from circuitsim.engines.coefficients import Coefficients, Dynamics

_TERMS = 60  # of a Taylor series, at most
_NEGLIGIBLE = 1e-18  # a term of it that ends it
_DEGREE = 8  # of the polynomial for the learning rate
_TOLERANCE = 1e-12  # of that polynomial, relative

# Where the polynomial is fitted and checked, in a segment from 0 to 1.
_NODES = (1 + np.cos(np.pi * (np.arange(_DEGREE + 1) + 0.5) / (_DEGREE + 1))) / 2
_CHECKS = (_NODES[1:] + _NODES[:-1]) / 2
# Column i: the powers of the polynomial that is 1 at node i and 0 at the others.
_POWERS = np.stack(
    [
        polyfromroots(others) / np.prod(node - others)
        for node, others in ((node, np.delete(_NODES, i)) for i, node in enumerate(_NODES))
    ],
    axis=1,
)


@dataclass(frozen=True)
class Continuous:
    """The equations themselves, solved to rounding."""

    batch: Batch

    @property
    def step(self) -> float:
        """Time in ms for which velocities count."""
        return 1.0

    def rates(self, first: int, stop: int) -> Array:
        """Times in ms at which presentations start: the learning rate is a function of time."""
        starts = self.batch.presentation * np.arange(first, stop, dtype=float)
        return self.batch.state.elapsed + starts

    def coefficients(self, rates: Array, square: Array, dynamics: Dynamics) -> Coefficients:
        """Coefficients from the times at which presentations start, |x|^2 and parameters."""
        coefficients = Coefficients.empty(square.shape)
        for number, values in enumerate(square):
            circuit = dynamics.of_circuits(slice(number, number + 1))
            for some, edges in self._segments(rates, values, circuit):
                solved = self._solve(rates[some], edges, values[some], circuit)
                for all_values, part in zip(coefficients, solved, strict=True):
                    all_values[number, some] = part
        return coefficients

    def _segments(
        self, starts: Array, square: Array, circuit: Dynamics
    ) -> list[tuple[NDArray[np.intp], Array]]:
        """Presentations, by number, and the edges in ms of the segments to divide them into."""
        duration = self.batch.presentation
        n_segments = math.ceil(duration * self._fastest(starts, square, circuit))
        edges = np.linspace(0, duration, n_segments + 1)
        fits = np.all(self._polynomials(starts, edges)[1], axis=0)
        groups = [(np.flatnonzero(fits), edges)] if fits.any() else []
        # Those at the onset, or near a singularity of the rate, need divisions of their own.
        for number in np.flatnonzero(~fits):
            groups.append((np.array([number]), self._divided(starts[number], edges)))
        return groups

    def _fastest(self, starts: Array, square: Array, circuit: Dynamics) -> float:
        """Upper bound for the rates per ms of what happens: the rates' and the weights' modes."""
        kappa = 1 - self.batch.plasticity.momentum
        signal, gamma = circuit.signal, float(circuit.gamma[0])
        slopes = [abs(float(values[0])) for values in circuit.slopes]
        by_rate, by_inhibition, by_drive, received, leak = slopes
        learning = self._learning_rate(
            np.linspace(starts[0], starts[-1] + self.batch.presentation, 1000)
        ).max()
        gain = (abs(signal.rate) + abs(signal.common)) * float(square.max(initial=0)) * by_drive
        rates = max(by_rate, leak) + math.sqrt(by_inhibition * received)
        if self.batch.plasticity.momentum:
            return rates + kappa + (learning * gain) ** (1 / 3) + math.sqrt(learning * gamma)
        return rates + math.sqrt(learning * gain) + learning * gamma

    def _learning_rate(self, times: Array) -> Array:
        return self.batch.plasticity.learning_rate.at(times)

    def _polynomials(self, starts: Array, edges: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Learning rates as powers (power, segment, presentation), and whether they fit."""
        left, length = edges[:-1, np.newaxis], np.diff(edges)[:, np.newaxis]

        def at(points: Array) -> Array:
            return self._learning_rate(starts + left + length * points[:, np.newaxis, np.newaxis])

        values = at(_NODES)
        # Most of the rate is constant: the rest has less to lose by rounding.
        powers = np.tensordot(_POWERS, values - values[0], axes=1)
        powers[0] += values[0]
        error = np.tensordot(np.vander(_CHECKS, _DEGREE + 1, increasing=True), powers, axes=1)
        error -= at(_CHECKS)
        fits = np.abs(error).max(axis=0) <= _TOLERANCE * np.abs(values).max(axis=0)
        onset = self._onset()
        return powers, fits & ~((starts + left < onset) & (onset < starts + left + length))

    def _onset(self) -> float:
        return self.batch.plasticity.learning_rate.onset_ms

    def _divided(self, start: float, edges: Array) -> Array:
        """Edges of segments on which the learning rate is a polynomial, for one presentation."""
        onset = self._onset() - start
        if 0 < onset < self.batch.presentation:
            edges = np.union1d(edges, onset)
        starts = np.array([start])
        while True:
            bad = ~self._polynomials(starts, edges)[1][:, 0]
            # Where rounding of times is all there is to see, halving would not end.
            bad &= np.diff(edges) > 1e-9 * self.batch.presentation
            if not bad.any():
                return edges
            edges = np.union1d(edges, (edges[:-1] + np.diff(edges) / 2)[bad])

    def _solve(
        self, starts: Array, edges: Array, square: Array, circuit: Dynamics
    ) -> tuple[Array, Array, Array]:
        """Coefficients of one circuit for presentations that are divided at the same times."""
        momentum = self.batch.plasticity.momentum
        equations = _Equations(square, circuit, 1 - momentum if momentum else None)
        state = equations.start()
        polynomials, _ = self._polynomials(starts, edges)
        for segment, length in enumerate(np.diff(edges)):
            _add_series(state, equations, polynomials[:, segment], length)

        u, h, along, pace = state
        if not momentum:  # then the velocity is what the update makes it
            pace = -self._learning_rate(starts + edges[-1]) * equations.pull(state, 1.0)
        p, q = along[:9], pace[:9]
        return (
            np.stack([1 + along[9], along[10], pace[9], pace[10]], axis=-1),
            np.moveaxis(np.array([p[:4], q[:4], u[:4]]), (0, 1), (-2, -1)),
            np.moveaxis(np.array([p[4:], q[4:], u[4:], h]), (0, 1), (-2, -1)),
        )


class _Values(NamedTuple):
    """What the equations are about, each of shape (column, presentation).

    Columns 0-3 belong to a deviation that is driven by y, d, v, u alone; columns 4-8 to the mean,
    by y, d, v, u, h; columns 9-10 to weights without input, moved from w_init or in motion.
    """

    rate: Array  # u, columns 0-8
    inhibition: Array  # h, columns 4-8
    along: Array  # p; then a - 1 and c
    pace: Array  # q; then e and f


@dataclass(frozen=True)
class _Equations:
    """The equations of one circuit under inputs of some |x|^2.

    Attributes
    ----------
    square : ndarray, shape (presentation,)
    circuit : Dynamics
    filtered : float or None
        Rate per ms of the filter that momentum is, if there is one.
    """

    square: Array
    circuit: Dynamics
    filtered: float | None

    def start(self) -> _Values:
        values = _Values(*(np.zeros((columns, len(self.square))) for columns in (9, 5, 11, 11)))
        values.rate[[3, 7]] = values.inhibition[4] = values.pace[10] = 1
        return values

    def pull(self, values: _Values, one: float) -> Array:
        """Minus the update for a learning rate of 1; ``one`` is the constant in column d."""
        signal, gamma = self.circuit.signal, self.circuit.gamma
        pull = gamma * values.along
        pull[:9] += signal.rate * values.rate
        pull[4:9] += signal.common * values.inhibition
        pull[9] += gamma * one
        return pull

    def slopes(self, values: _Values, update: Array, one: float) -> _Values:
        """Derivatives in time; ``one`` is the constant in the drives y."""
        rate, inhibition, along, pace = values
        by = self.circuit.slopes
        drive = self.square * along[:9]
        drive[[0, 4]] += one
        drive[1:3] += along[9:]
        drive[5:7] += along[9:]
        change = by.drive * drive + by.rate * rate
        change[4:] += by.inhibition * inhibition
        follow = by.received * rate[4:] + by.leak * inhibition
        if self.filtered is None:
            return _Values(change, follow, update, np.zeros_like(pace))
        return _Values(change, follow, pace, update - self.filtered * pace)


def _add_series(state: _Values, equations: _Equations, learning: Array, length: float) -> None:
    """Advance by the length of a segment, in place, the learning rate being a polynomial.

    With time in units of the length, the terms of x' = f(x) + l(t) g(x) follow one another by
    x_{k+1} = length (f(x_k) + sum_i l_i g(x_{k-i}))/(k + 1).
    """
    term = _Values(*(values.copy() for values in state))
    pulls: deque[Array] = deque(maxlen=len(learning))
    for order in range(_TERMS):
        one = 1.0 if order == 0 else 0.0  # a constant has no further terms
        pulls.appendleft(equations.pull(term, one))
        update = -sum(power * pull for power, pull in zip(learning, pulls, strict=False))
        slopes = equations.slopes(term, update, one)
        term = _Values(*(length / (order + 1) * slope for slope in slopes))
        for values, further in zip(state, term, strict=True):
            values += further
        if max(np.abs(further).max() for further in term) < _NEGLIGIBLE:
            break
