"""The model libraries this package knows, and the ways to name one of their models."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from spgsurgeon.errors import ArchitectureError, UsageError, closest, did_you_mean
from spgsurgeon.models.libraries.identity import Library
from spgsurgeon.models.recognition.catalogue import catalogue

_IMPLEMENTATIONS = {
    "timm": ("spgsurgeon.models.libraries.timm_library", "TimmLibrary"),
    "torchvision": ("spgsurgeon.models.libraries.torchvision_library", "TorchvisionLibrary"),
    "transformers": ("spgsurgeon.models.libraries.transformers_library", "TransformersLibrary"),
}
LIBRARIES = ("timm", "torchvision")
"""Those whose weights are recognised by keys and shapes alone; weights of others come with a config.json."""

_TRANSFORMERS = "transformers/"
_PREFIXES = {"timm/": "timm", "timm:": "timm", "torchvision/": "torchvision", "tv/": "torchvision"}


@dataclass(frozen=True)
class NamedModel:
    """A model by name: `architecture` of `library`, with the weights `tag` (None: the library's default)."""

    library: str
    architecture: str
    tag: str | None


@cache
def library(name: str) -> Library:
    """Return the library of that name; importing it can take a second, so only what is asked for is imported."""
    module, attribute = _IMPLEMENTATIONS[name]
    implementation: Library = getattr(import_module(module), attribute)()
    return implementation


def parse_model(text: str) -> NamedModel | Path:
    """Return what a MODEL argument means: a named model, or the path of an existing file or folder.

    Raises UsageError for text that is neither, naming the forms there are.
    """
    if text.startswith("hf-hub:"):
        return NamedModel("timm", text, None)
    if text.startswith(_TRANSFORMERS):  # whose names may have dots, and no tags
        return NamedModel("transformers", text.removeprefix(_TRANSFORMERS), None)
    if text.startswith("local-dir:"):
        return _existing(text.removeprefix("local-dir:"))
    for prefix, name in _PREFIXES.items():
        if text.startswith(prefix):
            architecture, _, tag = text.removeprefix(prefix).partition(".")
            return NamedModel(name, architecture, tag or None)
    return _existing(text)


def resolve_architecture(text: str) -> tuple[str, str]:
    """Return (library, architecture) for the value of `--arch`: `timm/resnet18`, or a bare name only one library has.

    Raises ArchitectureError for an unknown name, and for a bare one that several libraries have.
    """
    named = next((n for p, n in _PREFIXES.items() if text.startswith(p)), None)
    if named is None and "/" in text:
        raise ArchitectureError(
            f"{text!r} is of no library that is known here", hint="--arch is timm/NAME or torchvision/NAME"
        )
    bare = text.partition("/")[2] if "/" in text else text.partition(":")[2] if ":" in text else text
    bare = bare.partition(".")[0]
    owners = [n for n in ([named] if named else LIBRARIES) if bare in library(n).architectures()]
    if len(owners) == 1:
        return owners[0], bare
    if owners:
        both = " or ".join(f"{n}/{bare}" for n in owners)
        raise ArchitectureError(f"several libraries have {bare!r}", hint=f"say which: --arch {both}", candidates=owners)
    known = [f"{n}/{a}" for n in ([named] if named else LIBRARIES) for a in library(n).architectures()]
    near = did_you_mean(f"{named or LIBRARIES[0]}/{bare}", known)
    raise ArchitectureError(f"no library has an architecture {text!r}", hint=near)


def _near(bare: str, names: Iterable[str]) -> list[str]:
    """Return the names whose part behind the library's looks most like `bare`."""
    of_bare = {name.partition("/")[2]: name for name in names}
    return [of_bare[near] for near in closest(bare, of_bare)]


def _existing(text: str) -> Path:
    path = Path(text).expanduser()
    if os.path.exists(path):  # False for a name too long, too, where Path.exists raises
        return path
    hint = (
        "MODEL is timm/NAME[.TAG], torchvision/NAME[.WEIGHTS], transformers/NAME, hf-hub:OWNER/NAME, a weights file or "
        "a folder"
    )
    if "/" not in text:
        bare = text.partition(".")[0]
        everything = list(catalogue().entries)  # the libraries themselves take seconds to import
        owners = [f"{n}/{text}" for n in LIBRARIES if f"{n}/{bare}" in everything]
        owners = owners or ([] if "." in text else _near(bare, everything))
        hint = f"did you mean {' or '.join(owners)}? {hint}" if owners else hint
    raise UsageError(f"there is no file or folder {text!r}", hint=hint)
