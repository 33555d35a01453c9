"""What a training step takes in memory and time: plain, grafted, and with the steps taken through the heads in turn.

No test but a measurement, each arm in a process of its own (Linux; on a GPU the allocator's own count):

    python tests/step_memory.py torchvision/fcn_resnet50 --size 240 --batch 4
    python tests/step_memory.py torchvision/resnet18 --trp depth --size 128 --batch 16

Prints what a step keeps for its backward pass (counted, the same on every machine), the peak of three steps above the
model itself, and the seconds of the third.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from spgsurgeon import graft, spg_loss
from spgsurgeon.models.building import build
from spgsurgeon.models.identity import Identity
from spgsurgeon.models.libraries import library, resolve_architecture

WEIGHTS = (0.4, 0.2, 0.1)
ARMS = {"plain": ("none", "stacked"), "stacked": (None, "stacked"), "sequential": (None, "sequential")}


def resident(device: str) -> float:
    """Return the largest memory so far, in MB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(model: str, trp: str, head_batch: str, size: int, batch: int) -> dict[str, float]:
    """Return the peak in MB above the model and its input, what a step keeps, and its seconds."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    owner, architecture = resolve_architecture(model)
    torch.manual_seed(0)
    module = build(Identity(owner, architecture, 21)).to(device)
    images = torch.randn(batch, 3, size, size, device=device)
    maps = (size, size) if library(owner).task(architecture) == "segmentation" else ()
    labels = torch.randint(0, 21, (batch, *maps), device=device)
    rate = {"rate": 0.1} if trp == "dropout" else {}
    grafted = graft(module, trp, replicas=len(WEIGHTS), head_batch=head_batch, example=images, **rate).train()
    optimizer = torch.optim.SGD(grafted.parameters(), lr=1e-4, momentum=0.9)
    weights = WEIGHTS if trp != "none" else ()
    before = resident(device)
    for _ in range(3):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        spg_loss(grafted(images), labels, weights, "step").loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    peak = resident(device) - before
    kept = kept_for_backward(lambda: spg_loss(grafted(images), labels, weights, "step").loss, grafted)
    return {"kept": kept, "peak": peak, "seconds": seconds}


def kept_for_backward(forward: Callable[[], Tensor], model: nn.Module) -> float:
    """Return how many MB the graph of a forward pass keeps, shared memory once and parameters not at all."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}  # the tensors themselves: memory that is given back could be counted twice

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 2**20


def main() -> None:
    """Measure every arm, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--trp", default="dropout", choices=("dropout", "depth"))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--arm", choices=ARMS)
    options = parser.parse_args()
    if options.arm:
        warnings.simplefilter("ignore")
        kind, head_batch = ARMS[options.arm]
        print(json.dumps(measure(options.model, kind or options.trp, head_batch, options.size, options.batch)))
        return
    plain = None
    for arm in ARMS if options.trp == "dropout" else ("plain", "stacked"):
        command = [sys.executable, __file__, *sys.argv[1:], "--arm", arm]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        plain = plain or found
        ratios = {name: found[name] / plain[name] for name in found}
        print(
            f"{arm:10}  kept {found['kept']:6.0f} MB ({ratios['kept']:.2f})  peak {found['peak']:6.0f} MB "
            f"({ratios['peak']:.2f})  step {found['seconds']:6.2f} s ({ratios['seconds']:.2f} x plain)",
            flush=True,
        )


if __name__ == "__main__":
    main()
