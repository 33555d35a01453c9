"""What loaders notice of the samples that they read, and what is said of it in the end.

Nothing is read for that: what was not read by the time it is said was not noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spgsurgeon.data.sources.source import Source, listing
from spgsurgeon.data.sources.traits import Traits
from spgsurgeon.data.transforms.masks import BORDER, IGNORED
from spgsurgeon.errors import DataError
from spgsurgeon.runtime import Processes

_SAID = {
    Traits.ORIENTED: "carry an EXIF orientation, which was not applied (nor do timm and torchvision)",
    Traits.TRANSPARENT: "are transparent in parts: alpha was dropped (as by timm and torchvision)",
    Traits.DEEP: "have 16 bits of grey, which were scaled to 8 from 0 to 65535 (data.value_range says another range; "
    "eval: --value-range)",
    Traits.CUT: "are longer than the model reads, and were cut (data.max_length, data.max_seconds; eval: --max-length, "
    "--max-seconds)",
    Traits.EMPTY: "have an empty text, or a word of which no token is made, and that is not scored",
    Traits.LOST: "have their answer in what was cut away: they teach nothing, and are wrong when scored",
    Traits.RESAMPLED: "were recorded at another rate than the model's, and were resampled",
}


class Noticed(NamedTuple):
    """What was noticed of some samples: the number and the `Traits` of those that have any, and pixels by class.

    `drawn` is int64 [C + 1], the pixels of whole masks by class, those ignored last; None if they were not counted.
    """

    traits: list[tuple[int, int]]
    drawn: Tensor | None = None


class Seen:
    """What was noticed of a data set so far: `traits`, uint8 [N], by sample, and `drawn` as `Noticed` has it."""

    def __init__(self, samples: int) -> None:
        self.traits: NDArray[np.uint8] = np.zeros(samples, dtype=np.uint8)
        self.drawn: Tensor | None = None

    def add(self, noticed: Noticed) -> None:
        """Count it in; a sample that is noticed again is not another one, pixels are."""
        for number, traits in noticed.traits:
            self.traits[number] |= traits
        if noticed.drawn is not None:
            self.drawn = noticed.drawn if self.drawn is None else self.drawn + noticed.drawn


def count_drawn(mask: Tensor, classes: int) -> Tensor:
    """Return the pixels of a mask by class, those ignored last: int64 [C + 1]."""
    ids = np.where(mask.numpy() == IGNORED, classes, mask.numpy())
    return torch.from_numpy(np.bincount(ids.ravel(), minlength=classes + 1))


def over_processes(traits: NDArray[np.uint8], processes: Processes) -> NDArray[np.uint8]:
    """Return what any of the processes noticed of each sample."""
    everyone = processes.joined({str(processes.rank): traits.tobytes().hex()}).values()
    noticed: NDArray[np.uint8] = np.bitwise_or.reduce(
        [np.frombuffer(bytes.fromhex(own), dtype=np.uint8) for own in everyone]
    )
    return noticed


def said_of_traits(traits: NDArray[np.uint8], source: Source[Any]) -> list[str]:
    """Return what to say of the traits of a source's samples, uint8 [N]."""
    return [
        f"{count} of the {len(source)} samples of {source.name} {text}"
        for trait, text in _SAID.items()
        if (count := int(np.count_nonzero(traits & trait)))
    ]


def said_of_masks(drawn: Sequence[int], source: Source[Any]) -> list[str]:
    """Return what to say of a source's masks: classes without a pixel, and the share of pixels that are ignored."""
    said, names = [], source.classes
    if missing := [name for name, count in zip(names, drawn[:-1], strict=True) if not count]:
        said.append(f"{len(missing)} of the {len(names)} classes have no pixel in {source.name}: {listing(missing)}")
    if drawn[-1]:
        share = f"{100 * drawn[-1] / sum(drawn):.2g} %"
        said.append(f"{share} of the pixels of {source.name} are ignored: they are not scored and teach nothing")
    return said


def check_drawn(drawn: Sequence[int], source: Source[Any]) -> None:
    """Raise DataError for masks of one class, where 255 is ignored and nobody said so: it may be the other class."""
    present = [name for name, count in zip(source.classes, drawn[:-1], strict=True) if count]
    if len(present) > 1 or not drawn[-1] or not getattr(source, "border_assumed", False):
        return
    raise DataError(
        f"the masks of {source.name} hold one class, {present[0]!r}, and {BORDER}, which is ignored as nobody says "
        "otherwise: any model would score 100",
        hint=f"if {BORDER} is a class, say which: data.mask_values={{{BORDER}: 1}} (eval: --mask-value {BORDER}=1); if "
        f"it is to be ignored, say that: data.ignore=[{BORDER}] (eval: --ignore {BORDER})",
    )
