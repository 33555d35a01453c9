"""From an image file to 8 bits of RGB: the one place that opens images, whichever source they come from.

It does what timm and torchvision do, `Image.open(file).convert("RGB")`: alpha is dropped, palettes, CMYK and the like
are converted, an EXIF orientation is not applied (Pillow itself turns TIFF), of several frames the first counts. Grey
of more than 8 bits is the exception: Pillow would cut it off at 255, and nearly everything would be white. Here it is
scaled.

Only `FORMATS` are opened: others make Pillow start programs (Ghostscript) or run decoders that hardly anybody tests.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from spgsurgeon.data.sources.traits import Traits
from spgsurgeon.errors import DataError


class _Format(NamedTuple):
    """A format as Pillow names it, by the module that reads it, a part that Pillow may be built without, endings."""

    module: str
    part: str
    endings: tuple[str, ...]


_KNOWN = {
    "JPEG": _Format("JpegImagePlugin", "_imaging", (".jpg", ".jpeg", ".jfif")),
    "PNG": _Format("PngImagePlugin", "_imaging", (".png",)),
    "PPM": _Format("PpmImagePlugin", "_imaging", (".ppm", ".pgm")),
    "BMP": _Format("BmpImagePlugin", "_imaging", (".bmp",)),
    "TIFF": _Format("TiffImagePlugin", "_imaging", (".tif", ".tiff")),
    "WEBP": _Format("WebPImagePlugin", "_webp", (".webp",)),
    "GIF": _Format("GifImagePlugin", "_imaging", (".gif",)),
    "AVIF": _Format("AvifImagePlugin", "_avif", (".avif",)),
}
_READABLE = {name: form for name, form in _KNOWN.items() if importlib.util.find_spec(f"PIL.{form.part}")}
for _form in _READABLE.values():
    importlib.import_module(f"PIL.{_form.module}")  # or Pillow would load every module it has to find one of these
FORMATS = tuple(_READABLE)
"""The formats that are opened, by Pillow's names: those of the table above that it is built with."""
ENDINGS = tuple(ending for form in _READABLE.values() for ending in form.endings)
"""Endings of the files that are taken for images, in lower case."""

_TRAITS, _MODE = "spgsurgeon", "spgsurgeon mode"  # in an image's info
_PHOTOMETRIC, _BITS = 262, 258  # TIFF's tags
_WHITE_IS_ZERO = 0
_EXIF = b"Exif\0\0"  # before what is laid out as a TIFF
_SHORT = 3  # the type of a tag of 16 bits


@dataclass(frozen=True)
class Decoding:
    """How images are decoded where they don't say it themselves.

    `value_range` holds the values that are black and white in grey of more than 8 bits; None: 0 and the highest that 16
    bits (12 in TIFF of 12) have, and other depths are refused. `max_pixels` is the most pixels of an image; None: what
    Pillow allows.
    """

    value_range: tuple[float, float] | None = None
    max_pixels: int | None = None


AS_IS = Decoding()
"""As the files say it."""


def decode(file: str | Path | BinaryIO, decoding: Decoding = AS_IS) -> Image.Image:
    """Return the image in a file in RGB, decoded. Raises what `opened`, `as_rgb` and Pillow's decoders do."""
    with _stream(file) as stream, _open(stream, decoding) as image:
        return as_rgb(image, decoding)


@contextmanager
def opened(file: str | Path | BinaryIO, decoding: Decoding = AS_IS) -> Iterator[Image.Image]:
    """Open an image file inside the block; its pixels are not decoded yet.

    Raises DataError for a path that is not a regular file, for content that is none of `FORMATS`, and for an image of
    too many pixels.
    """
    with _stream(file) as stream, _open(stream, decoding) as image:
        yield image


def as_rgb(image: Image.Image, decoding: Decoding = AS_IS) -> Image.Image:
    """Return an opened image in RGB, decoded: the file that it is read from may be closed then.

    `traits_of` tells what was noticed. Raises DataError for grey whose range nobody says, or that holds NaN.
    """
    image.load()  # first: Pillow turns a TIFF here, and reads what stands behind the pixels of a PNG
    info = image.info
    exif = info.get("exif")
    turned = isinstance(exif, bytes) and _orientation(exif) > 1
    if image.mode == "RGB" and not turned and "transparency" not in info:
        for key in (_TRAITS, _MODE):  # files bring texts of their own
            info.pop(key, None)
        return image
    traits = Traits.ORIENTED if turned else Traits(0)
    if image.mode[0] in "IF":  # I, I;16 of both byte orders, F
        rgb = _scaled(image, decoding)
        traits |= Traits.DEEP if decoding.value_range is None else 0
    else:
        traits |= Traits.TRANSPARENT if _shows_through(image) else 0
        info.pop("transparency", None)  # Pillow warns that it is lost
        rgb = image if image.mode == "RGB" else image.convert("RGB")
    set_traits(rgb, traits)
    rgb.info[_MODE] = image.mode
    return rgb


def traits_of(sample: object) -> Traits:
    """Return what was noticed when an image was decoded; nothing of a sample that is none."""
    traits = sample.info.get(_TRAITS, 0) if isinstance(sample, Image.Image) else 0
    return traits if isinstance(traits, Traits) else Traits(0)


def mode_of(image: Image.Image) -> str:
    """Return the mode that Pillow had for a decoded image's file: RGB, L, P, CMYK, I;16 and so on."""
    return str(image.info.get(_MODE, image.mode))


def set_traits(image: Image.Image, traits: Traits) -> None:
    """Note with a decoded image what was noticed."""
    image.info[_TRAITS] = traits


def _stream(file: str | Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    return open(file, "rb", opener=_open_regular) if isinstance(file, str | Path) else nullcontext(file)


def _open_regular(path: str, flags: int) -> int:
    """Open a file and return its descriptor. Raises DataError for a pipe or a device, which could be waited for."""
    number = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if stat.S_ISREG(os.fstat(number).st_mode):
        return number
    os.close(number)
    raise DataError("it is not a regular file")


def _open(stream: BinaryIO, decoding: Decoding) -> Image.Image:
    _raise_pillows_limit(decoding.max_pixels)
    try:
        image = Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError:  # whose message names a buffer
        raise DataError(f"its content is not an image of a format that is read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError as error:
        pixels, limit = (int(number) for number in re.findall(r"\d+", str(error))[:2])
        raise _too_large(pixels, limit) from error
    pixels = image.width * image.height
    if decoding.max_pixels is not None and pixels > decoding.max_pixels:
        image.close()
        raise _too_large(pixels, decoding.max_pixels)
    return image


def _raise_pillows_limit(pixels: int | None) -> None:
    """Let Pillow open and crop images of so many pixels in this process: it has one limit, looked at in both."""
    if pixels is not None and Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = pixels


def _too_large(pixels: int, limit: int) -> DataError:
    return DataError(
        f"it has {pixels:,} pixels, more than the {limit:,} that are allowed",
        hint=f"a file made to fill the memory looks like that; if the image is sound, data.max_pixels={pixels} (eval: "
        f"--max-pixels {pixels}) allows it, at about {3 * pixels / 2**30:.1f} GiB for each loader process",
    )


def _orientation(exif: bytes) -> int:
    """Return the orientation that EXIF says: 1 is upright, as is an image that says none.

    Only that tag is read: Pillow's `getexif` reads all of them, which costs some per cent of a small image's decoding,
    and warns of those that are damaged.
    """
    start = len(_EXIF) if exif.startswith(_EXIF) else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    if order is None:
        return 1
    with suppress(struct.error):  # it ends too early
        place = start + struct.unpack_from(f"{order}I", exif, start + 4)[0]
        for entry in range(struct.unpack_from(f"{order}H", exif, place)[0]):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", exif, place + 2 + 12 * entry)
            if tag == ExifTags.Base.Orientation:
                return int(value) if (kind, count) == (_SHORT, 1) and 1 <= value <= 8 else 1
    return 1


def _shows_through(image: Image.Image) -> bool:
    """Return whether some pixel is transparent; of a palette, whether some colour of it is."""
    if image.mode[-1] in "Aa":
        low: Any = image.getchannel(image.mode[-1]).getextrema()[0]
        return bool(low < 255)
    return "transparency" in image.info


def _scaled(image: Image.Image, decoding: Decoding) -> Image.Image:
    """Return grey of more than 8 bits in RGB: rounded, and cut off outside its range."""
    black, white = decoding.value_range or _range_of(image)
    values: NDArray[Any] = np.asarray(image).astype(np.float64)
    if np.isnan(values).any():
        raise DataError("some of its values are NaN")
    levels = np.clip(np.rint((values - black) * (255 / (white - black))), 0, 255).astype(np.uint8)
    return Image.fromarray(levels).convert("RGB")


def _range_of(image: Image.Image) -> tuple[int, int]:
    """Return which values are black and white, by the file's own word. Raises DataError if it has none."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    if image.mode.startswith("I;16") or (image.format in ("PPM", "PNG") and image.mode == "I"):
        highest = 2**12 - 1 if tags.get(_BITS) == (12,) else 2**16 - 1
        return (highest, 0) if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else (0, highest)
    kind = "floating-point numbers" if image.mode == "F" else "whole numbers of up to 32 bits"
    low, high = image.getextrema()
    raise DataError(
        f"its pixels are {kind}, here {low:g} to {high:g}, and it does not say which are black and white",
        hint="say it for all images: data.value_range=[0, 1], for instance (eval: --value-range 0 1)",
    )
