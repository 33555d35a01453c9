"""Models of several heads through the workflows: what is written about them, and read again."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.commands.inspect import inspect
from spgsurgeon.commands.modules import graft, strip
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.replicas.kinds.dropout import Dropout
from spgsurgeon.surgery.grafting import regraft

SEVERAL = [
    ("timm/levit_128s", ["head.linear", "head_dist.linear"], [384, 384]),
    ("torchvision/googlenet", ["fc", "aux2.fc2", "aux1.fc2"], [1024, 1024, 1024]),
]


@pytest.mark.parametrize(("name", "modules", "widths"), SEVERAL)
def test_a_grafted_folder_keeps_every_site_and_its_replicas(
    name: str, modules: list[str], widths: list[int], tmp_path: Path
):
    document = graft_folder(name, tmp_path / "grafted", replicas=Dropout(replicas=2), num_classes=5, random_seed=0)
    expected = sum(2 * (width**2 + width) for width in widths)
    assert document["temporary_parameters"] == expected
    assert document["base"]["sites"]["dropout"]["temporary_parameters"] == expected * 3 // 2  # told for three replicas
    assert document["base"]["head"] == {
        "module": modules,
        "type": ["Linear"] * len(modules),
        "width": widths,
        "classes": 5,
    }
    manifest = json.loads((tmp_path / "grafted" / "graft.json").read_text())
    assert manifest["site"] == {"module": modules, "width": widths, "side": "input"}

    temporary = load_file(tmp_path / "grafted" / "temporary.safetensors")
    key = f"{len(modules) - 1}.1.projection.weight"
    temporary[key] += 1
    again = regraft(open_model(ModelRequest(str(tmp_path / "grafted"))), temporary)
    assert again.sites == tuple(modules)
    assert again.steps == 3
    assert torch.equal(again.replicas.state_dict()[key], temporary[key])
    assert inspect(str(tmp_path / "grafted"))["head"]["module"] == modules


@pytest.mark.parametrize("site", [None, ["head", "head_dist"]])
def test_several_heads_in_three_lines_of_python(site: list[str] | None):
    model = timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, embed_dim=32, depth=2, num_heads=2)
    grafted = graft(model, replicas=2, site=site, example=torch.zeros(1, 3, 32, 32))
    assert grafted.sites == ("head", "head_dist")
    assert grafted.train()(torch.zeros(2, 3, 32, 32)).shape == (6, 1000)
    assert strip(grafted) is model


def test_one_head_may_be_named_by_its_path_alone():
    assert graft(timm.create_model("test_resnet"), replicas=2, site="fc").sites == ("fc",)
