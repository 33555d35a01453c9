"""What a training step costs with replicas against without, interleaved in one process.

No test but a measurement: `python tests/step_cost.py NAME [dropout|depth|rollouts]`, NAME one of timm's models.
Rollouts are dropout replicas with a forward pass for each step; they are compared with the single pass, too. Prints the
median ratios of 20 blocks with their extremes, and how many operators a step runs.
"""

import statistics
import sys
import time

import timm
import torch
from torch.profiler import ProfilerActivity, profile

from spgsurgeon import graft, spg_loss

BLOCKS, STEPS, WEIGHTS = 20, 3, (0.4, 0.2, 0.1)
IMAGES = torch.randn(32, 3, 64, 64, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(32) % 10


class Arm:
    """A model in training, grafted or plain."""

    def __init__(self, name: str, trp: str, weights: tuple[float, ...]) -> None:
        torch.manual_seed(0)
        base = timm.create_model(name, num_classes=10)
        kind, head_batch = ("dropout", trp) if trp == "rollouts" else (trp, "stacked")
        self.model = graft(base, kind, replicas=len(weights), head_batch=head_batch, example=IMAGES).train()
        self.weights = weights
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        spg_loss(self.model(IMAGES), LABELS, self.weights, "step").loss.backward()
        self.optimizer.step()

    def seconds(self) -> float:
        started = time.perf_counter()
        for _ in range(STEPS):
            self.step()
        return time.perf_counter() - started

    def operators(self) -> int:
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            self.step()
        return sum(event.count for event in profiler.key_averages())


def main(name: str, trp: str = "dropout") -> None:
    torch.set_num_threads(1)
    arms = {"plain": Arm(name, "none", ()), trp: Arm(name, trp, WEIGHTS)}
    if trp == "rollouts":
        arms["dropout"] = Arm(name, "dropout", WEIGHTS)
    for arm in arms.values():
        arm.seconds()
    blocks = [{kind: arm.seconds() for kind, arm in arms.items()} for _ in range(BLOCKS)]
    for other in [kind for kind in arms if kind != trp]:
        ratios = [block[trp] / block[other] for block in blocks]
        print(f"{name}: {trp} / {other} {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    print("operators a step: " + ", ".join(f"{kind} {arm.operators()}" for kind, arm in arms.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
