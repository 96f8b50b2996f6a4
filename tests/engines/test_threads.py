"""What belongs to the whole process, when several threads use the package at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import brian2
import numpy as np
import pytest
import threadpoolctl

import circuitsim as cs
from circuitsim.processwide import one_blas_thread

PREFERENCES = ("codegen.target", "core.stop_on_keyboard_interrupt", "core.default_float_dtype")


def one(seed, **how):
    rng = np.random.default_rng(seed)
    w_init, inputs = 1 + rng.standard_normal((5, 4)), rng.standard_normal((3, 4))
    return cs.simulate(w_init, inputs, **how).weights.to_numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine", [pytest.param("brian2", marks=pytest.mark.thorough), "propagator"]
)
def test_threads_give_the_numbers_of_one(engine):
    how = {"engine": engine, "codegen": "numpy"}
    before = {name: brian2.prefs[name] for name in PREFERENCES}
    handler, errors = signal.getsignal(signal.SIGINT), np.geterr()
    alone = [one(seed, **how) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda seed: one(seed, **how), [*range(4)] * 2))
    for seed, weights in enumerate(together):
        np.testing.assert_array_equal(weights, alone[seed % 4])
    assert before == {name: brian2.prefs[name] for name in PREFERENCES}
    assert signal.getsignal(signal.SIGINT) is handler
    assert np.geterr() == errors


def test_blas_threads_are_given_back_in_any_order():
    def limits():
        pools = threadpoolctl.threadpool_info()
        return [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]

    with threadpoolctl.threadpool_limits(2):
        before = limits()
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert set(limits()) == {1}
        second.__exit__(None, None, None)
        assert limits() == before


@pytest.mark.slow
def test_brian2_is_first_imported_in_a_thread():
    code = """
        import signal, sys
        from concurrent.futures import ThreadPoolExecutor
        import numpy as np
        import circuitsim as cs
        before = signal.getsignal(signal.SIGINT), signal.signal, sys.excepthook
        w, x = np.eye(3), np.ones((2, 3))
        run = lambda _: cs.simulate(w, x, engine="brian2", codegen="numpy").snr_w.values.tolist()
        assert "brian2" not in sys.modules
        with ThreadPoolExecutor(2) as threads:
            found = list(threads.map(run, range(3)))
        assert found[0] == found[1] == found[2] == run(0)
        assert before == (signal.getsignal(signal.SIGINT), signal.signal, sys.excepthook)
        assert "brian2" in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
