"""What is found out about one sample by what was read of it, whichever source that came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from hashlib import blake2b
from typing import Any

from PIL import Image

from spgsurgeon.data.sources.image_decoding import mode_of, traits_of
from spgsurgeon.data.sources.records.blocks import Block
from spgsurgeon.data.sources.sounds.recording import Recording
from spgsurgeon.data.sources.traits import Traits

NOTHING = Traits(0)
_LONGEST = 600.0  # seconds of a sound: a small file can hold hours of silence


@dataclass(frozen=True)
class Facts:
    """What a sample is. `content` is a hash, the same of samples that hold the same to the last bit.

    `kinds` are its properties in words, by what they are called, and `sizes` those in numbers.
    """

    content: bytes
    kinds: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, float] = field(default_factory=dict)
    traits: Traits = NOTHING


@singledispatch
def facts_of(content: Any) -> Facts:
    """Return the facts of what a source read. Raises DataError for what is only opened here, as sounds are."""
    return Facts(_hash(repr(content).encode("utf-8", "surrogatepass")))


@facts_of.register
def _(content: Image.Image) -> Facts:
    pixels = _hash(f"{content.size}".encode(), content.tobytes())
    sizes = {"width": content.width, "height": content.height}
    return Facts(pixels, {"mode": mode_of(content)}, sizes, traits_of(content))


@facts_of.register
def _(content: Recording) -> Facts:
    sound = content.read(_LONGEST)
    samples = _hash(f"{sound.rate}".encode(), sound.samples.tobytes())
    return Facts(samples, {"rate": f"{sound.rate:,} Hz"}, {"seconds": len(sound.samples) / sound.rate})


@facts_of.register
def _(content: Block) -> Facts:
    return Facts(_hash(content.tokens.tobytes()), {}, {"tokens": len(content.tokens)})


@facts_of.register(str)
@facts_of.register(tuple)
def _(content: str | tuple[Any, ...]) -> Facts:
    """Return the facts of a text, or of several, of which some may be lists of them."""
    texts = list(_texts(content))
    whole = _hash(repr(content).encode("utf-8", "surrogatepass"))
    sizes = {"words": sum(len(text.split()) for text in texts), "characters": sum(map(len, texts))}
    empty = not texts or not all(map(str.strip, texts))
    return Facts(whole, {}, sizes, Traits.EMPTY if empty else NOTHING)


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    else:
        for part in content:
            yield from _texts(part)


def _hash(*parts: bytes) -> bytes:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()
