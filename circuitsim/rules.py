"""Plasticity rules: what multiplies the input in the update of a weight.

Every rule moves weight j of neuron i by a learning rate times

    -(signal_i x_j + gamma (w_ij - w_ij^init)),

and they differ in the postsynaptic ``signal``, written as a Brian2 expression. Everything else that
the package knows about a rule (its long-run weights, its exact propagation) follows from that one
string.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import sympy
from brian2.parsing.sympytools import str_to_sympy
from numpy.typing import ArrayLike, NDArray

from circuitsim.validation import ParameterError

CIRCUIT_VARIABLES = ("r", "r_inh", "b")
POOL_VARIABLES = ("z", "z_mean")


@dataclass(frozen=True)
class LinearSignal:
    """A rule's signal as ``deviation * (z_i - zbar)`` and so on, for rules linear in the rates.

    Attributes
    ----------
    rate : float
        Factor of ``r_i - b`` (or of ``z_i`` for a rule without a circuit).
    common : float
        Factor of ``r_inh`` (or of ``zbar``).
    """

    rate: float
    common: float


@dataclass(frozen=True)
class Rule:
    """A plasticity rule.

    Parameters
    ----------
    name : str
        How users ask for it.
    signal : str
        The postsynaptic factor as a Brian2 expression: of ``r``, ``r_inh`` and ``b`` for a rule
        that the circuit performs at every step, or of ``z`` and ``z_mean`` (the drive w.x and its
        mean over the pool) for an ideal rule that makes one update a presentation.
    summary : str
        One line: what it is, with its source.

    Raises
    ------
    ParameterError
        If the signal uses other variables, or mixes the two kinds.
    """

    name: str
    signal: str
    summary: str

    def __post_init__(self) -> None:
        used = self._names
        if not used or not (used <= set(CIRCUIT_VARIABLES) or used <= set(POOL_VARIABLES)):
            raise ParameterError(
                "Rule.signal",
                f"must use {', '.join(CIRCUIT_VARIABLES)} (a rule of the circuit) or "
                f"{', '.join(POOL_VARIABLES)} (one update a presentation)",
                self.signal,
            )

    @property
    def per_presentation(self) -> bool:
        """Whether the rule makes one update a presentation, with no circuit to run."""
        return self._names <= set(POOL_VARIABLES)

    @cached_property
    def linear(self) -> LinearSignal | None:
        """The signal's coefficients, or None if it is not linear or does not vanish at rest."""
        variables = POOL_VARIABLES if self.per_presentation else CIRCUIT_VARIABLES
        symbols = [sympy.Symbol(name, real=True) for name in variables]
        expression = str_to_sympy(self.signal)
        slopes = [expression.diff(symbol) for symbol in symbols]
        rest = expression.subs(dict.fromkeys(symbols, 0))
        if any(slope.free_symbols for slope in slopes) or rest != 0:
            return None
        rate, common, *offset = [float(slope) for slope in slopes]
        if offset and offset[0] != -rate:
            return None
        return LinearSignal(rate, common)

    def gain_of_mean(self, alpha: ArrayLike) -> NDArray[np.float64]:
        """How strongly the settled signal follows the pool's mean drive zbar.

        At the fast fixed point the signal of a linear rule is
        ``rate * (z_i - zbar) + gain_of_mean * zbar``: with r_i - b = z_i - zbar + zbar/(1 + alpha)
        and r_inh = zbar/(1 + alpha) the gain is ``(rate + common)/(1 + alpha)``.

        Parameters
        ----------
        alpha : array_like
            Strength of inhibition.

        Raises
        ------
        ParameterError
            If the rule is not linear.
        """
        if self.linear is None:
            raise ParameterError(
                "Rule.signal", "must be linear and vanish at rest for a closed form", self.signal
            )
        together = self.linear.rate + self.linear.common
        if self.per_presentation:
            return np.full(np.shape(alpha), together)
        return together / (1 + np.asarray(alpha, dtype=float))

    @property
    def _names(self) -> set[str]:
        return {str(symbol) for symbol in str_to_sympy(self.signal).free_symbols}


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "mean_subtracted",
            "z - z_mean",
            "ideal rule, Eq. 4: descends the variance of the drive over the pool",
        ),
        Rule(
            "circuit",
            "r - b",
            "local rule of the circuit, Eq. 9: anti-Hebbian in the rate above its baseline",
        ),
        Rule(
            "inhibition_gated",
            "r - b - r_inh",
            "not in the paper: the circuit's rule less the interneuron's rate",
        ),
    )
}
