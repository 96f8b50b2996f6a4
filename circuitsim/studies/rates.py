"""Companion of Figure 4: the rates of a circuit, early and late in a run.

The file has one group, ``rates``, with the rates of some neurons in two stretches of a run:

======================  =================================  ========================================
variable                dimensions                         meaning
======================  =================================  ========================================
``rate``                (stretch, time, neuron)            r_i after each step
``rate_inh``            (stretch, time)                    r_inh after each step
``settled_rate``        (stretch, presentation, edge,      the fast fixed point with the weights at
                        neuron)                            both edges of each presentation
``settled_rate_inh``    (stretch, presentation, edge)      the same for the interneuron
======================  =================================  ========================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from circuitsim import theory
from circuitsim.checks import fields
from circuitsim.checks.fields import same
from circuitsim.engines.simulation import LONG_NAMES
from circuitsim.public import own
from circuitsim.running.campaign import NUMBER, Arrays, Group, Groups, Layout, Progress
from circuitsim.studies.companions import Companion, simulated
from circuitsim.studies.sweep import UNITS, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__dir__ = own(__name__, "PRESENTATIONS_SHOWN", "NEURONS_SHOWN")

PRESENTATIONS_SHOWN = 4  # in each stretch
NEURONS_SHOWN = 6

_VARIABLES: dict[str, tuple[str, ...]] = {
    "rate": ("stretch", "time", "neuron"),
    "rate_inh": ("stretch", "time"),
    "settled_rate": ("stretch", "presentation", "edge", "neuron"),
    "settled_rate_inh": ("stretch", "presentation", "edge"),
}
_CAPTION = """
Rates of {shown_neurons} of {neurons} neurons (A) and of the inhibitory interneuron (B) in the first
{shown} presentations of a run and in the last {shown} of {presentations:,}; k = {k},
gamma = {gamma:g}, alpha = {alpha:g}. Dashed: the fast fixed point, to which rates would settle if
weights did not change; a straight line between its values with the weights at the start and at the
end of each presentation. The mean rings, deviations from it relax with tau. Once the weights are
alike, so are the rates.
"""


@dataclass(frozen=True)
class Rates(Companion[str]):
    """The rates of one circuit in the first and in the last presentations of a run.

    Parameters
    ----------
    k, gamma, neurons, presentations, seed, codegen
        As in `Study`, one value each; inhibition has the published strength.

    Raises
    ------
    ParameterError
        If a value is out of its range.
    """

    k: int = same(Study, "k", default=3, text="kernel size; a circuit has K x K inputs")
    gamma: float = same(Study, "gamma", default=0.01)
    neurons: int = same(Study, "neurons", default=100)
    presentations: int = same(Study, "presentations", minimum=2 * PRESENTATIONS_SHOWN)
    seed: int = same(Study, "seed", text="fixes all weights and inputs, as in a sweep")
    codegen: str = same(Study, "codegen", text="code of the propagator: auto, numba or numpy")

    kind = "rates"
    units = UNITS | {
        "stretch": ("presentations before the first one shown", "1"),
        "time": ("time since the start of the stretch", "ms"),
        "edge": ("start (0) or end (1) of a presentation, whose weights are taken", "1"),
        "presentation": ("number of the presentation in its stretch", "1"),
        "rate": ("rate of the excitatory neurons after each step", "1"),
        "rate_inh": (LONG_NAMES["rate_inh_trace"], "1"),
        "settled_rate": ("rate of the excitatory neurons at the fast fixed point", "1"),
        "settled_rate_inh": ("rate of the inhibitory interneuron at the fast fixed point", "1"),
    }

    def __post_init__(self) -> None:
        fields.check(self)
        _ = self.study

    @cached_property
    def study(self) -> Study:
        """The study of one circuit."""
        return Study(
            k=(self.k,), gamma=(self.gamma,), neurons=(self.neurons,), trials=1, seed=self.seed,
            presentations=self.presentations, engine="propagator", codegen=self.codegen,
        )  # fmt: skip

    @property
    def studies(self) -> dict[str, Study]:
        """That of its one group."""
        return {"rates": self.study}

    @classmethod
    def from_studies(
        cls, studies: Mapping[str, Study], of_group: Callable[[str], Mapping[str, Any]]
    ) -> Rates:
        """Return the figure that a study makes."""
        of = studies["rates"]
        return cls(of.k[0], of.gamma[0], of.neurons[0], of.presentations, of.seed, of.codegen)

    @property
    def every_task(self) -> list[str]:
        """One run."""
        return ["rates of one run"]

    def determining(self, task: str) -> dict[str, Any]:
        """All that its numbers depend on."""
        return {"study": self.study.to_json()}

    def layout(self, task: str) -> Layout:
        """Arrays as in the file."""
        shapes = self.groups()["rates"].shapes
        return {name: (shapes[name], NUMBER) for name in _VARIABLES}

    @property
    def axes(self) -> dict[str, Any]:
        """Values along the dimensions."""
        steps = round(self.study.presentation / self.study.dt) * PRESENTATIONS_SHOWN
        return {
            "stretch": (0, self.presentations - PRESENTATIONS_SHOWN),
            "time": self.study.dt * np.arange(1, steps + 1),
            "presentation": range(PRESENTATIONS_SHOWN),
            "edge": range(2),
            "neuron": range(min(NEURONS_SHOWN, self.neurons)),
        }

    def run_one(self, task: str, progress: Progress | None) -> Arrays:
        """Run the circuit, and record its rates in both stretches."""
        study = self.study
        (cell,) = study.cells
        source, w_init = study.source(cell), study.initial_weights(cell)
        plasticity = study.plasticity(cell.gamma)
        axes = self.axes
        run: xr.Dataset | None = None
        stretches: list[list[Arrays]] = []
        for first in axes["stretch"]:
            if run is not None:
                between = source.block(int(run["presentations"]), first)
                run = simulated(study, plasticity, between, run, w_init, progress)
            stretches.append([])
            for number in range(first, first + PRESENTATIONS_SHOWN):
                pattern = source.block(number, number + 1)
                before = w_init if run is None else run["weights"].to_numpy()
                run = simulated(study, plasticity, pattern, run, w_init, record_rates=True)
                drive = np.stack([before, run["weights"].to_numpy()]) @ pattern[0]
                settled = theory.fast_fixed_point(drive, cell.alpha, study.b)
                stretches[-1].append(
                    {
                        "rate": run["rate_trace"].to_numpy()[:, : len(axes["neuron"])],
                        "rate_inh": run["rate_inh_trace"].to_numpy(),
                        "settled_rate": settled.rate[np.newaxis][..., : len(axes["neuron"])],
                        "settled_rate_inh": settled.rate_inh[np.newaxis],
                    }
                )
        return {
            name: np.stack([np.concatenate([p[name] for p in shown]) for shown in stretches])
            for name in _VARIABLES
        }

    def groups(self) -> dict[str, Group]:
        """One."""
        return {"rates": Group(self.axes, _VARIABLES, {"study": self.study}, complete=True)}

    def collect(self, read: Callable[[str], Arrays]) -> Iterator[tuple[str, Arrays, str]]:
        """Give what the run gave."""
        (task,) = self.every_task
        yield "rates", read(task), "Rates of some neurons and of the interneuron"

    def table(self, groups: Groups) -> str:
        """Say how near rates are to the fast fixed point."""
        dataset = groups["rates"]
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
                apart = rate - settled[f"settled_{name}"].sel(stretch=first).to_numpy()
                distances.append(np.sqrt(np.mean(apart**2)))
            spread = ends["rate"].sel(stretch=first).std("neuron").mean()
            shown = f"{first + 1}-{first + PRESENTATIONS_SHOWN}"
            lines.append(
                f"{shown:>16} {distances[0]:>8.3f} {distances[1]:>8.3f} {float(spread):>14.3f}"
            )
        return "\n".join(lines)

    def caption(self, groups: Groups, command_line: str) -> str:
        """Describe the figure and its settings, as Markdown."""
        values = {
            "k": self.k, "gamma": self.gamma, "neurons": self.neurons, "shown": PRESENTATIONS_SHOWN,
            "alpha": self.study.alpha[0], "presentations": self.presentations,
            "shown_neurons": min(NEURONS_SHOWN, self.neurons),
        }  # fmt: skip
        return self.captioned("Rates of the circuit", _CAPTION, values, groups, command_line)

    def draw(self, groups: Groups) -> Figure:
        """Draw the rates."""
        from circuitsim import plots

        return plots.rates(groups)
