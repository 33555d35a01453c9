from .containers.documents import read_document
from .containers.objects import json_object
from .containers.shards import INDEX_SUFFIX
from .differences import Distance, distance, drift, together
from .folders import (
    GraftManifest,
    best_of,
    check_weights,
    checkpoint_at,
    kind_of,
    read_grafted_folder,
    read_json_object,
    read_manifest,
    read_state,
    weights_file_of,
    write_grafted_folder,
)
from .hashing import DTYPE_NAMES, content_hash, layout_hash, same_bits
from .layout import AVERAGE, CONFIG, MANIFEST, OPTIMIZER, RUN_BEST, RUN_RECIPE, STATE, TEMPORARY, WEIGHTS
from .ownership import RECORD, has_own_record, remove_ours, strangers, temporary_of, temporary_stem
from .reading import Outline, read_outline
from .refusals import MalformedError, naming
from .schemas import Document, Hash, Name, Names, Natural, check_schema, fault_of
from .sealing import sealed
from .state_dict.specs import TensorSpec
from .tensors import load_tensors, read_checkpoint, read_safetensors
from .values import content_hash_of, hash_and_non_finite_of
from .writing import (
    atomic_file,
    atomic_folder,
    own_folder,
    refuse_existing,
    refuse_overwriting_input,
    sweep,
    write_failures,
    write_json,
    write_safetensors,
    write_torch,
)

__all__ = [
    "AVERAGE",
    "CONFIG",
    "DTYPE_NAMES",
    "INDEX_SUFFIX",
    "MANIFEST",
    "OPTIMIZER",
    "RECORD",
    "RUN_BEST",
    "RUN_RECIPE",
    "STATE",
    "TEMPORARY",
    "WEIGHTS",
    "Distance",
    "Document",
    "GraftManifest",
    "Hash",
    "MalformedError",
    "Name",
    "Names",
    "Natural",
    "Outline",
    "TensorSpec",
    "atomic_file",
    "atomic_folder",
    "best_of",
    "check_schema",
    "check_weights",
    "checkpoint_at",
    "content_hash",
    "content_hash_of",
    "distance",
    "drift",
    "fault_of",
    "has_own_record",
    "hash_and_non_finite_of",
    "json_object",
    "kind_of",
    "layout_hash",
    "load_tensors",
    "naming",
    "own_folder",
    "read_checkpoint",
    "read_document",
    "read_grafted_folder",
    "read_json_object",
    "read_manifest",
    "read_outline",
    "read_safetensors",
    "read_state",
    "refuse_existing",
    "refuse_overwriting_input",
    "remove_ours",
    "same_bits",
    "sealed",
    "strangers",
    "sweep",
    "temporary_of",
    "temporary_stem",
    "together",
    "weights_file_of",
    "write_failures",
    "write_grafted_folder",
    "write_json",
    "write_safetensors",
    "write_torch",
]
