"""What a pickle would import, found by disassembling it: nothing here imports, calls or builds what the pickle names.

A pickle is a program for a small stack machine. The disassembler of the standard library gives its instructions; the
machine below runs them symbolically, remembering strings only, because the names of a STACK_GLOBAL are strings that
may come from the stack or the memo.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from spgsurgeon.checkpoint.allowlist import ALLOWED_GLOBALS
from spgsurgeon.errors import DamagedFileError, UnsafeInputError

# What pickling data with protocols 2 to 5 writes. Absent on purpose: INST and OBJ (calls of protocol 0), PERSID, the
# EXT codes (a registry of importable names), out-of-band buffers and the text forms of protocol 0.
_FRAMING = {"PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK"}
_MEMO = {"BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_NUMBERS = {"NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
_TEXT = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_TUPLES = {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_LISTS_AND_SETS = {"EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_SET", "ADDITEMS", "FROZENSET"}
_DICTS = {"EMPTY_DICT", "SETITEM", "SETITEMS"}
_OBJECTS = {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "BINPERSID"}
_ALLOWED_OPCODES = frozenset().union(
    _FRAMING, _MEMO, _NUMBERS, _TEXT, _BYTES, _TUPLES, _LISTS_AND_SETS, _DICTS, _OBJECTS
)

_STRING_KINDS = (pickletools.pyunicode, pickletools.pybytes_or_str)
_MARK = object()
_UNKNOWN = object()  # any value but a string
_SHOWN = 5


def globals_of(source: bytes | IO[bytes]) -> list[str]:
    """Return every `module.name` that the pickle asks for, once each, in order of appearance; nothing is executed.

    Reads one pickle and leaves a stream right behind it. A name that can't be known before running the pickle is
    `<computed name>`, an instruction that saved weights never contain is `<instruction INST>`: neither is in
    `ALLOWED_GLOBALS`. Raises ValueError where the pickle is cut off or malformed.
    """
    found, fault = _scan(source)
    if fault is not None:
        raise fault
    return found


def check_pickle(path: Path, source: bytes | IO[bytes]) -> None:
    """Refuse a pickle (found in the file `path`) that asks for anything outside `ALLOWED_GLOBALS`.

    Raises UnsafeInputError with all of it in `details["unsafe"]`, DamagedFileError where the pickle is cut off.
    """
    found, fault = _scan(source)
    # A gadget runs as soon as it is reached, so what a broken pickle asks for comes before its being broken.
    unsafe = [name for name in found if name not in ALLOWED_GLOBALS]
    if unsafe:
        raise _unsafe(path, unsafe)
    if fault is not None:
        raise DamagedFileError(
            f"{path} is damaged: its pickle is cut off or malformed ({fault})", hint="copy or download it again"
        )


def _unsafe(path: Path, unsafe: list[str]) -> UnsafeInputError:
    more = f" and {len(unsafe) - _SHOWN} more" if len(unsafe) > _SHOWN else ""
    return UnsafeInputError(
        f"{path} was not loaded: it asks for {', '.join(unsafe[:_SHOWN])}{more}, which reading weights never needs",
        hint="nothing in it was run; who made the file can save model.state_dict() alone, best as .safetensors",
        unsafe=unsafe,
    )


def _scan(source: bytes | IO[bytes]) -> tuple[list[str], ValueError | None]:
    """Return what the pickle asks for up to its end, or up to the fault that makes the rest unreadable."""
    found: dict[str, None] = {}
    try:
        with warnings.catch_warnings(action="ignore"):  # the disassembler decodes backslashes, and warns of odd ones
            for name in _names(source):
                # A stranger's name may hold terminal escapes or a gigabyte; no such name is an allowed one.
                found[name if name.isprintable() and len(name) < 200 else f"{name[:200]!a}"] = None
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        return list(found), ValueError(f"{type(error).__name__}: {error}")
    return list(found), None


def _names(source: bytes | IO[bytes]) -> Iterator[str]:
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(source):
        if opcode.name not in _ALLOWED_OPCODES:
            yield f"<instruction {opcode.name}>"
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".", 1)
        elif opcode.name == "STACK_GLOBAL":
            yield machine.global_name()
        machine.step(opcode, argument)


class _Machine:
    """The stack and memo of a pickle, holding strings, marks and unknowns."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}

    def global_name(self) -> str:
        """Return the name a STACK_GLOBAL would import, from the two topmost values."""
        module, name = self.stack[-2:] if len(self.stack) > 1 else (_UNKNOWN, _UNKNOWN)
        return f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "<computed name>"

    def step(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """Do to stack and memo what the instruction does, as far as strings are concerned."""
        match opcode.name:
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                assert isinstance(argument, int)
                self.memo[argument] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                assert isinstance(argument, int)
                self.stack.append(self.memo[argument])
            case "DUP":
                self.stack.append(self.stack[-1])
            case "POP":
                self.stack.pop()
            case _:
                self._pop(opcode.stack_before)
                self._push(opcode.stack_after, argument)

    def _pop(self, before: list[pickletools.StackObject]) -> None:
        if pickletools.markobject in before:
            while self.stack.pop() is not _MARK:
                pass
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            if self.stack.pop() is _MARK:
                raise IndexError("a mark is in the way")

    def _push(self, after: list[pickletools.StackObject], argument: object) -> None:
        for kind in after:
            if kind is pickletools.markobject:
                self.stack.append(_MARK)
            else:
                self.stack.append(argument if kind in _STRING_KINDS and isinstance(argument, str) else _UNKNOWN)
