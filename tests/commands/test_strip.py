"""`strip` of what is not a plain classifier with dropout: segmentation models, and replicas of depth."""

import json
import re
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import timm
import torch
from command_line import spgsurgeon, succeed
from safetensors.torch import load_file
from torch import nn

from spgsurgeon.checkpoint.folders import read_grafted_folder
from spgsurgeon.checkpoint.tensors import read_safetensors
from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.commands.modules import export
from spgsurgeon.commands.strip import strip_folder
from spgsurgeon.loading.opening import load
from spgsurgeon.replicas.kinds.depth import Depth
from spgsurgeon.runs.folder import Checkpoint, RunFolder

CLASSES = 4
SMALL = "--image-size", 64


@pytest.fixture(scope="module")
def grafted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmentation model of two outputs, grafted."""
    path = tmp_path_factory.mktemp("strip") / "grafted"
    graft_folder("torchvision/deeplabv3_mobilenet_v3_large", path, num_classes=CLASSES, random_seed=0)
    return path


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier grafted with replicas of depth."""
    path = tmp_path_factory.mktemp("strip") / "deep"
    graft_folder("torchvision/resnet18", path, replicas=Depth(replicas=2), num_classes=CLASSES, random_seed=0)
    return path


def run_snippet(card: str) -> nn.Module:
    names: dict[str, Any] = {}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], names)
    return names["model"]


@pytest.mark.parametrize("kind", ["grafted", "deep"])
def test_the_stripped_folder_is_the_base_and_its_card_loads_it(kind, request, tmp_path, monkeypatch):
    source = request.getfixturevalue(kind)
    document = strip_folder(source, tmp_path / "out", exports=["safetensors", "pt"])
    assert all(document["proof"].values())
    assert {"layout_equal", "no_hooks_left", "eval_outputs_equal"} <= set(document["proof"])
    assert [output["largest_difference"] for output in document["outputs"]] == [0.0, 0.0]
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert list(before) == list(after)
    assert all(torch.equal(after[key], before[key]) for key in before)

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    monkeypatch.chdir(tmp_path / "out")
    loaded, ours = run_snippet(Path("README.md").read_text()), load(".")
    assert loaded.state_dict().keys() == ours.state_dict().keys()


def test_the_card_says_how_deep_the_replicas_were(deep, tmp_path):
    strip_folder(deep, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    row = "2 depth replicas, blocks 3, block bottleneck, init identity, depth in layers 18 27 36"
    assert f"| temporary modules, gone | {row} |" in card
    assert "pipeline_tag: image-classification" in card


def test_the_card_of_a_segmentation_run_has_its_scores(grafted, tmp_path):
    folder = read_grafted_folder(grafted)
    run = RunFolder(tmp_path / "run", folder.config, folder.manifest)
    run.create("trp: {kind: dropout}\n")
    scores = {"mean_iou": 40.0, "pixel_accuracy": 80.0, "class_iou": [80.0, None, 0.0, 40.0], "loss": 1.0}
    checkpoint = Checkpoint(
        base=read_safetensors(folder.base_weights)[0],
        temporary=read_safetensors(folder.temporary_weights)[0],
        optimizer={},
        state={
            "counters": {"epoch": 1, "step": 1, "original": scores, "best": {**scores, "mean_iou": 40.5}},
            "optimizer": {"state": {}, "groups": []},
            "scaler": {},
        },
    )
    run.save("step-1", checkpoint, best=True)
    run.close()
    strip_folder(tmp_path / "run", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| mean_iou | 40.000 | 40.500 | +0.500 |" in card
    assert "| pixel_accuracy | 80.000 | 80.000 | +0.000 |" in card
    assert "class_iou" not in card
    assert "Gain: mean_iou" in card
    assert "pipeline_tag: image-segmentation" in card


@pytest.mark.slow
def test_an_onnx_file_has_the_outputs_and_the_size_that_were_asked_for(grafted, tmp_path):
    path = tmp_path / "model.onnx"
    succeed("strip", grafted, "-o", path, *SMALL, "--onnx-outputs", "all", "--json")
    proof = json.loads((tmp_path / "model.onnx.json").read_text())
    assert list(proof["graph_outputs"]) == ["logits", "auxiliary"]
    assert proof["largest_difference"] == max(o["largest_difference"] for o in proof["graph_outputs"].values())
    assert proof["image_size"] == [64, 64]
    assert proof["batch_sizes"] == [1, 2, 3]
    images = torch.randn(4, 3, 64, 64)
    found = onnxruntime.InferenceSession(path).run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = load(str(grafted))(images)
    for ours, key in zip(found, ("out", "aux"), strict=True):
        allowed = 1e-4 * expected[key].abs().max().item()
        torch.testing.assert_close(torch.from_numpy(ours), expected[key], rtol=0, atol=allowed)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("grafted", SMALL, "--image-size is for --export onnx and --export pt2"),
        ("grafted", ("--half",), "--half is for --export onnx and --export pt2"),
        ("grafted", ("--export", "pt2", "--opset", 20), "--opset is for --export onnx"),
        ("grafted", ("--onnx-outputs", "main"), "--onnx-outputs is for --export onnx"),
        ("grafted", ("--export", "onnx", "--onnx-outputs", "aux"), "main or all, not 'aux'"),
        ("deep", ("--export", "onnx", "--onnx-outputs", "all"), "has no auxiliary one"),
    ],
)
def test_options_that_make_no_sense_are_refused_and_nothing_is_written(kind, options, words, request, tmp_path):
    outcome = spgsurgeon("strip", request.getfixturevalue(kind), "-o", tmp_path / "out", *options)
    assert outcome.code == 2
    assert words in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_the_model_does_not_take_is_said_so(tmp_path):
    graft_folder("timm/test_vit", tmp_path / "grafted", random_seed=0)
    outcome = spgsurgeon("strip", tmp_path / "grafted", "-o", tmp_path / "out.onnx", "--image-size", 60)
    assert outcome.code == 1
    assert "fails on images [2, 3, 60, 60]: Input height (60)" in outcome.err
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.slow
def test_export_takes_a_segmentation_module_in_memory(grafted, tmp_path):
    document = export(load(grafted), tmp_path / "model.onnx", input_size=(3, 64, 64))
    assert document["largest_difference"] < 1e-4
    (output,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_outputs()
    assert (output.name, output.shape[1:]) == ("logits", [CLASSES, 64, 64])


def test_graphs_say_what_they_are_and_that_they_are_half(tmp_path):
    base = tmp_path / "base"
    module = timm.create_model("test_resnet", num_classes=CLASSES)
    names = [f"class {number}" for number in range(CLASSES)]
    described = {"license": "mit", "mean": [0.5, 0.5, 0.5]}
    timm.models.save_for_hf(module, base, model_config={"pretrained_cfg": described}, safe_serialization=True)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"label_names": names}))
    graft_folder(str(base), tmp_path / "grafted")
    exports = ("--export", "onnx", "--export", "pt2", "--half", *SMALL)
    document = succeed("strip", tmp_path / "grafted", "-o", tmp_path / "out", *exports, "--json").document
    assert {"onnx_agrees_in_half_precision", "pt2_agrees_in_half_precision", "eval_outputs_equal"} <= {
        *document["proof"]
    }
    assert [(o["half"], o["image_size"]) for o in document["outputs"]] == [(True, [64, 64])] * 2

    said = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx").get_modelmeta().custom_metadata_map
    extra = {"metadata.json": ""}
    program = torch.export.load(tmp_path / "out" / "model.pt2", extra_files=extra).module()
    assert json.loads(extra["metadata.json"]) == said
    assert json.loads(said["class_names"]) == names
    assert (said["license"], said["content_hash"]) == ("mit", document["outputs"][0]["content_hash"])
    preprocessing = json.loads(said["preprocessing"])
    assert (preprocessing["mean"], preprocessing["input_size"]) == ([0.5, 0.5, 0.5], [3, 64, 64])
    assert program(torch.randn(3, 3, 64, 64)).shape == (3, CLASSES)


def test_a_single_program_has_its_proof_beside_it(tmp_path):
    graft_folder("timm/test_resnet", tmp_path / "grafted", num_classes=CLASSES, random_seed=0)
    succeed("strip", tmp_path / "grafted", "-o", tmp_path / "better.pt2", *SMALL)
    proof = json.loads((tmp_path / "better.pt2.json").read_text())
    assert proof["proof"] == dict.fromkeys(proof["proof"], True)
    assert {"pt2_agrees", "layout_is_the_originals"} <= {*proof["proof"]}
    found = export(load(tmp_path / "grafted"), tmp_path / "again.pt2", input_size=(3, 64, 64), half=True)
    assert 0 < found["largest_difference"] < 1
