"""The stack machine of a pickle, run on inert data: it imports, calls and builds nothing that the pickle names."""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable
from functools import partial
from typing import IO, Any

from spgsurgeon.checkpoint.pickle.allowlist import ATTRIBUTE_GLOBALS, DICT_GLOBALS
from spgsurgeon.checkpoint.pickle.nodes import Attributes, Call, Global, Inert, Persistent
from spgsurgeon.checkpoint.refusals import UnsafeError

# What pickling data with protocols 2 to 5 writes. Absent on purpose: INST and OBJ (calls of protocol 0), PERSID, the
# EXT codes (a registry of importable names), out-of-band buffers and the text forms of protocol 0.
_SCALARS = ("NONE", "BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_BYTES = ("SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")

# A tensor takes about 25 instructions, its optimizer state twice as many: enough for 25,000 trained tensors, and
# little enough that no file of small instructions fills the memory.
MOST_INSTRUCTIONS = 2_000_000
_MOST_COPIED = 2_000_000  # entries of dictionaries, which a few instructions can ask to copy again and again
_MOST_BITS = 128  # of an integer: torch's magic number has 80
_KEY_BOUND = 2**60  # integers below it are their own hash, so none can be made to collide

_LONGEST_NAME = 200


class Machine:
    """The stack and memo of one pickle. `run` gives what it holds; the lists say what it asked for on the way."""

    def __init__(self) -> None:
        self.globals: dict[str, None] = {}  # every name it would import, in order
        self.persistent: list[Persistent] = []
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._copied = 0

    def run(self, stream: IO[bytes]) -> Any:
        """Return the tree that the pickle describes; the stream is left right behind it.

        Raises ValueError, IndexError, KeyError, TypeError or OverflowError if it is cut off or contradicts itself,
        UnsafeError where it is too long.
        """
        steps, read = self._by_code(), stream.read
        for _ in range(MOST_INSTRUCTIONS):
            code = read(1)
            if code == b".":
                break
            if code not in steps:
                raise ValueError(f"an unknown instruction {code!r}" if code else "it ends before its last instruction")
            read_argument, step = steps[code]
            step(read_argument(stream) if read_argument else None)
        else:
            raise _too_long()
        if len(self._stack) != 1 or self._marks:
            raise ValueError(f"{len(self._stack)} values are left at its end")
        return self._stack[0]

    def _by_code(self) -> dict[bytes, tuple[Callable[[IO[bytes]], Any] | None, Callable[[Any], object]]]:
        """Return how to read an instruction's argument, by the standard library, and what it does, by its byte."""
        steps = self._table()
        return {opcode.code.encode("latin-1"): (_reader(opcode), steps[opcode.name]) for opcode in pickletools.opcodes}

    def _table(self) -> dict[str, Callable[[Any], object]]:
        push = self._stack.append
        table: dict[str, Callable[[Any], object]] = {
            opcode.name: partial(self._refused, opcode) for opcode in pickletools.opcodes
        }
        table |= dict.fromkeys(_SCALARS + _BYTES, push)
        table |= dict.fromkeys(("PROTO", "FRAME"), lambda _: None)
        table |= dict.fromkeys(("LONG1", "LONG4"), self._integer)
        table |= dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), self._remember)
        table |= dict.fromkeys(("BINGET", "LONG_BINGET"), lambda index: push(self._memo[index]))
        table |= dict.fromkeys(("REDUCE", "NEWOBJ"), self._call)
        table |= {
            "NEWTRUE": lambda _: push(True),
            "NEWFALSE": lambda _: push(False),
            "EMPTY_TUPLE": lambda _: push(()),
            "EMPTY_LIST": lambda _: push([]),
            "EMPTY_SET": lambda _: push([]),  # sets come as lists: their members could not be hashed safely
            "EMPTY_DICT": lambda _: push({}),
            "TUPLE": lambda _: push(tuple(self._pop_mark())),
            "TUPLE1": lambda _: self._tuple(1),
            "TUPLE2": lambda _: self._tuple(2),
            "TUPLE3": lambda _: self._tuple(3),
            "FROZENSET": lambda _: push(self._pop_mark()),
            "APPEND": lambda _: self._extend([self._stack.pop()]),
            "APPENDS": lambda _: self._extend(self._pop_mark()),
            "ADDITEMS": lambda _: self._extend(self._pop_mark()),
            "SETITEM": lambda _: self._set_items(self._pop(2)),
            "SETITEMS": lambda _: self._set_items(self._pop_mark()),
            "MARK": lambda _: self._marks.append(len(self._stack)),
            "POP": self._drop,
            "POP_MARK": lambda _: self._pop_mark(),
            "GLOBAL": self._global,
            "STACK_GLOBAL": self._stack_global,
            "NEWOBJ_EX": self._call_with_keywords,
            "BUILD": self._build,
            "BINPERSID": self._persistent_load,
        }
        return table

    def _pop_mark(self) -> list[Any]:
        """Return everything above the topmost mark, and take it and the mark away."""
        start = self._marks.pop()
        return self._pop(len(self._stack) - start)

    def _pop(self, count: int) -> list[Any]:
        start = len(self._stack) - count
        if not 0 <= start <= len(self._stack):
            raise IndexError("its stack runs empty")
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _drop(self, _: object) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _tuple(self, size: int) -> None:
        self._stack.append(tuple(self._pop(size)))

    def _integer(self, value: int) -> None:
        self._stack.append(value if value.bit_length() <= _MOST_BITS else Inert("very large int"))

    def _remember(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def _extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is list:
            target += values

    def _set_items(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            _put(target, zip(values[::2], values[1::2], strict=True))

    def _global(self, name: str) -> None:
        if name.startswith("__builtin__."):  # protocol 2, torch.save's default, writes Python 2's names
            name = "builtins." + name.removeprefix("__builtin__.")
        # A stranger's name may hold terminal escapes or a gigabyte; no such name is an allowed one.
        if len(name) >= _LONGEST_NAME or not name.isprintable():
            name = f"{name[:_LONGEST_NAME]!a}"
        self.globals[name] = None
        self._stack.append(Global(name))

    def _stack_global(self, _: object) -> None:
        module, name = self._pop(2) if len(self._stack) > 1 else (None, None)
        if isinstance(module, str) and isinstance(name, str):
            self._global(f"{module[:_LONGEST_NAME]}.{name[:_LONGEST_NAME]}")
        else:
            self._global("<computed name>")

    def _call(self, _: object) -> None:
        function, args = self._pop(2)
        name = function.name if isinstance(function, Global) else None
        if name in DICT_GLOBALS:
            self._stack.append(self._dictionary(args))
        elif name in ATTRIBUTE_GLOBALS:
            self._stack.append(Attributes())
        else:
            self._stack.append(Call(name, args))

    def _call_with_keywords(self, _: object) -> None:
        self._stack.pop()
        self._call(None)

    def _dictionary(self, args: Any) -> dict[Any, Any]:
        """Return what a dictionary class is called with: nothing, a dictionary, a factory, or Python 2's pairs."""
        contents: dict[Any, Any] = {}
        for argument in args if isinstance(args, tuple) else ():
            if isinstance(argument, dict):
                contents.update(self._counted(argument))
            elif isinstance(argument, list):
                _put(contents, ((key, value) for key, value in self._counted(argument)))
        return contents

    def _build(self, _: object) -> None:
        target, state = self._stack[-2], self._stack.pop()
        if isinstance(target, Call):
            target.state = state
        elif isinstance(target, Attributes) and isinstance(state, dict):
            target.update(self._counted(state))

    def _counted(self, values: Any) -> Any:
        self._copied += len(values)
        if self._copied > _MOST_COPIED:
            raise _too_long()
        return values

    def _persistent_load(self, _: object) -> None:
        reference = Persistent(self._stack.pop())
        self.persistent.append(reference)
        self._stack.append(reference)

    def _refused(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Note an instruction that weights never need, and do what it does to the stack: names may come behind it."""
        self.globals[f"<instruction {opcode.name}>"] = None
        if opcode.name == "INST":
            self._global(argument)
            self._stack.pop()
        if opcode.name in ("PUT", "GET", "DUP"):
            self._old_memo(opcode.name, argument)
            return
        before = opcode.stack_before
        if pickletools.markobject in before:
            self._pop_mark()
            before = before[: before.index(pickletools.markobject)]
        self._pop(len(before))
        self._stack += [argument if isinstance(argument, str) else Inert(opcode.name)] * len(opcode.stack_after)

    def _old_memo(self, name: str, index: Any) -> None:
        if name == "PUT":
            self._remember(index)
        else:
            self._stack.append(self._memo[index] if name == "GET" else self._stack[-1])


def _too_long() -> UnsafeError:
    return UnsafeError(
        f"its pickle has more than {MOST_INSTRUCTIONS:,} instructions; weights have about 25 a tensor",
        hint="save model.state_dict() alone",
    )


def _reader(opcode: pickletools.OpcodeInfo) -> Callable[[IO[bytes]], Any] | None:
    if opcode.name in ("GLOBAL", "INST"):
        return _read_name
    return opcode.arg.reader if opcode.arg else None


def _read_name(stream: IO[bytes]) -> str:
    """Return "module.name" from two lines of UTF-8, as unpickling reads them; the disassembler knows ASCII alone."""
    lines = [stream.readline(), stream.readline()]
    if not lines[1].endswith(b"\n"):
        raise ValueError("it ends within a name")
    return ".".join(line[:-1].decode("utf-8", "replace") for line in lines)


def _put(target: dict[Any, Any], entries: Iterable[tuple[Any, Any]]) -> None:
    for key, value in entries:
        target[key if type(key) is str else _safe_key(key)] = value


def _safe_key(key: Any) -> Any:
    """Return the key if hashing it is quick and harmless, else something inert: tuples can nest exponentially."""
    if key is None or type(key) in (bool, float) or (type(key) is int and -_KEY_BOUND < key < _KEY_BOUND):
        return key
    return Inert(type(key).__name__)
