"""Compiled kernels of layers and optimisers against those in NumPy."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
from conftest import relative
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layers import local_layers

from circuitsim import ParameterError
from circuitsim.vision import kernels, memory, parallel
from circuitsim.vision.layers import (
    BatchNorm2D,
    Conv2D,
    LocallyConnected2D,
    ReLU,
    Residual,
    Sequential,
    cross_entropy,
)
from circuitsim.vision.networks import Architecture, Network
from circuitsim.vision.optimisers import SGD, AdamW

CODES = ("numpy", "numba")
needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="Numba is not installed"
)


def results(code, layer, x, into):
    """Output, gradient of the input and all gradients and states of a layer."""
    with kernels.code(code):
        y = layer.forward(x, training=True)
        of_x = layer.backward(into.copy())
        asleep = layer.forward(x)
    found = {"y": y, "x": of_x, "without training": asleep}
    for name, inner in layer.named("layer"):
        for kind in (inner.gradients, inner.state):
            found |= {f"{name}.{n}": a.copy() for n, a in kind.items()}
    return found


def assert_same(make, x, seed):
    """The same numbers from both codes, up to rounding."""
    layers = [make(np.random.default_rng(seed)) for _ in CODES]
    into = np.random.default_rng(seed).standard_normal(layers[0].forward(x).shape).astype(x.dtype)
    expected, found = (results(c, la, x, into) for c, la in zip(CODES, layers, strict=True))
    tolerance = 1e-4 if x.dtype == np.float32 else 1e-10
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        # Of numbers that are about 1, if they are not all 0.
        assert np.abs(found[name] - value).max() < tolerance * (1 + np.abs(value).max()), name


@needs_numba
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("left", [0.0, 0.3])
def test_positions_are_pulled_to_their_mean(dtype, left):
    weights = np.random.default_rng(0).standard_normal((7, 8, 1030)).astype(dtype)
    by_code = [weights.copy() for _ in CODES]
    for code, pulled in zip(CODES, by_code, strict=True):
        with kernels.code(code):
            kernels.chosen().pull(pulled, slice(1, 7, 3), slice(0, 8, 4), left)
    np.testing.assert_allclose(*by_code, rtol=0, atol=4 * np.finfo(dtype).eps)
    asleep, awake = by_code[1][1:7:3, 0:8:4], weights[1:7:3, 0:8:4]
    mean = awake.mean(axis=(0, 1))
    np.testing.assert_allclose(asleep, mean + left * (awake - mean), atol=1e-6)
    by_code[1][1:7:3, 0:8:4] = awake
    np.testing.assert_array_equal(by_code[1], weights)


@pytest.mark.slow
@needs_numba
@pytest.mark.parametrize("kind", [LocallyConnected2D, Conv2D])
@settings(deadline=None, max_examples=30)
@given(
    arguments=local_layers(),
    factors=st.tuples(*[st.integers(1, 7)] * 2),
    images=st.integers(1, 70),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_products_of_all_shapes(kind, arguments, factors, images, seed, dtype):
    """Numbers of channels and images above, below and beside those that fill registers."""
    size, *channels, options = arguments
    channels = [c * f for c, f in zip(channels, factors, strict=True)]
    x = np.random.default_rng(seed).standard_normal((*size, channels[0], images)).astype(dtype)

    def make(rng):
        layer = kind(size, *channels, **options, rng=rng, dtype=dtype)
        for name in set(layer.parameters) & {"bias"}:
            layer.parameters[name][...] = rng.standard_normal(layer.parameters[name].shape)
        return layer

    assert_same(make, x, seed)


def block(rng, size, channels, stride, fused):
    """A residual block whose last step is done together with the shortcut, or not."""
    options = {"kernel": 3, "padding": 1, "rng": rng, "dtype": np.float64}
    first = LocallyConnected2D(size, channels[0], channels[1], stride=stride, **options)
    last = Conv2D(first.geometry.output_shape, channels[1], channels[1], **options)
    norms = [BatchNorm2D(channels[1], dtype=np.float64) for _ in range(2)]
    for norm in norms:
        norm.parameters["scale"][...] = 0.5 + rng.random(channels[1])
        norm.parameters["shift"][...] = rng.standard_normal(channels[1])
    branch = {"a": first, "norm": norms[0], "relu": ReLU(), "b": last}
    return Residual(Sequential(branch | {"norm2": norms[1]} if fused else branch), stride)


@pytest.mark.slow
@needs_numba
@pytest.mark.parametrize("fused", [True, False])
@settings(deadline=None, max_examples=30)
@given(
    size=st.tuples(*[st.integers(2, 7)] * 2),
    channels=st.tuples(st.integers(1, 5), st.integers(0, 4)),
    stride=st.integers(1, 3),
    images=st.integers(2, 40),
    seed=st.integers(0, 99),
)
def test_residual_blocks(fused, size, channels, stride, images, seed):
    """In float64: rounding to float32 may take a number through 0, which ReLU notices."""
    inputs, more = channels
    x = np.random.default_rng(seed).standard_normal((*size, inputs, images))

    def make(rng):
        inner = block(rng, size, (inputs, inputs + more), stride, fused)
        # Before it, one that gives it its frame; after it, one that wants another.
        options = {"rng": rng, "dtype": np.float64}
        first = Conv2D(size, inputs, inputs, kernel=1, **options)
        shape = tuple(-(-n // stride) for n in size)
        last = Conv2D(shape, inputs + more, 3, kernel=5, padding=4, **options)
        return Sequential({"first": first, "relu": ReLU(), "block": inner, "last": last})

    assert_same(make, x, seed)


@needs_numba
@pytest.mark.parametrize("optimiser", [SGD, AdamW])
def test_optimisers(rng, optimiser):
    start = rng.standard_normal((3, 2**16 + 5)).astype(np.float32)
    gradients = rng.standard_normal((4, *start.shape)).astype(np.float32)
    ends = []
    for code in CODES:
        weights, gradient = start.copy(), np.zeros_like(start)
        chosen = optimiser({"a.weights": weights}, {"a.weights": gradient}, 0.1)
        with kernels.code(code):
            for g in gradients:
                gradient[...] = g
                chosen.step(0.01)
        ends.append([weights, *chosen.state.values()])
    for found, expected in zip(*ends, strict=True):
        assert relative(found, expected) < 1e-6


def trained(code, threads, batch, connectivity="lc"):
    """Logits after a few steps of a network."""
    rng = np.random.default_rng(0)
    net = Network(Architecture((9, 8, 3), 5, "resnet20", connectivity, 4), rng, np.float64)
    optimiser = SGD(net.parameters(), net.gradients(), 0.01)
    x, labels = rng.standard_normal((9, 8, 3, batch)), rng.integers(5, size=batch)
    with parallel.threads(threads), kernels.code(code):
        for _ in range(3):
            net.backward(cross_entropy(net.forward(x, training=True), labels)[1])
            optimiser.step(0.01)
        return net.forward(x)


@pytest.mark.slow
@needs_numba
@pytest.mark.parametrize("connectivity", ["conv", "lc"])
def test_networks(connectivity):
    numpy, numba = (trained(code, 1, 20, connectivity) for code in CODES)
    assert relative(numba, numpy) < 1e-9
    assert np.ptp(numpy) > 0.1


@pytest.mark.parametrize("code", [CODES[0], pytest.param(CODES[1], marks=needs_numba)])
def test_numbers_do_not_depend_on_threads(code):
    assert np.array_equal(trained(code, 1, 20), trained(code, 3, 20))


@pytest.mark.parametrize("code", [CODES[0], pytest.param(CODES[1], marks=needs_numba)])
def test_what_is_no_number_stays_so(code):
    """Training that diverges is found by the loss, which NaN anywhere must reach."""
    layers = {"a": Conv2D((3, 3), 2, 2, rng=np.random.default_rng(0)), "norm": BatchNorm2D(2)}
    x = np.ones((3, 3, 2, 20), np.float32)
    x[1, 1, 0, 5] = np.nan
    with kernels.code(code):
        assert np.isnan(Sequential(layers | {"relu": ReLU()}).forward(x)[..., 5]).all()


def test_without_numba(monkeypatch):
    kernels._module.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    try:
        assert kernels.chosen().__name__.endswith("numpy")
        with pytest.raises(ParameterError, match="pip install"), kernels.code("numba"):
            pass
    finally:
        kernels._module.cache_clear()


def test_unknown_codes_are_refused():
    with (
        pytest.raises(ParameterError, match="must be one of auto, numba, numpy"),
        kernels.code("cython"),
    ):
        pass


def test_memory_is_used_again_only_when_nobody_refers_to_it():
    with memory.reused():
        first = memory.empty((1000, 100), np.float32)
        address, view = first.ctypes.data, first[10:20].T
        first[...] = 1
        del first
        other = memory.empty((1000, 100), np.float32)  # the view is still there
        other[...] = 2
        assert (view == 1).all()
        assert address % 64 == other.ctypes.data % 64 == 0
        del view
        again = memory.empty((990, 50, 2), np.float32)  # no larger, nor much smaller
        assert again.ctypes.data == address
        assert memory.empty((99, 100), np.float64).ctypes.data not in (address, other.ctypes.data)
    assert memory.empty((0, 3), np.float32).shape == (0, 3)


@pytest.mark.slow
def test_outputs_are_the_callers_own(rng):
    """A later call does not write where an earlier one's result is."""
    layers = {"a": Conv2D((16, 16), 8, 8, kernel=1, rng=rng), "norm": BatchNorm2D(8)}
    net = Sequential(layers | {"relu": ReLU()})
    x = rng.standard_normal((16, 16, 8, 32), np.float32)
    with parallel.threads(1):
        y = net.forward(x)
        kept = y.copy()
        for _ in range(3):
            net.forward(-x)
    assert np.array_equal(y, kept)
    assert kept.any()
