from .commands.bench import bench
from .commands.inspect import inspect
from .commands.modules import export, graft, strip
from .errors import SurgeonError
from .loading.opening import load
from .objective.episode import Episode
from .objective.loss import spg_loss
from .replicas.grafted import GraftedModel
from .replicas.places import Place
from .training.progress import Progress
from .training.run import train

__version__: str

__all__ = [
    "Episode",
    "GraftedModel",
    "Place",
    "Progress",
    "SurgeonError",
    "__version__",
    "bench",
    "export",
    "graft",
    "inspect",
    "load",
    "spg_loss",
    "strip",
    "train",
]
