"""Tiny models of transformers with random weights, one of each class that can be grafted, and folders of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from spgsurgeon.models.sites.transformers_heads import HEADS, LABELLED

CLASSES, WORDS, WIDTH = 3, 40, 16

_TEXT = {
    "vocab_size": WORDS,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_WAVES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8, 8, 8],
    "conv_kernel": [10, 8, 4],
    "conv_stride": [10, 8, 4],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 12,
    "mask_time_length": 3,
}
_IMAGES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 8,
}
# What the config of a model type has, other than all of them.
FIELDS: dict[str, dict[str, Any]] = {
    "distilbert": {"vocab_size": WORDS, "dim": WIDTH, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
    | {"max_position_embeddings": 40, "pad_token_id": 0},
    "albert": _TEXT | {"embedding_size": 8},
    "electra": _TEXT | {"embedding_size": 8},
    "deberta-v2": _TEXT | {"relative_attention": True, "position_buckets": 4, "pos_att_type": ["p2c", "c2p"]},
    "roberta": _TEXT | {"pad_token_id": 1, "bos_token_id": 0},
    "xlm-roberta": _TEXT | {"pad_token_id": 1, "bos_token_id": 0},
    "mpnet": _TEXT | {"pad_token_id": 1, "bos_token_id": 0},
    "gpt2": {"vocab_size": WORDS, "n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 40}
    | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "wav2vec2": _WAVES,
    "hubert": _WAVES,
    "wavlm": _WAVES | {"num_buckets": 8, "max_bucket_distance": 16},
    "audio-spectrogram-transformer": {k: v for k, v in _IMAGES.items() if k != "image_size"}
    | {"max_length": 40, "num_mel_bins": 32},
    "vit": _IMAGES,
    "deit": _IMAGES,
    "beit": _IMAGES | {"use_relative_position_bias": True},
    "dinov2": _IMAGES,
    "swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    | {"image_size": 32, "patch_size": 4},
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 32},
    "qwen2": _TEXT | {"num_key_value_heads": 2},
    "qwen3": _TEXT | {"num_key_value_heads": 2, "head_dim": 8},
    "gemma": _TEXT | {"num_key_value_heads": 2, "head_dim": 8},
    "modernbert": _TEXT | {"cls_token_id": 1, "sep_token_id": 2, "local_attention": 4},
}


def tiny(name: str, **fields: Any) -> Any:
    """Return a model of the class `name` in eval mode; skip the test if transformers is not installed."""
    transformers = pytest.importorskip("transformers", minversion="5")
    head = HEADS[name]
    kind = getattr(transformers, name)
    labels = {"num_labels": CLASSES} if head.task in LABELLED else {}
    config = kind.config_class(**{**FIELDS.get(head.family.model_type, _TEXT), **labels, **fields})
    torch.manual_seed(0)
    module = kind(config)
    for parameter in module.parameters():  # biases that start at zero would hide what is left out
        nn.init.normal_(parameter, std=0.2)
    return module.eval()


def saved(module: Any, folder: Path, **fields: Any) -> Path:
    """Write a model with `save_pretrained`, beside it the files of a tokenizer; `fields` go into config.json."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    module.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(b'{"version": "1.0",\r\n "model": null}')
    (folder / "vocab.txt").write_text("[PAD]\nword\n")
    if fields:
        rewrite(folder, **fields)
    return folder


def rewrite(folder: Path, **fields: Any) -> None:
    """Put `fields` into config.json; those that are ... are taken out."""
    document = json.loads((folder / "config.json").read_text()) | fields
    document = {name: value for name, value in document.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(document))
