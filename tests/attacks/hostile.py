"""Pickles that ask for nothing forbidden and mean harm all the same, by what they are made of."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from containers import GOOD, TENSOR
from forms import text

_LONG = {value: b"\x8a\x09" + value.to_bytes(9, "little", signed=True) for value in (2**62, 2**63, 2**64, -1, -(2**63))}


def _tensor(
    storage: bytes | None = None, offset: bytes = b"K\x00", shape: bytes = b"K\x02\x85", rest: bytes = b""
) -> bytes:
    persistent = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x02tQ"
    arguments = (storage or persistent) + offset + shape + (rest or b"K\x01\x85\x89ccollections\nOrderedDict\n)R")
    return b"}" + text("fc.weight") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tRs"


def _persistent(expression: bytes) -> bytes:
    return _tensor(storage=expression + b"Q")


def _tensors() -> Iterator[tuple[str, bytes]]:
    numbers = {str(value): code for value, code in _LONG.items()}
    numbers |= {"a float": b"G\x7f\xf0" + b"\x00" * 6, "None": b"N", "True": b"\x88", "a text": text("9" * 5000)}
    numbers |= {"a list": b"]", "a call": b"ctorch\nSize\n)R", "a tensor": TENSOR, "a long integer": _huge(2000)}
    for name, code in numbers.items():
        yield f"a tensor's offset: {name}", _tensor(offset=code)
        yield f"a tensor's size: {name}", _tensor(shape=code + b"\x85")
        yield f"a tensor's stride: {name}", _tensor(rest=code + b"\x85\x89N")
        yield f"a tensor's shape: {name}", _tensor(shape=code)
        yield (
            f"a storage's size: {name}",
            _persistent(b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + code + b"t"),
        )
        yield (
            f"a storage's key: {name}",
            _persistent(b"(" + text("storage") + b"ctorch\nFloatStorage\n" + code + text("cpu") + b"K\x02t"),
        )
        yield (
            f"a storage's class: {name}",
            _persistent(b"(" + text("storage") + code + text("0") + text("cpu") + b"K\x02t"),
        )
        yield f"a persistent id: {name}", _persistent(code)
    yield "a tensor of 65 dimensions", _tensor(shape=b"(" + b"K\x01" * 65 + b"t", rest=b"(" + b"K\x01" * 65 + b"tN")
    yield (
        "a tensor of 10^5 dimensions",
        _tensor(shape=b"(" + b"K\x01" * 10**5 + b"t", rest=b"(" + b"K\x01" * 10**5 + b"tN"),
    )
    yield "a tensor of more strides than sizes", _tensor(rest=b"K\x01K\x01\x86\x89N")
    yield "2^62 values of one byte each", _tensor(shape=_LONG[2**62] + b"\x85", rest=b"K\x00\x85\x89N")
    yield "2^120 values", _tensor(shape=_LONG[2**62] * 2 + b"\x86", rest=b"K\x00K\x00\x86\x89N")
    yield "no arguments", b"}" + text("fc.weight") + b"ctorch._utils\n_rebuild_tensor_v2\n)Rs"
    yield "arguments that are no tuple", b"}" + text("fc.weight") + b"ctorch._utils\n_rebuild_tensor_v2\nNRs"
    yield (
        "a member outside of the archive",
        _persistent(
            b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("../../etc/passwd") + text("cpu") + b"K\x02t"
        ),
    )


def _huge(size: int) -> bytes:
    return b"\x8b" + struct.pack("<i", size) + b"\x7f" * size


def _containers() -> Iterator[tuple[str, bytes]]:
    odd = {
        "None": b"N",
        "a number": b"K\x01",
        "a text": text("x"),
        "a list": b"]",
        "a tensor": TENSOR,
        "a pair": b"}}\x86",
    }
    for name, state in odd.items():
        for made in (
            b"cargparse\nNamespace\n)R",
            b"ccollections\nOrderedDict\n)R",
            b"ctorch\nSize\n)R",
            b"]",
            b"K\x01",
        ):
            yield f"{made[1:12]!r} built with {name}", b"}" + text("args") + made + state + b"bs"
        for section in ("state_dict", "model", "state_dict_ema", "args", "hyper_parameters", "arch"):
            lightning = text("pytorch-lightning_version") + text("2.5")
            yield f"{section}: {name}", b"}(" + text("model") + GOOD + lightning + text(section) + state + b"u"
        yield f"an OrderedDict of {name}", b"ccollections\nOrderedDict\n" + state + b"\x85R"
        yield f"the whole: {name}", state
        yield f"a key: {name}", b"}" + state + TENSOR + b"s"
    yield (
        "an OrderedDict of 100,000 pairs",
        b"ccollections\nOrderedDict\n](" + b"]q\x01(K\x01Neh\x01" * 50_000 + b"e\x85R",
    )
    yield "pairs of three", b"ccollections\nOrderedDict\n](](K\x01K\x02K\x03ee\x85R"
    yield "100,000 entries that are no tensors", b"}(" + b"".join(text(f"k{n}") + b"N" for n in range(100_000)) + b"u"
    yield (
        "30,000 tensors of one storage",
        b"}(" + text("a") + TENSOR + b"q\x00" + b"".join(text(f"k{n}") + b"h\x00" for n in range(30_000)) + b"u",
    )


def _nests() -> Iterator[tuple[str, bytes]]:
    deep = 100_000
    yield "deep lists", b"]" * deep + b"a" * (deep - 1)
    yield "deep tuples", b")" + b"\x85" * deep
    yield "deep dictionaries", b"}" + text("model") + b"q\x00" + b"}h\x00" * deep + b"}" + b"s" * (deep + 1)
    yield "deep calls", b"ctorch\nSize\nq\x000N" + b"\x85q\x020h\x00h\x02R" * 20_000
    yield (
        "deep parameters",
        b"}" + text("w") + TENSOR + b"\x85q\x020ctorch._utils\n_rebuild_parameter\nh\x02R" * 20_000 + b"s",
    )
    yield "a list in itself", b"]q\x00h\x00a"
    yield "a dictionary in itself", b"}q\x00" + text("model") + b"h\x00s"
    yield "a state dict in itself", b"}q\x00(" + text("state_dict") + b"h\x00" + text("fc.weight") + TENSOR + b"u"
    yield "a namespace in itself", b"cargparse\nNamespace\n)Rq\x00}" + text("args") + b"h\x00sb"
    yield "a call with itself", b"ctorch\nSize\n]q\x00h\x00R"
    yield "a doubled tuple, 2^100 leaves", b")q\x00" + b"0h\x00h\x00\x86q\x00" * 100
    yield "a doubled tuple as a key", b"})q\x00" + b"0h\x00h\x00\x86q\x00" * 100 + b"Ns"
    yield "a doubled list", b"]q\x00" + b"(h\x00h\x00e" * 10_000


def _numbers() -> Iterator[tuple[str, bytes]]:
    yield "the memo's place 2^31", b"}r" + struct.pack("<I", 2**31)
    yield "an empty place of the memo", b"j" + struct.pack("<I", 2**31)
    yield "a negative place of the memo", b"Np-1\n"
    yield "bytes of 2^62", b"\x8e" + struct.pack("<Q", 2**62)
    yield "a text of 2^62", b"\x8d" + struct.pack("<Q", 2**62) + b"x"
    yield "a text of -1", b"T" + struct.pack("<i", -1)
    yield "a bytearray of 2^62", b"\x96" + struct.pack("<Q", 2**62)
    yield "a frame of 2^62", b"\x95" + struct.pack("<Q", 2**62) + GOOD
    yield "an integer that claims 100 MB", b"\x8b" + struct.pack("<i", 100_000_000) + b"\x7f"
    yield "an integer of 5 MB", b"}" + text("epoch") + _huge(5_000_000) + b"s"
    yield "an integer of -1 bytes", b"\x8b" + struct.pack("<i", -1)
    yield "an integer key of 2 KB", b"}" + _huge(2000) + b"Ns"
    yield "a text of lone surrogates", b"}X\x03\x00\x00\x00\xed\xa0\x80" + TENSOR + b"s"
    yield "a key of terminal escapes", b"}" + text("\x1b]0;owned\x07\x1b[2J") + TENSOR + b"s"
    yield "a key of a megabyte", b"}" + text("k" * 10**6) + b"Ns"
    yield "protocol 255", b"\x80\xff" + GOOD
    yield "twice a protocol", b"\x80\x02\x80\x05" + GOOD
    yield "an empty stack", b"0"
    yield "a mark that was never set", b"t"


TENSORS: dict[str, bytes] = dict(_tensors())  # none of them can be read
PICKLES: dict[str, bytes] = {**TENSORS, **dict((*_containers(), *_nests(), *_numbers()))}
