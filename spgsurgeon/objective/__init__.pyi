from .loss import SPGLoss, loss_of_readout, spg_loss
from .r_drop import divergence
from .readout import Readout, read_spans

__all__ = ["Readout", "SPGLoss", "divergence", "loss_of_readout", "read_spans", "spg_loss"]
