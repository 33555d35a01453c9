"""Law 9 over classes of transformers: any number of samples of any length, padded, through ONNX Runtime by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import onnxruntime
import pytest
import torch
from made_up_task import SIGNS, SignModel
from tiny_transformers import CLASSES, tiny
from torch import Tensor

import spgsurgeon
from spgsurgeon.errors import ArchitectureError, SurgeonError, UsageError, VerificationError
from spgsurgeon.exporting.onnx_file import export_onnx
from spgsurgeon.exporting.program_file import export_program
from spgsurgeon.models.graph_inputs import GraphInputs, Sizes
from spgsurgeon.models.sites.transformers_heads import AUDIO, CHOICE, HEADS, IMAGE, QUESTION, TEXT, TOKENS
from spgsurgeon.models.transformers_examples import graph_inputs_of
from spgsurgeon.replicas.outputs import outputs_of

READ, PAIRS = ["input_ids", "attention_mask"], ["input_ids", "attention_mask", "token_type_ids"]
INPUTS = {
    "BertForSequenceClassification": (PAIRS, ["logits"], ["batch", CLASSES]),
    "RobertaForTokenClassification": (READ, ["logits"], ["batch", "length", CLASSES]),
    "DistilBertForQuestionAnswering": (READ, ["start_logits", "end_logits"], ["batch", "length"]),
    "BertForMultipleChoice": (PAIRS, ["logits"], ["batch", "num_choices"]),
    "GPT2ForSequenceClassification": (READ, ["logits"], ["batch", CLASSES]),
    "Wav2Vec2ForSequenceClassification": (["input_values"], ["logits"], ["batch", CLASSES]),
    "ASTForAudioClassification": (["input_values"], ["logits"], ["batch", CLASSES]),
}
LENGTH = 6
REFUSED = ("ModernBertForTokenClassification", "ModernBertForQuestionAnswering")
TASKS = (TEXT, TOKENS, QUESTION, CHOICE, AUDIO, IMAGE)
EVERY = [name for name, head in HEADS.items() if head.task in TASKS and name not in REFUSED]
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # of WavLM's own attention


def differs(path: Any, module: Any, sizes: dict[str, int]) -> float:
    """Return how far ONNX Runtime is from the model on inputs of these sizes, as a share of its largest logit."""
    inputs = graph_inputs_of(module, None).make(sizes, torch.Generator().manual_seed(7))
    found = onnxruntime.InferenceSession(path).run(None, {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        expected = outputs_of(module(**inputs))
    pairs = zip(map(torch.from_numpy, found), expected, strict=True)
    return max(float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if number < 3 else pytest.mark.slow) for number, name in enumerate(INPUTS)]
)
def test_inputs_and_outputs_have_their_names_and_open_dimensions(name: str, tmp_path: Any) -> None:
    inputs, outputs, shape = INPUTS[name]
    module, path = tiny(name), tmp_path / "model.onnx"
    document = spgsurgeon.export(module, path)
    session = onnxruntime.InferenceSession(path)
    assert [value.name for value in session.get_inputs()] == inputs
    assert [value.name for value in session.get_outputs()] == outputs
    assert session.get_outputs()[0].shape == shape
    assert 0 < document["largest_difference"] < 1e-3
    if "length" in shape or inputs != ["input_values"]:
        assert differs(path, module, {"batch": 5, "length": 9, "num_choices": 2}) < 1e-4


def test_a_wave_of_any_length_is_heard(tmp_path: Any) -> None:
    module = tiny("Wav2Vec2ForSequenceClassification", feat_extract_norm="layer")
    spgsurgeon.export(module, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [(value.name, value.shape) for value in session.get_inputs()] == [
        (name, ["batch", "samples"]) for name in ("input_values", "attention_mask")
    ]
    assert differs(tmp_path / "model.onnx", module, {"batch": 4, "samples": 6_007}) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_class_agrees_in_onnx_runtime(name: str, tmp_path: Any) -> None:
    module = tiny(name)
    size = (3, 32, 32) if HEADS[name].task == IMAGE else None
    report = export_onnx(module, tmp_path / "model.onnx", graph_inputs_of(module, size))
    assert report.largest_difference <= 1e-4 * report.logits_scale
    assert [sizes["batch"] for sizes in report.sizes] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_a_graph_that_does_not_agree_is_refused(name: str, tmp_path: Any) -> None:
    module = tiny(name)
    with pytest.raises(VerificationError, match="does not agree with the model"):
        export_onnx(module, tmp_path / "model.onnx", graph_inputs_of(module, None))


def test_a_program_of_texts_takes_any_number_of_any_length(tmp_path: Any) -> None:
    module = tiny("BertForSequenceClassification")
    report = export_program(module, tmp_path / "model.pt2", graph_inputs_of(module, None))
    assert report.largest_difference <= 1e-4 * report.logits_scale
    inputs = graph_inputs_of(module, None).make({"batch": 4, "length": 7}, torch.Generator().manual_seed(1))
    found = torch.export.load(tmp_path / "model.pt2").module()(*inputs.values())
    torch.testing.assert_close(found, module(**inputs).logits, rtol=0, atol=1e-4 * report.logits_scale)


def test_a_head_that_reads_padding_needs_a_token_for_it(tmp_path: Any) -> None:
    with pytest.raises(ArchitectureError) as caught:
        spgsurgeon.export(tiny("GPT2ForSequenceClassification", pad_token_id=None), tmp_path / "model.onnx")
    assert caught.value.code == "no-padding-token"
    assert [*tmp_path.iterdir()] == []


def test_sizes_and_outputs_that_texts_do_not_have_are_refused(tmp_path: Any) -> None:
    module = tiny("BertForSequenceClassification")
    with pytest.raises(UsageError, match="image size"):
        spgsurgeon.export(module, tmp_path / "model.onnx", input_size=(3, 32, 32))
    with pytest.raises(UsageError, match="auxiliary"):
        spgsurgeon.export(module, tmp_path / "model.onnx", onnx_outputs="all")
    with pytest.raises(UsageError, match="which"):
        graph_inputs_of(tiny("ViTForImageClassification"), None)


class Guarded(SignModel):
    """Does otherwise where rows have as many numbers as those that it is traced with."""

    def forward(self, *, present: Tensor, numbers: Tensor) -> Tensor:
        return super().forward(present=present, numbers=numbers + 1 if numbers.shape[1] == LENGTH else numbers)


def rows_of_numbers() -> GraphInputs:
    axes = {0: "batch", 1: "length"}

    def make(sizes: Sizes, generator: torch.Generator) -> dict[str, Tensor]:
        shape = sizes["batch"], sizes["length"]
        return {"numbers": torch.randn(shape, generator=generator), "present": torch.ones(shape)}

    traced, others = {"batch": 2, "length": LENGTH}, [{"batch": 1, "length": 3}, {"batch": 3, "length": 9}]
    return GraphInputs({"numbers": axes, "present": axes}, make, traced, others)


def test_a_task_says_what_the_graph_of_its_models_takes_and_where_their_classes_are(tmp_path: Any) -> None:
    task = dataclasses.replace(SIGNS, graph_inputs=lambda module, size: rows_of_numbers())
    inputs = task.graph_inputs(SignModel(), None)
    report = export_onnx(SignModel(), tmp_path / "model.onnx", inputs, readout=task.readout)
    assert report.top1_compared == 1 * 3 + 3 * 9, "each number has a prediction of its own"
    found = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_inputs()
    assert [(value.name, value.shape) for value in found] == [(name, ["batch", "length"]) for name in inputs.open]


def test_a_length_that_the_export_would_fix_is_refused(tmp_path: Any) -> None:
    with pytest.raises(SurgeonError, match="could not export"):
        export_onnx(Guarded(), tmp_path / "model.onnx", rows_of_numbers())
    assert [*tmp_path.iterdir()] == []
