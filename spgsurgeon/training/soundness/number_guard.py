"""NaN and infinity, found on the device within a step, before they reach the weights.

A step's largest norm is computed on the device and read by the host one step later, so nothing waits. An optimizer that
takes `found_inf`, as torch's fused ones do, then leaves weights and moments alone by itself; for others it is awaited.
Weights are read only where the updates before may have made them infinite, see `weight_bound`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from spgsurgeon.errors import SurgeonError
from spgsurgeon.runtime import Processes
from spgsurgeon.training.soundness.weight_bound import Rates, WeightBound
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
    """What a step's numbers were, and the `rates` that it was done with. Waits for the device in `largest` only."""

    def __init__(
        self, step: int, watched: Named, processes: Processes, rates: Rates | None, *, at_weights: bool
    ) -> None:
        """`watched` are the tensors to look at; `at_weights` says that weights and momenta are among them."""
        self.step, self.rates, self.at_weights = step, rates, at_weights
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

    def largest(self) -> float:
        """Return what no norm exceeds, in no process; NaN or infinity where one is not finite."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._largest)

    def wrong(self) -> list[str]:
        """Return what was not finite in this process."""
        return _not_finite(self._names, self._norms)


class NumberGuard:
    """Watches loss, gradients, weights and running statistics. A sum of squares that overflows counts as infinite.

    What is looked at in each step are loss, gradients and running statistics, and weights where they could be infinite.

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
        self._bound = WeightBound(state.optimizer)
        self._look: _Look | None = None
        self._kept: list[tuple[Tensor, Tensor]] = []

    def before_step(self) -> None:
        """Remember the buffers, if a step that is skipped must leave them as they were."""
        if self._skips:
            self._kept = [(buffer, buffer.clone()) for buffer in self._state.grafted.buffers()]

    def check(self, losses: Sequence[Tensor]) -> Tensor:
        """Return, on the device, whether the step must not be applied: bool []. Gradients are there, and unscaled.

        Raises NonFiniteError for the step before, and for this one where the optimizer can't leave it out by itself.
        """
        self.settle()
        at_weights = not self._bound.known
        watched = [*self._weights, *self._momenta()] if at_weights else []
        watched += [*self._statistics, *(("the loss", loss.detach()) for loss in losses)]
        if not self._state.scaler.is_enabled():
            watched += [(name, weight.grad) for name, weight in self._with_gradient if weight.grad is not None]
        look = self._look_at(watched, self._state.counters.step + 1, at_weights=at_weights)
        self._look = look
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
        """Read what the last step's numbers were, waiting for them. Raises NonFiniteError where that is called for."""
        look, self._look = self._look, None
        if look is None:
            return
        largest = look.largest()
        if math.isfinite(largest):
            if look.at_weights:
                self._bound.seen(largest)
            # A scaler looks at the gradients by itself, so that here nothing is known about them.
            self._bound.follow(math.inf if self._state.scaler.is_enabled() else largest, look.rates)
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
        look = self._look_at([*self._weights, *self._statistics], self._state.counters.step, at_weights=True)
        if not math.isfinite(look.largest()):
            raise NonFiniteError(f"after step {look.step} {self._first(look)}", hint=_HINT)

    def _first(self, look: _Look) -> str:
        """Return what was not finite first; the step was not applied, so the weights are those that it read."""
        wrong = look.wrong()
        if not look.at_weights:
            names, weights = map(list, zip(*self._weights, strict=True))
            wrong = _not_finite(names, _norms(weights)) + wrong
        if not wrong:
            return "another process met what is not finite"
        others = f" (the first of {len(wrong)} such tensors)" if len(wrong) > 1 else ""
        return f"{wrong[0]} is not finite: it has NaN or infinity{others}"

    def _momenta(self) -> Named:
        state = self._state.optimizer.state
        kept = ((name, state[weight]) for name, weight in self._parameters if weight in state)
        return _floating((f"the momentum of {name}", entries.get("momentum_buffer")) for name, entries in kept)

    def _look_at(self, watched: Named, step: int, *, at_weights: bool) -> _Look:
        return _Look(step, watched, self._processes, self._bound.rates(), at_weights=at_weights)

    def _check_scale(self) -> None:
        scaler = self._state.scaler
        if scaler.is_enabled() and scaler.get_scale() < _LEAST_SCALE:
            raise NonFiniteError(
                f"step {self._state.counters.step}: float16's loss scale fell below {_LEAST_SCALE:g}: its gradients "
                "are not finite any more",
                hint="training.precision=bfloat16 or float32; or lower training.optimizer.lr",
            )
