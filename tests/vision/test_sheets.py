"""A layer as one network of neurons: against the sleep of classifiers, single pools, and theory."""

from __future__ import annotations

import numpy as np
import pytest
from brian2 import DimensionMismatchError, ms, second

import circuitsim as cs
from circuitsim.checks.validation import ParameterError
from circuitsim.vision.geometry import Geometry
from circuitsim.vision.sharing import Sharing
from circuitsim.vision.sheets import end_point, private_variance

RULES = ("mean_subtracted", "circuit", "inhibition_gated")
LAYERS = [
    (Geometry((5, 4), 1, 1), 2, 1),
    (Geometry((7, 6), 2, 1, 1), 1, 2),
    (Geometry((8, 7), 3, 1, 1), 2, 2),
    (Geometry((9, 10), 3, 2, 2), 1, 3),
    (Geometry((10, 9), 4, 2, 1), 2, 1),
    (Geometry((12, 9), 5, 2, 2), 1, 2),
    (Geometry((11, 12), 5, 1), 3, 1),
]


def random_weights(*shape, seed=0):
    return 0.5 + np.random.default_rng(seed).standard_normal(shape)


def plasticity(method, n_inputs, gamma=0.02):
    ideal = method == "mean_subtracted"
    rate = 0.3 / n_inputs if ideal else 2e-4 / n_inputs
    return cs.Plasticity(method, gamma, 0.0 if ideal else 0.95, cs.ConstantRate(rate))


def agree(geometry, channels, outputs, border, method, engine, presentations):
    k = geometry.kernel
    weights = random_weights(*geometry.output_shape, k, k, channels, outputs)
    learning = plasticity(method, k * k * channels)
    sharing = Sharing(
        method, presentations, gamma=0.02, alpha=4, tau=20 * ms, border=border,
        learning_rate=float(learning.learning_rate.at(0)),
    )  # fmt: skip
    expected = sharing.share(weights, geometry, seed=[3, 1])
    run = cs.simulate_layer(
        weights, geometry, cs.Circuit(tau=20 * ms, alpha=4, b=0), learning,
        border=border, patterns=presentations, seed=[3, 1], engine=engine, codegen="numpy",
    )  # fmt: skip
    if any(pool.size > 1 for pool in sharing.pools(geometry)):
        assert np.abs(expected - weights).max() > 0.05
    ended = run.weights.to_numpy()
    np.testing.assert_allclose(ended, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    if border == "awake" and geometry.padding:
        awake = run["pool"].to_numpy() < 0
        assert awake.any()
        np.testing.assert_array_equal(ended[awake], weights[awake])


@pytest.mark.parametrize("border", ["asleep", "awake"])
@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize(("geometry", "channels", "outputs"), LAYERS, ids=str)
def test_layer_sleeps_as_that_of_a_classifier(geometry, channels, outputs, method, border):
    agree(geometry, channels, outputs, border, method, "propagator", 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "method", "border"),
    [
        (1, "circuit", "asleep"),
        (2, "inhibition_gated", "awake"),
        (3, "circuit", "awake"),
        (4, "mean_subtracted", "asleep"),
        (5, "mean_subtracted", "awake"),
        (5, "circuit", "asleep"),
    ],
)
def test_network_of_neurons_sleeps_as_a_classifier(layer, method, border):
    agree(*LAYERS[layer], border, method, "brian2", 2)


@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.parametrize("method", RULES)
def test_steps_of_every_pool_are_a_sleep_too(layer, method):
    agree(*LAYERS[layer], "asleep", method, "stepper", 2)


SLOWER = cs.Circuit(alpha=3, tau_inh=60 * ms)


def on_a_line(engine, learning, codegen="numpy", patterns=3, circuit=SLOWER, **options):
    """A layer of six positions, two in each pool."""
    return cs.simulate_layer(
        random_weights(6, 3, 2, 2), 9, circuit, learning, stride=2, padding=2, patterns=patterns,
        record=1, seed=5, engine=engine, codegen=codegen, **options,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "gain", "tau_sheet"),
    [
        ("mean_subtracted", None, None),
        ("mean_subtracted", 0.9, None),
        ("circuit", None, None),
        ("circuit", 0.9, None),
        ("inhibition_gated", None, 7 * ms),
        ("circuit", 0.9, 7 * ms),
        ("cubic = (r - b)**3", None, None),
    ],
)
def test_network_and_pools_agree_on_a_line(method, gain, tau_sheet):
    runs = [
        on_a_line(engine, plasticity(method, 6), gain=gain, tau_sheet=tau_sheet)
        for engine in ("brian2", "stepper")
    ]
    names = {"weights_trace", "sheet", "snr_w", "rate", "rate_inh"} & set(runs[0])
    assert len(names) == 3 + 2 * (method != "mean_subtracted")
    for name in names:
        ours, others = (run[name].to_numpy() for run in runs)
        np.testing.assert_allclose(ours, others, rtol=1e-6 if name == "snr_w" else 1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "options"),
    [("propagator", {}), ("stepper", {"gain": 0.9, "tau_sheet": 7 * ms})],
)
def test_compiled_code_gives_the_same(engine, options):
    ours, others = (
        on_a_line(engine, plasticity("circuit", 6), codegen, circuit=cs.Circuit(), **options)
        for codegen in ("numpy", "auto")
    )
    np.testing.assert_allclose(ours.weights, others.weights, rtol=1e-11, atol=1e-12)
    chosen = on_a_line("auto", plasticity("circuit", 6), circuit=cs.Circuit(), **options)
    np.testing.assert_array_equal(chosen.weights, ours.weights)


@pytest.mark.slow
def test_weights_within_bounds_take_an_engine_that_clips_them():
    bounded = plasticity("circuit", 6).replace(bounds=(0.0, np.inf))
    options = {"gain": 0.9, "presentation": 20 * ms, "patterns": 2}
    clipped = on_a_line("auto", bounded, **options).weights
    free = on_a_line("brian2_per_synapse", plasticity("circuit", 6), **options).weights
    assert clipped.min() == 0 > free.min()
    stepped = on_a_line("stepper", plasticity("circuit", 6), **options).weights
    np.testing.assert_allclose(free, stepped, rtol=1e-9, atol=1e-12)


def test_pools_go_on_from_block_to_block(monkeypatch):
    """Memory is bounded: by presentations of the sheet, and by pools in a batch."""
    at_once = on_a_line("stepper", plasticity("circuit", 6), patterns=7, gain=0.5).weights
    monkeypatch.setattr("circuitsim.engines.wired._BLOCK", 2)
    monkeypatch.setattr("circuitsim.engines.wired._NUMBERS", 1)
    in_parts = on_a_line("stepper", plasticity("circuit", 6), patterns=7, gain=0.5).weights
    np.testing.assert_allclose(in_parts, at_once, rtol=1e-13, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["brian2", "stepper"])
def test_sheet_approaches_its_pattern_as_forward_euler_says(engine):
    """After n steps x = Ibar + ((1 - g) + g (1 - dt/tau)^n) (I - Ibar)."""
    learning = cs.Plasticity("circuit", 0.0, learning_rate=cs.ConstantRate(1e-9))

    def shown(engine, lasts, gain, tau):
        run = on_a_line(
            engine, learning, gain=gain, tau_sheet=tau * ms, presentation=lasts * ms, patterns=2
        )
        return run["sheet"].to_numpy()[1:, :, 0]

    tau, phase = 8, np.arange(13) % 3
    private = shown("stepper", 1, None, 1e15)  # as at the start
    mean = np.array([private[:, phase == p].mean(axis=1) for p in phase]).T
    assert np.abs(private - mean).max() > 1
    for gain, steps in ((0.7, 1), (0.7, 30), (None, 5)):
        left = 1 - (gain or 1) * (1 - (1 - 1 / tau) ** steps)
        expected = mean + left * (private - mean)
        np.testing.assert_allclose(shown(engine, steps, gain, tau), expected, rtol=0, atol=1e-12)


def test_layer_whose_sheet_settles_in_time_by_plain_loops():
    """Every neuron, cell and synapse by itself, from the equations."""
    k, length, gain, tau_sheet, gamma, eta = 2, 6, 0.8, 6.0, 0.02, 1e-3
    learning = cs.Plasticity("circuit", gamma, 0.9, cs.ConstantRate(eta))
    circuit, alpha, tau = cs.Circuit(alpha=3, b=0.5, tau=25 * ms), 3, 25
    weights = random_weights(length - k + 1, k, 1, 1)
    patterns = np.random.default_rng(4).standard_normal((2, k, 1))

    def run(**options):
        return cs.simulate_layer(
            weights, length, circuit, learning, patterns=patterns, gain=gain, seed=2,
            presentation=20 * ms, codegen="numpy", **options,
        )  # fmt: skip

    drives = run(engine="stepper", tau_sheet=1e15 * ms, record=1)["sheet"].to_numpy()[1:]
    w_init = weights[..., 0, 0]
    w, m = w_init.copy(), np.zeros_like(w_init)
    n_neurons = len(w)
    r, r_inh = np.zeros(n_neurons), np.zeros(k)
    for drive in drives[..., 0]:
        x = drive.copy()
        for _ in range(20):
            new_r, new_inh = r.copy(), r_inh.copy()
            for i in range(n_neurons):
                z = sum(w[i, j] * x[i + j] for j in range(k))
                new_r[i] += (-r[i] + z - alpha * r_inh[i % k] + 0.5) / tau
            for pool in range(k):
                new_inh[pool] += (-r_inh[pool] + r[pool::k].mean() - 0.5) / tau
            r, r_inh = new_r, new_inh
            for i in range(n_neurons):
                for j in range(k):
                    change = (r[i] - 0.5) * x[i + j] + gamma * (w[i, j] - w_init[i, j])
                    m[i, j] = 0.9 * m[i, j] - eta * change
                    w[i, j] += m[i, j]
            mean = np.array([x[cell % k :: k].mean() for cell in range(length)])
            x = x + (-x + gain * mean + (1 - gain) * drive) / tau_sheet
    assert np.abs(w - w_init).max() > 0.01
    for engine in ("brian2", "stepper"):
        ended = run(engine=engine, tau_sheet=tau_sheet * ms)
        np.testing.assert_allclose(ended.weights[..., 0, 0], w, rtol=1e-11)
        np.testing.assert_allclose(ended.rate[..., 0], r, rtol=1e-11)


@pytest.mark.slow
def test_weights_approach_those_of_a_settled_sheet():
    """The distance is in proportion to the sheet's time constant, as long as that is short."""
    learning = plasticity("circuit", 6)

    def ended(tau_sheet):
        return on_a_line(
            "stepper", learning, tau_sheet=tau_sheet, dt=0.125 * ms, presentation=60 * ms
        ).weights.to_numpy()

    slow, fast = (np.abs(ended(tau * ms) - ended(None)).max() for tau in (1.0, 0.5))
    assert 1e-3 < fast < slow
    assert slow / fast == pytest.approx(2, rel=0.1)


def test_pools_have_circuits_of_any_equations():
    """Against `simulate`, with what each field sees of a line that repeats."""
    k, circuit = 3, cs.Circuit(alpha=2, transfer="relu", delay=3 * ms)
    patterns = np.random.default_rng(1).standard_normal((3, k, 1))
    weights, learning = random_weights(7, k, 1, 2), plasticity("circuit", k)
    run = cs.simulate_layer(
        weights, 9, circuit, learning, patterns=patterns, engine="stepper", codegen="numpy"
    )
    for phase in range(k):
        seen = patterns[:, (phase + np.arange(k)) % k, 0]
        w_init = np.moveaxis(weights[phase::k, :, 0], -1, 0)
        one = cs.simulate(w_init, seen, circuit, learning, engine="stepper", codegen="numpy")
        ended = np.moveaxis(run.weights.to_numpy()[phase::k, :, 0], -1, 0)
        np.testing.assert_allclose(ended, one.weights, rtol=1e-12)


def test_noise_of_rates_is_each_circuits_own():
    learning = plasticity("circuit", 6)
    weights = np.repeat(random_weights(6, 3, 2, 1), 2, axis=-1)

    def noisy(seed):
        return cs.simulate_layer(
            weights, 8, cs.Circuit(sigma=0.5), learning, patterns=np.zeros((2, 3, 2)), seed=seed,
            presentation=10 * ms, engine="stepper", codegen="numpy",
        ).rate.to_numpy()  # fmt: skip

    np.testing.assert_array_equal(noisy(1), noisy(1))
    assert np.all(noisy(1) != noisy(2))
    assert len(np.unique(noisy(1))) == noisy(1).size


@pytest.mark.parametrize("method", RULES)
def test_line_is_pools_of_neurons_that_see_the_same(method):
    """Against `simulate`, with what each field sees of a line that repeats."""
    length, k, stride, padding, channels = 11, 3, 2, 1, 2
    rng = np.random.default_rng(1)
    patterns = rng.standard_normal((5, k, channels))
    weights = random_weights(6, k, channels, 1)
    circuit, learning = cs.Circuit(alpha=4), plasticity(method, k * channels)
    run = cs.simulate_layer(
        weights, (length,), circuit, learning, stride=stride, padding=padding,
        patterns=patterns, engine="propagator", codegen="numpy",
    )  # fmt: skip
    starts = np.arange(6) * stride - padding
    assert [len(set(run["pool"].to_numpy()[starts % k == p])) for p in range(k)] == [1, 1, 1]
    for phase in range(k):
        members = np.flatnonzero(starts % k == phase)
        seen = patterns[:, (phase + np.arange(k)) % k].reshape(5, -1)
        w_init = weights[members].reshape(len(members), -1)
        one = cs.simulate(w_init, seen, circuit, learning, engine="propagator", codegen="numpy")
        ended = run.weights.to_numpy()[members].reshape(w_init.shape)
        np.testing.assert_allclose(ended, one.weights, rtol=0, atol=1e-12)
        pool = int(run["pool"][members[0]])
        expected = one.snr_w.to_numpy()[[0, -1]]
        np.testing.assert_allclose(run.snr_w.sel(pool_number=pool)[:, 0], expected, rtol=1e-9)


@pytest.mark.slow
def test_sheet_repeats_its_pattern_and_private_parts_have_their_variance():
    shape, k, gain, presentations = (7, 8), 3, 0.8, 100
    weights = random_weights(7, 8, k, k, 1, 1)
    learning = cs.Plasticity("mean_subtracted", learning_rate=cs.ConstantRate(1e-9))

    def sheets(gain):
        run = cs.simulate_layer(
            weights, shape, None, learning, padding=1, patterns=presentations, gain=gain,
            record=1, engine="stepper", codegen="numpy", seed=2,
        )  # fmt: skip
        return run["sheet"].to_numpy()[1:, ..., 0]

    exact, drawn = sheets(None), sheets(gain)
    np.testing.assert_array_equal(exact[:, k:], exact[:, :-k])
    np.testing.assert_array_equal(exact[:, :, k:], exact[:, :, :-k])
    variance = private_variance(shape, k, gain, padding=1)
    phases = (np.arange(9) - 1) % k, (np.arange(10) - 1) % k
    for p in range(k):
        for q in range(k):
            private = (drawn - exact)[:, phases[0] == p][:, :, phases[1] == q]
            np.testing.assert_allclose(private.sum(axis=(1, 2)), 0, atol=1e-12)
            measured, number = np.mean(private**2), private.size * (1 - 1 / private[0].size)
            assert abs(measured / variance[p, q] - 1) < 4 * np.sqrt(2 / number)


def test_weights_approach_those_of_exact_repetition():
    """The distance is in proportion to 1 - g."""
    weights = random_weights(10, 10, 3, 3, 1, 1)

    def ended(gain):
        return cs.simulate_layer(
            weights, (12, 12), None, plasticity("circuit", 9), patterns=4, gain=gain,
            engine="stepper", codegen="numpy",
        ).weights.to_numpy()  # fmt: skip

    exact = ended(None)
    far, near, nearest = (np.abs(ended(1 - d) - exact).max() for d in (1e-4, 1e-6, 1e-8))
    assert far > 1e-5
    assert far / near == pytest.approx(100, rel=0.02)
    assert near / nearest == pytest.approx(100, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "alpha"), [("mean_subtracted", 0.0), ("circuit", 1.0), ("inhibition_gated", 1.0)]
)
def test_weights_decay_as_theory_says_where_repetition_is_imperfect(method, alpha):
    """Averaged over patterns, a step multiplies distances from the end point by 1 - rate."""
    length, k, gain, gamma, presentations = 8, 2, 0.7, 0.05, 8
    neurons = cells = length // k
    kept = end_point(neurons, cells, gain, gamma, method, alpha)
    ideal = method == "mean_subtracted"
    trials = 200 if ideal else 40
    lasts, tau = 60, 1  # ms: rates are not settled for about tau of each presentation
    step = 0.04 if ideal else 0.04 / lasts
    learning = cs.Plasticity(method, gamma, 0.0, cs.ConstantRate(step))
    circuit = cs.Circuit(tau=tau * ms, alpha=alpha, b=0)
    weights = random_weights(length // k, k, 1, 1)
    found = []
    for seed in range(trials):
        run = cs.simulate_layer(
            weights, length, circuit, learning, stride=k, patterns=presentations, gain=gain,
            presentation=lasts * ms, dt=0.5 * ms, seed=[7, seed], engine="stepper",
        )  # fmt: skip
        found.append(run.weights.to_numpy()[..., 0, 0])
    start, ended = weights[..., 0, 0], np.array(found)
    for left, first, last in (
        (kept.mean, start.mean(0), ended.mean(1)),
        (kept.deviation, start - start.mean(0), ended - ended.mean(1, keepdims=True)),
    ):
        shares = (last * first).reshape(trials, -1).sum(1) / np.square(first).sum()
        rate = gamma / left
        expected = left + (1 - left) * (1 - 0.04 * rate) ** presentations
        error = shares.std(ddof=1) / np.sqrt(trials)
        assert error < 0.15 * (1 - expected)
        unsettled = 0 if ideal else 2 * tau / lasts * (1 - expected)
        assert abs(shares.mean() - expected) < 4 * error + unsettled


def test_imperfect_repetition_costs_the_mean():
    perfect = end_point(36, 36, None, 0.01, "mean_subtracted")
    assert perfect == pytest.approx((0.01 / 1.01, 1.0))
    imperfect = end_point(36, 36, 0.9, 0.01, "mean_subtracted")
    assert imperfect.mean == pytest.approx(0.01 / (0.01 * 35 + 0.01))
    assert end_point(36, 36, None, 0.01, "circuit", 9.0).mean == pytest.approx(0.01 / 0.11)


SMALL = random_weights(3, 3, 2, 2, 1, 1)
LINE = random_weights(3, 2, 1, 1)


@pytest.mark.parametrize(
    ("given", "options", "name"),
    [
        ((SMALL, (1, 1)), {}, "kernel"),
        ((SMALL, (5, 4)), {}, "weights"),
        ((LINE, 1), {}, "kernel"),
        ((LINE, 5), {}, "weights"),
        ((LINE, (4, 4)), {}, "weights"),
        ((LINE, (4, 4, 4)), {}, "input_shape"),
        ((SMALL, (4, 4)), {"gain": 1.0}, "gain"),
        ((SMALL, (4, 4)), {"gain": 1.5}, "gain"),
        ((SMALL, (4, 4)), {"gain": -0.1}, "gain"),
        ((SMALL, (4, 4)), {"patterns": np.ones((2, 3, 3, 1))}, "patterns"),
        ((SMALL, (4, 4)), {"patterns": np.ones((2, 2, 2))}, "patterns"),
        ((SMALL, (4, 4)), {"patterns": -1}, "patterns"),
        ((SMALL, (4, 4)), {"engine": "propagator", "gain": 0.5}, "engine"),
        ((SMALL, (4, 4)), {"engine": "plain"}, "engine"),
        ((SMALL, (4, 4)), {"engine": "stepper", "codegen": "cython"}, "codegen"),
        ((SMALL, (4, 4)), {"codegen": "numba"}, "codegen"),
        ((SMALL, (4, 4)), {"tau_sheet": 0.5 * ms}, "tau_sheet"),
        ((SMALL, (4, 4)), {"tau_sheet": np.inf * second}, "tau_sheet"),
        ((SMALL, (4, 4)), {"tau_sheet": 5 * ms, "plasticity": cs.Plasticity("mean_subtracted")},
         "tau_sheet"),
        ((SMALL, (4, 4)), {"circuit": cs.Circuit(delay=2 * ms)}, "circuit"),
        ((SMALL, (4, 4)), {"circuit": cs.Circuit(b_inh=1)}, "circuit"),
        ((SMALL, (4, 4)), {"circuit": cs.Circuit(spread_tau=0.1)}, "circuit"),
        ((SMALL, (4, 4)), {"circuit": cs.Circuit(interneurons=2), "engine": "auto"}, "circuit"),
        ((SMALL, (4, 4)), {"plasticity": cs.Plasticity(bounds=(0, 1))}, "plasticity"),
        ((SMALL, (4, 4)), {"border": "half"}, "border"),
        ((SMALL, (4, 4)), {"record": [101]}, "record"),
        ((SMALL, (4, 4)), {"circuit": cs.Circuit(transfer="relu")}, "circuit"),
        ((SMALL, (4, 4)), {"circuit": cs.Circuit(alpha=[1.0, 2.0])}, "alpha"),
        ((SMALL, (4, 4)), {"circuit": cs.Circuit(alpha=1e4)}, "Circuit.alpha"),
        ((SMALL, (4, 4)), {"plasticity": cs.Plasticity("cubic = (r - b)**3"),
                           "engine": "propagator"}, "Plasticity.rule"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(given, options, name):
    with pytest.raises(ParameterError) as error:
        cs.simulate_layer(*given, **options)
    assert error.value.parameter == name


def test_units_and_divergence():
    with pytest.raises(DimensionMismatchError):
        cs.simulate_layer(SMALL, (4, 4), presentation=150)
    fast = cs.Plasticity("mean_subtracted", 0.01, 0.0, cs.ConstantRate(50.0))
    with pytest.raises(FloatingPointError, match="learning rate"):
        cs.simulate_layer(SMALL, (4, 4), None, fast, patterns=400, engine="stepper")
    with pytest.raises(ParameterError, match="kernel"):
        private_variance((2, 9), 3, 0.5)
    with pytest.raises(ParameterError, match="n_cells"):
        end_point(5, 4, 0.5, 0.1)
