"""Theory of linear circuits whose neurons differ, against simulations and what is known of some."""

from __future__ import annotations

import numpy as np
import pytest
from brian2 import ms
from hypothesis import given, settings
from hypothesis import strategies as st

import circuitsim as cs
from circuitsim.linear import end_point, signal_matrix
from circuitsim.theory import fixed_point, gains

RNG = np.random.default_rng(0)
W_INIT = 1 + RNG.standard_normal((8, 3))
COVARIANCE = np.cov(RNG.standard_normal((3, 20)))


@given(
    st.sampled_from(["circuit", "inhibition_gated", "mean_subtracted", "half = r - b - 0.5*r_inh"]),
    st.floats(0, 30),
    st.floats(1e-3, 1),
    st.sampled_from([None, COVARIANCE]),
    st.sampled_from([{}, {"presentation": 150 * ms}, {"presentation": 90 * ms, "dt": 1 * ms}]),
)
@settings(max_examples=40, deadline=None)
def test_neurons_that_are_alike_are_a_special_case(rule, alpha, gamma, covariance, times):
    known = fixed_point(W_INIT, gamma, rule, alpha, covariance, **times)
    found = end_point(
        W_INIT, cs.Circuit(alpha=alpha), cs.Plasticity(rule, gamma), covariance, **times
    )
    np.testing.assert_allclose(found, known, rtol=1e-9, atol=1e-12)


@given(st.sampled_from(["circuit", "mean_subtracted"]), st.floats(0.01, 0.5))
@settings(max_examples=20, deadline=None)
def test_private_inputs_make_the_mean_decay(rule, private):
    """Deviations relax with C + s2 (1 - a/N) I, the mean with its own gain and the same."""
    alpha, gamma, n = 10.0, 0.01, len(W_INIT)
    lost = {"circuit": alpha / (1 + alpha), "mean_subtracted": 1.0}[rule]  # of the mean drive
    own = private**2 * (1 - lost / n) * np.eye(3)
    found = end_point(
        W_INIT, cs.Circuit(alpha=alpha), cs.Plasticity(rule, gamma), COVARIANCE, private
    )
    mean = W_INIT.mean(axis=0)
    pull = gamma * np.eye(3)
    of_mean = np.linalg.solve((1 - lost) * COVARIANCE + own + pull, gamma * mean)
    of_rest = np.linalg.solve(COVARIANCE + own + pull, gamma * (W_INIT - mean).T).T
    np.testing.assert_allclose(found, of_mean + of_rest, rtol=1e-9, atol=1e-12)


def test_a_spread_of_inhibition_leaves_a_floor():
    """Neurons settle at z_i - alpha_i zbar/(1 + mean alpha), so that A is known."""
    alpha = 10 * (1 + 0.1 * RNG.standard_normal(50))
    found = signal_matrix(cs.Circuit(alpha=cs.per_neuron(alpha)), n_neurons=50)
    known = np.eye(50) - alpha[:, None] / (1 + alpha.mean()) / 50
    np.testing.assert_allclose(found, known, atol=1e-12)


@pytest.mark.parametrize("times", [{}, {"presentation": 60 * ms, "dt": 1 * ms}])
def test_signals_of_simulations_are_averages_of_the_matrix(times):
    """Without learning the signal of a presentation from rest is linear in the drive."""
    circuit = cs.Circuit(
        alpha=2.0, tau_inh=20 * ms, delay=3 * ms, interneurons=3, connect_ei=0.5, connect_ie=0.7,
        spread_alpha=0.2, spread_tau=0.2, b=0.0,
    )  # fmt: skip
    still = cs.Plasticity("inhibition_gated", learning_rate=cs.ConstantRate(0))
    duration = times.get("presentation", 3000 * ms)
    run = cs.simulate(
        W_INIT, RNG.standard_normal((1, 3)), circuit, still, duration, engine="stepper",
        codegen="numpy", record_rates=True, seed=4,
    )  # fmt: skip
    inputs = np.random.default_rng(1).standard_normal((1, 3))
    run = cs.simulate(
        W_INIT, inputs, circuit, still, duration, engine="stepper", codegen="numpy",
        record_rates=True, seed=4,
    )  # fmt: skip
    felt = run.rate_inh_trace.to_numpy() @ run.from_inh.to_numpy().T
    felt = np.vstack([np.zeros((3, 8)), felt[:-3]])  # 3 ms late
    signal = run.rate_trace.to_numpy() - felt
    seen = signal.mean(axis=0) if times else signal[-1]
    matrix = signal_matrix(circuit, "inhibition_gated", 8, seed=4, **times)
    np.testing.assert_allclose(seen, matrix @ W_INIT @ inputs[0], rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_runs_end_there():
    """All circuits that see the same statistics, at a small constant rate, on average."""
    circuit = cs.Circuit(
        alpha=cs.per_neuron([2.0, 4.0, 3.0, 5.0, 1.0, 2.0, 3.0, 3.0]),
        interneurons=2,
        connect_ie=0.8,
    )
    rng, n_runs, step = np.random.default_rng(2), 100, 0.01
    gamma, duration = 0.3, 60.0
    inputs = rng.standard_normal((round(12 / (gamma * step)), n_runs, 3))
    plasticity = cs.Plasticity("circuit", gamma, 0.0, cs.ConstantRate(step / duration))
    drawn = circuit.drawn(8, 3)
    run = cs.simulate(
        np.broadcast_to(W_INIT, (n_runs, 8, 3)), cs.inputs.Noisy(inputs, 0.5, seed=1), drawn,
        plasticity, duration * ms, engine="stepper", record=[len(inputs)],
    )  # fmt: skip
    expected = end_point(
        W_INIT, drawn, plasticity, private=0.5, presentation=duration * ms, dt=1 * ms
    )
    error = run.weights.mean("circuit").to_numpy() - expected
    spread = run.weights.std("circuit").to_numpy() / np.sqrt(n_runs)
    assert np.abs(error / spread).max() < 4.5


def test_arrays_are_taken_as_in_simulate():
    gammas, alphas = np.array([0.1, 0.01]), np.array([3.0, 30.0])
    weights = np.stack([W_INIT, 2 * W_INIT])
    together = end_point(weights, cs.Circuit(alpha=alphas), cs.Plasticity(gamma=gammas))
    closed = fixed_point(weights, gammas, alpha=alphas)
    for c in range(2):
        alone = fixed_point(weights[c], gammas[c], alpha=alphas[c])
        np.testing.assert_allclose(together[c], alone, rtol=1e-9)
        np.testing.assert_array_equal(closed[c], alone)


def test_what_has_no_closed_form():
    with pytest.raises(cs.ParameterError, match="must be linear for a closed form"):
        end_point(W_INIT, cs.Circuit(transfer="relu"))
    with pytest.raises(cs.ParameterError, match="one length"):
        end_point(W_INIT, cs.Circuit(alpha=[1, 2]), cs.Plasticity(gamma=[0.1, 0.2, 0.3]))
    for of, message in (
        ({"alpha": np.arange(8.0)}, "write alpha=circuitsim.per_neuron"),
        ({"tau": np.arange(1.0, 9) * ms}, "write tau=circuitsim.per_neuron"),
        ({"alpha": cs.per_neuron(np.ones(3))}, "one value for each of 8 neurons"),
        ({"n_neurons": 9}, "as many neurons as the circuit, 9"),
    ):
        with pytest.raises(cs.ParameterError, match=message):
            end_point(W_INIT, cs.Circuit(**of))
    several = end_point(np.stack([W_INIT] * 8), cs.Circuit(alpha=np.arange(8.0)))
    assert several.shape == (8, *W_INIT.shape)
    with pytest.raises(cs.ParameterError, match="must be one; its arrays stand for several"):
        signal_matrix(cs.Circuit(alpha=[1.0, 2.0]), n_neurons=5)
    with pytest.raises(cs.ParameterError, match="dt: must be given where inhibition is late"):
        signal_matrix(cs.Circuit(delay=2 * ms), presentation=60 * ms)
    assert gains("circuit").mean == pytest.approx(signal_matrix(n_neurons=5).sum() / 5)
    assert np.isnan(end_point(W_INIT, None, cs.Plasticity("away = b - r", 0.01))).all()
