"""What an exported graph says of itself: text by key, as ONNX's metadata_props and a .pt2 file's extra file hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spgsurgeon.checkpoint import CONFIG
from spgsurgeon.models import SamplePreprocessing, preprocessing_document
from spgsurgeon.runtime import as_json

ARCHITECTURE, PREPROCESSING, CLASS_NAMES, DESCRIPTION = "architecture", "preprocessing", "class_names", CONFIG


def file_metadata(
    architecture: str,
    content_hash: str,
    config: Mapping[str, Any],
    preprocessing: SamplePreprocessing | None,
    class_names: Sequence[str] | None,
    license: str | None,
) -> dict[str, str]:
    """Return what is known: architecture, content hash, preprocessing, class names, license; what is not is left out.

    `preprocessing` (JSON) says what happens to a sample before the graph sees it: see `SamplePreprocessing`.
    `class_names` is a JSON list by label. `content_hash` is that of the weights that the graph was made from, and
    `config` the `config.json` that belongs beside them.
    """
    found = {ARCHITECTURE: architecture, "content_hash": content_hash, DESCRIPTION: as_json(config)}
    if preprocessing is not None:
        found[PREPROCESSING] = as_json(preprocessing_document(preprocessing))
    if class_names:
        found[CLASS_NAMES] = as_json(list(class_names))
    if license:
        found["license"] = license
    return found
