"""Figures, drawn without touching the state of matplotlib.pyplot."""

from circuitsim.plots.benchmarks import timings
from circuitsim.plots.circuit import overview
from circuitsim.plots.classifiers import classifiers
from circuitsim.plots.companions import endpoint, rates
from circuitsim.plots.convergence import figure4, run, sweep
from circuitsim.plots.evaluation import evaluation
from circuitsim.plots.layer import layer
from circuitsim.plots.predictivity import predictivity
from circuitsim.plots.slept import slept
from circuitsim.plots.style import save
from circuitsim.plots.training import training

__all__ = [
    "classifiers", "endpoint", "evaluation", "figure4", "layer", "overview", "predictivity",
    "rates", "run", "save", "slept", "sweep", "timings", "training",
]  # fmt: skip
