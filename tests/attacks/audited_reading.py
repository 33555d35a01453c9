"""Run as a program, in an empty folder: reads every gadget in every form and file, and prints what came of it.

Python's own audit events are the canary: whatever is imported, executed, started or opened for writing raises one.
Nothing of torch is imported, so that a gadget of torch's would show as an import.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import pickle
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from containers import CONTAINERS, INSTEAD
from forms import NAMELESS, expressions, whole
from gadgets import GADGETS

from spgsurgeon.checkpoint.pickle.pickles import read_pickle
from spgsurgeon.checkpoint.reading import read_outline
from spgsurgeon.errors import UnsafeInputError

HARMLESS = {"open", "mmap.__new__", "object.__getattr__", "sys._getframe", "os.listdir", "os.scandir", "glob.glob"}


class Watch:
    """The audit events seen while it is armed, but for those of reading a file."""

    def __init__(self) -> None:
        self.armed = False
        self.seen: Counter[str] = Counter()
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.armed and (event not in HARMLESS or (event == "open" and not _reads(arguments))):
            self.seen[f"{event}{arguments[:1]!r:.80}"] += 1


def _reads(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    return flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) == 0 and not set(mode or "r") & set("wax+")


def in_memory() -> Iterator[tuple[str, str, bytes]]:
    """Yield every gadget in every form: what a refusal must name, which it is, and the pickle."""
    for turn, (module, name) in enumerate(GADGETS):
        for form, protocol, expression in expressions(module, name, turn):
            yield f"{module}.{name}", f"{module}.{name} by {form}, {protocol}", whole(expression, protocol)
    for form, pickled in NAMELESS.items():
        yield "", form, pickled


def in_files(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield every gadget in every container, the forms taking turns, and every form in the first containers."""
    forms = len(list(expressions("os", "system", 0)))
    for turn, (module, name) in enumerate(GADGETS):
        for place, (container, write) in enumerate(CONTAINERS.items()):
            form, protocol, expression = list(expressions(module, name, turn))[(turn * len(CONTAINERS) + place) % forms]
            path = write(folder, expression, protocol)
            yield f"{module}.{name}", f"{module}.{name} by {form}, {protocol}, in {container}", path
    for container, write in CONTAINERS.items():
        # What is not called weights and names nothing may be an image: it is refused as no weights file.
        for form, pickled in NAMELESS.items() if container != "a bare pickle" else ():
            yield "", f"{form} in {container}", write(folder, pickled[2:-1] if pickled[0] == 0x80 else pickled[:-1], 4)


def wrong(error: Exception | None, name: str, looks_for_name: bool) -> str | None:
    """Return what is wrong with a refusal, if anything."""
    if not isinstance(error, UnsafeInputError):
        return f"{type(error).__name__}: {error!s:.120}"
    if len(error.message) >= 600 or not error.message.isprintable():
        return f"a message of {len(error.message)} characters"
    unsafe = error.details["unsafe"]
    shown = name.replace("__builtin__.", "builtins.", 1)
    if looks_for_name and shown.isascii() and shown.strip(". ") == shown and shown not in unsafe:
        return f"it names {unsafe}"
    return None


def main(folder: Path) -> None:
    watch, report = Watch(), {"refused": 0, "wrong": []}
    for container, good in INSTEAD.items():
        read_outline(CONTAINERS[container](folder, good, 2))

    def refused(call: Any, name: str, case: str) -> None:
        error = None
        watch.armed = True
        try:
            call()
        except Exception as caught:
            error = caught
        watch.armed = False
        if fault := wrong(error, name, bool(name)):
            report["wrong"].append(f"{case}: {fault}")
        report["refused"] += 1

    codecs.lookup("raw_unicode_escape")  # the standard library imports it when first used
    modules, environment = set(sys.modules), dict(os.environ)
    for name, case, pickled in in_memory():
        refused(lambda p=pickled: read_pickle(io.BytesIO(p)), name, case)
    for name, case, path in in_files(folder):
        refused(lambda p=path: read_outline(p), name, case)
        path.unlink()
    report |= {
        "gadgets": len(set(GADGETS)),
        "events": dict(watch.seen),
        "imported": sorted(set(sys.modules) - modules),
        "environment": dict(os.environ) != environment,
        "canary": Path("canary").exists(),
    }
    watch.armed = True  # the same bytes, read by those who trust them
    pickle.loads(whole(next(e for form, _, e in expressions("posix", "system", 0) if form == "GLOBAL, REDUCE"), 2))
    report |= {"sings": dict(watch.seen), "canary sings": Path("canary").exists()}
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
