"""Models of sounds go the whole way: grafted, trained, resumed, scored, stripped, and read by transformers."""

import json
import sys
from pathlib import Path

import pytest
import torch
from command_line import spgsurgeon, succeed
from folder_runs import RECIPE, check_resuming, trained, write_recipe
from launches import Launch
from tiny_sounds import hearer, tone, tones_table, written

from spgsurgeon.checkpoint.tensors import read_safetensors

MASKED = {"mask_time_prob": 0.3, "mask_feature_prob": 0.2, "mask_feature_length": 4, "layerdrop": 0.3}
KINDS = {
    "waves": ("Wav2Vec2ForSequenceClassification", MASKED),
    "masked waves": ("HubertForSequenceClassification", MASKED | {"feat_extract_norm": "layer"}),
    "spectrograms": ("ASTForAudioClassification", {}),
}


def made(folder: Path, kind: str = "waves") -> Path:
    tones_table(folder / "data")
    name, fields = KINDS[kind]
    hearer(folder / "model", name, num_labels=2, **fields)
    write_recipe(folder, "sounds", batch_size=8)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_sounds_goes_the_whole_way(tmp_path, kind) -> None:
    transformers = pytest.importorskip("transformers")
    work = made(tmp_path, kind)
    succeed("graft", work / "model", "-o", work / "grafted", "--trp", "dropout", "--replicas", "2", "--rate", "0.1")
    found = trained(work, "run", model="grafted").document
    assert {"accuracy", "matthews", "f1", "loss", "samples"} <= found["best"].keys()
    assert found["best"]["samples"] == 12
    stripped = succeed("strip", "--json", work / "run", "-o", work / "better").document
    assert stripped["proof"]["from_pretrained_equal"]
    files = (work / folder / "preprocessor_config.json" for folder in ("better", "model"))
    assert next(files).read_bytes() == next(files).read_bytes()
    options = ("--data", work / "data", "--split", "dev", "--batch-size", "1")
    scored = succeed("eval", "--json", work / "better", *options).document
    assert (scored["metric"], scored["sampling_rate"]) == ("accuracy", 16_000)
    predict = transformers.pipeline("audio-classification", model=str(work / "better"))
    hits = sum(
        predict(tone(number % 2, 1000 + number))[0]["label"] == ("low", "high")[number % 2] for number in range(12)
    )
    assert scored["accuracy"] == pytest.approx(100 * hits / 12)


def test_the_recipe_for_keywords_leaves_the_convolutions_as_they_are(tmp_path) -> None:
    work = made(tmp_path)
    overrides = (f"data.path={work / 'data'}", "data.eval=dev", "training.epochs=1", "training.batch_size=4")
    command = ("train", "--json", work / "model", "--recipe", "superb-keyword-spotting", "-o", work / "run")
    found = succeed(*command, *overrides, "data.workers=0").document
    assert found["best"]["samples"] == 12
    before, after = (read_safetensors(work / name / "model.safetensors")[0] for name in ("model", "run/last"))
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved
    assert not any(key.startswith("wav2vec2.feature_extractor.") for key in moved)


@pytest.mark.slow
def test_a_run_with_masked_frames_resumes_to_the_same_weights(tmp_path) -> None:
    check_resuming(made(tmp_path))


@pytest.mark.slow
def test_what_was_done_to_sounds_is_said(tmp_path) -> None:
    work = made(tmp_path)
    tones_table(tmp_path / "slower", rate=8000)
    found = trained(work, "run", f"data.path={tmp_path / 'slower'}", "data.max_seconds=0.1", "training.epochs=1")
    notes = " ".join(found.document["notes"])
    assert "24 of the 24 samples" in notes
    assert "resampled" in notes
    assert "were cut" in notes
    options = ("--data", tmp_path / "slower", "--split", "dev", "--max-seconds", "0.1")
    scored = succeed("eval", "--json", work / "run", *options).document
    assert scored["max_seconds"] == 0.1
    nothing = spgsurgeon("eval", "--json", work / "run", *options[:-1], "0")
    assert (nothing.code, nothing.document["error"]["code"]) == (2, "too-long")
    assert scored["accuracy"] == pytest.approx(found.document["last"]["accuracy"])


@pytest.mark.slow
def test_sounds_that_can_not_be_used_are_passed_over_on_request(tmp_path) -> None:
    work = made(tmp_path)
    written(work / "data" / "recordings" / "train3.wav", [])
    command = ("train", "--json", work / "model", "--recipe", work / RECIPE, "-o", work / "run")
    stopped = spgsurgeon(*command)
    assert (stopped.code, stopped.document["error"]["code"]) == (1, "data")
    assert "train3.wav" in stopped.document["error"]["message"]
    trained(work, "skipping", "data.unreadable=skip")
    assert "train3.wav" in (work / "skipping" / "unreadable.json").read_text()


@pytest.mark.slow
def test_two_processes_train_a_model_that_skips_layers(tmp_path) -> None:
    work = made(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command += ["spgsurgeon", "train", str(work / "model"), "--recipe", str(work / RECIPE), "--json"]
    command += ["training.device=cpu", "training.batch_size=4", "-o", str(work / "run")]
    code, out, err = Launch(command, work / "run").finish()
    assert code == 0, err
    assert json.loads(out)["steps"] == 6


@pytest.mark.parametrize(
    ("spoil", "code", "kind"),
    [
        ("three classes", 2, "usage"),
        ("texts", 2, "usage"),
        ("no preprocessor", 2, "missing-preprocessor"),
        ("another extractor", 5, "preprocessing-not-reproduced"),
        ("too long", 1, "data"),
        ("path", 1, "path-outside"),
        ("tokens", 2, "recipe"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, spoil, code, kind) -> None:
    work = made(tmp_path)
    overrides, table = [], work / "data" / "train.tsv"
    file = work / "model" / "preprocessor_config.json"
    if spoil == "three classes":
        table.write_text(table.read_text() + "recordings/dev0.wav\tother\n")
        overrides = ["data.eval=train"]
    elif spoil == "texts":
        overrides = ["data.source=texts", "data.columns={text: file}"]
    elif spoil == "no preprocessor":
        file.unlink()
    elif spoil == "another extractor":
        file.write_text(file.read_text().replace("Wav2Vec2", "Whisper"))
    elif spoil == "too long":
        overrides = ["data.max_seconds=0.1", "data.too_long=stop"]
    elif spoil == "path":
        table.write_text(table.read_text() + "../x.wav\thigh\n")
    else:
        overrides = ["data.max_length=4"]
    outcome = spgsurgeon("train", "--json", work / "model", "--recipe", work / RECIPE, "-o", work / "run", *overrides)
    assert outcome.code == code, outcome.document
    assert kind in (outcome.document["error"]["code"], outcome.document["error"]["kind"]), outcome.document
    assert not (work / "run").exists()
