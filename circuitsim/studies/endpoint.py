"""Companion of Figure 4: where the weights end, and how much of their mean is kept.

The file has three groups. In each, ``inverse_snr_w`` and ``mean_weight_kept`` (the length of the
mean weights as a share of the initial one), alone or with a prefix: ``settled_`` at the end point
of a rule whose rates are always settled, ``averaged_`` at the one that includes the transients of
each presentation (`theory.fixed_point`).

- ``published`` (rule, alpha, trial[, presentation]): runs at the published learning rate
- ``long`` (rule, alpha, trial): the last quarter of long runs at a small constant learning rate
- ``theory`` (rule, alpha): end points for many alphas, the mean over the initial weights of trials
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circuitsim import measures, theory
from circuitsim.checks import fields
from circuitsim.checks.fields import declare, same
from circuitsim.checks.values import ms
from circuitsim.dynamics import Dynamics
from circuitsim.inputs import StackedInputs
from circuitsim.public import own
from circuitsim.running.campaign import NUMBER, Arrays, Group, Groups, Layout, Progress
from circuitsim.schedules import ConstantRate
from circuitsim.studies.companions import Companion, simulated
from circuitsim.studies.figures import evenly_spaced, listed, with_spread
from circuitsim.studies.sweep import UNITS, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__dir__ = own(__name__, "RULES", "LONG_RATE", "STORED")

RULES = ("circuit", "inhibition_gated")
LONG_RATE = 3e-6  # learning rate of the long runs, of a step of 1 ms
STORED = 101  # points of a curve that are kept

_LIMITS = ("settled", "averaged")
_MEASURES = ("inverse_snr_w", "mean_weight_kept")
_LIMIT_VARIABLES = tuple(f"{limit}_{measure}" for limit, measure in product(_LIMITS, _MEASURES))
_VARIABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "published": dict.fromkeys(_MEASURES, ("rule", "alpha", "trial", "presentation"))
    | dict.fromkeys(_LIMIT_VARIABLES, ("rule", "alpha", "trial")),
    "long": dict.fromkeys(_MEASURES, ("rule", "alpha", "trial")),
    "theory": dict.fromkeys(_LIMIT_VARIABLES, ("rule", "alpha")),
}
_KEPT = "length of the mean weights, as a share of the initial one"
_CAPTION = """
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

Array = NDArray[np.float64]


class Followed(NamedTuple):
    """Circuits of all trials that are followed through a run."""

    rule: str
    alpha: float
    long: bool


@dataclass(frozen=True)
class Endpoint(Companion[Followed]):
    """Circuits of both rules through many presentations, and their ends compared with theory.

    Parameters
    ----------
    k, gamma, neurons, seed, codegen
        As in `Study`, one value each.
    alpha : sequence of float
        Strengths of inhibition.
    trials : int
        Circuits for each of them.
    presentations : int
        At the published learning rate.
    long : int
        At a small constant learning rate.

    Raises
    ------
    ParameterError
        If a value is out of its range.
    """

    k: int = same(Study, "k", default=3, text="kernel size; a circuit has K x K inputs")
    gamma: float = same(Study, "gamma", default=0.01)
    alpha: tuple[float, ...] = same(
        Study,
        "alpha",
        default=(3.0, 10.0, 30.0),
        text="strengths of inhibition in endpoint, dimensionless (rates has the published 10)",
    )
    neurons: int = same(Study, "neurons", default=100)
    trials: int = same(
        Study,
        "trials",
        text="circuits for each alpha in endpoint, with weights and inputs of their own",
    )
    presentations: int = same(Study, "presentations", default=10_000)
    long: int = declare(
        60_000,
        "input patterns in the runs of endpoint at a small constant learning rate",
        "P",
        minimum=2,
    )
    seed: int = same(Study, "seed", text="fixes all weights and inputs, as in a sweep")
    codegen: str = same(Study, "codegen", text="code of the propagator: auto, numba or numpy")

    kind = "endpoint"
    things = "runs"
    grid = ("alpha",)
    units = UNITS | {
        "rule": ("plasticity rule", "1"),
        "mean_weight_kept": (_KEPT, "1"),
        "settled_inverse_snr_w": (
            "inverse SNR of the weights at the end point, settled rates",
            "1",
        ),
        "averaged_inverse_snr_w": ("inverse SNR of the weights at the averaged end point", "1"),
        "settled_mean_weight_kept": (f"{_KEPT}, at the end point with settled rates", "1"),
        "averaged_mean_weight_kept": (f"{_KEPT}, at the averaged end point", "1"),
    }

    def __post_init__(self) -> None:
        fields.check(self)
        _ = self.study

    @cached_property
    def study(self) -> Study:
        """The study whose circuits are followed, with one rule after the other."""
        return Study(
            k=(self.k,), gamma=(self.gamma,), alpha=self.alpha, neurons=(self.neurons,),
            trials=self.trials, presentations=self.presentations, seed=self.seed,
            engine="propagator", codegen=self.codegen,
        )  # fmt: skip

    @property
    def studies(self) -> dict[str, Study]:
        """The same one for each group."""
        return dict.fromkeys(_VARIABLES, self.study)

    @classmethod
    def from_studies(
        cls, studies: Mapping[str, Study], of_group: Callable[[str], Mapping[str, Any]]
    ) -> Endpoint:
        """Return the figure that a study makes."""
        of, lengths = studies["published"], [of_group(name).get("long") for name in studies]
        long = lengths[0]
        if not all(isinstance(length, int | np.integer) for length in lengths) or long is None:
            raise ValueError("it does not say how long its long runs are")
        return cls(
            of.k[0], of.gamma[0], of.alpha, of.neurons[0], of.trials, of.presentations, int(long),
            of.seed, of.codegen,
        )  # fmt: skip

    @property
    def every_task(self) -> list[Followed]:
        """The long ones first: none is waited for."""
        return [
            Followed(rule, alpha, long)
            for long, rule, alpha in product((True, False), RULES, self.alpha)
        ]

    def cost(self, task: Followed) -> float:
        """Presentations of circuits."""
        return float(self.trials * (self.long if task.long else self.presentations))

    def _study(self, task: Followed) -> Study:
        """The study of a task's circuits."""
        length = self.long if task.long else self.presentations
        return replace(self.study, rule=task.rule, alpha=(task.alpha,), presentations=length)

    def determining(self, task: Followed) -> dict[str, Any]:
        """All that its numbers depend on."""
        return {"study": self._study(task).to_json(), "rate": LONG_RATE if task.long else None}

    def layout(self, task: Followed) -> Layout:
        """Measures of each trial, at points at equal distances."""
        points = len(evenly_spaced(self._study(task).presentations, STORED))
        return dict.fromkeys(_MEASURES, ((self.trials, points), NUMBER))

    def run_one(self, task: Followed, progress: Progress | None) -> Arrays:
        """Measure circuits along a run, shape (trial, presentation)."""
        study = self._study(task)
        plasticity = study.plasticity(self.gamma)
        if task.long:
            plasticity = plasticity.replace(learning_rate=ConstantRate(LONG_RATE))
        cells = study.cells
        w_init = np.stack([study.initial_weights(cell) for cell in cells])
        source = StackedInputs(
            [study.source(cell) for cell in cells], [cell.trial for cell in cells]
        )
        at = evenly_spaced(study.presentations, STORED).tolist()
        found = [_measured(w_init, w_init)]
        run: xr.Dataset | None = None
        for first, last in pairwise(at):
            run = simulated(study, plasticity, source.block(first, last), run, w_init)
            found.append(_measured(run["weights"].to_numpy(), w_init))
            if progress is not None:
                progress(last / at[-1])
        return {name: np.stack([values[name] for values in found], axis=-1) for name in _MEASURES}

    def groups(self) -> dict[str, Group]:
        """Runs at both rates, and theory."""
        axes: dict[str, Any] = {"rule": RULES, "alpha": self.alpha, "trial": range(self.trials)}
        of_group = {
            "published": axes | {"presentation": evenly_spaced(self.presentations, STORED)},
            "long": axes,
            "theory": {"rule": RULES, "alpha": _theory_alphas(self.study)},
        }
        attributes = {"study": self.study, "long": self.long}
        return {
            name: Group(of_group[name], variables, attributes, complete=True)
            for name, variables in _VARIABLES.items()
        }

    def collect(self, read: Callable[[Followed], Arrays]) -> Iterator[tuple[str, Arrays, str]]:
        """Put runs together, and compute theory."""
        study = self.study
        w_init = np.stack([study.initial_weights(cell) for cell in study.cells[: self.trials]])

        def followed(name: str, long: bool) -> Array:
            return np.stack(
                [
                    np.stack([read(Followed(rule, alpha, long))[name] for alpha in self.alpha])
                    for rule in RULES
                ]
            )

        published = {name: followed(name, False) for name in _MEASURES}
        published |= _limits(study, w_init, np.array(self.alpha))
        yield "published", published, "Runs at the published learning rate"
        # Their last quarter. Means of logarithms, as in the figure.
        settled = slice(3 * len(evenly_spaced(self.long, STORED)) // 4, None)
        ends = {
            "inverse_snr_w": _geometric_mean(followed("inverse_snr_w", True)[..., settled]),
            "mean_weight_kept": followed("mean_weight_kept", True)[..., settled].mean(axis=-1),
        }
        title = f"Ends of runs at a constant learning rate, {self.long} presentations"
        yield "long", ends, title
        curve = {
            name: np.mean(values, axis=-1) if name.endswith("kept") else _geometric_mean(values)
            for name, values in _limits(study, w_init, _theory_alphas(study)).items()
        }
        yield "theory", curve, "End points, mean over trials"

    def table(self, groups: Groups) -> str:
        """Compare runs with both end points."""
        published, long = groups["published"], groups["long"]
        study = self.study
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
                    f"{with_spread(curve[:, -1], digits):>15}{settled:>8.{digits}f}"
                    f"{averaged:>9.{digits}f}{with_spread(_logs(ends[name]), digits):>15}"
                )
            lines.append("")
        lines += [
            f"lowest and last of {study.presentations:,} presentations; "
            "long runs: the last quarter of",
            f"{self.long:,} at a constant rate of {LONG_RATE:g} a step",
        ]
        return "\n".join(lines)

    def caption(self, groups: Groups, command_line: str) -> str:
        """Describe the figure and its settings, as Markdown."""
        values = {
            "k": self.k, "gamma": self.gamma, "neurons": self.neurons, "stored": STORED,
            "alpha": listed(self.alpha), "long": self.long, "rate": LONG_RATE,
        }  # fmt: skip
        return self.captioned("Where the weights end", _CAPTION, values, groups, command_line)

    def draw(self, groups: Groups) -> Figure:
        """Draw runs and end points."""
        from circuitsim import plots

        return plots.endpoint(groups)


def _theory_alphas(study: Study) -> Array:
    """Alphas for a smooth curve, somewhat beyond those that are simulated."""
    low, high = min(study.alpha), max(study.alpha)
    unstable = Dynamics().highest_alpha(study.dt, study.tau, study.tau)
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


def _logs(values: xr.DataArray) -> Array:
    numbers = values.to_numpy()
    return np.log10(numbers) if str(values.name).endswith("snr_w") else numbers


def _geometric_mean(values: Array) -> Array:
    return 10 ** np.log10(values).mean(axis=-1)
