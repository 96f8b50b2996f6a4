"""Images, locally connected layers and networks of them, trained awake and shared asleep."""

from circuitsim.public import lazy

__getattr__, __dir__, __all__ = lazy(__name__, __file__)  # the names are in __init__.pyi
