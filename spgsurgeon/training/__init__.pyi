from .assembling import make_retraining
from .data import choose_cache, decoded_pictures_in, open_data, open_training, settled_preprocessing
from .evaluation import evaluate, evaluation_batches
from .loop import Retraining
from .optimization import make_schedule
from .plan import kept_for_backward
from .prediction import Logits, logits_of
from .preparing import Case, prepare
from .run import train
from .settling import inputs_of
from .soundness.image_sizes import for_images_of
from .soundness.labels import CLASS_ORDERS, names_of, table_of, with_models_labels, with_models_order, with_trained_map
from .soundness.number_guard import NonFiniteError
from .statistics import EpisodeStatistics
from .timing import time_steps

__all__ = [
    "CLASS_ORDERS",
    "Case",
    "EpisodeStatistics",
    "Logits",
    "NonFiniteError",
    "Retraining",
    "choose_cache",
    "decoded_pictures_in",
    "evaluate",
    "evaluation_batches",
    "for_images_of",
    "inputs_of",
    "kept_for_backward",
    "logits_of",
    "make_retraining",
    "make_schedule",
    "names_of",
    "open_data",
    "open_training",
    "prepare",
    "settled_preprocessing",
    "table_of",
    "time_steps",
    "train",
    "with_models_labels",
    "with_models_order",
    "with_trained_map",
]
