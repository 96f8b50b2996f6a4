"""The averaged end point with the transients of each presentation, against simulations."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from brian2 import DimensionMismatchError, ms
from conftest import grid

import circuitsim as cs
from circuitsim.theory import fixed_point, gains

CIRCUIT_RULES = ("circuit", "inhibition_gated")


@pytest.mark.slow
@grid(
    alpha=[0.0, 5.0],
    presentation=[20.0, 60.0],
    dt=[None, 1.0, 4.0],
    momentum=[0.0, 0.8, 0.95],
    rule=CIRCUIT_RULES,
)
def test_gains_are_the_average_drift(
    alpha: float, presentation: float, dt: float | None, momentum: float, rule: str
) -> None:
    """All sequences of inputs +1 and -1 together: an exact average, carry-over and all."""
    inputs = np.array(list(product([-1.0, 1.0], repeat=5))).T[..., np.newaxis]
    w_init, rate_per_ms = np.array([[1.0], [3.0], [2.5]]), 1e-9
    learning_rate = rate_per_ms * (1 - momentum)
    plasticity = cs.Plasticity(rule, 0.0, momentum, cs.ConstantRate(learning_rate))
    times = {"presentation": presentation * ms, "dt": None if dt is None else dt * ms}
    run = cs.simulate(
        w_init, inputs, cs.Circuit(3, alpha=alpha), plasticity, engine="propagator", **times
    )
    change = (run.weights - w_init).to_numpy()
    if momentum:  # what the filter still holds back will follow
        held_back = run.momentum.to_numpy() / (1 - momentum)
        change += held_back * (1 if dt is None else 1 - dt * (1 - momentum))
    drift = change.mean(axis=0) / (rate_per_ms * presentation * len(inputs))

    expected_gains = gains(rule, alpha, 30 * ms, **times)
    mean = w_init.mean()
    expected = -expected_gains.mean * mean - expected_gains.deviation * (w_init - mean)
    np.testing.assert_allclose(drift, expected, rtol=0, atol=3e-6)


@pytest.mark.slow
@grid(rule=CIRCUIT_RULES, momentum=[0.0, 0.95])
def test_long_runs_end_there(momentum: float, rule: str) -> None:
    """With a small constant learning rate, averaged over runs with independent inputs."""
    rng = np.random.default_rng(1)
    n_runs, alpha, gamma, duration, step = 300, 5.0, 0.3, 60.0, 0.01
    w_init = np.array([[2.0, -1.0], [0.5, 1.0], [1.0, 1.5]])
    covariance = np.array([[1.0, 0.4], [0.4, 0.8]])
    inputs = rng.multivariate_normal([0, 0], covariance, (round(20 / (gamma * step)), n_runs))
    plasticity = cs.Plasticity(
        rule, gamma, momentum, cs.ConstantRate(step / duration * (1 - momentum))
    )
    run = cs.simulate(
        np.broadcast_to(w_init, (n_runs, 3, 2)),
        inputs,
        cs.Circuit(3, alpha=alpha),
        plasticity,
        presentation=duration * ms,
        engine="propagator",
        record=len(inputs),
    )
    end = run.weights.to_numpy()
    mean, error = end.mean(axis=0), end.std(axis=0) / np.sqrt(n_runs)
    theory = fixed_point(w_init, gamma, rule, alpha, covariance, 30 * ms, duration * ms, 1 * ms)
    settled = fixed_point(w_init, gamma, rule, alpha, covariance)
    assert np.all(np.abs(mean - theory) < 4 * error + step * np.abs(w_init))
    assert np.abs(mean - theory).max() < 0.1 * np.abs(settled - theory).max()


@pytest.mark.parametrize("rule", ["circuit", "inhibition_gated", "mean_subtracted"])
def test_long_presentations_have_no_transients(rule: str) -> None:
    w_init = np.random.default_rng(2).standard_normal((5, 3))
    long = fixed_point(w_init, 0.1, rule, presentation=1e9 * ms)
    np.testing.assert_allclose(long, fixed_point(w_init, 0.1, rule), rtol=0, atol=1e-7)


@pytest.mark.parametrize("rule", ["circuit", "inhibition_gated", "mean_subtracted"])
def test_end_point_without_a_pull_is_the_limit(rule: str) -> None:
    w_init = 1 + np.random.default_rng(3).standard_normal((5, 3))
    T = 150 * ms
    ends = [fixed_point(w_init, g, rule, presentation=T, limit=True) for g in (0.0, 1e-9)]
    found, near = (float(cs.measures.inverse_snr_w(weights)) for weights in ends)
    assert found == pytest.approx(near, rel=1e-6, abs=1e-15)
    assert found < 1e-30 if rule == "mean_subtracted" else found > 1e-4
    for gamma in (0.1, 1e-9):
        of_limit, settled = (
            fixed_point(w_init, gamma, rule, presentation=T, limit=limit) for limit in (True, False)
        )
        np.testing.assert_array_equal(of_limit, settled)


def test_closed_forms() -> None:
    circuit = gains("circuit", 4.0, 20 * ms, 50 * ms)
    assert circuit.deviation == pytest.approx(1 - 0.4 * (1 - np.exp(-2.5)), rel=1e-14)
    # The mean rings: tau zeta' = (-1 + i sqrt(alpha)) zeta + z with zeta = u + i sqrt(alpha) r_inh.
    root = (-1 + 2j) * 2.5
    zeta = 2.5 / root * ((np.exp(root) - 1) / root - 1)
    assert circuit.mean == pytest.approx(zeta.real, rel=1e-13)
    gated = gains("inhibition_gated", 4.0, 20 * ms, 50 * ms)
    assert gated.mean == pytest.approx(zeta.real - zeta.imag / 2, rel=1e-13)


def test_the_gated_rule_sees_the_end_of_the_interneurons_transient() -> None:
    weights, alpha, T = np.array([[1.0], [2.0]]), 3.0, 40.0
    run = cs.simulate(
        weights,
        np.ones((1, 1)),
        cs.Circuit(2, alpha=alpha, b=0.0),
        cs.Plasticity("inhibition_gated", learning_rate=cs.ConstantRate(0)),
        presentation=T * ms,
        dt=None,
        engine="propagator",
    )
    gain = gains("inhibition_gated", alpha, presentation=T * ms).mean
    assert gain == pytest.approx(30 / T * float(run.rate_inh) / weights.mean(), rel=1e-12)


def test_euler_tends_to_continuous_time() -> None:
    T = 150 * ms
    exact = gains("circuit", 5.0, presentation=T)
    errors = [
        np.subtract(gains("circuit", 5.0, presentation=T, dt=150 / n * ms), exact)
        for n in (1000, 2000)
    ]
    np.testing.assert_allclose(np.divide(*errors), 2, rtol=0.01)


def test_rules_without_a_circuit_have_no_transients() -> None:
    assert gains("mean_subtracted", presentation=1 * ms) == (1, 0)


def test_refusals() -> None:
    with pytest.raises(cs.ParameterError, match="presentation: must be > 0 ms"):
        gains(presentation=0 * ms)
    with pytest.raises(cs.ParameterError, match="dt: must be > 0 ms and < "):
        gains(presentation=150 * ms, dt=7 * ms)
    with pytest.raises(cs.ParameterError, match="whole number of steps"):
        gains(presentation=150 * ms, dt=0.7 * ms)
    with pytest.raises(DimensionMismatchError, match="it has no unit"):
        gains(presentation=150 * ms, tau=30)
    with pytest.raises(cs.ParameterError, match="gamma: must be >= 0"):
        fixed_point([[1.0], [2.0]], -1)
