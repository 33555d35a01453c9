"""Inputs of models of transformers, of any size, padded if they can be: what graphs take, what laws are proven on.

Shapes: N samples, L = length of a text in tokens, K = choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon.checkpoint import CONFIG
from spgsurgeon.errors import ArchitectureError, UsageError
from spgsurgeon.models.graph_inputs import BATCH, BATCH_SIZES, GraphInputs, Sizes, image_inputs
from spgsurgeon.models.sites.transformers_heads import CHOICE, Head, head_of_class
from spgsurgeon.models.sound_preprocessing import hears_masks
from spgsurgeon.models.text_preprocessing import most_tokens

MASK = "attention_mask"
LENGTH, SAMPLES, CHOICES = "length", "samples", "num_choices"
_TEXTS = ((1, 128), (2, 5), (3, 23))  # and their tokens, at most as many as a model takes
_SOUNDS = ((1, 16_000), (2, 5_003), (3, 9_000))  # and their samples


def example_of(module: nn.Module) -> dict[str, Tensor]:
    """Return two samples by name, the same on every call, where and as the weights of `module` are.

    The second is padded if it can be. Raises ArchitectureError for a class that is not in the table of heads, or if two
    texts need a padding token and the config has none.
    """
    head, parameter = _head_of(module), next(module.parameters())
    config = _config_of(module)
    return {
        name: value.to(parameter.device, parameter.dtype if value.is_floating_point() else None)
        for name, value in _MAKERS[head.family.modality](head, config).example().items()
    }


def graph_inputs_of(module: nn.Module, input_size: Sequence[int] | None) -> GraphInputs:
    """Return what the graph of a model takes: images of `input_size` (channels, height, width), or what its class says.

    Raises UsageError for images of no size, and texts or sounds of one; ArchitectureError if several texts need a
    padding token and the config has none.
    """
    if takes_images(module):
        if input_size is None:
            raise UsageError("a graph takes images of one size: which?", hint="--image-size N")
        return image_inputs(input_size)
    head, config = _head_of(module), _config_of(module)
    if input_size is not None:
        raise UsageError(f"an image size is for models of images, and a {head.name} takes none", hint="leave it out")
    made = _MAKERS[head.family.modality](head, config)
    unmasked = head.family.modality == "waves" and not hears_masks(config)
    return made.without(MASK) if unmasked else made


def takes_images(module: nn.Module) -> bool:
    """Return whether a model takes images: all do but those of transformers whose class says otherwise."""
    head = head_of_class(type(module))
    return head is None or head.family.modality == "images"


def _config_of(module: nn.Module) -> Any:
    return module.config


def _head_of(module: nn.Module) -> Head:
    head = head_of_class(type(module))
    if head is None:
        raise ArchitectureError(f"what a {type(module).__name__} takes is not known")
    return head


def _text(head: Head, config: Any) -> GraphInputs:
    """Return ids, a mask and, for some models, segments [N, L], or [N, K, L]."""
    pad, longest = config.pad_token_id, most_tokens(head, config)
    if pad is None and head.tiled:
        raise ArchitectureError(
            f"{CONFIG} gives no padding token, and without one a {head.name} takes a single text at a time",
            hint=f"set pad_token_id in {CONFIG} to the number of the tokenizer's padding token",
            code="no-padding-token",
        )
    chooses = head.task == CHOICE
    names = (BATCH, CHOICES, LENGTH) if chooses else (BATCH, LENGTH)

    def make(sizes: Sizes, generator: torch.Generator) -> dict[str, Tensor]:
        shape = tuple(sizes[name] for name in names)
        ids = torch.randint(config.vocab_size - 1, shape, generator=generator)
        ids += ids >= (0 if pad is None else pad)  # every word but the padding
        mask = _mask(shape)
        made = {"input_ids": torch.where(mask == 1, ids, 0 if pad is None else pad), MASK: mask}
        if head.family.segments:
            kinds = min(2, max(1, config.type_vocab_size))
            made["token_type_ids"] = torch.randint(kinds, shape, generator=generator) * mask
        return made

    traced = {BATCH: 2, LENGTH: min(16, longest // 2), **({CHOICES: 3} if chooses else {})}
    compared = [
        {BATCH: texts, LENGTH: min(tokens, longest), **({CHOICES: 1 + texts} if chooses else {})}
        for texts, tokens in _TEXTS
    ]
    axes = dict(enumerate(names))
    return GraphInputs(dict.fromkeys(make(traced, torch.Generator()), axes), make, traced, compared)


def _mask(shape: tuple[int, ...]) -> Tensor:
    """Return the mask of samples of which each has more padding at its end than the one before, up to a half."""
    count, length = shape[0], shape[-1]
    kept = torch.tensor([length - number * (length // 2) // max(1, count - 1) for number in range(count)])
    mask = (torch.arange(length) < kept[:, None]).long()
    return mask.view(count, *(1,) * (len(shape) - 2), length).expand(shape).contiguous()


def _waves(head: Head, config: Any) -> GraphInputs:
    """Return sound and its mask [N, samples]."""

    def make(sizes: Sizes, generator: torch.Generator) -> dict[str, Tensor]:
        mask = _mask((sizes[BATCH], sizes[SAMPLES]))
        return {"input_values": torch.randn(mask.shape, generator=generator) * mask, MASK: mask}

    traced = {BATCH: 2, SAMPLES: 8_000}  # half a second at the usual rate: masks in train mode need some frames
    compared = [{BATCH: sounds, SAMPLES: samples} for sounds, samples in _SOUNDS]
    axes = {0: BATCH, 1: SAMPLES}
    return GraphInputs({"input_values": axes, MASK: axes}, make, traced, compared)


def _spectrogram(head: Head, config: Any) -> GraphInputs:
    """Return spectrograms [N, frames, mel bins], which are all of one length."""
    return _several("input_values", (config.max_length, config.num_mel_bins))


def _images(head: Head, config: Any) -> GraphInputs:
    """Return images [N, channels, H, W]."""
    size = config.image_size
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return _several("pixel_values", (config.num_channels, *sides))


def _several(name: str, shape: tuple[int, ...]) -> GraphInputs:
    return GraphInputs(
        open={name: {0: BATCH}},
        make=lambda sizes, generator: {name: torch.randn((sizes[BATCH], *shape), generator=generator)},
        traced={BATCH: 2},
        compared=[{BATCH: size} for size in BATCH_SIZES],
    )


_MAKERS = {"text": _text, "waves": _waves, "spectrogram": _spectrogram, "images": _images}
