"""Notebooks run from a clean kernel, as they are committed; their sliders do what they say."""

from __future__ import annotations

import builtins
import gc
import importlib.util
import json
import weakref
from io import BytesIO

import numpy as np
import pytest
from commands import Forked
from conftest import ROOT
from matplotlib.figure import Figure
from PIL import Image

from circuitsim import measures, notebook, theory
from circuitsim.checks.validation import ParameterError
from circuitsim.notebook import Control, Explorer

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"


def execute_module():
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What takes longest, and how it ends soon; with `--thorough`, notebooks run as they are.
SHORTER = {
    "2_sweep": {"presentations=10000": "presentations=200"},
    "4_sleep": {"EPOCHS = 12": "EPOCHS = 2"},
    "5_rule": {"trials=3": "trials=3, presentations=200", "inputs[:200]": "inputs[:20]"},
}


# Those that take longest to run, of which the daily tests run others.
WEEKLY = ("2_sweep", "4_sleep", "5_rule", "7_imperfect")


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.thorough] * (path.stem in WEEKLY), id=path.stem)
        for path in NOTEBOOKS
    ],
)
def test_runs_from_a_clean_kernel(path, tmp_path, thorough, monkeypatch):
    tools = execute_module()
    if not thorough:
        monkeypatch.setattr("jupyter_client.launcher.Popen", Forked)
        text = path.read_text(encoding="utf-8")
        path = tmp_path / path.name
        for long, short in SHORTER.get(path.stem, {}).items():
            assert text.count(long) == 1
            text = text.replace(long, short)
        path.write_text(text, encoding="utf-8")
    done = tools.execute(path, tmp_path)
    shown = [o for c in done.cells if c.cell_type == "code" for o in c.outputs]
    sliders = [o for o in shown if WIDGET in o.get("data", {})]
    # Each stands beside a picture for those who have no widgets, which is what is committed.
    assert all("image/png" in o.data for o in sliders)
    uses = sum("Explorer(" in c.source for c in done.cells if c.cell_type == "code")
    assert len(sliders) >= uses
    assert WIDGET not in json.dumps(tools.stripped(done))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_committed_small_with_outputs(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 300_000
    assert WIDGET not in text
    cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
    outputs = [o for c in cells for o in c["outputs"]]
    assert cells[-1]["outputs"]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert all(c["execution_count"] is None for c in cells)
    assert not [place for place in ("/tmp/", "/home/", "/root/", str(ROOT)) if place in text]


def pixels(png):
    return np.asarray(Image.open(BytesIO(png)).convert("L"))


def lines(figure, axis=0):
    return [line.get_ydata() for line in figure.axes[axis].lines]


def explorer():
    return Explorer(
        notebook.learning,
        gamma=Control("gamma", [0.01, 0.1], 0.01),
        presentations=Control("presentations", [50, 100], 50),
        rule=Control("rule", ["circuit", "mean_subtracted"], "circuit"),
    )


@pytest.mark.slow
def test_moving_a_slider_redraws():
    shown = explorer()
    bundle = shown._repr_mimebundle_()
    assert {WIDGET, "image/png", "text/plain"} <= set(bundle)
    *controls, image = shown._box.children
    before = image.value
    assert before == bundle["image/png"]
    controls[0].value = 0.1
    assert shown.chosen == {"gamma": 0.1, "presentations": 50, "rule": "circuit"}
    assert image.value != before
    # The last picture's curve stays, in grey, on axes that have not moved.
    plain = pixels(explorer().choose(gamma=0.1).png())
    assert pixels(image.value).shape == plain.shape
    assert (pixels(image.value) != plain).any()
    controls[0].value = 0.01
    assert image.value != before
    controls[-1].click()  # reset
    assert shown.chosen["gamma"] == 0.01
    assert image.value == before


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{"gamma": 0.0}, {"gamma": 0.1}, {"alpha": 3.0}])
def test_axes_do_not_jump(changed):
    fixed, moved = (
        notebook.learning(**{"presentations": 50, "rule": "inhibition_gated"} | values)
        for values in ({}, changed)
    )
    for one, other in zip(fixed.axes, moved.axes, strict=True):
        assert one.get_ylim() == other.get_ylim()
        assert one.get_xlim() == other.get_xlim()
    one, other = notebook.rates(alpha=3.0), notebook.rates(alpha=30.0)
    assert [a.get_ylim() for a in one.axes] == [a.get_ylim() for a in other.axes]


@pytest.mark.slow
def test_what_is_dropped_is_collected():
    """An explorer that has been shown leaves the garbage of others alone."""
    mine = Figure()  # figures are cyclic
    gone = weakref.ref(mine)
    shown = explorer()
    shown._repr_mimebundle_()
    shown._box.children[0].value = 0.1
    assert gc.isenabled()
    del mine
    gc.collect()
    assert gone() is None


def test_without_widgets_there_is_a_picture(monkeypatch):
    importing = builtins.__import__

    def refuse(name, *rest, **options):
        if name.startswith("ipywidgets"):
            raise ImportError(name)
        return importing(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    bundle = explorer()._repr_mimebundle_()
    assert set(bundle) == {"image/png", "text/plain"}
    assert pixels(bundle["image/png"]).std() > 0


def test_a_refusal_is_drawn_not_raised():
    alpha = Control("alpha", [10.0, 1000.0], 1000.0)
    refused = Explorer(notebook.learning, alpha=alpha).png()
    drawn = Explorer(notebook.learning, alpha=Control("alpha", [10.0], 10.0)).png()
    assert pixels(refused).shape[0] < pixels(drawn).shape[0]


def test_wrong_controls_are_refused():
    with pytest.raises(ParameterError, match=r"Control\.start"):
        Control("gamma", [0.1, 0.2], 0.3)
    for wrong in ({"gamma": 3.0}, {"delta": 0.1}):
        with pytest.raises(ParameterError, match="must be a control"):
            explorer().choose(**wrong)


def test_rates_reach_the_fixed_point_that_is_drawn():
    # Twenty time constants: nothing is left of the transients.
    figure = notebook.rates(alpha=3.0, tau=10.0, presentation=200.0)
    for axis in figure.axes:
        dashed = [c.get_segments()[0][0, 1] for c in axis.collections]
        for curve, first in zip(axis.lines, dashed, strict=True):
            settled = curve.get_ydata()[np.searchsorted(curve.get_xdata(), 199.0)]
            assert settled == pytest.approx(first, abs=1e-4)


def test_learning_draws_the_run_and_its_limits():
    figure = notebook.learning(gamma=0.1, presentations=100, rule="mean_subtracted")
    curve, minimum, own = lines(figure)
    w_init, _ = notebook.pool(3, 100)
    start = np.log10(measures.inverse_snr_w(w_init))
    assert curve[0] == pytest.approx(start)
    assert curve[-1] < curve[0]
    end = np.log10(measures.inverse_snr_w(theory.fixed_point(w_init, 0.1, "mean_subtracted")))
    assert minimum[0] == own[0] == pytest.approx(end)
    before, after = (a.images[0].get_array().filled(np.nan) for a in figure.axes[1:])
    assert np.nanstd(after) < np.nanstd(before)
    assert before[:3, :3].ravel() == pytest.approx(w_init[0])
    assert before[4:, 4:7].ravel() == pytest.approx(w_init[6])


def test_inhibition_draws_both_rules():
    figure = notebook.inhibition(gamma=0.01, presentation=1e5)
    circuit, averaged, gated, gated_averaged = lines(figure, 1)
    assert gated == pytest.approx(1)
    # In long presentations transients do not count.
    assert averaged == pytest.approx(circuit, rel=2e-2)
    assert gated_averaged == pytest.approx(gated, rel=3e-2)
    alphas = figure.axes[1].lines[0].get_xdata()
    assert circuit == pytest.approx(0.01 * (1 + alphas) / (1 + 0.01 * (1 + alphas)))
