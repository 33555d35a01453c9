"""What a command costs in memory above the imports it needs, and in time beside copying its input (Linux).

    python tests/tools/memory_cost.py graft model.safetensors --arch timm/vit_base_patch16_224 -o grafted

Anonymous memory is the process's own; pages of mapped files are the page cache's, and go when somebody needs the room.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_CHILD = """
import sys, time
import onnx, timm, torch, torchvision
import spgsurgeon.commands.graft, spgsurgeon.commands.strip
from spgsurgeon.cli.app import run
from spgsurgeon.models.libraries.registry import LIBRARIES, library
for name in LIBRARIES:
    library(name)
print("ready", flush=True)
sys.stdin.readline()
started = time.perf_counter()
code = run(sys.argv[1:])
print(f"{time.perf_counter() - started:.2f} s after the imports", file=sys.stderr)
sys.exit(code)
"""
_KINDS = {"RssAnon": "anonymous", "RssFile": "mapped files"}


def memory(process: int) -> dict[str, float]:
    """Return the resident memory of a process in MB, by kind."""
    lines = [line.split() for line in Path(f"/proc/{process}/status").read_text().splitlines()]
    return {words[0][:-1]: int(words[1]) / 1024 for words in lines if words and words[0][:-1] in _KINDS}


def copied(path: Path) -> float:
    """Return the seconds that copying the file takes, synced to the disk."""
    with tempfile.TemporaryDirectory(dir=path.resolve().parent) as folder:
        started = time.perf_counter()
        copy = Path(shutil.copyfile(path, Path(folder, "copy")))
        with copy.open("rb") as file:
            os.fsync(file.fileno())
        return time.perf_counter() - started


def main() -> None:
    """Run the command and print its peaks above the imports."""
    command = [sys.executable, "-c", _CHILD, *sys.argv[1:]]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdout.readline()
    before = memory(child.pid)
    peak = dict(before)
    child.stdin.write("\n")
    child.stdin.close()
    while child.poll() is None:
        peak = {kind: max(size, memory(child.pid).get(kind, 0)) for kind, size in peak.items()}
        time.sleep(0.005)
    child.stdout.close()
    for kind, name in _KINDS.items():
        print(f"{name}: {peak[kind] - before[kind]:.0f} MB above {before[kind]:.0f} MB")
    for given in sys.argv[2:]:
        if Path(given).is_file():
            print(f"copying {given}: {copied(Path(given)):.2f} s")
    sys.exit(child.returncode)


if __name__ == "__main__":
    main()
