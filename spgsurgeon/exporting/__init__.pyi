from .card import model_card
from .card_metadata import Evaluation
from .file_metadata import ARCHITECTURE, CLASS_NAMES, DESCRIPTION, PREPROCESSING, file_metadata
from .layout import CARD, FILES, GRAPHS, OPSETS, SUFFIXES
from .onnx_file import OnnxReport, check_onnx, export_onnx
from .onnx_model import OnnxModel
from .program_file import export_program
from .silence import silenced
from .subject import Comparison, check_outputs

__all__ = [
    "ARCHITECTURE",
    "CARD",
    "CLASS_NAMES",
    "DESCRIPTION",
    "FILES",
    "GRAPHS",
    "OPSETS",
    "PREPROCESSING",
    "SUFFIXES",
    "Comparison",
    "Evaluation",
    "OnnxModel",
    "OnnxReport",
    "check_onnx",
    "check_outputs",
    "export_onnx",
    "export_program",
    "file_metadata",
    "model_card",
    "silenced",
]
