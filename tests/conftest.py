"""What tests share."""

from __future__ import annotations

import gc
import itertools
import os
import pickle
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import sketches
from commands import forked_server
from hypothesis import HealthCheck, settings

from circuitsim import rules
from circuitsim.checks import plugins
from circuitsim.engines import registry
from circuitsim.files.locks import locked

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).parent / "data"


# Examples that are the same in every run, few; and once a week, many others.
settings.register_profile(
    "daily",
    derandomize=True,
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", deadline=None, max_examples=1000)


def pytest_addoption(parser):
    parser.addoption(
        "--thorough", action="store_true", help="whole grids, and many more random examples"
    )


def pytest_configure(config):
    settings.load_profile("thorough" if config.getoption("--thorough") else "daily")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--thorough"):
        left_out = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_collection_finish(session):
    # Brian2 collects garbage before it runs a network, among all that has been imported.
    gc.freeze()


def grid(**factors):
    """Parametrise a test by several factors: with every pair of their values at least once.

    With `--thorough`, with every combination.
    """

    def pairs(case):
        return set(itertools.combinations(enumerate(case), 2))

    cases = list(itertools.product(*(range(len(values)) for values in factors.values())))
    uncovered, chosen = set().union(*map(pairs, cases)), set()
    while uncovered:
        best = max(cases, key=lambda case: len(pairs(case) & uncovered))
        chosen.add(best)
        uncovered -= pairs(best)
    return pytest.mark.parametrize(
        list(factors),
        [
            pytest.param(
                *(values[i] for values, i in zip(factors.values(), case, strict=True)),
                marks=[] if case in chosen else pytest.mark.thorough,
            )
            for case in cases
        ],
    )


@pytest.fixture(scope="session")
def common(tmp_path_factory):
    """Directory of all parallel test processes."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session", autouse=True)
def _cache(common):
    """Compile into a directory of these tests, not the user's."""
    if "CIRCUITSIM_CACHE" not in os.environ:
        os.environ["CIRCUITSIM_CACHE"] = str(common / "compiled")


@pytest.fixture(scope="session")
def once(common):
    """Make what is only looked at once for all test processes: `once(name, make)`.

    `make` is given a directory to write in, and what it returns is kept, too.
    """

    def made(name, make):
        place = common / "once" / name
        place.mkdir(parents=True, exist_ok=True)
        kept = place / "returned.pickle"
        with locked(place / "lock", wait=True, told=lambda _: None):
            if not kept.exists():
                (place / "made").mkdir()
                kept.write_bytes(pickle.dumps(make(place / "made")))
        return place / "made", pickle.loads(kept.read_bytes())

    return made


@pytest.fixture(scope="session", autouse=True)
def _workers():
    """Let worker processes share what takes long to import, whichever test starts the first."""
    with forked_server():
        yield


@pytest.fixture(scope="session", autouse=True)
def _sketches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketches.plots, "save", sketches.save)
        yield


@pytest.fixture(autouse=True)
def _drawn(request):
    """Whole figures, for a test that looks at them."""
    with sketches.drawn() if request.node.get_closest_marker("drawn") else nullcontext():
        yield


@pytest.fixture(autouse=True)
def _own_registries(monkeypatch):
    """What a test registers is forgotten afterwards."""
    monkeypatch.setattr(rules, "RULES", dict(rules.RULES))
    monkeypatch.setattr(registry, "ENGINES", dict(registry.ENGINES))
    plugins.installed.cache_clear()
    yield
    plugins.installed.cache_clear()


@pytest.fixture
def thorough(request):
    """Whether what is shortened otherwise is to run at its full length."""
    return request.config.getoption("--thorough")


@pytest.fixture
def rng():
    return np.random.default_rng(1234)


@pytest.fixture
def oracle():
    """Reader of a trajectory computed with the published code of the paper's authors."""

    def read(name):
        published = dict(np.load(DATA / f"{name}.npz"))
        if "seed" in published:  # see the README there
            drawn = np.random.RandomState(published["seed"])
            n_inputs = published["n_inputs"]
            published["w_init"] = 1 + drawn.standard_normal((published["n_neurons"], n_inputs))
            published["inputs"] = drawn.standard_normal((published["n_presentations"], n_inputs))
        return published

    return read


def relative(a, b):
    """Largest difference relative to the largest value."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    return np.max(np.abs(a - b)) / np.max(np.abs(b))


def pytest_terminal_summary(terminalreporter):
    """Say how many tests were skipped, if none too; `-rs` says why."""
    terminalreporter.write_line(f"{len(terminalreporter.stats.get('skipped', []))} skipped")
