from .assembling import make_retraining, settled_preprocessing
from .data import choose_cache, decoded_pictures_in, open_data, open_training
from .evaluation import evaluate, evaluation_batches
from .loop import Retraining
from .optimization import make_schedule
from .plan import kept_for_backward
from .preparing import Case, prepare
from .run import train
from .settling import inputs_of
from .soundness.number_guard import NonFiniteError
from .statistics import EpisodeStatistics
from .timing import time_steps

__all__ = [
    "Case",
    "EpisodeStatistics",
    "NonFiniteError",
    "Retraining",
    "choose_cache",
    "decoded_pictures_in",
    "evaluate",
    "evaluation_batches",
    "inputs_of",
    "kept_for_backward",
    "make_retraining",
    "make_schedule",
    "open_data",
    "open_training",
    "prepare",
    "settled_preprocessing",
    "time_steps",
    "train",
]
