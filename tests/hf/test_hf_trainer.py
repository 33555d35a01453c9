"""transformers' Trainer with the objective's loss: what it trains, keeps, resumes and refuses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from folder_runs import RECIPE, write_recipe
from launches import Launch
from tiny_texts import opinions, opinions_folder, reader
from tiny_transformers import tiny
from torch import nn

import spgsurgeon
from spgsurgeon.checkpoint.tensors import read_safetensors
from spgsurgeon.errors import UsageError

transformers = pytest.importorskip("transformers", minversion="5")
pytest.importorskip("accelerate")

TEXT = "BertForSequenceClassification"
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def grafted(name: str = TEXT, *, rate: float = 0.2, replicas: int = 3, **fields: Any) -> Any:
    return spgsurgeon.graft(tiny(name, **fields), rate=rate, replicas=replicas)


def samples(count: int = 12, seed: int = 1) -> list[dict[str, Any]]:
    ids = torch.randint(5, 40, (count, 8), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": int(row[0] % 3)} for row in ids]


def trainer(folder: Path, model: Any = None, *, arguments: dict[str, Any] | None = None, **options: Any) -> Any:
    from spgsurgeon.hf import SPGTrainer

    settings = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 0.01, "report_to": "none"}
    settings |= {"use_cpu": True, "disable_tqdm": True, "logging_steps": 1} | (arguments or {})
    data = {"train_dataset": samples(), "eval_dataset": samples(6, seed=2)} | options
    model = grafted() if model is None and "model_init" not in data else model
    return SPGTrainer(model, transformers.TrainingArguments(str(folder), **settings), **data)


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("form", ["step", "episode"])
def test_a_step_is_the_step_of_train(form: str, tmp_path: Path) -> None:
    """The same loss and the same gradient, on the same batch, which has padding."""
    model = reader(tmp_path / "model", num_labels=2, **STILL)
    opinions_folder(tmp_path / "data", train=12)
    plain = {"name": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    write_recipe(tmp_path, "texts", epochs=1, optimizer=plain, schedule={"name": "constant"}, drop_last=False)
    overrides = ("trp.rate=0", f"objective.form={form}", "trp.projection=true", "objective.label_smoothing=0.1")
    run = tmp_path / "run"
    spgsurgeon.train(str(model), recipe=tmp_path / RECIPE, overrides=list(overrides), output=run)
    expected, _ = read_safetensors(run / "last" / "model.safetensors")

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(model))
    rows = [{**tokenizer(text), "labels": label} for text, label in opinions(12)]
    base = transformers.AutoModelForSequenceClassification.from_pretrained(str(model))
    before = state_of(base)
    made = trainer(
        tmp_path / "trainer",
        spgsurgeon.graft(base, rate=0.0, replicas=2),
        form=form,
        weights=(0.4, 0.2),
        label_smoothing=0.1,
        train_dataset=rows,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        arguments={"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
        | {"per_device_train_batch_size": 16, "num_train_epochs": 1},
    )
    losses = made.train().training_loss
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert losses == pytest.approx(first["loss"], rel=1e-5)
    found = spgsurgeon.strip(made.model).state_dict()
    assert not torch.equal(found["classifier.weight"], before["classifier.weight"])
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "inputs", "targets"),
    [
        ("BertForQuestionAnswering", {}, {"start_positions": [1, 2], "end_positions": [3, 2]}),
        ("BertForTokenClassification", {}, {"labels": [[0, 1, 2, -100], [1, 1, -100, -100]]}),
        ("BertForMultipleChoice", {"input_ids": [[[5, 6], [7, 8]]] * 2}, {"labels": [0, 1]}),
        ("BertForMaskedLM", {}, {"labels": [[-100, 6, -100, -100], [-100, 9, 8, -100]]}),
        ("GPT2LMHeadModel", {}, {"labels": [[5, 6, 7, 8], [9, 10, -100, -100]]}),
        ("GPT2ForSequenceClassification", {}, {"labels": [0, 1]}),
        ("Wav2Vec2ForSequenceClassification", {"input_values": [[0.1] * 4000] * 2}, {"labels": [0, 1]}),
        ("ViTForImageClassification", {"pixel_values": [[[[0.5] * 32] * 32] * 3] * 2}, {"labels": [0, 1]}),
    ],
)
def test_without_replicas_the_loss_is_the_models_own(name: str, inputs: Any, targets: Any, tmp_path: Path) -> None:
    """Of every task: what the targets are called, and how the logits are read."""
    given = inputs or {"input_ids": [[5, 6, 7, 8], [9, 10, 11, 12]]}
    batch = {key: torch.tensor(value) for key, value in (given | targets).items()}
    base = tiny(name)
    expected = base(**batch).loss
    made = trainer(tmp_path, spgsurgeon.graft(base, "none"), weights=())
    made.model.train()
    base.eval()  # its own dropout, and masks over sounds
    assert made.compute_loss(made.model, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_checkpoint_is_a_folder_for_from_pretrained(tmp_path: Path) -> None:
    made = trainer(tmp_path, arguments={"save_strategy": "epoch"})
    made.train()
    checkpoint = tmp_path / "checkpoint-6"
    base = transformers.AutoModelForSequenceClassification.from_pretrained(str(checkpoint))
    assert_equal(state_of(base), state_of(made.model.base))
    assert json.loads((checkpoint / "config.json").read_text())["architectures"] == [TEXT]
    replicas, _ = read_safetensors(checkpoint / "temporary.safetensors")
    assert_equal(replicas, state_of(made.model.replicas))
    assert any(value.any() for value in replicas.values())  # they learn
    stripped = spgsurgeon.strip(made.model)
    assert_equal(state_of(stripped), state_of(base))


@pytest.mark.slow
def test_a_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    every = {"save_strategy": "steps", "save_steps": 1}
    whole = trainer(tmp_path, grafted(), arguments=every)
    whole.train()
    resumed = trainer(tmp_path / "more", grafted(), arguments=every)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_equal(state_of(resumed.model), state_of(whole.model))


@pytest.mark.slow
def test_the_best_checkpoint_comes_back_with_its_replicas(tmp_path: Path) -> None:
    often = {"save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True, "learning_rate": 0.5}
    made = trainer(tmp_path, arguments=often | {"num_train_epochs": 3})
    made.train()
    best = Path(made.state.best_model_checkpoint)
    losses = [entry["eval_loss"] for entry in made.state.log_history if "eval_loss" in entry]
    assert min(losses) != losses[-1]
    replicas, _ = read_safetensors(best / "temporary.safetensors")
    assert_equal(state_of(made.model.replicas), replicas)
    assert made.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-6)


def test_evaluation_is_the_bases_own(tmp_path: Path) -> None:
    made = trainer(tmp_path, label_smoothing=0.3)
    found = made.predict(samples(6, seed=2))
    plain = transformers.Trainer(made.model.base, made.args.__class__(str(tmp_path), report_to="none", use_cpu=True))
    expected = plain.predict(samples(6, seed=2))
    assert (found.predictions == expected.predictions).all()
    assert found.predictions.shape == (6, 3)
    assert found.metrics["test_loss"] == pytest.approx(expected.metrics["test_loss"], rel=1e-6)


@pytest.mark.slow
def test_accumulated_batches_count_alike(tmp_path: Path) -> None:
    """Two batches of four, all of different texts, make the step of one batch of eight."""
    steps = {}
    for size, parts in ((8, 1), (4, 2)):
        model = grafted(rate=0.0, **STILL)
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts, "num_train_epochs": 1}
        settings |= {"optim": "sgd", "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}
        trainer(tmp_path / str(parts), model, arguments=settings, train_dataset=samples(8), form="episode").train()
        steps[parts] = state_of(model)
    for key, value in steps[1].items():
        torch.testing.assert_close(steps[2][key], value, rtol=1e-5, atol=1e-6)


def test_logs_say_how_far_episodes_went(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.train()
    logged = [entry for entry in made.state.log_history if "loss" in entry]
    assert len(logged) == 6
    for entry in logged:
        assert 100 >= entry["valid_1"] >= entry["valid_2"] >= entry["valid_3"] >= 0
    assert any(0 < entry["valid_1"] < 100 for entry in logged)


@pytest.mark.slow
def test_columns_that_the_base_does_not_take_are_left_out(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{name: value.tolist() if name != "labels" else value for name, value in row.items()} for row in samples()]
    table = datasets.Dataset.from_list([{**row, "idx": n} for n, row in enumerate(rows)])
    made = trainer(tmp_path, train_dataset=table)
    made.train()
    assert made.state.global_step == 6


@pytest.mark.slow
def test_activation_checkpointing_changes_no_gradient(tmp_path: Path) -> None:
    known = transformers.TrainingArguments.__dataclass_fields__  # it was called otherwise before 5.24
    name = next(name for name in ("activation_checkpointing", "gradient_checkpointing") if name in known)
    states = []
    for arguments in ({}, {name: True}):
        model = grafted()
        trainer(tmp_path, model, arguments=arguments).train()
        states.append(state_of(model))
    assert_equal(*states)


@pytest.mark.slow
def test_a_model_may_be_made_by_model_init(tmp_path: Path) -> None:
    made = trainer(tmp_path, model_init=lambda: grafted(replicas=2), weights=(0.4, 0.2))
    made.train()
    assert made.model.steps == 3


@pytest.mark.parametrize(
    ("model", "options", "code"),
    [
        (lambda: tiny(TEXT), {}, "not-grafted"),
        (lambda: spgsurgeon.graft(nn.Linear(3, 2), site=""), {}, "not-grafted"),
        (grafted, {"weights": (0.4,)}, "unfit-rows"),
        (grafted, {"arguments": {"label_smoothing_factor": 0.1}}, "smoothed-evaluation"),
    ],
)
def test_what_it_can_not_train_is_refused(model: Any, options: Any, code: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        trainer(tmp_path, model(), **options)
    assert refused.value.code == code


@pytest.mark.slow
def test_without_transformers_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['transformers'] = None; from spgsurgeon.hf import SPGTrainer"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "UsageError: SPGTrainer needs transformers" in found.stderr


SCRIPT = """
import os, sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from test_hf_trainer import *

folder, processes = Path(sys.argv[1]), int(os.environ["WORLD_SIZE"])
settings = {"per_device_train_batch_size": 8 // processes, "num_train_epochs": 1, "optim": "sgd"}
settings |= {"max_grad_norm": 0.0, "lr_scheduler_type": "constant", "save_strategy": "epoch", "use_cpu": True}
made = trainer(folder, grafted(rate=0.0, **STILL), arguments=settings, train_dataset=samples(16))
made.train()
"""


@pytest.mark.slow
def test_two_processes_make_the_gradient_of_one(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    states = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += [str(tmp_path / "script.py"), str(folder), *map(str, (Path(__file__).parent, *sys.path))]
        code, _, said = Launch(command, tmp_path / "run").finish()
        assert code == 0, said
        states.append(read_safetensors(folder / "checkpoint-2" / "model.safetensors")[0])
    one, two = states
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6)
