"""Which model the weights of a file are, and the image size that only their shapes tell."""

from __future__ import annotations

from typing import Any

from spgsurgeon.errors import UsageError
from spgsurgeon.loading.locating import Located
from spgsurgeon.loading.recognising import Recognition, refusal
from spgsurgeon.models import (
    Identity,
    library,
    resolve_architecture,
)


def identify(located: Located, recognition: Recognition, image_size: tuple[int, int] | None) -> Identity:
    """Return what `config.json`, `--arch` or the file says the model is, else the only architecture that fits.

    What the shapes of the weights call for is not in it, unless `config.json` says it.
    """
    if located.config is not None:
        if image_size is not None:
            raise size_is_known(located.source)
        return library(located.config.get("library", "timm")).identity_from_config(located.config)
    match = recognition.match
    if recognition.said is None and match is None:
        raise refusal(located, recognition)
    name = match.entry.name if match is not None else str(recognition.said)
    owner, architecture = resolve_architecture(name)
    outline, says = located.outline, dict(located.outline.model_args)
    if outline.architecture is None or architecture != outline.architecture.partition(".")[0]:
        says = {key: value for key, value in says.items() if key == "num_classes"}  # the rest is of another model
    if image_size is not None:
        if owner == "torchvision":  # whose transformers are square: their positions tell
            raise size_is_known(f"torchvision's {architecture}")
        says = _at_size(says, image_size)
    _, _, tag = (recognition.said or "").partition(".")
    return library(owner).identity_from_checkpoint(f"{architecture}.{tag}" if tag else architecture, says)


def _at_size(says: dict[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Return the arguments that a training script would have recorded for images of (height, width) pixels."""
    further = {key: value for key, value in (says.get("model_kwargs") or {}).items() if key != "img_size"}
    others = {key: value for key, value in says.items() if key not in ("input_size", "model_kwargs")}
    return others | {"img_size": list(image_size)} | ({"model_kwargs": further} if further else {})


def inferred_size(asked: Identity, fitted: Identity) -> list[str]:
    """Return the note on an image size that nobody gave and the number of positions leaves open."""
    name = "image_size" if fitted.library == "torchvision" else "img_size"
    size = fitted.model_args.get(name)
    if size is None or name in asked.model_args:
        return []
    other = "" if fitted.library == "torchvision" else " (--image-size HxW gives another with as many)"
    return [f"the image size is inferred from the number of positions, as a square: {size} x {size} pixels{other}"]


def size_is_known(source: str) -> UsageError:
    """Return the error for an image size that somebody gave although `source` says it."""
    return UsageError(
        f"--image-size is for the weights of a bare file; {source} says its own",
        hint="leave --image-size out",
        code="image-size-known",
    )
