"""How transformers' image classifiers want their images: preprocessor_config.json, read as data, as `Preprocessing`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spgsurgeon.models.preprocessing import Preprocessing
from spgsurgeon.models.preprocessor_file import PreprocessorFile, preprocessor_file
from spgsurgeon.models.sites.transformers_heads import Head

_CHANNELS = 3
_MOST = 8192  # pixels a side
_INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic")  # by Pillow's numbers
_CONVNEXT, _CONVNEXT_WARPS_FROM = "ConvNextImageProcessor", 384  # pixels: from there on nothing is cropped
_HALF = (0.5,) * _CHANNELS
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class _Defaults:
    """What counts in transformers if a file does not say it. `size` and `crop` are in pixels; crop 0 means none.

    `shorter`: a size of one number is the shorter edge.
    """

    size: int
    interpolation: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int = 0
    shorter: bool = False


_PROCESSORS = {
    "ViTImageProcessor": _Defaults(224, 2, _HALF, _HALF),
    "DeiTImageProcessor": _Defaults(256, 3, _HALF, _HALF, crop=224),
    "BeitImageProcessor": _Defaults(224, 3, _HALF, _HALF),
    _CONVNEXT: _Defaults(384, 3, _HALF, _HALF, shorter=True),
    "BitImageProcessor": _Defaults(224, 3, *_CLIP, crop=224, shorter=True),
}
_OF_TYPE = {"deit": "DeiTImageProcessor", "beit": "BeitImageProcessor"} | {
    "convnext": _CONVNEXT,
    "dinov2": "BitImageProcessor",
}


def image_preprocessing(head: Head, config: Any, companions: Sequence[Path], name: str) -> Preprocessing:
    """Return how a model of this class and transformers `config` wants its images; `companions` lie beside its weights.

    Raises UsageError if no preprocessor_config.json is among them, DamagedFileError for values out of bounds, and
    ArchitectureError for what is not reproduced here.
    """
    file = preprocessor_file(companions, name, "how it wants its images")
    kind = _kind(file, head)
    defaults = _PROCESSORS[kind]
    if config.num_channels != _CHANNELS:
        raise file.not_reproduced(f"images of {config.num_channels} channels, and only {_CHANNELS} are")
    for key in ("do_resize", "do_rescale"):
        file.must_be(key, True)
    if not math.isclose(file.number("rescale_factor", 1 / 255, 0, 1), 1 / 255, rel_tol=1e-6):
        raise file.not_reproduced("rescale_factor is not 1/255")
    file.must_be("do_pad", False)
    number = file.whole("resample", defaults.interpolation, 0, 5)
    if number >= len(_INTERPOLATIONS):
        raise file.not_reproduced(f"resample is {number}, and only 0 to {len(_INTERPOLATIONS) - 1} are")
    resized, square = _resized(file, defaults)
    if kind == _CONVNEXT:
        square, cropped, share = _of_convnext(file, resized, square)
    else:
        cropped, share = _cropped(file, defaults, resized, square)
    normalizes = file.flag("do_normalize", True)
    return Preprocessing(
        input_size=(_CHANNELS, *cropped),
        mean=file.numbers("image_mean", defaults.mean, -10, 10) if normalizes else (0.0,) * _CHANNELS,
        std=file.numbers("image_std", defaults.std, 1e-4, 10) if normalizes else (1.0,) * _CHANNELS,
        interpolation=_INTERPOLATIONS[number],
        crop_pct=share,
        crop_mode="squash" if square else "center",
        crop_rounds_down=True,
    )


def _kind(file: PreprocessorFile, head: Head) -> str:
    """Return which of transformers' processors is meant, by its name, that of older versions, or the model's type."""
    said = file.says.get("image_processor_type") or file.says.get("feature_extractor_type")
    if said is None:
        return _OF_TYPE.get(head.family.model_type, "ViTImageProcessor")
    name = str(said).removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    if name not in _PROCESSORS:
        raise file.not_reproduced(f"images are prepared by {said!a:.60}; known are {', '.join(_PROCESSORS)}")
    return name


def _resized(file: PreprocessorFile, defaults: _Defaults) -> tuple[tuple[int, int], bool]:
    """Return the height and width that images are resized to, and whether each edge is by itself."""
    said = file.says.get("size")
    if said is None or type(said) is int:
        side = file.whole("size", defaults.size, 1, _MOST)
        return (side, side), not defaults.shorter
    sides = _sides(file, "size")
    if sides is not None:
        return sides, True
    if isinstance(said, dict) and said.keys() == {"shortest_edge"}:
        side = said["shortest_edge"]
        if type(side) is int and 1 <= side <= _MOST:
            return (side, side), False
    raise file.damaged("size", f"a height and a width, or a shortest_edge, of 1 to {_MOST:,} pixels")


def _sides(file: PreprocessorFile, key: str) -> tuple[int, int] | None:
    """Return a height and a width; None for a size that is said otherwise."""
    said = file.says.get(key)
    if not isinstance(said, dict) or said.keys() != {"height", "width"}:
        return None
    height, width = said["height"], said["width"]
    if type(height) is not int or type(width) is not int or not (1 <= height <= _MOST and 1 <= width <= _MOST):
        raise file.damaged(key, f"a height and a width of 1 to {_MOST:,} pixels")
    return height, width


def _cropped(
    file: PreprocessorFile, defaults: _Defaults, resized: tuple[int, int], square: bool
) -> tuple[tuple[int, int], float]:
    """Return the height and width that the model sees, and the share of the resized edges that they are."""
    if not file.flag("do_center_crop", bool(defaults.crop)):
        if not square:
            raise file.not_reproduced("the shorter edge is resized and nothing cropped, so images have several sizes")
        return resized, 1.0
    crop = _crop(file, defaults)
    share = _share(crop[0], resized[0])
    if tuple(math.floor(side / share) for side in crop) != resized or share > 1:
        raise file.not_reproduced(f"a crop of {crop} from images of {resized}")
    return crop, share


def _of_convnext(file: PreprocessorFile, resized: tuple[int, int], square: bool) -> tuple[bool, tuple[int, int], float]:
    """Return whether a ConvNeXt's images are warped, what it sees of them, and the share of the resized edge."""
    file.must_be("do_center_crop", False)
    if square:
        raise file.not_reproduced("a ConvNeXt's size is not its shortest_edge")
    share = file.number("crop_pct", 224 / 256, 0.05, 1)
    warps = resized[0] >= _CONVNEXT_WARPS_FROM
    return warps, resized, 1.0 if warps else share


def _crop(file: PreprocessorFile, defaults: _Defaults) -> tuple[int, int]:
    said = file.says.get("crop_size")
    if said is None or type(said) is int:
        side = file.whole("crop_size", defaults.crop or 224, 1, _MOST)
        return side, side
    sides = _sides(file, "crop_size")
    if sides is None:
        raise file.damaged("crop_size", "a height and a width")
    return sides


def _share(crop: int, resized: int) -> float:
    """Return a share by which `crop` pixels are of `resized` ones exactly, after rounding down."""
    share = crop / resized
    return share if math.floor(crop / share) == resized else math.nextafter(share, 0)
