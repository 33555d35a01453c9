from .locating import Located, locate, resolve_folder
from .opened import OpenedModel, in_float32
from .opening import open_model
from .recognising import Recognition, recognize, refusal
from .request import ModelRequest
from .said_of_data import UNTRAINED
from .soundness import non_finite, refuse_unsound, state_of
from .transformers_folder import read_folder

__all__ = [
    "UNTRAINED",
    "Located",
    "ModelRequest",
    "OpenedModel",
    "Recognition",
    "in_float32",
    "locate",
    "non_finite",
    "open_model",
    "read_folder",
    "recognize",
    "refusal",
    "refuse_unsound",
    "resolve_folder",
    "state_of",
]
