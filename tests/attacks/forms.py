"""Pickles put together by hand: every way in which one can name a thing or call it, in every protocol that has it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import product

COMMAND = "touch canary; echo canary >> canary"

Form = Callable[[str, str], bytes]


def text(value: str) -> bytes:
    """Return BINUNICODE, known since protocol 1."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def through_the_memo(module: str, name: str) -> bytes:
    return text(name) + b"q\x070" + text(module) + b"\x940" + b"h\x01h\x07\x93"


def through_dup_and_pop(module: str, name: str) -> bytes:
    return b"N0(" + text("decoy") + b"1" + text(module) + b"2q\x000" + text("decoy") + b"0" + text(name) + b"\x93"


def of_old_strings(module: str, name: str) -> bytes:
    return f"V{module}\np9\n0V{name}\ng9\n0".encode() + b"g9\n" + f"V{name}\n".encode() + b"\x93"


def by_short_strings(module: str, name: str) -> bytes:
    return b"".join(b"\x8c" + bytes([len(part.encode())]) + part.encode() for part in (module, name)) + b"\x93"


ARGUMENT = text(COMMAND)
DICTIONARY = b"ccollections\nOrderedDict\n)R"

IMPORTS: dict[str, tuple[int, Form]] = {  # by name: the first protocol, how
    "GLOBAL": (0, global_),
    "STACK_GLOBAL": (4, stack_global),
    "STACK_GLOBAL through the memo": (4, through_the_memo),
    "STACK_GLOBAL through DUP and POP": (4, through_dup_and_pop),
    "STACK_GLOBAL of old strings": (4, of_old_strings),
    "STACK_GLOBAL of short strings": (4, by_short_strings),
}

CALLS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "nothing": (0, lambda function: function),
    "REDUCE": (0, lambda function: function + b"(" + ARGUMENT + b"tR"),
    "OBJ": (1, lambda function: b"(" + function + ARGUMENT + b"o"),
    "NEWOBJ": (2, lambda function: function + ARGUMENT + b"\x85\x81"),
    "NEWOBJ_EX": (4, lambda function: function + b")}" + text("shell") + ARGUMENT + b"s\x92"),
    "BUILD": (2, lambda function: DICTIONARY + b"}" + text("state") + function + b"sb"),
    "BUILD of a pair": (2, lambda function: DICTIONARY + b"N}" + text("__setstate__") + function + b"s\x86b"),
    "BUILD on it": (2, lambda function: function + b"}" + text("__dict__") + ARGUMENT + b"sb"),
    "BINPERSID": (1, lambda function: b"(" + text("storage") + function + ARGUMENT + b"tQ"),
    "an argument": (2, lambda function: global_("torch", "Size") + function + b"\x85R"),
    "what it returns": (2, lambda function: function + ARGUMENT + b"\x85R)R" + ARGUMENT + b"\x85R"),
    "a key": (2, lambda function: b"}" + function + b"Ns"),
    "dropped again": (2, lambda function: function + b"(" + ARGUMENT + b"tR0}"),
}


def inst(module: str, name: str) -> bytes:
    return b"(" + f"V{COMMAND}\ni{module}\n{name}\n".encode()


def expressions(module: str, name: str, turn: int) -> Iterator[tuple[str, int, bytes]]:
    """Yield each form: its name, one of the protocols that have it (others at other turns), what puts it on the stack.

    What is on the stack then is the one value that the gadget leaves.
    """
    yield "INST", turn % 6, inst(module, name)
    for (how, (since, imported)), (called, (first, call)) in product(IMPORTS.items(), CALLS.items()):
        lowest = max(since, first)
        yield f"{how}, {called}", lowest + turn % (6 - lowest), call(imported(module, name))


def whole(expression: bytes, protocol: int) -> bytes:
    """Return the pickle of an expression."""
    return (b"" if protocol < 2 else b"\x80" + bytes([protocol])) + expression + b"."


NAMELESS = {  # instructions that import or call by a number or a foreign id
    "EXT1": b"\x80\x02\x82\x01" + ARGUMENT + b"\x85R.",
    "EXT2": b"\x80\x02\x83\x01\x01" + ARGUMENT + b"\x85R.",
    "EXT4": b"\x80\x02\x84\x01\x01\x01\x01" + ARGUMENT + b"\x85R.",
    "PERSID": b"Pos.system\n.",
    "PERSID called": b"Pos.system\n(" + ARGUMENT + b"tR.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "READONLY_BUFFER": b"\x80\x05N\x98.",
    "STACK_GLOBAL of numbers": b"\x80\x04K\x01K\x02\x93.",
    "STACK_GLOBAL of bytes": b"\x80\x04C\x02osC\x06system\x93.",
    "STACK_GLOBAL of what a call returns": b"\x80\x04ctorch\nSize\n)R" + text("system") + b"\x93.",
    "STACK_GLOBAL of a persistent id": b"\x80\x04" + text("os") + b"Q" + text("system") + b"\x93.",
}
