"""Show a model's equations and parameters: the very strings that the network is built from."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy
from brian2.parsing.sympytools import str_to_sympy

from circuitsim import equations
from circuitsim.parameters import Circuit, Plasticity

# LaTeX of the names in the equations, with the paper's symbols and indices.
_SYMBOLS = {
    "r": "r_i",
    "r_inh": r"r_{\mathrm{inh}}",
    "r_mean": r"\frac{1}{N} \sum_j r_j",
    "z": "z_i",
    "z_mean": r"\bar{z}",
    "w": "w_{ij}",
    "w_init": r"w_{ij}^{\mathrm{init}}",
    "x": "x_j",
    "m": "m_{ij}",
    "b": "b",
    "tau": r"\tau",
    "alpha": r"\alpha",
    "gamma": r"\gamma",
    "momentum": r"\mu",
    "rate": r"\eta",
    "elapsed": "t",
    "presented": "p",
    "peak": r"\eta_0",
    "timescale": r"\tau_\eta",
    "onset": r"t_{\mathrm{on}}",
    "scale": r"\eta_0",
    "offset": "p_0",
    "constant_rate": r"\eta_0",
}
_UNITS = {"tau": "ms", "timescale": "ms", "onset": "ms", "offset": "presentations"}
_MEANINGS = {
    "n_neurons": "excitatory neurons in the pool",
    "tau": "time constant of the rates",
    "alpha": "strength of inhibition",
    "b": "baseline rate",
    "gamma": "pull towards the initial weights",
    "momentum": "heavy-ball momentum, of a step of 1 ms or an update",
    "peak": "learning rate of a step of 1 ms at the start",
    "timescale": "decay of the learning rate",
    "onset": "no learning until then",
    "scale": "learning rate times offset at the start",
    "offset": "decay of the learning rate",
    "constant_rate": "learning rate",
}


@dataclass(frozen=True)
class Description:
    """A model's equations and parameters, to read.

    ``print`` shows it as text, a notebook as HTML.

    Attributes
    ----------
    text, markdown, latex : str
        The same in plain text, in Markdown with LaTeX mathematics, and as a LaTeX fragment.
    """

    text: str
    markdown: str
    latex: str
    _html: str

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self._html

    def _repr_markdown_(self) -> str:
        return self.markdown

    def _repr_latex_(self) -> str:
        return self.latex


def describe(circuit: Circuit | None = None, plasticity: Plasticity | None = None) -> Description:
    """Describe a circuit and its plasticity by their equations.

    Parameters
    ----------
    circuit : Circuit, optional
        The published one by default.
    plasticity : Plasticity, optional
        Left out of the description if not given.

    Returns
    -------
    Description
        With ``text``, ``markdown`` and ``latex``; notebooks show it as HTML.

    Examples
    --------
    >>> print(describe(Circuit(n_neurons=10)))
    Circuit (Eqs. 7-8): 10 excitatory neurons and one interneuron
        dr/dt = (-r + z - alpha*r_inh + b)/tau
        dr_inh/dt = (-r_inh + r_mean - b)/tau
      where z = w.x, and r_mean is the mean of r over the neurons
      n_neurons = 10              excitatory neurons in the pool
      tau = 30 ms                 time constant of the rates
      alpha = 10                  strength of inhibition
      b = 1                       baseline rate
    """
    sections = []
    circuit = Circuit() if circuit is None else circuit
    if plasticity is None or not plasticity.definition.per_presentation:
        sections.append(_circuit_section(circuit))
    if plasticity is not None:
        sections.append(_plasticity_section(plasticity))
    return Description(
        text="\n".join(s.text() for s in sections),
        markdown="\n\n".join(s.markdown() for s in sections),
        latex="\n\n".join(s.latex() for s in sections),
        _html="\n".join(s.html() for s in sections),
    )


def plasticity_html(plasticity: Plasticity) -> str:
    """HTML of a rule and its parameters, without a circuit."""
    return _plasticity_section(plasticity).html()


@dataclass(frozen=True)
class _Section:
    title: str
    statements: list[str]  # in Brian2's syntax
    remark: str
    parameters: dict[str, Any]

    def text(self) -> str:
        lines = [self.title, *(f"    {s}" for s in self.statements), f"  where {self.remark}"]
        for name, value in self.parameters.items():
            lines.append(f"  {f'{name} = {value}':<27} {_MEANINGS[name]}")
        return "\n".join(lines)

    def markdown(self) -> str:
        rows = [
            f"| `{name}` | {self._symbol(name)} | {value} | {_MEANINGS[name]} |"
            for name, value in self.parameters.items()
        ]
        table = ["| parameter | symbol | value | meaning |", "|---|---|---|---|", *rows]
        maths = "\n\n".join(f"$${_to_latex(s)}$$" for s in self.statements)
        return f"**{self.title}**\n\n{maths}\n\nwhere {self.remark}\n\n" + "\n".join(table)

    def latex(self) -> str:
        lines = [
            re.sub(r" (=|\\leftarrow) ", r" &\1 ", _to_latex(s), count=1) for s in self.statements
        ]
        return f"% {self.title}\n\\begin{{align}}\n  " + " \\\\\n  ".join(lines) + "\n\\end{align}"

    def html(self) -> str:
        maths = "".join(f"<p>$${html.escape(_to_latex(s))}$$</p>" for s in self.statements)
        rows = "".join(
            f"<tr><td><code>{name}</code></td><td>{self._symbol(name)}</td>"
            f"<td>{html.escape(value)}</td><td>{_MEANINGS[name]}</td></tr>"
            for name, value in self.parameters.items()
        )
        return (
            f"<div><b>{html.escape(self.title)}</b>{maths}<p>where {html.escape(self.remark)}</p>"
            f"<table><tr><th>parameter</th><th>symbol</th><th>value</th><th>meaning</th></tr>"
            f"{rows}</table></div>"
        )

    @staticmethod
    def _symbol(name: str) -> str:
        return f"${_SYMBOLS.get(name, 'N')}$"


def _circuit_section(circuit: Circuit) -> _Section:
    values = {"tau": circuit.tau_ms, "alpha": circuit.alpha, "b": circuit.b}
    return _Section(
        f"Circuit (Eqs. 7-8): {circuit.n_neurons} excitatory neurons and one interneuron",
        [_statement(equations.EXCITATORY), _statement(equations.INTERNEURON)],
        "z = w.x, and r_mean is the mean of r over the neurons",
        {"n_neurons": str(circuit.n_neurons)} | {n: _shown(n, v) for n, v in values.items()},
    )


def _plasticity_section(plasticity: Plasticity) -> _Section:
    rule, learning_rate = plasticity.definition, plasticity.learning_rate
    update = equations.LEARN.strip().replace("signal_post", f"({rule.signal})")
    statements = [re.sub(r"_(pre|post)\b", "", line) for line in update.splitlines()]
    statements.append(f"rate = {learning_rate.expression}")
    if rule.per_presentation:
        how = (
            "once a presentation; z = w.x, z_mean is its mean over the pool, and presented "
            "counts presentations"
        )
    else:
        how = "at every step, with the new rates; elapsed is the time since the start"
    if rule.average is not None:
        how += f"; averaged over inputs it acts like that of {rule.average}"
    values = {"gamma": plasticity.gamma, "momentum": plasticity.momentum}
    for name, value in learning_rate.constants.items():
        values[name] = float(np.asarray(value)) * (1e3 if hasattr(value, "dim") else 1)
    return _Section(
        f"Plasticity: {rule.name}" + (f", {rule.summary}" if rule.summary else ""),
        statements,
        f"the update is made {how}",
        {name: _shown(name, value) for name, value in values.items()},
    )


def _statement(equation: str) -> str:
    """Leave out an equation's unit."""
    return equation.rsplit(":", 1)[0].strip()


def _shown(name: str, value: Any) -> str:
    numbers = np.atleast_1d(value)
    text = ", ".join(f"{v:g}" for v in numbers[:6]) + (", ..." if len(numbers) > 6 else "")
    if np.ndim(value):
        text = f"[{text}]"
    return f"{text} {_UNITS[name]}" if name in _UNITS else text


def _to_latex(statement: str) -> str:
    left, right = (side.strip() for side in statement.split("=", 1))
    # A factor int(condition) switches a term on: that is a case, not arithmetic.
    right, *condition = re.split(r"\*int\((.*)\)$", right)[:2]
    symbols = {
        symbol: _SYMBOLS[str(symbol)]
        for text in (right, *condition)
        for symbol in str_to_sympy(text).free_symbols
    }

    def latex(text: str) -> str:
        return str(sympy.latex(str_to_sympy(text), symbol_names=symbols, order="none"))

    derivative = re.fullmatch(r"d(\w+)/dt", left)
    if derivative:
        shown = rf"\frac{{d {_SYMBOLS[derivative[1]]}}}{{dt}}"
        arrow = "="
    else:
        shown, arrow = _SYMBOLS[left], "=" if left == "rate" else r"\leftarrow"
    case = rf" \quad \text{{for }} {latex(condition[0])}" if condition else ""
    return f"{shown} {arrow} {latex(right)}{case}"
