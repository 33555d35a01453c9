"""`diff`: what it says of pairs of state dicts, files, folders and models whose differences are known."""

from __future__ import annotations

import math
import shutil
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from command_line import DIGITS, TINY, spgsurgeon, succeed
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spgsurgeon.checkpoint import differences as comparison
from spgsurgeon.checkpoint.differences import distance, drift
from spgsurgeon.checkpoint.hashing import content_hash
from spgsurgeon.checkpoint.state_dict.specs import TensorSpec
from spgsurgeon.checkpoint.tensors import load_tensors
from spgsurgeon.commands import diff as diff_workflow
from spgsurgeon.commands.diff import diff
from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.loading.soundness import state_of
from spgsurgeon.replicas.kinds.depth import Depth

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def base() -> State:
    """A small convolutional net's state dict with statistics that are not the initial ones."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    model(torch.randn(8, 3, 4, 4))
    return {key: value.clone() for key, value in model.state_dict().items()}


def both(folder: Path, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, Any]:
    """Save two state dicts and return how they differ."""
    torch.save(dict(a), folder / "a.pth")
    torch.save(dict(b), folder / "b.pth")
    return diff(str(folder / "a.pth"), str(folder / "b.pth"))


def assert_no_difference(document: dict[str, Any]) -> None:
    for name in ("added", "removed", "changed", "dtype_changed", "shape_changed", "layers", "batch_norm_drift"):
        assert document[name] == [], name
    assert (document["relative_change"], document["undefined"]) == (0.0, None)


# The same weights


def test_the_same_weights_in_other_formats_are_identical(base: State, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("zip.pth", "legacy.pth", "wrapped.ckpt", "plain.safetensors")]
    torch.save(base, files[0])
    torch.save(base, files[1], _use_new_zipfile_serialization=False)
    torch.save({"state_dict": {f"module.{key}": value for key, value in base.items()}, "epoch": 3}, files[2])
    save_file(base, files[3])
    for other in files[1:]:
        document = diff(str(files[0]), str(other))
        assert document["identical"] is True
        assert document["unchanged"] == len(base)
        assert document["a"]["content_hash"] == document["b"]["content_hash"]
        assert_no_difference(document)


def test_values_of_identical_weights_are_not_read_again(
    base: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diff_workflow, "load_tensors", None)
    assert both(tmp_path, base, base)["identical"] is True


def test_another_order_is_said_and_is_no_difference(base: State, tmp_path: Path) -> None:
    document = both(tmp_path, base, dict(reversed(base.items())))
    assert (document["identical"], document["order_changed"]) == (True, True)
    assert both(tmp_path, base, base)["order_changed"] is False


def test_bits_count_within_a_dtype(base: State, tmp_path: Path) -> None:
    """-0.0 is not 0.0, and one NaN is not another, though neither is a change of value."""
    zeros, nans = torch.zeros(4), torch.full((4,), math.nan)
    payload = nans.view(torch.int32).add(1).view(torch.float32)
    document = both(
        tmp_path, {"zero": zeros, "nan": nans, "same": nans}, {"zero": -zeros, "nan": payload, "same": nans}
    )
    assert document["identical"] is False
    assert document["changed"] == [
        {"key": "zero", "relative_change": 0.0, "undefined": None},
        {"key": "nan", "relative_change": 0.0, "undefined": None},
    ]
    assert document["unchanged"] == 1
    assert document["layers"] == []


# Changed values


def test_relative_changes_are_norms_of_differences(tmp_path: Path) -> None:
    a = {
        "fc.weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]]),
        "fc.bias": torch.tensor([12.0, 0.0]),
        "other": torch.ones(2),
    }
    b = {
        "fc.weight": torch.tensor([[3.0, 0.0], [0.0, 9.0]]),
        "fc.bias": torch.tensor([12.0, 12.0]),
        "other": torch.ones(2),
    }
    document = both(tmp_path, a, b)
    assert document["changed"] == [
        {"key": "fc.weight", "relative_change": 1.0, "undefined": None},
        {"key": "fc.bias", "relative_change": 1.0, "undefined": None},
    ]
    # 13 is the norm of the module's weights (5) and bias (12) together, and of their change.
    assert document["layers"] == [{"module": "fc", "relative_change": 1.0, "undefined": None}]
    assert document["relative_change"] == pytest.approx(math.sqrt(169 / 171))
    assert document["unchanged"] == 1


def test_layers_come_with_the_largest_change_first_and_no_statistics_count(base: State, tmp_path: Path) -> None:
    retrained = {key: value.clone() for key, value in base.items()}
    retrained["0.weight"] *= 1.25
    retrained["3.weight"] *= 1.5
    retrained["1.num_batches_tracked"] += 100
    retrained["1.running_var"] *= 3
    document = both(tmp_path, base, retrained)
    assert [layer["module"] for layer in document["layers"]] == ["3", "0"]
    assert {entry["key"]: entry["relative_change"] for entry in document["changed"]} == {
        "0.weight": pytest.approx(0.25),
        "3.weight": pytest.approx(0.5),
        "1.num_batches_tracked": 100.0,
        "1.running_var": pytest.approx(2.0),
    }
    assert document["relative_change"] < 0.5


@pytest.mark.parametrize(
    ("a", "b", "change", "undefined"),
    [
        ([0.0, 0.0], [0.0, 1.0], None, "zero"),
        ([0.0, 0.0], [-0.0, 0.0], 0.0, None),
        ([1.0, 2.0], [1.0, math.nan], None, "non_finite"),
        ([1.0, math.inf], [1.0, -math.inf], None, "non_finite"),
        ([1.0, math.inf], [2.0, math.inf], None, "non_finite"),
        ([3.0, 4.0], [0.0, 0.0], 1.0, None),
    ],
    ids=["from zero", "zero's sign", "to NaN", "infinity's sign", "beside infinity", "to zero"],
)
def test_a_change_without_a_measure_says_why(
    tmp_path: Path, a: list[float], b: list[float], change: float | None, undefined: str | None
) -> None:
    document = both(tmp_path, {"x.w": torch.tensor(a)}, {"x.w": torch.tensor(b)})
    assert document["changed"] == [{"key": "x.w", "relative_change": change, "undefined": undefined}]
    assert document["undefined"] == undefined


def test_undefined_changes_are_listed_before_the_largest(tmp_path: Path) -> None:
    a = {"small.w": torch.ones(2), "zero.w": torch.zeros(2), "large.w": torch.ones(2)}
    b = {"small.w": torch.ones(2) * 1.1, "zero.w": torch.ones(2), "large.w": torch.ones(2) * 9}
    assert [layer["module"] for layer in both(tmp_path, a, b)["layers"]] == ["zero", "large", "small"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.int64])
def test_every_kind_of_number_has_a_distance(dtype: torch.dtype) -> None:
    a, b = torch.tensor([3, 4]).to(dtype), torch.tensor([3, 9]).to(dtype)
    assert distance(a, b).relative_change == 1.0
    assert distance(a, a.clone()).same_bits


def test_booleans_bytes_and_imaginary_parts_have_a_distance() -> None:
    assert distance(torch.tensor([3 + 4j]), torch.tensor([3 + 9j])).relative_change == 1.0
    a, b = torch.tensor([True, False, True, True]), torch.tensor([True, True, False, True])
    assert distance(a, b).relative_change == pytest.approx(math.sqrt(2 / 3))
    eight_bits = torch.ones(4).to(torch.float8_e4m3fn)
    assert distance(eight_bits, torch.full((4,), 1.5).to(torch.float8_e4m3fn)).relative_change == 0.5


def test_blocks_and_memory_layouts_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    whole = distance(a, b)
    assert whole.relative_change == pytest.approx(((b - a).norm() / a.norm()).item())
    monkeypatch.setattr(comparison, "_BLOCK", 7)
    assert distance(a, b).relative_change == pytest.approx(whole.relative_change)
    assert distance(a.to(memory_format=torch.channels_last), a).same_bits


# Changed layouts


def test_added_removed_and_reshaped_keys_are_named(base: State, tmp_path: Path) -> None:
    other = {key: value for key, value in base.items() if key != "0.bias"}
    other["3.weight"], other["3.bias"] = torch.randn(9, 16), torch.randn(9)
    other["aux.weight"] = torch.ones(1)
    document = both(tmp_path, base, other)
    assert (document["identical"], document["added"], document["removed"]) == (False, ["aux.weight"], ["0.bias"])
    assert document["shape_changed"] == [
        {"key": "3.weight", "from": [5, 16], "to": [9, 16]},
        {"key": "3.bias", "from": [5], "to": [9]},
    ]
    assert (document["changed"], document["unchanged"]) == ([], len(base) - 3)


def test_a_cast_without_loss_is_no_change_of_value(tmp_path: Path) -> None:
    a = {"x.w": torch.tensor([1.0, -2.5, math.inf, math.nan]), "n": torch.tensor(7)}
    document = both(tmp_path, a, {"x.w": a["x.w"].bfloat16(), "n": torch.tensor(7, dtype=torch.int32)})
    assert document["identical"] is False
    assert document["dtype_changed"] == [
        {"key": "x.w", "from": "F32", "to": "BF16"},
        {"key": "n", "from": "I64", "to": "I32"},
    ]
    assert (document["changed"], document["layers"], document["unchanged"]) == ([], [], 0)


def test_a_cast_with_loss_is_both(tmp_path: Path) -> None:
    a = torch.tensor([1.001, 2.002])
    (change,) = both(tmp_path, {"w": a}, {"w": a.half()})["changed"]
    assert 0 < change["relative_change"] < 1e-3


# Batch norms


def test_drift_is_counted_in_old_standard_deviations(tmp_path: Path) -> None:
    a = {"bn.running_mean": torch.tensor([0.0, 1.0]), "bn.running_var": torch.tensor([4.0, 0.25])}
    b = {"bn.running_mean": torch.tensor([1.0, 0.0]), "bn.running_var": torch.tensor([4.0, 1.0])}
    # |1 - 0| / 2 and |0 - 1| / 0.5: on average 1.25. The geometric mean of 1 and 4 is 2.
    (found,) = both(tmp_path, a, b)["batch_norm_drift"]
    assert found == {"module": "bn", "mean_shift": 1.25, "variance_ratio": pytest.approx(2.0), "left_out": 0}


def test_channels_without_a_scale_are_left_out_and_counted() -> None:
    mean, variance = torch.tensor([0.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, math.nan])
    found = drift(mean, variance, torch.tensor([2.0, 5.0, 5.0]), torch.tensor([0.5, 1.0, 1.0]))
    assert (found.mean_shift, found.variance_ratio, found.left_out) == (2.0, pytest.approx(0.5), 2)
    assert drift(mean, 0 * mean, mean, variance).mean_shift is None


def test_only_batch_norms_that_moved_are_listed(base: State, tmp_path: Path) -> None:
    other = {key: value.clone() for key, value in base.items()}
    other["0.weight"] += 1
    assert both(tmp_path, base, other)["batch_norm_drift"] == []
    other["1.running_var"] *= 2
    (found,) = both(tmp_path, base, other)["batch_norm_drift"]
    assert found["module"] == "1"
    assert (found["mean_shift"], found["variance_ratio"]) == (0.0, pytest.approx(2.0))


# Memory


def test_one_tensor_of_each_side_is_in_memory_at_a_time(
    base: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def counting(entries: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        nonlocal most
        assert len(entries) == 1
        loaded = load_tensors(entries)
        alive.extend(weakref.ref(tensor) for tensor in loaded.values())
        most = max(most, sum(reference() is not None for reference in alive))
        return loaded

    monkeypatch.setattr(diff_workflow, "load_tensors", counting)
    without_batch_norm = {key: value for key, value in base.items() if "running" not in key}
    document = both(tmp_path, without_batch_norm, {key: value + 1 for key, value in without_batch_norm.items()})
    assert len(document["changed"]) == len(without_batch_norm)
    assert len(alive) == 2 * len(without_batch_norm)
    assert most <= 3  # the pair, and the one before it while its name is still in use


# Models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of timm in a file, and another with a new head of 3 classes."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), folder / "model.pth")
    state = torch.load(folder / "model.pth")
    state |= timm.create_model("test_resnet", num_classes=3).get_classifier().state_dict(prefix="fc.")
    torch.save(state, folder / "other_head.pth")
    return folder


def test_the_head_of_a_known_model_is_compared(models: Path, tmp_path: Path) -> None:
    document = diff(str(models / "model.pth"), str(models / "other_head.pth"))
    assert document["head"] == {"module": "fc", "identical": False}
    assert document["changed"] == []
    state = torch.load(models / "model.pth")
    state["bn1.weight"] = state["bn1.weight"] + 1
    torch.save(state, tmp_path / "same_head.pth")
    document = diff(str(models / "model.pth"), str(tmp_path / "same_head.pth"))
    assert document["head"] == {"module": "fc", "identical": True}


def test_what_replicas_of_depth_attach_to_is_not_taken_for_the_head(models: Path, tmp_path: Path) -> None:
    graft_folder(str(models / "model.pth"), tmp_path / "grafted", replicas=Depth())
    head = diff(str(tmp_path / "grafted"), str(models / "model.pth"))["head"]
    assert head == {"module": "fc", "identical": True}


def test_a_head_that_reads_two_maps_is_named_once(tmp_path: Path) -> None:
    model = torchvision.models.get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None)
    torch.save(model.state_dict(), tmp_path / "before.pth")
    with torch.no_grad():
        model.classifier.low_classifier.bias += 1
    torch.save(model.state_dict(), tmp_path / "after.pth")
    head = diff(str(tmp_path / "before.pth"), str(tmp_path / "after.pth"))["head"]
    assert head == {"module": "classifier", "identical": False}


def test_state_dicts_of_no_known_model_have_no_head(base: State, tmp_path: Path) -> None:
    assert both(tmp_path, base, {**base, "3.bias": base["3.bias"] + 1})["head"] is None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on the digits, beside the weights it began with."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    model = open_model(ModelRequest(TINY[0], num_classes=10, random_seed=0)).module
    save_file(state_of(model), folder.parent / "base.safetensors")
    succeed("train", *TINY, *DIGITS, "data.workers=0", "-o", folder)
    return folder


def test_a_run_against_its_base(run: Path) -> None:
    base = run.parent / "base.safetensors"
    document = diff(str(base), str(run))
    assert (document["a"]["format"], document["b"]["format"]) == ("safetensors", "run")
    assert document["head"] == {"module": "fc", "identical": False}
    assert (document["added"], document["removed"], document["shape_changed"]) == ([], [], [])
    assert {layer["module"] for layer in document["layers"]} >= {"bn1", "fc"}
    assert 0 < document["relative_change"] < 1
    assert diff(str(run), str(run / "best" / "model.safetensors"))["identical"] is True


def test_edited_weights_of_a_run_are_compared_and_said(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "best", tmp_path / "edited")
    file = tmp_path / "edited" / "model.safetensors"
    state = {key: value.clone() for key, value in load_file(file).items()}
    state["fc.bias"][0] += 1
    save_file(state, file)
    document = diff(str(run), str(tmp_path / "edited"))
    assert [entry["key"] for entry in document["changed"]] == ["fc.bias"]
    assert document["notes"] == [
        f"the weights in {tmp_path / 'edited'} are not those that its graft.json was written for"
    ]


def test_a_model_by_name_is_compared_from_memory(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pretrained weights would be downloaded, so a random one of the same architecture stands for it."""
    monkeypatch.setattr(diff_workflow, "open_model", lambda request: open_model(replace(request, random_seed=0)))
    document = diff(TINY[0], str(models / "model.pth"))
    assert (document["a"]["format"], document["a"]["source"]) == ("name", TINY[0])
    assert document["added"] == document["removed"] == []
    assert diff(TINY[0], TINY[0])["identical"] is True


# The command line


def test_weights_are_chosen_on_both_sides(base: State, tmp_path: Path) -> None:
    average = {key: value * 2 for key, value in base.items()}
    torch.save({"arch": "x", "state_dict": base, "state_dict_ema": average}, tmp_path / "a.pth.tar")
    torch.save(average, tmp_path / "b.pth")
    both_sides = ("diff", tmp_path / "a.pth.tar", tmp_path / "b.pth", "--json")
    assert succeed(*both_sides).document["identical"] is True
    document = succeed("diff", tmp_path / "a.pth.tar", tmp_path / "a.pth.tar", "--weights", "raw", "--json").document
    assert document["identical"] is True
    assert document["a"]["content_hash"] == content_hash(base)
    assert spgsurgeon(*both_sides, "--weights", "ema").code == 2  # b has none
    assert spgsurgeon(*both_sides, "--weights", "both").code == 2


def test_people_read_a_verdict_first_and_lists_are_cut(tmp_path: Path) -> None:
    a = {f"layer{index}.weight": torch.ones(2) for index in range(5)}
    torch.save(a, tmp_path / "a.pth")
    torch.save({key: value * 2 for key, value in a.items()} | {"gone": torch.ones(1)}, tmp_path / "b.pth")
    same = succeed("diff", tmp_path / "a.pth", tmp_path / "a.pth").out.splitlines()
    assert same[0] == "identical: 5 tensors, to the bit"
    lines = succeed("diff", tmp_path / "a.pth", tmp_path / "b.pth", "--top", 2).out.splitlines()
    assert lines[0] == "1 key added, 5 of 5 tensors changed, by 100 % in all"
    assert sum(line.startswith("layer") and line.endswith("100 %") for line in lines) == 2
    assert lines[-1] == "... and 3 more"
    assert "... and" not in succeed("diff", tmp_path / "a.pth", tmp_path / "b.pth").out


def test_undefined_changes_and_drifts_are_read_in_words(tmp_path: Path) -> None:
    a = {"w": torch.zeros(2), "bn.running_mean": torch.zeros(2), "bn.running_var": torch.zeros(2)}
    torch.save(a, tmp_path / "a.pth")
    torch.save({key: value + 1 for key, value in a.items()}, tmp_path / "b.pth")
    shown = succeed("diff", tmp_path / "a.pth", tmp_path / "b.pth").out
    assert "same layout, 3 of 3 tensors changed\n" in shown
    assert "(the model's own)  was all zero" in shown
    assert "no usable channel" in shown


def test_input_that_can_not_be_read_fails_as_elsewhere(base: State, tmp_path: Path) -> None:
    torch.save(base, tmp_path / "a.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:500])
    torch.save({"w": nn.Linear(1, 1)}, tmp_path / "unsafe.pth")
    for other, code in (("missing.pth", 2), ("cut.pth", 1), ("unsafe.pth", 4)):
        for order in (1, -1):
            outcome = spgsurgeon("diff", *(tmp_path / "a.pth", tmp_path / other)[::order], "--json")
            assert (outcome.code, outcome.document["exit_code"]) == (code, code)
            assert other in outcome.document["error"]["message"]
