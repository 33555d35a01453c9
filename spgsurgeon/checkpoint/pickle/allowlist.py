"""The importable names that a weights file may contain: those of tensors, and harmless ones that lie beside them.

Nothing is ever imported by them: a name that is missing here refuses the file, one that is here only says how to read.
"""

from __future__ import annotations

# The dtype of a storage class, by the first part of its name.
STORAGE_DTYPES = {
    "BFloat16": "BF16",
    "Bool": "BOOL",
    "Byte": "U8",
    "Char": "I8",
    "ComplexDouble": "C128",
    "ComplexFloat": "C64",
    "Double": "F64",
    "Float": "F32",
    "Half": "F16",
    "Int": "I32",
    "Long": "I64",
    "Short": "I16",
}
STORAGES = {
    **{f"torch.{name}Storage": dtype for name, dtype in STORAGE_DTYPES.items()},
    **{f"torch.cuda.{name}Storage": dtype for name, dtype in STORAGE_DTYPES.items()},
    "torch.storage.UntypedStorage": "U8",
}

# Every dtype that is read or written, by torch's name for it.
DTYPES = {
    "torch.bool": "BOOL",
    "torch.uint8": "U8",
    "torch.int8": "I8",
    "torch.int16": "I16",
    "torch.uint16": "U16",
    "torch.int32": "I32",
    "torch.uint32": "U32",
    "torch.int64": "I64",
    "torch.uint64": "U64",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e4m3fnuz": "F8_E4M3FNUZ",
    "torch.float8_e5m2": "F8_E5M2",
    "torch.float8_e5m2fnuz": "F8_E5M2FNUZ",
    "torch.float8_e8m0fnu": "F8_E8M0",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float32": "F32",
    "torch.float64": "F64",
    "torch.complex64": "C64",
    "torch.complex128": "C128",
}

# Functions that torch.save writes for a dense tensor, and those that wrap another tensor, their first argument.
REBUILDERS = frozenset(f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3"))
WRAPPERS = frozenset(
    {
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch.nn.parameter.Parameter",
    }
)
FROM_TYPE = "torch._tensor._rebuild_from_type_v2"  # of a tensor with attributes: (function, type, arguments, state)

# Tensors that are not dense values on their own, by what a message calls them.
UNREADABLE = {
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch._utils._rebuild_meta_tensor_no_storage": "on the meta device, so without values",
}

QUANTISED_STORAGES = frozenset(f"torch.{name}Storage" for name in ("QInt8", "QInt32", "QUInt8", "QUInt2x4", "QUInt4x2"))
_SCHEMES = ("per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric")

TORCH_GLOBALS = frozenset(
    {
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.complex",
        "builtins.set",
        "torch.Size",
        "torch.Tensor",
        "torch.device",
        "torch.serialization._get_layout",
        FROM_TYPE,
        *STORAGES,
        *DTYPES,
        *REBUILDERS,
        *WRAPPERS,
        *UNREADABLE,
        "torch._utils._rebuild_qtensor",
        *QUANTISED_STORAGES,
        *(f"torch.{name}" for name in _SCHEMES),
    }
)

# Dictionaries with manners, read as plain ones.
DICT_GLOBALS = frozenset(
    {
        "collections.Counter",
        "collections.OrderedDict",
        "collections.defaultdict",
        "lightning.fabric.utilities.data.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
    }
)

# Objects of which only the attributes matter.
ATTRIBUTE_GLOBALS = frozenset({"argparse.Namespace"})

_PATHS = ("Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")

# Scores, paths, settings and callback states in the training checkpoints of timm, torchvision and Lightning. Reading
# weights needs none of them, so they stay the calls that they are.
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

ALLOWED_GLOBALS = TORCH_GLOBALS | DICT_GLOBALS | ATTRIBUTE_GLOBALS | IGNORED_GLOBALS
