"""What `inspect` and whoever opens a model make of files that do not say what they are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from command_line import spgsurgeon, succeed
from inspect_cost import sparse_file
from safetensors.torch import save_file
from torch import Tensor

from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.commands.inspect import describe, inspect
from spgsurgeon.errors import ArchitectureError, DamagedFileError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.models.libraries.building import build
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.replicas.kinds import kinds
from spgsurgeon.replicas.kinds.inner import InnerReplicas

CLASSES = 7
State = dict[str, Tensor]


def resnet(**args: Any) -> State:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=CLASSES, **args).state_dict()


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def saved(document: Any, path: Path) -> str:
    torch.save(document, path)
    return str(path)


def test_a_bare_state_dict_is_recognised(tmp_path: Path) -> None:
    document = inspect(saved(resnet(in_chans=4), tmp_path / "weights.pth"))
    assert document["library"] == "timm"
    assert document["architecture"] == "test_resnet"
    assert document["candidates"] == ["timm/test_resnet"]
    assert document["head"] == {"module": "fc", "type": "Linear", "width": 96, "classes": CLASSES}
    assert document["evidence"] == "all 92 keys and shapes, 7 classes, 4 input channels"
    assert "error" not in document


@pytest.mark.parametrize(
    ("library", "architecture", "args"),
    [
        ("timm", "test_resnet", {}),
        ("timm", "test_vit", {}),
        ("torchvision", "squeezenet1_1", {}),
        ("torchvision", "mobilenet_v3_small", {}),
        ("torchvision", "lraspp_mobilenet_v3_large", {}),
        ("torchvision", "deeplabv3_mobilenet_v3_large", {}),
        ("torchvision", "deeplabv3_mobilenet_v3_large", {"aux_loss": False}),
    ],
)
def test_the_light_document_says_what_the_built_model_says(
    library: str, architecture: str, args: dict[str, Any], tmp_path: Path
) -> None:
    state = build(Identity(library, architecture, CLASSES, args)).state_dict()
    path = saved(prefixed("module.net.", state), tmp_path / "weights.pth")
    light = inspect(path, arch=f"{library}/{architecture}", values=True)
    assert light["prefixes"] == ["module.", "net."]
    built = describe(open_model(ModelRequest(path, arch=f"{library}/{architecture}")))
    assert {key: light[key] for key in built} == built


@pytest.mark.parametrize("architecture", ["fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101"])
def test_a_segmentation_model_is_replicated_before_both_of_its_heads(architecture: str, tmp_path: Path) -> None:
    document = inspect(str(sparse_file(f"torchvision/{architecture}", tmp_path)), values=False)
    assert (document["task"], document["architecture"]) == ("segmentation", architecture)
    assert document["head"]["module"] == ["classifier", "aux_classifier"]
    assert document["head"]["width"] == [2048, 1024]
    assert document["head"]["classes"] == 21
    temporary = document["sites"]["dropout"]["temporary_parameters"]
    assert f"{temporary / 1e6:.2f}" == "15.74"  # arXiv 2506.15051, table 2
    assert "depth" not in document["sites"]


def test_a_head_that_reads_two_maps_names_them(tmp_path: Path) -> None:
    path = sparse_file("torchvision/lraspp_mobilenet_v3_large", tmp_path)
    site = inspect(str(path), values=False)["sites"]["dropout"]
    assert (site["module"], site["key"], site["width"]) == (["classifier"] * 2, ["low", "high"], [40, 960])
    assert "at the input of low, high of classifier, 2.77 M temporary" in succeed("inspect", path, "--no-values").out


@pytest.mark.parametrize(
    ("name", "line"),
    [  # the depths are those of arXiv 2506.15051, table 4
        ("torchvision/resnet18", "depth 18 -> 27, 36, 45 layers: at the output of layer4.1, 2.52 M temporary"),
        ("torchvision/resnet34", "depth 34 -> 40, 46, 52 layers: at the output of layer4.2, 1.68 M temporary"),
        ("timm/resnet50", "depth 50 -> 53, 56, 59 layers: at the output of layer4.2, 13.39 M temporary"),
        ("timm/vit_tiny_patch16_224", "depth 12 -> 13, 14, 15 blocks: at the output of blocks.11, 1.33 M temporary"),
    ],
)
def test_depths_that_replicas_would_reach_are_shown(name: str, line: str, tmp_path: Path) -> None:
    path = sparse_file(name, tmp_path)
    assert line in succeed("inspect", path, "--no-values", "--arch", name).out
    site = inspect(str(path), values=False, arch=name)["sites"]["depth"]
    assert ", ".join(map(str, site["depths"])) in line
    assert set(site) == {
        *("module", "width", "side", "family", "block", "blocks", "depth", "depths", "unit", "temporary_parameters")
    }


def test_a_checkpoint_of_torchvisions_segmentation_reference_opens(tmp_path: Path) -> None:
    model = build(Identity("torchvision", "deeplabv3_mobilenet_v3_large", CLASSES, {"aux_loss": False}))
    script = {"test_only": False, "print_freq": 10, "output_dir": "."}
    args = Namespace(model="deeplabv3_mobilenet_v3_large", dataset="coco", aux_loss=False, weights=None, **script)
    document = {"model": model.state_dict(), "optimizer": {}, "epoch": 3, "args": args}
    path = saved(document, tmp_path / "model_3.pth")
    light = inspect(path)
    assert (light["producer"], light["library"], light["head"]["module"]) == (
        "torchvision",
        "torchvision",
        "classifier",
    )
    opened = open_model(ModelRequest(path))
    assert opened.identity.model_args == {"aux_loss": False}
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(opened.module(images)["out"], model(images)["out"])


def test_models_by_name_have_the_same_document_as_files() -> None:
    document = inspect("torchvision/lraspp_mobilenet_v3_large", random_seed=0)
    assert (document["task"], document["head"]["classes"]) == ("segmentation", 21)
    sites = inspect("timm/test_resnet", random_seed=0)["sites"]
    assert sites["depth"]["module"] == "layer4.0"
    assert sites["leaky-slope"] == {"module": "layer4.0.act2", "width": 96, "side": "output", "temporary_parameters": 0}
    assert not sites.keys() & {"drop-path", "token-drop", "norm-momentum", "norm-noise"}


def test_a_file_names_the_kinds_whose_sites_it_can_not_tell_and_the_command_that_can(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    torch.save(timm.create_model("test_resnet", num_classes=5).state_dict(), path)
    document = inspect(str(path))
    inner = {name for name, kind in kinds().items() if issubclass(kind, InnerReplicas)}
    assert set(document["sites_unknown"]) == inner
    assert not inner & document["sites"].keys()
    shown = " ".join(succeed("inspect", path).out.split())
    assert "spgsurgeon inspect timm/test_resnet --random-weights" in shown
    assert all(kind in shown for kind in inner)
    assert inspect("timm/test_resnet", random_seed=0)["sites_unknown"] == []
    torch.save(build(Identity("torchvision", "lraspp_mobilenet_v3_large", 21)).state_dict(), path)
    assert inspect(str(path))["sites_unknown"] == [], "such replicas are for classifiers"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: prefixed("module._orig_mod.", state),
        lambda state: prefixed("backbone.", state),
        lambda state: {key.replace("layer1.", "layer1.module."): value for key, value in state.items()},
        lambda state: {"state_dict": prefixed("net.encoder.", state), "epoch": 3},
        lambda state: {"model": {key.replace("layer1.", "layer1._orig_mod."): value for key, value in state.items()}},
        lambda state: {key: value.half() for key, value in state.items()},
        lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
    ],
    ids=["wrapped", "attribute", "parallel part", "nested attributes", "compiled part", "half", "before 0.4.1"],
)
def test_a_model_is_found_under_its_wrappers(wrap: Any, tmp_path: Path) -> None:
    path = saved(wrap(resnet()), tmp_path / "weights.pth")
    assert inspect(path)["architecture"] == "test_resnet"
    opened = open_model(ModelRequest(path))
    for key, value in opened.module.state_dict().items():
        assert torch.equal(value.float(), resnet()[key].to(value.dtype).float())


def test_what_lies_beside_the_model_is_listed_and_left_out(tmp_path: Path) -> None:
    state = prefixed("backbone.", resnet()) | {"projector.weight": torch.zeros(2, 2)}
    path = saved(state, tmp_path / "weights.pth")
    assert inspect(path)["unexpected"] == ["projector.weight"]
    assert (
        "left out, as they lie outside the model 'backbone.': projector.weight" in open_model(ModelRequest(path)).notes
    )


def both(document: dict[str, Any]) -> str:
    return " ".join(f"--arch {name}" for name in document["candidates"])


def test_two_architectures_with_the_same_tensors_are_both_named_and_none_is_taken(tmp_path: Path) -> None:
    path = saved(timm.create_model("test_efficientnet_ln").state_dict(), tmp_path / "weights.pth")
    outcome = spgsurgeon("inspect", path, "--json")
    document = json.loads(outcome.out)
    assert outcome.code == document["exit_code"] == 5
    assert (document["error"]["kind"], document["error"]["code"]) == ("architecture", "architecture")
    assert document["architecture"] is None
    assert set(document["candidates"]) == {"timm/test_efficientnet_gn", "timm/test_efficientnet_ln"}
    assert document["head"]["width"] == 256  # what they share is told
    assert {*document["differences"]["layers"]} == {*document["candidates"]}
    assert document["next"] == f"spgsurgeon eval {path} {both(document)} --data DATA", "none of them is chosen"
    with pytest.raises(ArchitectureError, match="fits 2 architectures alike"):
        open_model(ModelRequest(path))
    chosen = inspect(path, arch="timm/test_efficientnet_ln")
    assert chosen["architecture"] == "test_efficientnet_ln"
    assert (
        open_model(ModelRequest(path, arch="timm/test_efficientnet_ln")).identity.architecture == "test_efficientnet_ln"
    )


def test_what_the_file_says_decides_between_architectures_with_the_same_tensors(tmp_path: Path) -> None:
    state = timm.create_model("test_efficientnet_ln").state_dict()
    document = {"state_dict": state, "arch": "test_efficientnet_ln", "version": 2}
    path = saved(document, tmp_path / "checkpoint.pth.tar")
    assert inspect(path)["architecture"] == "test_efficientnet_ln"
    assert inspect(path)["producer"] == "timm"


def test_the_nearest_are_named_where_nothing_fits(tmp_path: Path) -> None:
    state = resnet()
    state["layer1.0.conv1.weight"] = torch.zeros(3, 3)
    path = saved(state, tmp_path / "weights.pth")
    document = inspect(path)
    assert document["exit_code"] == 5
    assert document["candidates"][0] == "timm/test_resnet"
    assert "91 of 92 tensors fit" in document["error"]["message"]


def test_a_transformer_for_pictures_of_another_size_opens_once_it_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=CLASSES, img_size=96).eval()
    path = saved(model.state_dict(), tmp_path / "weights.pth")
    assert inspect(path)["candidates"][0] == "timm/test_vit"
    assert inspect(path, arch="timm/test_vit")["head"]["classes"] == CLASSES
    opened = open_model(ModelRequest(path, arch="timm/test_vit"))
    assert opened.preprocessing.input_size == (3, 96, 96)
    images = torch.rand(2, 3, 96, 96)
    assert torch.equal(opened.module(images), model(images))


def test_a_backbone_gets_a_head_where_it_is_asked_for(tmp_path: Path) -> None:
    state = {key: value for key, value in resnet().items() if not key.startswith("fc.")}
    path = saved(state, tmp_path / "weights.pth")
    document = succeed("inspect", path, "--json").document
    assert (document["architecture"], document["head"], document["sites"]) == ("test_resnet", None, {})
    assert "error" not in document
    assert "--num-classes N" in document["next"]
    (note,) = document["notes"]
    assert note.startswith("timm/test_resnet has no head here, so there is nothing to graft at")
    shown = succeed("inspect", path)
    assert re.search("^head +none$", shown.out, re.MULTILINE)
    assert shown.err == f"note: {note}\n"
    refused = spgsurgeon("graft", path, "-o", tmp_path / "grafted", "--json")
    assert (refused.code, refused.document["exit_code"], refused.document["error"]["kind"]) == (5, 5, "architecture")
    with pytest.raises(ArchitectureError, match="no classifier"):
        graft_folder(path, tmp_path / "grafted")
    grafted = graft_folder(path, tmp_path / "grafted", num_classes=3)
    assert grafted["base"]["head"]["classes"] == 3
    assert any("untrained" in note for note in grafted["notes"])


def test_values_are_read_when_asked_or_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = resnet() | {"fc.bias": torch.full((CLASSES,), torch.nan)}
    path = saved(state, tmp_path / "weights.pth")
    assert inspect(path)["non_finite"] == ["fc.bias"]
    assert inspect(path, values=False)["non_finite"] is None
    assert inspect(path, values=False)["content_hash"] is None
    monkeypatch.setattr("spgsurgeon.commands.inspect._READ_UNASKED", 1000)
    assert inspect(path)["content_hash"] is None
    assert inspect(path, values=True)["non_finite"] == ["fc.bias"]


def test_a_grafted_folder_is_held_against_its_hash_where_its_values_are_read(tmp_path: Path) -> None:
    graft_folder(saved(resnet(), tmp_path / "weights.pth"), tmp_path / "grafted")
    state = resnet() | {"fc.bias": torch.ones(CLASSES)}
    save_file(state, tmp_path / "grafted" / "model.safetensors")
    assert inspect(str(tmp_path / "grafted"), values=False)["grafted"]["kind"] == "dropout"
    with pytest.raises(DamagedFileError, match=r"model\.safetensors"):
        inspect(str(tmp_path / "grafted"), values=True)


def test_a_folder_of_accelerate_and_shards_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint_3"
    folder.mkdir()
    keys = sorted(resnet())
    halves = {"model-00001-of-00002.safetensors": keys[:40], "model-00002-of-00002.safetensors": keys[40:]}
    for name, part in halves.items():
        save_file({key: resnet()[key] for key in part}, folder / name)
    weight_map = {key: name for name, part in halves.items() for key in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert inspect(str(folder))["producer"] == "accelerate"
    assert torch.equal(open_model(ModelRequest(str(folder))).module.get_parameter("fc.weight"), resnet()["fc.weight"])


def test_the_wrapper_of_transformers_is_read(tmp_path: Path) -> None:
    save_file(prefixed("timm_model.", resnet()), tmp_path / "model.safetensors")
    config = {"model_type": "timm_wrapper", "architecture": "test_resnet", "num_classes": CLASSES}
    (tmp_path / "config.json").write_text(json.dumps(config))
    document = inspect(str(tmp_path))
    assert (document["producer"], document["architecture"]) == ("transformers", "test_resnet")
    assert open_model(ModelRequest(str(tmp_path))).identity.num_classes == CLASSES


def test_another_kind_of_transformer_is_refused_by_name(tmp_path: Path) -> None:
    save_file({"owlvit.embeddings.cls_token": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "owlvit"}))
    with pytest.raises(ArchitectureError, match="model type 'owlvit'"):
        inspect(str(tmp_path))


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_inspect_imports_neither_torch_nor_a_model_library(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{form}"
    saved(resnet(), path) if form == "pth" else save_file(resnet(), path)
    code = (
        "import sys; from spgsurgeon.cli.app import run; "
        f"code = run(['inspect', {str(path)!r}, '--json', '--no-values']); "
        "sys.exit(code or bool({'torch', 'timm', 'torchvision', 'numpy', 'safetensors'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_the_next_command_works(tmp_path: Path) -> None:
    path = saved(resnet(), tmp_path / "my weights.pth")
    succeed("graft", path, "-o", tmp_path / "grafted")
    assert inspect(path)["next"] == f"spgsurgeon graft '{path}' -o grafted/"


def test_a_strangers_key_can_not_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"\x1b[2J\x1b]0;mine\x07é": torch.zeros(2)}, path)
    outcome = spgsurgeon("inspect", path, "--tensors")
    assert "\x1b" not in outcome.out + outcome.err
    assert "\x07" not in outcome.out + outcome.err
    assert "\\x1b[2J\\x1b]0;mine\\x07é" in outcome.out


def test_a_backbone_by_name_is_told_as_one_in_a_file_is() -> None:
    name = "timm/eva02_tiny_patch14_224"
    document = succeed("inspect", name, "--random-weights", "--json").document
    assert (document["head"], document["sites"]) == (None, {})
    assert document["notes"][-1].startswith(f"{name} has no head here")
    assert document["next"] == f"spgsurgeon graft {name} --random-weights --num-classes N -o grafted/"


@pytest.fixture
def with_own_head(tmp_path: Path) -> str:
    state = {key: value for key, value in resnet().items() if not key.startswith("fc.")}
    return saved(state | {"fc.1.weight": torch.zeros(5, 96), "fc.1.bias": torch.zeros(5)}, tmp_path / "weights.pth")


def test_a_head_of_the_users_own_is_named_and_can_be_replaced(with_own_head: str, tmp_path: Path) -> None:
    document = inspect(with_own_head)
    assert document["architecture"] == "test_resnet"
    assert document["exit_code"] == 5
    assert "a head of its own (fc.1.weight, fc.1.bias)" in document["error"]["message"]
    grafted = graft_folder(with_own_head, tmp_path / "grafted", num_classes=3)
    assert grafted["base"]["head"]["classes"] == 3
    assert any("fc.1.weight" in note for note in grafted["notes"])


def test_what_shares_little_with_any_architecture_is_unknown(tmp_path: Path) -> None:
    strange = {f"decoder.{number}.weight": torch.zeros(7, number + 3) for number in range(40)}
    document = inspect(saved(strange | {"conv1.0.weight": torch.zeros(3)}, tmp_path / "weights.pth"))
    assert document["candidates"] == []
    assert document["next"].startswith("nothing")


def test_two_copies_of_a_model_are_no_two_architectures(tmp_path: Path) -> None:
    state = prefixed("student.net.", resnet()) | prefixed("teacher.net.", resnet()) | {"center": torch.zeros(3)}
    document = inspect(saved(state, tmp_path / "weights.pth"))
    assert document["exit_code"] == 5
    assert "several models: under student.net, teacher.net" in document["error"]["message"]
    assert document["candidates"] == ["timm/test_resnet"]
    assert document["next"].endswith("--weights NAME")
    opened = open_model(ModelRequest(document["source"], weights="teacher.net"))
    assert torch.equal(opened.module.state_dict()["fc.weight"], resnet()["fc.weight"])


def test_a_layout_of_one_library_may_hold_a_model_of_the_other(tmp_path: Path) -> None:
    document = {"model": resnet(), "args": {"model": "test_resnet"}, "epoch": 1}
    assert inspect(saved(document, tmp_path / "model_1.pth"))["library"] == "timm"


def test_one_shard_is_not_taken_for_a_model(tmp_path: Path) -> None:
    half = dict(list(resnet().items())[:40])
    document = inspect(saved(half, tmp_path / "pytorch_model-00001-of-00002.bin"))
    assert "one of several shards" in document["error"]["message"]


def test_names_for_another_size_of_picture_go_into_the_config(tmp_path: Path) -> None:
    path = saved(timm.create_model("test_vit", img_size=96).state_dict(), tmp_path / "weights.pth")
    graft_folder(path, tmp_path / "grafted", arch="timm/test_vit")
    config = json.loads((tmp_path / "grafted" / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"] == [3, 96, 96]
