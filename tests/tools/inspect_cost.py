"""What `spgsurgeon inspect` costs as a whole process: wall time and peak memory, on files without numbers in them.

python tests/tools/inspect_cost.py      # a ViT-B/16 (346 MB) and the largest architecture of all, beside what a
                                        # bare `import typer, rich` costs; the files are sparse: they take no room
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from spgsurgeon.checkpoint.state_dict.specs import TensorSpec
from spgsurgeon.models.recognition.catalogue import catalogue, layout

BLOCKS = 9


def sparse_file(name: str, folder: Path) -> Path:
    """Write a safetensors file of the architecture's float32 weights, all of them holes."""
    header, end = {}, 0
    for key, shape in layout(catalogue().entries[name]).items():
        begin, end = end, end + TensorSpec("F32", shape, folder, 0).nbytes
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = folder / f"{name.partition('/')[2]}.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + end)
    return path


# A process counts the memory of the one that it was forked from, so a small one stands in between.
_TRAMPOLINE = """
import os, sys, time
null = os.open(os.devnull, os.O_WRONLY)
actions = [(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
started = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=actions)
usage = os.wait4(pid, 0)[2]
print(1000 * (time.perf_counter() - started), usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
"""


def cost(command: list[str]) -> tuple[float, float]:
    """Return the wall time in milliseconds and the peak memory in MB of one process."""
    # Installed packages have their bytecode beside them, so this one shall.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    trampoline = [sys.executable, "-S", "-c", _TRAMPOLINE]
    measured = subprocess.run([*trampoline, *command], env=environment, capture_output=True, check=True)
    wall, peak = measured.stdout.split()
    return float(wall), float(peak)


def main() -> None:
    """Measure in interleaved blocks and print medians."""
    with tempfile.TemporaryDirectory() as folder:
        entries = catalogue().entries
        largest = max(entries, key=lambda name: entries[name].parameters(layout(entries[name])))
        files = [sparse_file(name, Path(folder)) for name in ("timm/vit_base_patch16_224", largest)]
        commands = {"python -c 'import typer, rich'": [sys.executable, "-c", "import typer, rich"]}
        for file in files:
            label = f"inspect {file.name} ({file.stat().st_size / 1e9:.2f} GB)"
            commands[label] = [sys.executable, "-m", "spgsurgeon", "inspect", str(file), "--json"]
        costs: dict[str, list[tuple[float, float]]] = {label: [] for label in commands}
        for _ in range(1 + BLOCKS):
            for label, command in commands.items():
                costs[label].append(cost(command))
    for label, seen in costs.items():
        times, peaks = zip(*seen[1:], strict=True)  # the first warms up
        print(f"{label}: {statistics.median(times):.0f} ms ({min(times):.0f} to {max(times):.0f}), {max(peaks):.0f} MB")


if __name__ == "__main__":
    main()
