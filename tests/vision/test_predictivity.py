"""Predictivity of neurons: of those whose predictivity is known, and of noise."""

from __future__ import annotations

import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image
from sklearn.cross_decomposition import PLSRegression

from circuitsim.checks.validation import ParameterError
from circuitsim.vision import Classifier, predictivity
from circuitsim.vision.networks import Architecture, Network
from circuitsim.vision.predictivity import measure, reliability


def neurons(rng, layer, number, noise, repeats):
    """Neurons that are linear in a layer, of unit variance, and noise in each repeat."""
    weights = rng.standard_normal((layer.shape[1], number)) / np.sqrt(layer.shape[1])
    signal = (layer @ weights).T
    return signal[..., None] + noise * rng.standard_normal((*signal.shape, repeats))


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "repeats"), [(0.0, 2), (1.0, 4), (3.0, 9)])
def test_linear_neurons_are_as_predictable_as_their_noise_allows(noise, repeats):
    """Signal of variance s2 in p features, noise of variance v, fitted to n images.

    Fitted coefficients have the error v p/n, so predictions correlate with responses by
    s2/sqrt((s2 + v p/n)(s2 + v)); reliability is s2/(s2 + v).
    """
    rng = np.random.default_rng(0)
    images, features, number = 500, 12, 60
    layer = rng.standard_normal((images, features))
    single = neurons(rng, layer, number, noise, repeats)
    variance = single.mean(axis=2).var(axis=1) - noise**2 / repeats
    found = measure({"layer": layer}, single.mean(axis=2), single)
    v, fitted = noise**2 / repeats, images * 4 / 5
    expected = variance / np.sqrt((variance + v * features / fitted) * (variance + v))
    means = found.correlation.sel(layer="layer").mean("fold").to_numpy()
    np.testing.assert_allclose(means.mean(), expected.mean(), atol=0.006)
    reliable = variance / (variance + v)
    np.testing.assert_allclose(found.reliability.mean(), reliable.mean(), atol=0.006)
    np.testing.assert_allclose(found.ceiling**2, found.reliability, atol=1e-12)
    normalised = found.predictivity.sel(layer="layer").mean()
    wanted = np.sqrt(variance / (variance + v * features / fitted)).mean()
    np.testing.assert_allclose(normalised, wanted, atol=0.01)


@pytest.mark.slow
def test_noise_has_no_predictivity():
    """Of ten layers one is always best by chance: chosen on other folds, it is not."""
    within, best, luckiest = 0, [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        layers = {f"layer{n}": rng.standard_normal((150, 30)) for n in range(10)}
        found = measure(layers, rng.standard_normal((40, 150)), resamples=500, components=5)
        median = found.median_correlation
        lower, upper = found.median_correlation_interval.sel(layer="layer3").to_numpy()
        within += bool(lower <= 0 <= upper)
        best.append(float(median.sel(layer="best")))
        luckiest.append(float(median.sel(layer=list(layers)).max()))
    assert within >= 10
    assert abs(np.mean(best)) < 4 * np.std(best) / np.sqrt(len(best))
    assert np.mean(luckiest) > 4 * np.std(luckiest) / np.sqrt(len(luckiest))


@pytest.mark.slow
def test_noise_alone_is_not_reliable():
    rng = np.random.default_rng(0)
    found = reliability(rng.standard_normal((200, 100, 8)))
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(200)


def test_reliability_of_incomplete_repeats():
    """Images with fewer repeats are noisier; reliability is that of the means as they are."""
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((80, 400, 1))
    single = signal + 1.5 * rng.standard_normal((80, 400, 10))
    counts = rng.integers(6, 11, (80, 400))
    single[np.arange(10) >= counts[..., None]] = np.nan
    expected = 1 / (1 + 1.5**2 * (1 / counts).mean())
    np.testing.assert_allclose(np.median(reliability(single, splits=30)), expected, atol=0.02)
    # That is the square of the correlation of means with the signal.
    means = predictivity.mean_responses(single)
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(means, signal[..., 0], strict=True)]
    np.testing.assert_allclose(np.median(np.square(r)), expected, atol=0.02)


def test_neurons_without_repeats_or_variation_are_told_apart():
    rng = np.random.default_rng(0)
    layer = rng.standard_normal((100, 5))
    single = neurons(rng, layer, 5, 0.5, 4)
    single[0, :, 1:] = np.nan  # one repeat only
    single[1] = 3.0  # always the same
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure({"layer": layer}, np.nanmean(single, axis=2), single)
    known = np.isfinite(found.predictivity.sel(layer="layer").to_numpy())
    assert known.tolist() == [False, False, True, True, True]
    assert np.isfinite(found.reliability).to_numpy().tolist() == known.tolist()
    assert np.isfinite(found.correlation.sel(layer="layer", neuron=0)).all()
    assert np.isnan(found.correlation.sel(layer="layer", neuron=1)).all()
    assert float(found.median_predictivity.sel(layer="layer")) > 0.9


def test_the_best_layer_is_found():
    rng = np.random.default_rng(0)
    good, bad, worse = (rng.standard_normal((200, 40)) for _ in range(3))
    responses = neurons(rng, good, 20, 0.3, 1)[..., 0]
    found = measure({"bad": bad, "good": good, "worse": worse}, responses,
                    baselines={"truth": good})  # fmt: skip
    assert found.best_layer.to_numpy().tolist() == ["good"] * 5
    assert found.layer.to_numpy().tolist() == ["bad", "good", "worse", "truth", "best"]
    assert found.kind.to_numpy().tolist() == ["layer"] * 3 + ["baseline", "best"]
    np.testing.assert_array_equal(
        found.correlation.sel(layer="best"), found.correlation.sel(layer="good")
    )
    np.testing.assert_array_equal(
        found.correlation.sel(layer="truth"), found.correlation.sel(layer="good")
    )
    lower, upper = found.median_correlation_interval.sel(layer="good").to_numpy()
    assert lower < float(found.median_correlation.sel(layer="good")) < upper


@pytest.mark.parametrize("features", [8, 40, 300])
def test_the_regression_is_that_of_scikit_learn(features):
    rng = np.random.default_rng(features)
    x, new = rng.standard_normal((60, features)), rng.standard_normal((20, features))
    y = x[:, :3] @ rng.standard_normal((3, 4)) + rng.standard_normal((60, 4))
    rank = min(10, features)
    model = PLSRegression(n_components=rank, scale=False, max_iter=100_000, tol=1e-20)
    expected = model.fit(x, y).predict(new)
    np.testing.assert_allclose(predictivity.regress(x, y, new, 10), expected, rtol=1e-6, atol=1e-7)


def test_many_features_are_as_good_as_their_products():
    rng = np.random.default_rng(0)
    x = 3 + rng.standard_normal((50, 300))
    y = x[:, :3].T + rng.standard_normal((3, 50))
    found = measure({"x": x}, y, components=10)
    turned = np.linalg.qr(x.T, mode="r").T  # fewer features, and the same products
    same = measure({"x": turned}, y, components=10)
    np.testing.assert_allclose(found.correlation, same.correlation, atol=1e-8)
    order = np.random.default_rng([0, 0]).permutation(50)
    for fold, test in enumerate(np.array_split(order, 5)):
        train = np.setdiff1d(np.arange(50), test)
        predicted = predictivity.regress(x[train], y[:, train].T, x[test], 10)
        expected = [np.corrcoef(p, r)[0, 1] for p, r in zip(predicted.T, y[:, test], strict=True)]
        np.testing.assert_allclose(found.correlation[0, :, fold], expected, atol=1e-8)


def test_features_of_lower_rank_and_constant_ones():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 2)) @ rng.standard_normal((2, 90))
    y = x[:, :1] * 2
    np.testing.assert_allclose(predictivity.regress(x[:40], y[:40], x[40:], 25), y[40:], atol=1e-8)
    flat = predictivity.regress(np.ones((40, 90)), y[:40], np.ones((10, 90)), 25)
    np.testing.assert_allclose(flat, np.broadcast_to(y[:40].mean(), (10, 1)))
    found = measure({"flat": np.ones((50, 9))}, y.T)
    assert float(found.correlation.sel(layer="flat").sum()) == 0


def test_numbers_are_fixed_by_the_seed():
    rng = np.random.default_rng(0)
    layer, responses = rng.standard_normal((60, 5)), rng.standard_normal((4, 60))
    one, same, other = (measure({"a": layer}, responses, seed=seed) for seed in (1, 1, 2))
    assert one.identical(same)
    assert not one.equals(other)
    shares = []
    measure({"a": layer, "b": layer}, responses, advanced=shares.append)
    assert shares == [0.5, 1.0]


GOOD = np.random.default_rng(0).standard_normal((3, 40))
LAYER = {"a": np.random.default_rng(1).standard_normal((40, 5))}


@pytest.mark.parametrize(
    ("features", "responses", "options", "text"),
    [
        (LAYER, GOOD[:, :39], {}, "features['a']: must be of 39 images, as responses are"),
        (LAYER, GOOD[0], {}, "responses: must have the shape (neuron, image)"),
        (LAYER, np.where(GOOD > 2, np.nan, GOOD), {}, "responses: must be finite; mean_responses"),
        ({"a": LAYER["a"] * np.inf}, GOOD, {}, "features['a']: must be finite (got '200 of 200"),
        ({}, GOOD, {}, "at least one"),
        ({"best": LAYER["a"]}, GOOD, {}, 'none "best"'),
        (LAYER, GOOD, {"baselines": LAYER}, "names of their own"),
        (LAYER, GOOD, {"folds": 1}, "folds: must be a whole number >= 2"),
        (LAYER, GOOD, {"folds": 20}, "must be to three images for each of 20 folds"),
        (LAYER, GOOD, {"components": 32}, "less than the 32 images that are fitted to"),
        (LAYER, GOOD, {"confidence": 95}, "confidence: must be > 0 and < 1"),
        (LAYER, GOOD, {"repeats": np.zeros((3, 39, 2))}, "with 3 neurons and 40 images"),
        (LAYER, [["x"]], {}, "responses: must be an array of real numbers"),
    ],
)
def test_what_does_not_fit_is_refused(features, responses, options, text):
    with pytest.raises(ParameterError) as caught:
        measure(features, responses, **options)
    assert text in str(caught.value)


def test_means_of_repeats():
    single = np.array([[[1.0, 3.0, np.nan], [5.0, np.nan, np.nan]]])
    assert predictivity.mean_responses(single).tolist() == [[2.0, 5.0]]
    single[0, 1] = np.nan
    with pytest.raises(ParameterError, match="none of neuron 0 to image 1"):
        predictivity.mean_responses(single)
    for wrong in (single[0], np.zeros((0, 2, 3))):
        with pytest.raises(ParameterError, match=r"must have the shape \(neuron, image, repeat\)"):
            reliability(wrong)


# --- features -------------------------------------------------------------------------------------


def pictures(number=12, shape=(9, 8, 3)):
    return np.random.default_rng(0).integers(0, 256, (number, *shape), dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "names"),
    [
        ("small", ["layer1", "layer2", "layer3", "layer4", "pool", "linear"]),
        ("resnet20", ["layer1", *[f"stage{s}.block{b}" for s in (1, 2, 3) for b in (1, 2, 3)],
                      "pool", "linear"]),
        ("resnet18", ["layer1", *[f"stage{s}.block{b}" for s in (1, 2, 3, 4) for b in (1, 2)],
                      "pool", "linear"]),
    ],
)  # fmt: skip
def test_features_are_those_that_the_network_computes_with(network, names):
    images = pictures(300)
    labels = np.arange(300) % 3
    learned = Classifier(network=network, width=2, epochs=1, batch_size=16)
    learned.fit(images[:30], labels[:30])
    found = predictivity.network_features(learned.network_, images, *learned.run_.statistics)
    assert list(found) == names
    np.testing.assert_allclose(found["linear"], learned.logits(images), rtol=1e-4, atol=1e-5)
    assert found["layer1"].min() == 0
    parameters = learned.network_.parameters()
    np.testing.assert_allclose(
        found["pool"] @ parameters["linear.weights"] + parameters["linear.bias"],
        found["linear"], rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    last = found[names[-3]].reshape(300, -1, found["pool"].shape[1])
    np.testing.assert_allclose(last.mean(axis=1), found["pool"], rtol=1e-4, atol=1e-5)
    with pytest.raises(ParameterError, match="must be of 9 x 8 x 3"):
        predictivity.network_features(learned.network_, images[:, 1:], 0, 1)


def test_untrained_networks():
    network = Network(Architecture((9, 8, 3), 4, width=3), np.random.default_rng(5))
    images = pictures(40)
    other = predictivity.untrained(network, images, seed=1)
    again = predictivity.untrained(network, images, seed=1)
    name = "layer1.weights"
    assert (other.parameters()[name] != network.parameters()[name]).any()
    np.testing.assert_array_equal(other.parameters()[name], again.parameters()[name])
    mean, deviation = images.mean(axis=(0, 1, 2)), images.std(axis=(0, 1, 2))
    features = predictivity.network_features(other, images, mean, deviation)
    # Normalised by the images themselves: each channel is active about half the time.
    of_channel = features["layer2"].reshape(40, -1, 3)
    assert (np.abs((of_channel > 0).mean(axis=(0, 1)) - 0.5) < 0.25).all()


def test_energies_tell_orientation_and_size_but_not_phase():
    rows, columns = np.mgrid[:48, :48]

    def grating(angle, wave, phase):
        along = rows * np.cos(angle) + columns * np.sin(angle)
        wave = 127 + 120 * np.cos(2 * np.pi * along / wave + phase)
        return np.repeat(wave[..., None], 3, axis=2).astype(np.uint8)

    images = [grating(angle, wave, phase) for angle in (0, np.pi / 4, np.pi / 2)
              for wave in (4, 8, 16) for phase in (0, 1.0, 2.0)]  # fmt: skip
    found = predictivity.gabor_energies(np.stack(images)).reshape(3, 3, 3, -1)
    brightness, rest = found[..., :9], found[..., 9:]
    np.testing.assert_allclose(brightness.mean(), 127 / 255, atol=0.02)
    sizes = {4: 144, 8: 36, 16: 9}  # windows of each wavelength
    maps = np.split(rest, np.cumsum([8 * n for n in sizes.values()])[:-1], axis=-1)
    energy = np.stack([m.reshape(3, 3, 3, 8, -1).mean(axis=-1) for m in maps], axis=3)
    for a, orientation in enumerate((0, 2, 4)):
        for w in range(3):
            mean = energy[a, w].mean(axis=0)
            assert np.unravel_index(mean.argmax(), mean.shape) == (w, orientation)
            assert np.ptp(energy[a, w, :, w, orientation]) < 0.1 * mean.max()
    assert predictivity.pixels(np.stack(images)).shape == (27, 48 * 48 * 3)
    assert predictivity.gabor_energies(pictures(3, (5, 5, 1))).shape[0] == 3


@pytest.mark.parametrize("kind", ["directory", "zip"])
def test_stimuli_come_in_the_order_of_their_names(kind, tmp_path):
    images = pictures(3)
    place = tmp_path / "stimuli"
    place.mkdir()
    for name, image in zip(("c.png", "a.png", "b.PNG"), images, strict=True):
        Image.fromarray(image).save(place / name)
    for name in (".DS_Store", "._a.png", "readme.txt"):
        (place / name).write_bytes(b"x")
    if kind == "zip":
        packed = tmp_path / "stimuli.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in place.iterdir():
                archive.write(path, f"x/{path.name}")
        place = packed
    names, found = predictivity.stimuli(place, (9, 8, 3))
    assert [name.removeprefix("x/") for name in names] == ["a.png", "b.PNG", "c.png"]
    np.testing.assert_array_equal(found, images[[1, 2, 0]])


def test_stimuli_that_cannot_be_read(tmp_path):
    def refused(place, text):
        with pytest.raises(ParameterError, match=text):
            predictivity.stimuli(place, (9, 8, 3))

    refused(tmp_path / "no", "No such file")
    refused(tmp_path, "it holds no images")
    (tmp_path / "a.png").write_bytes(b"x")
    refused(tmp_path, "a.png: it is no image")
    path = tmp_path / "x.zip"
    path.write_bytes(b"x")
    refused(path, "not a zip file")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2**26 + 1))
    refused(path, "a.png has more than")
