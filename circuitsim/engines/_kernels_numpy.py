"""The propagator's inner loops in NumPy, over presentations and circuits at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from circuitsim.dynamics import Slopes
from circuitsim.engines.batch import Array
from circuitsim.engines.coefficients import Coefficients, Dynamics
from circuitsim.engines.rows import Rows

_CACHE = 2**20  # bytes that the arrays of one inner loop may take together


def circuits_at_once(n_circuits: int, n_rows: int, n_inputs: int) -> int:
    """How many circuits to give `advance`, for its arrays to stay in the cache."""
    return max(1, _CACHE // (5 * 8 * n_rows * n_inputs))


def euler(
    rates: Array,
    square: Array,
    dynamics: Dynamics,
    dt: float,
    momentum: float,
    after_step: Callable[[Array, Array], None] | None = None,
) -> Coefficients:
    """Coefficients of forward Euler.

    Parameters
    ----------
    rates : ndarray, shape (step, presentation)
        Learning rate of each step.
    square : ndarray, shape (circuit, presentation)
        |x|^2.
    dynamics : Dynamics
        Parameters of the circuits.
    dt : float
        Step in ms.
    momentum : float
        Heavy-ball momentum of a step.
    after_step : callable, optional
        Called after every step with the rate u of a deviation (4, circuit, presentation), from
        y, d, v, u at the start, and the rates u and h of the mean (2, 5, circuit, presentation),
        from y, d, v, u, h.
    """
    at_once = max(1, _CACHE // (64 * 8 * len(square)))
    if after_step is None and square.shape[1] > at_once:
        blocks = [slice(i, i + at_once) for i in range(0, square.shape[1], at_once)]
        parts = [euler(rates[:, b], square[:, b], dynamics, dt, momentum) for b in blocks]
        return Coefficients(*(np.concatenate(part, axis=1) for part in zip(*parts, strict=True)))

    signal, shape = dynamics.signal, square.shape
    gamma = dynamics.gamma[:, np.newaxis]
    by = Slopes(*(values[:, np.newaxis] for values in dynamics.slopes.over(dt)))
    # Columns 0-3: a deviation, driven by y, d, v, u alone; columns 4-8: the mean, by y, d, v, u, h.
    u, p, q, z, change = np.zeros((5, 9, *shape))
    inhibition = np.zeros((5, *shape))
    u[[3, 7]] = inhibition[4] = 1
    source = np.zeros((9, *shape))
    source[[0, 4]] = 1
    # a - 1 and c, then e and f: weights of neurons without input, moved from w_init or in motion.
    moved, velocity = np.zeros((2, 2, *shape))
    velocity[1] = 1

    for rate in rates:
        pull = rate * gamma
        # z = w.x with the present weights: y + (a - 1) d + c v + s p.
        source[1:3] = source[5:7] = moved
        np.multiply(square, p, out=z)
        z += source
        z *= by.drive
        z += np.multiply(by.rate, u, out=change)
        z[4:] += by.inhibition * inhibition
        inhibition += by.received * u[4:] + by.leak * inhibition
        u += z

        velocity *= momentum
        velocity -= pull * moved
        velocity[0] -= pull
        moved += velocity

        np.multiply(rate * signal.rate, u, out=change)
        if signal.common:
            change[4:] += rate * signal.common * inhibition
        change += np.multiply(pull, p, out=z)
        q *= momentum
        q -= change
        p += q
        if after_step is not None:
            after_step(u[:4], np.stack([u[4:], inhibition]))

    return Coefficients(
        np.stack([1 + moved[0], moved[1], velocity[0], velocity[1]], axis=-1),
        np.moveaxis(np.array([p[:4], q[:4], u[:4]]), (0, 1), (-2, -1)),
        np.moveaxis(np.array([p[4:], q[4:], u[4:], inhibition]), (0, 1), (-2, -1)),
    )


def advance(
    deviations: Rows,
    mean: Rows,
    inputs: Array,
    coefficients: Coefficients,
    slots: NDArray[np.int64],
    before: Callable[[Array, Array], None] | None = None,
) -> tuple[Array, Array]:
    """Carry circuits through some presentations, in place.

    Parameters
    ----------
    deviations, mean : Rows
        State of the circuits.
    inputs : ndarray, shape (presentation, circuit, input)
        What they see.
    coefficients : Coefficients
        What that does.
    slots : ndarray of int, shape (presentation,)
        Where the weights after each presentation are to be recorded, or -1.
    before : callable, optional
        Called for every presentation with what `present` returns for the deviations and the mean.

    Returns
    -------
    means, squares : ndarray, shape (slot, circuit, input)
        Mean weights, and sums over rows of the squares of their deviations.
    """
    n_slots = int(slots.max(initial=-1)) + 1
    means, squares = np.empty((2, n_slots, *inputs.shape[1:]))
    scratch = np.empty((2, *deviations.init.shape))
    of_presentations = (np.moveaxis(values, 1, 0) for values in coefficients)
    for x, weights, of_deviation, of_mean, slot in zip(
        inputs, *of_presentations, slots, strict=True
    ):
        mean_start = present(mean, x, weights, of_mean)
        deviation_start = present(deviations, x, weights, of_deviation, scratch)
        if before is not None:
            before(deviation_start, mean_start)
        if slot >= 0:
            np.add(mean.init[:, 0], mean.moved[:, 0], out=means[slot])
            present_rows = np.add(deviations.init, deviations.moved, out=scratch[0])
            np.einsum("crj,crj->cj", present_rows, present_rows, out=squares[slot])
    return means, squares


def present(
    rows: Rows, x: Array, weights: Array, matrix: Array, scratch: Array | None = None
) -> Array:
    """Carry rows through one presentation, in place.

    Parameters
    ----------
    rows : Rows
        Where to start, and then the end.
    x : ndarray, shape (circuit, input)
        The input.
    weights : ndarray, shape (circuit, 4)
        a, c, e, f.
    matrix : ndarray, shape (circuit, 3, 4) or (circuit, 4, 5)
        As `Coefficients.deviation` or, for rows that feel the interneuron, `Coefficients.mean`.
    scratch : ndarray, shape (2, circuit, row, input), optional
        Space to work in.

    Returns
    -------
    ndarray, shape (circuit, 4 or 5, row)
        y, d, v, u (and h) at the start of the presentation.
    """
    along = [np.einsum("crj,cj->cr", part, x) for part in (rows.init, rows.moved, rows.velocity)]
    start = np.stack(
        [along[0] + along[1], *along[1:], rows.rate, rows.inhibition][: matrix.shape[-1]], axis=1
    )
    p, q, rows.rate[...], *inhibition = np.moveaxis(matrix @ start, 1, 0)
    if inhibition:
        rows.inhibition[...] = inhibition[0]

    a, c, e, f = weights.T[..., np.newaxis, np.newaxis]
    x = x[:, np.newaxis]
    product, change = np.empty((2, *rows.init.shape)) if scratch is None else scratch
    np.multiply(c, rows.velocity, out=change)
    change += np.multiply(p[..., np.newaxis], x, out=product)
    rows.velocity *= f
    rows.velocity += np.multiply(e, rows.moved, out=product)
    rows.velocity += np.multiply(q[..., np.newaxis], x, out=product)
    rows.moved *= a
    rows.moved += change
    return start


def through(
    in_frame: Array,
    by_slow: Array,
    by_fast: Array,
    starts: Array,
    rates: Array,
    added: Array,
    remembered: int,
) -> None:
    """Carry rows through a block of presentations, one after another; see `engines.blocks`.

    Parameters
    ----------
    in_frame : ndarray, shape (presentation, 4, 5)
        What is added to the slow and the fast part, and rates after it, from what ``starts`` holds.
    by_slow, by_fast : ndarray, shape (presentation, presentation)
        What is left, at a presentation, of a unit of an earlier one's input that has been added.
    starts : ndarray, shape (presentation, 5, row)
        Projections of what has not moved and of both parts at the start of the block, and space for
        rates; written over.
    rates : ndarray, shape (2, row)
        Of the rows and of the interneuron; then at the end.
    added : ndarray, shape (2, presentation, row)
        Is set to how much of each input is added to the parts.
    remembered : int
        Presentations after which the fast part has forgotten one.
    """
    slow, fast = added
    end = np.empty((4, added.shape[2]))
    for t, start in enumerate(starts):
        late = max(0, t - remembered)
        start[1] += by_slow[t, :t] @ slow[:t]
        start[2] += by_fast[t, late:t] @ fast[late:t]
        start[3:] = rates
        np.dot(in_frame[t], start, out=end)
        slow[t], fast[t], rates[:] = end[0], end[1], end[2:]
