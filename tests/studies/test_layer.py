"""The figure of a layer that sleeps."""

from __future__ import annotations

import numpy as np
import pytest

from circuitsim.checks.validation import ParameterError
from circuitsim.studies.layer import Layer, pool_means
from circuitsim.vision.geometry import Geometry
from circuitsim.vision.sharing import Sharing

SMALL = Layer(k=2, size=6, presentations=30)


@pytest.fixture(scope="module")
def result():
    (arrays,) = SMALL.run(SMALL.tasks())
    return arrays


@pytest.mark.slow
def test_figure_shows_the_sleep_of_a_classifier(result):
    for name, (shape, _) in SMALL.layout(SMALL.tasks()[0]).items():
        assert result[name].shape == shape
    sharing = Sharing("circuit", 30, gamma=SMALL.gamma, alpha=SMALL.alpha)
    first, _, last = result["weights"][..., np.newaxis, np.newaxis]
    asleep = sharing.share(first, Geometry((7, 7), 2), seed=[SMALL.seed, 1])
    np.testing.assert_allclose(last, asleep, rtol=0, atol=1e-9)


def test_sheets_become_periodic_and_pools_alike(result):
    private, pulled, exact = (np.abs(s[2:] - s[:-2]).mean() for s in result["sheet"])
    assert private > 5 * pulled > 5 * exact == 0
    assert np.all(result["snr_w"][-1] > 100 * result["snr_w"][0])
    means = pool_means(result["weights"][-1], 2)
    assert means.shape == (2, 2, 2, 2)
    np.testing.assert_allclose(means[1, 0], result["weights"][-1][1::2, ::2].mean((0, 1)))


def test_what_it_refuses():
    with pytest.raises(ParameterError, match="size"):
        Layer(k=5, size=8)
    with pytest.raises(ParameterError, match="unstable"):
        Layer(alpha=80)
    with pytest.raises(ParameterError, match="rule"):
        Layer(rule="none")
