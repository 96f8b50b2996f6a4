"""Figure 4 of the paper: its protocol, its numbers, their file, and what they are checked against.

A panel is an `xarray.Dataset` with

==============================  ================================  ================================
variable                        dimensions                        meaning
==============================  ================================  ================================
``inverse_snr_w``               (k, gamma, trial, presentation)   after some of the presentations
``theory_inverse_snr_w``        (k, gamma, trial)                 at the end point of Eq. 5
``fixed_point_inverse_snr_w``   (k, gamma, trial)                 at the simulated rule's own
``averaged_inverse_snr_w``      (k, gamma, trial)                 at its own, with the transients of
                                                                  each presentation
``best_inverse_snr_w``          (k, gamma, trial)                 lowest after any presentation
``best_presentation``           (k, gamma, trial)                 after which one that was
``final_snr_w``                 (k, gamma, trial)                 Eq. 6 after the last one
==============================  ================================  ================================

and with its `Study` in the attributes. In the file each panel is a group of its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from circuitsim import measures, theory
from circuitsim.checks import fields
from circuitsim.checks.fields import declare, same
from circuitsim.checks.values import ms
from circuitsim.engines import registry
from circuitsim.files.provenance import CITATION
from circuitsim.public import own
from circuitsim.running.campaign import Arrays, Group, Groups, Layout, Progress, chosen_part
from circuitsim.studies.figures import FigureCampaign, evenly_spaced, listed, with_spread
from circuitsim.studies.sweep import LIMITS, UNITS, Cell, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__dir__ = own(__name__, "STORED", "PROTOCOLS")

STORED = 201  # points of a curve that are kept: as many as a figure of this size can show

_DIMENSIONS = ("k", "gamma", "trial")
_VARIABLES = {
    "inverse_snr_w": (*_DIMENSIONS, "presentation"),
    "theory_inverse_snr_w": _DIMENSIONS,
    "fixed_point_inverse_snr_w": _DIMENSIONS,
    "averaged_inverse_snr_w": _DIMENSIONS,
    "best_inverse_snr_w": _DIMENSIONS,
    "best_presentation": _DIMENSIONS,
    "final_snr_w": _DIMENSIONS,
}
_NAMES = UNITS | {
    "averaged_inverse_snr_w": ("inverse SNR of the weights at the averaged end point", "1"),
    "best_inverse_snr_w": ("lowest inverse SNR of the weights after any presentation", "1"),
    "best_presentation": ("presentations until the lowest inverse SNR of the weights", "1"),
    "final_snr_w": ("signal-to-noise ratio of the weights (Eq. 6) at the end", "1"),
}


@dataclass(frozen=True)
class Protocol:
    """What is published of a panel.

    Attributes
    ----------
    rule : str
    presentations : int
    summary : str
        For tables and captions.
    """

    rule: str
    presentations: int
    summary: str


PROTOCOLS = {
    "a": Protocol("mean_subtracted", 2_000, "Eq. 4, one update a presentation"),
    "b": Protocol("circuit", 10_000, "the circuit (Eqs. 7-9), an update at every step of 1 ms"),
}


class PanelCell(NamedTuple):
    """A circuit of a panel."""

    panel: str
    cell: Cell

    def __str__(self) -> str:
        return f"panel {self.panel}, {self.cell}"


@dataclass(frozen=True)
class Figure4(FigureCampaign[PanelCell]):
    """Figure 4 of the paper: how the weights of a pool become alike.

    Every circuit has the weights, inputs and numbers that it has in a sweep with the same seed,
    and is kept as a sweep keeps it.

    Parameters
    ----------
    panel : sequence of str
        ``"a"`` (the ideal rule), ``"b"`` (the circuit).
    k, gamma : sequence
        Kernel sizes, and pull towards the initial weights.
    alpha : float
        Strength of inhibition in panel B.
    neurons, trials, seed, engine, codegen
        As in `Study`.
    presentations : int, optional
        As published by default.

    Raises
    ------
    ParameterError
        If a value is out of its range, or there is no such panel.
    """

    panel: tuple[str, ...] = declare(
        ("a", "b"), "panels to draw: a, b", "PANEL", choices=lambda: tuple(PROTOCOLS)
    )
    k: tuple[int, ...] = same(Study, "k", text="kernel sizes; a circuit has K x K inputs")
    gamma: tuple[float, ...] = same(Study, "gamma")
    alpha: float = same(
        Study, "alpha", default=10.0, text="strength of inhibition in panel b, dimensionless"
    )
    neurons: int = same(Study, "neurons", default=100)
    trials: int = same(
        Study,
        "trials",
        text="circuits for each k and gamma, with weights and inputs of their own",
    )
    presentations: int | None = same(
        Study,
        "presentations",
        default=None,
        text="input patterns shown to each circuit; by default 2000 in panel a, 10000 in panel b",
    )
    seed: int = same(Study, "seed", text="fixes all weights and inputs, as in a sweep")
    engine: str = same(
        Study,
        "engine",
        default="propagator",
        text="propagator (the exact solution of the network's steps) or brian2 (the network "
        "itself, minutes instead of seconds)",
    )
    codegen: str = same(Study, "codegen")

    kind = "figure4"
    units = _NAMES
    infinite = Study.infinite
    undefined = Study.undefined
    scheme = Study.scheme
    stop = staticmethod(Study.stop)
    grid = ("panel", "k", "gamma")

    def __post_init__(self) -> None:
        fields.check(self)
        object.__setattr__(self, "panel", tuple(p for p in PROTOCOLS if p in self.panel))
        engine = next(iter(self.studies.values())).engine  # what "auto" stands for
        object.__setattr__(self, "engine", engine)

    @cached_property
    def studies(self) -> dict[str, Study]:
        """From the panels' names to the studies that make them."""
        made = {}
        for name in self.panel:
            protocol = PROTOCOLS[name]
            study = Study(
                k=self.k, gamma=self.gamma, neurons=(self.neurons,), trials=self.trials,
                rule=protocol.rule, seed=self.seed, engine=self.engine, codegen=self.codegen,
                presentations=self.presentations or protocol.presentations,
            )  # fmt: skip
            made[name] = study if study.per_presentation else replace(study, alpha=(self.alpha,))
        return made

    @property
    def file_name(self) -> str:
        """That of one panel says so."""
        return self.kind + "".join(self.panel) * (len(self.panel) < len(PROTOCOLS))

    @classmethod
    def from_studies(
        cls, studies: Mapping[str, Study], of_group: Callable[[str], Mapping[str, Any]]
    ) -> Figure4:
        """Return the figure that its panels' studies make."""
        first = next(iter(studies.values()))
        published = all(s.presentations == PROTOCOLS[n].presentations for n, s in studies.items())
        return cls(
            tuple(studies), first.k, first.gamma, studies.get("b", first).alpha[0],
            first.neurons[0], first.trials, None if published else first.presentations,
            first.seed, first.engine, first.codegen,
        )  # fmt: skip

    def difference(self, other: Any) -> str:
        """As `Campaign.difference`; how the engine's code is made does not matter."""
        if isinstance(other, Figure4):
            other = replace(other, codegen=self.codegen)
        return super().difference(other)

    # -- its circuits are those of studies ---------------------------------------------------------

    def tasks(
        self, done: Mapping[PanelCell, Arrays] | None = None, parts: Sequence[int] | None = None
    ) -> list[PanelCell]:
        """List all circuits, or those of some parts."""
        if parts is None:
            return [PanelCell(name, cell) for name, s in self.studies.items() for cell in s.cells]
        jobs = self.jobs(self.tasks())
        return [task for number in parts for task in jobs[chosen_part(number, len(jobs))]]

    @property
    def parts(self) -> int:
        """Number of jobs that all circuits make."""
        return sum(study.parts for study in self.studies.values())

    def jobs(self, tasks: Sequence[PanelCell]) -> list[tuple[PanelCell, ...]]:
        """Split circuits into batches for an engine, the longest first: none is waited for."""
        made = [
            tuple(PanelCell(name, cell) for cell in job)
            for name, study in self.studies.items()
            for job in study.jobs([task.cell for task in tasks if task.panel == name])
        ]
        return sorted(made, key=lambda job: -sum(map(self.cost, job)))

    def run(self, tasks: Sequence[PanelCell], progress: Progress | None = None) -> list[Arrays]:
        """Run circuits of one panel in one engine call."""
        return self.studies[tasks[0].panel].run([task.cell for task in tasks], progress)

    def cost(self, task: PanelCell) -> float:
        """How long a circuit takes."""
        return self.studies[task.panel].cost(task.cell)

    @property
    def threads(self) -> bool:
        """Whether threads can run it."""
        return all(study.threads for study in self.studies.values())

    def prepare(self) -> None:
        """Compile what threads run."""
        for study in self.studies.values():
            study.prepare()

    def digest(self, task: PanelCell) -> str:
        """Name of a circuit's result: that in a sweep."""
        return self.studies[task.panel].digest(task.cell)

    def describe(self, task: PanelCell) -> str:
        """Return the circuit as text."""
        return task.cell.to_json()

    def layout(self, task: PanelCell) -> Layout:
        """Arrays of a circuit's result: those in a sweep."""
        return self.studies[task.panel].layout(task.cell)

    def pilot(self, tasks: Sequence[PanelCell], jobs: int) -> tuple[float, float]:
        """Time a little of each panel."""
        timed = [
            study.pilot([task.cell for task in tasks if task.panel == name], jobs)
            for name, study in self.studies.items()
            if any(task.panel == name for task in tasks)
        ]
        return sum(once for once, _ in timed), sum(run for _, run in timed)

    # -- the file ----------------------------------------------------------------------------------

    def groups(self) -> dict[str, Group]:
        """A group for each panel."""
        return {
            name: Group(_axes(study), _VARIABLES, _attributes(study), complete=True)
            for name, study in self.studies.items()
        }

    def collect(self, read: Callable[[PanelCell], Arrays]) -> Iterator[tuple[str, Arrays, str]]:
        """Measure every circuit of a panel."""
        for name, study in self.studies.items():

            def of_panel(cell: Cell, name: str = name) -> Arrays:
                return read(PanelCell(name, cell))

            title = f"Figure 4{name.upper()}: {PROTOCOLS[name].summary}"
            yield name, _panel(study, of_panel), title

    def table(self, groups: Groups) -> str:
        """Compare every curve with theory."""
        return table(self, groups)

    def caption(self, groups: Groups, command_line: str) -> str:
        """Describe the figure, its settings and what differs from the paper, as Markdown."""
        return caption(self, groups, command_line)

    def draw(self, groups: Groups) -> Figure:
        """Draw the panels."""
        from circuitsim import plots

        return plots.figure4(groups)


def _panel(study: Study, read: Callable[[Cell], Arrays]) -> Arrays:
    axes = _axes(study)
    kept = axes["presentation"]
    shape = tuple(len(axes[name]) for name in _DIMENSIONS)
    numbers: Arrays = {
        variable: np.empty((*shape, len(kept)) if "presentation" in dims else shape)
        for variable, dims in _VARIABLES.items()
    }
    numbers["best_presentation"] = np.empty(shape, dtype=np.int64)
    points = product(study.k, study.gamma, range(study.trials))
    for place, (k, gamma, trial) in zip(np.ndindex(shape), points, strict=True):
        cell = Cell(k, study.neurons[0], gamma, study.alpha[0], trial)
        result = read(cell)
        inverse = result["inverse_snr_w"]
        best = int(np.argmin(inverse))
        numbers["inverse_snr_w"][place] = inverse[kept]
        numbers["best_inverse_snr_w"][place] = inverse[best]
        numbers["best_presentation"][place] = best
        numbers["final_snr_w"][place] = result["snr_w"][-1]
        for limit in ("theory_inverse_snr_w", "fixed_point_inverse_snr_w"):
            numbers[limit][place] = result["limits"][LIMITS.index(limit)]
        numbers["averaged_inverse_snr_w"][place] = _averaged(study, cell)
    return numbers


def _attributes(study: Study) -> dict[str, Any]:
    """What a panel's attributes say: a drawing takes rule and alpha from them."""
    drawn = {"rule": study.rule} | ({} if study.per_presentation else {"alpha": study.alpha[0]})
    return {"study": study, **drawn}


def _averaged(study: Study, cell: Cell) -> float:
    """Measure at the end point that includes the transients of each presentation."""
    weights = theory.fixed_point(
        study.initial_weights(cell),
        cell.gamma,
        study.rule,
        cell.alpha,
        study.covariance(cell.k),
        study.tau * ms,
        study.presentation * ms,
        study.dt * ms,
        limit=True,
    )
    return float(measures.inverse_snr_w(weights))


def _axes(study: Study) -> dict[str, Any]:
    return {
        "k": study.k,
        "gamma": study.gamma,
        "trial": range(study.trials),
        "presentation": evenly_spaced(study.presentations, STORED),
    }


def table(figure: Figure4, panels: Groups) -> str:
    """Compare every curve with theory, in lines of at most 79 columns.

    Parameters
    ----------
    figure : Figure4
        What was run.
    panels : dict
        Its numbers.

    Returns
    -------
    str
        For each panel, k and gamma, as log10 of the inverse SNR of the weights: the last value
        with its standard deviation over trials; the end point of Eq. 5 (the theoretical minimum),
        the circuit's own, and that with the transients of each presentation, each with how far
        above it the last value is; and the best value of each trial (the mean) with the
        presentations until then (the median).
    """
    lines = ["log10 of the inverse SNR of the weights, mean over trials"]
    for name, panel in panels.items():
        study = figure.studies[name]
        lines += [
            "",
            f"{name.upper()}  {PROTOCOLS[name].summary}",
            f"   after {study.presentations:,} presentations, {study.trials} trial"
            + "s" * (study.trials > 1)
            + ("" if study.per_presentation else f", alpha = {study.alpha[0]:g}"),
            f"{'k':>2} {'gamma':>5} {'last':>13}"
            + "".join(f" {title:>8} above" for title in _limits_shown(study).values())
            + f" {'best':>5} {'after':>5}",
        ]
        for k, gamma in product(study.k, study.gamma):
            lines.append(_line(panel.sel(k=k, gamma=gamma), study, k, gamma))
    lines += [
        "",
        "Eq. 5: theoretical minimum; own end: the circuit's own end point with settled",
        "rates; averaged: with the transients of each presentation; above: how far the",
        "last value is; best: lowest of all; after: presentations until then, median",
    ]
    return "\n".join(lines)


def _limits_shown(study: Study) -> dict[str, str]:
    """Which end points a panel is compared with, and what they are called there."""
    limits = {"theory": "Eq. 5"}
    if not study.per_presentation:
        limits |= {"fixed_point": "own end", "averaged": "averaged"}
    return limits


def _line(point: xr.Dataset, study: Study, k: int, gamma: float) -> str:
    with np.errstate(divide="ignore"):
        logs = {name: np.log10(point[name].to_numpy()) for name in _VARIABLES}
    last = logs["inverse_snr_w"][:, -1]
    mean = float(last.mean())
    line = f"{k:>2} {gamma:>5g} {with_spread(last, 2):>13}"
    for limit in _limits_shown(study):
        end = float(logs[f"{limit}_inverse_snr_w"].mean())
        line += f" {end:>8.2f} {mean - end:>5.2f}"
    line += f" {logs['best_inverse_snr_w'].mean():>5.2f}"
    return line + f" {np.median(point['best_presentation']):>5.0f}"


def caption(figure: Figure4, panels: Groups, command_line: str) -> str:
    """Describe the figure, its settings and what differs from the paper, as Markdown."""
    made = {name: figure.studies[name] for name in panels}
    study = next(iter(made.values()))
    letters = " and ".join(name.upper() for name in panels)
    several = f"{study.trials} trials" if study.trials > 1 else "one trial"
    lines = [
        f"# Figure 4{letters if len(panels) == 1 else ''}",
        "",
        f"Convergence of the weights of a pool of {study.neurons[0]} neurons: log10 of the inverse "
        f"signal-to-noise ratio of the weights over presentations; mean of {several}"
        + (", and one standard deviation (band)" if study.trials > 1 else "")
        + ". Dotted: the theoretical minimum (the end point of Eq. 5)."
        + (
            " Dashed: the circuit's own end point, with the transients of each presentation."
            if "b" in panels
            else ""
        ),
        "",
        *(f"- **{name.upper()}** {_settings(name, s)}" for name, s in made.items()),
        "",
        f"After {CITATION}, Figure 4. Made by `{command_line}`.",
        "",
        "## Settings",
        "",
        f"- k = {listed(study.k)} (k^2 inputs); gamma = {listed(study.gamma)}.",
        "- Initial weights 1 + N(0, 1), inputs N(0, 1), all independent; one input for all neurons "
        "of a pool, new for each presentation.",
        f"- Seed {study.seed}. A trial's weights and inputs depend on the seed, k, the number of "
        "neurons and the trial alone: the same for every gamma and in both panels, and the same "
        "as in a sweep with this seed.",
        f"- Engine {study.engine} (codegen {study.codegen}), double precision.",
        "- End points are computed from each trial's own initial weights.",
        "",
        "## What differs from the paper",
        "",
        *(f"- {text}" for text in _differences(panels, made)),
        "",
        "## Data",
        "",
        f"The netCDF-4 file has a group for each panel ({', '.join(panels)}). Of each curve it "
        f"keeps {STORED} points at equal distances, or all if there are fewer, for every trial; "
        "the figure shows these. The best value of a curve and when it was reached are from all "
        "presentations. `--redraw` draws the file again.",
        "",
        "## Check",
        "",
        "```",
        table(figure, panels),
        "```",
        "",
    ]
    return "\n".join(lines)


def _settings(name: str, study: Study) -> str:
    rate = study.plasticity(study.gamma[0]).learning_rate
    text = (
        f"`{study.rule}`: {PROTOCOLS[name].summary}. {study.presentations:,} presentations; "
        f"momentum {study.momentum:g}; learning rate `{rate!r}`"
    )
    if not study.per_presentation:
        text += (
            f"; alpha = {study.alpha[0]:g}, tau = {study.tau:g} ms, b = {study.b:g}; forward Euler "
            f"with dt = {study.dt:g} ms, each input shown for {study.presentation:g} ms, rates 0 "
            "at the start and carried over from one presentation to the next"
        )
    return text + "."


def _differences(panels: Mapping[str, xr.Dataset], made: Mapping[str, Study]) -> list[str]:
    published = Figure4(tuple(made)).studies
    texts = [
        f"{letter.upper()}: {field} = {listed(value)}; published: {listed(getattr(of, field))}."
        for letter, of in published.items()
        for field, value in asdict(made[letter]).items()
        if value != getattr(of, field) and field not in ("engine", "codegen", "seed")
    ]
    texts += [
        "Our own random draws: the published ones are not available. Here all gammas and both "
        "panels share them, so that differences between curves are not differences between draws.",
        "The measure is that of the published code, the mean over inputs of var_j / wbar_j^2 "
        f"(`inverse_snr_w`), not the inverse of Eq. 6, which is lower: by {_gap(panels):.3f} in "
        "log10 at the end, on average. A mean weight near zero raises it, and widens the band.",
        "The logarithm is taken of each trial, before the mean and standard deviation.",
    ]
    if any(registry.find(study.engine).exact for study in made.values()):
        texts.append(
            "The published steps are performed in another order of arithmetic (the exact "
            "propagator), which agrees with stepping to rounding, and in double precision."
        )
    if "b" in panels:
        texts.append(
            "B has one line more for each gamma, the circuit's own end point. For finite alpha the "
            "circuit loses part of the mean of the weights too, so it does not tend to the "
            "theoretical minimum: deviations shrink faster than the mean, the curve falls below "
            "the end point where gamma is small, and drifts back as the mean decays. That line "
            "is the averaged end point, which includes the transients of each presentation; at the "
            "published settings the circuit with gamma = 0.1 has reached it. With rates that are "
            "settled at all times (own end, below; see the figure endpoint) it would be lower."
        )
    return texts


def _gap(panels: Mapping[str, xr.Dataset]) -> float:
    """How far the measure drawn lies above the inverse of Eq. 6 at the end, in log10."""
    gaps = [
        np.log10(panel["inverse_snr_w"][..., -1] * panel["final_snr_w"])
        for panel in panels.values()
    ]
    return float(np.mean(gaps))
