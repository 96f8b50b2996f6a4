"""What the companions of Figure 4 share: runs with the exact engine that go on, and captions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from circuitsim.checks.values import ms
from circuitsim.engines.simulation import simulate
from circuitsim.files.provenance import CITATION
from circuitsim.parameters import Plasticity
from circuitsim.running.campaign import Groups, Listed, Progress, T
from circuitsim.studies.figures import FigureCampaign
from circuitsim.studies.sweep import Study


class Companion(FigureCampaign[T], Listed[T]):
    """A figure beside Figure 4, of runs whose course a sweep does not keep."""

    @property
    @abstractmethod
    def study(self) -> Study:
        """The study whose circuits are run."""

    @property
    def threads(self) -> bool:
        """Whether threads can run it."""
        return self.study.threads

    def prepare(self) -> None:
        """Compile what threads run."""
        self.study.prepare()

    scheme = Study.scheme
    stop = staticmethod(Study.stop)

    def pilot(self, tasks: Sequence[T], jobs: int) -> tuple[float, float]:
        """Time a little of its study, and take the tasks' costs in presentations of a circuit."""
        once, run = self.study.pilot(self.study.cells[:1], 1)
        per_presentation = run / self.study.presentations
        return once, sum(map(self.cost, tasks)) * per_presentation / min(jobs, len(tasks))

    def captioned(
        self,
        title: str,
        text: str,
        values: Mapping[str, Any],
        groups: Groups,
        command_line: str,
    ) -> str:
        """Put a caption together."""
        of = vars(self.study) | {"citation": CITATION, "command_line": command_line} | dict(values)
        paragraphs = [" ".join(part.split()).format(**of) for part in (text, PROTOCOL)]
        check = f"```\n{self.table(groups)}\n```\n"
        return "\n\n".join([f"# {title}", *paragraphs, "## Check", check])


PROTOCOL = """
Not a figure of the paper. Protocol B of {citation}: each input shown for {presentation:g} ms,
tau = {tau:g} ms, b = {b:g}, forward Euler with dt = {dt:g} ms, momentum {momentum:g}; initial
weights 1 + N(0, 1), inputs N(0, 1), our own draws. Seed {seed}; the exact propagator, double
precision. Made by `{command_line}`; `--redraw` draws the netCDF-4 file beside it again.
"""


def simulated(
    study: Study,
    plasticity: Plasticity,
    inputs: ArrayLike,
    start: xr.Dataset | None,
    w_init: NDArray[np.float64],
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
