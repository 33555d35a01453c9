"""NaN and infinity, found on the device within a step, before they reach the weights.

A step's largest norm is computed on the device and read by the host one step later, so nothing waits. An optimizer that
takes `found_inf`, as torch's fused ones do, then leaves weights and moments alone by itself; for others it is awaited.

No step whose loss, gradients or running statistics are not finite is applied, and no checkpoint with a weight or
momentum that is not finite is written. Weights are read when a checkpoint is due: in between, one that is not finite
shows in the next step's loss or gradients, if anything depends on it. `docs/resuming.md` says how that was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from spgsurgeon.errors import SurgeonError
from spgsurgeon.runtime import Processes
from spgsurgeon.training.state import TrainingState

_LEAST_SCALE = 1.0  # below it float16's loss scale has collapsed: gradients overflow even unscaled
_SCALE_READ_EVERY = 16  # steps: reading it waits for the device, and a collapse takes about as many

_HINT = "lower training.optimizer.lr, or set training.gradient_clip; earlier checkpoints are kept"


Named = list[tuple[str, Tensor]]


class NonFiniteError(SurgeonError):
    """Training met NaN or infinity."""

    kind = "non-finite"


def _floating(named: Iterable[tuple[str, Any]]) -> Named:
    """Return what can be other than finite."""
    tensors = ((name, value) for name, value in named if isinstance(value, Tensor))
    return [(name, tensor) for name, tensor in tensors if tensor.is_floating_point() and tensor.numel()]


def _norms(tensors: list[Tensor]) -> Tensor:
    return torch.stack([norm.float() for norm in torch._foreach_norm(tensors)])


def _not_finite(names: list[str], norms: Tensor) -> list[str]:
    return [name for name, fine in zip(names, norms.isfinite().tolist(), strict=True) if not fine]


class _Look:
    """Whether the `watched` tensors are finite, in all processes. Waits for the device in `fine` only."""

    def __init__(self, step: int, watched: Named, processes: Processes) -> None:
        self.step = step
        self._names = [name for name, _ in watched]
        self._norms = _norms([tensor for _, tensor in watched])
        # A sum over processes is not finite where one of them is not, and no less than each.
        largest = processes.sum(self._norms.amax())
        self.anywhere = ~largest.isfinite()
        self._largest = largest
        self._arrived: torch.cuda.Event | None = None
        if largest.is_cuda:
            self._largest = torch.empty_like(largest, device="cpu", pin_memory=True).copy_(largest, non_blocking=True)
            self._arrived = torch.cuda.Event(blocking=True)  # who waits for it leaves the processor to loader workers
            self._arrived.record(torch.cuda.current_stream(largest.device))

    def fine(self) -> bool:
        """Return whether all are finite, in every process."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return math.isfinite(float(self._largest))

    def wrong(self) -> list[str]:
        """Return what was not finite in this process."""
        return _not_finite(self._names, self._norms)


class NumberGuard:
    """Watches loss, gradients and running statistics in each step, and weights and momenta before each checkpoint.

    A sum of squares that overflows counts as infinite.

    `policy` "skip" leaves out the steps that are not finite, running statistics included, at most `most_skips` of
    them in a run; "stop" raises NonFiniteError. Under float16 a scaler leaves out steps whose gradients overflow, by
    design; only its collapse counts.
    """

    def __init__(self, state: TrainingState, processes: Processes, *, policy: str, most_skips: int) -> None:
        self._state, self._processes = state, processes
        self._skips, self._most_skips = policy == "skip", most_skips
        self._parameters = list(state.grafted.named_parameters())
        self._weights = _floating((f"weight {name}", weight.detach()) for name, weight in self._parameters)
        self._statistics = _floating((f"statistic {name}", buffer) for name, buffer in state.grafted.named_buffers())
        # Backward, as they are made: where several are wrong, the first is where it began.
        self._with_gradient = [(f"the gradient of {name}", weight) for name, weight in reversed(self._parameters)]
        self._late = bool(getattr(state.optimizer, "_step_supports_amp_scaling", False))
        self._look: _Look | None = None
        self._kept: list[tuple[Tensor, Tensor]] = []

    def before_step(self) -> None:
        """Remember the buffers, if a step that is skipped must leave them as they were."""
        if self._skips:
            self._kept = [(buffer, buffer.clone()) for buffer in self._state.grafted.buffers()]

    def check(self, losses: Sequence[Tensor]) -> Tensor:
        """Return, on the device, whether the step must not be applied: bool []. Gradients are there, and unscaled.

        Raises NonFiniteError for the step before, and for this one if the optimizer can't leave it out by itself.
        """
        self.settle()
        watched = [*self._statistics, *(("the loss", loss.detach()) for loss in losses)]
        if not self._state.scaler.is_enabled():
            watched += [(name, weight.grad) for name, weight in self._with_gradient if weight.grad is not None]
        self._look = look = _Look(self._state.counters.step + 1, watched, self._processes)
        for buffer, before in self._kept:
            buffer.copy_(torch.where(look.anywhere, before, buffer))
        if not self._late:
            self.settle()
        return look.anywhere

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
        """Read what the last step's numbers were, waiting for them. Raises NonFiniteError as the policy says."""
        look, self._look = self._look, None
        if look is None or look.fine():
            return
        counters = self._state.counters
        counters.skipped += 1
        if self._skips and counters.skipped <= self._most_skips:
            return
        message = f"step {look.step}: {self._first(look)}"
        if self._skips:
            message += f"; {self._most_skips} steps were skipped before, and training.max_skips allows no more"
        raise NonFiniteError(message, hint=_HINT)

    def settle_all(self) -> None:
        """Wait for the last step and look at what it made, so that what is saved now is sound. Raises as `check`."""
        self.settle()
        self._check_scale()
        watched = [*self._weights, *self._momenta(), *self._statistics]
        look = _Look(self._state.counters.step, watched, self._processes)
        if not look.fine():
            raise NonFiniteError(f"after step {look.step} {self._first(look)}", hint=_HINT)

    def _first(self, look: _Look) -> str:
        """Return what was not finite first; the step was not applied, so the weights are those that it read."""
        names, weights = map(list, zip(*self._weights, strict=True))
        wrong = list(dict.fromkeys(_not_finite(names, _norms(weights)) + look.wrong()))
        if not wrong:
            return "another process met what is not finite"
        others = f" (the first of {len(wrong)} such tensors)" if len(wrong) > 1 else ""
        return f"{wrong[0]} is not finite: it has NaN or infinity{others}"

    def _momenta(self) -> Named:
        state = self._state.optimizer.state
        kept = ((name, state[weight]) for name, weight in self._parameters if weight in state)
        return _floating((f"the momentum of {name}", entries.get("momentum_buffer")) for name, entries in kept)

    def _check_scale(self) -> None:
        scaler = self._state.scaler
        if scaler.is_enabled() and scaler.get_scale() < _LEAST_SCALE:
            raise NonFiniteError(
                f"step {self._state.counters.step}: float16's loss scale fell below {_LEAST_SCALE:g}: its gradients "
                "are not finite any more",
                hint="training.precision=bfloat16 or float32; or lower training.optimizer.lr",
            )
