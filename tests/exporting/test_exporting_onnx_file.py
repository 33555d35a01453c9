import copy
import sys

import onnx
import onnxruntime
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import spgsurgeon
from spgsurgeon.commands.modules import graft
from spgsurgeon.errors import SurgeonError, UsageError, VerificationError
from spgsurgeon.exporting.onnx_file import export_onnx
from spgsurgeon.models.graph_inputs import image_inputs
from spgsurgeon.models.libraries.building import build
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.replicas.grafted import detach

SIZE = (3, 16, 16)
IMAGES = image_inputs(SIZE)


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(784, 5)
    )


class Segmentation(nn.Module):
    """As torchvision's: a dictionary, with an auxiliary head that only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.auxiliary = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.head(images), "aux": self.auxiliary(images)}


class Forward(nn.Module):
    """A model whose forward is the given function of (module, images)."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> object:
        return self.function(self, images)


FAMILIES = {
    "timm convolutional": (lambda: timm.create_model("test_resnet", num_classes=7), (3, 64, 64), None, 1),
    "timm transformer": (lambda: timm.create_model("test_vit", num_classes=7), (3, 160, 160), 18, 1),
    "torchvision": (lambda: torchvision.models.get_model("squeezenet1_1", num_classes=7), (3, 64, 64), 23, 1),
    "segmentation": (Segmentation, (3, 32, 32), None, 32 * 32),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_exported_file_agrees_with_the_model_at_batch_sizes_it_was_not_exported_with(tmp_path, family):
    make, input_size, opset, units = FAMILIES[family]
    torch.manual_seed(0)
    model = make()
    path = tmp_path / "model.onnx"
    report = export_onnx(model, path, image_inputs(input_size, (1, 3)), opset=opset)

    graph = onnx.load(path)
    assert [value.name for value in (*graph.graph.input, *graph.graph.output)] == ["images", "logits"]
    assert not any("auxiliary" in tensor.name for tensor in graph.graph.initializer)
    assert report.path == path
    assert report.opset == graph.opset_import[0].version == (opset or report.opset)
    assert report.sizes == [{"batch": 1}, {"batch": 3}]
    assert report.top1_equal
    assert 0 < report.top1_compared <= 4 * units
    assert report.largest_difference <= 1e-4 * report.logits_scale

    images = torch.randn(5, *input_size)
    (logits,) = onnxruntime.InferenceSession(path).run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        expected = model.eval()(images)
    expected = expected["out"] if isinstance(expected, dict) else expected
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=1e-4 * report.logits_scale)


def test_same_model_gives_the_same_single_file_without_paths_of_this_machine(tmp_path):
    for name in ("a.onnx", "b.onnx"):
        export_onnx(tiny(), tmp_path / name, IMAGES)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]
    content = (tmp_path / "a.onnx").read_bytes()
    assert content == (tmp_path / "b.onnx").read_bytes()
    assert torch.__file__.removesuffix("__init__.py").encode() not in content


def test_a_file_says_what_it_is_and_nothing_of_our_classes(tmp_path):
    said = {"class_names": '["zéro", "one"]', "content_hash": "ab"}
    export_onnx(tiny(), tmp_path / "model.onnx", IMAGES, metadata=said)
    written = onnx.load(tmp_path / "model.onnx")
    assert {entry.key: entry.value for entry in written.metadata_props} == said
    assert onnxruntime.InferenceSession(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map == said
    assert (written.producer_name, written.producer_version) == ("spgsurgeon", spgsurgeon.__version__)
    graph = written.graph
    noted = (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info)
    assert not any(part.metadata_props for part in noted)
    assert (tmp_path / "model.onnx").read_bytes().count(b"spgsurgeon") == 1, "the producer's name alone"


def test_half_precision_is_inside_and_agrees_to_a_hundredth(tmp_path):
    model, path = tiny(), tmp_path / "model.onnx"
    report = export_onnx(model, path, IMAGES, half=True)
    written = onnx.load(path)
    numbers = {tensor.data_type for tensor in written.graph.initializer} - {onnx.TensorProto.INT64}
    assert numbers == {onnx.TensorProto.FLOAT16}
    borders = [value.type.tensor_type.elem_type for value in (*written.graph.input, *written.graph.output)]
    assert borders == [onnx.TensorProto.FLOAT] * 2
    assert report.half
    assert 0 < report.largest_difference <= 1e-2 * report.logits_scale
    assert next(model.parameters()).dtype == torch.float32
    model[0].weight.data *= 1e5
    with pytest.raises(VerificationError, match="'logits' is nan") as caught:
        export_onnx(model, tmp_path / "overflows.onnx", IMAGES, half=True)
    assert "half precision" in caught.value.hint


def test_the_callers_model_stays_as_it_was(tmp_path):
    model = tiny().to(torch.bfloat16).train()
    model[0].eval().requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    facts = [(m.training, [p.requires_grad for p in m.parameters()]) for m in model.modules()]

    export_onnx(model, tmp_path / "model.onnx", IMAGES)

    assert [(m.training, [p.requires_grad for p in m.parameters()]) for m in model.modules()] == facts
    after = model.state_dict()
    assert all(after[key].dtype == value.dtype and torch.equal(after[key], value) for key, value in before.items())


def test_nothing_is_printed_whether_the_export_works_or_fails(tmp_path, capfd):
    export_onnx(tiny(), tmp_path / "model.onnx", IMAGES)
    noisy = Forward(lambda _, images: images.flatten(1) if images.sum() > 0 else -images.flatten(1))
    with pytest.raises(SurgeonError):
        export_onnx(noisy, tmp_path / "fails.onnx", IMAGES)
    assert capfd.readouterr() == ("", "")
    print("heard", file=sys.stderr)
    assert capfd.readouterr().err == "heard\n"


def test_both_outputs_of_a_segmentation_model_are_exported_named_and_compared(tmp_path):
    model, path = Segmentation(), tmp_path / "model.onnx"
    report = export_onnx(model, path, IMAGES, outputs="all")
    assert [sizes["batch"] for sizes in report.sizes] == [1, 2, 3]
    assert list(report.outputs) == ["logits", "auxiliary"]
    assert report.top1_compared == sum(agreement.top1_compared for agreement in report.outputs.values())

    images = torch.randn(5, *SIZE)
    session = onnxruntime.InferenceSession(path)
    assert [value.name for value in session.get_outputs()] == ["logits", "auxiliary"]
    with torch.no_grad():
        expected = model(images)
    for found, key in zip(session.run(None, {"images": images.numpy()}), ("out", "aux"), strict=True):
        torch.testing.assert_close(torch.from_numpy(found), expected[key], rtol=0, atol=1e-4 * report.logits_scale)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "lraspp_mobilenet_v3_large",
        "deeplabv3_mobilenet_v3_large",
        "fcn_resnet50",  # DeepLabV3 differs from it in its head, as above
    ],
)
def test_torchvisions_segmentation_models_agree_in_every_output(tmp_path, name):
    torch.manual_seed(0)
    has_one = not name.startswith("lraspp")
    example = torch.randn(2, 3, 64, 64)
    model = detach(graft(build(Identity("torchvision", name, 5)), replicas=3, example=example))
    outputs = "all" if has_one else "main"
    report = export_onnx(model, tmp_path / "model.onnx", image_inputs((3, 64, 64)), outputs=outputs)
    assert list(report.outputs) == ["logits", "auxiliary"][: 1 + has_one]
    for agreement in report.outputs.values():
        assert agreement.largest_difference <= 1e-4 * agreement.logits_scale
        assert agreement.top1_compared > 0


def test_an_auxiliary_output_that_is_off_fails_the_proof(tmp_path, monkeypatch):
    real_export = torch.onnx.export

    def export_other_weights(reference, *args, **kwargs):
        other = copy.deepcopy(reference)
        other.model.auxiliary.bias.data[1] += 1e-2
        return real_export(other, *args, **kwargs)

    monkeypatch.setattr(torch.onnx, "export", export_other_weights)
    with pytest.raises(VerificationError, match=r"at batch size 1 the largest difference of 'auxiliary' is 0\.01"):
        export_onnx(Segmentation(), tmp_path / "model.onnx", IMAGES, outputs="all")
    assert export_onnx(Segmentation(), tmp_path / "model.onnx", IMAGES).top1_equal


@pytest.mark.parametrize(
    ("model", "outputs", "words"),
    [(tiny, "all", "has no auxiliary one"), (Segmentation, "auxiliary", "main or all, not 'auxiliary'")],
)
def test_outputs_that_there_are_not_are_refused(tmp_path, model, outputs, words):
    with pytest.raises(UsageError, match=words):
        export_onnx(model(), tmp_path / "model.onnx", IMAGES, outputs=outputs)
    assert list(tmp_path.iterdir()) == []


BAD = {
    "a branch on a tensor": (
        lambda _, x: x.flatten(1) if x.sum() > 0 else -x.flatten(1),
        SurgeonError,
        "data-dependent",
    ),
    "an operator ONNX lacks": (lambda _, x: torch.special.bessel_j0(x).flatten(1), SurgeonError, "bessel_j0"),
    "a fixed batch": (lambda _, x: x.reshape(2, -1), VerificationError, "fixes the batch of 'logits' to 2"),
    "dropout in eval mode": (lambda _, x: F.dropout(x.flatten(1)), VerificationError, "Dropout"),
    "no tensor": (lambda _, x: [x, None], SurgeonError, "a list of a tensor [2, 3, 16, 16], a NoneType"),
    "another size": (lambda _, x: F.linear(x.flatten(1), torch.ones(2, 700)), SurgeonError, "images [2, 3, 16, 16]"),
    "no class dimension": (lambda _, x: x.sum((1, 2, 3)), SurgeonError, "a tensor of 1 dimensions"),
    "logits that are not numbers": (
        lambda _, x: (x * torch.nan).flatten(1),
        VerificationError,
        "difference of 'logits' is nan",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_model_that_cannot_be_exported_is_refused_in_one_line_and_leaves_nothing(tmp_path, case):
    forward, kind, words = BAD[case]
    with pytest.raises(kind) as caught:
        export_onnx(Forward(forward), tmp_path / "model.onnx", IMAGES)
    assert type(caught.value) is kind
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_is_off_fails_the_proof_and_leaves_the_older_file(tmp_path, monkeypatch):
    real_export = torch.onnx.export

    def export_other_weights(model, *args, **kwargs):
        other = copy.deepcopy(model)
        other.model[-1].bias.data[2] += 1e-3
        return real_export(other, *args, **kwargs)

    monkeypatch.setattr(torch.onnx, "export", export_other_weights)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"older")
    with pytest.raises(VerificationError) as caught:
        export_onnx(tiny(), path, IMAGES)
    assert "at batch size 1 the largest difference of 'logits' is 0.001, allowed is " in caught.value.message
    assert caught.value.exit_code == 3
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]
    assert export_onnx(tiny(), path, IMAGES, tolerance=0.1).largest_difference == pytest.approx(1e-3, rel=1e-2)


def test_a_graph_that_cannot_run_at_some_batch_size_names_it(tmp_path, monkeypatch):
    real_run = onnxruntime.InferenceSession.run

    def run(session, names, feeds):
        if len(feeds["images"]) == 3:
            raise RuntimeError("no kernel\nmore")
        return real_run(session, names, feeds)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", run)
    with pytest.raises(VerificationError, match=r"at batch size 3 ONNX Runtime fails: no kernel$"):
        export_onnx(tiny(), tmp_path / "model.onnx", IMAGES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("opset", [17, 24])
def test_an_unsupported_opset_is_refused_with_the_supported_range(tmp_path, opset):
    with pytest.raises(UsageError, match=f"opset {opset}") as caught:
        export_onnx(tiny(), tmp_path / "model.onnx", IMAGES, opset=opset)
    assert "18 to 23" in caught.value.hint


def test_a_model_above_two_gigabytes_is_refused_before_any_work(tmp_path):
    huge = nn.Linear(2**15, 2**15, device="meta", dtype=torch.float16)  # 2 GB in float16, 4 GB once it is float32
    with pytest.raises(SurgeonError, match=r"4\.3 GB"):
        export_onnx(huge, tmp_path / "model.onnx", IMAGES)
