"""The study of imperfect circuits: its curves are runs of them, and its figure shows all."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import relative

import circuitsim as cs
from circuitsim import linear, measures
from circuitsim.inputs import StackedInputs
from circuitsim.studies.robustness import AXES, RULES, Curve, Robustness

SMALL = Robustness(
    k=(2, 3), b=(0.5, 5.0), private=(0.1, 0.3), sigma=(0.3,), spread=(0.1,), connect=(0.6, 1.0),
    interneurons=(1, 2), tau_inh=(30.0, 60.0), delay=(0.0, 2.0), neurons=6, trials=2,
    presentations=3, codegen="numpy",
)  # fmt: skip


def problem(k):
    study = SMALL.study
    cells = [cell for cell in study.cells if cell.k == k]
    weights = np.stack([study.initial_weights(cell) for cell in cells])
    return weights, StackedInputs([study.source(cell) for cell in cells], range(2))


@pytest.mark.slow
@pytest.mark.parametrize(
    "group, k, circuit",
    [
        ("b", 2, {"transfer": "relu", "b": 5.0}),
        ("connect", 3, {"interneurons": 4, "connect_ei": 1.0, "connect_ie": 1.0}),
        ("interneurons", 3, {"interneurons": 2, "connect_ei": 0.5, "connect_ie": 0.5}),
        ("spread_tau", 3, {"spread_tau": 0.1}),
        ("private", 3, {}),
    ],
)
def test_curves_are_runs_of_these_circuits(group, k, circuit):
    w_init, inputs = problem(k)
    seeds, gated = [1000, 2000], "inhibition_gated"
    if group == "private":
        inputs = cs.inputs.Noisy(inputs, 0.3, seeds)
    made, plasticity = cs.Circuit(**circuit), cs.Plasticity(gated)
    run = cs.simulate(
        w_init, inputs, made, plasticity, engine="brian2", codegen="numpy", seed=seeds
    )
    found = {
        name: values[-1] for name, values in SMALL.run_one(Curve(group, gated, k), None).items()
    }
    inverse = run.inverse_snr_w.to_numpy()
    assert relative(found["best_inverse_snr_w"], inverse.min(axis=1)) < 1e-9
    assert relative(found["last_inverse_snr_w"], inverse[:, -1]) < 1e-9
    kept = measures.mean_weight_kept(run.weights.to_numpy(), w_init)
    assert relative(found["mean_weight_kept"], kept) < 1e-9
    if "transfer" not in circuit:
        times = {"presentation": cs.parameters.PRESENTATION, "dt": cs.parameters.DT}
        private = 0.3 if group == "private" else 0.0
        ends = linear.end_point(w_init, made, plasticity, None, private, seed=seeds, **times)
        end = measures.mean_weight_kept(ends, w_init)
        assert relative(found["end_mean_weight_kept"], end) < 1e-9


def test_what_grows_without_bound_is_left_out():
    w_init, inputs = problem(3)
    exciting = cs.Circuit(connect_ie=-np.ones((6, 1)))
    found = SMALL._measured("circuit", exciting, 0.0, w_init, inputs, lambda _: None)
    assert all(np.isnan(values).all() for values in found.values())


def test_table_and_figure_hold_all_curves():
    rng = np.random.default_rng(0)
    drawn = {curve: {n: rng.uniform(0.1, 1, s) for n, (s, _) in SMALL.layout(curve).items()}
             for curve in SMALL.every_task}  # fmt: skip
    import xarray as xr

    groups = {}
    for name, arrays, _ in SMALL.collect(drawn.__getitem__):
        of = SMALL.groups()[name]
        groups[name] = xr.Dataset(
            {n: (of.variables[n], a) for n, a in arrays.items()},
            {n: list(values) for n, values in of.axes.items()},
        )
        for rule in RULES:
            shown = groups[name].sel(rule=rule)
            shown = shown.sel(k=2) if name == "b" else shown
            curve = drawn[Curve(name, rule, 2 if name == "b" else 3)]
            np.testing.assert_array_equal(shown.mean_weight_kept, curve["mean_weight_kept"])
    table = SMALL.table(groups)
    assert max(map(len, table.splitlines())) < 100
    assert all(SMALL.units[name][0] in table for name in AXES)
    figure = SMALL.draw(groups)
    labels = {axis.get_xlabel() for axis in figure.axes}
    assert "connection probability" in labels
    assert "# What sharing tolerates" in SMALL.caption(groups, "command")


def test_what_the_study_refuses():
    with pytest.raises(cs.ParameterError, match="oscillate more and more"):
        Robustness(delay=(20.0,))
    with pytest.raises(cs.ParameterError, match="a whole number of steps"):
        Robustness(delay=(0.5,))
    with pytest.raises(cs.ParameterError, match="Robustness.spread: must be > 0 and < 1"):
        Robustness(spread=(1.5,))
