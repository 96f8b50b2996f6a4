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
def _begin(rows, n_blocks, factors):  # type: ignore[no-untyped-def]
    """Make of how far neurons moved what carries their weights along; start sums over inputs."""
    a, c, e, f = factors
    for block in range(n_blocks):
        base = np.uint64(block * BLOCK)
        for i in range(_LANES):
            at = base + i
            square = rows[at + _SQUARE]
            per = 1.0 / square if square > 1e-280 else 0.0
            moved, velocity = rows[at + _OF_MOVED], rows[at + _OF_VELOCITY]
            rows[at + _MOVED] = per * (rows[at + _MOVED] - a * moved - c * velocity)
            rows[at + _PACE] = per * (rows[at + _PACE] - e * moved - f * velocity)
            rows[at + _DRIVE] = rows[at + _OF_MOVED] = rows[at + _OF_VELOCITY] = 0.0
            rows[at + _SQUARE] = 0.0


@_sums
def _carry(rows, base, weights, start, n, factors, x, then):  # type: ignore[no-untyped-def]
    """Move a block's synapses of one input x along it, and project on them what is shown then.

    Returns the sum of weights.
    """
    a, c, e, f = factors
    total = 0.0
    for i in range(n):
        at, synapse = base + i, start + i
        d, v = weights[synapse + _LANES], weights[synapse + _LANES + _LANES]
        moved = a * d + c * v + rows[at + _MOVED] * x
        velocity = e * d + f * v + rows[at + _PACE] * x
        weights[synapse + _LANES] = moved
        weights[synapse + _LANES + _LANES] = velocity
        rows[at + _DRIVE] += weights[synapse] * then
        rows[at + _OF_MOVED] += moved * then
        rows[at + _OF_VELOCITY] += velocity * then
        total += weights[synapse] + moved
    return total


@_sums
def _carry_own(rows, base, weights, start, n, factors, x, then):  # type: ignore[no-untyped-def]
    """`_carry` where each neuron of a block is shown an input of its own.

    Apart from it, since there one number for all neurons stays in a register.
    """
    a, c, e, f = factors
    total = 0.0
    for i in range(n):
        at, synapse = base + i, start + i
        d, v = weights[synapse + _LANES], weights[synapse + _LANES + _LANES]
        moved = a * d + c * v + rows[at + _MOVED] * x[i]
        velocity = e * d + f * v + rows[at + _PACE] * x[i]
        weights[synapse + _LANES] = moved
        weights[synapse + _LANES + _LANES] = velocity
        rows[at + _DRIVE] += weights[synapse] * then[i]
        rows[at + _OF_MOVED] += moved * then[i]
        rows[at + _OF_VELOCITY] += velocity * then[i]
        rows[at + _SQUARE] += then[i] * then[i]
        total += weights[synapse] + moved
    return total


@_sums
def _variance(weights, start, n_neurons, mean):  # type: ignore[no-untyped-def]
    """Variance over neurons of the weights of one input, whose blocks begin at `start`."""
    total = 0.0
    for first in range(0, n_neurons, LANES):
        at = start + np.uint64(3 * first)
        for i in range(np.uint64(min(LANES, n_neurons - first))):
            deviation = weights[at + i] + weights[at + _LANES + i] - mean
            total += deviation * deviation
    return total / n_neurons


@_sums
def _turn(rows, weights, n_neurons, factors, x, then, mean, variance):  # type: ignore[no-untyped-def]
    """Go from an input to the next: weights are passed once, while they are in cache.

    They are moved as far along x as neurons have found, measured (where there is room in `mean`),
    and `then` is projected on them.
    """
    n_blocks = (n_neurons + LANES - 1) // LANES
    own = len(x) > 1
    shown, shown_then = np.zeros(LANES), np.zeros(LANES)
    _begin(rows, n_blocks, factors)
    square = 0.0
    for j in range(x.shape[1]):
        of_input = np.uint64(3 * LANES * n_blocks * j)
        total = 0.0
        for block in range(n_blocks):
            base, start = np.uint64(block * BLOCK), of_input + np.uint64(3 * LANES * block)
            n = np.uint64(min(LANES, (n_neurons - block * LANES + 7) // 8 * 8))
            if own:
                for i in range(min(LANES, n_neurons - block * LANES)):
                    shown[i], shown_then[i] = x[block * LANES + i, j], then[block * LANES + i, j]
                total += _carry_own(rows, base, weights, start, n, factors, shown, shown_then)
            else:
                total += _carry(rows, base, weights, start, n, factors, x[0, j], then[0, j])
        if len(mean):
            mean[j] = total / n_neurons
            variance[j] = _variance(weights, of_input, n_neurons, mean[j])
        if not own:
            square += then[0, j] * then[0, j]
    for block in range(n_blocks):
        for i in range(_LANES):
            at = np.uint64(block * BLOCK) + i
            rows[at + _MOVED] = rows[at + _OF_MOVED]
            rows[at + _PACE] = rows[at + _OF_VELOCITY]
            rows[at + _SQUARE] += square


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
    # For each input the blocks of neurons, and for each of them w_init, what has moved, velocity.
    of_input = 3 * n_blocks * LANES
    rows = np.zeros(n_blocks * BLOCK)
    weights = np.zeros(n_inputs * of_input)
    factors = np.empty((4, n_presentations))
    quarter = np.uint64((n_steps * n_neurons + 3) // 4) if len(keys) else np.uint64(0)
    noise = np.empty(4 * quarter)
    parameters = np.empty(9)
    learning = np.ascontiguousarray(rates.T)
    place = np.zeros(1, dtype=np.int64)
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
        for j in range(n_inputs):  # outside: weights of the next input are far away
            for number in range(n_neurons):
                at = j * of_input + number // LANES * 3 * LANES + number % LANES
                weights[at] = w_init[circuit, number, j]
                weights[at + LANES] = moved[circuit, number, j]
                weights[at + 2 * LANES] = velocity[circuit, number, j]
        nothing = means[circuit, :0, 0]
        # Inputs are projected on weights when those have moved along the input before.
        _turn(
            rows, weights, n_neurons, (1.0, 0.0, 0.0, 1.0), inputs[0, circuit], inputs[0, circuit],
            nothing, nothing,
        )  # fmt: skip
        for presentation in range(n_presentations):
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
            of, slot = factors[:, presentation], slots[presentation]
            mean, variance = nothing, nothing
            if slot >= 0:
                mean, variance = means[circuit, slot], variances[circuit, slot]
            _turn(
                rows, weights, n_neurons, (of[0], of[1], of[2], of[3]),
                inputs[presentation, circuit],
                inputs[min(presentation + 1, n_presentations - 1), circuit], mean, variance,
            )  # fmt: skip
        for number in range(n_neurons):
            rate[circuit, number] = rows[number // LANES * BLOCK + number % LANES]
        for j in range(n_inputs):
            for number in range(n_neurons):
                at = j * of_input + number // LANES * 3 * LANES + number % LANES
                moved[circuit, number, j] = weights[at + LANES]
                velocity[circuit, number, j] = weights[at + 2 * LANES]
        newest = place[0]
        for m in range(n_pools):
            inhibition[circuit, m] = ring[newest, m]
            for back in range(n_past):
                before = ring[(newest - 1 - back) % (late + 1), m] if back < late else 0.0
                past[circuit, n_past - 1 - back, m] = before
