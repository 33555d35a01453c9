"""Retrainings of tiny language models on texts, whose padded blocks have words that the models partly know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from folder_runs import RECIPE, write_recipe
from tiny_texts import corpus_folder, reader
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spgsurgeon.data.loading.samples import Batch
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.runtime.distributed import Processes
from spgsurgeon.training.assembling import make_retraining
from spgsurgeon.training.loop import Retraining
from spgsurgeon.training.preparing import prepare

ALONE = Processes(0, 1, torch.device("cpu"))
VOCABULARY = 47  # like no other dimension of these models
FAST = ("training.epochs=1", "training.optimizer={name: sgd, lr: 0.05, momentum: 0}")
NO_DROPOUT = {
    **dict.fromkeys(("attention_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "dropout"), 0.0),
    **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0),
}


def language_folder(work: Path, name: str, **fields: Any) -> Path:
    """Write a model of the class `name`, texts, and a recipe for them into a folder, and return it."""
    corpus_folder(work / "data", train=100)
    reader(work / "model", name, vocab_size=VOCABULARY, **fields)
    write_recipe(work, "corpus", drop_last=False)
    return work


def language_retraining(work: Path, *overrides: str, processes: Processes = ALONE) -> Retraining:
    """Return the retraining of the model in a folder, before its first step; nothing is written."""
    settled = read_recipe(work / RECIPE, ["training.device=cpu", *FAST, *overrides])
    return make_retraining(prepare(settled, ModelRequest(str(work / "model"))), processes)


def last_batch(retraining: Retraining) -> Batch:
    """Return the last batch of an epoch and the last block, which is shorter, in one."""
    items = [retraining.batches._uncached[0, index] for index in range(len(retraining.batches.source))]
    part = retraining.batches._uncached.collate(items)
    assert not hasattr(part, "reason")
    batch: Batch = part.batches[0]  # type: ignore[union-attr]
    assert not batch.inputs["attention_mask"].all()
    return batch


class LargestLogits(TorchDispatchMode):
    """Remembers the most rows of logits that any operator gave; the head's own weight is no larger."""

    rows = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        found = function(*arguments, **(options or {}))
        for tensor in found if isinstance(found, Sequence) else [found]:
            if isinstance(tensor, Tensor) and tensor.dim() > 1 and tensor.shape[-1] == VOCABULARY:
                self.rows = max(self.rows, tensor.numel() // VOCABULARY)
        return found
