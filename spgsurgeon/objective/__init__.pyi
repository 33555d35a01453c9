from .chunked_readout import DeferredLogits, read_hidden
from .episode import Weights, shape_of
from .logits import logits_in, named_logits
from .loss import SPGLoss, loss_of_readout, spg_loss
from .r_drop import divergence
from .readout import Readout, read_spans, shift_labels

__all__ = [
    "DeferredLogits",
    "Readout",
    "SPGLoss",
    "Weights",
    "divergence",
    "logits_in",
    "loss_of_readout",
    "named_logits",
    "read_hidden",
    "read_spans",
    "shape_of",
    "shift_labels",
    "spg_loss",
]
