"""A layer that sleeps: its kernels over the sheet, the sheet becoming periodic, SNR of every pool.

One picture of the mechanism. All neurons of the layer begin with one kernel, an edge, and private
deviations from it, as if each had learned on its own.

The file has one group with

======================  ==============================================  ==========================
variable                dimensions                                      meaning
======================  ==============================================  ==========================
``weights``             (stage, row, column, kernel_row,                kernels at the start, in
                        kernel_column)                                  the middle and in the end
``sheet``               (gain, sheet_row, sheet_column)                 one pattern on the sheet
``snr_w``               (presentation, pool)                            Eq. 6, of each pool
======================  ==============================================  ==========================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from circuitsim.checks import fields
from circuitsim.checks.fields import declare
from circuitsim.checks.validation import ParameterError
from circuitsim.files.provenance import CITATION
from circuitsim.parameters import Circuit, Plasticity
from circuitsim.public import own
from circuitsim.running.campaign import NUMBER, Arrays, Group, Groups, Layout, Listed, Progress
from circuitsim.schedules import ConstantRate
from circuitsim.vision.sheets import simulate_layer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__dir__ = own(__name__, "GAINS")

GAINS = (0.0, 0.95, 1.0)  # of the sheets shown; 1 for the limit
_RULES = ("circuit", "inhibition_gated", "mean_subtracted")
_CAPTION = """
A locally connected layer of {size} x {size} neurons sleeps; one channel, kernels of {k} x {k}.
**A** What its input sheet shows in one presentation. Each cell has a private drive, and lateral
connections of the gain g pull those together that are {k} rows or columns apart: the sheet becomes
periodic, exactly so in the limit of g = 1.
**B** The kernels of all neurons before the sleep (an edge that all have in common, and deviations
that each has for itself), after {middle} and after {presentations} patterns. Neurons {k} apart see
the same and share an inhibitory interneuron; by the rule `{rule}` (alpha = {alpha:g},
gamma = {gamma:g}) their weights become alike.
**C** SNR of the weights (Eq. 6) of each of the {k} x {k} pools of neurons.
**D** What is left: {k} x {k} kernels, the means of the pools. They differ as the means of what
neurons had for themselves do.
"""


@dataclass(frozen=True)
class Layer(Listed[str]):
    """A sleep of one layer.

    Parameters
    ----------
    k : int
        Rows, and columns, of a kernel.
    size : int
        Rows, and columns, of the layer; at least 2 k.
    presentations : int
        Patterns shown.
    rule : str
    gamma, alpha : float
        As in `circuitsim.Plasticity` and `circuitsim.Circuit`.
    seed : int

    Raises
    ------
    ParameterError
        If a value is out of its range.
    """

    k: int = declare(3, "rows and columns of a kernel", "K", minimum=2)
    size: int = declare(12, "rows and columns of the layer", "S", minimum=4)
    presentations: int = declare(90, "patterns shown in the sleep", "P", minimum=2)
    rule: str = declare("circuit", "rule of plasticity", "NAME", choices=lambda: _RULES)
    gamma: float = declare(0.001, "pull towards the weights before the sleep", "G", minimum=0)
    alpha: float = declare(50.0, "strength of inhibition", "A", minimum=0)
    seed: int = declare(0, "fixes weights and patterns", "SEED", minimum=0)

    kind = "layer"
    units = {  # noqa: RUF012
        "stage": ("presentations", "1"),
        "gain": ("gain of lateral connections", "1"),
        "row": ("row of the layer", "1"),
        "column": ("column of the layer", "1"),
        "kernel_row": ("row of the kernel", "1"),
        "kernel_column": ("column of the kernel", "1"),
        "sheet_row": ("row of the sheet", "1"),
        "sheet_column": ("column of the sheet", "1"),
        "presentation": ("presentations since the start of the sleep", "1"),
        "pool": ("pool of neurons", "1"),
        "weights": ("feedforward weights", "1"),
        "sheet": ("activity of the sheet", "1"),
        "snr_w": ("SNR_w (Eq. 6) of each pool", "1"),
    }
    infinite = ("snr_w",)

    def __post_init__(self) -> None:
        fields.check(self)
        if self.size < 2 * self.k:
            raise ParameterError(
                "size", f"must be >= {2 * self.k} for kernels of {self.k} x {self.k}, or pools "
                "have one neuron", self.size,
            )  # fmt: skip
        Circuit(alpha=self.alpha).check_step(1.0)

    @property
    def quick(self) -> bool:
        """It takes a second or so."""
        return True

    @property
    def every_task(self) -> list[str]:
        """One sleep."""
        return ["sleep of a layer"]

    def layout(self, task: str) -> Layout:
        """Arrays as in the file."""
        group = self.groups()[""]
        return {name: (group.shapes[name], NUMBER) for name in group.variables}

    def run_one(self, task: str, progress: Progress | None) -> Arrays:
        """Let the layer sleep, and draw the sheet with several gains."""
        k, n = self.k, self.size
        shape = (n, n, k, k, 1, 1)
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, 0]))
        weights = edge(k).reshape(1, 1, k, k, 1, 1) + 0.5 * rng.standard_normal(shape)
        ideal = self.rule == "mean_subtracted"
        learning = Plasticity(
            self.rule,
            gamma=self.gamma,
            momentum=0.0 if ideal else 0.95,
            # As a sleep has by default: see `circuitsim.vision.sharing`.
            learning_rate=ConstantRate(1 / k**2 if ideal else 0.05 / (150 * k**2)),
        )
        size = n + k - 1

        def run(weights: Any, gain: float | None, **options: Any) -> xr.Dataset:
            return simulate_layer(
                weights, (size, size), Circuit(alpha=self.alpha, b=0.0), learning,
                gain=gain, engine="auto", codegen="numpy", seed=[self.seed, 1], **options,
            )  # fmt: skip

        slept = run(weights, None, patterns=self.presentations, record=1, progress=progress)
        first = np.zeros((n, n, k, k, 1, 1))
        sheets = [run(first, g if g < 1 else None, patterns=1)["sheet"][-1] for g in GAINS]
        stages = [0, self.presentations // 2, self.presentations]
        return {
            "weights": slept["weights_trace"].to_numpy()[stages][..., 0, 0],
            "sheet": np.stack([sheet.to_numpy()[..., 0] for sheet in sheets]),
            "snr_w": slept["snr_w"].to_numpy()[..., 0],
        }

    def groups(self) -> dict[str, Group]:
        """One, the root."""
        k, n, size = self.k, self.size, self.size + self.k - 1
        axes = {
            "stage": (0, self.presentations // 2, self.presentations),
            "row": range(n), "column": range(n), "kernel_row": range(k), "kernel_column": range(k),
            "gain": GAINS, "sheet_row": range(size), "sheet_column": range(size),
            "presentation": range(self.presentations + 1), "pool": range(k * k),
        }  # fmt: skip
        variables = {
            "weights": ("stage", "row", "column", "kernel_row", "kernel_column"),
            "sheet": ("gain", "sheet_row", "sheet_column"),
            "snr_w": ("presentation", "pool"),
        }
        return {"": Group(axes, variables, complete=True)}

    def attributes(self) -> dict[str, Any]:
        """Return the study as text."""
        return {"title": "Sleep of a layer", "study": self.to_json(), "references": CITATION}

    def collect(self, read: Callable[[str], Arrays]) -> Iterator[tuple[str, Arrays, str]]:
        """Give what the sleep gave."""
        (task,) = self.every_task
        yield "", read(task), "Sleep of a layer"

    def table(self, groups: Groups) -> str:
        """Say how alike weights became, and how much of their mean is kept."""
        data = groups[""]
        pools = pool_means(data["weights"].to_numpy(), self.k)
        lines = [
            "over pools: geometric mean, lowest and highest SNR_w; root mean square of the",
            "kernels that are left, and of their differences",
            f"{'presentations':>14} {'SNR_w':>10} {'lowest':>10} {'highest':>10} {'kernels':>9} "
            f"{'differ':>8}",
        ]
        for stage, means in zip(data["stage"].to_numpy(), pools, strict=True):
            snr = data["snr_w"].sel(presentation=stage).to_numpy()
            apart = means - means.mean(axis=(0, 1))
            lines.append(
                f"{int(stage):>14} {np.exp(np.log(snr).mean()):>10.3g} {snr.min():>10.3g} "
                f"{snr.max():>10.3g} {np.sqrt(np.mean(means**2)):>9.3f} "
                f"{np.sqrt(np.mean(apart**2)):>8.3f}"
            )
        return "\n".join(lines)

    def caption(self, groups: Groups, command_line: str) -> str:
        """Describe the figure and its settings, as Markdown."""
        text = " ".join(_CAPTION.split()).format(middle=self.presentations // 2, **vars(self))
        made = (
            f"Our own drawing of the mechanism of {CITATION}. Seed {self.seed}. Made by "
            f"`{command_line}`; `--redraw` draws the netCDF-4 file beside it again."
        )
        parts = ["# A layer that sleeps", text, made, "## Check"]
        return "\n\n".join([*parts, f"```\n{self.table(groups)}\n```\n"])

    def draw(self, groups: Groups) -> Figure:
        """Draw the sleep."""
        from circuitsim import plots

        return plots.layer(groups[""])


def edge(k: int) -> Any:
    """Return a kernel that answers to an edge, (k, k): dark on the left, light on the right."""
    across = np.linspace(-1, 1, k)
    return np.outer(np.cos(across * np.pi / 4), np.sin(across * np.pi / 2))


def pool_means(weights: Any, k: int) -> Any:
    """Mean kernel of each pool, (..., phase row, phase column, k, k), of (..., row, column, k, k).

    Positions k apart are a pool, in a layer without padding.
    """
    return np.stack(
        [
            np.stack([weights[..., r::k, c::k, :, :].mean(axis=(-4, -3)) for c in range(k)], -3)
            for r in range(k)
        ],
        -4,
    )
