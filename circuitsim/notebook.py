"""What the notebooks draw, with sliders: ``pip install 'circuitsim[notebooks]'``.

Drawings are functions from parameters to a figure. `Explorer` shows one with a control for each
parameter; where there are no widgets, it shows the figure alone.
"""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from circuitsim import measures, theory
from circuitsim.checks.validation import ParameterError
from circuitsim.checks.values import ms
from circuitsim.engines.simulation import log_spaced, simulate
from circuitsim.inputs import Noisy
from circuitsim.parameters import PUBLISHED_RATES, Circuit, Plasticity
from circuitsim.plots.circuit import kernels
from circuitsim.plots.style import COLOURS, ENDS, INVERSE_SNR, paper, rule_style
from circuitsim.public import own
from circuitsim.rules import RULES

__dir__ = own(__name__)

_DPI = 110
_NEURONS = 100
_SHOWN = 5  # neurons whose rates or weights are drawn
_LOG_INVERSE_SNR = (-7.0, 1.0)  # of an axis; below are gamma = 0 and rounding
_POINTS = 1200  # of a curve: as many as can be seen


@dataclass(frozen=True)
class Control:
    """A parameter that can be chosen.

    Parameters
    ----------
    label : str
        What it is, with its unit.
    values : sequence
        What it may be: numbers make a slider, texts a list to choose from.
    start : object
        One of the values.

    Raises
    ------
    ParameterError
        If it starts at none of them.
    """

    label: str
    values: Sequence[Any]
    start: Any

    def __post_init__(self) -> None:
        if self.start not in self.values:
            raise ParameterError("Control.start", f"must be one of {self.values}", self.start)


class Explorer:
    """A drawing with controls, to be the last line of a notebook's cell.

    Parameters
    ----------
    draw : callable
        Takes a value for each control, by its name, and returns a `matplotlib.figure.Figure`.
    **controls : Control
        What can be chosen.

    Attributes
    ----------
    chosen : dict
        The present value of each control.

    Examples
    --------
    >>> gamma = Control("pull towards the initial weights", [0.01, 0.1, 1.0], start=0.01)
    >>> explorer = Explorer(lambda gamma: Figure(), gamma=gamma)
    >>> explorer.choose(gamma=0.1).chosen
    {'gamma': 0.1}
    """

    def __init__(self, draw: Callable[..., Figure], **controls: Control) -> None:
        self._draw, self.controls = draw, controls
        self.chosen = {name: control.start for name, control in controls.items()}
        self._box: Any = None
        self._last: list[list[Any]] = []  # curves of the last picture, by axis

    def choose(self, **values: Any) -> Explorer:
        """Set some controls, as a reader would.

        Raises
        ------
        ParameterError
            If there is no such control, or no such value.
        """
        for name, value in values.items():
            if name not in self.controls or value not in self.controls[name].values:
                raise ParameterError(name, "must be a control, and one of its values", value)
            self.chosen[name] = value
        return self

    def png(self) -> bytes:
        """Draw with what is chosen; a refusal of the model's is drawn as its text."""
        return _as_png(self._drawn())

    def redrawn(self) -> bytes:
        """Draw with what is chosen, over the curves of the last picture in grey."""
        figure, last = self._drawn(), self._last
        self._last = [[line.get_xydata() for line in axis.lines] for axis in figure.axes]
        for axis, lines in zip(figure.axes, last, strict=False):
            for points in lines:
                if len(points) > 2:  # the others are levels
                    axis.plot(*points.T, color="0.8", lw=1, zorder=0, scalex=False, scaley=False)
        return _as_png(figure)

    def reset(self) -> Explorer:
        """Set all controls to where they started, and forget the last picture."""
        self._last = []
        return self.choose(**{name: control.start for name, control in self.controls.items()})

    def _drawn(self) -> Figure:
        try:
            return self._draw(**self.chosen)
        except (ParameterError, FloatingPointError) as error:
            figure = Figure(figsize=(7, 1))
            figure.text(0.02, 0.5, str(error), wrap=True, va="center", color=COLOURS[1])
            return figure

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        self._last = []
        picture = self.redrawn()
        # Whatever shows no widgets, such as a page on the web, shows the picture.
        bundle: dict[str, Any] = {"text/plain": f"Explorer({self.chosen})", "image/png": picture}
        try:
            self._box = _widgets(self, picture)
        except ImportError:
            return bundle
        return self._box._repr_mimebundle_() | bundle


def _as_png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()


def _widgets(explorer: Explorer, picture: bytes) -> Any:
    import ipywidgets

    image = ipywidgets.Image(value=picture, format="png")
    boxes = []
    for name, control in explorer.controls.items():
        texts = isinstance(control.start, str)
        kind = ipywidgets.Dropdown if texts else ipywidgets.SelectionSlider
        options = [v if texts else (f"{v:g}", v) for v in control.values]
        box = kind(
            options=options,
            value=explorer.chosen[name],
            description=control.label,
            style={"description_width": "20em"},
            layout={"width": "36em"},
        )

        def changed(change: Any, name: str = name) -> None:
            if change["new"] == explorer.chosen[name]:  # after a reset
                return
            # Looking for garbage among all that is imported takes 0.3 s: afterwards.
            enabled = gc.isenabled()
            gc.disable()
            try:
                image.value = explorer.choose(**{name: change["new"]}).redrawn()
            finally:
                if enabled:
                    gc.enable()

        box.observe(changed, names="value")
        boxes.append(box)

    def reset(_: Any) -> None:
        explorer.reset()
        for box, control in zip(boxes, explorer.controls.values(), strict=True):
            box.value = control.start
        image.value = explorer.redrawn()

    button = ipywidgets.Button(description="reset")
    button.on_click(reset)
    return ipywidgets.VBox([*boxes, button, image])


def _figure(height: float) -> Figure:
    """Make a figure whose axes have their places, which is quicker than finding them."""
    with matplotlib.rc_context({"figure.constrained_layout.use": False}):
        return Figure(figsize=(7, height))


def pool(k: int, presentations: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Initial weights 1 + N(0, 1) (neuron, input) of 100 neurons, and inputs N(0, 1)."""
    rng = np.random.default_rng(seed)
    w_init = 1 + rng.standard_normal((_NEURONS, k**2))
    return w_init, rng.standard_normal((presentations, k**2))


def rates(
    alpha: float = 10.0,
    tau: float = 30.0,
    b: float = 1.0,
    presentation: float = 150.0,
    k: int = 3,
) -> Figure:
    """Draw rates in four presentations, without learning, and the fast fixed point (dashed).

    Parameters
    ----------
    alpha, b : float
        Strength of inhibition and baseline rate.
    tau, presentation : float
        Time constant of the rates, and how long each input is shown, in ms.
    k : int
        Kernel size.

    Raises
    ------
    ParameterError
        If Euler with steps of 0.5 ms would be unstable.
    """
    w_init, inputs = pool(k, 4)
    circuit = Circuit(_NEURONS, tau * ms, alpha, b)
    still = Plasticity(gamma=0.0, learning_rate=PUBLISHED_RATES[False].starting_at(0.0))
    run = simulate(
        w_init, inputs, circuit, still, presentation * ms, 0.5 * ms, "propagator", True
    )  # fmt: skip
    settled = theory.fast_fixed_point(inputs @ w_init.T, alpha, b)
    time, rate = run["time"].to_numpy(), run["rate_trace"].to_numpy()
    borders = presentation * np.arange(len(inputs) + 1)
    every = -(-len(time) // _POINTS)
    time = time[every - 1 :: every]

    with paper():
        figure = _figure(4.2)
        panels = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
        figure.subplots_adjust(0.09, 0.1, 0.97, 0.97, hspace=0.18)
        drawn = [
            ("rates", rate[:, :_SHOWN], settled.rate[:, :_SHOWN]),
            ("their mean", rate.mean(axis=1)[:, None], settled.rate.mean(axis=1)[:, None]),
            ("interneuron", run["rate_inh_trace"].to_numpy()[:, None],
             settled.rate_inh[:, None]),
        ]  # fmt: skip
        for axis, (label, curves, levels) in zip(panels, drawn, strict=True):
            curves = curves[every - 1 :: every]
            for number in range(curves.shape[1]):
                colour = COLOURS[number] if curves.shape[1] > 1 else COLOURS[-1]
                axis.plot(time, curves[:, number], color=colour, linewidth=1)
                axis.hlines(
                    levels[:, number], borders[:-1], borders[1:], colour, "--", linewidth=0.8
                )
            axis.set_ylabel(label)
        # The same for all values of what does not make the drive larger; the mean may ring.
        drive = inputs @ w_init.T
        size, of_mean = np.abs(drive[:, :_SHOWN]).max(), 1.5 * np.abs(drive.mean(axis=1)).max()
        for axis, at, largest in zip(panels, (b, b, 0), (size, of_mean, of_mean), strict=True):
            axis.set_ylim(at - largest, at + largest)
        panels[-1].set_xlabel("time (ms)")
        panels[-1].set_xticks(borders)
    return figure


def learning(
    rule: str = "circuit",
    alpha: float = 10.0,
    gamma: float = 0.01,
    k: int = 3,
    tau: float = 30.0,
    b: float = 1.0,
    presentation: float = 150.0,
    rate: float = 1.0,
    presentations: int = 1500,
) -> Figure:
    """Draw how weights become alike: their SNR against theory, and kernels before and after.

    Parameters
    ----------
    rule : str
        Name of a rule.
    alpha, gamma, b : float
        Strength of inhibition, pull towards the initial weights, baseline rate.
    k : int
        Kernel size.
    tau, presentation : float
        Time constant of the rates, and how long each input is shown, in ms.
    rate : float
        Learning rate, as a multiple of the published one.
    presentations : int
        Length of the run.

    Raises
    ------
    ParameterError
        If Euler with steps of 1 ms would be unstable.
    FloatingPointError
        If weights diverge.
    """
    w_init, inputs = pool(k, presentations)
    circuit = Circuit(_NEURONS, tau * ms, alpha, b)
    published = PUBLISHED_RATES[RULES[rule].per_presentation]
    first = {True: 5e-4, False: 3e-4}[RULES[rule].per_presentation]
    plasticity = Plasticity(rule, gamma, learning_rate=published.starting_at(first * rate))
    run = simulate(
        w_init, inputs, circuit, plasticity, presentation * ms, engine="propagator",
        record=log_spaced(presentations, 40),
    )  # fmt: skip
    ends = {
        "theory": theory.fixed_point(w_init, gamma, "mean_subtracted"),
        "settled": theory.fixed_point(w_init, gamma, rule, alpha, limit=True),
    }

    with paper():
        figure = _figure(3.4)
        axis = figure.add_axes((0.09, 0.14, 0.45, 0.84))
        axis.plot(run["presentation"], np.log10(run["inverse_snr_w"]), color=rule_style(rule)[0])
        for end, weights in ends.items():
            dash, label = ENDS[end]
            with np.errstate(divide="ignore"):
                level = float(np.log10(measures.inverse_snr_w(weights)))
            if np.isfinite(level):
                axis.axhline(level, color="0.3", linestyle=dash, linewidth=0.9, label=label)
        axis.set(xlim=(0, presentations), ylim=_LOG_INVERSE_SNR)  # the same for all values
        axis.set_xlabel("presentations")
        axis.set_ylabel(INVERSE_SNR)
        axis.legend(loc="upper right")
        limit = float(np.abs(w_init[:_SHOWN]).max())
        for bottom, title, weights in (
            (0.54, "before", w_init),
            (0.1, "after", run["weights"].to_numpy()),
        ):
            panel = figure.add_axes((0.6, bottom, 0.39, 0.36))
            kernels(panel, weights[: 2 * _SHOWN], limit)
            panel.set_title(f"kernels of ten neurons {title}", loc="left")
    return figure


def inhibition(gamma: float = 0.01, presentation: float = 150.0, tau: float = 30.0) -> Figure:
    """Draw where weights end over the strength of inhibition, for the circuit's two rules.

    Lines: rates settled at all times. Dashed: averaged over presentations with their transients.

    Parameters
    ----------
    gamma : float
        Pull towards the initial weights.
    presentation, tau : float
        How long each input is shown, and the time constant of the rates, in ms.
    """
    w_init, _ = pool(3, 0)
    alphas = np.geomspace(1, 100, 11)
    with paper():
        figure = _figure(2.9)
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(0.09, 0.17, 0.97, 0.95, wspace=0.25)
        for rule in ("circuit", "inhibition_gated"):
            for dash, label in (("-", rule), ("--", None)):
                ends = [
                    theory.fixed_point(w_init, gamma, rule, alpha)
                    if label
                    else theory.fixed_point(
                        w_init, gamma, rule, alpha, tau=tau * ms, presentation=presentation * ms
                    )
                    for alpha in alphas
                ]
                shared = {"color": rule_style(rule)[0], "linestyle": dash, "label": label}
                left.plot(alphas, np.log10(measures.inverse_snr_w(ends)), **shared)
                right.plot(alphas, measures.mean_weight_kept(ends, w_init), **shared)
        for axis in (left, right):
            axis.set_xscale("log")
            axis.set_xlabel("strength of inhibition, alpha")
            axis.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
            axis.minorticks_off()
        left.set_ylim(_LOG_INVERSE_SNR)
        left.set_ylabel(INVERSE_SNR + ", at the end")
        right.set_ylabel("share of the mean weights kept")
        right.set_ylim(0, 1.05)
        right.legend(loc="upper left", bbox_to_anchor=(0, 0.97))
    return figure


def imperfection(
    b: float = 2.0,
    spread_alpha: float = 0.0,
    private: float = 0.0,
    sigma: float = 0.0,
    tau_inh: float = 30.0,
    delay: float = 0.0,
) -> Figure:
    """Draw how weights of a rectified circuit become alike, with any of its imperfections.

    In grey the linear circuit without any, on the same weights and inputs.

    Parameters
    ----------
    b : float
        Baseline of the rectified rates.
    spread_alpha : float
        Spread of inhibition over neurons, as a share of its mean.
    private : float
        Standard deviation of each neuron's own input.
    sigma : float
        Standard deviation of the rates' noise.
    tau_inh, delay : float
        Time constant of the interneuron, and how much later it is felt, in ms.
    """
    w_init, inputs = pool(3, 600)
    shown = Noisy(inputs, private) if private else inputs
    circuit = Circuit(
        transfer="relu", b=b, spread_alpha=spread_alpha, sigma=sigma, tau_inh=tau_inh * ms,
        delay=delay * ms,
    )  # fmt: skip
    with paper():
        figure = _figure(2.9)
        left, right = figure.subplots(1, 2, width_ratios=(2, 1))
        figure.subplots_adjust(0.09, 0.17, 0.97, 0.95, wspace=0.3)
        for place, rule in enumerate(("circuit", "inhibition_gated")):
            plasticity, colour = Plasticity(rule), rule_style(rule)[0]
            plain = simulate(w_init, inputs, None, plasticity, engine="propagator", record=5)
            run = simulate(w_init, shown, circuit, plasticity, engine="stepper", record=5)
            for found, of, label in ((plain, "0.7", None), (run, colour, rule)):
                curve = np.log10(found["inverse_snr_w"])
                left.plot(curve["presentation"], curve, color=of, label=label)
                kept = float(measures.mean_weight_kept(found["weights"].to_numpy(), w_init))
                right.bar(place + 0.2 * (1 if label else -1), kept, 0.38, color=of)
        left.set_xlabel("presentations")
        left.set_ylabel(INVERSE_SNR)
        left.set_ylim(-4, 0.5)
        left.legend(loc="upper right")
        right.set_xticks([0, 1], ["circuit", "inhibition_gated"])
        right.set_ylabel("share of the mean weights kept")
        right.set_ylim(0, 1.05)
    return figure
