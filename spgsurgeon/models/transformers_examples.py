"""Inputs that the laws are proven on for models of transformers: two samples, the second padded if it can be.

Shapes: N = 2 samples, L = length of a text in tokens, K = choices.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon.checkpoint import CONFIG
from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models.sites.transformers_heads import CHOICE, Head, head_of_class

_CHOICES = 3
_LENGTH = 16  # tokens
_SAMPLES = 8000  # half a second at the usual rate: masks in train mode need some frames


def example_of(module: nn.Module) -> dict[str, Tensor]:
    """Return inputs by name, the same on every call, where and as the weights of `module` are.

    Raises ArchitectureError for a class that is not in the table of heads, or if two texts need a padding token and the
    config has none.
    """
    head = head_of_class(type(module))
    if head is None:
        raise ArchitectureError(f"no law can be proven on a {type(module).__name__}: what it takes is not known")
    generator, parameter, config = torch.Generator().manual_seed(0), next(module.parameters()), module.config
    made = _MAKERS[head.family.modality](head, config, generator)
    return {
        name: value.to(parameter.device, parameter.dtype if value.is_floating_point() else None)
        for name, value in made.items()
    }


def _text(head: Head, config: Any, generator: torch.Generator) -> dict[str, Tensor]:
    """Return ids and a mask [2, L], for a choice [2, K, L], whose second half is padding in the second sample."""
    words, pad = config.vocab_size, config.pad_token_id
    if pad is None and head.tiled:
        raise ArchitectureError(
            f"{CONFIG} gives no padding token, and without one a {head.name} takes a single text at a time",
            hint=f"set pad_token_id in {CONFIG} to the number of the tokenizer's padding token",
            code="no-padding-token",
        )
    shape = (2, *((_CHOICES,) if head.task == CHOICE else ()), min(_LENGTH, config.max_position_embeddings // 2))
    ids = torch.randint(words - 1, shape, generator=generator)
    ids += ids >= (0 if pad is None else pad)  # every word but the padding
    mask = torch.ones(shape, dtype=torch.int64)
    mask[1, ..., shape[-1] // 2 :] = 0
    return {"input_ids": torch.where(mask == 1, ids, 0 if pad is None else pad), "attention_mask": mask}


def _waves(head: Head, config: Any, generator: torch.Generator) -> dict[str, Tensor]:
    """Return sound [2, samples] and its mask, whose second half is padding in the second one."""
    mask = torch.ones((2, _SAMPLES), dtype=torch.int64)
    mask[1, _SAMPLES // 2 :] = 0
    return {"input_values": torch.randn(mask.shape, generator=generator) * mask, "attention_mask": mask}


def _spectrogram(head: Head, config: Any, generator: torch.Generator) -> dict[str, Tensor]:
    """Return spectrograms [2, frames, mel bins], which are all of one length."""
    return {"input_values": torch.randn((2, config.max_length, config.num_mel_bins), generator=generator)}


def _images(head: Head, config: Any, generator: torch.Generator) -> dict[str, Tensor]:
    """Return images [2, channels, H, W]."""
    size = config.image_size
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return {"pixel_values": torch.randn((2, config.num_channels, *sides), generator=generator)}


_MAKERS = {"text": _text, "waves": _waves, "spectrogram": _spectrogram, "images": _images}
