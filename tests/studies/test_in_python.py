"""Sweeps and pictures from Python: what the commands do, without one."""

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import circuitsim as cs
from circuitsim.plots import style

SMALL = {"k": [2, 3], "gamma": [0.1, 0.01], "trials": 2, "presentations": 30,
         "engine": "propagator", "codegen": "numpy"}  # fmt: skip


def texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.slow
def test_a_sweep_has_the_numbers_of_the_command(tmp_path):
    from circuitsim import sweep

    options = ["--k", "2", "3", "--gamma", "0.1", "0.01", "--trials", "2", "--presentations", "30",
               "--engine", "propagator", "--codegen", "numpy"]  # fmt: skip
    file = tmp_path / "sweep.nc"
    assert sweep.main([*options, "--jobs", "1", "--output", str(file)]) == 0
    shares = []
    found = cs.sweep(**SMALL, progress=shares.append)
    xr.testing.assert_equal(found, cs.load(file))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    xr.testing.assert_equal(found, cs.sweep(**SMALL, output=file))  # what is there is not run
    with pytest.raises(cs.ParameterError, match="holds another sweep"):
        cs.sweep(**SMALL | {"seed": 7}, output=file)


def test_a_sweep_is_a_function_however_it_was_imported():
    for first in ("", "import circuitsim.sweep; ", "from circuitsim import sweep; sweep.main; "):
        code = f"{first}import circuitsim as cs; print(callable(cs.sweep), callable(cs.sweep.main))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert done.stdout.split() == [b"True", b"True"]


def test_what_is_no_parameter_of_a_sweep():
    message = "gama: is no parameter of a sweep: did you mean gamma"
    with pytest.raises(cs.ParameterError, match=message):
        cs.sweep(gama=[0.1])


@pytest.mark.slow
def test_every_panel_that_is_lowest_has_its_ticks():
    for sizes in ([2, 3, 4, 5], [2, 3, 4, 5, 6]):
        found = cs.sweep(**SMALL | {"k": sizes, "trials": 1})
        figure = cs.plot(found)
        figure.draw_without_rendering()
        places = {a.get_title(): a.get_subplotspec() for a in figure.axes}
        lowest = {
            s.colspan.start: max(
                p.rowspan.start for p in places.values() if p.colspan.start == s.colspan.start
            )
            for s in places.values()
        }
        for axis in figure.axes:
            spec = axis.get_subplotspec()
            shown = bool(axis.get_xlabel()) and axis.xaxis.get_tick_params()["labelbottom"]
            assert shown == (spec.rowspan.start == lowest[spec.colspan.start])


@pytest.mark.slow
@pytest.mark.parametrize("gammas, alphas", [(12, 1), (4, 3), (1, 1)])
def test_no_legend_is_cut_off(gammas, alphas):
    grid = {"gamma": np.geomspace(1e-3, 1, gammas), "alpha": np.linspace(3, 30, alphas)}
    figure = cs.plot(cs.sweep(**SMALL | grid | {"k": 2, "trials": 1, "presentations": 3}))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 < box.x1 <= whole.x1
    assert whole.y0 <= box.y0 < box.y1 <= whole.y1
    lines = [line for axis in figure.axes for line in axis.lines if len(line.get_xdata()) > 2]
    assert len({line.get_color() for line in lines}) == gammas
    assert len({str(line._unscaled_dash_pattern) for line in lines}) == alphas
    assert len(texts(figure)) == gammas + (alphas if alphas > 1 else 0) + 2


def test_the_picture_of_a_run(rng):
    w_init, inputs = 1 + rng.standard_normal((12, 9)), rng.standard_normal((40, 9))
    run = cs.simulate(w_init, inputs, engine="propagator", codegen="numpy")
    figure = cs.plot(run)
    curve, *ends = figure.axes[0].lines
    assert np.allclose(curve.get_ydata(), np.log10(run.inverse_snr_w))
    ideal = cs.theory.fixed_point(w_init, 0.01, "mean_subtracted")
    assert ends[0].get_ydata()[0] == pytest.approx(np.log10(cs.measures.inverse_snr_w(ideal)))
    assert texts(figure) == ["circuit", style.ENDS["theory"][1], style.ENDS["averaged"][1]]
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "lower = more alike" in figure.axes[0].get_ylabel()
    with pytest.raises(cs.ParameterError, match=r"must be a result of circuitsim\.simulate"):
        cs.plot(run.drop_vars("weights"))
    with pytest.raises(cs.ParameterError, match="the name of a file"):
        cs.plot(run.weights.values)


def test_the_picture_of_a_batch_tells_circuits_apart(rng):
    w_init, inputs = 1 + rng.standard_normal((12, 7)), rng.standard_normal((5, 7))
    circuit = cs.Circuit(alpha=[3.0, 10.0])
    figure = cs.plot(cs.simulate(w_init, inputs, circuit, engine="propagator", codegen="numpy"))
    assert texts(figure)[:2] == [r"$\alpha$ = 3", r"$\alpha$ = 10"]


def test_labels_of_plots_have_no_unit_of_one(rng):
    run = cs.simulate(np.eye(3), np.ones((2, 3)), engine="propagator", codegen="numpy")
    lines = run.snr_w.plot() + cs.sweep(**SMALL | {"k": 2, "gamma": 0.1}).snr_w.squeeze().plot(
        hue="trial"
    )
    for line in lines:
        assert "[1]" not in line.axes.get_xlabel() + line.axes.get_ylabel()


@pytest.mark.parametrize("mean", ["ones", "gabor", "normal"])
def test_means_of_initial_weights_are_as_strong(mean, rng):
    kernel = cs.initial.mean_kernel(mean, 5, rng, channels=3)
    assert kernel.shape == (75,)
    assert np.mean(kernel**2) == pytest.approx(1)
    other = cs.initial.mean_kernel(mean, 5, rng, channels=3)
    assert np.array_equal(kernel, other) == (mean == "ones")
