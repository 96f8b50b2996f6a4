"""Many runs: grids of circuits, their cells on disk, and what is made of them."""

from circuitsim.public import lazy

__getattr__, __dir__, __all__ = lazy(__name__, __file__)  # the names are in __init__.pyi
