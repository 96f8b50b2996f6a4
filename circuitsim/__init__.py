"""circuitsim: how a cortical circuit could learn shared weights.

A simulator of the rate circuit of Pogodin, Mehta, Lillicrap and Latham (NeurIPS 2021), in which an
inhibitory interneuron and a local plasticity rule pull the weights of a pool of neurons together.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Loaded when first used: importing Brian2 takes a second, which `--help` should not.
_HOMES = {
    "Circuit": "parameters",
    "ConstantRate": "schedules",
    "HyperbolicRate": "schedules",
    "InverseSqrtRate": "schedules",
    "ParameterError": "validation",
    "Plasticity": "parameters",
    "describe": "description",
    "export_weights": "studies.export",
    "load": "studies.results",
    "load_weights": "studies.results",
    "log_spaced": "engines.simulation",
    "simulate": "engines.simulation",
    "transfer": "engines.transfer",
}
_MODULES = ("inputs", "measures", "rules", "studies", "theory", "vision")

__all__ = [
    "Circuit",
    "ConstantRate",
    "HyperbolicRate",
    "InverseSqrtRate",
    "ParameterError",
    "Plasticity",
    "__version__",
    "describe",
    "export_weights",
    "inputs",
    "load",
    "load_weights",
    "log_spaced",
    "measures",
    "rules",
    "simulate",
    "studies",
    "theory",
    "transfer",
    "vision",
]

if TYPE_CHECKING:
    from circuitsim import inputs, measures, rules, studies, theory, vision
    from circuitsim.description import describe
    from circuitsim.engines.simulation import log_spaced, simulate
    from circuitsim.engines.transfer import transfer
    from circuitsim.parameters import Circuit, Plasticity
    from circuitsim.schedules import ConstantRate, HyperbolicRate, InverseSqrtRate
    from circuitsim.studies.export import export_weights
    from circuitsim.studies.results import load, load_weights
    from circuitsim.validation import ParameterError


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"circuitsim.{name}")
    if name in _HOMES:
        return getattr(import_module(f"circuitsim.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'circuitsim' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
