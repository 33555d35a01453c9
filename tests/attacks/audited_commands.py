"""Run as a program: the commands in the JSON on stdin, one after another, and prints what each did to the machine.

Python's own audit events tell: files opened for writing or for reading, and anything of sockets and processes. What
lies in the interpreter, the libraries and the system may be read, what lies in the folder of the command or in `free`
may be read and written.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import matplotlib.font_manager  # noqa: F401  # reads fonts, and writes a cache when it is first imported
import timm
import torchvision  # noqa: F401
from command_line import spgsurgeon

import spgsurgeon as package

SYSTEM = ("/usr", "/lib", "/etc", "/proc", "/sys", "/dev", "/bin", "/opt")
OWN = (sys.prefix, sys.base_prefix, str(Path(package.__file__).parents[1]), str(Path(timm.__file__).parents[1]))
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.")
NEVER = (
    "socket.connect",
    "socket.getaddrinfo",
    "socket.sendto",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
)


class Watch:
    """The audit events that nothing which only reads `readable` and writes below `writable` would raise."""

    def __init__(self) -> None:
        self.readable: tuple[str, ...] = ()
        self.writable: tuple[str, ...] = ()
        self.seen: list[str] | None = None
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.seen is None:
            return
        if event.startswith(NEVER):
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
            _, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) or set(mode or "r") & set("wax+")
            self._check(
                event, arguments[0], self.writable if writes else (*self.readable, *self.writable, *SYSTEM, *OWN)
            )
        elif event == "os.remove" and arguments[1] >= 0 and not os.path.isabs(arguments[0]):
            pass  # of shutil.rmtree, which has said the whole path
        elif event.startswith(CHANGES) and isinstance(arguments[0], (str, bytes, os.PathLike)):
            self._check(event, arguments[0], self.writable)

    def _check(self, event: str, path: str | bytes | os.PathLike[str], allowed: tuple[str, ...]) -> None:
        whole = os.path.realpath(os.fsdecode(path))
        if not any(whole == one or whole.startswith(f"{one}/") for one in allowed):
            assert self.seen is not None
            self.seen.append(f"{event} {whole}")


def main() -> None:
    """Run the commands; each is {arguments, folder}, and what it answers {code, err, seen, megabytes}."""
    asked = json.load(sys.stdin)
    free = os.path.realpath(asked["free"])
    tempfile.tempdir = free
    for command in asked["first"]:  # what is only imported or cached once
        spgsurgeon(*command)
    watch, answers = Watch(), []
    sings = Path(asked["victim"], "canary")
    watch.seen = []
    sings.write_text("")
    sings.unlink()
    heard, watch.seen = watch.seen, None
    for command in asked["commands"]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        watch.readable, watch.writable, watch.seen = (os.path.realpath(command["folder"]),), (free, "/dev/null"), []
        outcome = spgsurgeon(*command["arguments"])
        seen, watch.seen = watch.seen, None
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        answers.append({"code": outcome.code, "err": outcome.err, "seen": seen, "megabytes": more})
    print(json.dumps({"answers": answers, "heard": heard, "threads": threading.active_count()}))


if __name__ == "__main__":
    main()
