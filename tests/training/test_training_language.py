"""Language models go the whole way: grafted, trained, resumed, scored, stripped, and read by transformers."""

import json
from pathlib import Path

import pytest
import torch
from command_line import succeed
from folder_runs import trained, write_recipe
from tiny_texts import corpus_folder, reader

MODELS = {"causal-lm": "GPT2LMHeadModel", "masked-lm": "BertForMaskedLM"}


def prepared(work: Path, name: str, **fields: object) -> Path:
    corpus_folder(work / "data")
    reader(work / "model", name, **fields)
    write_recipe(work, "corpus", drop_last=False)
    return work


@pytest.mark.parametrize("task", MODELS)
def test_a_language_model_goes_the_whole_way(tmp_path, task) -> None:
    transformers = pytest.importorskip("transformers")
    work = prepared(tmp_path, MODELS[task])
    succeed("graft", work / "model", "-o", work / "grafted", "--trp", "dropout", "--replicas", "2", "--rate", "0.1")
    found = trained(work, "run", model="grafted").document
    assert found["best"]["perplexity"] < found["original"]["perplexity"]
    assert any("make" in note and "blocks of 24" in note for note in found["notes"])
    lines = [json.loads(line) for line in (work / "run" / "metrics.jsonl").read_text().splitlines()]
    assert found["best"]["perplexity"] == min(line["evaluation"]["perplexity"] for line in lines)
    stripped = succeed("strip", "--json", work / "run", "-o", work / "better").document
    assert stripped["proof"]["from_pretrained_equal"]
    assert (work / "better" / "tokenizer.json").read_bytes() == (work / "model" / "tokenizer.json").read_bytes()
    scored = succeed("eval", "--json", work / "better", "--data", work / "data", "--split", "dev").document
    assert scored["perplexity"] == pytest.approx(found["best"]["perplexity"])
    assert (scored["task"], scored["max_length"]) == (task, 24)
    kind = transformers.AutoModelForCausalLM if task == "causal-lm" else transformers.AutoModelForMaskedLM
    model = kind.from_pretrained(work / "better")
    words = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is words
    assert torch.isfinite(model(torch.tensor([[1, 5, 6]])).logits).all()
