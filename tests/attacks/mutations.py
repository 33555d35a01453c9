"""Bytes changed at random, the same at every run: flipped, put in, left out, moved, numbers replaced by odd ones."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

_NUMBERS = (
    b"0",
    b"-0",
    b"-1",
    b"1",
    b"1.0",
    b"1e3",
    b"1e999",
    b"00",
    b"2147483648",
    b"4294967296",
    b"9223372036854775807",
)
_NUMBERS += (
    b"9223372036854775808",
    b"18446744073709551616",
    b"9" * 400,
    b"NaN",
    b"-Infinity",
    b"true",
    b"null",
    b'"1"',
)
_TOKENS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\\ud83d\\ude00",
    b" ",
    b"\n",
    b"\t",
    b"\x00",
)
_TOKENS += (
    b"\xff",
    b"\xc3\xa9",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b'"__metadata__":',
    b"null",
    b"[]",
    b"{}",
    b'"F32"',
    b'"BF16"',
)

Mutation = Callable[[bytes, random.Random], bytes]


def flip_bit(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def replace_byte(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + rng.randbytes(1) + content[place + 1 :]


def replace_word(content: bytes, rng: random.Random) -> bytes:
    """Replace 2, 4 or 8 bytes by an extreme or a near value, as lengths and offsets are stored."""
    width = rng.choice((2, 4, 8))
    place = rng.randrange(max(1, len(content) - width))
    old = int.from_bytes(content[place : place + width], "little")
    new = rng.choice((0, 1, old + 1, old - 1, old * 2, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), rng.getrandbits(16)))
    return content[:place] + (new % 2 ** (8 * width)).to_bytes(width, "little") + content[place + width :]


def insert_token(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.choice(_TOKENS) + content[place:]


def delete(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + content[place + rng.choice((1, 1, 2, 8, 40)) :]


def splice(content: bytes, rng: random.Random) -> bytes:
    """Put a piece of the content at another place of it, over what is there or in between."""
    begin, place = rng.randrange(len(content)), rng.randrange(len(content))
    piece = content[begin : begin + rng.choice((1, 4, 16, 64))]
    return content[:place] + piece + content[place + (len(piece) if rng.random() < 0.5 else 0) :]


def replace_number(content: bytes, rng: random.Random) -> bytes:
    found = list(re.finditer(rb"\d+", content))
    if not found:
        return content
    chosen = rng.choice(found)
    number = rng.choice((*_NUMBERS, *(match[0] for match in found[:20])))
    return content[: chosen.start()] + number + content[chosen.end() :]


TEXT = (flip_bit, replace_byte, insert_token, delete, splice, replace_number, replace_number)
BINARY = (flip_bit, flip_bit, replace_byte, replace_word, replace_word, delete, splice)


def mutated(content: bytes, rng: random.Random, mutations: tuple[Mutation, ...]) -> bytes:
    """Return the content after one to four mutations, mostly one."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = rng.choice(mutations)(content, rng) or b"\x00"
    return content
