"""What was asked of `eval`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spgsurgeon.errors import UsageError
from spgsurgeon.recipe import known_range
from spgsurgeon.runtime import known_device

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class EvaluationRequest:
    """A model, the data to score it on, and how. Raises UsageError for what no model or data could take."""

    model: str
    data: str
    """A folder, `digits`, the name of a data set that timm reads, or a form such as `wds`, `voc` or `texts`."""
    path: Path | None = None
    """Where data by name lies."""
    split: str = "val"
    weights: str | None = None
    arch: str | None = None
    map_keys: str | None = None
    """For weights with others' keys; all three see `ModelRequest`."""
    image_size: int | tuple[int, int] | None = None
    """In pixels (None: the model's own): what the shorter edge is resized to. Two numbers are the height and width
    that the model of a bare file was built for."""
    test_size: bool = False
    """Take the size and the crop that timm tests the weights with, if they are not those of training."""
    ignore: Sequence[int] | None = None
    """Mask values that are not scored. None here and below: as in the model's training, which the notes then say."""
    mask_values: Mapping[int, int] | None = None
    """Which class other mask values stand for."""
    value_range: tuple[float, float] | None = None
    """Which values are black and white in grey of more than 8 bits."""
    max_pixels: int | None = None
    """The most pixels of an image; None is Pillow's own limit."""
    unreadable: str | None = None
    """"stop" at samples that can't be used, or "skip", which leaves them out and lists them."""
    common_classes: bool = False
    """Leave out images of classes that the model lacks."""
    class_order: str = "auto"
    """The order of class folders, "natural" (timm's) or "code-point" (torchvision's), which goes before names. "auto"
    goes by names, and without them takes timm's for weights of its training script."""
    columns: Mapping[str, str] | None = None
    """The columns of a table, by what they hold."""
    max_length: int | None = None
    """The most tokens of a text."""
    max_seconds: float | None = None
    """The most of a sound."""
    metric: str | None = None
    """The score that comes first."""
    class_map: Mapping[str, str] | str | None = None
    """What the model calls classes that have other names in the data, or a file of that."""
    by_class: bool = False
    """Return all confusions, and the matrix of up to 2,000 classes."""
    batch_size: int = 64
    workers: int | None = None
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        try:
            known_device(self.device)
        except ValueError as error:
            raise UsageError(f"--device: {error}") from error
        if self.precision not in PRECISIONS:
            raise UsageError(f"{self.precision!r} is not a precision", hint=f"there are {', '.join(PRECISIONS)}")
        if self.unreadable not in (None, "stop", "skip"):
            raise UsageError(
                f"--unreadable is stop or skip (got {self.unreadable!r})", hint="skip leaves images out, and lists them"
            )
        try:
            known_range(self.value_range) if self.value_range is not None else None
        except ValueError as error:
            raise UsageError(f"--value-range: {error}", hint="such as --value-range 0 4095") from error

    @property
    def shorter_edge(self) -> int | None:
        """Pixels that the shorter edge of an image is resized to, if they were asked for."""
        return self.image_size if isinstance(self.image_size, int) else None

    @property
    def built_for(self) -> tuple[int, int] | None:
        """Height and width that the model of a bare file was built for, if they were given."""
        return self.image_size if isinstance(self.image_size, tuple) else None
