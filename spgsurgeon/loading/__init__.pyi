from .locating import Located, locate, resolve_folder
from .opening import OpenedModel, in_float32, non_finite, open_model, refuse_unsound, state_of
from .recognising import Recognition, recognize, refusal
from .request import ModelRequest
from .transformers_folder import read_folder

__all__ = [
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
