"""Show a model's equations and parameters: the very strings that the network is built from."""

from __future__ import annotations

from dataclasses import dataclass

from circuitsim.parameters import Circuit, Plasticity, or_published
from circuitsim.public import own

__dir__ = own(__name__)


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
    circuit, _ = or_published(circuit, plasticity)
    if plasticity is None or not plasticity.definition.per_presentation:
        sections.append(circuit.section())
    if plasticity is not None:
        sections.append(plasticity.section())
    return Description(
        text="\n".join(s.text() for s in sections),
        markdown="\n\n".join(s.markdown() for s in sections),
        latex="\n\n".join(s.latex() for s in sections),
        _html="\n".join(s.html() for s in sections),
    )
