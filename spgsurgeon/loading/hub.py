"""Models of transformers by their names on the Hugging Face Hub, through the Hub's own cache."""

from __future__ import annotations

from pathlib import Path

from spgsurgeon.checkpoint import CONFIG, INDEX_SUFFIX, WEIGHTS, read_json_object
from spgsurgeon.errors import SurgeonError, UsageError, first_line
from spgsurgeon.loading.transformers_folder import COMPANIONS
from spgsurgeon.models import NamedModel, is_transformers_config

_HUB = "hf-hub:"
_DOCUMENTS = (CONFIG, "adapter_config.json", *COMPANIONS)
_SAFE = (WEIGHTS, f"{WEIGHTS}{INDEX_SUFFIX}", "model-*.safetensors")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin")


def folder_on_hub(named: NamedModel) -> Path | None:
    """Return the folder in the cache that holds a model of transformers by name; None for models of other libraries.

    `transformers/NAME` is one by its form, `hf-hub:OWNER/NAME` by its config.json; behind @ there may be a revision.
    Only its config.json, its weights, safetensors before pickles, and what makes its inputs are fetched. Raises
    UsageError for what can't be such a name or is of another library, SurgeonError if it can't be had.
    """
    of_transformers = named.library == "transformers"
    if not (of_transformers or named.architecture.startswith(_HUB)):
        return None
    tag = f".{named.tag}" if named.tag else ""
    name, _, revision = f"{named.architecture.removeprefix(_HUB)}{tag}".partition("@")
    config = _fetched(name, revision, (CONFIG,)) / CONFIG
    if not config.is_file() or not is_transformers_config(read_json_object(config)):
        if of_transformers:
            raise UsageError(f"{name} is not a model of transformers", hint=f"{_HUB}{name} reads timm's")
        return None
    folder = _fetched(name, revision, (*_DOCUMENTS, *_SAFE))
    if any(any(folder.glob(pattern)) for pattern in _SAFE):
        return folder
    return _fetched(name, revision, (*_DOCUMENTS, *_PICKLED))


def _fetched(name: str, revision: str, files: tuple[str, ...]) -> Path:
    """Return the folder of a repository with these of its files."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(files)))
    except HFValidationError as error:
        raise UsageError(f"{name!r} can't be a name on the Hub: {first_line(error)}", hint="OWNER/NAME") from error
    except (OSError, ValueError) as error:
        raise SurgeonError(
            f"{name} is not in the cache and could not be downloaded: {first_line(error)}",
            hint="check the name and the network (HF_HUB_OFFLINE=1 asks the cache only), or give a folder",
            code="not-on-hub",
        ) from error
