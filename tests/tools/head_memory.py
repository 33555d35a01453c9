"""What a language model's head takes at the height of a training step: plain, all steps stacked, and read in chunks.

    python tests/tools/head_memory.py --vocabulary 50257 --tokens 512 --width 768 --chunks 64 256 512

The step is the head, the loss and the gradient by hidden states and the head's weight. Every unit stays valid at every
step, which takes most. On a CPU torch's profiler is asked, on a GPU torch's allocator.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from spgsurgeon.objective.chunked_readout import CHUNK

sys.path.insert(0, str(Path(__file__).parents[1] / "objective"))

from head_steps import HeadStep


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--weights", type=float, nargs="*", default=[0.4, 0.2, 0.1])
    parser.add_argument("--chunks", type=int, nargs="*", default=[CHUNK])
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    step = HeadStep(given.vocabulary, given.tokens, given.width, tuple(given.weights), given.device)
    ways: dict[str, Callable[[], Tensor]] = {"plain": step.plain, "stacked": step.stacked}
    ways |= {f"chunks of {chunk}": lambda chunk=chunk: step.chunked(chunk) for chunk in given.chunks}
    plain = 0
    for name, loss in ways.items():
        started = time.perf_counter()
        peak = step.peak(loss)
        plain = plain or peak
        seconds = time.perf_counter() - started
        print(f"{name:>15}: {peak / 1e6:7.0f} MB, {peak / plain:5.2f} of plain, {seconds:6.2f} s, profiled")


if __name__ == "__main__":
    main()
