from .loss import SPGLoss, spg_loss
from .r_drop import divergence

__all__ = ["SPGLoss", "divergence", "spg_loss"]
