"""Which architectures the installed libraries have, by the text of their modules: nothing is imported or built."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from spgsurgeon.models.recognition.catalogue import Catalogue, installed_version

_FOLDERS = {"timm": ("models",), "torchvision": ("models", "models/segmentation")}
_REGISTERED = re.compile(r"^@register_model\b.*\n(?:(?!def ).*\n)*?def (\w+)\(", re.MULTILINE)


def new_names(known: Catalogue) -> list[tuple[str, str]]:
    """Return (library, architecture) for what the installed libraries have and the catalogue lacks.

    Nothing where a library is of the catalogue's version.
    """
    changed = [name for name in _FOLDERS if installed_version(name) != known.versions[name]]
    found = [(name, one) for name in changed for one in installed_names(name)]
    return [(name, one) for name, one in found if f"{name}/{one}" not in known.entries]


@cache
def installed_names(library: str) -> tuple[str, ...]:
    """Return the names that the library's modules register models by, sorted; none where its source is not there."""
    spec = find_spec(library)
    places = [
        Path(place, folder)
        for place in (spec and spec.submodule_search_locations) or ()
        for folder in _FOLDERS[library]
    ]
    texts = [file.read_text(encoding="utf-8") for place in places for file in sorted(place.glob("*.py"))]
    return tuple(sorted({name for text in texts for name in _REGISTERED.findall(text)}))
