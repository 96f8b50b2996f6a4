"""The propagator's inner loops, compiled. Same functions and results as in `_kernels_numpy`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.engines.batch import Array
from circuitsim.engines.coefficients import Coefficients, Dynamics
from circuitsim.engines.rows import Rows
from circuitsim.files.compiled import compiled


def _compiled(function: Any) -> Any:
    # Sums may be reordered, to use vector registers; infinities and NaN must stay what they are.
    options = {"nogil": True, "fastmath": {"contract", "nsz", "reassoc"}}
    return compiled(function, **options)


def circuits_at_once(n_circuits: int, n_rows: int, n_inputs: int) -> int:
    """How many circuits to give `advance`: enough parts for a few threads to share evenly."""
    return max(1, n_circuits // 8)


def euler(
    rates: Array, square: Array, dynamics: Dynamics, dt: float, momentum: float
) -> Coefficients:
    """Coefficients of forward Euler; see `_kernels_numpy.euler`."""
    coefficients = Coefficients.empty(square.shape)
    signal = dynamics.signal
    by = dynamics.slopes.over(dt)
    kept = by._replace(rate=1 + by.rate, leak=1 + by.leak)
    for circuit, (*slopes, gamma) in enumerate(zip(*kept, dynamics.gamma, strict=True)):
        _euler(
            _contiguous(rates),
            _contiguous(square[circuit]),
            (*slopes, signal.rate, signal.common, momentum, gamma),
            *(values[circuit] for values in coefficients),
        )
    return coefficients


def advance(
    deviations: Rows,
    mean: Rows,
    inputs: Array,
    coefficients: Coefficients,
    slots: NDArray[np.int64],
) -> tuple[Array, Array]:
    """Carry circuits through some presentations; see `_kernels_numpy.advance`."""
    n_slots = int(slots.max(initial=-1)) + 1
    _, n_circuits, n_inputs = inputs.shape
    # One more row, for what is not recorded.
    means, squares = np.zeros((2, n_circuits, n_slots + 1, n_inputs))
    for circuit in range(n_circuits):
        x = _contiguous(inputs[:, circuit])
        weights, of_deviation, of_mean = (values[circuit] for values in coefficients)
        _advance_mean(*_parts(mean, circuit), x, weights, of_mean, slots, means[circuit])
        *parts, _ = _parts(deviations, circuit)
        _advance_deviations(*parts, x, weights, of_deviation, slots, squares[circuit])
    return means[:, :-1].swapaxes(0, 1), squares[:, :-1].swapaxes(0, 1)


def _contiguous(values: Array) -> Array:
    """Copy, since for each kind of array (read-only, strided) a function would be compiled anew."""
    return np.array(values, order="C")


def _parts(rows: Rows, circuit: int) -> tuple[Array, ...]:
    return (
        rows.init[circuit],
        rows.moved[circuit],
        rows.velocity[circuit],
        rows.rate[circuit],
        rows.inhibition[circuit],
    )


# `_euler` works on many presentations side by side, in one flat array of rows of _LANES numbers:
# |x|^2 (times what a drive adds to rates in a step), the learning rate, a - 1, c, e and f, then u,
# p, q and h of the nine columns of `_kernels_numpy.euler`. Constant unsigned offsets into one array
# are what lets the compiler use vector registers: it can see that no two rows overlap, and that no
# index counts from the end.
_LANES = np.uint64(64)
_SQUARE, _RATE, _A, _C, _E, _F = (np.uint64(row * 64) for row in range(6))
_COLUMNS = tuple(np.uint64((6 + 4 * column) * 64) for column in range(9))
_Y, _D, _V, _U, _MEAN_Y, _MEAN_D, _MEAN_V, _MEAN_U, _MEAN_H = _COLUMNS
_P, _Q, _H = np.uint64(64), np.uint64(128), np.uint64(192)


@_compiled
def _euler(rates, square, parameters, weights, deviation, mean):  # type: ignore[no-untyped-def]
    n_steps, n_presentations = rates.shape
    lanes = np.empty(42 * 64)
    rows = lanes.reshape(42, 64)
    for first in range(0, n_presentations, 64):
        n = min(64, n_presentations - first)
        lanes[:] = 0
        rows[0, :n] = parameters[2] * square[first : first + n]
        for start in (_F, _U, _MEAN_U, _MEAN_H + _H):
            lanes[start : start + _LANES] = 1
        for step in range(n_steps):
            rows[1, :n] = rates[step, first : first + n]
            _step(lanes, np.uint64(n), parameters)
        for i in range(n):
            b = first + i
            weights[b, 0] = 1 + rows[2, i]
            weights[b, 1:] = rows[3:6, i]
            for column in range(9):
                u = 6 + 4 * column  # then p, q, h
                if column < 4:
                    matrix, source = deviation[b], column
                else:
                    matrix, source = mean[b], column - 4
                    matrix[3, source] = rows[u + 3, i]
                matrix[0, source] = rows[u + 1, i]
                matrix[1, source] = rows[u + 2, i]
                matrix[2, source] = rows[u, i]


@_compiled
def _step(lanes, n, parameters):  # type: ignore[no-untyped-def]
    by_drive, momentum, gamma = parameters[2], parameters[7], parameters[8]
    for i in range(n):
        a, c = lanes[_A + i], lanes[_C + i]
        by_a, by_c = by_drive * a, by_drive * c
        _step_deviation(lanes, i, _Y, by_drive, parameters)
        _step_deviation(lanes, i, _D, by_a, parameters)
        _step_deviation(lanes, i, _V, by_c, parameters)
        _step_deviation(lanes, i, _U, 0.0, parameters)
        _step_mean(lanes, i, _MEAN_Y, by_drive, parameters)
        _step_mean(lanes, i, _MEAN_D, by_a, parameters)
        _step_mean(lanes, i, _MEAN_V, by_c, parameters)
        _step_mean(lanes, i, _MEAN_U, 0.0, parameters)
        _step_mean(lanes, i, _MEAN_H, 0.0, parameters)
        pull = lanes[_RATE + i] * gamma
        e = momentum * lanes[_E + i] - pull * (1 + a)
        f = momentum * lanes[_F + i] - pull * c
        lanes[_E + i], lanes[_F + i] = e, f
        lanes[_A + i], lanes[_C + i] = a + e, c + f


@_compiled
def _step_deviation(lanes, i, column, source, parameters):  # type: ignore[no-untyped-def]
    kept, of_rate, momentum, gamma = parameters[0], parameters[5], parameters[7], parameters[8]
    at = column + i
    u, p, q = lanes[at], lanes[at + _P], lanes[at + _Q]
    u = kept * u + (source + lanes[_SQUARE + i] * p)
    q = momentum * q - lanes[_RATE + i] * (of_rate * u + gamma * p)
    lanes[at], lanes[at + _P], lanes[at + _Q] = u, p + q, q


@_compiled
def _step_mean(lanes, i, column, source, parameters):  # type: ignore[no-untyped-def]
    kept, by_inhibition, _, received, kept_inhibition = parameters[:5]
    of_rate, of_inhibition, momentum, gamma = parameters[5:]
    at = column + i
    u, p, q, inhibition = lanes[at], lanes[at + _P], lanes[at + _Q], lanes[at + _H]
    new = kept * u + by_inhibition * inhibition
    new += source + lanes[_SQUARE + i] * p
    inhibition = received * u + kept_inhibition * inhibition
    signal = of_rate * new + of_inhibition * inhibition
    q = momentum * q - lanes[_RATE + i] * (signal + gamma * p)
    lanes[at], lanes[at + _P], lanes[at + _Q], lanes[at + _H] = new, p + q, q, inhibition


@_compiled
def _advance_mean(  # type: ignore[no-untyped-def]
    init, moved, velocity, rate, inhibition, inputs, weights, mean, slots, means
):
    for row in range(init.shape[0]):
        w_init, d, v, u, h = init[row], moved[row], velocity[row], rate[row], inhibition[row]
        for presentation in range(inputs.shape[0]):
            x = inputs[presentation]
            y = dx = vx = 0.0
            for j in range(x.shape[0]):
                y += (w_init[j] + d[j]) * x[j]
                dx += d[j] * x[j]
                vx += v[j] * x[j]
            m = mean[presentation]
            p = m[0, 0] * y + m[0, 1] * dx + m[0, 2] * vx + m[0, 3] * u + m[0, 4] * h
            q = m[1, 0] * y + m[1, 1] * dx + m[1, 2] * vx + m[1, 3] * u + m[1, 4] * h
            u, h = (
                m[2, 0] * y + m[2, 1] * dx + m[2, 2] * vx + m[2, 3] * u + m[2, 4] * h,
                m[3, 0] * y + m[3, 1] * dx + m[3, 2] * vx + m[3, 3] * u + m[3, 4] * h,
            )
            a, c, e, f = weights[presentation]
            recorded = means[slots[presentation]]
            for j in range(x.shape[0]):
                new = a * d[j] + c * v[j] + p * x[j]
                v[j] = e * d[j] + f * v[j] + q * x[j]
                d[j] = new
                recorded[j] = w_init[j] + new
        rate[row], inhibition[row] = u, h


@_compiled
def _advance_deviations(  # type: ignore[no-untyped-def]
    init, moved, velocity, rate, inputs, weights, deviation, slots, squares
):
    # Rows do not interact: each pair is carried through all presentations while it is in the cache.
    n_rows, n_inputs = init.shape
    spare = np.zeros((3, n_inputs))
    for row in range(0, n_rows, 2):
        i0, d0, v0, u0 = init[row], moved[row], velocity[row], rate[row]
        if row + 1 < n_rows:
            i1, d1, v1, u1 = init[row + 1], moved[row + 1], velocity[row + 1], rate[row + 1]
        else:
            i1, d1, v1, u1 = spare[0], spare[1], spare[2], 0.0
        y0 = y1 = dx0 = dx1 = vx0 = vx1 = 0.0
        ahead = inputs[0]
        for j in range(n_inputs):
            y0 += (i0[j] + d0[j]) * ahead[j]
            y1 += (i1[j] + d1[j]) * ahead[j]
            dx0 += d0[j] * ahead[j]
            dx1 += d1[j] * ahead[j]
            vx0 += v0[j] * ahead[j]
            vx1 += v1[j] * ahead[j]
        for presentation in range(inputs.shape[0]):
            m = deviation[presentation]
            p0 = m[0, 0] * y0 + m[0, 1] * dx0 + m[0, 2] * vx0 + m[0, 3] * u0
            p1 = m[0, 0] * y1 + m[0, 1] * dx1 + m[0, 2] * vx1 + m[0, 3] * u1
            q0 = m[1, 0] * y0 + m[1, 1] * dx0 + m[1, 2] * vx0 + m[1, 3] * u0
            q1 = m[1, 0] * y1 + m[1, 1] * dx1 + m[1, 2] * vx1 + m[1, 3] * u1
            u0 = m[2, 0] * y0 + m[2, 1] * dx0 + m[2, 2] * vx0 + m[2, 3] * u0
            u1 = m[2, 0] * y1 + m[2, 1] * dx1 + m[2, 2] * vx1 + m[2, 3] * u1
            a, c, e, f = weights[presentation]
            x = inputs[presentation]
            # The projections on the next input are taken on the way; the last are not used.
            ahead = inputs[min(presentation + 1, inputs.shape[0] - 1)]
            recorded = squares[slots[presentation]]
            y0 = y1 = dx0 = dx1 = vx0 = vx1 = 0.0
            for j in range(n_inputs):
                new0 = a * d0[j] + c * v0[j] + p0 * x[j]
                new1 = a * d1[j] + c * v1[j] + p1 * x[j]
                v0[j] = e * d0[j] + f * v0[j] + q0 * x[j]
                v1[j] = e * d1[j] + f * v1[j] + q1 * x[j]
                d0[j] = new0
                d1[j] = new1
                w0 = i0[j] + new0
                w1 = i1[j] + new1
                y0 += w0 * ahead[j]
                y1 += w1 * ahead[j]
                dx0 += new0 * ahead[j]
                dx1 += new1 * ahead[j]
                vx0 += v0[j] * ahead[j]
                vx1 += v1[j] * ahead[j]
                recorded[j] += w0 * w0 + w1 * w1
        rate[row] = u0
        if row + 1 < n_rows:
            rate[row + 1] = u1


@_compiled
def _combine(out, by, rows):  # type: ignore[no-untyped-def]
    """Add a combination of rows, four at a time for ``out`` to be read and written less often."""
    n_rows, n = rows.shape
    whole = n_rows - n_rows % 4
    for s in range(0, whole, 4):
        a, b, c, d = by[s], by[s + 1], by[s + 2], by[s + 3]
        r0, r1, r2, r3 = rows[s], rows[s + 1], rows[s + 2], rows[s + 3]
        for i in range(n):
            out[i] += (a * r0[i] + b * r1[i]) + (c * r2[i] + d * r3[i])
    for s in range(whole, n_rows):
        a, r0 = by[s], rows[s]
        for i in range(n):
            out[i] += a * r0[i]


@_compiled
def through(  # type: ignore[no-untyped-def]
    in_frame, by_slow, by_fast, starts, rates, added, remembered
):
    """Carry rows through a block of presentations; see `_kernels_numpy.through`."""
    slow, fast = added[0], added[1]
    n_presentations, n_rows = slow.shape
    # Rows do not interact: a few are carried through the block while they are in the cache.
    for first in range(0, n_rows, 64):
        last = min(first + 64, n_rows)
        for t in range(n_presentations):
            start = starts[t]
            _combine(start[1, first:last], by_slow[t, :t], slow[:t, first:last])
            late = max(0, t - remembered)
            _combine(start[2, first:last], by_fast[t, late:t], fast[late:t, first:last])
            m = in_frame[t]
            for i in range(first, last):
                y, a, b, u, h = start[0, i], start[1, i], start[2, i], rates[0, i], rates[1, i]
                slow[t, i] = m[0, 0] * y + m[0, 1] * a + m[0, 2] * b + m[0, 3] * u + m[0, 4] * h
                fast[t, i] = m[1, 0] * y + m[1, 1] * a + m[1, 2] * b + m[1, 3] * u + m[1, 4] * h
                rates[0, i] = m[2, 0] * y + m[2, 1] * a + m[2, 2] * b + m[2, 3] * u + m[2, 4] * h
                rates[1, i] = m[3, 0] * y + m[3, 1] * a + m[3, 2] * b + m[3, 3] * u + m[3, 4] * h
