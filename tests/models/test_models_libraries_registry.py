"""What a MODEL or an --arch argument means."""

import os
from pathlib import Path

import pytest

from spgsurgeon.errors import ArchitectureError, UsageError
from spgsurgeon.models.libraries.registry import NamedModel, library, parse_model, resolve_architecture


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timm/resnet50", ("timm", "resnet50", None)),
        ("timm/resnet50.a1_in1k", ("timm", "resnet50", "a1_in1k")),
        ("timm:resnet50.a1_in1k", ("timm", "resnet50", "a1_in1k")),
        ("torchvision/resnet50", ("torchvision", "resnet50", None)),
        ("torchvision/resnet50.IMAGENET1K_V2", ("torchvision", "resnet50", "IMAGENET1K_V2")),
        ("tv/resnet50", ("torchvision", "resnet50", None)),
        ("hf-hub:timm/resnet50.a1_in1k", ("timm", "hf-hub:timm/resnet50.a1_in1k", None)),
        ("transformers/owner/name.v1", ("transformers", "owner/name.v1", None)),
    ],
)
def test_a_name_is_a_library_an_architecture_and_a_tag(text, expected):
    assert parse_model(text) == NamedModel(*expected)


def test_anything_else_is_an_existing_path(tmp_path, monkeypatch):
    (tmp_path / "weights.pth").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_model(str(tmp_path)) == tmp_path
    assert parse_model(f"local-dir:{tmp_path}") == tmp_path
    assert parse_model("~/weights.pth") == Path(os.environ["HOME"]) / "weights.pth"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("resnet18", "did you mean timm/resnet18 or torchvision/resnet18?"),
        ("test_vit", "did you mean timm/test_vit?"),
        ("deeplabv3_resnet50", "did you mean torchvision/deeplabv3_resnet50?"),
        ("test_vitt", "timm/test_vit"),
        ("weights/none.pth", "a weights file or a folder"),
        ("local-dir:missing/folder", "a weights file or a folder"),
    ],
)
def test_what_is_neither_is_refused_with_what_may_have_been_meant(text, hint):
    with pytest.raises(UsageError, match="there is no file or folder") as caught:
        parse_model(text)
    assert hint in caught.value.hint


def test_a_name_like_none_is_only_told_what_there_can_be():
    with pytest.raises(UsageError) as caught:
        parse_model("tg")
    assert caught.value.hint.startswith("MODEL is ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test_resnet", ("timm", "test_resnet")),
        ("mobilenet_v2", ("torchvision", "mobilenet_v2")),
        ("timm/resnet18", ("timm", "resnet18")),
        ("timm:resnet18.a1_in1k", ("timm", "resnet18")),
        ("tv/resnet18.IMAGENET1K_V1", ("torchvision", "resnet18")),
        ("resnet18d.ra2_in1k", ("timm", "resnet18d")),
        ("fcn_resnet50", ("torchvision", "fcn_resnet50")),
        ("tv/lraspp_mobilenet_v3_large.COCO_WITH_VOC_LABELS_V1", ("torchvision", "lraspp_mobilenet_v3_large")),
    ],
)
def test_an_architecture_is_found_in_the_library_that_has_it(text, expected):
    assert resolve_architecture(text) == expected


def test_an_architecture_that_both_libraries_have_is_ambiguous():
    with pytest.raises(ArchitectureError, match="several libraries have 'resnet18'") as caught:
        resolve_architecture("resnet18")
    assert caught.value.hint == "say which: --arch timm/resnet18 or torchvision/resnet18"
    assert caught.value.details == {"candidates": ["timm", "torchvision"]}
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("text", ["mobilenet_v5_large", "tv/mobilenet_v22", "torchvision/mobilenetv2"])
def test_an_unknown_architecture_is_refused_with_near_names(text):
    with pytest.raises(ArchitectureError, match="no library has an architecture") as caught:
        resolve_architecture(text)
    assert "mobilenet" in caught.value.hint


def test_near_names_are_those_of_the_library_asked_for():
    with pytest.raises(ArchitectureError) as caught:
        resolve_architecture("torchvision/test_resnet")
    assert "test_resnet" not in caught.value.hint


@pytest.mark.parametrize("name", ["timm", "torchvision"])
def test_architectures_are_sorted_and_without_tags(name):
    names = library(name).architectures()
    assert names == sorted(set(names))
    assert "resnet18" in names
    assert not [n for n in names if "." in n]
    assert ("fcn_resnet50" in names) == (name == "torchvision")
    assert "fasterrcnn_resnet50_fpn" not in names  # no classes of images or pixels
