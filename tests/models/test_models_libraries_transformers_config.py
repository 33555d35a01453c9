"""What `inspect` says of a folder of transformers, and what it refuses there, by config.json and the weights' head."""

import json
import subprocess
import sys

import pytest
import torch
from command_line import succeed
from safetensors.torch import load_file, save_file
from tiny_transformers import CLASSES, WIDTH, rewrite, saved, tiny

from spgsurgeon.commands.inspect import inspect
from spgsurgeon.errors import ArchitectureError, DamagedFileError, SurgeonError, UnsafeInputError
from spgsurgeon.models.sites.transformers_heads import HEADS, TEXT

TEXT_CLASSIFIERS = [name for name, head in HEADS.items() if head.task == TEXT]


@pytest.fixture
def bert(tmp_path):
    return saved(tiny("BertForSequenceClassification"), tmp_path / "bert")


def run(*arguments):
    command = [sys.executable, "-m", "spgsurgeon", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("name", HEADS)
def test_inspect_names_class_task_site_and_cost(name, tmp_path):
    module = tiny(name)
    document = inspect(saved(module, tmp_path / "model"))
    head = HEADS[name]
    layer, logits = module.get_submodule(head.module), module.get_submodule(head.logits)
    width = layer.in_features
    assert document["library"] == "transformers"
    assert (document["architecture"], document["task"]) == (name, head.task)
    assert document["head"] == {
        "module": head.module, "type": "Linear", "width": width, "classes": logits.out_features
    }  # fmt: skip
    assert document["sites"]["dropout"]["temporary_parameters"] == 3 * width * (width + 1)
    # Wav2vec 2.0 and its like skip layers by chance as they are configured.
    assert ("depth" in document["sites"]) == (bool(head.family.layers) and head.family.modality != "waves")
    assert document["parameters"] == sum(parameter.numel() for parameter in module.parameters())
    assert document["tokenizer"]
    assert document["companions"][:2] == ["tokenizer.json", "vocab.txt"]
    assert document["tied"] == bool(module.all_tied_weights_keys)
    assert document["notes"] == []


def test_the_papers_counts_of_temporary_parameters_come_out(tmp_path):
    wide = tiny("BertForSequenceClassification", hidden_size=768, num_hidden_layers=1, num_attention_heads=12)
    document = inspect(saved(wide, tmp_path / "wide"))
    assert document["sites"]["dropout"]["temporary_parameters"] == 768 * 769 * 3


def test_inspect_imports_neither_torch_nor_transformers(bert):
    code = f"""
import sys
from spgsurgeon.commands.inspect import inspect
assert inspect({str(bert)!r})["architecture"] == "BertForSequenceClassification"
assert not {{"torch", "transformers"}} & set(sys.modules), "imported"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_labels_are_said_by_inspect_on_the_command_line(bert):
    rewrite(bert, id2label={"0": "no", "2": "yes", "1": "perhaps"})
    assert inspect(bert)["labels"] == ["no", "perhaps", "yes"]
    done = run("inspect", bert)
    assert done.returncode == 0
    assert "no, perhaps, yes" in done.stdout
    assert "its files are there" in done.stdout


def test_a_model_without_a_head_is_told_how_to_get_one(tmp_path):
    body = tiny("BertForSequenceClassification").bert
    document = inspect(saved(body, tmp_path / "body"))
    assert (document["architecture"], document["head"], document["sites"]) == ("BertModel", None, {})
    assert "--task" in document["notes"][0]
    assert "--num-classes" in document["next"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("BertForMaskedLM", "-> a vocabulary of 40)"),
        ("GPT2LMHeadModel", "-> a vocabulary of 40)"),
        ("BertForQuestionAnswering", "-> start and end of the answer)"),
        ("BertForMultipleChoice", "-> a score of each choice)"),
        ("BertForSequenceClassification", f"-> {CLASSES} classes)"),
    ],
)
def test_outputs_of_a_head_are_called_what_they_are(tmp_path, name, words):
    shown = succeed("inspect", saved(tiny(name), tmp_path / "model")).out
    assert words in " ".join(shown.split())


def test_a_pickled_file_is_read_as_well(bert):
    state = load_file(bert / "model.safetensors")
    (bert / "model.safetensors").unlink()
    torch.save(state, bert / "pytorch_model.bin")
    assert inspect(bert)["head"]["width"] == WIDTH


def test_shards_are_read_as_well(tmp_path):
    module = tiny("BertForSequenceClassification")
    module.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert inspect(tmp_path)["head"]["classes"] == CLASSES


@pytest.mark.parametrize(
    "fields",
    [
        {"auto_map": {"AutoModel": "modeling_evil.Evil"}},
        {"quantization_config": {"quant_method": "gptq"}},
        {"trust_remote_code": True},
        {"custom_pipelines": {"x": {"impl": "evil.py"}}},
        {"transformers_weights": "../../other.safetensors"},
        {"fusion_config": {"a": 1}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_runs_fetches_or_converts_is_refused_by_name_with_exit_code_4(bert, fields):
    rewrite(bert, **fields)
    done = run("inspect", bert, "--json")
    assert done.returncode == 4
    document = json.loads(done.stdout)
    assert document["error"]["kind"] == "unsafe-input"
    assert next(iter(fields)) in document["error"]["message"]


def test_an_adapter_is_refused_even_without_a_config(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    save_file({"base_model.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UnsafeInputError, match="adapter"):
        inspect(tmp_path)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.float8_e4m3fn])
def test_quantized_weights_are_refused_even_if_config_does_not_say_so(bert, dtype):
    state = load_file(bert / "model.safetensors")
    state["bert.encoder.layer.0.attention.self.query.weight"] = torch.zeros(4, 4).to(dtype)
    save_file(state, bert / "model.safetensors")
    with pytest.raises(UnsafeInputError) as caught:
        inspect(bert)
    assert caught.value.code == "quantized-weights"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"problem_type": "regression"}, "regression"),
        ({"problem_type": "multi_label_classification"}, "multi-label-classification"),
        ({"id2label": {"0": "score"}}, "regression"),
        ({"id2label": ..., "num_labels": 1}, "regression"),
        ({"model_type": "made-up"}, "architecture"),
    ],
    ids=str,
)
def test_what_has_no_right_class_or_is_not_known_is_refused_with_exit_code_5(bert, fields, code):
    rewrite(bert, **fields)
    with pytest.raises(ArchitectureError) as caught:
        inspect(bert)
    assert caught.value.code == code
    assert caught.value.exit_code == 5


def test_a_head_of_one_number_is_refused_even_if_config_says_nothing(tmp_path):
    folder = saved(tiny("BertForSequenceClassification", num_labels=1), tmp_path / "one")
    rewrite(folder, id2label=..., label2id=...)
    with pytest.raises(ArchitectureError) as caught:
        inspect(folder)
    assert caught.value.code == "regression"


@pytest.mark.parametrize(
    "fields",
    [
        {"architectures": ["RobertaForSequenceClassification"]},
        {"architectures": "BertForSequenceClassification"},
        {"architectures": ["A", "B"]},
        {"id2label": {"0": "a", "1": "b"}},
        {"id2label": {"0": "a", "2": "b", "3": "c"}},
        {"id2label": ["a", "b", "c"]},
        {"id2label": {"0": "a", "1": "b", "2": 3}},
        {"hidden_size": -1},
        {"hidden_size": "768"},
        {"vocab_size": 2**40},
        {"hidden_act": "eval"},
        {"hidden_dropout_prob": 2},
        {"num_hidden_layers": 10**9},
        {"rope_parameters": {"rope_type": "../x"}},
        {"rope_scaling": {"path": "x"}},
    ],
    ids=str,
)
def test_what_contradicts_itself_or_is_out_of_bounds_is_damage(bert, fields):
    rewrite(bert, **fields)
    with pytest.raises(DamagedFileError) as caught:
        inspect(bert)
    assert len(caught.value.message) < 700


def test_weights_without_the_head_that_config_names_are_damage(bert):
    state = load_file(bert / "model.safetensors")
    save_file({key: value for key, value in state.items() if "classifier" not in key}, bert / "model.safetensors")
    with pytest.raises(DamagedFileError, match=r"classifier\.weight"):
        inspect(bert)


def test_ctc_is_named_as_the_reason(tmp_path, bert):
    rewrite(bert, architectures=["BertForCTC"])
    assert "CTC" in inspect(bert)["notes"][0]


def test_links_out_of_the_folder_are_not_companions(bert, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (bert / "merges.txt").symlink_to(tmp_path / "secret")
    assert "merges.txt" not in inspect(bert)["companions"]


def test_an_unknown_model_of_transformers_is_no_file_of_another_library(bert):
    with pytest.raises(SurgeonError, match="--arch"):
        inspect(bert, arch="timm/resnet18")
