"""NaN and infinity, found on the device within a step, before they reach the weights.

A step's flag is computed on the device and read by the host one step later, so nothing waits. An optimizer that takes
`found_inf`, as torch's fused ones do, then leaves weights and moments alone by itself; for others the flag is awaited.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spgsurgeon.errors import SurgeonError
from spgsurgeon.training.processes import Processes
from spgsurgeon.training.state import TrainingState

_LEAST_SCALE = 1.0  # below it float16's loss scale has collapsed: gradients overflow even unscaled
_SCALE_READ_EVERY = 16  # steps: reading it waits for the device, and a collapse takes about as many

_HINT = "lower training.optimizer.lr, or set training.gradient_clip; earlier checkpoints are kept"


class NonFiniteError(SurgeonError):
    """Training met NaN or infinity."""

    kind = "non-finite"


class _Flag:
    """What a step's numbers were. Made without waiting for the device; `read` does."""

    def __init__(self, step: int, names: list[str], finite: Tensor, anywhere: Tensor) -> None:
        """`finite` bool [len(names)]: whether the tensor of that name is; `anywhere` bool []: whether one is not."""
        self.step, self._names, self.anywhere = step, names, anywhere
        self._finite, self._sound = finite, ~anywhere
        self._arrived: torch.cuda.Event | None = None
        if finite.is_cuda:
            self._finite, self._sound = (_on_its_way_to_the_host(tensor) for tensor in (finite, self._sound))
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> bool:
        """Return whether everything was finite, on all processes."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._sound)

    def first(self) -> str:
        """Return what was not finite."""
        wrong = [name for name, fine in zip(self._names, self._finite.tolist(), strict=True) if not fine]
        if not wrong:
            return "another process met what is not finite"
        others = f" (the first of {len(wrong)} such tensors)" if len(wrong) > 1 else ""
        return f"{wrong[0]} is not finite: it has NaN or infinity{others}"


def _on_its_way_to_the_host(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)


class NumberGuard:
    """Watches loss, gradients, weights and running statistics. A sum of squares that overflows counts as infinite.

    `policy` "skip" leaves out the steps that are not finite, running statistics included, at most `most_skips` of
    them in a run; "stop" raises NonFiniteError. Under float16 a scaler leaves out steps whose gradients overflow, by
    design; only its collapse counts.
    """

    def __init__(self, state: TrainingState, processes: Processes, *, policy: str, most_skips: int) -> None:
        self._state, self._processes = state, processes
        self._skips, self._most_skips = policy == "skip", most_skips
        self._parameters = list(state.grafted.named_parameters())
        self._buffers = list(state.grafted.named_buffers())
        self._late = bool(getattr(state.optimizer, "_step_supports_amp_scaling", False))
        self._flag: _Flag | None = None
        self._kept: list[tuple[Tensor, Tensor]] = []

    def before_step(self) -> None:
        """Remember the buffers, if a step that is skipped must leave them as they were."""
        if self._skips:
            self._kept = [(buffer, buffer.clone()) for _, buffer in self._buffers]

    def check(self, losses: Sequence[Tensor]) -> Tensor:
        """Return, on the device, whether the step must not be applied: bool []. Gradients are there, and unscaled.

        Raises NonFiniteError for the step before, and for this one where the optimizer can't leave it out by itself.
        """
        self.settle()
        watched = self._weights() + [("the loss", loss.detach()) for loss in losses]
        if not self._state.scaler.is_enabled():
            # Backward, as they are made: where several are wrong, the first is where it began.
            gradients = ((f"the gradient of {name}", p.grad) for name, p in reversed(self._parameters))
            watched += [(name, gradient) for name, gradient in gradients if gradient is not None]
        self._flag = self._look_at(watched, self._state.counters.step + 1)
        bad = self._flag.anywhere
        for buffer, before in self._kept:
            buffer.copy_(torch.where(bad, before, buffer))
        if not self._late:
            self.settle()
        return bad

    def step(self, bad: Tensor) -> None:
        """Take the optimizer's step, unless `bad`."""
        optimizer, scaler = self._state.optimizer, self._state.scaler
        if scaler.is_enabled():
            scaler.step(optimizer)  # a loss that is not finite has gradients that are not, which it sees
        elif self._late:
            optimizer.found_inf = bad.float()  # type: ignore[attr-defined]  # as a scaler does
            optimizer.step()
        elif not bad:
            optimizer.step()
        scaler.update()
        if self._state.counters.step % _SCALE_READ_EVERY == 0:
            self._check_scale()

    def settle(self) -> None:
        """Read the flag of the last step, waiting for it. Raises NonFiniteError where that is called for."""
        flag, self._flag = self._flag, None
        if flag is None or flag.read():
            return
        counters = self._state.counters
        counters.skipped += 1
        if self._skips and counters.skipped <= self._most_skips:
            return
        message = f"step {flag.step}: {flag.first()}"
        if self._skips:
            message += f"; {self._most_skips} steps were skipped before, and training.max_skips allows no more"
        raise NonFiniteError(message, hint=_HINT)

    def settle_all(self) -> None:
        """Wait for the last step and look at what it made, so that what is saved now is sound. Raises as `check`."""
        self.settle()
        self._check_scale()
        flag = self._look_at(self._weights(), self._state.counters.step)
        if not flag.read():
            raise NonFiniteError(f"after step {flag.step} {flag.first()}", hint=_HINT)

    def _weights(self) -> list[tuple[str, Tensor]]:
        """Return what a step reads, in the order in which it does."""
        named = [(f"weight {name}", parameter.detach()) for name, parameter in self._parameters]
        named += [(f"statistic {name}", buffer) for name, buffer in self._buffers]
        return [(name, tensor) for name, tensor in named if tensor.is_floating_point() and tensor.numel()]

    def _look_at(self, watched: Sequence[tuple[str, Tensor]], step: int) -> _Flag:
        norms = torch._foreach_norm([tensor for _, tensor in watched])
        finite = torch.stack([norm.float() for norm in norms]).isfinite()
        anywhere = self._processes.sum((~finite).any().float()) > 0
        return _Flag(step, [name for name, _ in watched], finite, anywhere)

    def _check_scale(self) -> None:
        scaler = self._state.scaler
        if scaler.is_enabled() and scaler.get_scale() < _LEAST_SCALE:
            raise NonFiniteError(
                f"step {self._state.counters.step}: float16's loss scale fell below {_LEAST_SCALE:g}: its gradients "
                "are not finite any more",
                hint="training.precision=bfloat16 or float32; or lower training.optimizer.lr",
            )
