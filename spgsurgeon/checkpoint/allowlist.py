"""The importable names that a weights file may contain: those of tensors, and harmless ones that lie beside them."""

from __future__ import annotations

_REBUILDERS = ("_rebuild_parameter", "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
_STORAGES = ("BFloat16", "Bool", "Byte", "Char", "ComplexDouble", "ComplexFloat", "Double", "Float", "Half")
_INTEGER_STORAGES = ("Int", "Long", "Short")
_INTEGERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_FLOATS = ("bfloat16", "float16", "float32", "float64", "complex64", "complex128")
_FLOATS8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
_PATHS = ("Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")

# Read by torch's own weights-only loader.
TORCH_GLOBALS = frozenset(
    {
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.complex",
        "builtins.set",
        "collections.Counter",
        "collections.OrderedDict",
        "torch.Size",
        "torch.Tensor",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.storage.UntypedStorage",
        *(f"torch._utils.{name}" for name in _REBUILDERS),
        *(f"torch.{name}Storage" for name in _STORAGES + _INTEGER_STORAGES),
        *(f"torch.cuda.{name}Storage" for name in _STORAGES + _INTEGER_STORAGES),
        *(f"torch.{name}" for name in _INTEGERS + _FLOATS + _FLOATS8),
    }
)

# Dictionaries with manners, read as plain ones.
DICT_GLOBALS = frozenset(
    {
        "collections.defaultdict",
        "lightning.fabric.utilities.data.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
    }
)

# Scores, paths, settings and callback states in the training checkpoints of timm, torchvision and Lightning. Reading
# weights needs none of them, so their values are dropped unread.
IGNORED_GLOBALS = frozenset(
    {
        "builtins.dict",
        "builtins.float",
        "builtins.int",
        "builtins.list",
        "numpy.dtype",
        "numpy.ndarray",
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
        *(f"pathlib.{name}" for name in _PATHS),
        *(f"pathlib._local.{name}" for name in _PATHS),  # Python 3.13's spelling
        "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
        "torchvision.transforms.functional.InterpolationMode",
    }
)

_KNOWN = TORCH_GLOBALS | DICT_GLOBALS | IGNORED_GLOBALS | {"argparse.Namespace"}

# Protocol 2, torch.save's default, writes builtins under their Python 2 name, and readers translate it back.
_PYTHON_2 = frozenset(name.replace("builtins.", "__builtin__.") for name in _KNOWN if name.startswith("builtins."))

ALLOWED_GLOBALS = _KNOWN | _PYTHON_2
