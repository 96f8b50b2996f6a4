"""Images, locally connected layers and networks of them, trained awake and shared asleep."""

from typing import TYPE_CHECKING, Any

__all__ = ["load"]

if TYPE_CHECKING:
    from circuitsim.vision.estimator import load


def __getattr__(name: str) -> Any:
    if name != "load":
        raise AttributeError(f"module 'circuitsim.vision' has no attribute '{name}'")
    from circuitsim.vision.estimator import load

    return load
