"""Images of every mode and format that is read, as files, and each source that reads them."""

from __future__ import annotations

import importlib.util
import io
import json
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image
from timm.data import ImageDataset
from tiny_shards import sample, write_tar
from torchvision.datasets.folder import IMG_EXTENSIONS

from spgsurgeon.data.sources.image_decoding import Decoding
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.sources.source import Source

WIDTH, HEIGHT = 12, 10
LEVELS = np.linspace(0, 65535, WIDTH * HEIGHT).round().reshape(HEIGHT, WIDTH)
"""All the way from black to white, whatever the number of bits: what 16 bits of grey hold."""
GREY8 = np.rint(LEVELS / 257).astype(np.uint8)
"""The same in 8 bits."""


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png(depth: int, colour: int, rows: bytes, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """Return a PNG of a depth that Pillow reads but does not write; `rows` without their filter bytes."""
    stride = len(rows) // height
    filtered = b"".join(b"\0" + rows[start : start + stride] for start in range(0, len(rows), stride))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(filtered)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def colours() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def of_mode(mode: str) -> Image.Image:
    """Return the colours in a mode; with alpha from 0 to 255 where it has one."""
    image = colours().convert(mode if mode != "PA" else "P")
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(GREY8))
    return image


def with_transparent_palette() -> Image.Image:
    image = of_mode("P")
    image.info["transparency"] = bytes(range(256))
    return image


def oriented(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


ORDINARY: dict[str, tuple[bytes, str]] = {
    **{f"png {mode}": (encoded(of_mode(mode), "PNG"), "png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    **{f"jpeg {mode}": (encoded(of_mode(mode), "JPEG"), "jpg") for mode in ("L", "RGB", "CMYK", "YCbCr")},
    **{
        f"tiff {mode}": (encoded(of_mode(mode), "TIFF"), "tif")
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB")
    },
    **{f"webp {mode}": (encoded(of_mode(mode), "WEBP", lossless=True), "webp") for mode in ("RGB", "RGBA")},
    **{f"bmp {mode}": (encoded(of_mode(mode), "BMP"), "bmp") for mode in ("1", "L", "P", "RGB", "RGBA")},
    **{f"ppm {mode}": (encoded(of_mode(mode), "PPM"), "ppm") for mode in ("1", "L", "RGB")},
    **{f"gif {mode}": (encoded(of_mode(mode), "GIF"), "gif") for mode in ("L", "P", "RGB")},
    **{f"avif {mode}": (encoded(of_mode(mode), "AVIF"), "avif") for mode in ("RGB", "RGBA")},
    "jfif": (encoded(of_mode("RGB"), "JPEG"), "jfif"),
    "pgm": (encoded(of_mode("L"), "PPM"), "pgm"),
    "png with a transparent colour": (encoded(of_mode("RGB"), "PNG", transparency=(0, 0, 0)), "png"),
    "png with a transparent palette": (encoded(with_transparent_palette(), "PNG"), "png"),
    "two frames of gif": (encoded(of_mode("P"), "GIF", save_all=True, append_images=[Image.new("P", (12, 10))]), "gif"),
    "two frames of jpeg": (encoded(of_mode("RGB"), "MPO", save_all=True, append_images=[of_mode("RGB")]), "jpg"),
    **{f"jpeg turned {n}": (encoded(of_mode("RGB"), "JPEG", exif=oriented(n)), "jpg") for n in (1, 3, 6)},
    "png turned 6": (encoded(of_mode("RGB"), "PNG", exif=oriented(6)), "png"),
    "tiff turned 6": (encoded(of_mode("RGB"), "TIFF", exif=oriented(6)), "tif"),
    "png of 16 bits of RGB": (png(16, 2, np.repeat(LEVELS, 3).astype(">u2").tobytes()), "png"),
    "png of 16 bits of RGBA": (png(16, 6, np.repeat(LEVELS, 4).astype(">u2").tobytes()), "png"),
    "png of 2 bits of grey": (png(2, 0, bytes(range(3 * HEIGHT))), "png"),
}
if PIL.__version__ == "12.3.0":  # it can't read what it wrote itself; those before and after it can
    del ORDINARY["tiff YCbCr"]
"""What Pillow brings to RGB as it is: file and ending by name."""

_GREY16 = LEVELS.astype(np.uint16)
_BIG_ENDIAN = Image.frombytes("I;16B", (WIDTH, HEIGHT), LEVELS.astype(">u2").tobytes())
DEEP: dict[str, tuple[bytes, str]] = {
    "png": (encoded(Image.fromarray(_GREY16), "PNG"), "png"),
    "tiff": (encoded(Image.fromarray(_GREY16), "TIFF"), "tif"),
    "tiff, deflated": (encoded(Image.fromarray(_GREY16), "TIFF", compression="tiff_deflate"), "tif"),
    "big-endian tiff": (encoded(_BIG_ENDIAN, "TIFF"), "tiff"),
    "pgm": (encoded(Image.fromarray(_GREY16), "PPM"), "pgm"),
    "png whose black is white": (encoded(Image.fromarray(65535 - _GREY16), "TIFF", tiffinfo={262: 0}), "tif"),
}
"""16 bits of grey, LEVELS from black to white: file and ending by name."""

UNKNOWN_RANGE: dict[str, tuple[bytes, str]] = {
    "tiff of 32 bits": (encoded(Image.fromarray(LEVELS.astype(np.int32)), "TIFF"), "tif"),
    "tiff of signed 16 bits": (encoded(Image.fromarray((LEVELS / 4).astype(np.int16).astype(np.int32)), "TIFF"), "tif"),
    "tiff of floats": (encoded(Image.fromarray(LEVELS.astype(np.float32)), "TIFF"), "tif"),
    "pfm": (encoded(Image.fromarray(LEVELS.astype(np.float32)), "PPM"), "ppm"),
}
"""Files that don't say which of their values are black and white."""

Opener = Callable[[Path, bytes, str, Decoding], Source[Any]]


def _folder(root: Path, content: bytes, ending: str, decoding: Decoding) -> Source[Any]:
    return open_source("folder", _as_folder(root, content, ending), "", decoding=decoding)


def _torchvision(root: Path, content: bytes, ending: str, decoding: Decoding) -> Source[Any]:
    known = ending if f".{ending}" in IMG_EXTENSIONS else "png"
    return open_source("torch/image_folder", _as_folder(root / "val", content, known).parent, "val", decoding=decoding)


def _as_folder(root: Path, content: bytes, ending: str) -> Path:
    for name in "ab":
        (root / name).mkdir(parents=True)
        (root / name / f"0.{ending}").write_bytes(content)
    return root


def _shards(root: Path, content: bytes, ending: str, decoding: Decoding) -> Source[Any]:
    write_tar(root / "val-0.tar", [*sample("0", 0, content, ending), *sample("1", 1, content, ending)])
    return open_source("wds", root, "val", decoding=decoding)


def _reader(root: Path, content: bytes, ending: str, decoding: Decoding) -> Source[Any]:
    class Reader:
        class_to_idx = {"a": 0, "b": 1}  # noqa: RUF012

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
            return io.BytesIO(content), 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "datasets", SimpleNamespace(__spec__=object()))
        patch.setattr("timm.data.dataset_factory.create_dataset", lambda *_, **__: ImageDataset(None, reader=Reader()))
        return open_source("hfds/x", None, "train", decoding=decoding)


def _masks(root: Path, content: bytes, ending: str, decoding: Decoding) -> Source[Any]:
    for kind in ("images", "masks"):
        (root / "val" / kind).mkdir(parents=True)
    (root / "val" / "images" / f"0.{ending}").write_bytes(content)
    _blank_mask(content).save(root / "val" / "masks" / "0.png")
    return open_source("masks", root, "val", classes=2, decoding=decoding)


def _blank_mask(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as image:
        image.load()  # which turns a TIFF
        return Image.new("L", image.size)


def _voc(root: Path, content: bytes, ending: str, decoding: Decoding) -> Source[Any]:
    base = root / "VOCdevkit" / "VOC2012"
    for kind in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (base / kind).mkdir(parents=True)
    (base / "ImageSets" / "Segmentation" / "val.txt").write_text("0\n")
    (base / "JPEGImages" / "0.jpg").write_bytes(content)
    _blank_mask(content).save(base / "SegmentationClass" / "0.png")
    return open_source("voc", root, "val", decoding=decoding)


def _coco(root: Path, content: bytes, ending: str, decoding: Decoding) -> Source[Any]:
    width, height = _blank_mask(content).size
    document = {
        "images": [{"id": 1, "file_name": f"0.{ending}", "height": height, "width": width}],
        "annotations": [],
        "categories": [],
    }
    (root / "val2017").mkdir()
    (root / "val2017" / f"0.{ending}").write_bytes(content)
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(document))
    return open_source("coco", root, "val", decoding=decoding)


_NO_COCO = pytest.mark.skipif(importlib.util.find_spec("pycocotools") is None, reason="needs pycocotools")
SOURCES = [
    pytest.param(_folder, id="folder"),
    pytest.param(_torchvision, id="torch"),
    pytest.param(_shards, id="wds"),
    pytest.param(_reader, id="hfds"),
    pytest.param(_masks, id="masks"),
    pytest.param(_voc, id="voc"),
    pytest.param(_coco, id="coco", marks=_NO_COCO),
]
"""Each source as a function: a folder, an image file, its ending and how to decode it, to a source of that image."""


def pixels_of(open_image: Opener, root: Path, content: bytes, ending: str, decoding: Decoding | None = None) -> Any:
    image, _ = open_image(root, content, ending, decoding or Decoding()).read(0)
    assert image.mode == "RGB"
    return np.asarray(image)
