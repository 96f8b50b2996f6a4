"""The equations of a circuit as text: read, checked, and compared with the published ones.

Everything that runs a circuit works from these texts: Brian2's network holds them, the stepper
compiles them, and what needs a linear circuit asks whether they are the published ones.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import CodeType
from typing import Any

import numpy as np

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
_PUBLISHED = ("(-r + z - alpha*r_inh + b)/tau", "(-r_inh + r_mean - b)/tau")
_NOISE = "sigma * sqrt(2 / tau) * xi"


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
    def published(self) -> bool:
        """Whether they are Eqs. 7 and 8, which are linear, with an interneuron as fast as r."""
        return self == Dynamics()

    @property
    def raised(self) -> bool:
        """Whether the interneuron has a baseline of its own, b_inh."""
        return _uses(self.excitatory, "b_inh") or _uses(self.interneuron, "b_inh")

    def felt(self, signal: str) -> str:
        """Return a rule's signal for this circuit: inhibition counts from its baseline."""
        return re.sub(r"\br_inh\b", "(r_inh - b_inh)", signal) if self.raised else signal

    @cached_property
    def linear(self) -> bool:
        """Whether they are linear in rates and drive, whatever the parameters are."""
        numbers = {"alpha": "1.7", "tau": "3.1", "tau_inh": "2.3"}
        for text in (self.excitatory, self.interneuron):
            put = re.sub(r"\w+", lambda match: numbers.get(match[0], match[0]), text)
            names = {*EXCITATORY_NAMES, *INTERNEURON_NAMES} - numbers.keys()
            if read(put, sorted(names), None).coefficients is None:
                return False
        return True


def dynamics(
    transfer: str = "linear",
    excitatory: str | None = None,
    interneuron: str | None = None,
    slower: bool = False,
    transfer_inh: str = "linear",
    raised: bool = False,
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

    Raises
    ------
    ParameterError
        If a text is no such equation, or uses other names.
    """
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
            raise ParameterError("Circuit.tau_inh", "is not used by the interneuron's equation", "")
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
    if raised and not made.raised:
        raise ParameterError("Circuit.b_inh", "is not used by the equations", "")
    return made


def _applied(parameter: str, transfer: str, drive: str) -> str:
    """Return a transfer function of what is received, as text."""
    text = TRANSFERS.get(transfer, transfer) if isinstance(transfer, str) else transfer
    try:
        form = read(text, ("u",))
        if "u" not in form.names:
            raise ValueError("must use u, what reaches the neuron")
    except ValueError as error:
        known = ", ".join(TRANSFERS)
        raise ParameterError(
            parameter, f"must be one of {known}, or an expression of u: {error}", transfer
        ) from None
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
        right = match[1].partition(":")[0].strip()
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
