from .trainer import SPGTrainer

__all__ = ["SPGTrainer"]
