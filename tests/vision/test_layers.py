"""Layers, networks and optimisers: against central differences, SciPy, and each other."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import relative
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, special

from circuitsim import ParameterError
from circuitsim.vision import parallel
from circuitsim.vision.layers import (
    BatchNorm2D,
    Conv2D,
    GlobalAveragePool,
    Linear,
    LocallyConnected2D,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    cross_entropy,
    softmax,
)
from circuitsim.vision.networks import Architecture, Network
from circuitsim.vision.optimisers import SGD, AdamW, cosine_factor, step_factor


def slope(function, array, direction, step=1e-6):
    """Central difference of a function along a direction of an array, which it reads."""
    original = array.copy()
    ends = []
    for sign in (1, -1):
        array[...] = original + sign * step * direction
        ends.append(function())
    array[...] = original
    return (ends[0] - ends[1]) / (2 * step)


def check_gradients(layer, x, rng):
    """Gradients of a random sum of outputs, along random directions of all that they depend on."""
    y = layer.forward(x, training=True)
    into = rng.standard_normal(y.shape)

    def total():
        return float((layer.forward(x, training=True) * into).sum())

    of_x = layer.backward(into.copy()).copy()
    inner = dict(layer.named("layer"))
    gradients = [(x, of_x)] + [
        (la.parameters[name], g.copy()) for la in inner.values() for name, g in la.gradients.items()
    ]
    for array, gradient in gradients:
        assert gradient.shape == array.shape
        direction = rng.standard_normal(array.shape)
        found = slope(total, array, direction)
        size = np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert (gradient * direction).sum() == pytest.approx(found, abs=1e-7 * size + 1e-9)


@st.composite
def local_layers(draw):
    """Arguments of layers of all kinds of shapes, with one that fits into the other."""
    kernel = draw(st.integers(1, 5))
    groups = draw(st.integers(1, 3))
    padding = draw(st.integers(0, kernel - 1))
    smallest = max(1, kernel - 2 * padding)
    size = draw(st.tuples(*[st.integers(smallest, smallest + 5)] * 2))
    channels = [groups * draw(st.integers(1, 3)) for _ in range(2)]
    options = {"kernel": kernel, "stride": draw(st.integers(1, 4)), "padding": padding}
    return size, *channels, options | {"groups": groups, "bias": draw(st.booleans())}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [LocallyConnected2D, Conv2D])
@settings(deadline=None, max_examples=60)
@given(arguments=local_layers(), images=st.integers(1, 3), seed=st.integers(0, 99))
def test_gradients_of_local_layers(kind, arguments, images, seed):
    rng = np.random.default_rng(seed)
    *shape, options = arguments
    layer = kind(*shape, **options, rng=rng, dtype=np.float64)
    check_gradients(layer, rng.standard_normal((*shape[0], shape[1], images)), rng)


def convolved(x, layer, weights, bias):
    """The same with SciPy, one channel of one image after another."""
    padding, stride = layer.geometry.padding, layer.geometry.stride
    padded = np.pad(x, [(padding, padding), (padding, padding), (0, 0), (0, 0)])
    of_group, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    images = []
    for image in np.moveaxis(padded, 3, 0):
        channels = []
        for o in range(layer.out_channels):
            first = o // outputs * of_group
            parts = [
                signal.correlate2d(image[..., first + c], weights[:, :, c, o], mode="valid")
                for c in range(of_group)
            ]
            channels.append(sum(parts)[::stride, ::stride] + bias[o])
        images.append(np.stack(channels, axis=-1))
    return np.stack(images, axis=-1)


@settings(deadline=None, max_examples=60)
@given(arguments=local_layers(), seed=st.integers(0, 99))
def test_tied_weights_make_a_convolution(arguments, seed):
    """For all channels, kernels, strides, groups, odd and even sizes; and so do its gradients."""
    rng = np.random.default_rng(seed)
    *shape, options = arguments
    conv = Conv2D(*shape, **options, rng=rng, dtype=np.float64)
    lc = LocallyConnected2D(*shape, **options, dtype=np.float64)
    lc.weights = np.broadcast_to(conv.weights, lc.weights.shape)
    bias = np.zeros(shape[2])
    if options["bias"]:
        bias = rng.standard_normal(shape[2])
        conv.parameters["bias"][...] = lc.parameters["bias"][...] = bias
    x = rng.standard_normal((*shape[0], shape[1], 2))
    expected = convolved(x, conv, conv.weights, bias)
    assert relative(conv.forward(x, training=True), expected) < 1e-12
    assert relative(lc.forward(x, training=True), expected) < 1e-12
    into = rng.standard_normal(expected.shape)
    assert relative(lc.backward(into.copy()), conv.backward(into.copy())) < 1e-12
    for name, gradient in conv.gradients.items():
        assert relative(lc.gradients[name].sum(axis=(0, 1)), gradient) < 1e-10


def test_kernels_of_positions_are_their_own(rng):
    layer = LocallyConnected2D((5, 5), 2, 3, kernel=3, padding=1, rng=rng, dtype=np.float64)
    x = rng.standard_normal((5, 5, 2, 4))
    before = layer.forward(x)
    layer.weights[1, 2] += 1
    changed = (layer.forward(x) != before).any(axis=(2, 3))
    assert np.argwhere(changed).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("in_channels", {"in_channels": 3, "groups": 2}),
        ("out_channels", {"out_channels": 3, "groups": 2}),
        ("groups", {"groups": 0}),
        ("padding", {"kernel": 3, "padding": 3}),
        ("kernel", {"kernel": 9}),
        ("stride", {"stride": 0}),
        ("dtype", {"dtype": np.int64}),
    ],
)
def test_layers_that_cannot_be_are_refused(name, options):
    given = {"in_channels": 4, "out_channels": 4, **options}
    for kind in (LocallyConnected2D, Conv2D):
        with pytest.raises(ParameterError) as raised:
            kind((6, 6), **given)
        assert raised.value.parameter == name


@pytest.mark.parametrize("shape", [[6, 5], np.array([6, 5]), (np.int64(6), 5)])
def test_a_shape_may_be_any_pair(shape, rng):
    x = rng.standard_normal((6, 5, 2, 3))
    for kind in (Conv2D, LocallyConnected2D):
        made = [
            kind(s, 2, 4, rng=np.random.default_rng(0), dtype=np.float64) for s in (shape, (6, 5))
        ]
        assert made[0].geometry == made[1].geometry
        assert np.array_equal(*(layer.forward(x) for layer in made))


def test_inputs_and_weights_that_do_not_fit_are_refused(rng):
    layer = LocallyConnected2D((6, 6), 2, 3, rng=rng)
    for wrong in ((6, 6, 3, 1), (6, 5, 2, 1), (6, 6, 2)):
        with pytest.raises(ParameterError, match="row, column, channel, image"):
            layer.forward(np.zeros(wrong, np.float32))
    with pytest.raises(ParameterError, match="float32"):
        layer.forward(np.zeros((6, 6, 2, 1)))
    with pytest.raises(ParameterError, match="must have the shape"):
        layer.weights = np.zeros((3, 3, 2, 3))
    with pytest.raises(RuntimeError, match="training=True"):
        layer.backward(np.zeros((4, 4, 3, 1), np.float32))


def test_gradients_of_other_layers(rng):
    x = rng.standard_normal((4, 6, 4, 5))
    norm = BatchNorm2D(4, dtype=np.float64)
    norm.parameters["scale"][...] = rng.random(4)
    norm.parameters["shift"][...] = rng.random(4)
    for layer in (norm, ReLU(), GlobalAveragePool(), MaxPool2D((4, 6)), MaxPool2D((4, 6), 2, 2, 0)):
        check_gradients(layer, x.copy(), rng)
    check_gradients(Linear(7, 3, rng=rng, dtype=np.float64), rng.standard_normal((7, 5)), rng)


def test_what_is_exactly_zero_is_not_moved_by_rectification():
    relu = ReLU()
    relu.forward(np.array([-1.0, 0.0, 2.0]).reshape(3, 1, 1, 1), training=True)
    assert relu.backward(np.ones((3, 1, 1, 1))).ravel().tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [((7, 6), 3, 2, 1), ((1, 2), 3, 2, 1), ((5, 5), 2, 3, 0), ((6, 9), 3, 1, 2), ((4, 4), 1, 1, 0)],
)
def test_the_largest_input_of_each_field(rng, size, kernel, stride, padding):
    """Against the plain loop; inputs are below 0, since what lies outside counts for nothing."""
    x = rng.standard_normal((*size, 2, 3)) - 5
    layer = MaxPool2D(size, kernel, stride, padding)
    y = layer.forward(x, training=True)
    gradient = layer.backward(np.ones_like(y))
    expected, hits = np.empty_like(y), np.zeros_like(x)
    for p, q in np.ndindex(y.shape[:2]):
        top, left = p * stride - padding, q * stride - padding
        field = x[max(top, 0) : top + kernel, max(left, 0) : left + kernel]
        expected[p, q] = field.max(axis=(0, 1))
        hits[max(top, 0) : top + kernel, max(left, 0) : left + kernel] += field == expected[p, q]
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(gradient, hits)
    x[0, 0] = np.nan
    assert np.isnan(layer.forward(x)[0, 0]).all() or padding == 2


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", [LocallyConnected2D, Conv2D])
def test_gradients_of_shortcuts_with_weights(rng, kind, stride):
    options = {"rng": rng, "dtype": np.float64}
    first = kind((7, 6), 4, 6, kernel=3, padding=1, stride=stride, **options)
    second = kind(first.geometry.output_shape, 6, 6, kernel=3, padding=1, **options)
    branch = {"a": first, "norm": BatchNorm2D(6, dtype=np.float64), "r": ReLU(), "b": second,
              "norm2": BatchNorm2D(6, dtype=np.float64)}  # fmt: skip
    across = kind((7, 6), 4, 6, kernel=1, stride=stride, **options)
    shortcut = Sequential({"layer": across, "norm": BatchNorm2D(6, dtype=np.float64)})
    block = Residual(Sequential(branch), stride, shortcut)
    names = [name for name, layer in block.named("block") if layer.parameters]
    assert names[-2:] == ["block.shortcut.layer", "block.shortcut.norm"]
    check_gradients(block, rng.standard_normal((7, 6, 4, 3)), rng)


@pytest.mark.parametrize(("stride", "out_channels"), [(1, 4), (2, 8), (2, 7), (3, 4)])
def test_gradients_of_residual_blocks(rng, stride, out_channels):
    options = {"kernel": 3, "padding": 1, "rng": rng, "dtype": np.float64}
    first = LocallyConnected2D((7, 6), 4, out_channels, stride=stride, **options)
    second = Conv2D(first.geometry.output_shape, out_channels, out_channels, **options)
    layers = {"a": first, "norm": BatchNorm2D(out_channels, dtype=np.float64), "r": ReLU()}
    check_gradients(
        Residual(Sequential(layers | {"b": second}), stride), rng.standard_normal((7, 6, 4, 3)), rng
    )


def test_shortcut_of_a_residual_block(rng):
    """Every second position, and zeros for the channels that are new."""
    branch = Conv2D((5, 5), 2, 4, kernel=3, stride=2, padding=1, dtype=np.float64)  # all zeros
    x = rng.standard_normal((5, 5, 2, 3))
    y = Residual(branch, 2).forward(x)
    assert np.array_equal(y[:, :, 1:3], np.maximum(x[::2, ::2], 0))
    assert not y[:, :, [0, 3]].any()


def test_batch_norm_normalises(rng):
    x = 3 + 2 * rng.standard_normal((4, 6, 3, 50))
    norm = BatchNorm2D(3, momentum=1.0, epsilon=1e-9, dtype=np.float64)
    y = norm.forward(x, training=True)
    assert y.mean(axis=(0, 1, 3)) == pytest.approx(np.zeros(3), abs=1e-12)
    assert y.var(axis=(0, 1, 3)) == pytest.approx(np.ones(3), rel=1e-8)
    assert norm.state["mean"] == pytest.approx(x.mean(axis=(0, 1, 3)), rel=1e-12)
    assert norm.state["variance"] == pytest.approx(x.var(axis=(0, 1, 3), ddof=1), rel=1e-12)
    number = x.size // 3
    expected = y * np.sqrt((number - 1) / number)  # running variances are unbiased
    assert norm.forward(x) == pytest.approx(expected, rel=1e-6)


def test_batch_norm_keeps_digits_of_channels_far_from_zero(rng):
    x = (1000 + rng.standard_normal((8, 8, 2, 64))).astype(np.float32)
    y = BatchNorm2D(2).forward(x, training=True)
    exact = BatchNorm2D(2, dtype=np.float64).forward(x.astype(float), training=True)
    assert np.abs(y - exact).max() < 1e-3  # of which rounding of x itself is 6e-5


def test_cross_entropy(rng):
    logits, labels = 5 * rng.standard_normal((6, 4)), rng.integers(4, size=6)
    loss, gradient = cross_entropy(logits, labels)
    chances = special.softmax(logits, axis=1)
    assert loss == pytest.approx(-np.log(chances[np.arange(6), labels]).mean(), rel=1e-12)
    assert softmax(logits) == pytest.approx(chances, rel=1e-12)
    direction = rng.standard_normal(logits.shape)
    found = slope(lambda: cross_entropy(logits, labels)[0], logits, direction)
    assert (gradient * direction).sum() == pytest.approx(found, rel=1e-7)
    assert cross_entropy(np.array([[1e4, 0.0]]), np.array([1]))[0] == pytest.approx(1e4)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["small", "resnet20", "resnet18"])
@pytest.mark.parametrize("connectivity", ["conv", "lc", "first_conv"])
def test_gradients_of_networks(rng, network, connectivity):
    size = (20, 17, 3) if network == "resnet18" else (9, 8, 3)
    first_conv = connectivity == "first_conv"
    connectivity = "lc" if first_conv else connectivity
    architecture = Architecture(size, 5, network, connectivity, 2, first_conv)
    net = Network(architecture, rng, dtype=np.float64)
    for name, p in net.parameters().items():
        if name.endswith(("scale", "shift")):
            p += 0.3 * rng.standard_normal(p.shape)
    x, labels = rng.standard_normal((*size, 6)), rng.integers(5, size=6)

    def loss():
        return cross_entropy(net.forward(x, training=True), labels)[0]

    net.backward(cross_entropy(net.forward(x, training=True), labels)[1])
    gradients = {name: g.copy() for name, g in net.gradients().items()}
    for name, p in net.parameters().items():
        direction = rng.standard_normal(p.shape)
        found = slope(loss, p, direction)
        size = np.linalg.norm(gradients[name]) * np.linalg.norm(direction)
        assert (gradients[name] * direction).sum() == pytest.approx(found, abs=1e-5 * size), name


def test_presets():
    resnet = Network(Architecture((32, 32, 3), 10, "resnet20", "conv"))
    kernels = [n for n in resnet.parameters() if "layer" in n]
    assert len(kernels) + 1 == 20
    # 270,000 in the table of He et al.; 269,722 with batch norm and biases of the last layer.
    assert sum(p.size for p in resnet.parameters().values()) == 269_722
    small = Network(Architecture((32, 32, 3), 10))
    shapes = {name: layer.weights.shape for name, layer in small.lc_layers().items()}
    assert shapes == {
        "layer1": (16, 16, 3, 3, 3, 32),
        "layer2": (16, 16, 3, 3, 32, 32),
        "layer3": (8, 8, 3, 3, 32, 64),
        "layer4": (8, 8, 3, 3, 64, 64),
    }
    assert Network(Architecture((32, 32, 3), 10, connectivity="conv")).lc_layers() == {}


def test_resnet18():
    """That of He et al. has 11,689,512 parameters; the paper's has half as many channels."""
    whole = Network(Architecture((224, 224, 3), 1000, "resnet18", "conv", width=64))
    assert sum(p.size for p in whole.parameters().values()) == 11_689_512
    local = Network(Architecture((64, 64, 3), 10, "resnet18", width=2)).lc_layers()
    shapes = {name: layer.weights.shape for name, layer in local.items()}
    assert len(shapes) == 17 + 3
    assert shapes["layer1"] == (32, 32, 7, 7, 3, 2)
    assert shapes["stage1.block1.layer1"] == (16, 16, 3, 3, 2, 2)
    assert shapes["stage4.block1.layer1"] == (2, 2, 3, 3, 8, 16)
    assert shapes["stage4.block1.shortcut.layer"] == (2, 2, 1, 1, 8, 16)
    assert Architecture((64, 64, 3), 10, "resnet18").width == 32
    first = Network(Architecture((64, 64, 3), 10, "resnet18", width=2, first_conv=True))
    assert list(first.lc_layers()) == list(local)[1:]
    assert first.layers["layer1"].weights.shape == (7, 7, 3, 2)
    with pytest.raises(ParameterError, match="first_conv: has no effect"):
        Architecture((8, 8, 3), 10, connectivity="conv", first_conv=True)


def test_first_weights_have_the_spread_that_keeps_gradients():
    net = Network(Architecture((32, 32, 3), 10, width=16), np.random.default_rng(0))
    for layer in net.lc_layers().values():
        assert layer.weights.std() == pytest.approx(np.sqrt(2 / (9 * layer.out_channels)), rel=0.02)


@pytest.mark.parametrize("connectivity", ["conv", "lc"])
def test_numbers_do_not_depend_on_threads(connectivity):
    def trained(threads):
        rng = np.random.default_rng(0)
        net = Network(Architecture((9, 8, 3), 5, "resnet20", connectivity, 4), rng)
        optimiser = AdamW(net.parameters(), net.gradients(), 0.01)
        x, labels = rng.standard_normal((9, 8, 3, 32), np.float32), rng.integers(5, size=32)
        with parallel.threads(threads):
            for _ in range(3):
                net.backward(cross_entropy(net.forward(x, training=True), labels)[1])
                optimiser.step(0.01)
            return net.forward(x)

    one, three = trained(1), trained(3)
    assert np.array_equal(one, three)
    assert np.ptp(one) > 0.1


def test_an_error_in_a_thread_is_not_lost():
    def fail(n):
        if n == 5:
            raise ZeroDivisionError

    with parallel.threads(2), pytest.raises(ZeroDivisionError):
        parallel.over(fail, 6)


def test_more_threads_than_there_is_work():
    done = []
    with parallel.threads(10**30):
        parallel.over(done.append, 3)
    assert sorted(done) == [0, 1, 2]


def steps(optimiser, gradients, parameter, rates):
    """Parameters after steps with gradients given."""
    weights, gradient = parameter.copy(), np.zeros_like(parameter)
    chosen = optimiser({"a.weights": weights}, {"a.weights": gradient})
    for g, rate in zip(gradients, rates, strict=True):
        gradient[...] = g
        chosen.step(rate)
    return weights


@pytest.mark.parametrize("momentum", [0.9, 0.99])
def test_optimisers_follow_their_equations(rng, momentum):
    start, gradients = rng.standard_normal((3, 7)), rng.standard_normal((5, 3, 7))
    rates = [0.1, 0.2, 0.1, 0.05, 0.3]

    weights, velocity = start.copy(), 0
    for g, rate in zip(gradients, rates, strict=True):
        velocity = momentum * velocity + g + 0.1 * weights
        weights = weights - rate * velocity
    found = steps(lambda p, g: SGD(p, g, 0.1, momentum=momentum), gradients, start, rates)
    assert found == pytest.approx(weights, rel=1e-12)

    weights, mean, square = start.copy(), 0, 0
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        mean, square = momentum * mean + (1 - momentum) * g, 0.999 * square + 0.001 * g**2
        change = mean / (1 - momentum**t) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
        weights = weights - rate * 0.1 * weights - rate * change
    found = steps(lambda p, g: AdamW(p, g, 0.1, momentum), gradients, start, rates)
    assert found == pytest.approx(weights, rel=1e-10)


def test_only_weights_decay():
    parameters = {"a.weights": np.ones(3), "a.bias": np.ones(3), "norm.scale": np.ones(3)}
    nothing = {name: np.zeros(3) for name in parameters}
    for optimiser in (SGD(parameters, nothing, 0.5), AdamW(parameters, nothing, 0.5)):
        optimiser.step(0.1)
    assert parameters["a.weights"] == pytest.approx(0.95**2)
    assert parameters["a.bias"].tolist() == parameters["norm.scale"].tolist() == [1, 1, 1]


def test_schedules():
    assert [step_factor(e, (2, 4), 0.25) for e in (0, 1.9, 2, 3.9, 4)] == [1, 1, 0.25, 0.25, 0.0625]
    assert cosine_factor(0, 8) == 1
    assert cosine_factor(4, 8) == pytest.approx(0.5)
    assert cosine_factor(8, 8) == pytest.approx(0)
