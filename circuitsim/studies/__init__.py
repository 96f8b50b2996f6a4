"""Questions asked of many runs: each file declares one, and `circuitsim.running` runs it."""

from circuitsim.public import lazy

__getattr__, __dir__, __all__ = lazy(__name__, __file__)  # the names are in __init__.pyi
