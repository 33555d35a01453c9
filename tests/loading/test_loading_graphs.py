"""ONNX files are scored as the folders they were exported from; what can't be known of others is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
import timm
import torch
from PIL import Image
from tiny_texts import json_lines, opinions_folder, questions, reader, tagged

from spgsurgeon.commands.evaluate import evaluate_model
from spgsurgeon.commands.evaluating.request import EvaluationRequest
from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.commands.inspect import inspect
from spgsurgeon.commands.predict import predict
from spgsurgeon.commands.strip import strip_folder
from spgsurgeon.errors import DamagedFileError, SurgeonError, UnsafeInputError, UsageError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest

NAMES = ["ant", "bee", "cat"]
SMALL = {"image_size": 64}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stripped model, `out`, as weights and as a graph, and images of its classes, `data`."""
    folder = tmp_path_factory.mktemp("graphs")
    torch.manual_seed(0)
    module = timm.create_model("test_resnet", num_classes=len(NAMES))
    said = {"pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "crop_pct": 0.7}, "label_names": NAMES}
    timm.models.save_for_hf(module, folder / "base", model_config=said, safe_serialization=True)
    graft_folder(str(folder / "base"), folder / "grafted")
    strip_folder(folder / "grafted", folder / "out", exports=["safetensors", "onnx"], image_size=(64, 64))
    for number, name in enumerate(NAMES * 3):
        place = folder / "data" / "val" / name
        place.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((80 + number, 90), 60).convert("RGB").save(place / f"{number}.png")
    return folder


def scores(model: Path, data: Path, **asked: Any) -> dict[str, Any]:
    return evaluate_model(EvaluationRequest(str(model), str(data), workers=0, **asked))


def test_a_graph_of_images_scores_as_its_folder(images: Path) -> None:
    graph = scores(images / "out" / "model.onnx", images / "data")
    folder = scores(images / "out", images / "data", image_size=64)
    assert graph["loss"] == pytest.approx(folder["loss"], rel=1e-5)
    for key in ("top1", "samples", "image_size", "resized_to", "crop_pct"):
        assert graph[key] == folder[key]
    assert any("ONNX Runtime" in note for note in graph["notes"])


def test_a_graph_alone_knows_its_classes_and_how_images_are_prepared(images: Path, tmp_path: Path) -> None:
    alone = shutil.copy(images / "out" / "model.onnx", tmp_path / "moved.onnx")
    files = sorted((images / "data").rglob("*.png"))
    found, folder = (predict(str(model), files, **asked) for model, asked in ((alone, {}), (images / "out", SMALL)))
    assert [one["class"] for one in found["predictions"]] == [one["class"] for one in folder["predictions"]]
    chances = [[one["probability"] for one in document["predictions"]] for document in (found, folder)]
    assert chances[0] == pytest.approx(chances[1], rel=1e-4)


TASKS = {
    "BertForSequenceClassification": ("accuracy", lambda folder: opinions_folder(folder), {"num_labels": 2}),
    "BertForQuestionAnswering": ("answer_f1", lambda folder: json_lines(folder, dev=questions(9)), {}),
    "BertForTokenClassification": ("token_accuracy", lambda folder: json_lines(folder, dev=tagged(9)), {}),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if "Sequence" in name else pytest.mark.slow) for name in TASKS]
)
def test_a_graph_of_texts_scores_as_its_folder(name: str, tmp_path: Path) -> None:
    score, made, fields = TASKS[name]
    data = made(tmp_path / "data")
    graft_folder(str(reader(tmp_path / "base", name, **fields)), tmp_path / "grafted")
    strip_folder(tmp_path / "grafted", tmp_path / "out", exports=["safetensors", "onnx"])
    graph, folder = (scores(tmp_path / "out" / part, data, split="dev", batch_size=4) for part in ("model.onnx", ""))
    assert (graph[score], graph["samples"], graph["max_length"]) == (folder[score], folder["samples"], 24)
    assert graph["loss"] == pytest.approx(folder["loss"], rel=1e-4)
    alone = shutil.copy(tmp_path / "out" / "model.onnx", tmp_path / "alone.onnx")
    with pytest.raises(UsageError) as caught:
        scores(alone, data, split="dev")
    assert caught.value.code == "missing-tokenizer"


def foreign(path: Path, batch: int | None = None) -> Path:
    """Write a graph as others export it: other names, nothing said, perhaps of one batch size."""
    torch.manual_seed(0)
    module = timm.create_model("test_resnet", num_classes=len(NAMES)).eval()
    shapes = None if batch else {"x": {0: "batch"}}
    example = torch.zeros(batch or 2, 3, 64, 64)
    program = torch.onnx.export(module, (example,), dynamo=True, input_names=["input"], output_names=["output"],
                                dynamic_shapes=shapes, verbose=False)  # fmt: skip
    assert program is not None
    program.save(path)
    return path


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("batch", [None, 2])
def test_a_foreign_graph_asks_how_its_images_are_prepared(images: Path, tmp_path: Path, batch: int | None) -> None:
    path = foreign(tmp_path / "theirs.onnx", batch)
    with pytest.raises(UsageError) as caught:
        scores(path, images / "data")
    assert caught.value.code == "unknown-graph"
    assert "--arch" in (caught.value.hint or "")
    found = scores(path, images / "data", arch="timm/test_resnet")
    assert (found["image_size"], found["samples"]) == ([64, 64], 9)
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", num_classes=len(NAMES)).state_dict(), tmp_path / "weights.pth")
    same = scores(tmp_path / "weights.pth", images / "data", arch="timm/test_resnet", image_size=64)
    assert found["loss"] == pytest.approx(same["loss"], rel=1e-5)


def changed(images: Path, folder: Path, **props: str) -> Path:
    model = onnx.load(images / "out" / "model.onnx")
    for entry in model.metadata_props:
        entry.value = props.get(entry.key, entry.value)
    onnx.save(model, folder / "changed.onnx")
    return folder / "changed.onnx"


HOSTILE = {
    "a key that is not known": ({"preprocessing": '{"file": "/etc/passwd"}'}, UnsafeInputError),
    "a size of nothing": ({"preprocessing": '{"input_size": [3, 0, 64]}'}, DamagedFileError),
    "text": ({"preprocessing": "{"}, DamagedFileError),
    "half of it": ({"preprocessing": '{"pad": 0}'}, SurgeonError),
    "other classes": ({"class_names": '["ant"]'}, DamagedFileError),
    "a config that is not one": ({"config.json": "[]"}, DamagedFileError),
    "another library": ({"architecture": "os/system"}, SurgeonError),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_graph_says_is_data(case: str, images: Path, tmp_path: Path) -> None:
    props, kind = HOSTILE[case]
    with pytest.raises(kind):
        scores(changed(images, tmp_path, **props), images / "data")


def test_a_damaged_graph_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(DamagedFileError, match=r"model\.onnx"):
        open_model(ModelRequest(str(tmp_path / "model.onnx"), graphs=True))


def test_a_graph_is_neither_grafted_nor_inspected(images: Path, tmp_path: Path) -> None:
    graph = images / "out" / "model.onnx"
    for use in (lambda: graft_folder(str(graph), tmp_path / "grafted"), lambda: inspect(graph)):
        with pytest.raises(UsageError) as caught:
            use()
        assert caught.value.code == "graph"
