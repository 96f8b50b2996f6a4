"""Sleep of locally connected layers: pools, the operator that serves them all, and its limits."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from brian2 import ms
from conftest import grid, relative
from hypothesis import given, settings
from hypothesis import strategies as st

import circuitsim as cs
from circuitsim import measures, theory
from circuitsim.checks.validation import ParameterError
from circuitsim.inputs import GaussianInputs
from circuitsim.vision import parallel
from circuitsim.vision.geometry import Geometry
from circuitsim.vision.pools import pools
from circuitsim.vision.sharing import (
    Sharing,
    former,
    layer_inverse_snr_w,
    layer_snr_w,
    of_plain,
    of_words,
    plain,
)


def fields_seen(pattern, geometry, border="awake"):
    """What each position sees of a repeated pattern, at least (k, k, channel).

    Around it there are zeros, or where the border sleeps too, the pattern goes on.
    """
    k, s, p = geometry.kernel, geometry.stride, geometry.padding
    rows, columns = geometry.input_shape
    q = len(pattern)
    sheet = np.tile(pattern, (-(-rows // q) + 2, -(-columns // q) + 2, 1))
    padded = sheet[q - p : q + rows + p, q - p : q + columns + p].copy()
    if border == "awake":
        padded[:p] = padded[p + rows :] = padded[:, :p] = padded[:, p + columns :] = 0
    return {
        (i, j): padded[i * s : i * s + k, j * s : j * s + k]
        for i, j in product(*map(range, geometry.output_shape))
    }


def positions(pool):
    return set(product(*(range(c.start, c.stop, c.step) for c in (pool.rows, pool.columns))))


geometries = st.builds(
    lambda rows, columns, k, s, p: Geometry(
        (max(rows, k - 2 * (p % k)), max(columns, k - 2 * (p % k))), k, s, p % k
    ),
    st.integers(1, 13),
    st.integers(1, 13),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(0, 4),
)


@settings(max_examples=150, deadline=None)
@given(
    geometry=geometries, border=st.sampled_from(["asleep", "awake"]), stage=st.sampled_from([0, 1])
)
def test_pools_are_the_positions_that_see_the_same(geometry, border, stage):
    rng = np.random.default_rng(0)
    period, k = geometry.kernel + stage, geometry.kernel
    pattern = rng.uniform(1, 2, (period, period, 2))  # no zeros
    seen = fields_seen(pattern, geometry, border)
    by_content = {}
    for position, field in seen.items():
        if field.all():
            by_content.setdefault(field.tobytes(), set()).add(position)
    found = Sharing(border=border).pools(geometry, stage)
    assert {frozenset(positions(p)) for p in found} == set(map(frozenset, by_content.values()))
    for pool in found:
        assert pool.size == len(positions(pool))
        back = (-pool.phase[0], -pool.phase[1])
        for position in positions(pool):
            rolled = np.roll(pattern, back, (0, 1))[:k, :k]
            np.testing.assert_array_equal(seen[position], rolled)

    everywhere = pools(geometry, period=period)
    assert sorted(one for pool in everywhere for one in positions(pool)) == sorted(seen)
    # Without padding they are the same; with it, the pools of inner positions are parts of them.
    for part in found:
        assert any(positions(part) <= positions(whole) for whole in everywhere)


def random_weights(geometry, channels, outputs, dtype=float, seed=0):
    shape = (*geometry.output_shape, geometry.kernel, geometry.kernel, channels, outputs)
    return (0.5 + np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


RULES = ("mean_subtracted", "circuit", "inhibition_gated")
LAYERS = [
    Geometry((9, 7), kernel=3, padding=1),
    Geometry((9, 10), kernel=3, stride=2, padding=2),
    Geometry((9, 9), kernel=2, stride=3),
    Geometry((13, 12), kernel=4, stride=2, padding=1),
    Geometry((15, 8), kernel=7, stride=2, padding=3),
    Geometry((4, 3), kernel=1, stride=2),
]


@pytest.mark.slow
@grid(
    method=[*RULES, "half = r - b - 0.5*r_inh", "weak = 0.5*z - 0.4*z_mean"],
    geometry=LAYERS,
    border=["asleep", "awake"],
    periods=[1, 2],
)
def test_operator_equals_the_engine_on_each_pool(method, geometry, border, periods):
    """Every neuron of a pool is simulated with the very numbers that its field sees."""
    channels, outputs, presentations = 2, 3, 40
    weights = random_weights(geometry, channels, outputs)
    k = geometry.kernel
    n_inputs = k * k * channels
    ideal = "z" in method.split("=")[-1] or method == "mean_subtracted"
    rate = 0.3 / n_inputs if ideal else 2e-4 / n_inputs
    sharing = Sharing(method, periods * presentations, gamma=0.02, alpha=4, tau=20 * ms,
                      learning_rate=rate, border=border, periods=periods)  # fmt: skip
    asleep = sharing.share(weights, geometry, seed=[3, 1])
    plasticity = cs.Plasticity(
        method,
        gamma=0.02,
        momentum=0 if ideal else 0.95,
        learning_rate=cs.ConstantRate(rate),
    )
    expected = weights
    for stage in range(periods):
        start, expected = expected, expected.copy()
        period = k + stage
        seed = np.random.SeedSequence([3, 1], spawn_key=(period,) if stage else ())
        patterns = GaussianInputs(presentations, period**2 * channels, seed)
        seen = [
            fields_seen(p.reshape(period, period, channels), geometry, border)
            for p in patterns.block(0, presentations)
        ]
        for pool in sharing.pools(geometry, stage):
            if pool.size == 1 and method == "mean_subtracted":
                continue  # has no deviations
            members = sorted(positions(pool))
            inputs = np.array([s[members[0]].ravel() for s in seen])
            # Output channels are pools of their own, which see the same: circuits of one batch.
            w_init = np.array(
                [[start[i, j, ..., o].ravel() for i, j in members] for o in range(outputs)]
            )
            single = len(members) == 1
            run = cs.simulate(
                np.repeat(w_init, 2, axis=1) if single else w_init,
                inputs,
                cs.Circuit(2 if single else len(members), tau=20 * ms, alpha=4, b=0),
                plasticity,
                engine="propagator",
            )
            ended = run.weights.to_numpy()
            for n, (i, j) in enumerate(members):
                expected[i, j] = np.moveaxis(ended[:, n].reshape(outputs, k, k, channels), 0, -1)
    if any(pool.size > 1 for pool in sharing.pools(geometry)):
        assert np.abs(asleep - weights).max() > 0.1
    np.testing.assert_allclose(asleep, expected, rtol=0, atol=1e-12)


def test_strong_inhibition_takes_short_steps():
    """As above, step by step, with an alpha that is unstable in steps of 1 ms."""
    geometry = Geometry((6, 6), kernel=2, stride=2)  # every position sees the whole pattern
    weights = random_weights(geometry, 1, 1)
    strong = {"presentations": 8, "alpha": 500, "learning_rate": 1e-4}
    with pytest.raises(ParameterError, match="unstable"):
        Sharing("circuit", **strong)
    sharing = Sharing("circuit", **strong, dt=0.1 * ms)
    run = cs.simulate(
        weights.reshape(9, 4),
        GaussianInputs(8, 4, 5),
        cs.Circuit(9, b=0, alpha=500),
        cs.Plasticity("circuit", gamma=1e-3, learning_rate=cs.ConstantRate(1e-4)),
        dt=0.1 * ms,
        engine="stepper",
    )
    asleep = sharing.share(weights, geometry, 5).reshape(9, 4)
    np.testing.assert_allclose(asleep, run.weights.to_numpy(), rtol=0, atol=1e-12)
    simulated = Sharing(
        "circuit", 8, learning_rate=1e-4, dt=0.1 * ms, circuit=cs.Circuit(alpha=500, b=0)
    )
    found = simulated.share(weights, geometry, 5).reshape(9, 4)
    np.testing.assert_allclose(found, asleep, rtol=0, atol=1e-12)
    # The mean decays 1 + alpha times more slowly than deviations, or nearly.
    weak = Sharing("circuit", presentations_per_input=4, alpha=50)
    kept = [weak.kept(36), replace(weak, alpha=500, dt=0.1 * ms).kept(36)]
    assert kept[0].deviation == pytest.approx(kept[1].deviation, rel=0.01)
    assert np.log(kept[0].mean) / np.log(kept[1].mean) == pytest.approx(501 / 51, rel=0.2)


def test_times_are_written_alike():
    """Digests of trainings are of this text."""
    usual = Sharing("circuit")
    assert repr(Sharing("circuit", tau=30 * ms, dt=1 * ms)) == repr(usual)
    assert "dt" not in repr(usual)
    short = Sharing("circuit", dt=0.5 * ms)
    assert "dt=0.5*ms" in repr(short)
    assert "steps of 0.5 ms" in str(short)


@pytest.mark.slow
def test_operator_equals_the_network_of_neurons():
    """As above with Brian2's network, for one pool."""
    geometry = Geometry((6, 6), kernel=2, stride=2)  # every position sees the whole pattern
    weights = random_weights(geometry, 1, 1)
    sharing = Sharing("circuit", 3, learning_rate=1e-4)
    run = cs.simulate(
        weights.reshape(9, 4),
        GaussianInputs(3, 4, 5),
        cs.Circuit(9, b=0),
        cs.Plasticity("circuit", gamma=1e-3, learning_rate=cs.ConstantRate(1e-4)),
        engine="brian2_per_synapse",
        codegen="numpy",
    )
    asleep = sharing.share(weights, geometry, 5).reshape(9, 4)
    np.testing.assert_allclose(asleep, run.weights.to_numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("padding", [0, 1])
def test_instant_takes_the_mean_of_each_pool(padding):
    geometry = Geometry((8, 7), 3, padding=padding)
    weights = random_weights(geometry, 2, 3)
    shared = Sharing("instant").share(weights, geometry, 0)
    for pool in pools(geometry):
        members = sorted(positions(pool))
        mean = np.mean([weights[m] for m in members], axis=0)
        for m in members:
            np.testing.assert_allclose(shared[m], mean, rtol=0, atol=1e-14)
    np.testing.assert_allclose(
        Sharing("instant").share(shared, geometry, 0), shared, rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("border", ["asleep", "awake"])
def test_a_long_sleep_by_the_rule_tends_to_instant_sharing(padding, stride, border):
    geometry = Geometry((11, 10), 3, stride, padding)
    weights = random_weights(geometry, 2, 2)
    instant = Sharing("instant", border=border).share(weights, geometry, 0)
    distances = []
    for presentations in (200, 400, 800):
        sharing = Sharing("mean_subtracted", presentations, gamma=1e-9, border=border)
        distances.append(np.abs(sharing.share(weights, geometry, 0) - instant).max())
    assert distances[0] > 10 * distances[1] > 100 * distances[2]
    assert distances[2] < 1e-7


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(geometry=geometries, seed=st.integers(0, 99))
def test_a_long_gated_sleep_is_as_close_to_instant_sharing_as_theory_says(geometry, seed):
    """Border positions or not: what is left of means, and of deviations from them, is the same."""
    weights = random_weights(geometry, 1, 2, seed=seed)
    gamma, alpha, n_inputs = 0.02, 10.0, geometry.kernel**2
    rate, presentations = 5e-5 / n_inputs, 150 * n_inputs
    sharing = Sharing(
        "inhibition_gated", presentations, gamma=gamma, alpha=alpha, learning_rate=rate
    )
    asleep = sharing.share(weights, geometry, seed)
    instant = Sharing("instant").share(weights, geometry, seed)
    gains = theory.gains("inhibition_gated", alpha, presentation=150 * ms, dt=1 * ms)
    # Learning per unit of gain: a rate per ms of rate/(1 - momentum), presentations of 150 ms.
    learned = rate / (1 - 0.95) * 150 * presentations
    kept, left = (
        (gamma + gain * np.exp(-(gain + gamma) * learned)) / (gain + gamma)
        for gain in (gains.mean, gains.deviation)
    )
    assert left < 0.03 < 0.7 < kept
    expected = kept * instant + left * (weights - instant)
    size = np.sqrt(np.mean(np.square(weights)))
    # The rest is that patterns are a sample: up to 0.06 of means, 0.01 of deviations.
    assert np.sqrt(np.mean(np.square(asleep - expected))) < 0.1 * size


@pytest.mark.parametrize("method", ["circuit", "inhibition_gated"])
@pytest.mark.parametrize(
    "geometry",
    [Geometry((8, 8), 3, padding=1), Geometry((9, 8), 5, padding=2), Geometry((7, 8), 3, 2, 1),
     Geometry((8, 9), 4, 1, 2)],
    ids=str,
)  # fmt: skip
def test_inner_and_border_weights_keep_the_same_size(method, geometry):
    """Asleep they fade together; the border awake stays as it was."""
    weights = random_weights(geometry, 3, 40)
    inner = np.zeros(geometry.output_shape, bool)
    for pool in pools(geometry, inner=True):
        inner[pool.rows, pool.columns] = True
    assert inner.any()
    assert not inner.all()

    def rms(w):
        return [float(np.sqrt(np.mean(np.square(w[part])))) for part in (inner, ~inner)]

    within, around = rms(weights)
    assert within == pytest.approx(around, rel=0.05)
    instant = rms(Sharing("instant").share(weights, geometry, 0))
    asleep = rms(Sharing(method).share(weights, geometry, 0))
    kept = [a / i for a, i in zip(asleep, instant, strict=True)]
    assert kept[0] == pytest.approx(kept[1], rel=0.05)
    assert kept[0] < 0.95
    awake = rms(Sharing(method, border="awake").share(weights, geometry, 0))
    assert awake[1] == around
    assert awake[0] < 0.9 * awake[1]


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_border_positions_may_stay_awake(method, dtype):
    geometry = Geometry((8, 9), 3, stride=2, padding=2)
    weights = random_weights(geometry, 2, 3, dtype)
    before = weights.copy()
    sharing = Sharing(method, 30, border="awake")
    asleep = sharing.share(weights, geometry, 0)
    np.testing.assert_array_equal(weights, before)  # the argument itself is not touched
    assert asleep.dtype == dtype
    inner = {position for pool in sharing.pools(geometry) for position in positions(pool)}
    for position in product(*map(range, geometry.output_shape)):
        same = np.array_equal(asleep[position], weights[position])
        # A pool of one has no deviations, and only the ideal rule leaves its mean alone.
        alone = any(positions(p) == {position} for p in sharing.pools(geometry))
        if position not in inner:
            assert same
        elif not (alone and method == "mean_subtracted"):
            assert not same
    assert 0 < len(inner) < weights.shape[0] * weights.shape[1]


@pytest.mark.parametrize("method", [*RULES, "instant"])
def test_layers_without_inner_positions(method):
    """They sleep all the same, unless borders stay awake."""
    geometry = Geometry((2, 5), 3, padding=1)
    assert not pools(geometry, inner=True)
    weights = random_weights(geometry, 2, 3)
    awake = Sharing(method, border="awake").share(weights, geometry, 0)
    np.testing.assert_array_equal(awake, weights)
    assert awake is not weights
    assert np.isnan(layer_snr_w(weights, geometry, "awake"))
    asleep = Sharing(method).share(weights, geometry, 0)
    assert layer_snr_w(asleep, geometry) > 100 * layer_snr_w(weights, geometry)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [2.0, 10.0])
def test_inhibition_of_finite_strength_shrinks_the_mean_as_predicted(alpha):
    """Slow and long sleeps average over many patterns, as the closed forms do."""
    kept = {}
    for method in ("circuit", "inhibition_gated"):
        sharing = Sharing(method, 40_000, gamma=0.1, alpha=alpha, learning_rate=1e-6)
        slept = [sharing.maps(4, seed) for seed in range(8)]
        kept[method], left = (
            np.mean([np.trace(getattr(maps, name)) / 4 for maps in slept])
            for name in ("mean", "deviation")
        )
        gains = theory.gains(method, alpha, presentation=150 * ms, dt=1 * ms)
        # Over seeds the standard deviation of these is 0.017 or less, relative to their value.
        assert kept[method] == pytest.approx(0.1 / (0.1 + gains.mean), rel=0.02)
        assert left == pytest.approx(0.1 / (0.1 + gains.deviation), rel=0.02)
    # Were the rates settled at all times:
    settled = 0.1 * (1 + alpha) / (1 + 0.1 * (1 + alpha))
    assert kept["circuit"] == pytest.approx(settled, rel=0.15)
    assert kept["circuit"] < kept["inhibition_gated"] < 1


@pytest.mark.parametrize(
    ("per_input", "rule", "circuit", "mean_circuit", "mean_gated"),
    [
        (5, 0.084, 0.112, 0.60, 0.91),
        (10, 0.0074, 0.0136, 0.37, 0.84),
        (20, 0.0014, 0.0019, 0.14, 0.70),
    ],
)
def test_table_of_what_is_left(per_input, rule, circuit, mean_circuit, mean_gated):
    """The numbers in the documentation of `circuitsim.vision.sharing`, for patterns of 144."""
    maps = {m: Sharing(m, presentations=per_input * 144).maps(144, 1) for m in RULES}
    left = {m: np.linalg.norm(maps[m].deviation) / 12 for m in RULES}
    mean = {m: np.trace(maps[m].mean) / 144 for m in RULES}
    for name, expected in zip(RULES, (rule, circuit, circuit), strict=True):
        assert left[name] == pytest.approx(expected, rel=0.1)
    assert mean["mean_subtracted"] == pytest.approx(1, abs=1e-12)
    assert mean["circuit"] == pytest.approx(mean_circuit, abs=0.02)
    assert mean["inhibition_gated"] == pytest.approx(mean_gated, abs=0.02)
    if per_input == 10:  # the default
        default = Sharing("circuit").maps(144, 1)
        np.testing.assert_array_equal(default.deviation, maps["circuit"].deviation)


@pytest.mark.parametrize("method", ["instant", *RULES])
def test_what_a_sleep_keeps(method):
    """Told before it, and measured on weights after it."""
    geometry = Geometry((9, 9), 3)  # 49 positions, of which those that start at (0, 0) are nine
    weights = random_weights(geometry, 4, 200)
    given = {} if method == "instant" else {"presentations_per_input": 1, "alpha": 50}
    sharing = Sharing(method, **given)
    asleep = sharing.share(weights, geometry, seed=3)
    before, after = (w[::3, ::3] for w in (weights, asleep))
    found = [
        np.std(after - after.mean((0, 1))) / np.std(before - before.mean((0, 1))),
        np.linalg.norm(after.mean((0, 1))) / np.linalg.norm(before.mean((0, 1))),
    ]
    kept = sharing.kept(36, seed=3)
    np.testing.assert_allclose(found, kept, rtol=0.02, atol=1e-15)
    assert kept.deviation < 0.7 < 0.9 < kept.mean


def test_two_stages_keep_alike():
    half = Sharing("circuit", presentations_per_input=2, alpha=50)
    both = Sharing("circuit", presentations_per_input=4, alpha=50, periods=2)
    assert both.kept(36) == half.kept(36)
    second, _ = both._stage((3, 3, 4), 0, 1.0, stage=1)
    left = [np.sqrt(np.mean(m**2) * 36) for m in (second.deviation, second.mean)]
    np.testing.assert_allclose(left, both.kept(36), rtol=0.1)
    with pytest.raises(ParameterError, match="no sleeps"):
        Sharing("awake").kept(36)
    with pytest.raises(ParameterError, match="simulated"):
        Sharing("circuit", circuit=cs.Circuit(transfer="relu")).kept(36)


@pytest.mark.slow
@pytest.mark.parametrize("n_inputs", [1, 9, 288])
@pytest.mark.parametrize("method", RULES)
def test_defaults_suit_any_number_of_inputs(method, n_inputs):
    maps = Sharing(method).maps(n_inputs, 0)
    assert np.linalg.norm(maps.deviation) / np.sqrt(n_inputs) < 0.05
    assert np.abs(maps.mean).max() < 1.01


def test_groups_share_their_patterns():
    """A layer with groups is as many layers side by side."""
    geometry = Geometry((6, 6), 3)
    weights = random_weights(geometry, 2, 6)
    sharing = Sharing("circuit", 100)
    whole = sharing.share(weights, geometry, 0)
    parts = [sharing.share(weights[..., i : i + 3], geometry, 0) for i in (0, 3)]
    np.testing.assert_allclose(whole, np.concatenate(parts, axis=-1), rtol=0, atol=1e-14)


def test_single_precision():
    geometry = Geometry((8, 8), 3, padding=1)
    weights = random_weights(geometry, 4, 5)
    sharing = Sharing("inhibition_gated")
    double = sharing.share(weights, geometry, 0)
    single = sharing.share(weights.astype(np.float32), geometry, 0)
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-5)


def test_seeds():
    geometry = Geometry((6, 6), 3)
    weights = random_weights(geometry, 1, 1)
    sharing = Sharing("mean_subtracted", 10)

    def asleep(seed):
        return sharing.share(weights, geometry, seed)

    np.testing.assert_array_equal(asleep(7), asleep(np.random.SeedSequence(7)))
    np.testing.assert_array_equal(asleep([7, 1]), asleep((7, 1)))
    child = np.random.SeedSequence(7, spawn_key=(1,))
    for other in ([7, 1], [7, 2], 8, child):
        assert not np.array_equal(asleep(7), asleep(other))
    assert sharing.maps(9, [7, 1]) is Sharing("mean_subtracted", 10).maps(
        9, [7, 1]
    )  # computed once


def test_snr_of_a_layer():
    geometry = Geometry((6, 7), 3, padding=1)
    weights = random_weights(geometry, 2, 3)
    snr, inverse = [], []
    for pool, output in product(pools(geometry), range(3)):
        neurons = [weights[m][..., output].ravel() for m in positions(pool)]
        if len(neurons) > 1:
            snr.append(measures.snr_w(neurons))
            inverse.append(measures.inverse_snr_w(neurons))
    assert layer_snr_w(weights, geometry) == pytest.approx(np.mean(snr), rel=1e-12)
    assert layer_inverse_snr_w(weights, geometry) == pytest.approx(np.mean(inverse), rel=1e-12)
    shared = Sharing("instant").share(weights, geometry, 0)
    assert layer_inverse_snr_w(shared, geometry) < 1e-20


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"method": "magic"},
            "Sharing.method: must be one of awake, circuit, inhibition_gated, instant, "
            "mean_subtracted, or a rule, 'name = signal' (got 'magic')",
        ),
        ({"method": "none"}, "Sharing.method: must be one of"),
        ({"method": None}, "Sharing.method: must be one of"),
        ({"method": "mine = (r - b)**2"}, "Sharing.method: must be linear in the rates"),
        ({"method": "mine = clip(r - b, 0, inf) ~ (r - b)/2"}, "Sharing.method: must be linear"),
        ({"method": "mine = r"}, "Sharing.method: must be linear"),
        ({"method": "mine = b - r"}, "Sharing.method: must have a signal that grows with r"),
        ({"method": "mine = z_mean"}, "Sharing.method: must have a signal that grows with r (or z"),
        ({"method": "mine = r - q"}, "Rule.signal: must use r, r_inh, b, z, z_mean"),
        ({"method": "circuit = r - b - r_inh"}, "Sharing.method: gives a name of the package an"),
        ({"periods": 3}, "Sharing.periods: must be 1 or 2 (got 3)"),
        ({"periods": 0}, "Sharing.periods: must be a whole number >= 1"),
        ({"moments": "none"}, "Sharing.moments: must be one of own, shared (got 'none')"),
        ({"border": "left"}, "Sharing.border: must be one of asleep, awake (got 'left')"),
        ({"presentations": 0}, "Sharing.presentations: must be a whole number >= 1"),
        ({"presentations": 1.5}, "Sharing.presentations: must be a whole number >= 1"),
        ({"presentations": 10**30}, "Sharing.presentations: must be < 1e+07"),
        ({"presentations_per_input": 1e300}, "presentations_per_input: must be > 0 and < 1e+07"),
        ({"gamma": -1}, "gamma: must be >= 0"),
        ({"gamma": [1, 2]}, "Sharing.gamma: must be a finite number"),
        ({"alpha": -1}, "Circuit.alpha: must be >= 0"),
        ({"alpha": 70}, "Circuit.alpha: Euler with dt = 1 ms is unstable from alpha = 59 up"),
        ({"tau": 0 * ms}, "Sharing.tau: must be > 0 ms"),
        ({"tau": [30, 40] * ms}, "Sharing.tau: must be a finite number (got"),
        ({"dt": 0 * ms}, "Sharing.dt: must be > 0 ms"),
        ({"dt": 0.7 * ms}, "Sharing.dt: must be a whole part of a presentation of 150 ms"),
        ({"learning_rate": 0}, "Sharing.learning_rate: must be > 0"),
        ({"learning_rate": float("nan")}, "Sharing.learning_rate: must be a finite number"),
    ],
)
def test_refused_options(options, text):
    with pytest.raises(ParameterError) as caught:
        Sharing(**options)
    assert text in str(caught.value)


def test_refused_weights():
    geometry = Geometry((6, 6), 3)
    sharing = Sharing("circuit", 10)
    for wrong in (np.ones((4, 4, 9, 3)), np.ones((4, 5, 3, 3, 1, 1)), np.ones((4, 4, 3, 3, 0, 1))):
        with pytest.raises(ParameterError, match=r"must have the shape \(4, 4, 3, 3, channel, out"):
            sharing.share(wrong, geometry, 0)
    with pytest.raises(ParameterError, match="must be float32 or float64"):
        sharing.share(np.ones((4, 4, 3, 3, 1, 1), dtype=int), geometry, 0)
    with pytest.raises(ParameterError, match="must be a rule to sleep by"):
        Sharing("instant").maps(9, 0)


@pytest.mark.parametrize(
    ("method", "rate"),
    [("mean_subtracted", 0.5), ("circuit", 1e-3), ("inhibition_gated", 1e-3)],
)
def test_learning_rates_that_are_too_high(method, rate):
    """Such weights would diverge: nothing of the kind is returned."""
    with pytest.raises(
        ParameterError, match="is too high for 27 inputs: weights would grow; the d"
    ):
        Sharing(method, learning_rate=rate).maps(27, 0)


def test_any_linear_rule_puts_a_layer_to_sleep():
    """Its default rate removes as much along a pattern as that of others."""
    geometry = Geometry((8, 8), 3, padding=1)
    weights = random_weights(geometry, 2, 2)
    for name, definition, factor in (
        ("circuit", "mine = 4*(r - b)", 4),
        ("inhibition_gated", "mine = 0.5*(r - b - r_inh)", 0.5),
        ("mean_subtracted", "mine = 3*z - 3*z_mean", 3),
    ):
        # Gamma acts beside the signal, which is larger by this factor.
        known = Sharing(name, gamma=0.01).share(weights, geometry, 0)
        mine = Sharing(definition, gamma=0.01 * factor).share(weights, geometry, 0)
        np.testing.assert_allclose(mine, known, rtol=0, atol=1e-12)
    rule = cs.rules.register(cs.rules.Rule("halfway_there", "r - b - 0.5*r_inh"))
    try:
        named = Sharing("halfway_there")
    finally:
        del cs.rules.RULES[rule.name]
    # It is kept with its definition: whoever reads it need not know the name.
    assert named.method == "halfway_there = r - b - 0.5 * r_inh"
    kept = [
        np.abs(np.trace(sharing.maps(9, 0).mean))
        for sharing in (Sharing("circuit"), named, Sharing("inhibition_gated"))
    ]
    assert kept == sorted(kept)


def test_fields_of_earlier_versions():
    """They left border positions out of every sleep but averaging."""
    assert former({"method": "gated", "alpha": 50.0}) == {
        "method": "inhibition_gated", "alpha": 50.0, "border": "awake",
    }  # fmt: skip
    assert former({"method": "rule"}) == {"method": "mean_subtracted", "border": "awake"}
    assert former({"method": "circuit"}) == {"method": "circuit", "border": "awake"}
    assert former({"method": "instant"}) == {"method": "instant", "border": "asleep"}
    now = {"method": "gated = r - b", "border": "asleep"}
    assert former(now) == now


def averaging(size, period):
    """The matrix that replaces positions on a line by the mean of every ``period``-th."""
    phases = np.arange(size) % period
    alike = phases[:, None] == phases
    return alike / alike.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [5, 6, 8, 9, 12, 16])
def test_two_periods_leave_one_kernel_as_fast_as_theory_says(kernel, size):
    """Means of every k-th and of every (k + 1)-th position, in turn: projections that alternate.

    What is left of deviations shrinks by the square of the cosine of the angle between them; to
    nothing where positions are connected at all (Fine and Wilf: from 2 k positions on).
    """
    geometry = Geometry((size + kernel - 1,) * 2, kernel)
    weights = random_weights(geometry, 1, 1)
    of_channel = weights.mean(axis=(0, 1), keepdims=True)
    sharing, distances = Sharing("instant", periods=2), []
    for _ in range(12):
        weights = sharing.share(weights, geometry, 0)
        np.testing.assert_allclose(weights.mean(axis=(0, 1), keepdims=True), of_channel)
        distances.append(np.sqrt(np.mean(np.square(weights - of_channel))))
    both = averaging(size, kernel + 1) @ averaging(size, kernel)
    values = np.linalg.svd(both - np.full((size, size), 1 / size), compute_uv=False)
    connected = size >= 2 * kernel
    assert (values[0] < 1 - 1e-9) == connected
    if not connected:
        assert distances[-1] > 0.1 * distances[0]
        return
    # Of a product of projections; rows and columns decay alike, and their products faster.
    rate = values[0] ** 2
    assert distances[-1] < 1e-12 or distances[-1] / distances[-2] == pytest.approx(rate, rel=0.02)
    if size % (kernel * (kernel + 1)) == 0:  # every k-th and every (k + 1)-th meet equally often
        assert distances[0] < 1e-14


@pytest.mark.parametrize("method", RULES)
def test_sleeps_with_two_periods_leave_one_kernel(method):
    """With one, the nine kernels of a channel stay apart."""
    geometry = Geometry((8, 8), 3, padding=1)
    start = random_weights(geometry, 2, 3)

    def spread(periods):
        weights = start
        for seed in range(4):
            weights = Sharing(method, periods=periods, alpha=50, gamma=1e-4).share(
                weights, geometry, seed
            )
        kernel = weights.mean(axis=(0, 1))
        return np.sqrt(np.mean(np.square(weights - kernel)) / np.mean(np.square(kernel)))

    # Patterns are a sample, which under `circuit` moves the means of pools apart a little.
    assert spread(2) < 0.1 < 0.2 < spread(1)


@pytest.mark.parametrize("periods", [1, 2])
@pytest.mark.parametrize("method", [*RULES, "instant"])
def test_moments_are_shared_as_weights_are(method, periods):
    geometry = Geometry((8, 7), 3, padding=1)
    moments = np.square(random_weights(geometry, 2, 3))
    sharing = Sharing(method, 100, periods=periods, alpha=50)
    shared = sharing.share_moments(moments, geometry, 1)
    assert (shared > 0).all()
    assert shared.mean() == pytest.approx(moments.mean(), rel=1e-12)
    if method == "instant":
        np.testing.assert_allclose(shared, sharing.share(moments, geometry, 1), rtol=1e-12)
    elif periods == 1:
        left = np.linalg.norm(sharing.maps(18, 1).deviation) / np.sqrt(18)
        assert 0.02 < left < 0.6
        for pool in pools(geometry):
            before, after = (m[pool.rows, pool.columns] for m in (moments, shared))
            mean = before.mean(axis=(0, 1))
            np.testing.assert_allclose(after - mean, left * (before - mean), atol=1e-12)


@pytest.mark.parametrize("method", ["instant", "circuit"])
def test_sleeps_in_place(method):
    """Where an array is given, the numbers are those of a new one; others are refused."""
    geometry = Geometry((8, 7), 3, padding=1)
    start = random_weights(geometry, 2, 3)
    sharing = Sharing(method, 20, periods=2)
    for share in (sharing.share, sharing.share_moments):
        expected = share(start, geometry, 1)
        other, itself = np.empty_like(start), start.copy()
        assert share(start, geometry, 1, out=other) is other
        assert share(itself, geometry, 1, out=itself) is itself
        np.testing.assert_array_equal(other, expected)
        np.testing.assert_array_equal(itself, expected)
        assert not np.array_equal(start, expected)
        # An array that is not contiguous is shared as any other.
        np.testing.assert_array_equal(share(np.asfortranarray(start), geometry, 1), expected)
        for bad in (other[1:], other.astype(np.float32), np.asfortranarray(start)):
            with pytest.raises(cs.ParameterError, match="out: must be contiguous"):
                share(start, geometry, 1, out=bad)


@pytest.mark.parametrize("method", ["instant", "circuit", "mean_subtracted"])
@pytest.mark.parametrize("periods", [1, 2])
def test_sleeps_do_not_depend_on_threads(method, periods):
    geometry = Geometry((9, 8), 3, padding=1)
    start = random_weights(geometry, 8, 24, np.float32)
    sharing = Sharing(method, 30, periods=periods)
    ends = []
    for threads in (1, 2, 5, 10**30):
        with parallel.threads(threads):
            ends.append([f(start, geometry, 1) for f in (sharing.share, sharing.share_moments)])
    for end in ends[1:]:
        np.testing.assert_array_equal(end, ends[0])


IMPERFECT = {"transfer": "relu", "b": 2.0, "sigma": 0.1, "spread_alpha": 0.1, "delay": 2 * ms}


@pytest.mark.slow
def test_a_layer_sleeps_in_a_circuit_that_is_simulated():
    geometry = Geometry((5, 6), kernel=2, padding=1)
    weights = random_weights(geometry, 2, 3)
    how = {"presentations": 20, "learning_rate": 2e-5, "periods": 2}
    # The published circuit, written out, is what its matrices say.
    matrices = Sharing("circuit", alpha=4, **how).share(weights, geometry, 5)
    steps = Sharing("circuit", circuit=cs.Circuit(alpha=4), **how)
    assert relative(steps.share(weights, geometry, 5), matrices) < 1e-10
    sharing = Sharing("circuit", circuit=cs.Circuit(**IMPERFECT), **how)
    found = sharing.share(weights, geometry, 5)
    np.testing.assert_array_equal(found, sharing.share(weights, geometry, 5))
    assert relative(found, matrices) > 1e-3
    assert layer_inverse_snr_w(found, geometry) < layer_inverse_snr_w(weights, geometry)


def test_circuits_of_sharing_are_written_and_checked():
    circuit = cs.Circuit(**IMPERFECT)
    sharing = Sharing("circuit", circuit=circuit)
    described = plain(circuit)
    assert described == {
        "b": 2.0, "sigma": 0.1, "transfer": "relu", "delay": 2.0, "spread_alpha": 0.1
    }  # fmt: skip
    assert of_plain(json.loads(json.dumps(described))) == circuit
    assert "relu" in str(sharing)
    assert "relu" in repr(sharing)
    assert "circuit" not in repr(Sharing("inhibition_gated"))
    for method, more, message in (
        ("instant", {}, "has no effect with instant"),
        ("mean_subtracted", {}, "has no effect with mean_subtracted"),
        ("circuit", {"alpha": 3}, "Sharing.alpha: has no effect with a circuit"),
        ("circuit", {"moments": "shared"}, "must be own with a circuit"),
        ("circuit", {"circuit": cs.Circuit(7)}, "pools differ in size"),
        ("circuit", {"circuit": cs.Circuit(alpha=[1, 2])}, "numbers alone"),
        ("circuit", {"circuit": "relu"}, "must be a circuitsim.Circuit"),
        ("circuit", {"circuit": cs.Circuit(alpha=70)}, "unstable"),
    ):
        with pytest.raises(cs.ParameterError, match=message):
            Sharing(method, **{"circuit": circuit} | more)
    with pytest.raises(cs.ParameterError, match="has no matrices"):
        sharing.maps(4, 0)


def test_a_circuit_in_words():
    relu = "dr/dt = (-r + clip(z - alpha*r_inh + b, 0, inf))/tau"
    found = of_words(["tau_inh=90", "interneurons = 2", f"excitatory={relu}", "connect_ei=0.5"])
    asked = cs.Circuit(tau_inh=90 * ms, interneurons=2, excitatory=relu, connect_ei=0.5)
    assert found == asked
    assert of_words([f"{name}={value}" for name, value in plain(asked).items()]) == asked
