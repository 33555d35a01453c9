"""The catalogue that ships is true of the installed libraries, and is built the same again."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
import torch

from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.libraries.registry import LIBRARIES, library
from spgsurgeon.models.recognition import catalogue as catalogue_module
from spgsurgeon.models.recognition.catalogue import Catalogue, Head, catalogue, full_layout, installed_version, layout
from spgsurgeon.models.recognition.catalogue_file import write
from spgsurgeon.models.recognition.cataloguing import build_on_meta, describe

SAMPLE = [  # every kind: without a classifier by default, with several heads, with channels that go in by the patch
    "timm/caformer_s18",
    "timm/crossvit_9_240",
    "timm/deit_tiny_distilled_patch16_224",
    "timm/levit_128s",
    "timm/qwen3_vit_88m_enc",
    "timm/resnet50_clip",
    "timm/test_vit",
    "timm/tresnet_m",
    "timm/vit_small_patch14_dinov2",
    "torchvision/deeplabv3_mobilenet_v3_large",
    "torchvision/googlenet",
    "torchvision/lraspp_mobilenet_v3_large",
    "torchvision/regnet_x_400mf",
    "torchvision/squeezenet1_1",
]


def test_every_architecture_of_the_installed_libraries_is_in_it():
    for name in LIBRARIES:
        if installed_version(name) == catalogue().versions[name]:
            known = {entry.architecture for entry in catalogue().entries.values() if entry.library == name}
            assert known == set(library(name).architectures())


@pytest.mark.slow
def test_what_it_says_is_what_the_installed_libraries_build():
    entries = [catalogue().entries[name] for name in SAMPLE]
    there = [entry for entry in entries if entry.architecture in library(entry.library).architectures()]
    same = [_as_built(entry.library, entry.architecture) == (entry, full_layout(entry)) for entry in there]
    current = all(installed_version(name) == catalogue().versions[name] for name in LIBRARIES)
    assert all(same) if current else sum(same) > 0.7 * len(same)


def _as_built(library_name: str, architecture: str):
    record = describe(library_name, architecture)
    return record.entry, record.layout


def test_the_layout_is_that_of_the_default_model_in_the_order_of_its_state_dict():
    for name in ("timm/vit_small_patch14_dinov2", "timm/test_resnet"):
        entry = catalogue().entries[name]
        module = build_on_meta(Identity(entry.library, entry.architecture, entry.classes))
        assert list(layout(entry).items()) == [(key, tuple(value.shape)) for key, value in module.state_dict().items()]


@pytest.mark.parametrize(
    ("name", "heads", "classes"),
    [
        ("timm/resnet50", [("fc", "Linear", 2048)], 1000),
        ("timm/vit_small_patch14_dinov2", [("head", "Linear", 384)], 0),
        ("timm/volo_d1_224", [("head", "Linear", 384), ("aux_head", "Linear", 384)], 1000),
        ("torchvision/squeezenet1_1", [("classifier.1", "Conv2d", 512)], 1000),
        ("timm/gemma4_vit_167m_enc", [], 0),
        ("torchvision/fcn_resnet50", [("aux_classifier", "FCNHead", 1024), ("classifier", "FCNHead", 2048)], 21),
        (
            "torchvision/deeplabv3_resnet101",
            [("aux_classifier", "FCNHead", 1024), ("classifier", "DeepLabHead", 2048)],
            21,
        ),
    ],
)
def test_heads_are_those_that_make_logits(name, heads, classes):
    entry = catalogue().entries[name]
    assert sorted((head.module, head.type, head.width) for head in entry.heads) == sorted(heads)
    assert entry.classes == classes
    assert (entry.refusal is None) == bool(heads)


def test_maps_that_enter_a_head_by_name_are_told_apart():
    entry = catalogue().entries["torchvision/lraspp_mobilenet_v3_large"]
    assert entry.heads == (Head("classifier", "LRASPPHead", 40, "low"), Head("classifier", "LRASPPHead", 960, "high"))


def test_tasks_are_those_of_the_libraries():
    segmentation = [name for name, entry in catalogue().entries.items() if entry.task == "segmentation"]
    assert [name.partition("/")[2] for name in segmentation] == [
        "deeplabv3_mobilenet_v3_large",
        "deeplabv3_resnet101",
        "deeplabv3_resnet50",
        "fcn_resnet101",
        "fcn_resnet50",
        "lraspp_mobilenet_v3_large",
    ]
    assert all(library("torchvision").task(name.partition("/")[2]) == "segmentation" for name in segmentation)


@pytest.mark.parametrize(
    ("name", "depths"),
    [("resnet18", [27, 36, 45]), ("resnet34", [40, 46, 52]), ("resnet50", [53, 56, 59])],  # arXiv 2506.15051, table 4
)
@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_depths_are_those_of_the_paper(library, name, depths):
    depth = catalogue().entries[f"{library}/{name}"].last_stage
    assert depth.depths(3) == depths
    assert (depth.module.partition(".")[0], depth.depth) == ("layer4", int(name.removeprefix("resnet")))


def test_further_families_have_a_site_for_depth():
    known = [(entry.last_stage.family, entry.family) for entry in catalogue().entries.values() if entry.last_stage]
    assert {
        *(("RegNet", "regnet"), ("MobileViT", "mobilevit"), ("MaxViT", "maxxvit")),
        *(("MaxViT", "maxvit"), ("EfficientViT", "efficientvit_mit"), ("EfficientViT", "efficientvit_msra")),
        *(("FocalNet", "focalnet"), ("Hiera", "hiera"), ("Hiera", "hieradet_sam2"), ("CoAtNet", "maxxvit")),
        *(("ResNeXt of timm's ByobNet", "byobnet"), ("ResNet", "senet")),
    } <= set(known)


@pytest.mark.parametrize(
    "name", ["timm/densenet121", "timm/levit_128s", "torchvision/alexnet", "torchvision/fcn_resnet50"]
)
def test_other_families_have_no_site_for_depth(name):
    assert catalogue().entries[name].last_stage is None


def test_places_follow_the_number_of_classes_and_of_input_channels():
    entry = catalogue().entries["timm/tresnet_m"]
    assert entry.class_places == (("head.fc.weight", 0, 1), ("head.fc.bias", 0, 1))
    assert entry.channel_places == (("body.conv1.conv.weight", 1, 16),)  # of four by four pixels at once


def test_parameters_of_a_file_are_counted_without_its_buffers():
    for name, count in (("timm/resnet50", 25_557_032), ("torchvision/vit_b_16", 86_567_656)):
        entry = catalogue().entries[name]
        assert entry.parameters(layout(entry)) == count


def test_what_cannot_be_built_is_in_it_with_the_reason():
    record = describe("timm", "resnet50", {"depth": 1})
    assert "timm can't build resnet50" in record.entry.refusal
    assert (record.layout, full_layout(record.entry)) == ({}, {})


def test_the_same_records_are_written_as_the_same_bytes_and_read_back_as_they_were(tmp_path, monkeypatch):
    names = ("timm/test_vit", "torchvision/alexnet", "timm/levit_128s", "torchvision/lraspp_mobilenet_v3_large")
    records = [describe(*name.split("/")) for name in names]
    for path in (tmp_path / "one.zip", tmp_path / "two.zip"):
        write(path, records, {"timm": "1"})
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    monkeypatch.setattr(catalogue_module, "FILE", tmp_path / "one.zip")
    catalogue_module._family.cache_clear()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        read = Catalogue(json.loads(archive.read("table.json")), dict)
    assert list(read.entries.values()) == [record.entry for record in records]
    assert [full_layout(entry) for entry in read.entries.values()] == [record.layout for record in records]
    catalogue_module._family.cache_clear()


def test_building_leaves_no_numbers_behind():
    module = build_on_meta(Identity("torchvision", "regnet_y_400mf", 1000))  # computes with tensors of its own
    assert all(value.device == torch.device("meta") for value in module.state_dict().values())


def test_a_default_layout_has_the_numbers_of_its_entry():
    entry = replace(catalogue().entries["timm/resnet50"], classes=7, channels=4)
    assert layout(entry)["fc.weight"] == (7, 2048)
    assert layout(entry)["conv1.weight"] == (64, 4, 7, 7)


def test_reading_it_imports_no_library():
    code = (
        "import sys; from spgsurgeon.models.recognition.catalogue import catalogue, layout;"
        "assert layout(catalogue().entries['timm/resnet50']);"
        "assert not {'torch', 'numpy', 'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
