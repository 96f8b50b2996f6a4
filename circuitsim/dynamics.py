"""The equations of a circuit as text: read, checked, and compared with the published ones.

Everything that runs a circuit works from these texts: Brian2's network holds them, the stepper
compiles them, and what needs a linear circuit (the propagator, theory, the bound of stability)
takes its matrix from them.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.checks.validation import ParameterError
from circuitsim.expressions import FUNCTIONS, read

EXCITATORY_NAMES = ("r", "r_inh", "z", "b", "b_inh", "alpha", "tau")
INTERNEURON_NAMES = ("r_inh", "r_mean", "b", "b_inh", "tau", "tau_inh")

DRIVE = "z - alpha*r_inh + b"  # what a transfer function is applied to, as u
DRIVE_INH = "r_mean - b"  # the same of the interneuron
TRANSFERS = {
    "linear": "u",
    "relu": "clip(u, 0, inf)",
    "softplus": "clip(u, 0, inf) + log(1 + exp(-abs(u)))",
    "tanh": "tanh(u)",
}
_TRANSFER = f"must be one of {', '.join(TRANSFERS)}, or an expression of u"
_PUBLISHED = ("(-r + z - alpha*r_inh + b)/tau", "(-r_inh + r_mean - b)/tau")
_NOISE = "sigma * sqrt(2 / tau) * xi"


class Settled(NamedTuple):
    """Rates, from where they rest, to which a drive of 1 leads: of a deviation, and of the mean."""

    deviation: NDArray[np.float64]
    mean: NDArray[np.float64]
    inhibition: NDArray[np.float64]


class Slopes(NamedTuple):
    """A linear circuit, of neurons that are alike: how rates change with what they depend on.

    With r and r_inh counted from where they rest without drive, and r_mean for the pool's mean,

        dr/dt = rate r + inhibition r_inh + drive z,    dr_inh/dt = received r_mean + leak r_inh.

    Deviations from the mean have the first term and the last of the first equation; the mean mode
    is the matrix ((rate, inhibition), (received, leak)). Arrays of one shape, per time.
    """

    rate: NDArray[np.float64]
    inhibition: NDArray[np.float64]
    drive: NDArray[np.float64]
    received: NDArray[np.float64]
    leak: NDArray[np.float64]

    def of_circuits(self, which: Any) -> Slopes:
        """Those of some circuits, by an index."""
        return Slopes(*(values[which] for values in self))

    def over(self, dt: float) -> Slopes:
        """Changes in a step of forward Euler."""
        return Slopes(*(dt * values for values in self))

    def settled(self) -> Settled:
        """Rates that a drive of 1 leads to."""
        determinant = self.rate * self.leak - self.inhibition * self.received
        return Settled(
            -self.drive / self.rate,
            -self.drive * self.leak / determinant,
            self.drive * self.received / determinant,
        )

    def euler_bound(self) -> NDArray[np.float64]:
        """Step below which forward Euler is stable; 0 where rates grow however short it is.

        Euler is stable for steps below -2 Re(l)/|l|^2 of each eigenvalue l, that of deviations and
        the two of the mean mode, which ring if they are complex.
        """
        trace = self.rate + self.leak
        determinant = self.rate * self.leak - self.inhibition * self.received
        ringing = trace**2 < 4 * determinant
        root = np.sqrt(np.where(ringing, 0, trace**2 - 4 * determinant))
        with np.errstate(divide="ignore", invalid="ignore"):
            of_mean = np.where(ringing, -trace / determinant, 4 / (root - trace))
            bound = np.minimum(of_mean, -2 / self.rate)
        stable = (self.rate < 0) & (trace < 0) & (determinant > 0)
        return np.asarray(np.where(stable, bound, 0.0))


@dataclass(frozen=True)
class Dynamics:
    """Right-hand sides of the two equations, without noise.

    Attributes
    ----------
    excitatory, interneuron : str
        dr/dt and dr_inh/dt, expressions of `EXCITATORY_NAMES` and of `INTERNEURON_NAMES`.
    """

    excitatory: str = _PUBLISHED[0]
    interneuron: str = _PUBLISHED[1]

    @property
    def raised(self) -> bool:
        """Whether the interneuron has a baseline of its own, b_inh."""
        return _uses(self.excitatory, "b_inh") or _uses(self.interneuron, "b_inh")

    def felt(self, signal: str) -> str:
        """Return a rule's signal for this circuit: inhibition counts from its baseline."""
        return re.sub(r"\br_inh\b", "(r_inh - b_inh)", signal) if self.raised else signal

    @property
    def linear(self) -> bool:
        """Whether they are linear in rates and drive, whatever the parameters are."""
        return _linear(self.excitatory) and _linear(self.interneuron)

    def slopes(self, alpha: ArrayLike, tau: ArrayLike, tau_inh: ArrayLike) -> Slopes:
        """Return the linear circuit that they are, per unit of the times given.

        Parameters
        ----------
        alpha, tau, tau_inh : array_like
            Of one shape, or such that broadcast. Each is taken on its own.
        """
        constants = {"alpha": alpha, "tau": tau, "tau_inh": tau_inh, "b": 0.0, "b_inh": 0.0}
        shape = np.broadcast_shapes(*(np.shape(values) for values in (alpha, tau, tau_inh)))

        def by(text: str, *names: str) -> list[NDArray[np.float64]]:
            at_rest = {name: np.asarray(value, dtype=float) for name, value in constants.items()}
            at_rest |= dict.fromkeys(names, np.zeros(()))
            rest = evaluate(text, dict(at_rest))
            found = (evaluate(text, {**at_rest, name: np.ones(())}) - rest for name in names)
            return [np.broadcast_to(slope, shape) for slope in found]

        return Slopes(
            *by(self.excitatory, "r", "r_inh", "z"), *by(self.interneuron, "r_mean", "r_inh")
        )

    def highest_alpha(self, dt: float, tau: float, tau_inh: float) -> float:
        """Strength of inhibition from which forward Euler is unstable, where the mean rings."""
        none, one = (self.slopes(alpha, tau, tau_inh) for alpha in (0.0, 1.0))
        determinants = [s.rate * s.leak - s.inhibition * s.received for s in (none, one)]
        with np.errstate(divide="ignore"):
            needed = -(none.rate + none.leak) / dt - determinants[0]
            return float(needed / (determinants[1] - determinants[0]))

    def solvable(self, b: ArrayLike, b_inh: ArrayLike, **constants: ArrayLike) -> bool:
        """Whether they are linear, and rates rest without drive at b and b_inh.

        From these baselines rules' signals count.
        """
        if not self.linear:
            return False
        values = {name: np.asarray(v, dtype=float) for name, v in constants.items()}
        values |= {"b": np.asarray(b, dtype=float), "b_inh": np.asarray(b_inh, dtype=float)}
        values |= {"r": values["b"], "r_mean": values["b"], "z": np.zeros(())}
        values["r_inh"] = values["b_inh"] if self.raised else np.zeros(())
        scale = 1 + np.abs(values["b"]) + np.abs(values["b_inh"]) * (1 + values["alpha"])
        times = {self.excitatory: values["tau"], self.interneuron: values["tau_inh"]}
        changes = (evaluate(text, dict(values)) * time for text, time in times.items())
        return all(bool(np.all(np.abs(change) <= 1e-12 * scale)) for change in changes)


@lru_cache(maxsize=256)  # circuits are many, equations few
def _linear(text: str) -> bool:
    numbers = {"alpha": "1.7", "tau": "3.1", "tau_inh": "2.3"}
    put = re.sub(r"\w+", lambda match: numbers.get(match[0], match[0]), text)
    names = {*EXCITATORY_NAMES, *INTERNEURON_NAMES} - numbers.keys()
    return read(put, sorted(names), None).coefficients is not None


def dynamics(
    transfer: str = "linear",
    excitatory: str | None = None,
    interneuron: str | None = None,
    slower: bool = False,
    transfer_inh: str = "linear",
    raised: bool = False,
    inhibited: bool = False,
) -> Dynamics:
    """Return the equations that a circuit's parameters stand for.

    Parameters
    ----------
    transfer : str
        Name of one of `TRANSFERS`, or an expression of ``u``.
    excitatory, interneuron : str, optional
        Whole equations, ``"dr/dt = ..."`` and ``"dr_inh/dt = ..."``.
    slower : bool
        Whether the interneuron has a time constant of its own.
    transfer_inh : str
        As `transfer`, of the interneuron.
    raised : bool
        Whether the interneuron has a baseline of its own, b_inh, at which it does not inhibit.
    inhibited : bool
        Whether a strength of inhibition, alpha, is asked for.

    Raises
    ------
    ParameterError
        If a text is no such equation, or uses other names.
    """
    for name, given in (("transfer", transfer), ("transfer_inh", transfer_inh)):
        if not isinstance(given, str):
            raise ParameterError(f"Circuit.{name}", _TRANSFER, given)
    time = "tau_inh" if slower else "tau"
    if interneuron is not None:
        if transfer_inh != "linear":
            raise ParameterError(
                "Circuit.transfer_inh",
                "has no effect with an equation; write it there",
                transfer_inh,
            )
        inhibitory = _equation("Circuit.interneuron", interneuron, "r_inh", INTERNEURON_NAMES)
        if slower and not _uses(inhibitory, "tau_inh"):
            raise ParameterError(
                "Circuit.tau_inh", "must be used by the interneuron's equation", interneuron
            )
    else:
        received = DRIVE_INH + (" + b_inh" if raised else "")
        if transfer_inh != "linear":
            received = _applied("Circuit.transfer_inh", transfer_inh, received)
        inhibitory = f"(-r_inh + {received})/{time}"
    if excitatory is not None:
        if transfer != "linear":
            raise ParameterError(
                "Circuit.transfer", "has no effect with an equation; write it there", transfer
            )
        driven = _equation("Circuit.excitatory", excitatory, "r", EXCITATORY_NAMES)
    else:
        drive = DRIVE.replace("r_inh", "(r_inh - b_inh)") if raised else DRIVE
        if transfer != "linear":
            drive = _applied("Circuit.transfer", transfer, drive)
        driven = f"(-r + {drive})/tau"
    made = Dynamics(driven, inhibitory)
    if inhibited and not _uses(driven, "alpha"):
        raise ParameterError("Circuit.alpha", "must be used by the excitatory equation", excitatory)
    if raised and not made.raised:
        raise ParameterError(
            "Circuit.b_inh", "must be used by the equations", (excitatory, interneuron)
        )
    return made


def _applied(parameter: str, transfer: str, drive: str) -> str:
    """Return a transfer function of what is received, as text."""
    try:
        form = read(TRANSFERS.get(transfer, transfer), ("u",))
        if "u" not in form.names:
            raise ValueError("must use u, what reaches the neuron")
    except ValueError as error:
        raise ParameterError(parameter, f"{_TRANSFER}: {error}", transfer) from None
    return re.sub(r"\bu\b", f"({drive})", form.text)


def _uses(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None


def noisy(excitatory: str) -> bool:
    """Whether an equation given as text has the noise of the rates in it."""
    return _uses(excitatory, "xi")


def _equation(parameter: str, text: str, variable: str, names: tuple[str, ...]) -> str:
    """Return the right-hand side of an equation, or raise a `ParameterError`."""
    match = re.fullmatch(rf"\s*d{variable}/dt\s*=(.*)", text) if isinstance(text, str) else None
    if match is None:
        raise ParameterError(parameter, f"must be an equation, d{variable}/dt = ...", text)
    try:
        right, _, unit = (part.strip() for part in match[1].partition(":"))
        if unit not in ("", "1"):
            raise ValueError("must have the unit 1, as rates have, after a colon")
        if variable == "r":
            right = _without_noise(right)
        form = read(right, names)
    except (ValueError, SyntaxError) as error:
        raise ParameterError(parameter, str(error), text) from None
    if not _is_rate(form.text, names):
        raise ParameterError(
            parameter, "must be a change per time: divide by a time constant, once", text
        )
    for value, known in ((form.text, of) for of in _PUBLISHED):
        if _normal(value) == _normal(known):
            return known
    return form.text


def _without_noise(text: str) -> str:
    tree = ast.parse(text, mode="eval").body
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Add):
        noise = ast.unparse(tree.right)
        if noise == _NOISE:
            return ast.unparse(tree.left)
    if "xi" in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}:
        raise ValueError(f"must have its noise as a last term, + {_NOISE}")
    return text


def _normal(text: str) -> str:
    return ast.unparse(ast.parse(text, mode="eval"))


def averaged(
    matrix: NDArray[np.float64],
    settled: NDArray[np.float64],
    duration: float,
    step: float | None,
) -> NDArray[np.float64]:
    """Average over a presentation of X, dX/dt = ``matrix`` (X - ``settled``), from X(0) = 0.

    Parameters
    ----------
    matrix : ndarray, shape (variable, variable)
        Per ms.
    settled : ndarray, shape (variable, ...)
        What X approaches.
    duration : float
        Of the presentation, in ms.
    step : float or None
        Of forward Euler, in ms: the average is then over what is there after each step. None for
        continuous time.
    """
    from scipy.linalg import expm  # which takes time, and texts are read without it

    one = np.eye(len(matrix))
    if step is None:
        transients = expm(matrix * duration) - one
    else:
        stepped = one + matrix * step
        n_steps = round(duration / step)
        transients = stepped @ (np.linalg.matrix_power(stepped, n_steps) - one)
    return settled - np.linalg.solve(matrix * duration, transients @ settled)


def evaluate(text: str, values: dict[str, object]) -> Any:
    """Return the value of an expression that `circuitsim.expressions.read` has checked."""
    return eval(_code(text), {"__builtins__": {}, "inf": np.inf} | FUNCTIONS, values)


@lru_cache(maxsize=64)
def _code(text: str) -> CodeType:
    return compile(text, "<equation>", "eval")


def _is_rate(text: str, names: tuple[str, ...]) -> bool:
    """Whether an expression halves when all times double: then its unit is one per time."""
    rng = np.random.default_rng(0)
    values = {name: rng.uniform(0.5, 2, 5) for name in names}
    doubled = {name: v * (2 if name.startswith("tau") else 1) for name, v in values.items()}
    with np.errstate(all="ignore"):
        once, twice = evaluate(text, dict(values)), evaluate(text, dict(doubled))
    return bool(np.allclose(once, 2 * np.asarray(twice), rtol=1e-9, atol=0))
