"""Sharing without sleep: noise while a network learns, against its averaged equation."""

from __future__ import annotations

import numpy as np
import pytest

from circuitsim.checks.validation import ParameterError
from circuitsim.vision.awake import Disturbance, check_rate, decay, repeated
from circuitsim.vision.datasets import ImageSet
from circuitsim.vision.geometry import Geometry
from circuitsim.vision.layers import LocallyConnected2D
from circuitsim.vision.networks import Architecture, Network
from circuitsim.vision.pools import pools
from circuitsim.vision.sharing import Sharing
from circuitsim.vision.training import Trainer, Training

BATCH = 16


def made(padding=1, channels=2, outputs=3, seed=0, dtype=np.float64, size=(8, 7), **options):
    layer = LocallyConnected2D(
        size, channels, outputs, 3, padding=padding, rng=np.random.default_rng(seed), dtype=dtype,
        **options,
    )  # fmt: skip
    return layer


def fields(frame, geometry):
    """What each position sees, (row, column, k, k, channel, image)."""
    k, s = geometry.kernel, geometry.stride
    rows, columns = geometry.output_shape
    return np.array(
        [[frame[i * s : i * s + k, j * s : j * s + k] for j in range(columns)] for i in range(rows)]
    )


@pytest.mark.slow
@pytest.mark.parametrize("border", ["asleep", "awake"])
@pytest.mark.parametrize("bias", [False, True])
def test_output_and_product_are_those_of_the_equations(border, bias):
    layer = made(bias=bias)
    if bias:
        layer.parameters["bias"][...] = np.random.default_rng(5).standard_normal((8, 7, 3))
    rng = np.random.default_rng(1)
    x = rng.standard_normal((8, 7, 2, BATCH))
    plain = layer.forward(x)
    sleeping = Sharing("awake", border=border).pools(layer.geometry)
    noise = Disturbance.drawn(layer, sleeping, BATCH, rng, border)
    layer.disturbance = noise
    disturbed = layer.forward(x, training=True)
    assert layer.disturbance is None

    seen = fields(noise.noise, layer.geometry)
    z = np.einsum("ijabcn,ijabco->ijon", seen, layer.weights)
    expected = np.zeros_like(z)
    inside = np.zeros(z.shape[:2], bool)
    for pool in sleeping:
        of_pool = z[pool.rows, pool.columns]
        expected[pool.rows, pool.columns] = of_pool - of_pool.mean(axis=(0, 1))
        inside[pool.rows, pool.columns] = True
        # All neurons of a pool see the same noise.
        same = seen[pool.rows, pool.columns].reshape(pool.size, -1)
        np.testing.assert_array_equal(same, np.broadcast_to(same[0], same.shape))
    assert inside.all() == (border == "asleep")
    np.testing.assert_allclose(disturbed - plain, expected, rtol=0, atol=1e-12)

    before = layer.weights.copy()
    noise.learn(layer, 0.2)
    product = np.einsum("ijon,ijabcn->ijabco", disturbed, seen) / BATCH
    wanted = np.where(inside[..., None, None, None, None], before - 0.2 * product, before)
    np.testing.assert_allclose(layer.weights, wanted, rtol=0, atol=1e-12)
    # The gradient of the task is that of the weights and the images alone.
    gradient = rng.standard_normal(plain.shape)
    layer.backward(gradient.copy())
    found = layer.gradients["weights"].copy()
    layer.forward(x, training=True)
    layer.backward(gradient.copy())
    np.testing.assert_array_equal(found, layer.gradients["weights"])


@pytest.mark.parametrize("images", [4, 64])
def test_deviations_decay_as_the_averaged_equation_says(images):
    """Without images: deviations and their squares, batch by batch; the mean never moves."""
    rate, batches, trials = 0.15, 3, 60
    layer = made(padding=0, channels=1, outputs=4, size=(8, 8))  # 3 x 3 pools of 4
    sleeping = pools(layer.geometry)
    start = layer.weights.copy()

    def parts(weights):
        for pool in sleeping:
            kernels = weights[pool.rows, pool.columns]
            yield kernels.mean((0, 1)), kernels - kernels.mean((0, 1))

    initial = list(parts(start))
    x = np.zeros((8, 8, 1, images))
    projected, squares = [], []
    for trial in range(trials):
        layer.weights = start
        rng = np.random.default_rng([trial, images])
        for _ in range(batches):
            noise = layer.disturbance = Disturbance.drawn(layer, sleeping, images, rng)
            layer.forward(x, training=True)
            noise.learn(layer, rate)
        ended = list(parts(layer.weights))
        for (mean, _), (now, _) in zip(initial, ended, strict=True):
            np.testing.assert_allclose(now, mean, rtol=0, atol=1e-12)
        norm = sum(np.square(dev).sum() for _, dev in initial)
        projected.append(
            sum((d * e).sum() for (_, d), (_, e) in zip(initial, ended, strict=True)) / norm
        )
        squares.append(sum(np.square(e).sum() for _, e in ended) / norm)
    expected = decay(rate, 9, images)
    for values, factor in ((projected, expected.deviation), (squares, expected.square)):
        error = np.std(values, ddof=1) / np.sqrt(trials)
        assert error < 0.05
        assert abs(np.mean(values) - factor**batches) < 4 * error


def test_answers_to_images_change_nothing_on_average():
    layer, rng = made(padding=0, channels=1, outputs=2, size=(8, 8)), np.random.default_rng(3)
    x = rng.standard_normal((8, 8, 1, BATCH))
    start, moved = layer.weights.copy(), []
    sleeping = pools(layer.geometry)
    for _ in range(300):
        layer.weights = start
        noise = layer.disturbance = Disturbance.drawn(layer, sleeping, BATCH, rng)
        layer.forward(x, training=True)
        noise.learn(layer, 0.2)
        moved.append([layer.weights[p.rows, p.columns].mean((0, 1)) for p in sleeping])
    means = np.array([start[p.rows, p.columns].mean((0, 1)) for p in sleeping])
    errors = np.std(moved, axis=0, ddof=1) / np.sqrt(len(moved))
    assert np.all(errors > 0)  # they walk at random
    assert np.abs((np.mean(moved, axis=0) - means) / errors).max() < 5


def test_noise_goes_on_or_ends_where_the_image_does():
    geometry = Geometry((5, 6), 3, padding=2)
    pattern = np.random.default_rng(0).uniform(1, 2, (3, 3, 1, 2))
    frame = repeated(pattern, geometry)
    np.testing.assert_array_equal(frame[3:], frame[:-3])
    np.testing.assert_array_equal(frame[2:5, 2:5], pattern)
    awake = repeated(pattern, geometry, "awake")
    np.testing.assert_array_equal(awake[2:-2, 2:-2], frame[2:-2, 2:-2])
    assert not awake[:2].any()
    assert not awake[:, -2:].any()


def trained(sharing, every, epochs=2, conv=False, length="learning"):
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 2
    images = (100 + 60 * rng.standard_normal((96, 12, 12, 1))).clip(0, 255).astype(np.uint8)
    data = {"train": ImageSet(images, labels)}
    training = Training(
        epochs=epochs, batch_size=16, validation=0, share_every=every, sleep_length=length
    )
    network = Network(Architecture((12, 12, 1), 2, width=4), np.random.default_rng(1))
    trainer = Trainer(network, training, sharing, data, np.array([100.0]), np.array([60.0]))
    trainer.run(None, lambda progress: None)
    return trainer


def spread(layer):
    """Deviations from the mean weights of pools, relative to weights, root mean square."""
    pulled = Sharing("instant").share(layer.weights, layer.geometry, 0)
    return np.sqrt(np.mean((layer.weights - pulled) ** 2) / np.mean(layer.weights**2))


def test_training_shares_without_sleep():
    plain, awake = trained(None, None), trained(Sharing("awake", learning_rate=0.3), 1)
    rarely = trained(Sharing("awake", learning_rate=0.3), 4)
    differences = [spread(t.network.lc_layers()["layer1"]) for t in (plain, rarely, awake)]
    assert differences[0] > differences[1] > 1.2 * differences[2]
    last = awake.progress.history[-1]
    assert last["snr_w_before_sleep"]["layer1"] > 0
    assert 0 < last["seconds_asleep"] < last["seconds"]
    again = trained(Sharing("awake", learning_rate=0.3), 1)
    for name, values in awake.network.parameters().items():
        np.testing.assert_array_equal(values, again.network.parameters()[name])
    assert awake.seconds_per_epoch(1) > 0


def test_what_is_refused():
    with pytest.raises(ParameterError, match="periods"):
        Sharing("awake", periods=2)
    with pytest.raises(ParameterError, match="moments"):
        Sharing("awake", moments="shared")
    layer = made(dtype=np.float32)
    with pytest.raises(ParameterError, match="no sleeps"):
        Sharing("awake").share(layer.weights, layer.geometry, 0)
    with pytest.raises(ParameterError, match="must be a rule"):
        Sharing("awake").maps(9, 0)
    with pytest.raises(ParameterError, match="must be awake"):
        _ = Sharing("instant").rate_awake
    with pytest.raises(RuntimeError, match="forward"):
        Disturbance.drawn(layer, [], 2, np.random.default_rng(0)).learn(layer, 0.1)
    check_rate(1.9, 9, 10_000)
    with pytest.raises(ParameterError, match="9 inputs and batches of 16"):
        check_rate(1.3, 9, 16)
    with pytest.raises(ParameterError, match=r"Sharing\.learning_rate"):
        trained(Sharing("awake", learning_rate=1.5), 1)
    assert str(Sharing("awake", border="awake")) == "awake, rate 0.1, border awake"
