"""A folder of transformers on its way: grafted, stripped, read by transformers again; and folders that are refused."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_texts import reader
from tiny_transformers import CLASSES, WORDS, rewrite, saved, tiny

from spgsurgeon.checkpoint.folders import read_manifest, write_grafted_folder
from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.commands.inspect import inspect
from spgsurgeon.commands.strip import strip_folder
from spgsurgeon.errors import ArchitectureError, DamagedFileError, UnsafeInputError, UsageError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.loading.soundness import state_of
from spgsurgeon.models.modes import run_in_eval
from spgsurgeon.models.transformers_examples import example_of
from spgsurgeon.replicas.outputs import outputs_of

NAMES = (
    "BertForSequenceClassification",
    "LlamaForSequenceClassification",
    "BertForMaskedLM",
    "GPT2LMHeadModel",
    "LlamaForCausalLM",
    "BertForQuestionAnswering",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("BertForMultipleChoice", "ASTForAudioClassification", "ViTForImageClassification")
    ),
    "Wav2Vec2ForSequenceClassification",
)
NAMED = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
TIED = ("BertForMaskedLM", "GPT2LMHeadModel")


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def logits(module):
    return outputs_of(run_in_eval(module, example_of(module)))


def read_by_transformers(folder):
    import transformers

    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    module = getattr(transformers, name).from_pretrained(str(folder)).eval()
    for parameter in module.parameters():  # out of the file: where that has them, sums may be rounded otherwise
        parameter.data = parameter.detach().clone()
    return module


@pytest.mark.parametrize("name", NAMES)
def test_a_grafted_and_stripped_folder_is_the_original_to_transformers(name, tmp_path):
    module = tiny(name)
    base = saved(module, tmp_path / "base", **(NAMED if "Sequence" in name else {}))
    grafted = graft_folder(str(base), tmp_path / "grafted")
    stripped = strip_folder(tmp_path / "grafted", tmp_path / "stripped")
    assert all(grafted["proof"].values())
    assert all(stripped["proof"].values())
    assert "from_pretrained_equal" in stripped["proof"]
    for folder in (tmp_path / "grafted", tmp_path / "stripped"):
        assert all(map(torch.equal, logits(read_by_transformers(folder)), logits(module)))
        was, now = load_file(base / "model.safetensors"), load_file(folder / "model.safetensors")
        assert was.keys() == now.keys()
        assert all(torch.equal(now[key], value) for key, value in was.items())
        for companion in ("tokenizer.json", "vocab.txt"):
            assert (folder / companion).read_bytes() == (base / companion).read_bytes()
        before, after = (json.loads((f / "config.json").read_text()) for f in (base, folder))
        assert {key: after[key] for key in before} == before
    assert read_manifest(tmp_path / "grafted").base["keys"] == list(load_file(base / "model.safetensors"))
    assert inspect(tmp_path / "grafted")["architecture"] == name
    assert inspect(tmp_path / "stripped")["content_hash"] == stripped["outputs"][0]["content_hash"]


@pytest.mark.parametrize("name", [*TIED, "BertForSequenceClassification"])
def test_stripping_after_training_changes_only_values_and_words_stay_shared(name, tmp_path):
    base = saved(tiny(name), tmp_path / "base")
    graft_folder(str(base), tmp_path / "grafted")
    opened = open_model(ModelRequest(str(tmp_path / "grafted")))
    with torch.no_grad():
        for parameter in opened.module.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    trained, manifest = tmp_path / "trained", read_manifest(tmp_path / "grafted")
    trained.mkdir()
    temporary = load_file(tmp_path / "grafted" / "temporary.safetensors")
    write_grafted_folder(
        trained,
        base=state_of(opened.module),
        temporary=temporary,
        config=opened.config(),
        manifest=manifest,
        companions=opened.beside(),
    )
    strip_folder(trained, tmp_path / "stripped")
    found = read_by_transformers(tmp_path / "stripped")
    assert all(map(torch.equal, logits(found), logits(opened.module)))
    was, now = (load_file(f / "model.safetensors") for f in (base, tmp_path / "stripped"))
    assert [(k, v.shape) for k, v in was.items()] == [(k, v.shape) for k, v in now.items()]
    assert not any(torch.equal(now[key], value) for key, value in was.items())
    if name in TIED:
        assert found.get_output_embeddings().weight is found.get_input_embeddings().weight


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_and_config_says_it(dtype, tmp_path):
    base = saved(tiny("BertForSequenceClassification").to(dtype), tmp_path / "base")
    graft_folder(str(base), tmp_path / "grafted")
    strip_folder(tmp_path / "grafted", tmp_path / "stripped")
    assert {v.dtype for v in load_file(tmp_path / "stripped" / "model.safetensors").values()} == {dtype}
    assert read_by_transformers(tmp_path / "stripped").dtype == dtype


def test_config_says_the_type_that_weights_were_trained_in(tmp_path):
    opened = open_model(ModelRequest(str(saved(tiny("BertForSequenceClassification").half(), tmp_path / "base"))))
    assert opened.config()["dtype"] == "float16"
    opened.module.float()
    assert opened.config()["dtype"] == "float32"


def test_names_of_classes_that_training_data_gives_go_into_config(tmp_path):
    opened = open_model(ModelRequest(str(saved(tiny("BertForSequenceClassification"), tmp_path / "base"))))
    assert opened.label_names is None  # transformers made up LABEL_0
    named = replace(opened, label_names=["no", "perhaps", "yes"]).config()
    assert named["id2label"] == {"0": "no", "1": "perhaps", "2": "yes"}
    assert named["label2id"]["yes"] == 2


def test_weights_in_a_pickle_and_in_shards_give_the_same(tmp_path):
    module = tiny("GPT2LMHeadModel")
    module.save_pretrained(tmp_path / "shards", max_shard_size="4KB")
    saved(module, tmp_path / "pickle")
    (tmp_path / "pickle" / "model.safetensors").unlink()
    torch.save(module.state_dict(), tmp_path / "pickle" / "pytorch_model.bin")  # shared words are in it twice
    for folder in ("shards", "pickle"):
        graft_folder(str(tmp_path / folder), tmp_path / f"{folder}-grafted")
        strip_folder(tmp_path / f"{folder}-grafted", tmp_path / f"{folder}-stripped")
        assert all(map(torch.equal, logits(read_by_transformers(tmp_path / f"{folder}-stripped")), logits(module)))


def test_the_older_names_of_weights_are_read(tmp_path):
    module = tiny("BertForSequenceClassification")
    base = saved(module, tmp_path / "base")
    older = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in load_file(base / "model.safetensors").items()
    }
    save_file(older, base / "model.safetensors")
    opened = open_model(ModelRequest(str(base)))
    assert all(map(torch.equal, logits(opened.module), logits(module)))
    assert opened.notes == []


@pytest.mark.parametrize(
    ("start", "task", "classes", "name"),
    [
        ("BertModel", None, 4, "BertForSequenceClassification"),
        ("BertModel", "token-classification", 4, "BertForTokenClassification"),
        ("BertModel", "question-answering", None, "BertForQuestionAnswering"),
        ("BertForMaskedLM", "text-classification", 4, "BertForSequenceClassification"),
        ("BertForSequenceClassification", None, 4, "BertForSequenceClassification"),
        ("BertForSequenceClassification", "multiple-choice", None, "BertForMultipleChoice"),
        ("LlamaForCausalLM", "text-classification", 4, "LlamaForSequenceClassification"),
    ],
)
def test_a_new_head_is_untrained_and_said_so_and_the_body_is_kept(start, task, classes, name, tmp_path):
    module = tiny("BertForSequenceClassification").bert if start == "BertModel" else tiny(start)
    base = saved(module, tmp_path / "base")
    opened = open_model(ModelRequest(str(base), task=task, num_classes=classes))
    assert opened.identity.architecture == name
    assert opened.identity.num_classes == (classes or {"question-answering": 2, "multiple-choice": 1}[str(task)])
    assert any("untrained" in note for note in opened.notes)
    body, was = opened.module.base_model.state_dict(), module.base_model.state_dict()
    assert all(torch.equal(body[key], was[key]) for key in was.keys() & body.keys())
    assert len(was.keys() & body.keys()) > 10
    again = open_model(ModelRequest(str(base), task=task, num_classes=classes))
    assert all(torch.equal(value, state_of(opened.module)[key]) for key, value in state_of(again.module).items())
    graft_folder(str(base), tmp_path / "grafted", task=task, num_classes=classes)
    strip_folder(tmp_path / "grafted", tmp_path / "stripped")
    assert all(map(torch.equal, logits(read_by_transformers(tmp_path / "stripped")), logits(opened.module)))
    if classes:
        assert len(inspect(tmp_path / "stripped")["labels"]) == classes


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("BertForMaskedLM", {"num_classes": 3}),
        ("BertForMaskedLM", {"task": "text-classification"}),
        ("BertForSequenceClassification", {"task": "audio-classification", "num_classes": 3}),
        ("BertForSequenceClassification", {"task": "made-up"}),
        ("BertForSequenceClassification", {"num_classes": 1}),
        ("BertForSequenceClassification", {"arch": "timm/resnet18"}),
    ],
    ids=str,
)
def test_a_head_that_can_not_be_is_refused_as_usage(name, options, tmp_path):
    base = saved(tiny(name), tmp_path / "base")
    with pytest.raises(UsageError):
        open_model(ModelRequest(str(base), **options))


def test_a_grafted_head_can_not_be_replaced(tmp_path):
    graft_folder(str(saved(tiny("BertForSequenceClassification"), tmp_path / "base")), tmp_path / "grafted")
    with pytest.raises(UsageError, match="grafted"):
        open_model(ModelRequest(str(tmp_path / "grafted"), num_classes=CLASSES + 1))
    assert open_model(ModelRequest(str(tmp_path / "grafted"), num_classes=CLASSES)).identity.num_classes == CLASSES


def test_a_model_without_a_head_can_not_be_grafted_as_it_is(tmp_path):
    base = saved(tiny("BertForSequenceClassification").bert, tmp_path / "base")
    with pytest.raises(ArchitectureError) as caught:
        graft_folder(str(base), tmp_path / "grafted")
    assert caught.value.code == "no-head"


@pytest.mark.parametrize("new_head", [None, 5])
def test_a_missing_weight_of_the_body_is_named(new_head, tmp_path):
    base = saved(tiny("BertForSequenceClassification"), tmp_path / "base")
    state = load_file(base / "model.safetensors")
    lost = "bert.encoder.layer.1.output.dense.weight"
    del state[lost]
    save_file(state, base / "model.safetensors")
    with pytest.raises(ArchitectureError, match=lost):
        open_model(ModelRequest(str(base), num_classes=new_head))


def test_weights_of_another_shape_are_named(tmp_path):
    base = saved(tiny("BertForSequenceClassification"), tmp_path / "base")
    rewrite(base, vocab_size=WORDS + 1)
    with pytest.raises(ArchitectureError, match=r"word_embeddings.weight is \[40, 16\], expected \[41, 16\]"):
        open_model(ModelRequest(str(base)))


def test_weights_that_the_class_has_no_use_for_are_listed(tmp_path):
    base = saved(tiny("BertForSequenceClassification"), tmp_path / "base")
    save_file(load_file(base / "model.safetensors") | {"cls.other.weight": torch.zeros(2)}, base / "model.safetensors")
    assert any("cls.other.weight" in note for note in open_model(ModelRequest(str(base))).notes)


def test_a_model_far_larger_than_its_file_is_not_built(tmp_path):
    base = saved(tiny("BertForSequenceClassification"), tmp_path / "base")
    rewrite(base, num_hidden_layers=1000, intermediate_size=65536)
    with pytest.raises(ArchitectureError, match="far more"):
        open_model(ModelRequest(str(base)))


def test_a_field_that_the_class_follows_and_no_table_lists_is_refused_with_exit_code_4(tmp_path):
    base = saved(tiny("LlamaForCausalLM"), tmp_path / "base")
    rewrite(base, base_model_tp_plan={"layers.*": "colwise"})
    with pytest.raises(UnsafeInputError, match="base_model_tp_plan"):
        open_model(ModelRequest(str(base)))
    rewrite(base, base_model_tp_plan=..., a_field_of_nobody={"x": 1})
    open_model(ModelRequest(str(base)))


def test_a_changed_tokenizer_in_a_grafted_folder_is_noticed(tmp_path):
    graft_folder(str(saved(tiny("BertForSequenceClassification"), tmp_path / "base")), tmp_path / "grafted")
    (tmp_path / "grafted" / "tokenizer.json").write_text("{}")
    with pytest.raises(DamagedFileError, match=r"tokenizer\.json"):
        strip_folder(tmp_path / "grafted", tmp_path / "stripped")
    (tmp_path / "grafted" / "tokenizer.json").unlink()
    with pytest.raises(DamagedFileError, match=r"tokenizer\.json is missing"):
        strip_folder(tmp_path / "grafted", tmp_path / "stripped")
    assert not (tmp_path / "stripped").exists()


def test_a_pickle_that_asks_for_more_than_weights_is_refused(tmp_path):
    base = saved(tiny("BertForSequenceClassification"), tmp_path / "base")
    (base / "model.safetensors").unlink()
    torch.save({"bert.x": torch.zeros(2), "evil": Evil()}, base / "pytorch_model.bin")
    with pytest.raises(UnsafeInputError):
        graft_folder(str(base), tmp_path / "grafted")


@pytest.mark.slow
def test_no_socket_is_opened_for_a_folder(tmp_path):
    for name in ("BertForSequenceClassification", "LlamaForCausalLM"):
        saved(tiny(name), tmp_path / name, _name_or_path="owner/model")
        code = f"""
import sys
def refuse(event, args):
    if event.startswith("socket.") and event != "socket.__new__":
        raise SystemExit(f"opened: {{event}} {{args}}")
sys.addaudithook(refuse)
from pathlib import Path
from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.commands.strip import strip_folder
folder = Path({str(tmp_path / name)!r})
graft_folder(str(folder), folder.with_suffix(".grafted"))
strip_folder(folder.with_suffix(".grafted"), folder.with_suffix(".stripped"))
"""
        environment = {"PATH": "/usr/bin", "HOME": str(tmp_path), "PYTHONPATH": ":".join(filter(None, sys.path))}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        assert (tmp_path / f"{name}.stripped").is_dir()


@pytest.mark.slow
def test_a_pipeline_reads_the_stripped_folder(tmp_path):
    transformers = pytest.importorskip("transformers", minversion="5")
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "good", "bad", "film"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    base = saved(tiny("BertForSequenceClassification"), tmp_path / "base", **NAMED)
    for file in ("tokenizer.json", "vocab.txt"):
        (base / file).unlink()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(base)
    graft_folder(str(base), tmp_path / "grafted")
    strip_folder(tmp_path / "grafted", tmp_path / "stripped")
    texts = ["good film", "bad film bad film good"]
    expected = transformers.pipeline("text-classification", model=str(base), batch_size=2)(texts)
    found = transformers.pipeline("text-classification", model=str(tmp_path / "stripped"), batch_size=2)(texts)
    assert found == expected
    assert {answer["label"] for answer in found} <= {"a", "b", "c"}


def test_without_transformers_the_message_says_what_to_install(tmp_path):
    base = saved(tiny("BertForSequenceClassification"), tmp_path / "base")
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "from spgsurgeon.cli.app import run\n"
        f"assert run(['inspect', {str(base)!r}, '--json']) == 0\n"
        f"sys.exit(run(['graft', {str(base)!r}, '-o', {str(tmp_path / 'grafted')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "spgsurgeon[transformers]" in done.stderr
    assert not (tmp_path / "grafted").exists()


def test_a_single_file_of_weights_has_the_keys_of_the_base(tmp_path):
    graft_folder(str(saved(tiny("BertForSequenceClassification"), tmp_path / "base")), tmp_path / "grafted")
    strip_folder(tmp_path / "grafted", tmp_path / "model.safetensors")
    assert load_file(tmp_path / "model.safetensors").keys() == load_file(tmp_path / "base/model.safetensors").keys()


def test_a_graph_has_its_tokenizer_and_says_how_texts_are_read(tmp_path):
    graft_folder(str(reader(tmp_path / "base")), tmp_path / "grafted")
    document = strip_folder(tmp_path / "grafted", tmp_path / "graph", exports=["onnx"])
    (output,) = document["outputs"]
    assert output["graph_inputs"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert len({sizes["length"] for sizes in output["sizes"]}) == 3
    assert "image_size" not in output
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "graph" / name).read_bytes() == (tmp_path / "base" / name).read_bytes()
    said = onnxruntime.InferenceSession(tmp_path / "graph/model.onnx").get_modelmeta().custom_metadata_map
    assert said["architecture"] == "transformers/BertForSequenceClassification"
    assert said["content_hash"] == output["content_hash"]
    assert json.loads(said["preprocessing"]).items() >= {"max_length": 24, "pad": 0, "segments": True}.items()
    assert "AutoTokenizer" in (tmp_path / "graph/README.md").read_text()


def test_a_graph_without_a_tokenizer_is_written_and_does_not_say_how_texts_are_read(tmp_path):
    base = saved(tiny("BertForSequenceClassification"), tmp_path / "base")
    (base / "tokenizer.json").unlink()
    graft_folder(str(base), tmp_path / "grafted")
    document = strip_folder(tmp_path / "grafted", tmp_path / "model.onnx")
    said = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    assert "preprocessing" not in said
    assert "does not say how" in " ".join(document["notes"])
