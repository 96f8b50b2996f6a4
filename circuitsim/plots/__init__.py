"""Figures, drawn without touching the state of matplotlib.pyplot."""

from circuitsim.plots.benchmarks import timings
from circuitsim.plots.convergence import figure4, sweep
from circuitsim.plots.style import save

__all__ = ["figure4", "save", "sweep", "timings"]
