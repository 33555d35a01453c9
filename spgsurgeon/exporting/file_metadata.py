"""What an exported graph says of itself: text by key, as ONNX's metadata_props and a .pt2 file's extra file hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from spgsurgeon.models import Preprocessing
from spgsurgeon.runtime import as_json


def file_metadata(
    architecture: str,
    content_hash: str,
    preprocessing: Preprocessing,
    image_size: tuple[int, int],
    class_names: Sequence[str] | None,
    license: str | None,
) -> dict[str, str]:
    """Return what is known: architecture, content hash, preprocessing, class names, license; what is not is left out.

    `preprocessing` (JSON) says what happens to an image before the graph sees it, for the graph's own `image_size`
    (height, width): see `Preprocessing`. `class_names` is a JSON list by label. `content_hash` is that of the weights
    that the graph was made from.
    """
    shown = asdict(preprocessing) | {"input_size": [preprocessing.input_size[0], *image_size]}
    found = {"architecture": architecture, "content_hash": content_hash, "preprocessing": as_json(_known(shown))}
    if class_names:
        found["class_names"] = as_json(list(class_names))
    if license:
        found["license"] = license
    return found


def _known(values: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None and not key.startswith("test_")}
