"""circuitsim: how a cortical circuit could learn shared weights.

A simulator of the rate circuit of Pogodin, Mehta, Lillicrap and Latham (NeurIPS 2021), in which an
inhibitory interneuron and a local plasticity rule pull the weights of a pool of neurons together.
"""

from circuitsim.public import lazy
from circuitsim.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy(__name__, __file__)  # the names are in __init__.pyi
