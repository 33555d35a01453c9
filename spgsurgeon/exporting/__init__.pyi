from .card import model_card
from .card_metadata import Evaluation
from .layout import CARD, FILES
from .onnx_file import check_outputs, export_onnx
from .silence import silenced

__all__ = ["CARD", "FILES", "Evaluation", "check_outputs", "export_onnx", "model_card", "silenced"]
