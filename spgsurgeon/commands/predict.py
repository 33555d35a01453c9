"""`spgsurgeon predict`: which class a model sees in images, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spgsurgeon.data import LABELLED, Decoding, decode
from spgsurgeon.errors import DataError, UsageError, first_line
from spgsurgeon.loading import ModelRequest, OpenedModel, in_float32, open_model, refuse_unsound, state_of
from spgsurgeon.models import IMAGES, Preprocessing, call, of_images
from spgsurgeon.replicas import main_output
from spgsurgeon.runtime import autocast, choose_device, choose_precision


def predict(
    model: str,
    files: Sequence[Path],
    *,
    weights: str | None = None,
    arch: str | None = None,
    map_keys: str | None = None,
    image_size: int | None = None,
    top: int = 1,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "auto",
) -> dict[str, Any]:
    """Return the document of `predict --json`: for each image file the `top` classes with their probabilities.

    Images are prepared as `eval` prepares them. Classes have the model's names, or numbers if it has none. Raises
    UsageError for a model that is not an image classifier, DataError naming a file that can't be read.
    """
    request = ModelRequest(model, weights=weights, arch=arch, map_keys=map_keys, graphs=True)
    opened = in_float32(open_model(request), "scored")
    refuse_unsound(state_of(opened.module))
    if opened.task.samples != LABELLED or not opened.task.has_classes:
        raise UsageError(
            f"{model} predicts {opened.task.predicts}; predict is for models that give an image one class",
            hint="`spgsurgeon eval` scores it on a data set",
        )
    preprocessing = of_images(opened.preprocessing, model).at(image_size)
    names = opened.label_names or [str(label) for label in range(opened.identity.num_classes)]
    rows: list[dict[str, Any]] = []
    for first in range(0, len(files), batch_size):
        some = files[first : first + batch_size]
        probabilities = _probabilities(opened, preprocessing, some, device, precision)
        rows += [
            {"file": str(file), **_best(one, names, min(top, len(names)))}
            for file, one in zip(some, probabilities, strict=True)
        ]
    unnamed = [] if opened.label_names else ["the model does not say what its classes are called: these are numbers"]
    return {
        "model": model,
        "predictions": rows,
        **opened.task.size(preprocessing),
        "notes": [*opened.notes, *unnamed],
    }


def _best(probabilities: Tensor, names: Sequence[str], top: int) -> dict[str, Any]:
    """Return the likeliest class of an image, and the `top` ones."""
    values, labels = probabilities.topk(top)
    found = [
        {"class": names[label], "label": label, "probability": value}
        for value, label in zip(values.tolist(), labels.tolist(), strict=True)
    ]
    return found[0] | {"top": found}


@torch.no_grad()
def _probabilities(
    opened: OpenedModel, preprocessing: Preprocessing, files: Sequence[Path], device: str, precision: str
) -> Tensor:
    """Return the probabilities of all classes, float32 [N, C] on the CPU."""
    place = choose_device(device)
    transform: Any = opened.task.evaluation_transform(preprocessing)
    images = torch.stack([_image(file, transform, Decoding(opened.value_range)) for file in files]).to(place)
    module = opened.module.to(place).eval()
    with autocast(place, choose_precision(precision, place)):
        logits = main_output(call(module, {IMAGES: images}))
    return opened.task.readout(logits).float().softmax(1).cpu()


def _image(file: Path, transform: Any, decoding: Decoding) -> Tensor:
    try:
        made: Tensor = transform(decode(file, decoding))
    except Exception as error:  # decoders raise much more than OSError on damaged files
        raise DataError(
            f"{file} can't be read as an image: {first_line(error)}", hint=getattr(error, "hint", None)
        ) from error
    return made
