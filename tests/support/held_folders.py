"""A folder that another process owns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HOLDER = """
import os, sys, time
from pathlib import Path
from spgsurgeon.runtime.locking import FolderLock
owned = FolderLock(Path(sys.argv[1]))
if sys.argv[2:]:
    heard, told = os.pipe()
    if os.fork() == 0:  # a loader worker
        os.write(told, b"here")
        time.sleep(60)
        os._exit(0)
    os.read(heard, 4)  # once it is there, it has let go of what it inherited
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_elsewhere(folder: Path, *, forks: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Let another process own the folder inside the block."""
    command = [sys.executable, "-c", HOLDER, str(folder), *(["forks"] if forks else [])]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen(command, **streams)  # type: ignore[call-overload]
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()
