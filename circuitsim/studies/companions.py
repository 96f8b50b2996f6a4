"""Companions of Figure 4: the rates of a circuit, and where its weights end.

``rates`` has one Dataset, with the rates of some neurons in two stretches of a run:

======================  =================================  ========================================
variable                dimensions                         meaning
======================  =================================  ========================================
``rate``                (stretch, time, neuron)            r_i after each step
``rate_inh``            (stretch, time)                    r_inh after each step
``settled_rate``        (stretch, presentation, edge,      the fast fixed point with the weights at
                        neuron)                            both edges of each presentation
``settled_rate_inh``    (stretch, presentation, edge)      the same for the interneuron
======================  =================================  ========================================

``endpoint`` has three. In each, ``inverse_snr_w`` and ``mean_weight_kept`` (the length of the mean
weights as a share of the initial one), alone or with a prefix: ``settled_`` at the end point of a
rule whose rates are always settled, ``averaged_`` at the one that includes the transients of each
presentation (`theory.averaged_end_point`).

- ``published`` (rule, alpha, trial[, presentation]): runs at the published learning rate
- ``long`` (rule, alpha, trial): the last quarter of long runs at a small constant learning rate
- ``theory`` (rule, alpha): end points for many alphas, the mean over the initial weights of trials
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from circuitsim import measures, theory
from circuitsim.engines.batch import Progress
from circuitsim.engines.simulation import LONG_NAMES, simulate
from circuitsim.inputs import StackedInputs
from circuitsim.parameters import Plasticity
from circuitsim.schedules import ConstantRate
from circuitsim.studies import figures, results
from circuitsim.studies.local import run_all
from circuitsim.studies.study import Study
from circuitsim.validation import ParameterError, integer
from circuitsim.values import ms

FIGURES = {"rates": ("rates",), "endpoint": ("published", "long", "theory")}
RULES = ("circuit", "inhibition_gated")
LONG_RATE = 3e-6  # learning rate of the long runs, of a step of 1 ms
PRESENTATIONS_SHOWN = 4  # in each stretch of rates
NEURONS_SHOWN = 6
STORED = 101  # points of a curve that are kept

_LIMITS = ("settled", "averaged")
_MEASURES = ("inverse_snr_w", "mean_weight_kept")
_LIMIT_VARIABLES = tuple(f"{limit}_{measure}" for limit, measure in product(_LIMITS, _MEASURES))
_VARIABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "rates": {
        "rate": ("stretch", "time", "neuron"),
        "rate_inh": ("stretch", "time"),
        "settled_rate": ("stretch", "presentation", "edge", "neuron"),
        "settled_rate_inh": ("stretch", "presentation", "edge"),
    },
    "published": dict.fromkeys(_MEASURES, ("rule", "alpha", "trial", "presentation"))
    | dict.fromkeys(_LIMIT_VARIABLES, ("rule", "alpha", "trial")),
    "long": dict.fromkeys(_MEASURES, ("rule", "alpha", "trial")),
    "theory": dict.fromkeys(_LIMIT_VARIABLES, ("rule", "alpha")),
}
_KEPT = "length of the mean weights, as a share of the initial one"
_NAMES = results.ATTRIBUTES | {
    "stretch": ("presentations before the first one shown", "1"),
    "time": ("time since the start of the stretch", "ms"),
    "edge": ("start (0) or end (1) of a presentation, whose weights are taken", "1"),
    "rule": ("plasticity rule", "1"),
    "rate": ("rate of the excitatory neurons after each step", "1"),
    "rate_inh": (LONG_NAMES["rate_inh_trace"], "1"),
    "settled_rate": ("rate of the excitatory neurons at the fast fixed point", "1"),
    "settled_rate_inh": ("rate of the inhibitory interneuron at the fast fixed point", "1"),
    "mean_weight_kept": (_KEPT, "1"),
    "settled_inverse_snr_w": ("inverse SNR of the weights at the end point, settled rates", "1"),
    "averaged_inverse_snr_w": ("inverse SNR of the weights at the averaged end point", "1"),
    "settled_mean_weight_kept": (f"{_KEPT}, at the end point with settled rates", "1"),
    "averaged_mean_weight_kept": (f"{_KEPT}, at the averaged end point", "1"),
}
_RATES_NAMES = _NAMES | {"presentation": ("number of the presentation in its stretch", "1")}

Array = NDArray[np.float64]
Advanced = Callable[[float], None]


def study(
    figure: str,
    alpha: Sequence[float] = (3.0, 10.0, 30.0),
    trials: int = 10,
    presentations: int | None = None,
    **options: Any,
) -> Study:
    """Return the study that makes a figure: that of rates is one circuit with the published alpha.

    Parameters
    ----------
    figure : str
        ``"rates"`` or ``"endpoint"``.
    alpha : sequence of float
        Strengths of inhibition in ``"endpoint"``.
    trials : int
        Circuits for each of them.
    presentations : int, optional
        2000 in ``"rates"`` and 10000 in ``"endpoint"`` by default.
    **options
        Others, as for `Study`.

    Raises
    ------
    ParameterError
        If a value is out of its range.
    """
    if figure == "rates":
        length = 2_000 if presentations is None else presentations
        integer("presentations", length, minimum=2 * PRESENTATIONS_SHOWN)
        return Study(engine="propagator", trials=1, presentations=length, **options)
    length = 10_000 if presentations is None else presentations
    return Study(
        engine="propagator",
        alpha=tuple(alpha),
        trials=trials,
        presentations=length,
        **options,
    )


def rates(study: Study, advanced: Advanced | None = None) -> figures.Groups:
    """Return the rates of a circuit in the first and in the last presentations of a run.

    Parameters
    ----------
    study : Study
        As `study` gives it.
    advanced : callable, optional
        Called now and then with the share of the work that is done.
    """
    (cell,) = study.cells
    source, w_init = study.inputs(cell), study.initial_weights(cell)
    plasticity = study.plasticity(cell.gamma)
    axes = _rates_axes(study)
    run: xr.Dataset | None = None
    stretches: list[list[dict[str, Array]]] = []
    for first in axes["stretch"].tolist():
        if run is not None:
            between = source.block(int(run["presentations"]), first)
            run = _simulate(study, plasticity, between, run, w_init, advanced)
        stretches.append([])
        for number in range(first, first + PRESENTATIONS_SHOWN):
            pattern = source.block(number, number + 1)
            before = w_init if run is None else run["weights"].to_numpy()
            run = _simulate(study, plasticity, pattern, run, w_init, record_rates=True)
            drive = np.stack([before, run["weights"].to_numpy()]) @ pattern[0]
            settled = theory.fast_fixed_point(drive, cell.alpha, study.b)
            stretches[-1].append(
                {
                    "rate": run["rate_trace"].to_numpy()[:, axes["neuron"]],
                    "rate_inh": run["rate_inh_trace"].to_numpy(),
                    "settled_rate": settled.rate[np.newaxis][..., axes["neuron"]],
                    "settled_rate_inh": settled.rate_inh[np.newaxis],
                }
            )
    variables = {
        name: (dims, np.stack([np.concatenate([p[name] for p in shown]) for shown in stretches]))
        for name, dims in _VARIABLES["rates"].items()
    }
    title = "Rates of some neurons and of the interneuron"
    return {"rates": figures.labelled(xr.Dataset(variables, axes), _RATES_NAMES, study, title)}


def _rates_axes(study: Study) -> dict[str, NDArray[Any]]:
    steps = round(study.presentation / study.dt) * PRESENTATIONS_SHOWN
    return {
        "stretch": np.array([0, study.presentations - PRESENTATIONS_SHOWN]),
        "time": study.dt * np.arange(1, steps + 1),
        "presentation": np.arange(PRESENTATIONS_SHOWN),
        "edge": np.arange(2),
        "neuron": np.arange(min(NEURONS_SHOWN, study.neurons[0])),
    }


def endpoint(
    study: Study, long: int, jobs: int = 1, advanced: Advanced | None = None
) -> figures.Groups:
    """Follow circuits of both rules for many presentations, and compare their ends with theory.

    Parameters
    ----------
    study : Study
        As `study` gives it.
    long : int
        Presentations of the long runs; >= 2.
    jobs : int
        Threads or processes to use.
    advanced : callable, optional
        Called now and then with the share of the work that is done.
    """
    plasticity = study.plasticity(study.gamma[0])
    tasks, costs = [], []
    for rule in RULES:
        by_rule = plasticity.replace(rule=rule)
        slow = by_rule.replace(learning_rate=ConstantRate(LONG_RATE))
        for plan, learning in ((study, by_rule), (replace(study, presentations=long), slow)):
            tasks.append((_follow, plan, learning))
            costs.append(plan.presentations)
    with figures.pool([study], jobs) as pool:
        followed = run_all(pool, tasks, costs, advanced)

    w_init = np.stack([study.initial_weights(cell) for cell in study.cells[: study.trials]])
    published = _stacked(followed[::2]) | _limits(study, w_init, np.array(study.alpha))
    slow_runs = _stacked(followed[1::2])
    # Their last quarter. Means of logarithms, as in the figure.
    settled = slice(3 * len(figures.evenly_spaced(long, STORED)) // 4, None)
    ends = {
        "inverse_snr_w": _geometric_mean(slow_runs["inverse_snr_w"][..., settled]),
        "mean_weight_kept": slow_runs["mean_weight_kept"][..., settled].mean(axis=-1),
    }
    curve = {
        name: np.mean(values, axis=-1) if name.endswith("kept") else _geometric_mean(values)
        for name, values in _limits(study, w_init, _theory_alphas(study)).items()
    }
    groups = {
        "published": ("Runs at the published learning rate", published),
        "long": (f"Ends of runs at a constant learning rate, {long} presentations", ends),
        "theory": ("End points, mean over trials", curve),
    }
    made = {}
    for name, (title, numbers) in groups.items():
        variables = {v: (dims, numbers[v]) for v, dims in _VARIABLES[name].items()}
        dataset = xr.Dataset(variables, _endpoint_axes(name, study))
        made[name] = figures.labelled(dataset, _NAMES, study, title)
        made[name].attrs["long"] = long
    return made


def _endpoint_axes(group: str, study: Study) -> dict[str, NDArray[Any]]:
    axes: dict[str, NDArray[Any]] = {
        "rule": np.array(RULES, dtype=object),
        "alpha": np.array(study.alpha),
    }
    if group == "theory":
        axes["alpha"] = _theory_alphas(study)
    else:
        axes["trial"] = np.arange(study.trials)
    if group == "published":
        axes["presentation"] = figures.evenly_spaced(study.presentations, STORED)
    return axes


def _theory_alphas(study: Study) -> Array:
    """Alphas for a smooth curve, somewhat beyond those that are simulated."""
    low, high = min(study.alpha), max(study.alpha)
    unstable = 2 * study.tau / study.dt - 1
    return np.geomspace(max(low, 0.1) / 1.3, min(1.3 * high, (high + unstable) / 2), 81)


def _limits(study: Study, w_init: Array, alphas: Array) -> dict[str, Array]:
    """Measures at both end points, shape (rule, alpha, trial)."""
    found: dict[str, Array] = {
        name: np.empty((len(RULES), len(alphas), len(w_init))) for name in _LIMIT_VARIABLES
    }
    timing = {
        "tau": study.tau * ms,
        "presentation": study.presentation * ms,
        "dt": study.dt * ms,
    }
    covariance, gamma = study.covariance(study.k[0]), study.gamma[0]
    for (i, rule), (j, alpha) in product(enumerate(RULES), enumerate(alphas.tolist())):
        ends = (
            theory.fixed_point(w_init, gamma, rule, alpha, covariance, limit=True),
            theory.fixed_point(w_init, gamma, rule, alpha, covariance, **timing, limit=True),
        )
        for limit, weights in zip(_LIMITS, ends, strict=True):
            for measure, value in _measured(weights, w_init).items():
                found[f"{limit}_{measure}"][i, j] = value
    return found


def _measured(weights: Array, w_init: Array) -> dict[str, Array]:
    return {
        "inverse_snr_w": measures.inverse_snr_w(weights),
        "mean_weight_kept": measures.mean_weight_kept(weights, w_init),
    }


def _follow(study: Study, plasticity: Plasticity, progress: Progress) -> dict[str, Array]:
    """Measure circuits along a run, shape (alpha, trial, presentation)."""
    cells = study.cells
    w_init = np.stack([study.initial_weights(cell) for cell in cells])
    source = StackedInputs(
        [study.inputs(cell) for cell in cells[: study.trials]], [cell.trial for cell in cells]
    )
    at = figures.evenly_spaced(study.presentations, STORED).tolist()
    found = [_measured(w_init, w_init)]
    run: xr.Dataset | None = None
    for first, last in pairwise(at):
        run = _simulate(study, plasticity, source.block(first, last), run, w_init)
        found.append(_measured(run["weights"].to_numpy(), w_init))
        progress(last / at[-1])
    shape = (len(study.alpha), study.trials, len(at))
    return {
        name: np.stack([values[name] for values in found], axis=-1).reshape(shape)
        for name in _MEASURES
    }


def _simulate(
    study: Study,
    plasticity: Plasticity,
    inputs: ArrayLike,
    start: xr.Dataset | None,
    w_init: Array,
    progress: Progress | None = None,
    record_rates: bool = False,
) -> xr.Dataset:
    """Run the circuits of a study, or let them go on."""
    alphas = np.array([cell.alpha for cell in study.cells])
    return simulate(
        w_init if start is None else None,
        inputs,
        study.circuit(study.neurons[0], alphas if w_init.ndim == 3 else alphas[0]),
        plasticity,
        presentation=study.presentation * ms,
        dt=study.dt * ms,
        engine=study.engine,
        codegen=study.codegen,
        record_rates=record_rates,
        record=[len(np.asarray(inputs))],
        start=start,
        progress=progress,
    )


def _stacked(by_rule: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.stack([numbers[name] for numbers in by_rule]) for name in _MEASURES}


def _geometric_mean(values: Array) -> Array:
    return 10 ** np.log10(values).mean(axis=-1)


def load(path: Path) -> figures.Data:
    """Read the data of a companion of Figure 4.

    Parameters
    ----------
    path : Path
        File that ``python -m circuitsim.companions`` wrote.

    Returns
    -------
    Data

    Raises
    ------
    ParameterError
        If it is no such file.
    FileNotFoundError
        If there is no file.
    """
    data = figures.load(path, FIGURES, _contents)
    if set(data.groups) != set(FIGURES[data.figure]):
        raise ParameterError("file", "has not all of its groups", str(path))
    if data.figure == "endpoint":
        lengths = [data.groups[name].attrs.get("long") for name in ("long", "published")]
        if not all(isinstance(long, int | np.integer) for long in lengths):
            raise ParameterError("file", "does not say how long its long runs are", str(path))
    return data


def _contents(group: str, study: Study) -> figures.Contents:
    axes = _rates_axes(study) if group == "rates" else _endpoint_axes(group, study)
    return figures.Contents(_VARIABLES[group], axes)


def table(data: figures.Data) -> str:
    """Summarise a figure, in lines of at most 79 columns."""
    return _rates_table(data) if data.figure == "rates" else _endpoint_table(data)


def _rates_table(data: figures.Data) -> str:
    dataset = data.groups["rates"]
    lines = [
        "distance of rates from the fast fixed point with the weights of the moment,",
        "at the end of presentations: root mean square; and spread of the neurons",
        f"{'presentations':>16} {'r_i':>8} {'r_inh':>8} {'spread of r_i':>14}",
    ]
    every = dataset.sizes["time"] // PRESENTATIONS_SHOWN
    ends = dataset.isel(time=slice(every - 1, None, every)).drop_vars("time")
    settled = dataset.sel(edge=1)
    for first in dataset["stretch"].to_numpy():
        distances = []
        for name in ("rate", "rate_inh"):
            rate = ends[name].sel(stretch=first).to_numpy()
            distances.append(
                np.sqrt(
                    np.mean((rate - settled[f"settled_{name}"].sel(stretch=first).to_numpy()) ** 2)
                )
            )
        spread = ends["rate"].sel(stretch=first).std("neuron").mean()
        shown = f"{first + 1}-{first + PRESENTATIONS_SHOWN}"
        lines.append(
            f"{shown:>16} {distances[0]:>8.3f} {distances[1]:>8.3f} {float(spread):>14.3f}"
        )
    return "\n".join(lines)


def _endpoint_table(data: figures.Data) -> str:
    published, long = data.groups["published"], data.groups["long"]
    study = figures.study_of(published)
    heads = {
        "inverse_snr_w": "log10 of the inverse SNR of the weights",
        "mean_weight_kept": "length of the mean weights, share of the initial one",
    }
    trials = f"{study.trials} trial" + "s" * (study.trials > 1)
    lines = []
    for name, head in heads.items():
        digits = 2 if name == "inverse_snr_w" else 3
        lines += [
            f"{head}; mean of {trials}",
            f"{'':>24}{'published rate':>22}{'end points':>17}{'long':>15}",
            f"{'rule':>16} {'alpha':>6} {'lowest':>7}{'last':>15}{'settled':>8}{'averaged':>9}"
            f"{'runs':>15}",
        ]
        for rule, alpha in product(RULES, study.alpha):
            here = {"rule": rule, "alpha": alpha}
            runs, ends = published.sel(here), long.sel(here)
            curve = _logs(runs[name].transpose("trial", "presentation"))
            settled, averaged = (_logs(runs[f"{limit}_{name}"]).mean() for limit in _LIMITS)
            lines.append(
                f"{rule:>16} {alpha:>6g} {curve.min(axis=1).mean():>7.{digits}f}"
                f"{figures.with_spread(curve[:, -1], digits):>15}{settled:>8.{digits}f}"
                f"{averaged:>9.{digits}f}{figures.with_spread(_logs(ends[name]), digits):>15}"
            )
        lines.append("")
    lines += [
        f"lowest and last of {study.presentations:,} presentations; long runs: the last quarter of",
        f"{int(published.attrs['long']):,} at a constant rate of {LONG_RATE:g} a step",
    ]
    return "\n".join(lines)


def _logs(values: xr.DataArray) -> Array:
    numbers = values.to_numpy()
    return np.log10(numbers) if str(values.name).endswith("snr_w") else numbers


_RATES_CAPTION = """
Rates of {shown_neurons} of {neurons} neurons (A) and of the inhibitory interneuron (B) in the first
{shown} presentations of a run and in the last {shown} of {presentations:,}; k = {k},
gamma = {gamma:g}, alpha = {alpha}. Dashed: the fast fixed point, to which rates would settle if
weights did not change; a straight line between its values with the weights at the start and at the
end of each presentation. The mean rings, deviations from it relax with tau. Once the weights are
alike, so are the rates.
"""
_ENDPOINT_CAPTION = """
Log10 of the inverse signal-to-noise ratio of the weights (A) and the length of the pool's mean
weights as a share of the initial one (B), for the rules `circuit` (Eq. 9) and `inhibition_gated`
(not in the paper); k = {k}, gamma = {gamma:g}, {neurons} neurons; mean and, as a band, one standard
deviation over trials ({trials}). First columns: alpha = {alpha}; {presentations:,} presentations at
the published learning rate. Deviations shrink faster than the mean, so the SNR passes its end point
and drifts back as the mean decays. Dash-dotted: the end point of the rule if rates were settled at
all times; for `inhibition_gated` that is the theoretical minimum (Eq. 5), with all of the mean.
Dashed: the averaged end point, which includes the transients at the start of each presentation and
the step of forward Euler. Last column: both end points over alpha, and the last quarter of runs of
{long:,} presentations at a constant learning rate of {rate:g} a step, with one standard deviation.
Their inverse SNR lies above theory by the fluctuation that a constant rate leaves. Of each curve
{stored} points are kept and shown.
"""
_CAPTIONS = {
    "rates": ("Rates of the circuit", _RATES_CAPTION),
    "endpoint": ("Where the weights end", _ENDPOINT_CAPTION),
}
_PROTOCOL = """
Not a figure of the paper. Protocol B of {citation}: each input shown for {presentation:g} ms,
tau = {tau:g} ms, b = {b:g}, forward Euler with dt = {dt:g} ms, momentum {momentum:g}; initial
weights 1 + N(0, 1), inputs N(0, 1), our own draws. Seed {seed}; the exact propagator, double
precision. Made by `{command_line}`; `--redraw` draws the netCDF-4 file beside it again.
"""


def caption(data: figures.Data) -> str:
    """Describe a figure and its settings, as Markdown."""
    study = figures.study_of(next(iter(data.groups.values())))
    title, text = _CAPTIONS[data.figure]
    values = study.__dict__ | {
        "k": study.k[0],
        "gamma": study.gamma[0],
        "neurons": study.neurons[0],
        "alpha": results.listed(study.alpha),
        "shown": PRESENTATIONS_SHOWN,
        "shown_neurons": min(NEURONS_SHOWN, study.neurons[0]),
        "long": int(data.groups["long"].attrs["long"]) if "long" in data.groups else 0,
        "rate": LONG_RATE,
        "stored": STORED,
        "citation": results.CITATION,
        "command_line": data.command_line,
    }
    paragraphs = [" ".join(part.split()).format(**values) for part in (text, _PROTOCOL)]
    return "\n\n".join([f"# {title}", *paragraphs, "## Check", f"```\n{table(data)}\n```\n"])
