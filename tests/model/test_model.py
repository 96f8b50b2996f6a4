"""Parameters, schedules, rules, inputs, measures and theory."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import xarray as xr
from brian2 import DimensionMismatchError, Hz, ms, second
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import circuitsim as cs
from circuitsim.rules import Rule

# -- parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cs.Circuit(n_neurons=1), "Circuit.n_neurons: must be a whole number >= 2 (got 1)"),
        (lambda: cs.Circuit(n_neurons=True), "Circuit.n_neurons: must be a whole number"),
        (lambda: cs.Circuit(tau=0 * ms), "Circuit.tau: must be > 0 ms"),
        (lambda: cs.Circuit(tau=float("nan") * ms), "Circuit.tau: must be a finite number"),
        (lambda: cs.Circuit(alpha=-1), "Circuit.alpha: must be >= 0 (got -1)"),
        (lambda: cs.Circuit(alpha="10"), "Circuit.alpha: must be a finite number"),
        (lambda: cs.Circuit(alpha=1j), "Circuit.alpha: must be a finite number"),
        (lambda: cs.Circuit(alpha=[]), "Circuit.alpha: must be a finite number, or a 1-d array"),
        (lambda: cs.Circuit(alpha=[[1.0]]), "Circuit.alpha: must be a finite number, or a 1-d"),
        (lambda: cs.Circuit(alpha=[1, 2], b=[1, 2, 3]), "Circuit: arrays over circuits must have"),
        (lambda: cs.Plasticity(rule="hebb"), "Plasticity.rule: must be one of circuit, "),
        (lambda: cs.Plasticity(gamma=-0.1), "Plasticity.gamma: must be >= 0 (got -0.1)"),
        (lambda: cs.Plasticity(gamma=float("inf")), "Plasticity.gamma: must be a finite number"),
        (lambda: cs.Plasticity(momentum=1), "Plasticity.momentum: must be >= 0 and < 1 (got 1)"),
        (lambda: cs.Plasticity(learning_rate=0.1), "Plasticity.learning_rate: must be of"),
        (
            lambda: cs.Plasticity(learning_rate=cs.HyperbolicRate(0.5, offset=1000)),
            "Plasticity.learning_rate: the rule circuit learns at every step",
        ),
        (
            lambda: cs.Plasticity(
                "mean_subtracted", learning_rate=cs.InverseSqrtRate(1e-4, timescale=2 * ms)
            ),
            "the rule mean_subtracted makes one update a presentation",
        ),
        (lambda: cs.InverseSqrtRate(-1, timescale=2 * ms), "InverseSqrtRate.peak: must be >= 0"),
        (lambda: cs.InverseSqrtRate(1, timescale=0 * ms), "InverseSqrtRate.timescale: must be > 0"),
        (lambda: cs.HyperbolicRate(1, offset=0), "HyperbolicRate.offset: must be > 0 (got 0)"),
        (lambda: cs.ConstantRate(-1), "ConstantRate.value: must be >= 0"),
    ],
)
def test_parameters_are_checked_with_one_message(make, message):
    with pytest.raises(cs.ParameterError) as error:
        make()
    assert message in str(error.value)
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cs.Circuit(tau=30), "Circuit.tau: a time is required, e.g. 30*ms"),
        (lambda: cs.Circuit(tau=30 * Hz), "Circuit.tau: a time is required"),
        (lambda: cs.Circuit(alpha=10 * ms), "Circuit.alpha: a plain number is required"),
        (lambda: cs.InverseSqrtRate(3e-4, timescale=2), "timescale: a time is required"),
        (lambda: cs.HyperbolicRate(0.5, offset=2 * ms), "offset: a plain number is required"),
    ],
)
def test_units_are_checked(make, message):
    with pytest.raises(DimensionMismatchError, match=message.replace("*", r"\*")):
        make()


def test_euler_stability_bound():
    cs.Circuit(alpha=58.9).check_step(1.0)
    with pytest.raises(cs.ParameterError, match=r"unstable from alpha = 59 up for tau = 30 ms"):
        cs.Circuit(alpha=59).check_step(1.0)
    with pytest.raises(cs.ParameterError, match=r"dt < 0.845 ms \(got 70\)"):
        cs.Circuit(alpha=[1, 70]).check_step(1.0)
    assert cs.theory.stability_bound(30 * ms, 59) == 1 * ms


def test_parameters_are_values():
    circuit = cs.Circuit(alpha=np.array([1.0, 2.0]))
    assert circuit == cs.Circuit(alpha=[1, 2])
    assert hash(circuit) == hash(cs.Circuit(alpha=[1, 2]))
    assert circuit != cs.Circuit(alpha=[1, 3])
    for rule in ("circuit", "mean_subtracted"):
        assert len({cs.Plasticity(rule), cs.Plasticity(rule, gamma=0.01)}) == 1
    assert hash(cs.ConstantRate(1)) == hash(cs.ConstantRate(1.0))
    assert cs.Circuit(tau=0.03 * second) == cs.Circuit()
    assert pickle.loads(pickle.dumps(circuit)) == circuit
    assert circuit.replace(alpha=3).alpha == 3
    with pytest.raises(AttributeError):
        circuit.alpha = 3
    with pytest.raises(ValueError, match="read-only"):
        circuit.alpha[0] = 5
    given = np.array([1.0, 2.0])
    kept = cs.Plasticity(gamma=given)
    given[0] = 99
    assert kept.gamma[0] == 1


def test_learning_that_cannot_be_stable_is_refused():
    with pytest.raises(cs.ParameterError, match=r"Plasticity\.gamma: must be < "):
        cs.Plasticity(gamma=1e6).check_step(1.0)
    cs.Plasticity(gamma=10).check_step(1.0)


def test_momentum_stands_for_a_filter():
    plasticity = cs.Plasticity(momentum=0.95)
    assert plasticity.per_step(1.0) == (0.95, 1.0)
    assert plasticity.per_step(0.5) == pytest.approx((0.975, 0.25))
    # The rate per ms, rate/(dt (1 - momentum)), is kept.
    for dt in (0.1, 0.5, 2.0):
        momentum, factor = plasticity.per_step(dt)
        assert factor / (dt * (1 - momentum)) == pytest.approx(1 / 0.05)
    assert cs.Plasticity(momentum=0).per_step(0.5) == (0.0, 0.5)
    with pytest.raises(cs.ParameterError, match="cannot resolve"):
        cs.Plasticity(momentum=0.5).per_step(3.0)


def test_published_schedules():
    step = cs.Plasticity().learning_rate
    assert step == cs.InverseSqrtRate(3e-4, timescale=2 * ms, onset=50 * ms)
    assert step.at([0, 50, 51]) == pytest.approx([0, 0, 3e-4 / np.sqrt(26.5)])
    once = cs.Plasticity("mean_subtracted").learning_rate
    assert once.at([0, 1]) == pytest.approx([0.5 / 1000, 0.5 / 1001])


@pytest.mark.parametrize("dt", [0.1, 0.3, 1.0, 7.0])
def test_onset_is_a_whole_step_whatever_rounding_says(dt):
    rate = cs.InverseSqrtRate(1.0, timescale=2 * ms, onset=50 * ms)
    first = rate.first_step(dt)
    assert first * dt > 50 + 1e-9
    assert (first - 1) * dt <= 50 + 1e-9


# -- rules --------------------------------------------------------------------------------------


def test_rules_know_their_gains_from_their_signals():
    alpha = np.array([0.0, 1.0, 10.0])
    rules = cs.rules.RULES
    assert rules["circuit"].gain_of_mean(alpha) == pytest.approx(1 / (1 + alpha))
    assert rules["inhibition_gated"].gain_of_mean(alpha) == pytest.approx(np.zeros(3))
    assert rules["mean_subtracted"].gain_of_mean(alpha) == pytest.approx(np.zeros(3))
    assert rules["mean_subtracted"].per_presentation
    assert not rules["circuit"].per_presentation


@pytest.mark.parametrize("signal", ["tanh(r - b)", "r", "(r - b)*r_inh", "r - b + 1"])
def test_rules_that_are_not_linear_have_no_closed_form(signal):
    rule = Rule("other", signal, "a test")
    assert rule.linear is None
    with pytest.raises(cs.ParameterError, match="must be linear"):
        rule.gain_of_mean(10.0)


def test_rules_with_unknown_variables_are_refused():
    with pytest.raises(cs.ParameterError, match=r"Rule.signal: must use r, r_inh, b"):
        Rule("other", "r - foo", "a test")


# -- measures -----------------------------------------------------------------------------------

WEIGHTS = hnp.arrays(
    float,
    hnp.array_shapes(min_dims=2, max_dims=4, min_side=2, max_side=5),
    elements=st.floats(0.1, 10),
)


@given(WEIGHTS)
def test_measures_agree_with_their_definitions(weights):
    mean, var = weights.mean(axis=-2), weights.var(axis=-2)
    if np.any(var < 1e-12):
        return
    assert cs.measures.snr_w(weights) == pytest.approx((mean**2 / var).mean(axis=-1))
    inverse = cs.measures.inverse_snr_w(weights)
    assert inverse == pytest.approx((var / mean**2).mean(axis=-1))
    assert np.all(1 / cs.measures.snr_w(weights) <= inverse * (1 + 1e-12))


@given(WEIGHTS, st.floats(0.5, 2))
def test_cosine_does_not_know_scale(weights, scale):
    cosine = cs.measures.mean_weight_cosine(scale * weights, weights)
    assert cosine == pytest.approx(np.ones(weights.shape[:-2]))


@given(WEIGHTS, st.integers(0, 100))
def test_cosine_and_length_are_those_of_means(weights, seed):
    w_init = 1 + np.random.default_rng(seed).standard_normal(weights.shape)
    mean, initial = weights.mean(axis=-2), w_init.mean(axis=-2)
    lengths = np.linalg.norm(mean, axis=-1), np.linalg.norm(initial, axis=-1)
    cosine = cs.measures.mean_weight_cosine(weights, w_init)
    assert cosine * lengths[0] * lengths[1] == pytest.approx((mean * initial).sum(axis=-1))
    assert cs.measures.mean_weight_kept(weights, w_init) * lengths[1] == pytest.approx(lengths[0])


def test_measures_refuse_what_is_no_pool():
    with pytest.raises(cs.ParameterError, match=r"\(..., neuron, input\)"):
        cs.measures.snr_w([1.0, 2.0])


# -- inputs -------------------------------------------------------------------------------------


@given(st.integers(0, 1500), st.integers(0, 1500), st.integers(0, 5))
def test_inputs_do_not_depend_on_how_they_are_drawn(start, length, seed):
    source = cs.inputs.GaussianInputs(2000, 3, seed)
    whole = source.block(0, 2000)
    assert np.array_equal(source.block(start, start + length), whole[start : start + length])
    shorter = cs.inputs.GaussianInputs(700, 3, seed)
    assert np.array_equal(shorter.block(0, 700), whole[:700])


def test_inputs_have_the_covariance_asked_for():
    covariance = cs.inputs.equicorrelated(0.6, 4)
    x = cs.inputs.GaussianInputs(200_000, 4, 0, covariance).block(0, 200_000)
    assert np.cov(x.T) == pytest.approx(covariance, abs=0.02)
    assert x.mean(axis=0) == pytest.approx(np.zeros(4), abs=0.02)


def test_degenerate_covariances_work():
    x = cs.inputs.GaussianInputs(1000, 3, 0, cs.inputs.equicorrelated(1.0, 3)).block(0, 1000)
    assert np.ptp(x, axis=1) == pytest.approx(np.zeros(1000), abs=1e-7)
    x = cs.inputs.GaussianInputs(1000, 3, 0, cs.inputs.equicorrelated(-0.5, 3)).block(0, 1000)
    assert x.sum(axis=1) == pytest.approx(np.zeros(1000), abs=1e-7)


@pytest.mark.parametrize("rho", [1.1, -0.6, float("nan"), "a"])
def test_impossible_correlations_are_refused(rho):
    with pytest.raises(cs.ParameterError, match="correlation"):
        cs.inputs.equicorrelated(rho, 3)


@pytest.mark.parametrize(
    "covariance",
    [np.eye(2), -np.eye(3), [[1, 2, 0], [0, 1, 0], [0, 0, 1]], np.full((3, 3), np.nan)],
)
def test_impossible_covariances_are_refused(covariance):
    with pytest.raises(cs.ParameterError, match="covariance"):
        cs.inputs.GaussianInputs(10, 3, 0, covariance)


# -- theory -------------------------------------------------------------------------------------


def test_published_end_points(rng):
    """The numbers of MODEL.md section 3, for initial weights 1 + N(0, 1)."""
    w = 1 + rng.standard_normal((200_000, 3))
    for gamma, theory, own in ((0.1, -2.08, -1.52), (0.01, -4.01, -2.00), (0.001, -6.00, -2.07)):
        assert np.log10(cs.theory.minimum_inverse_snr_w(gamma)) == pytest.approx(theory, abs=0.005)
        for rule, expected in (("mean_subtracted", theory), ("circuit", own)):
            end = cs.theory.fixed_point(w, gamma, rule=rule, alpha=10.0)
            assert np.log10(cs.measures.inverse_snr_w(end)) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("rule", ["mean_subtracted", "circuit", "inhibition_gated"])
@pytest.mark.parametrize("rho", [0.0, 0.4])
def test_fixed_point_is_where_the_average_update_vanishes(rule, rho, rng):
    n_inputs, gamma, alpha = 4, 0.07, 3.0
    covariance = cs.inputs.equicorrelated(rho, n_inputs)
    w_init = rng.standard_normal((6, n_inputs)) + 1
    w = cs.theory.fixed_point(w_init, gamma, rule, alpha, covariance)
    if rule == "mean_subtracted":
        signal_per_input = w - w.mean(axis=0)
    else:
        # The signal at the fast fixed point is linear in x: its response to each input in turn.
        rates = cs.theory.fast_fixed_point(w.T, alpha, b=1.0)
        signal_per_input = (rates.rate - 1.0).T
        if rule == "inhibition_gated":
            signal_per_input = signal_per_input - rates.rate_inh
    update = signal_per_input @ covariance + gamma * (w - w_init)
    assert update == pytest.approx(np.zeros_like(update), abs=1e-12)


def test_fixed_point_without_a_pull(rng):
    w_init = rng.standard_normal((5, 3)) + 1
    shared = cs.theory.fixed_point(w_init, 0.0, "mean_subtracted")
    assert shared == pytest.approx(np.broadcast_to(w_init.mean(axis=0), (5, 3)))
    assert cs.theory.fixed_point(w_init, 0.0, "circuit") == pytest.approx(np.zeros((5, 3)))
    # Only the direction with input is shared; the others stay as they were.
    along = np.zeros((3, 3))
    along[0, 0] = 1
    partly = cs.theory.fixed_point(w_init, 0.0, "mean_subtracted", covariance=along)
    assert partly[:, 0] == pytest.approx(np.full(5, w_init[:, 0].mean()))
    assert partly[:, 1:] == pytest.approx(w_init[:, 1:])
    ratio = cs.measures.inverse_snr_w(
        cs.theory.fixed_point(w_init, 0.0, "circuit", 10.0, limit=True)
    )
    tiny = cs.measures.inverse_snr_w(cs.theory.fixed_point(w_init, 1e-9, "circuit", 10.0))
    assert ratio == pytest.approx(tiny, rel=1e-6)


def test_fast_fixed_point_stays_fixed(rng):
    drive, alpha, b = rng.standard_normal((2, 7)), np.array([2.0, 10.0]), np.array([1.0, 3.0])
    rate, rate_inh = cs.theory.fast_fixed_point(drive, alpha, b)
    change = -rate + drive - (alpha * rate_inh)[:, np.newaxis] + b[:, np.newaxis]
    assert change == pytest.approx(np.zeros_like(change), abs=1e-12)
    assert -rate_inh + rate.mean(axis=1) - b == pytest.approx(np.zeros(2), abs=1e-12)


# -- description --------------------------------------------------------------------------------


def test_description_shows_the_equations_that_are_run():
    shown = cs.describe(cs.Circuit(), cs.Plasticity())
    assert cs.Circuit().dynamics.excitatory in str(shown)
    assert "(r - b)*x + gamma*(w - w_init)" in str(shown)
    assert r"\frac{d r_i}{dt}" in shown.latex
    assert r"\frac{d r_i}{dt}" in shown._repr_html_()
    assert "| `tau` |" in shown.markdown
    gated = cs.describe(cs.Circuit(), cs.Plasticity("inhibition_gated"))
    assert "(r - b - r_inh)*x" in str(gated)
    ideal = str(cs.describe(cs.Circuit(), cs.Plasticity("mean_subtracted")))
    assert "dr/dt" not in ideal
    assert "(z - z_mean)*x" in ideal
    assert "table" in cs.Circuit(alpha=[1, 2])._repr_html_()
    assert "dr_inh" not in cs.Plasticity()._repr_html_()


# -- what drives tell, and when -----------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_snr_of_drives_is_that_of_a_plain_loop(rank, rng):
    weights = rng.standard_normal((2, 5, 6))
    patterns = rng.standard_normal((rank, 6))
    found = cs.measures.snr_z(weights, patterns.T @ patterns / rank)
    for pool, ratio in zip(weights, found, strict=True):
        drives = patterns @ pool.T  # (pattern, neuron)
        mean = drives.mean(axis=1)
        expected = np.mean(mean**2) / np.mean((drives - mean[:, None]) ** 2)
        assert ratio == pytest.approx(expected, rel=1e-12)


def test_snr_of_drives_sees_only_where_inputs_go(rng):
    """With fewer patterns than inputs the pool's drives become one, and its weights do not."""
    patterns = rng.standard_normal((2, 5))
    w_init = 1 + rng.standard_normal((20, 5))
    run = cs.simulate(
        w_init,
        patterns[rng.integers(0, 2, 4000)],
        plasticity=cs.Plasticity("mean_subtracted", gamma=0.0),
        engine="propagator",
    )
    covariance = patterns.T @ patterns / 2
    before, after = (cs.measures.snr_z(w, covariance) for w in (w_init, run.weights))
    assert after > 1e6 * before
    assert run.snr_w[-1] < 10


def test_presentations_until(rng):
    w_init, inputs = 1 + rng.standard_normal((3, 20, 4)), rng.standard_normal((300, 3, 4))
    run = cs.simulate(w_init, inputs, engine="propagator", record=10)
    found = cs.measures.presentations_until(run, 0.3)
    assert found.dims == ("circuit",)
    for circuit, number in enumerate(found.values):
        curve = run.inverse_snr_w.isel(circuit=circuit)
        at = [int(p) for p in curve.presentation if curve.sel(presentation=p) <= 0.3]
        assert number == min(at)
    assert np.isnan(cs.measures.presentations_until(run, 1e-30)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: cs.measures.snr_z(w, np.eye(3)), r"shape \(4, 4\)"),
        (lambda w: cs.measures.snr_z(w, np.triu(np.ones((4, 4)))), "symmetric"),
        (
            lambda w: cs.measures.snr_z(w, -np.eye(4)),
            "must be positive semidefinite; one eigenvalue is -1",
        ),
        (lambda w: cs.measures.presentations_until(xr.Dataset(), 0.1), "simulate or load"),
        (lambda w: cs.measures.presentations_until(xr.Dataset(), 0), "> 0"),
    ],
)
def test_measures_refuse(call, message, rng):
    with pytest.raises(cs.ParameterError, match=message):
        call(rng.standard_normal((5, 4)))
