"""Continuous time solves the differential equations, and Euler converges to it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from brian2 import ms
from conftest import grid
from scipy.integrate import solve_ivp

import circuitsim as cs


def integrate(
    w_init: np.ndarray, inputs: np.ndarray, circuit: cs.Circuit, plasticity: cs.Plasticity, T: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Weights, rates and the interneuron's rate at the end, from a general-purpose integrator."""
    n_neurons, schedule = len(w_init), plasticity.learning_rate
    tau, alpha, b, mu = circuit.tau_ms, circuit.alpha, circuit.b, plasticity.momentum
    inhibits = plasticity.rule == "inhibition_gated"
    onset = getattr(schedule, "onset", 0 * ms) / ms
    sizes = np.cumsum([w_init.size, w_init.size, n_neurons])

    def derivative(t: float, state: np.ndarray, x: np.ndarray, learns: bool) -> np.ndarray:
        w, v, r, r_inh = np.split(state, sizes)
        w, v, r_inh = w.reshape(w_init.shape), v.reshape(w_init.shape), r_inh[0]
        signal = r - b - inhibits * r_inh
        # Just after the onset, not at it: there the rate is still zero.
        rate = schedule.at(np.maximum(t, np.nextafter(onset, np.inf))) if learns else 0.0
        update = -rate * (np.outer(signal, x) + plasticity.gamma * (w - w_init))
        dw, dv = (v, update - (1 - mu) * v) if mu else (update, 0 * v)
        dr = (-r + w @ x - alpha * r_inh + b) / tau
        dr_inh = (-r_inh + r.mean() - b) / circuit.tau_inh_ms
        return np.concatenate([dw.ravel(), dv.ravel(), dr, [dr_inh]])

    state = np.concatenate([w_init.ravel(), np.zeros(w_init.size + n_neurons + 1)])
    for number, x in enumerate(inputs):
        begin, end = number * T, (number + 1) * T
        for start, stop in pairwise(np.unique(np.clip([begin, onset, end], begin, end))):
            solution = solve_ivp(
                derivative,
                (start, stop),
                state,
                method="DOP853",
                args=(x, start >= onset),
                rtol=1e-13,
                atol=1e-14,
            )
            state = solution.y[:, -1]
    w, _, r, r_inh = np.split(state, sizes)
    return w.reshape(w_init.shape), r, float(r_inh[0])


SCHEDULES = {
    "published": cs.InverseSqrtRate(3e-4, timescale=2 * ms, onset=50 * ms),
    "onset between presentations": cs.InverseSqrtRate(3e-3, timescale=2 * ms, onset=80 * ms),
    "from the start": cs.InverseSqrtRate(3e-3, timescale=0.5 * ms),
    "constant and high": cs.ConstantRate(3e-3),
}


@pytest.mark.slow
@grid(
    schedule=list(SCHEDULES),
    momentum=[0.0, 0.5, 0.95],
    rule=["circuit", "inhibition_gated"],
    tau_inh=[None, 90 * ms],
)
def test_solves_the_equations(schedule: str, momentum: float, rule: str, tau_inh: object) -> None:
    rng = np.random.default_rng(1)
    w_init, inputs = 1 + rng.standard_normal((5, 3)), rng.standard_normal((3, 3))
    circuit = cs.Circuit(5, alpha=6.0, b=0.5, tau_inh=tau_inh)
    plasticity = cs.Plasticity(rule, 0.1, momentum, SCHEDULES[schedule])
    run = cs.simulate(
        w_init, inputs, circuit, plasticity, presentation=80 * ms, dt=None, engine="propagator"
    )
    w, r, r_inh = integrate(w_init, inputs, circuit, plasticity, 80.0)
    np.testing.assert_allclose(run.weights, w, rtol=0, atol=1e-11)
    np.testing.assert_allclose(run.rate, r, rtol=0, atol=1e-11)
    assert float(run.rate_inh) == pytest.approx(r_inh, abs=1e-11)


@grid(schedule=list(SCHEDULES), momentum=[0.0, 0.95], rule=["circuit", "inhibition_gated"])
def test_euler_converges_to_it_with_slope_one(schedule: str, momentum: float, rule: str) -> None:
    rng = np.random.default_rng(2)
    w_init, inputs = 1 + rng.standard_normal((5, 3)), rng.standard_normal((4, 3))
    plasticity = cs.Plasticity(rule, 0.1, momentum, SCHEDULES[schedule])

    def run(dt: float | None):
        return cs.simulate(
            w_init,
            inputs,
            plasticity=plasticity,
            presentation=80 * ms,
            dt=None if dt is None else dt * ms,
            engine="propagator",
        )

    exact, steps = run(None), [1 / 8, 1 / 16, 1 / 32]
    coarse = [run(dt) for dt in steps]
    for name in ("weights", "rate", "rate_inh"):
        errors = [float(np.abs(euler[name] - exact[name]).max()) for euler in coarse]
        slopes = np.diff(np.log(errors)) / np.diff(np.log(steps))
        np.testing.assert_allclose(slopes, 1, atol=0.1)


@pytest.mark.parametrize("momentum", [0.0, 0.95])
def test_fixed_point_of_rates_without_learning(momentum: float) -> None:
    rng = np.random.default_rng(3)
    w_init, x = rng.standard_normal((5, 3)), rng.standard_normal((1, 3))
    run = cs.simulate(
        w_init,
        x,
        cs.Circuit(5, alpha=2, tau=10 * ms),
        cs.Plasticity(learning_rate=cs.ConstantRate(0), momentum=momentum),
        presentation=400 * ms,
        dt=None,
        engine="propagator",
    )
    settled = cs.theory.fast_fixed_point(w_init @ x[0], alpha=2)
    np.testing.assert_allclose(run.rate, settled.rate, rtol=1e-12)
    np.testing.assert_array_equal(run.weights, w_init)


@pytest.mark.parametrize("momentum", [0.0, 0.95])
def test_presentations_in_halves(momentum: float) -> None:
    """The same patterns twice as often for half as long are the same thing, in two runs or one."""
    rng = np.random.default_rng(4)
    w_init, inputs = 1 + rng.standard_normal((2, 12, 4)), rng.standard_normal((6, 4))
    plasticity = cs.Plasticity(gamma=[0.1, 0.01], momentum=momentum)
    options = {"plasticity": plasticity, "dt": None, "engine": "propagator"}
    whole = cs.simulate(w_init, inputs, presentation=140 * ms, **options)
    halves = cs.simulate(w_init, inputs[:3].repeat(2, axis=0), presentation=70 * ms, **options)
    rest = cs.simulate(None, inputs[3:], presentation=140 * ms, start=halves, **options)
    for name in ("weights", "momentum", "rate", "rate_inh"):
        scale = float(np.abs(whole[name]).max())
        np.testing.assert_allclose(rest[name], whole[name], rtol=0, atol=1e-12 * scale)


def test_company_does_not_matter_to_the_last_bit() -> None:
    rng = np.random.default_rng(5)
    w_init, inputs = 1 + rng.standard_normal((3, 12, 4)), rng.standard_normal((9, 3, 4))
    circuit = cs.Circuit(12, alpha=[0.0, 5.0, 20.0], tau=[30, 10, 50] * ms)
    together = cs.simulate(w_init, inputs, circuit, dt=None, engine="propagator")
    alone = cs.simulate(
        w_init[1],
        inputs[:, 1],
        cs.Circuit(12, alpha=5, tau=10 * ms),
        dt=None,
        engine="propagator",
    )
    np.testing.assert_array_equal(alone.weights, together.weights[1])


def test_transfer() -> None:
    rng = np.random.default_rng(6)
    w_init, inputs = 1 + rng.standard_normal((12, 4)), rng.standard_normal((5, 4))
    run = cs.simulate(w_init, inputs, dt=None, engine="propagator")
    maps = cs.transfer(inputs, dt=None)
    np.testing.assert_allclose(maps.apply(w_init), run.weights, rtol=0, atol=1e-12)


def test_rates_after_every_step_are_refused() -> None:
    with pytest.raises(cs.ParameterError, match=r"record_rates: .* give a dt"):
        cs.simulate(
            np.ones((3, 2)), np.ones((1, 2)), dt=None, engine="propagator", record_rates=True
        )
