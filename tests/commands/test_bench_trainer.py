"""`bench --arms trainer`: the plain step of transformers' Trainer beside our own."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import spgsurgeon, succeed
from tiny_texts import corpus_folder, json_lines, opinions_folder, questions, reader

from spgsurgeon.benchmarking.arms import PLAIN, TRAINER
from spgsurgeon.benchmarking.subject import settle_subject
from spgsurgeon.commands import bench as workflow
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.runtime.distributed import Processes
from spgsurgeon.training.assembling import make_retraining

STILL = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
STILL |= dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
ADAMW = ("training.optimizer={name: adamw, lr: 0.01, weight_decay: 0.0}", "training.schedule.name=constant")
ADAMW += ("training.batch_size=4", "data.workers=0")

FAMILIES: dict[str, Callable[[Path], object]] = {
    "BertForSequenceClassification": opinions_folder,
    "BertForQuestionAnswering": lambda data: json_lines(data, train=questions(12), dev=questions(4)),
    "GPT2LMHeadModel": corpus_folder,
}


@pytest.mark.parametrize(
    "overrides",
    [(), ("training.accumulate=2", "training.gradient_clip=0.1")],
    ids=lambda overrides: " ".join(overrides) or "defaults",
)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_plain_step_moves_the_weights_as_trainers_does(
    name: str, overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spgsurgeon.benchmarking.subject._KEPT_WEIGHTS", "training.optimizer.lr=0.01")
    data = tmp_path / "data"
    model = reader(tmp_path / "model", name, **STILL, **({"num_labels": 2} if "Sequence" in name else {}))
    FAMILIES[name](data)
    subject = settle_subject(ModelRequest(str(model)), None, [*ADAMW, "data.eval=dev", *overrides], str(data))
    processes = Processes(0, 1, torch.device("cpu"))
    retraining = make_retraining(subject.case(subject.recipe_of("grafted")), processes)
    parts = workflow._resident_parts(retraining)
    arms = [workflow._arm(arm, subject.recipe_of(arm), subject, retraining, parts) for arm in (PLAIN, TRAINER)]
    start = [weight.clone() for weight in arms[1].model.parameters()]
    for arm in arms:
        arm.run(2)
    own, trainers = ([*arms[0].model.base.parameters()], [*arms[1].model.parameters()])
    moved = sum((a - b).abs().sum() for a, b in zip(own, start, strict=True))
    assert moved > 0
    assert sum((a - b).abs().sum() for a, b in zip(own, trainers, strict=True)) < 1e-3 * moved


def test_what_has_no_counterpart_in_trainer_is_refused(tmp_path: Path) -> None:
    reader(tmp_path / "model", num_labels=2)
    opinions_folder(tmp_path / "data")
    text = ("bench", "--json", tmp_path / "model", "--data", tmp_path / "data", "--arms", "trainer", "data.eval=dev")
    text += ("training.batch_size=4",)
    for model, overrides in (
        (("bench", "--json", "timm/test_resnet", "--arms", "trainer"), ("training.optimizer.name=adamw",)),
        (text, ("training.optimizer.name=sgd",)),
        (text, ("training.optimizer.name=adamw", "objective.label_smoothing=0.1")),
    ):
        refused = spgsurgeon(*model, *overrides)
        assert refused.code == 2
        assert "arm trainer" in refused.document["error"]["message"]


@pytest.mark.slow
def test_its_ratio_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "FEWEST_BLOCKS", 2)
    reader(tmp_path / "model", num_labels=2)
    opinions_folder(tmp_path / "data")
    command = ("bench", tmp_path / "model", "--data", tmp_path / "data", "--arms", "trainer", "--blocks", 2)
    shown = succeed(*command, "--steps", 1, "--device", "cpu", "data.eval=dev", *ADAMW)
    assert "plain / trainer" in shown.out
