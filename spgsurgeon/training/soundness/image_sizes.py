"""Images of the size that a recipe asks for, and models that were built for another one."""

from __future__ import annotations

from dataclasses import replace

import torch

from spgsurgeon.errors import ArchitectureError, UsageError
from spgsurgeon.loading import OpenedModel
from spgsurgeon.models import PREPROCESSOR_FILE, Preprocessing, at_image_size, meta_twin, run_twin
from spgsurgeon.recipe import DataSection

_LISTED = 3


def for_images_of(section: DataSection, opened: OpenedModel) -> OpenedModel:
    """Return the model for images of `data.image_size`, rebuilt for it if its own size is fixed, which its notes say.

    Raises UsageError for a size, that of evaluation too, that the model can't take or be rebuilt for.
    """
    if opened.config_document is not None:
        _check_its_own(section, opened)
    size = section.image_size
    if size is not None and _failure(opened, size) is not None:
        opened = _rebuilt(opened, size)
    if section.eval_image_size is not None and (reason := _failure(opened, section.eval_image_size)) is not None:
        raise _refusal("eval_image_size", section.eval_image_size, reason, opened)
    return opened


def _check_its_own(section: DataSection, opened: OpenedModel) -> None:
    """Raise UsageError for another size than a model's file says, which goes with the weights and is read by others."""
    own = opened.preprocessing
    for key in ("image_size", "eval_image_size"):
        size = getattr(section, key)
        if size is None or not isinstance(own, Preprocessing) or own.input_size[1:] == (size, size):
            continue
        raise UsageError(
            f"data.{key} is {size}, and the {PREPROCESSOR_FILE} of {opened.source} says "
            f"{' x '.join(map(str, own.input_size[1:]))} pixels",
            hint="that file goes with the weights: say the size there, or leave the key out",
        )


def _rebuilt(opened: OpenedModel, size: int) -> OpenedModel:
    if opened.has_replicas:
        raise _refusal("image_size", size, "it is grafted already; give its base, and the recipe grafts it", opened)
    own = opened.preprocessing
    assert isinstance(own, Preprocessing)
    try:
        module, identity, resampled = at_image_size(opened.module, opened.identity, (size, size))
    except ArchitectureError as error:
        raise _refusal("image_size", size, error.message, opened) from error
    found = replace(opened, module=module.eval(), identity=identity)
    if (reason := _failure(found, size)) is not None:
        raise _refusal("image_size", size, reason, opened)
    more = f" and {len(resampled) - _LISTED} more" if len(resampled) > _LISTED else ""
    changed = f"timm resampled {', '.join(resampled[:_LISTED])}{more}" if resampled else "no weight changes for it"
    before = " x ".join(map(str, own.input_size[1:]))
    note = f"the model is rebuilt for images of {size} x {size} pixels instead of {before}: {changed}"
    return replace(found, notes=[*found.notes, note])


def _failure(opened: OpenedModel, size: int) -> str | None:
    """Return why the model can't take square images of a size; None if it can."""
    preprocessing = opened.preprocessing
    if not isinstance(preprocessing, Preprocessing) or preprocessing.input_size[1:] == (size, size):
        return None
    try:
        run_twin(meta_twin(opened.module), torch.empty(1, preprocessing.input_size[0], size, size, device="meta"))
    except ArchitectureError as error:
        return error.message.partition("the model fails: ")[2] or error.message
    return None


def _refusal(key: str, size: int, reason: str, opened: OpenedModel) -> UsageError:
    own = opened.preprocessing
    assert isinstance(own, Preprocessing)
    return UsageError(
        f"data.{key}: the model can't take images of {size} x {size} pixels: {reason}",
        hint=f"leave it out for the model's own {' x '.join(map(str, own.input_size[1:]))}",
        code="image-size",
    )
