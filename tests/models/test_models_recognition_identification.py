"""Architectures found by the keys and shapes of files that were trained, cut, wrapped and extended."""

import subprocess
import sys
from dataclasses import replace

import pytest

from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.recognition import identification
from spgsurgeon.models.recognition.catalogue import Catalogue, Record, catalogue, full_layout, layout
from spgsurgeon.models.recognition.catalogue_file import table
from spgsurgeon.models.recognition.cataloguing import build_on_meta, describe
from spgsurgeon.models.recognition.identification import Identification, identify, newcomers


def shapes_of(library: str, architecture: str, classes: int = 1000, **model_args):
    module = build_on_meta(Identity(library, architecture, classes, model_args))
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def under(prefix: str, shapes):
    return {prefix + key: shape for key, shape in shapes.items()}


def without(shapes, *starts: str):
    return {key: shape for key, shape in shapes.items() if not key.startswith(starts)}


def names(found: Identification) -> list[str]:
    return [match.entry.name for match in found.matches]


@pytest.fixture(scope="module")
def resnet():
    return shapes_of("timm", "resnet18")


@pytest.mark.parametrize(
    ("library", "architecture", "classes", "args"),
    [
        ("timm", "test_resnet", 7, {}),
        ("timm", "test_vit", 1, {"in_chans": 1}),
        ("timm", "tresnet_m", 3, {"in_chans": 4}),
        ("timm", "deit_tiny_distilled_patch16_224", 2, {}),
        ("timm", "vit_small_patch14_dinov2", 5, {}),
        ("timm", "volo_d1_224", 9, {"in_chans": 6}),
        ("torchvision", "googlenet", 11, {}),
        ("torchvision", "googlenet", 11, {"aux_logits": False}),
        ("torchvision", "mobilenet_v3_small", 3, {}),
        ("torchvision", "fcn_resnet50", 2, {}),
        ("torchvision", "fcn_resnet50", 2, {"aux_loss": False}),
        ("torchvision", "deeplabv3_mobilenet_v3_large", 32, {"aux_loss": False}),
        ("torchvision", "lraspp_mobilenet_v3_large", 11, {}),
    ],
)
def test_any_number_of_classes_and_input_channels_is_recognised(library, architecture, classes, args):
    found = identify(shapes_of(library, architecture, classes, **args))
    match = next(match for match in found.matches if match.entry.name == f"{library}/{architecture}")
    assert (match.classes, match.channels, match.prefix) == (classes, args.get("in_chans", 3), "")
    assert match.clean
    assert not found.nearest


def test_every_architecture_is_among_the_matches_of_its_own_layout():
    for name, entry in catalogue().entries.items():
        found = identify(layout(entry))
        match = next((match for match in found.matches if match.entry is entry), None)
        assert match is not None, name
        assert (match.clean, match.classes, match.channels) == (True, entry.classes, entry.channels), name


def test_twins_of_two_libraries_are_both_named(resnet):
    found = identify(resnet)
    assert {"timm/resnet18", "torchvision/resnet18"} <= set(names(found))
    assert names(identify(resnet, library="torchvision")) == ["torchvision/resnet18"]
    assert names(identify(resnet, architecture="resnet18")) == ["timm/resnet18", "torchvision/resnet18"]


def test_four_input_channels_are_timms_alone():
    found = identify(shapes_of("timm", "resnet18", 10, in_chans=4))
    assert {match.entry.library for match in found.matches} == {"timm"}
    assert found.matches[0].evidence == "all 122 keys and shapes, 10 classes, 4 input channels"


def test_the_default_number_of_classes_ranks_twins():
    for classes, name in ((1000, "timm/vit_base_patch32_clip_224"), (512, "timm/vit_base_patch32_clip_quickgelu_224")):
        assert names(identify(shapes_of("timm", "vit_base_patch32_clip_224", classes)))[0] == name


def test_the_own_order_of_keys_ranks_before_the_name(monkeypatch):
    record = describe("torchvision", "alexnet", {})
    shuffled = Record(replace(record.entry, architecture="a_twin", order_hash="another"), record.layout)
    known = Catalogue(table([record, shuffled], catalogue().versions), dict)
    monkeypatch.setattr(identification, "catalogue", lambda: known)
    assert names(identify(record.layout)) == ["torchvision/alexnet", "torchvision/a_twin"]
    assert names(identify(dict(reversed(record.layout.items())))) == ["torchvision/a_twin", "torchvision/alexnet"]


@pytest.mark.parametrize("prefix", ["backbone.", "net.model.", "a.b.c.d."])
def test_attributes_that_all_keys_share_are_found(resnet, prefix):
    match = identify(under(prefix, resnet)).matches[0]
    assert (match.prefix, match.clean) == (prefix, True)


def test_a_model_under_one_attribute_is_found_beside_other_things(resnet):
    rest = {"projector.0.weight": (128, 512), "criterion.queue": (128, 65536)}
    match = identify(under("learner.backbone.", resnet) | rest).matches[0]
    assert match.entry.architecture == "resnet18"
    assert match.prefix == "learner.backbone."
    assert match.unexpected == tuple(rest)
    assert (match.missing, match.mismatched, match.clean) == ((), (), False)


def test_a_model_inside_a_model_is_not_named_beside_it():
    whole = layout(catalogue().entries["timm/qwen3_vit_88m_merge"])  # its `encoder.` is an architecture too
    assert names(identify(under("net.", whole) | {"other": (1,)})) == ["timm/qwen3_vit_88m_merge"]
    assert names(identify(whole | {"other": (1,)})) == ["timm/qwen3_vit_88m_enc"]


def test_two_models_in_one_file_are_both_named(resnet):
    found = identify(under("student.", resnet) | under("teacher.", resnet), library="torchvision")
    assert [match.prefix for match in found.matches] == ["student.", "teacher."]


def test_a_backbone_without_its_head_is_recognised_as_such(resnet):
    match = identify(without(resnet, "fc.")).matches[0]
    assert match.headless
    assert not match.clean
    assert (match.classes, match.missing) == (0, ("fc.weight", "fc.bias"))
    beside = identify(under("backbone.", without(resnet, "fc.")) | {"head.weight": (10, 512)}).matches[0]
    assert (beside.headless, beside.unexpected) == (True, ("head.weight",))


def test_a_head_of_several_layers_goes_as_one():
    match = identify(without(shapes_of("timm", "caformer_s18"), "head.fc.")).matches[0]
    assert match.headless
    assert set(match.missing) >= {"head.fc.fc1.weight", "head.fc.norm.weight", "head.fc.fc2.bias"}


def test_a_model_that_has_no_head_by_default_misses_none():
    found = identify(layout(catalogue().entries["timm/vit_small_patch14_dinov2"]))
    match = next(match for match in found.matches if match.entry.name == "timm/vit_small_patch14_dinov2")
    assert (match.classes, match.clean, match.headless) == (0, True, False)


def test_files_from_before_batch_norm_counted_are_recognised(resnet):
    old = {key: shape for key, shape in resnet.items() if not key.endswith("num_batches_tracked")}
    match = identify(old).matches[0]
    assert match.entry.architecture == "resnet18"
    assert len(match.missing) == 20
    assert match.evidence == "all 102 keys and shapes but BatchNorm's counters, 1000 classes, 3 input channels"
    assert identify(resnet | {"fc.num_batches_tracked": ()}).matches[0].unexpected == ("fc.num_batches_tracked",)


def test_numbers_of_classes_that_disagree_are_no_match(resnet):
    found = identify(resnet | {"fc.bias": (10,)})
    assert not found.matches
    assert found.nearest[0].classes is None
    assert found.nearest[0].mismatched == ("fc.bias is [10], expected [1000]",)


def test_another_picture_size_is_near_and_says_where():
    found = identify(shapes_of("timm", "test_vit", 10, img_size=96))
    assert not found.matches
    match = found.nearest[0]
    assert (match.entry.name, match.classes) == ("timm/test_vit", 10)
    assert match.mismatched == ("pos_embed is [1, 37, 64], expected [1, 101, 64]",)
    assert "1 of another shape" in match.evidence


def test_a_backbone_inside_a_larger_model_is_not_taken_for_the_whole():
    found = identify(shapes_of("timm", "vit_small_resnet26d_224", 10, img_size=96))  # holds a ResNet-26-D
    assert not found.matches
    assert found.nearest[0].entry.name == "timm/vit_small_resnet26d_224"


def test_a_near_model_that_has_no_head_by_default_misses_none():
    near = identify(shapes_of("timm", "vit_small_patch14_dinov2", 0, img_size=140)).nearest[0]
    assert (near.entry.name, near.classes) == ("timm/vit_small_patch14_dinov2", 0)
    assert (near.missing, len(near.mismatched)) == ((), 1)


def test_a_head_of_ones_own_is_near(resnet):
    found = identify(without(resnet, "fc.") | {"fc.1.weight": (10, 512), "fc.1.bias": (10,)})
    assert not found.matches
    near = found.nearest[0]
    assert (near.entry.architecture, near.headless) == ("resnet18", True)
    assert near.unexpected == ("fc.1.weight", "fc.1.bias")


def test_what_was_asked_for_is_compared_however_far_it_is(resnet):
    found = identify(resnet, library="torchvision", architecture="vgg11")
    assert not found.matches
    assert [match.entry.name for match in found.nearest] == ["torchvision/vgg11"]
    assert found.nearest[0].fitting == 0


@pytest.mark.parametrize(
    "shapes", [{}, {"a": (1,)}, {"x.y": (3, 4), "x.z": ()}, {f"layers.{i}.w": (8,) for i in range(50)}]
)
def test_what_is_no_model_of_these_libraries_has_no_matches(shapes):
    assert identify(shapes) == Identification((), ())


def test_very_deep_keys_are_not_followed_to_their_end(resnet):
    deep = {"a." * 20_000 + str(i): (1,) for i in range(20)}
    assert identify(deep) == Identification((), ())
    assert identify(under("a." * 9, resnet)).matches == ()


def test_very_many_tensors_are_not_looked_into(resnet):
    assert identify(resnet | {f"a.{i}.b": (1,) for i in range(10_000)}) == Identification((), ())


def test_an_architecture_newer_than_the_catalogue_is_named_and_built_on_request(monkeypatch, resnet):
    older = _without_row(catalogue(), "test_resnet")
    older.versions = catalogue().versions | {"timm": "0"}
    monkeypatch.setattr(identification, "catalogue", lambda: older)
    shapes = shapes_of("timm", "test_resnet", 7)
    found = identify(shapes)
    assert (found.matches, found.newcomers) == ((), ("timm/test_resnet",))
    assert identify(shapes, library="torchvision").newcomers == ()
    asked = identify(shapes, architecture="test_resnet")
    match = asked.matches[0]
    assert (match.entry.name, match.classes, match.clean) == ("timm/test_resnet", 7, True)
    assert identify(shapes | {"extra": (1,)}, architecture="test_resnet").nearest[0].entry.name == "timm/test_resnet"
    assert newcomers(older, "test_resnet", library="torchvision") == []


def _without_row(known: Catalogue, architecture: str) -> Catalogue:
    row = known.column("architecture").index(architecture)
    columns = {field: (pool, places[:row] + places[row + 1 :]) for field, (pool, places) in known._columns.items()}
    return Catalogue({"versions": known.versions, "columns": columns}, lambda: known.samples)


def test_variants_without_auxiliary_heads_say_how_they_are_built():
    match = identify(shapes_of("torchvision", "googlenet", 4, aux_logits=False)).matches[0]
    assert match.entry.model_args == {"aux_logits": False}
    module = build_on_meta(Identity("torchvision", "googlenet", 4, dict(match.entry.model_args)))
    assert {key: tuple(value.shape) for key, value in module.state_dict().items()} == full_layout(match.entry) | {
        "fc.weight": (4, 1024),
        "fc.bias": (4,),
    }


def test_a_segmentation_model_is_not_taken_for_its_backbone():
    shapes = shapes_of("torchvision", "fcn_resnet50", 5)
    assert names(identify(under("net.", shapes))) == ["torchvision/fcn_resnet50"]
    own = without(shapes, "classifier.4.") | {"classifier.5.weight": (5, 512, 1, 1), "classifier.5.bias": (5,)}
    assert names(identify(own)) == []
    assert identify(own).nearest[0].entry.name == "torchvision/fcn_resnet50"


def test_identifying_imports_no_library():
    code = (
        "import sys; from spgsurgeon.models.recognition.catalogue import catalogue, layout;"
        "from spgsurgeon.models.recognition.identification import identify;"
        "shapes = layout(catalogue().entries['timm/resnet50']);"
        "assert identify(shapes).matches and identify(shapes | {'fc.bias': (1,)}).nearest;"
        "assert not {'torch', 'numpy', 'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
