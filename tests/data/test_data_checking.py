"""What is found out about samples: the same hash for the same content, whatever the file and number of threads."""

from __future__ import annotations

import io

import numpy as np
import pytest
from made_up_source import SHADES, open_shades
from messy_folder import noise
from PIL import Image

from spgsurgeon.data.checking.duplicates import duplicates
from spgsurgeon.data.checking.examining import examine
from spgsurgeon.data.checking.facts import facts_of
from spgsurgeon.data.sources.image_decoding import decode, mode_of
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.sources.reading import Reading
from spgsurgeon.data.sources.traits import Traits


def through(image: Image.Image, form: str) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, form)
    stream.seek(0)
    return decode(stream)


def test_the_same_pixels_have_the_same_hash_in_any_file() -> None:
    image = noise(0)
    one, other = (facts_of(through(image, form)) for form in ("PNG", "BMP"))
    assert one.content == other.content != facts_of(noise(1)).content
    turned = image.transpose(Image.Transpose.ROTATE_90)
    flat = Image.new("RGB", image.size), Image.new("RGB", image.size[::-1])  # the same bytes in another shape
    assert facts_of(turned).content != one.content
    assert facts_of(flat[0]).content != facts_of(flat[1]).content


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "I;16"])
def test_the_mode_of_the_file_is_told(mode: str) -> None:
    image = noise(0).convert(mode) if mode != "I;16" else noise(0, mode)
    found = through(image, "TIFF" if mode == "CMYK" else "PNG")
    assert (mode_of(found), found.mode) == (mode, "RGB")


def test_what_a_file_says_of_itself_is_not_taken_for_its_mode() -> None:
    from PIL.PngImagePlugin import PngInfo

    stream, info = io.BytesIO(), PngInfo()
    info.add_text("spgsurgeon mode", "none of these")
    noise(0).save(stream, "PNG", pnginfo=info)
    assert mode_of(decode(stream)) == "RGB"


def test_texts_and_what_is_not_known() -> None:
    facts = facts_of(("a b", ("c", " ")))
    assert (facts.sizes, facts.traits) == ({"words": 3, "characters": 5}, Traits.EMPTY)
    assert facts_of(("a b",)).traits == Traits(0)
    assert facts_of({"a": 1}).content == facts_of({"a": 1}).content != facts_of({"a": 2}).content


@pytest.mark.parametrize("threads", [1, 4])
def test_a_source_that_nobody_knows_is_read_whole_or_in_part(threads: int) -> None:
    source = open_shades(SHADES.name, None, "train", Reading())
    told: list[int] = []
    whole, part = examine(source, threads=threads, told=told.append), examine(source, most=5, threads=threads)
    assert (whole.whole, part.whole, told) == (True, False, [16])
    assert dict(whole.units) == {0: 8, 1: 8}
    assert list(part.looked_at) == [0, 3, 6, 9, 12]
    assert whole.document() == examine(source).document()


def test_classes_go_by_name_where_samples_are_compared() -> None:
    digits = {split: examine(open_source("digits", None, split), most=40) for split in ("train", "val")}
    assert duplicates(digits | {"again": digits["train"]}).other_classes == []
    assert len(duplicates(digits | {"again": digits["train"]}).across_splits) == 40
    assert np.sum(list(digits["train"].units.values())) == 40
