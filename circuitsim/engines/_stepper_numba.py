"""The stepper's loops, compiled: all but the steps themselves, whose code is made from equations.

What is made of equations is handed over as a function, so that what is here is compiled once and
kept. Neurons are taken 64 at a time, each block with all its rows in one array: fixed distances
between rows let the compiler see that none overlap, and use vector registers. See also
`_kernels_numba`.
"""

from __future__ import annotations

import math

import numpy as np

from circuitsim._noise_numba import normals
from circuitsim.files.compiled import compiled

LANES = 64
_LANES = np.uint64(LANES)
# Rows of a block: rates, the way along x, its change by the last step, what drives at first; what
# neurons differ in; inhibition as felt before a step and after it; and what the input projects on.
ROWS = (
    "rate", "moved", "pace", "drive", "alpha", "tau", "scale", "square", "felt", "felt_now",
    "of_moved", "of_velocity",
)  # fmt: skip
ROW = {name: np.uint64(LANES * number) for number, name in enumerate(ROWS)}
BLOCK = LANES * len(ROWS)

_RATE, _MOVED, _PACE, _DRIVE = (ROW[name] for name in ("rate", "moved", "pace", "drive"))
_SQUARE = ROW["square"]
ROW_ALPHA, ROW_TAU, ROW_SCALE, ROW_SQUARE = (
    LANES * ROWS.index(name) for name in ("alpha", "tau", "scale", "square")
)
_OF_MOVED, _OF_VELOCITY = ROW["of_moved"], ROW["of_velocity"]


def _sums(function):  # type: ignore[no-untyped-def]
    """Compile; sums may be reordered, and infinities and NaN stay what they are."""
    fast = {"contract", "nsz", "reassoc"}
    return compiled(function, nogil=True, fastmath=fast, error_model="numpy")


# -- weights ---------------------------------------------------------------------------------------


@_sums
def _factors(rates, gamma, momentum, factors):  # type: ignore[no-untyped-def]
    """How weights decay in each presentation; see `circuitsim.engines.coefficients`."""
    n_steps, n = rates.shape
    for i in range(n):
        factors[0, i] = factors[3, i] = 1.0
        factors[1, i] = factors[2, i] = 0.0
    for step in range(n_steps):
        for i in range(n):
            pull = rates[step, i] * gamma
            a, c = factors[0, i], factors[1, i]
            e = momentum * factors[2, i] - pull * a
            f = momentum * factors[3, i] - pull * c
            factors[2, i] = e
            factors[3, i] = f
            factors[0, i] = a + e
            factors[1, i] = c + f


@_sums
def _show(x, first, n, n_inputs, shown):  # type: ignore[no-untyped-def]
    """Lay an input out for the neurons of a block: one for all of them, or one for each."""
    own = len(x) > 1
    for j in range(n_inputs):
        for i in range(n):
            shown[j * LANES + i] = x[first + i, j] if own else x[0, j]


@_sums
def _project(rows, weights, base, start, x):  # type: ignore[no-untyped-def]
    """What an input does to a block's neurons, by their initial weights and by what has moved."""
    size = np.uint64(len(x))
    for i in range(_LANES):
        at = base + i
        rows[at + _DRIVE] = rows[at + _OF_MOVED] = rows[at + _OF_VELOCITY] = 0.0
        rows[at + _SQUARE] = 0.0
    for place in range(np.uint64(0), size, _LANES):
        for i in range(_LANES):
            at, of, synapse = base + i, x[place + i], start + place + i
            rows[at + _DRIVE] += weights[synapse] * of
            rows[at + _OF_MOVED] += weights[synapse + size] * of
            rows[at + _OF_VELOCITY] += weights[synapse + size + size] * of
            rows[at + _SQUARE] += of * of
    for i in range(_LANES):
        at = base + i
        rows[at + _MOVED] = rows[at + _OF_MOVED]
        rows[at + _PACE] = rows[at + _OF_VELOCITY]


@_sums
def _carry(rows, weights, base, start, x, factors):  # type: ignore[no-untyped-def]
    """Move a block's weights as far along their input as its neurons have found."""
    a, c, e, f = factors
    size = np.uint64(len(x))
    for i in range(_LANES):
        at = base + i
        square = rows[at + _SQUARE]
        per = 1.0 / square if square > 1e-280 else 0.0
        moved, velocity = rows[at + _OF_MOVED], rows[at + _OF_VELOCITY]
        rows[at + _MOVED] = per * (rows[at + _MOVED] - a * moved - c * velocity)
        rows[at + _PACE] = per * (rows[at + _PACE] - e * moved - f * velocity)
    for place in range(np.uint64(0), size, _LANES):
        for i in range(_LANES):
            at, of, synapse = base + i, x[place + i], start + size + place + i
            d, v = weights[synapse], weights[synapse + size]
            weights[synapse] = a * d + c * v + rows[at + _MOVED] * of
            weights[synapse + size] = e * d + f * v + rows[at + _PACE] * of


@_sums
def _measure(weights, n_neurons, n_inputs, mean, variance):  # type: ignore[no-untyped-def]
    size = np.uint64(n_inputs * LANES)
    for j in range(n_inputs):
        total = 0.0
        for first in range(0, n_neurons, LANES):
            start = np.uint64(3 * n_inputs * first + j * LANES)
            for i in range(np.uint64(min(LANES, n_neurons - first))):
                total += weights[start + i] + weights[start + size + i]
        mean[j] = middle = total / n_neurons
        total = 0.0
        for first in range(0, n_neurons, LANES):
            start = np.uint64(3 * n_inputs * first + j * LANES)
            for i in range(np.uint64(min(LANES, n_neurons - first))):
                deviation = weights[start + i] + weights[start + size + i] - middle
                total += deviation * deviation
        variance[j] = total / n_neurons


# -- circuits --------------------------------------------------------------------------------------


@_sums
def advance(  # type: ignore[no-untyped-def]
    steps, w_init, moved, velocity, rate, inhibition, past, delay, to_inh, from_inh, inputs, rates,
    keys, start, done, alpha, tau, others, momentum, dt, slots, means, variances, rate_trace,
    inhibition_trace,
):  # fmt: skip
    """Carry circuits through a block of presentations, which starts at the number `start` of a run.

    `steps` makes those of one presentation of one circuit; `others` are b, tau_inh, b_inh, sigma
    and gamma, (circuit, 5). `to_inh` and `from_inh` have the dimensions (circuit, interneuron,
    neuron). `keys` are of the noise, if there is any; `done` presentations were before the run.
    """
    n_circuits, n_neurons, n_inputs = w_init.shape
    n_steps, n_presentations = rates.shape
    n_blocks = (n_neurons + LANES - 1) // LANES
    of_block = 3 * n_inputs * LANES
    rows = np.zeros(n_blocks * BLOCK)
    weights = np.zeros(n_blocks * of_block)
    shown = np.zeros(n_inputs * LANES)
    factors = np.empty((4, n_presentations))
    quarter = np.uint64((n_steps * n_neurons + 3) // 4) if len(keys) else np.uint64(0)
    noise = np.empty(4 * quarter)
    parameters = np.empty(9)
    learning = np.ascontiguousarray(rates.T)
    place = np.zeros(1, dtype=np.int64)
    own = inputs.shape[2] > 1
    n_past, n_pools = past.shape[1:]
    for circuit in range(n_circuits):
        b, tau_inh, b_inh, sigma, gamma = others[circuit]
        late = delay[circuit]
        ring = np.zeros((late + 1, n_pools))
        for m in range(n_pools):
            for back in range(late):
                ring[late - 1 - back, m] = past[circuit, n_past - 1 - back, m]
            ring[late, m] = inhibition[circuit, m]
        place[0] = late
        _factors(rates, gamma, momentum, factors)
        for number in range(n_neurons):
            at = number // LANES * BLOCK + number % LANES
            i = min(number, alpha.shape[1] - 1)
            rows[at + ROW_ALPHA] = alpha[circuit, i]
            i = min(number, tau.shape[1] - 1)
            rows[at + ROW_TAU] = tau[circuit, i]
            rows[at + ROW_SCALE] = sigma * math.sqrt(2.0 * dt / tau[circuit, i])
            rows[at] = rate[circuit, number]
            at = number // LANES * of_block + number % LANES
            for j in range(n_inputs):
                weights[at + j * LANES] = w_init[circuit, number, j]
                weights[at + (n_inputs + j) * LANES] = moved[circuit, number, j]
                weights[at + (2 * n_inputs + j) * LANES] = velocity[circuit, number, j]
        for presentation in range(n_presentations):
            x = inputs[presentation, circuit]
            if not own:
                _show(x, 0, LANES, n_inputs, shown)
            for block in range(n_blocks):
                if own:
                    n = min(LANES, n_neurons - block * LANES)
                    _show(x, block * LANES, n, n_inputs, shown)
                _project(
                    rows, weights, np.uint64(block * BLOCK), np.uint64(block * of_block),
                    shown,
                )  # fmt: skip
            if len(keys):
                normals(keys[circuit], np.uint64(done + start + presentation), quarter, noise)
            parameters[0], parameters[1], parameters[2] = dt, momentum, gamma
            parameters[3], parameters[4] = alpha[circuit, 0], tau[circuit, 0]
            parameters[5], parameters[6], parameters[7] = b, tau_inh, b_inh
            parameters[8] = rows[ROW_SQUARE]
            since = (start + presentation) * n_steps if rate_trace.shape[1] else 0
            steps(
                rows, n_neurons, learning[presentation], noise, parameters, ring, place,
                to_inh[circuit], from_inh[circuit], rate_trace[circuit, since:],
                inhibition_trace[circuit, since:],
            )  # fmt: skip
            of = factors[:, presentation]
            for block in range(n_blocks):
                if own:
                    n = min(LANES, n_neurons - block * LANES)
                    _show(x, block * LANES, n, n_inputs, shown)
                _carry(
                    rows, weights, np.uint64(block * BLOCK), np.uint64(block * of_block),
                    shown, (of[0], of[1], of[2], of[3]),
                )  # fmt: skip
            slot = slots[presentation]
            if slot >= 0:
                _measure(
                    weights, n_neurons, n_inputs, means[circuit, slot], variances[circuit, slot]
                )
        for number in range(n_neurons):
            rate[circuit, number] = rows[number // LANES * BLOCK + number % LANES]
            at = number // LANES * of_block + number % LANES
            for j in range(n_inputs):
                moved[circuit, number, j] = weights[at + (n_inputs + j) * LANES]
                velocity[circuit, number, j] = weights[at + (2 * n_inputs + j) * LANES]
        newest = place[0]
        for m in range(n_pools):
            inhibition[circuit, m] = ring[newest, m]
            for back in range(n_past):
                before = ring[(newest - 1 - back) % (late + 1), m] if back < late else 0.0
                past[circuit, n_past - 1 - back, m] = before
