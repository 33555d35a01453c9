"""The laws that `graft` and `strip` prove on the user's own model before they write anything.

Each check returns the laws that hold, by name, and raises VerificationError on the first that does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from spgsurgeon.checkpoint import DTYPE_NAMES, TensorSpec, content_hash, content_hash_of, read_document, same_bits
from spgsurgeon.errors import ArchitectureError, SurgeonError, UsageError, VerificationError, first_line
from spgsurgeon.loading import OpenedModel
from spgsurgeon.models import example_of, is_of_transformers, modes_kept, of_images, run_in_eval, saved_state
from spgsurgeon.replicas import GraftedModel, ReplicaChain, layout_of, outputs_of

Inputs = Tensor | Mapping[str, Tensor]
Layout = list[tuple[str, tuple[int, ...], torch.dtype]]


@dataclass(frozen=True)
class Fingerprint:
    """What must not change: all outputs in eval mode on one batch, that of inference first, and the weights."""

    outputs: tuple[Tensor, ...]
    content_hash: str


def example_images(
    module: nn.Module, input_size: tuple[int, int, int], batch: int = 2, *, largest_side: int | None = None
) -> Tensor:
    """Return normal noise [batch, channels, H, W], the same on every call, where and as the module's weights are.

    The images have at most `largest_side` pixels a side, for a model that takes any size: the laws compare two runs of
    the same layers, none of whose weights depend on it.
    """
    channels, *sides = input_size
    if largest_side is not None:
        sides = [min(side, largest_side) for side in sides]
    generator = torch.Generator().manual_seed(0)
    parameter = next(module.parameters())
    return torch.randn(batch, channels, *sides, generator=generator).to(parameter.device, parameter.dtype)


def example_inputs(opened: OpenedModel) -> Inputs:
    """Return what the laws are proven on for an opened model: noise for images, else its inputs by name."""
    if is_of_transformers(opened.module):
        return example_of(opened.module)
    size = of_images(opened.preprocessing, opened.source).input_size
    return example_images(opened.module, size, largest_side=opened.task.largest_side)


def fingerprint(module: nn.Module, inputs: Inputs) -> Fingerprint:
    """Return the fingerprint of a module on `inputs`, images [N, channels, H, W] or others by name. Its mode is kept.

    Raises VerificationError if an output is NaN somewhere, which equals nothing.
    """
    outputs = _eval_outputs(module, inputs)
    if any(output.isnan().any() for output in outputs):
        raise VerificationError(
            "the model gives NaN on images of noise, so no law can be proven on it",
            hint="do its half-precision weights overflow? cast them to float32 first",
        )
    return Fingerprint(outputs, content_hash(saved_state(module)))


def prove_graft(grafted: GraftedModel, base: Fingerprint, inputs: Inputs) -> dict[str, bool]:
    """Prove laws 1 and 2 on a fresh graft: eval outputs and weights are the base's, each replica starts as identity.

    All of it to the bit; only of hidden states the sign of zeros does not count: what a replica adds is 0, and -0 + 0
    is 0.
    Raises ArchitectureError if the model fails in train mode or gives something else than a row a step and image.
    """
    if content_hash(saved_state(grafted.base)) != base.content_hash:
        raise VerificationError("grafting changed the base's state dict (law 1)")
    if not _equal(_eval_outputs(grafted, inputs), base.outputs):
        raise VerificationError("the grafted model's outputs in eval mode differ from the base's (law 1)")
    for site, states in _training_states(grafted, inputs).items():
        states = states + 0  # -0 becomes 0, as it does when a replica adds zero to it
        for t in range(1, len(states)):
            if not same_bits(states[t], states[0]):
                raise VerificationError(f"replica {t} at {site!r} does not start as the identity (law 2)")
    return {"state_dict_unchanged": True, "eval_outputs_equal": True, "replicas_start_as_identity": True}


def prove_strip(grafted_output: Any, stripped: nn.Module, layout: Layout, inputs: Inputs) -> dict[str, bool]:
    """Prove laws 3 and 4: the stripped module has the original's layout, no hook, and the grafted model's outputs.

    `grafted_output` is what the grafted model gave on `inputs` in eval mode: a tensor, a mapping or a tuple of them.
    """
    if layout_of(stripped) != layout:
        raise VerificationError("the stripped model's keys, order, shapes or dtypes are not the base's (law 3)")
    if hooks := _hooked_modules(stripped):
        raise VerificationError(f"hooks are left on {', '.join(hooks)} (law 3)")
    if not _equal(_eval_outputs(stripped, inputs), outputs_of(grafted_output)):
        raise VerificationError("the stripped model's outputs differ from the grafted model's in eval mode (law 4)")
    return {"layout_equal": True, "no_hooks_left": True, "eval_outputs_equal": True}


def prove_file(path: Path, content_hash: str, layout: Layout) -> str:
    """Prove that a weights file, read back, holds keys, shapes and dtypes of `layout`, and values of that hash.

    Returns the content hash of what was read, which is the one given.
    """
    entries = _read_back(path)
    expected = {key: (shape, DTYPE_NAMES[dtype]) for key, shape, dtype in layout}
    found = {key: (tuple(spec.shape), spec.dtype) for key, spec in entries.items()}
    if differing := [key for key in {**expected, **found} if expected.get(key) != found.get(key)]:
        raise _fault(path, f"its keys, shapes or dtypes are not the base's, first at {differing[0]!r}")
    read = content_hash_of(entries)
    if read != content_hash:
        raise _fault(path, f"its content hash is {read[:12]}, not {content_hash[:12]}")
    return read


def _read_back(path: Path) -> Mapping[str, TensorSpec]:
    """Return all tensors of a state dict in a file, by the keys that it has there."""
    try:
        document = read_document(path)
        specs = {key: document.spec_of(key, value) for key, value in document.values.items()}
    except SurgeonError as error:
        raise _fault(path, error.message) from error
    return {key: spec for key, spec in specs.items() if spec is not None}


def _fault(path: Path, reason: str) -> VerificationError:
    return VerificationError(
        f"{path.name}, read back, is not what was to be written: {reason}",
        hint="nothing was kept; look at the disk and the memory of this machine, then try again",
    )


def _equal(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> bool:
    """Return whether two models' outputs are the same, bit for bit."""
    return len(found) == len(expected) and all(map(same_bits, found, expected))


@torch.no_grad()
def _eval_outputs(module: nn.Module, inputs: Inputs) -> tuple[Tensor, ...]:
    try:
        output: Any = run_in_eval(module, inputs)
    except (AssertionError, RuntimeError, ValueError) as error:
        kind = _dtype_of(inputs)
        hint = None if kind == torch.float32 else f"its weights are {kind}: convert them to float32 first"
        raise UsageError(f"the model can't take {_described(inputs)}: {first_line(error)}", hint=hint) from error
    try:
        return outputs_of(output)
    except TypeError as error:
        raise ArchitectureError(f"no law can be proven: {error}") from error


@torch.no_grad()
def _training_states(grafted: GraftedModel, inputs: Inputs) -> dict[str, Tensor]:
    """Return the hidden states in train mode, [T+1, N, ...] by place, with the replicas' perturbations off.

    Running statistics and random numbers are put back.
    """
    buffers = {name: buffer.clone() for name, buffer in grafted.named_buffers()}
    try:
        with modes_kept(grafted), _random_numbers_kept():
            grafted.train()
            for perturbation in _perturbations(grafted.replicas):
                perturbation.eval()
            states, logits = (
                grafted.hidden_states(inputs) if isinstance(inputs, Tensor) else grafted.hidden_states(**inputs)
            )
    except (RuntimeError, TypeError, ValueError) as error:
        raise ArchitectureError(
            f"in train mode the model grafted at {', '.join(grafted.sites)} fails: {first_line(error)}",
            hint="are these all of the layers that make its logits? are the images large enough in train mode?",
        ) from error
    finally:
        for name, buffer in grafted.named_buffers():
            buffer.copy_(buffers[name])
    _check_stacked(grafted, states, rows=logits.shape[0], pictures=_rows_of(inputs))
    return states


def _perturbations(replicas: nn.Module) -> Iterator[nn.Module]:
    """Yield what of the replicas can change a hidden state without having learnt to: modules that hold nothing."""
    for module in replicas.modules():
        held = (*module.children(), *module.parameters(recurse=False), *module.buffers(recurse=False))
        if not held and not isinstance(module, ReplicaChain):
            yield module


def _check_stacked(grafted: GraftedModel, states: dict[str, Tensor], *, rows: int, pictures: int) -> None:
    unused = [site for site in grafted.sites if site not in states]
    if unused and any(cast(ReplicaChain, chain).alters for chain in grafted.replicas):
        raise ArchitectureError(f"in train mode nothing passes through {', '.join(unused)}")
    if rows != grafted.steps * pictures:
        raise ArchitectureError(
            f"{', '.join(grafted.sites)} is not what makes the logits: {rows} rows came out for "
            f"{grafted.steps * pictures}"
        )


def _rows_of(inputs: Inputs) -> int:
    return len(inputs if isinstance(inputs, Tensor) else next(iter(inputs.values())))


def _dtype_of(inputs: Inputs) -> torch.dtype:
    """Return the type of the numbers that go in, which is that of the weights; float32 if only words do."""
    tensors = [inputs] if isinstance(inputs, Tensor) else list(inputs.values())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def _described(inputs: Inputs) -> str:
    if isinstance(inputs, Tensor):
        return f"images of {list(inputs.shape[1:])}"
    return ", ".join(f"{name} of {list(value.shape[1:])}" for name, value in inputs.items())


def _hooked_modules(module: nn.Module) -> list[str]:
    return [
        name or "the model itself"
        for name, part in module.named_modules()
        if any(not _is_the_librarys(hook) for hook in _hooks_of(part))
    ]


def _hooks_of(part: nn.Module) -> list[Any]:
    return [*part._forward_pre_hooks.values(), *part._forward_hooks.values(), *part._backward_hooks.values()]


def _is_the_librarys(hook: Any) -> bool:
    """Return whether it is one of those by which transformers collects hidden states, put there by any forward pass."""
    return str(getattr(hook, "__module__", "")).startswith("transformers.")


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """Put generators back afterwards: torch's, and numpy's, which models of sound draw masks from in train mode."""
    state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(state)
