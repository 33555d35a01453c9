"""From blocks to batches: labels that are shifted once, and masks that are a function of seed, epoch and sample."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_texts import SPECIAL, reader

from spgsurgeon.data.loading.loader import EvaluationBatches, TrainingBatches
from spgsurgeon.data.sources.records.blocks import Blocks, Frame
from spgsurgeon.data.transforms.texts import batches_padded, text_padding
from spgsurgeon.data.transforms.tokens import MaskedTokenTransform, NextTokenTransform
from spgsurgeon.errors import UsageError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.tasks.registry import TASKS

MASK, FIRST, LAST, WORDS = SPECIAL.index("[MASK]"), 1, 2, 40


@pytest.fixture
def preprocessing(tmp_path):
    return open_model(ModelRequest(str(reader(tmp_path / "model", "BertForMaskedLM")))).preprocessing


def blocks(tokens: int = 4000, room: int = 100) -> Blocks:
    drawn = np.random.default_rng(0).integers(5, WORDS, tokens).astype(np.int32)
    return Blocks("noise", drawn, room, Frame((FIRST,), (LAST,), (LAST,)))


def epoch_of(transform, preprocessing, *, epoch=0, workers=0, seed=0, size=8):
    loader = TrainingBatches(
        blocks(), transform, batch_size=size, workers=workers, seed=seed,
        collate=batches_padded(text_padding(preprocessing)),
    )  # fmt: skip
    found = {}
    for batch in loader.epoch(epoch):
        for number, sample in enumerate(batch.samples.tolist()):
            found[sample] = (batch.inputs["input_ids"][number], batch.targets[number])
    loader.close()
    return found


def equal(one, other):
    return all(torch.equal(a, b) for key in one for a, b in zip(one[key], other[key], strict=True))


def test_each_token_is_to_predict_the_next_one(preprocessing) -> None:
    made = NextTokenTransform(preprocessing)(blocks().read(0)[0])
    ids = made.inputs["input_ids"]
    assert made.target[:-1].tolist() == ids[1:].tolist()
    assert made.target[-1] == -100
    assert made.inputs["attention_mask"].all()
    assert not made.inputs["token_type_ids"].any()


def test_masks_are_berts(preprocessing) -> None:
    seen = epoch_of(MaskedTokenTransform(preprocessing, 0.15), preprocessing)
    ids, targets = (torch.stack(part) for part in zip(*(seen[key] for key in sorted(seen)), strict=True))
    own = torch.from_numpy(np.stack([blocks().read(index)[0].tokens for index in range(len(blocks()))]))
    chosen = targets != -100
    assert torch.equal(targets[chosen], own[chosen])
    assert torch.equal(ids[~chosen], own[~chosen])
    assert not chosen[:, 0].any()
    assert not chosen[:, -1].any()
    share, masked = chosen[:, 1:-1].double().mean().item(), (ids[chosen] == MASK).double().mean().item()
    kept = (ids[chosen] == own[chosen]).double().mean().item()
    assert share == pytest.approx(0.15, abs=0.02)
    assert (masked, kept) == (pytest.approx(0.8, abs=0.05), pytest.approx(0.1, abs=0.05))
    replaced = ids[chosen & (ids != own) & (ids != MASK)]
    assert len(replaced) > 0
    assert replaced.max() < WORDS


def test_masks_are_a_function_of_seed_epoch_and_sample(preprocessing) -> None:
    transform = MaskedTokenTransform(preprocessing, 0.15)
    found = epoch_of(transform, preprocessing)
    assert equal(found, epoch_of(transform, preprocessing, workers=2, size=4))
    for change in ({"epoch": 1}, {"seed": 1}):
        assert not equal(found, epoch_of(transform, preprocessing, **change))


def test_masks_of_an_evaluation_are_always_the_same_whatever_training_masks(preprocessing) -> None:
    task, found = TASKS["masked-lm"], []
    for probability, size in ((0.15, 7), (0.5, 3)):
        transform = task.evaluation_transform(replace(preprocessing, mlm_probability=probability))
        batches = EvaluationBatches(
            blocks(), transform, batch_size=size, workers=0, collate=task.collation(preprocessing)
        )
        found.append(torch.cat([batch.targets for batch in batches]))
        batches.close()
    assert torch.equal(*found)
    assert (found[0] != -100).double().mean().item() == pytest.approx(0.15, abs=0.02)
    often = task.training_transform(replace(preprocessing, mlm_probability=0.5), None)
    targets = torch.stack([target for _, target in epoch_of(often, preprocessing).values()])
    assert (targets != -100).double().mean().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("mask", [None, "<mask>"])
def test_a_tokenizer_without_a_mask_is_refused(preprocessing, mask) -> None:
    with pytest.raises(UsageError) as caught:
        MaskedTokenTransform(replace(preprocessing, mask=mask), 0.15)
    assert (caught.value.code, bool(caught.value.hint)) == ("no-mask-token", True)
