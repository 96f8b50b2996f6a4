"""How much imperfection sharing tolerates: circuits of both rules, with one thing wrong at a time.

The file has a group for each imperfection, with a dimension of its name (and ``k`` in ``b``):

=================  ===================================================================
group              imperfection
=================  ===================================================================
``b``              rectified excitatory rates, over their baseline; for each ``k``
``private``        inputs that are each neuron's own, standard deviation
``sigma``          noise of the rates, standard deviation
``spread_alpha``   inhibition that differs between neurons, relative standard deviation
``spread_tau``     time constants that differ, likewise
``connect``        probability of each connection, with `INTERNEURONS` interneurons
``interneurons``   number of interneurons, each connection with probability `CONNECT`
``tau_inh``        time constant of the interneuron, ms
``delay``          delay of inhibition, ms
=================  ===================================================================

In each ``best_inverse_snr_w``, ``last_inverse_snr_w`` and ``mean_weight_kept`` are over rule, value
and trial, and ``end_inverse_snr_w`` and ``end_mean_weight_kept`` the averaged end point of the
linear circuit with the same imperfection (`circuitsim.linear.end_point`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from circuitsim import linear, measures
from circuitsim.checks import fields
from circuitsim.checks.fields import declare, same
from circuitsim.checks.values import ms
from circuitsim.engines import registry
from circuitsim.engines.simulation import simulate
from circuitsim.files.provenance import CITATION
from circuitsim.inputs import Noisy, StackedInputs
from circuitsim.parameters import Circuit, Plasticity, whole_delay
from circuitsim.public import own
from circuitsim.running.campaign import NUMBER, Arrays, Group, Groups, Layout, Listed, Progress
from circuitsim.studies.figures import listed
from circuitsim.studies.sweep import UNITS, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__dir__ = own(__name__, "AXES", "CONNECT", "INTERNEURONS", "RULES")

RULES = ("circuit", "inhibition_gated")
INTERNEURONS = 4  # where the probability of connections is varied
CONNECT = 0.5  # where the number of interneurons is
POINTS = 100  # at which weights are measured along a run

# Groups of the file: the field that lists their values.
AXES = {
    "b": "b",
    "private": "private",
    "sigma": "sigma",
    "spread_alpha": "spread",
    "spread_tau": "spread",
    "connect": "connect",
    "interneurons": "interneurons",
    "tau_inh": "tau_inh",
    "delay": "delay",
}
_RUN = ("best_inverse_snr_w", "last_inverse_snr_w", "mean_weight_kept")
_END = ("end_inverse_snr_w", "end_mean_weight_kept")
_CAPTION = """
What sharing tolerates: log10 of the inverse signal-to-noise ratio of the weights (upper panels;
lines: after {presentations:,} presentations, triangles: the lowest on the way) and the share of the
mean weights that is kept (lower panels), median of {trials} trials, for the rules `circuit` (Eq. 9)
and `inhibition_gated` (not in the paper). One imperfection at a time: (A) excitatory rates that are
not negative, over their baseline b, for kernels of {k}; dotted where b is the standard deviation
of what neurons have to signal at first, sqrt(K (1 + 1/(1 + alpha)^2)); (B) inputs that are each
neuron's own; (C) noise of the rates; (D) a spread between neurons of inhibition and, open, of time
constants; (E) the probability of connections to and from {interneurons_} interneurons and, open,
the number of interneurons with a probability of {connect_:g}; (F) a slower interneuron and, open,
late inhibition. Dashed: the averaged end point of the linear circuit with the same imperfection,
which runs approach in time. Trials whose rates or weights grow without bound are left out; the
table counts the others.
{neurons} neurons, gamma = {gamma:g}, alpha = {alpha:g}; k = 3 but in A.
"""
_PROTOCOL = """
Not a figure of the paper. Protocol B of {citation}: each input shown for 150 ms, tau = 30 ms,
b = 1, forward Euler with dt = 1 ms, momentum 0.95; initial weights 1 + N(0, 1), inputs N(0, 1), our
own draws. Seed {seed}; engine stepper, double precision. Made by `{command_line}`; `--redraw` draws
the netCDF-4 file beside it again.
"""

Array = NDArray[np.float64]


class Curve(NamedTuple):
    """Circuits of one rule over the values of one imperfection."""

    group: str
    rule: str
    k: int


@dataclass(frozen=True)
class Robustness(Listed[Curve]):
    """How alike weights become, and how much of their mean is kept, in imperfect circuits."""

    k: tuple[int, ...] = same(
        Study, "k", text="kernel sizes of circuits with rectified rates; all others have 3"
    )
    b: tuple[float, ...] = declare(
        (0.5, 1.0, 2.0, 4.0, 8.0, 16.0), "baselines of rectified rates", "B", above=0
    )
    private: tuple[float, ...] = declare(
        (0.01, 0.02, 0.05, 0.1, 0.2, 0.5), "standard deviations of neurons' own inputs", "S",
        above=0,
    )  # fmt: skip
    sigma: tuple[float, ...] = declare(
        (0.1, 0.3, 1.0, 3.0), "standard deviations of the rates' noise", "S", above=0
    )
    spread: tuple[float, ...] = declare(
        (0.01, 0.02, 0.05, 0.1, 0.2), "spreads of alpha and of tau over neurons, relative", "S",
        above=0, below=1,
    )  # fmt: skip
    connect: tuple[float, ...] = declare(
        (0.2, 0.4, 0.6, 0.8, 1.0), "probabilities of connections", "P", above=0, below=1 + 1e-9
    )
    interneurons: tuple[int, ...] = declare(
        (1, 2, 4, 8, 16), "numbers of interneurons", "M", minimum=1
    )
    tau_inh: tuple[float, ...] = declare(
        (10.0, 30.0, 60.0, 90.0, 150.0, 300.0), "time constants of the interneuron, in ms", "MS",
        above=0, unit="ms",
    )  # fmt: skip
    delay: tuple[float, ...] = declare(
        (0.0, 1.0, 2.0, 3.0, 4.0), "delays of inhibition, in ms", "MS", minimum=0, unit="ms"
    )
    gamma: float = same(Study, "gamma", default=0.01)
    alpha: float = same(Study, "alpha", default=10.0)
    neurons: int = same(Study, "neurons", default=100)
    trials: int = same(Study, "trials", default=5)
    presentations: int = same(Study, "presentations", default=10_000)
    seed: int = same(Study, "seed")
    codegen: str = declare("auto", "code of the stepper: auto, numba or numpy", "HOW")

    kind = "robustness"
    things = "curves"
    grid = ("k", *dict.fromkeys(AXES.values()))
    undefined = (*_RUN, *_END)  # of circuits whose rates grow without bound
    units = UNITS | {
        "rule": ("plasticity rule", "1"),
        "b": ("baseline of rectified rates", "1"),
        "private": ("standard deviation of each neuron's own input", "1"),
        "sigma": ("standard deviation of the rates' noise", "1"),
        "spread_alpha": ("spread of inhibition, relative", "1"),
        "spread_tau": ("spread of time constants, relative", "1"),
        "connect": ("probability of connections", "1"),
        "interneurons": ("interneurons", "1"),
        "tau_inh": ("time constant of the interneuron", "ms"),
        "delay": ("delay of inhibition", "ms"),
        "best_inverse_snr_w": ("lowest inverse SNR of the weights", "1"),
        "last_inverse_snr_w": ("inverse SNR of the weights at the end", "1"),
        "mean_weight_kept": ("length of the mean weights, share of the initial one", "1"),
        "end_inverse_snr_w": ("inverse SNR at the averaged end point, linear circuit", "1"),
        "end_mean_weight_kept": ("share of the mean at the averaged end point", "1"),
    }

    def __post_init__(self) -> None:
        fields.check(self)
        _ = self.study
        for delay in self.delay:
            whole_delay(delay, self.study.dt)
        for group in AXES:
            for value in self.values(group):
                self._circuit(group, value).check_step(self.study.dt)

    @cached_property
    def study(self) -> Study:
        """The study whose weights and inputs circuits have."""
        return Study(
            k=tuple(sorted({3, *self.k})), gamma=(self.gamma,), alpha=(self.alpha,),
            neurons=(self.neurons,), trials=self.trials, presentations=self.presentations,
            seed=self.seed, engine="stepper", codegen=self.codegen,
        )  # fmt: skip

    def values(self, group: str) -> tuple[float, ...]:
        """Values of an imperfection."""
        found: tuple[float, ...] = getattr(self, AXES[group])
        return found

    def _circuit(self, group: str, value: float, transfer: str = "relu") -> Circuit:
        more: dict[str, Any] = {"alpha": self.alpha}
        if group == "b":
            more |= {"b": value, "transfer": transfer}
        elif group in ("tau_inh", "delay"):
            more[group] = value * ms
        elif group == "connect":
            more |= {"interneurons": INTERNEURONS, "connect_ei": value, "connect_ie": value}
        elif group == "interneurons":
            more |= {"interneurons": int(value), "connect_ei": CONNECT, "connect_ie": CONNECT}
        elif group != "private":
            more[group] = value
        return Circuit(**more)

    @property
    def every_task(self) -> list[Curve]:
        """Those that take longest first."""
        curves = [
            Curve(group, rule, k)
            for group in AXES
            for rule in RULES
            for k in (self.k if group == "b" else (3,))
        ]
        return sorted(curves, key=self.cost, reverse=True)

    def cost(self, task: Curve) -> float:
        """How long a curve takes, of any unit."""
        each = {"sigma": 12.0, "private": 4.0, "connect": 5.0, "interneurons": 8.0}
        return each.get(task.group, 1.0) * len(self.values(task.group)) * self.presentations

    @property
    def threads(self) -> bool:
        """Whether threads can run it."""
        return self.study.threads

    def prepare(self) -> None:
        """Compile what threads run."""
        self.study.prepare()

    stop = staticmethod(registry.stop)

    def determining(self, task: Curve) -> dict[str, Any]:
        """All that a curve's numbers depend on."""
        return {
            "curve": [*task], "values": self.values(task.group), "gamma": self.gamma,
            "alpha": self.alpha, "neurons": self.neurons, "trials": self.trials,
            "presentations": self.presentations, "seed": self.seed, "codegen": self.codegen,
        }  # fmt: skip

    def layout(self, task: Curve) -> Layout:
        """Measures over values and trials."""
        shape = (len(self.values(task.group)), self.trials)
        return dict.fromkeys((*_RUN, *_END), (shape, NUMBER))

    def run_one(self, task: Curve, progress: Progress | None) -> Arrays:
        """Run the circuits of a curve, all trials of a value together."""
        study = self.study
        cells = [cell for cell in study.cells if cell.k == task.k]
        w_init = np.stack([study.initial_weights(cell) for cell in cells])
        inputs: Any = StackedInputs([study.source(cell) for cell in cells], range(len(cells)))
        plasticity = Plasticity(task.rule, self.gamma)
        times = {"presentation": study.presentation * ms, "dt": study.dt * ms}
        values = self.values(task.group)
        found: Arrays = {name: np.empty((len(values), self.trials)) for name in (*_RUN, *_END)}
        for place, value in enumerate(values):
            circuit = self._circuit(task.group, value)
            private = value if task.group == "private" else 0.0

            def report(share: float, place: int = place) -> None:
                if progress is not None:
                    progress((place + share) / len(values))

            for name, numbers in self._measured(
                task.rule, circuit, private, w_init, inputs, report
            ).items():
                found[name][place] = numbers
            ends = linear.end_point(
                w_init, self._circuit(task.group, value, "linear"), plasticity, None, private,
                seed=self._seeds, **times,
            )  # fmt: skip
            found["end_inverse_snr_w"][place] = measures.inverse_snr_w(ends)
            found["end_mean_weight_kept"][place] = measures.mean_weight_kept(ends, w_init)
        return found

    @property
    def _seeds(self) -> list[int]:
        """Of each trial's connections and noise."""
        return [self.seed + 1000 * (trial + 1) for trial in range(self.trials)]

    def _measured(
        self,
        rule: str,
        circuit: Circuit,
        private: float,
        w_init: Array,
        inputs: StackedInputs,
        progress: Progress,
    ) -> Arrays:
        """Measures of all trials; NaN of those whose rates, or weights, grow without bound."""
        seeds = self._seeds

        def run(trials: slice) -> Arrays:
            shown: Any = inputs.of_circuits(trials)
            done = simulate(
                w_init[trials], Noisy(shown, private, seeds[trials]) if private else shown,
                circuit, Plasticity(rule, self.gamma), engine="stepper", codegen=self.codegen,
                seed=seeds[trials], record=max(self.presentations // POINTS, 1),
                progress=progress,
            )  # fmt: skip
            inverse = done["inverse_snr_w"].to_numpy()
            kept = measures.mean_weight_kept(done["weights"].to_numpy(), w_init[trials])
            return dict(zip(_RUN, (inverse.min(axis=1), inverse[:, -1], kept), strict=True))

        try:
            return run(slice(None))
        except FloatingPointError:
            found = {name: np.full(self.trials, np.nan) for name in _RUN}
        for trial in range(self.trials):
            with suppress(FloatingPointError):
                for name, numbers in run(slice(trial, trial + 1)).items():
                    found[name][trial] = numbers[0]
        return found

    def groups(self) -> dict[str, Group]:
        """One for each imperfection."""
        made = {}
        for group in AXES:
            several = {"k": self.k} if group == "b" else {}
            axes = {
                "rule": RULES,
                **several,
                group: self.values(group),
                "trial": range(self.trials),
            }
            names = dict.fromkeys((*_RUN, *_END), tuple(axes))
            made[group] = Group(axes, names)
        return made

    def collect(self, read: Callable[[Curve], Arrays]) -> Iterator[tuple[str, Arrays, str]]:
        """Put curves together."""
        for group, of in self.groups().items():
            sizes = of.shapes["mean_weight_kept"]
            ks = self.k if group == "b" else (3,)
            found = {
                name: np.stack(
                    [np.stack([read(Curve(group, rule, k))[name] for k in ks]) for rule in RULES]
                ).reshape(sizes)
                for name in (*_RUN, *_END)
            }
            yield group, found, f"Imperfection: {self.units[group][0]}"

    def table(self, groups: Groups) -> str:
        """Medians over trials, a line for each value."""
        head = "".join(f"{rule:^35}" for rule in RULES)
        names = f"{'best':>7}{'last':>7}{'end':>7}{'kept':>7}{'end':>6} "
        lines = [f"{'':<10}{head}".rstrip(), f"{'':<10}" + (names * len(RULES)).rstrip()]
        for group in AXES:
            dataset = groups[group]
            for k in self.k if group == "b" else (None,):
                lines.append(self.units[group][0] + (f", k = {k}" if k else ""))
                shown = dataset if k is None else dataset.sel(k=k)
                for value in dataset[group].to_numpy():
                    line = f"{value:>9g} "
                    for rule in RULES:
                        at = shown.sel({group: value, "rule": rule}).median("trial")
                        for name in ("best_inverse_snr_w", "last_inverse_snr_w", _END[0]):
                            line += f"{np.log10(float(at[name])):>7.2f}"
                        line += f"{float(at['mean_weight_kept']):>7.3f}"
                        line += f"{float(at[_END[1]]):>6.3f} "
                    left = int(shown["mean_weight_kept"].sel({group: value}).count("trial").min())
                    if left < self.trials:
                        line += f" ({left} trials)"
                    lines.append(line.rstrip())
        note = "log10 of the inverse SNR of the weights, and share of the mean kept; median of "
        ends = "end: the averaged end point of the linear circuit, which runs approach"
        return "\n".join([f"{note}{self.trials} trials", ends, "", *lines])

    def caption(self, groups: Groups, command_line: str) -> str:
        """Describe the figure and its settings, as Markdown."""
        values = {
            "k": listed(self.k), "gamma": self.gamma, "alpha": self.alpha, "neurons": self.neurons,
            "trials": self.trials, "presentations": self.presentations, "seed": self.seed,
            "interneurons_": INTERNEURONS, "connect_": CONNECT, "citation": CITATION,
            "command_line": command_line,
        }  # fmt: skip
        parts = [" ".join(text.split()).format(**values) for text in (_CAPTION, _PROTOCOL)]
        table = f"```\n{self.table(groups)}\n```\n"
        return "\n\n".join(["# What sharing tolerates", *parts, "## Check", table])

    def draw(self, groups: Groups) -> Figure:
        """Draw a pair of panels for each kind of imperfection."""
        from circuitsim.plots.robustness import robustness

        return robustness(groups, self.alpha)
