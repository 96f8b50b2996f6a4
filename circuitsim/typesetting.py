"""Equations and parameters as text, Markdown, LaTeX and HTML."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuitsim.processwide import load_brian2

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
    "tau_inh": r"\tau_{\mathrm{inh}}",
    "b_inh": r"b_{\mathrm{inh}}",
    "delay": r"d",
    "spread_alpha": r"\mathrm{sd}(\alpha)/\alpha",
    "spread_tau": r"\mathrm{sd}(\tau)/\tau",
    "connect_ei": r"p_{EI}",
    "connect_ie": r"p_{IE}",
    "interneurons": r"M",
    "sigma": r"\sigma",
    "xi": r"\xi_i",
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
_UNITS = {
    "tau": "ms",
    "tau_inh": "ms",
    "delay": "ms",
    "timescale": "ms",
    "onset": "ms",
    "offset": "presentations",
}
_MEANINGS = {
    "n_neurons": "excitatory neurons in the pool",
    "tau": "time constant of the rates",
    "tau_inh": "time constant of the interneuron",
    "sigma": "standard deviation of the rates' noise",
    "b_inh": "baseline rate of the interneuron",
    "delay": "delay of inhibition",
    "interneurons": "interneurons",
    "connect_ei": "probability (or weights) of connections to an interneuron",
    "connect_ie": "probability (or weights) of connections from an interneuron",
    "spread_alpha": "standard deviation of alpha over neurons, share of the mean",
    "spread_tau": "standard deviation of tau over neurons, share of the mean",
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
class Section:
    """Statements in Brian2's syntax under a title, with what their parameters are."""

    title: str
    statements: list[str]  # in Brian2's syntax
    remark: str
    parameters: dict[str, Any]  # shown beside their meaning

    def text(self) -> str:
        """Return it as text."""
        lines = [self.title, *(f"    {s}" for s in self.statements), f"  where {self.remark}"]
        for name, value in self.parameters.items():
            lines.append(f"  {f'{name} = {value}':<27} {_MEANINGS[name]}")
        return "\n".join(lines)

    def markdown(self) -> str:
        """Return it as Markdown."""
        rows = [
            f"| `{name}` | {self._symbol(name)} | {value} | {_MEANINGS[name]} |"
            for name, value in self.parameters.items()
        ]
        table = ["| parameter | symbol | value | meaning |", "|---|---|---|---|", *rows]
        maths = "\n\n".join(f"$${_to_latex(s)}$$" for s in self.statements)
        return f"**{self.title}**\n\n{maths}\n\nwhere {self.remark}\n\n" + "\n".join(table)

    def latex(self) -> str:
        """Return it as LaTeX."""
        lines = [
            re.sub(r" (=|\\leftarrow) ", r" &\1 ", _to_latex(s), count=1) for s in self.statements
        ]
        return f"% {self.title}\n\\begin{{align}}\n  " + " \\\\\n  ".join(lines) + "\n\\end{align}"

    def html(self) -> str:
        """Return it as HTML."""
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


def shown(name: str, value: Any) -> str:
    """Show a parameter's value with its unit; of an array the first numbers."""
    if np.ndim(value) > 1:
        return f"given, {np.shape(value)}"
    numbers = np.atleast_1d(value)
    text = ", ".join(f"{v:g}" for v in numbers[:6]) + (", ..." if len(numbers) > 6 else "")
    if np.ndim(value):
        text = f"[{text}]"
    return f"{text} {_UNITS[name]}" if name in _UNITS else text


def _to_latex(statement: str) -> str:
    load_brian2()
    import sympy
    from brian2.parsing.sympytools import str_to_sympy

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
