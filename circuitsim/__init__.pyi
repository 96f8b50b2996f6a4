from . import inputs as inputs
from . import measures as measures
from . import rules as rules
from . import studies as studies
from . import theory as theory
from . import vision as vision
from .description import describe as describe
from .engines.simulation import log_spaced as log_spaced
from .engines.simulation import simulate as simulate
from .engines.transfer import transfer as transfer
from .parameters import Circuit as Circuit
from .parameters import Plasticity as Plasticity
from .schedules import ConstantRate as ConstantRate
from .schedules import HyperbolicRate as HyperbolicRate
from .schedules import InverseSqrtRate as InverseSqrtRate
from .studies.export import export_weights as export_weights
from .studies.results import load as load
from .studies.results import load_weights as load_weights
from .validation import ParameterError as ParameterError

__version__: str
