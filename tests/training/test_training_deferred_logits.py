"""A head that is read in chunks gives the loss and the gradients of all logits, wherever the loop runs it."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from launches import free_port
from tiny_language import ALONE, NO_DROPOUT, VOCABULARY, LargestLogits, language_folder, language_retraining, last_batch
from torch import Tensor
from torch.nn.functional import pad

from spgsurgeon.errors import UsageError
from spgsurgeon.models.sites.transformers_heads import CAUSAL, HEADS, MASKED
from spgsurgeon.objective.chunked_readout import CHUNK
from spgsurgeon.objective.loss import FORMS, SPGLoss, spg_loss
from spgsurgeon.runtime.distributed import Processes, join_processes
from spgsurgeon.runtime.seeds import derive_seed, seed_generators
from spgsurgeon.training.evaluation import evaluate
from spgsurgeon.training.loop import Retraining

MODELS = [name for name, head in HEADS.items() if head.task in (CAUSAL, MASKED)]
FEW = ["GPT2LMHeadModel", "LlamaForCausalLM", "BertForMaskedLM"]


def gradients(retraining: Retraining, loss: Tensor) -> dict[str, Tensor]:
    retraining.grafted.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in retraining.grafted.named_parameters() if p.grad is not None}


def of_all_logits(retraining: Retraining, **how: Any) -> SPGLoss:
    """Return the loss of the step that comes next, of logits that all exist."""
    batch = last_batch(retraining)
    retraining.enter_training()
    seed_generators(derive_seed(retraining.settings.seed, "step", 0, 0, 0), torch.device("cpu"))
    return spg_loss(retraining.grafted(**batch.inputs), batch.targets, class_dim=-1, **how)


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_those_of_all_logits(tmp_path, name) -> None:
    retraining = language_retraining(language_folder(tmp_path, name))
    found = retraining.try_batch(last_batch(retraining))
    expected = of_all_logits(retraining, weights=(0.4, 0.2))
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    counted = expected.episode.counted
    assert torch.equal(found.episode.counted, counted)
    assert torch.equal(found.episode.lengths[counted], expected.episode.lengths[counted])
    own, theirs = gradients(retraining, found.loss), gradients(retraining, expected.loss)
    assert own.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(own[key], value, rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_objective_reads_it(tmp_path, form) -> None:
    work = language_folder(tmp_path, "GPT2LMHeadModel")
    retraining = language_retraining(work, f"objective.form={form}", "objective.label_smoothing=0.1")
    found = retraining.try_batch(last_batch(retraining))
    expected = of_all_logits(retraining, weights=(0.4, 0.2), form=form, label_smoothing=0.1)
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    assert len(set(expected.episode.lengths[expected.episode.counted].tolist())) > 1


@pytest.mark.parametrize("name", FEW)
def test_the_loss_of_step_0_is_that_of_transformers_on_a_padded_batch(tmp_path, name) -> None:
    retraining = language_retraining(language_folder(tmp_path, name, **NO_DROPOUT))
    batch = last_batch(retraining)
    found = retraining.try_batch(batch).step_losses[0]
    labels = batch.targets
    if HEADS[name].task == CAUSAL:  # which shifts labels itself
        labels = pad(labels[:, :-1], (1, 0), value=-100)
    retraining.grafted.eval()
    with torch.no_grad():
        expected = retraining.grafted.base(**batch.inputs, labels=labels).loss
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


WAYS = ("", "trp={kind: none}", "trp={kind: fixed-dropout}", "trp.rollouts=true", "head start")


@pytest.mark.parametrize("trp", WAYS)
@pytest.mark.parametrize("name", FEW[::2])
def test_no_step_and_no_score_has_more_logits_than_a_chunk(tmp_path, name, trp) -> None:
    overrides = [] if trp in ("", "head start") else [trp]
    retraining = language_retraining(language_folder(tmp_path, name), *overrides)
    batch = last_batch(retraining)
    assert batch.targets.numel() > CHUNK
    assert VOCABULARY not in batch.targets.shape
    with LargestLogits() as largest:
        if trp == "head start":
            with retraining._stepper.plainly(retraining._head_start.running()):
                retraining.try_batch(batch).loss.backward()
        else:
            retraining.try_batch(batch).loss.backward()
    assert 0 < largest.rows <= CHUNK
    with LargestLogits() as largest:
        evaluate(retraining.grafted, [batch], ALONE, torch.float32, retraining.task)
    assert 0 < largest.rows <= CHUNK
    with LargestLogits() as largest:
        retraining.grafted(**batch.inputs)
    assert largest.rows >= batch.targets.numel()


@pytest.mark.parametrize("name", FEW)
def test_scores_are_those_of_all_logits(tmp_path, name) -> None:
    retraining = language_retraining(language_folder(tmp_path, name))
    batch = last_batch(retraining)
    for model in (retraining.grafted, retraining.grafted.base):
        found = evaluate(model, [batch, batch], ALONE, torch.float32, retraining.task)
        with torch.no_grad():
            expected = spg_loss(retraining.grafted.base(**batch.inputs).logits, batch.targets, (), class_dim=-1).loss
        assert found["loss"] == pytest.approx(expected.item(), rel=1e-5)
        assert found["perplexity"] == pytest.approx(expected.exp().item(), rel=1e-5)
        assert found["samples"] == 2 * len(batch.targets)


def test_a_plain_step_is_that_of_the_base_alone(tmp_path) -> None:
    retraining = language_retraining(language_folder(tmp_path, "GPT2LMHeadModel"), "trp={kind: none}")
    found = gradients(retraining, retraining.try_batch(last_batch(retraining)).loss)
    expected = gradients(retraining, of_all_logits(retraining, weights=()).loss)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-6, msg=key)


def test_batches_of_one_size_accumulate_to_the_joined_batch(tmp_path) -> None:
    work = language_folder(tmp_path, "GPT2LMHeadModel", **NO_DROPOUT)
    found = []
    for size, accumulate in ((8, 1), (4, 2)):
        sizes = (f"training.batch_size={size}", f"training.accumulate={accumulate}")
        retraining = language_retraining(work, "trp={kind: none}", *sizes)
        retraining.enter_training()
        batches = retraining.batches.epoch(0)
        parts = [next(batches) for _ in range(accumulate)]
        assert all(part.inputs["attention_mask"].all() for part in parts)  # all have as many tokens
        retraining._stepper.accumulate(parts)
        found.append({name: p.grad.clone() for name, p in retraining.grafted.named_parameters()})
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.parametrize("name", FEW[::2])
def test_low_precision_has_float32_weights_and_a_loss_near_that_of_float32(tmp_path, name) -> None:
    work = language_folder(tmp_path, name, **NO_DROPOUT)
    losses = []
    for precision in ("float32", "bfloat16"):
        retraining = language_retraining(work, f"training.precision={precision}", "trp.rate=0")
        batch = last_batch(retraining)
        result = retraining.try_batch(batch)
        assert result.loss.dtype == torch.float32
        assert all(grad.dtype == torch.float32 for grad in gradients(retraining, result.loss).values())
        scores = evaluate(retraining.grafted, [batch], ALONE, retraining._precision, retraining.task)
        losses.append((result.step_losses[0].item(), scores["loss"]))
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_r_drop_is_refused(tmp_path) -> None:
    with pytest.raises(UsageError, match="all logits") as caught:
        language_retraining(language_folder(tmp_path, "GPT2LMHeadModel"), "trp={kind: none}", "objective.r_drop=1")
    assert caught.value.code == "r-drop-needs-logits"


# Law 8


def after_an_epoch(work: Path, processes: Processes) -> dict[str, Any]:
    size = f"training.batch_size={4 // processes.world_size}"
    with language_retraining(work, "trp.rate=0", size, "training.accumulate=2", processes=processes) as retraining:
        counters = retraining.run()
        scores = {key: counters.last[key] for key in ("perplexity", "token_accuracy", "samples")}
        return {"weights": dict(retraining.grafted.state_dict()), "scores": scores}


def in_each_process(rank: int, folders: list[Path]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "localhost"}
    os.environ["MASTER_PORT"] = (folders[0] / "port").read_text()
    with join_processes("cpu") as processes:
        for work in folders:
            torch.save(after_an_epoch(work, processes), work / f"{rank}.pt")


def test_two_processes_come_to_the_weights_of_one(tmp_path) -> None:
    folders = []
    for name in ("GPT2LMHeadModel", "BertForMaskedLM"):
        (tmp_path / name).mkdir()
        folders.append(language_folder(tmp_path / name, name, **NO_DROPOUT))
    (folders[0] / "port").write_text(str(free_port()))
    torch.multiprocessing.spawn(in_each_process, (folders,), nprocs=2)
    for work in folders:
        alone = after_an_epoch(work, ALONE)
        for rank in range(2):
            found = torch.load(work / f"{rank}.pt")
            assert found["scores"] == pytest.approx(alone["scores"], rel=1e-4)
            for key, value in alone["weights"].items():
                torch.testing.assert_close(found["weights"][key], value, rtol=1e-3, atol=1e-4, msg=key)
