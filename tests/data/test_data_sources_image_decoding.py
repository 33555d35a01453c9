"""One decoder for every source: what each mode and format becomes, and what is not opened at all."""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_images import (
    DEEP,
    GREY8,
    LEVELS,
    ORDINARY,
    SOURCES,
    UNKNOWN_RANGE,
    Opener,
    encoded,
    of_mode,
    oriented,
    pixels_of,
)
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS, pil_loader

import spgsurgeon
from spgsurgeon.data.sources.image_decoding import (
    ENDINGS,
    FORMATS,
    Decoding,
    Traits,
    _orientation,
    decode,
    traits_of,
)
from spgsurgeon.errors import DataError

EVERY_SOURCE = pytest.mark.parametrize("open_image", SOURCES)


def of_library(content: bytes, path: Path) -> Any:
    """Return the pixels that torchvision's loader gives, which is timm's too."""
    path.write_bytes(content)
    return np.asarray(pil_loader(path))


@EVERY_SOURCE
@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")  # of the library's loader
def test_images_of_8_bits_are_the_librarys(open_image: Opener, tmp_path: Path) -> None:
    for number, (name, (content, ending)) in enumerate(ORDINARY.items()):
        (tmp_path / str(number)).mkdir()
        found = pixels_of(open_image, tmp_path / str(number), content, ending)
        assert np.array_equal(found, of_library(content, tmp_path / f"{number}.{ending}")), name


@EVERY_SOURCE
def test_16_bits_of_grey_go_from_black_to_white(open_image: Opener, tmp_path: Path) -> None:
    for number, (name, (content, ending)) in enumerate(DEEP.items()):
        (tmp_path / str(number)).mkdir()
        found = pixels_of(open_image, tmp_path / str(number), content, ending)
        assert np.array_equal(found, np.repeat(GREY8[..., None], 3, axis=2)), name


@EVERY_SOURCE
def test_values_of_an_unknown_range_are_refused_unless_it_is_said(open_image: Opener, tmp_path: Path) -> None:
    for number, (name, (content, ending)) in enumerate(UNKNOWN_RANGE.items()):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(DataError, match="does not say which") as caught:
            pixels_of(open_image, tmp_path / str(number), content, ending)
        assert "data.value_range" in str(caught.value.hint)
        (tmp_path / f"{number}, said").mkdir()
        said = Decoding(value_range=(0, 65535 / 4) if "signed" in name else (0, 65535))
        found = pixels_of(open_image, tmp_path / f"{number}, said", content, ending, said)
        assert np.abs(found[..., 1].astype(int) - GREY8).max() <= ("signed" in name), name


def test_a_range_that_is_said_counts_for_16_bits_too() -> None:
    content = encoded(Image.fromarray((LEVELS / 16).astype(np.uint16)), "PNG")  # 12 bits in 16, as of X-rays
    found = np.asarray(decode(io.BytesIO(content), Decoding(value_range=(0, 4095))))
    assert np.abs(found[..., 0].astype(int) - GREY8).max() <= 1
    found = np.asarray(decode(io.BytesIO(content), Decoding(value_range=(1000, 1001))))
    assert sorted(set(found.flat)) == [0, 255]


def test_12_bits_of_tiff_are_12_bits() -> None:
    twelve = (LEVELS / 16).astype(np.uint16).flatten()
    packed = b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in zip(*[iter(twelve.tolist())] * 2, strict=True))
    height, width = LEVELS.shape
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    tags.append((279, len(packed)))
    ifd = len(tags).to_bytes(2, "little")
    for tag, value in tags:
        ifd += tag.to_bytes(2, "little") + (4).to_bytes(2, "little") + (1).to_bytes(4, "little")
        ifd += value.to_bytes(4, "little")
    content = b"II*\0" + (8 + len(packed)).to_bytes(4, "little") + packed + ifd + bytes(4)
    found = np.asarray(decode(io.BytesIO(content)))
    assert np.abs(found[..., 0].astype(int) - GREY8).max() <= 1


def test_numbers_that_are_none() -> None:
    content = encoded(Image.fromarray(np.array([[0.0, np.nan]], np.float32)), "TIFF")
    with pytest.raises(DataError, match="NaN"):
        decode(io.BytesIO(content), Decoding(value_range=(0, 1)))


@pytest.mark.parametrize(
    ("name", "traits"),
    [
        ("png RGB", Traits(0)),
        ("jpeg CMYK", Traits(0)),
        ("jpeg turned 1", Traits(0)),
        ("jpeg turned 6", Traits.ORIENTED),
        ("png turned 6", Traits.ORIENTED),
        ("tiff turned 6", Traits(0)),  # Pillow turns it
        ("png RGBA", Traits.TRANSPARENT),
        ("png LA", Traits.TRANSPARENT),
        ("png with a transparent colour", Traits.TRANSPARENT),
        ("png with a transparent palette", Traits.TRANSPARENT),
    ],
)
def test_what_is_worth_saying_is_kept_with_the_image(name: str, traits: Traits) -> None:
    assert traits_of(decode(io.BytesIO(ORDINARY[name][0]))) == traits


def test_alpha_that_hides_nothing_is_not_worth_saying() -> None:
    assert traits_of(decode(io.BytesIO(encoded(of_mode("RGB").convert("RGBA"), "PNG")))) == Traits(0)


def test_grey_of_16_bits_is_worth_saying() -> None:
    assert traits_of(decode(io.BytesIO(DEEP["png"][0]))) == Traits.DEEP


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_orientations_are_read_as_pillow_reads_them(form: str, endian: str) -> None:
    for number in range(10):
        exif = oriented(number)
        exif.endian = endian
        exif[0x010F], exif[0x0131] = "a camera", "its software"
        stream = io.BytesIO()
        of_mode("RGB").save(stream, form, exif=exif)
        with Image.open(stream) as image:
            assert image.getexif()[0x0112] == number
        turned = traits_of(decode(stream)) == Traits.ORIENTED
        assert turned == (2 <= number <= 8)


def test_no_bytes_of_exif_are_too_odd() -> None:
    whole = oriented(6).tobytes()
    random = np.random.default_rng(0)
    for length in range(len(whole)):
        assert _orientation(whole[:length]) in (1, 6)
    for _ in range(300):
        odd = bytearray(whole)
        odd[random.integers(6, len(whole))] = random.integers(256)
        assert 1 <= _orientation(bytes(odd)) <= 8
    assert _orientation(whole) == 6


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # Pillow looks for its resolution
def test_damaged_exif_is_not_an_orientation() -> None:
    content = encoded(of_mode("RGB"), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert traits_of(decode(io.BytesIO(content))) == Traits(0)


def test_both_orientations_at_once() -> None:
    image = of_mode("RGBA")
    content = encoded(image, "PNG", exif=oriented(8))
    assert traits_of(decode(io.BytesIO(content))) == Traits.ORIENTED | Traits.TRANSPARENT


# What is opened at all


def test_the_endings_are_torchvisions_and_three_more() -> None:
    assert set(ENDINGS) == {*IMG_EXTENSIONS, ".jfif", ".gif", ".avif"}
    assert set(FORMATS) == {"JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", "AVIF"}


def test_the_guide_names_what_is_opened() -> None:
    guide = (Path(spgsurgeon.__file__).parent / "docs" / "images.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([A-Z]+) \| ([^|]+) \|$", guide, flags=re.MULTILINE))
    assert rows.keys() == set(FORMATS)
    assert {ending for endings in rows.values() for ending in endings.split()} == set(ENDINGS)


def test_nothing_else_in_the_package_opens_images() -> None:
    package = Path(spgsurgeon.__file__).parent
    opening = re.compile(r"Image\.open\(|Image import .*\bopen\b|pil_loader|default_loader|read_image|decode_image\(")
    found = {path.name for path in package.rglob("*.py") if opening.search(path.read_text(encoding="utf-8"))}
    assert found == {"image_decoding.py"}


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 12 10\n%%EndComments\nshowpage\n%%EOF\n"


def fake_ghostscript(folder: Path) -> Path:
    """Write a `gs` that leaves a file when it is started; return that file's path."""
    folder.mkdir()
    (folder / "gs").write_text(f'#!/bin/sh\necho "$@" >> {folder / "started"}\n')
    (folder / "gs").chmod(0o755)
    return folder / "started"


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from PIL import EpsImagePlugin

    started = fake_ghostscript(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return started


def test_the_fake_ghostscript_is_what_pillow_would_start(ghostscript: Path) -> None:
    with Image.open(io.BytesIO(EPS)) as image, pytest.raises(OSError, match=r"."):
        image.load()
    assert ghostscript.exists()


@EVERY_SOURCE
def test_postscript_is_not_opened(open_image: Opener, tmp_path: Path, ghostscript: Path) -> None:
    (tmp_path / "data").mkdir()
    source = open_image(tmp_path / "data", encoded(of_mode("RGB"), "PNG"), "png", Decoding())
    replace_images(tmp_path / "data", source, EPS)
    with pytest.raises(DataError, match="not an image of a format that is read"):
        source.read(0)
    assert not ghostscript.exists()


def replace_images(root: Path, source: Any, content: bytes) -> None:
    """Put other content where a source's image was; that of shards and readers as it can be."""
    if hasattr(source, "index"):
        source.index["size"] = len(content)
        path = source.paths[0]
        data = bytearray(path.read_bytes())
        for row in source.index:
            data[row["offset"] : row["offset"] + len(content)] = content
        path.write_bytes(bytes(data))
    elif hasattr(source, "dataset") and hasattr(source.dataset, "reader"):
        type(source.dataset.reader).__getitem__ = lambda self, index: (io.BytesIO(content), 0)
    else:
        for path in root.rglob("*"):
            if path.is_file() and path.stem == "0" and path.parent.name not in ("masks", "SegmentationClass"):
                path.write_bytes(content)


def test_a_pipe_among_images_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.png")
    with pytest.raises(DataError, match="not a regular file"):
        decode(tmp_path / "0.png")
    (tmp_path / "1.png").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="not a regular file"):
        decode(tmp_path / "1.png")
    (tmp_path / "2.png").mkdir()
    with pytest.raises(DataError, match="not a regular file"):
        decode(tmp_path / "2.png")


def test_descriptors_are_closed(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(encoded(of_mode("RGB"), "PNG"))
    (tmp_path / "1.png").write_bytes(b"not an image")
    os.mkfifo(tmp_path / "2.png")
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for number in range(3):
        for _ in range(3):
            try:
                image = decode(tmp_path / f"{number}.png")
                assert image.size
            except DataError:
                assert number
    assert not before or len(os.listdir("/proc/self/fd")) == before
    assert stat.S_ISFIFO((tmp_path / "2.png").stat().st_mode)


# Pixels


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let Pillow's own limit be 60 pixels, and what it refuses 120."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 59)
    return 118


@EVERY_SOURCE
def test_pillows_limit_is_honoured_and_can_be_raised(
    open_image: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, ending = ORDINARY["png RGB"]
    source, raised = (
        open_image(folder, content, ending, decoding)
        for folder, decoding in ((tmp_path / "a", Decoding()), (tmp_path / "b", Decoding(max_pixels=120)))
        if folder.mkdir() is None
    )
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 59)
    with pytest.raises(DataError, match="120 pixels, more than the 118") as caught:
        source.read(0)
    assert "data.max_pixels=120" in str(caught.value.hint)
    assert "repair" not in str(caught.value.hint)
    assert raised.read(0)[0].size == (12, 10)


def test_a_lower_limit_than_pillows() -> None:
    with pytest.raises(DataError, match="120 pixels, more than the 119"):
        decode(io.BytesIO(ORDINARY["png RGB"][0]), Decoding(max_pixels=119))


def test_a_raised_limit_lets_large_images_be_cropped(small_limit: int) -> None:
    image = decode(io.BytesIO(ORDINARY["png RGB"][0]), Decoding(max_pixels=120))
    assert image.crop((0, 0, 12, 10)).size == (12, 10)  # Pillow looks at its limit there too
