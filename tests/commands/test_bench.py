"""`spgsurgeon bench`: what its arms do, what is counted of them, the document, and refusals."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from command_line import make_image_folder, spgsurgeon, succeed
from tiny_texts import reader
from torch import nn

import spgsurgeon as package
from spgsurgeon.benchmarking.arms import CHANGES, TRAINER, Arm
from spgsurgeon.benchmarking.blocks import (
    Seconds,
    processor_ratio,
    rate,
    steps_that_last,
    throughput_ratio,
    time_blocks,
)
from spgsurgeon.benchmarking.profile import profile_step
from spgsurgeon.benchmarking.subject import Subject, settle_subject, unused_without_data
from spgsurgeon.commands import bench as workflow
from spgsurgeon.data.loading.samples import Samples
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.runtime.distributed import Processes
from spgsurgeon.runtime.reproducibility import deterministic_algorithms
from spgsurgeon.training.assembling import make_retraining

CPU = Processes(0, 1, torch.device("cpu"))
SMALL = ("training.batch_size=4", "data.image_size=32", "training.device=cpu")
TINY = ("timm/test_resnet", "--batch-size", 4, "--image-size", 32, "--num-classes", 3, "--device", "cpu", "--steps", 1)
ARMS = tuple(name for name in CHANGES if name != TRAINER)  # that one is for models of transformers
REPLICA_PARAMETERS = 3 * (96 * 96 + 96)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two blocks be enough."""
    monkeypatch.setattr(workflow, "FEWEST_BLOCKS", 2)


def subject_of(*overrides: str, model: str = "timm/test_resnet") -> Subject:
    return settle_subject(ModelRequest(model, num_classes=3), None, [*SMALL, *overrides], None)


def arms_of(*names: str, overrides: Sequence[str] = ()) -> dict[str, Arm]:
    subject = subject_of(*overrides)
    recipes = {name: subject.recipe_of(name) for name in names}
    retraining = make_retraining(subject.case(subject.recipe_of("grafted")), CPU)
    parts = workflow._resident_parts(retraining)
    return {name: workflow._arm(name, recipe, subject, retraining, parts) for name, recipe in recipes.items()}


def weights_of(arm: Arm) -> list[torch.Tensor]:
    """Return the weights of the base."""
    return list((arm.model.base if arm.replicas is not None else arm.model).parameters())


# The document


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    shown = succeed("bench", *TINY, "--arms", "rollouts, timm,deterministic,sequential", "--json")
    assert shown.err == ""
    return shown.document


def test_the_document_has_the_keys_of_the_contract(document: dict[str, Any]) -> None:
    for arm in ARMS:
        assert document[arm].keys() >= {"images_per_second", "peak_memory_bytes", "first_step_seconds"}
        assert document[arm]["images_per_second"] > 0
    assert document["ratio"].keys() == {"median", "low", "high"}
    assert document["ratio"]["low"] <= document["ratio"]["median"] <= document["ratio"]["high"]
    assert (document["blocks"], document["steps"]) == (20, 1)
    assert document["settings"] == {
        "data": "noise",
        "batch_size": 4,
        "image_size": [32, 32],
        "accumulate": 1,
        "optimizer": "sgd",
        "precision": "float32",
        "compile": False,
    }
    assert document["machine"]["threads"] == torch.get_num_threads()
    assert document["notes"] == ["random weights (seed 0)"]


def test_ratios_answer_what_is_asked(document: dict[str, Any]) -> None:
    assert [(ratio["of"], ratio["to"]) for ratio in document["ratios"]] == [
        *((arm, "plain") for arm in ("grafted", "sequential", "rollouts", "deterministic")),
        *(("grafted", "rollouts"), ("deterministic", "grafted"), ("plain", "timm")),
    ]
    assert document["ratio"].items() <= document["ratios"][0].items()
    assert all(ratio["processor_time"]["median"] > 0 for ratio in document["ratios"])


def test_what_a_step_takes_is_counted(document: dict[str, Any]) -> None:
    plain, grafted, rollouts = (document[arm] for arm in ("plain", "grafted", "rollouts"))
    assert document["temporary_parameters"] == REPLICA_PARAMETERS
    assert grafted["replica_bytes"] == 4 * 3 * REPLICA_PARAMETERS, "weights, gradients and momentum in float32"
    assert plain["replica_bytes"] == 0
    assert plain["peak_memory_bytes"] > plain["kept_for_backward_bytes"]
    assert grafted["peak_memory_bytes"] > plain["peak_memory_bytes"] + grafted["replica_bytes"] / 3
    assert rollouts["kept_for_backward_bytes"] > 3 * grafted["kept_for_backward_bytes"]
    assert plain["operators_per_step"] < grafted["operators_per_step"] < rollouts["operators_per_step"]
    assert document["timm"]["kept_for_backward_bytes"] == pytest.approx(plain["kept_for_backward_bytes"], rel=0.01)
    assert plain["kernels_per_step"] is None, "there are none on a CPU"


@pytest.mark.usefixtures("short")
def test_people_get_a_table() -> None:
    shown = succeed("bench", *TINY, "--blocks", 2, "--arms", "timm")
    for word in (
        "samples/s",
        "operators",
        "grafted / plain",
        "plain / timm",
        "32 x 32 pixels (noise)",
        "3 dropout replicas",
    ):
        assert word in shown.out
    assert "random weights" in shown.err


@pytest.mark.usefixtures("short")
def test_a_grafted_folder_in_python_is_measured_with_its_own_replicas(tmp_path: Path) -> None:
    folder = tmp_path / "grafted"
    succeed("graft", "timm/test_resnet", "--random-weights", "--num-classes", 5, "--trp", "depth", "-o", folder)
    found = package.bench(str(folder), overrides=[*SMALL, "objective.form=episode"], blocks=2, steps=1)
    assert found["trp"]["kind"] == "depth"
    assert found["notes"] == []
    assert found["grafted"]["operators_per_step"] > 1.3 * found["plain"]["operators_per_step"]


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_segmentation() -> None:
    command = ("bench", "torchvision/lraspp_mobilenet_v3_large", *TINY[1:], "--blocks", 2, "--arms", "sequential")
    found = succeed(*command, "--batch-size", 2, "--json").document
    stacked, sequential = (found[arm]["kept_for_backward_bytes"] for arm in ("grafted", "sequential"))
    assert found["plain"]["kept_for_backward_bytes"] < sequential < stacked


# With a loader


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "BertForMaskedLM"])
@pytest.mark.usefixtures("short")
def test_language_models_read_noise_that_they_partly_predict(tmp_path: Path, name: str) -> None:
    model = reader(tmp_path / "model", name)
    overrides = ("training.batch_size=4", "data.max_length=12", "training.device=cpu")
    document = workflow.bench(str(model), overrides=overrides, blocks=2, steps=1)
    assert document["settings"]["length"] == 12
    shares = document["settings"]["valid_share"]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1
    assert shares[1] > 0.2  # by chance it would be one of forty
    assert document["grafted"]["peak_memory_bytes"] > document["plain"]["peak_memory_bytes"] > 0
    assert document["notes"] == []


@pytest.mark.usefixtures("short")
def test_the_loader_is_read_for_its_own_blocks_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_image_folder(tmp_path, splits=("train",), each=5)  # 10 images: two batches an epoch
    read: list[tuple[int, int]] = []
    load = Samples.__getitem__
    monkeypatch.setattr(Samples, "__getitem__", lambda self, key: read.append(key) or load(self, key))
    found = succeed(
        *("bench", "timm/test_resnet", *TINY[1:5], "--device", "cpu", "--steps", 3, "--blocks", 2),
        *("--data", tmp_path, "data.workers=0", "training.accumulate=2", "--json"),
    ).document
    loader = found["end_to_end"]
    assert loader.keys() >= {"images_per_second", "synthetic_images_per_second", "ratio", "waiting_share"}
    assert (loader["workers"], loader["steps"]) == (0, 3)
    assert 0 < loader["waiting_share"] < 1
    # one step to lie on the device; then a trial and two blocks, each of one step untimed and three timed
    assert len(read) == 2 * 4 + 3 * (1 + 3) * 2 * 4
    assert {key[0] for key in read} == {*range(1 + 3 * 4)}, "every step's two batches are an epoch of their own"


def test_without_data_the_recipes_pictures_are_not_opened(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("data: {source: wds, path: /nowhere, image_size: 48, augment: {mixup: 0.2, policy: augmix}}")
    request = ModelRequest("timm/test_resnet")
    settled = settle_subject(request, recipe, [], None)
    assert settled.data.train.name == "noise"
    assert (settled.recipe.data.image_size, settled.recipe.data.augment.mixup) == (48, 0.2)
    with pytest.raises(package.SurgeonError, match="nowhere"):
        settle_subject(request, recipe, [], "recipe")


# Arms


def test_all_arms_start_with_the_same_weights_and_keep_them() -> None:
    arms = arms_of(*ARMS)
    before = [weight.clone() for weight in weights_of(arms["plain"])]
    for arm in arms.values():
        torch.testing.assert_close(weights_of(arm), before, rtol=0, atol=0)
        arm.run(2)
        torch.testing.assert_close(weights_of(arm), before, rtol=0, atol=1e-4)


def test_overrides_that_do_not_count_for_noise_are_said() -> None:
    (note,) = unused_without_data(["data.cache=memory", "data.image_size=32", "training.epochs=1"])
    assert "data.cache does not count" in note
    assert unused_without_data(["data.image_size=32"]) == []


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("training.optimizer={name: adamw, lr: 0.01, decay_bias_and_norm: false}",),
        ("training.gradient_clip=0.01", "training.accumulate=2"),
        ("objective.label_smoothing=0.3", "training.optimizer.nesterov=true", "training.ema=0.9"),
        ("training.precision=bfloat16",),
    ],
    ids=lambda overrides: " ".join(overrides) or "defaults",
)
def test_the_plain_step_moves_the_weights_as_timms_does(
    overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spgsurgeon.benchmarking.subject._KEPT_WEIGHTS", "training.optimizer.lr=0.01")
    arms = arms_of("plain", "timm", overrides=("training.schedule.name=constant", *overrides))
    start = [weight.clone() for weight in weights_of(arms["plain"])]
    for arm in arms.values():
        arm.run(2)
    own, timms = (weights_of(arms[name]) for name in ("plain", "timm"))
    moved = sum((a - b).abs().sum() for a, b in zip(own, start, strict=True))
    assert moved > 0
    assert sum((a - b).abs().sum() for a, b in zip(own, timms, strict=True)) < 1e-3 * moved


def test_torch_is_deterministic_in_the_steps_of_that_arm_only() -> None:
    arms = arms_of("grafted", "deterministic")
    seen = []
    for arm in arms.values():
        arm.model.register_forward_hook(lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
        arm.run(1)
    arms["grafted"].run(1)
    assert seen == [False, True, False]


def test_cudnn_tries_its_algorithms_for_all_arms_but_the_deterministic_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timm's included: what is fastest is kept by size, for whichever arm comes first."""
    seen: dict[str, bool] = {}

    class EnoughError(Exception):
        pass

    def look(arm: Arm) -> dict[str, Any]:
        with deterministic_algorithms(arm.deterministic):
            seen[arm.name] = torch.backends.cudnn.benchmark
        if len(seen) == 4:
            raise EnoughError
        return {}

    monkeypatch.setattr(workflow, "_start", look)
    overrides = [*SMALL, "training.cudnn_benchmark=true"]
    with pytest.raises(EnoughError):
        workflow.bench("timm/test_resnet", overrides=overrides, arms=["timm", "deterministic"], num_classes=3)
    assert seen == {"plain": True, "grafted": True, "deterministic": False, "timm": True}
    assert not torch.backends.cudnn.benchmark


def test_cublas_is_told_of_that_arm_before_another_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch looks at the workspace at its first product on a GPU, and not again."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    seen: list[str | None] = []

    def reach(*_: object) -> None:
        seen.append(os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
        raise KeyError

    monkeypatch.setattr(workflow, "make_retraining", reach)
    for arms in (["plain"], ["plain", "deterministic"]):
        with pytest.raises(KeyError):
            workflow.bench("timm/test_resnet", overrides=SMALL, arms=arms, num_classes=3)
    assert seen == [None, ":4096:8"]


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with workflow._threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


# Blocks


def blocks_of(**seconds: Sequence[float]) -> list[dict[str, Seconds]]:
    rows = zip(*seconds.values(), strict=True)
    return [{name: Seconds(s, 2 * s**2) for name, s in zip(seconds, row, strict=True)} for row in rows]


def test_each_block_has_each_arm_once_in_an_order_of_its_own() -> None:
    def orders(seed: int) -> list[str]:
        called: list[str] = []
        arms = {name: lambda name=name: called.append(name) or Seconds(1.0, 1.0) for name in "abc"}
        timed = time_blocks(arms, 20, seed)
        assert len(timed) == 20
        return ["".join(called[first : first + 3]) for first in range(0, 60, 3)]

    drawn = orders(0)
    assert {"".join(sorted(order)) for order in drawn} == {"abc"}
    assert len(set(drawn)) > 3
    assert drawn == orders(0)
    assert drawn != orders(1)


def test_a_ratio_is_of_throughputs_and_paired_by_block() -> None:
    timed = blocks_of(plain=[1.0, 2.0, 4.0], grafted=[2.0, 4.0, 8.0])
    half = {"median": 0.5, "low": 0.5, "high": 0.5}
    assert throughput_ratio(timed, "grafted", "plain") == half
    assert processor_ratio(timed, "grafted", "plain") == dict.fromkeys(half, 0.25)
    assert rate(timed, "plain", images=64) == 32


def test_the_interval_brackets_the_median() -> None:
    timed = blocks_of(plain=[1.0] * 21, grafted=[0.9 + 0.01 * number for number in range(21)])
    found = throughput_ratio(timed, "plain", "grafted")
    assert found["median"] == pytest.approx(1.0)
    assert 0.93 < found["low"] < 0.98
    assert 1.02 < found["high"] < 1.07
    assert throughput_ratio(timed, "plain", "grafted") == found


def test_blocks_are_long_enough_and_not_too_long() -> None:
    assert [steps_that_last(seconds) for seconds in (3.0, 0.1, 1e-6)] == [1, 3, 100]


def test_the_clocks_are_the_wall_and_the_processor() -> None:
    started = Seconds.now()
    time.sleep(0.05)
    took = Seconds.now().since(started)
    assert took.wall >= 0.05
    assert 0 <= took.processor < took.wall


# Profile


def test_a_profile_counts_operators_allocations_and_the_height_of_memory() -> None:
    def step() -> None:
        first = torch.empty(1000)
        second = torch.empty(2000)
        del first
        torch.empty(500)
        del second

    profile = profile_step(step, CPU.device)
    assert (profile.operators, profile.kernels, profile.allocations) == (3, None, 3)
    assert profile.peak_bytes == 12_000


def test_memory_that_several_share_is_counted_once() -> None:
    model = nn.Linear(10, 10, bias=False)
    model.other = model.weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 10)).sum().backward()
    optimizer.step()
    arm = Arm(
        "plain", model, optimizer, lambda: None, lambda: None, CPU.device, replicas=model, average=nn.Linear(1, 1)
    )
    assert arm.held_bytes() == 400 + 400 + 8, "weights, momentum, average"
    assert arm.replica_bytes() == 3 * 400


# What is refused, and how it ends


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("timm/test_resnt",), 5, ("test_resnt", "test_resnet")),
        (("timm/test_resnet", "--arms", "plain,rolouts"), 2, ("no arm 'rolouts'", "'rollouts'")),
        (("timm/test_resnet", "--arms", ""), 2, ("no arm ''", "there are plain, grafted")),
        (("timm/test_resnet", "--blocks", 19), 2, ("19 blocks", "--blocks 20")),
        (("timm/test_resnet", "--precision", "half"), 2, ("'half'", "bfloat16")),
        (("timm/test_resnet", "--device", "tpu"), 2, ("'tpu'", "cuda:N")),
        (("timm/test_resnet", "trp.kind=none"), 2, ("no replicas", "trp.kind=dropout")),
        (("timm/test_resnet", "trp.kind=depth", "--arms", "rollouts"), 2, ("arm rollouts:", "depth replicas")),
        (("timm/test_resnet", "data.augment.mixup=0.2", "--arms", "timm"), 2, ("arm timm", "augment.mixup=0")),
        (("torchvision/lraspp_mobilenet_v3_large", "--arms", "timm"), 2, ("arm timm is for labelled images",)),
        (("timm/test_resnet", "--data", "/not/there"), 2, ("no folder /not/there", "--data is")),
        (("timm/test_resnet", "--data", "recipe"), 2, ("data: missing",)),
        (("timm/test_resnet", "--data", "digit"), 2, ("'digit' is not a data source",)),
        (("timm/test_resnet", "trp.replicsa=3"), 2, ("trp.replicsa", "replicas")),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_refusals(arguments: tuple[object, ...], code: int, words: tuple[str, ...]) -> None:
    outcome = spgsurgeon("bench", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in " ".join(outcome.err.split())


@pytest.mark.usefixtures("short")
def test_one_process_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "without torchrun" in spgsurgeon("bench", *TINY).err


def test_an_arm_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB ...")

    monkeypatch.setattr("spgsurgeon.training.loop.Retraining.take_step", full)
    outcome = spgsurgeon("bench", *TINY, "--json")
    assert outcome.code == 1
    error = json.loads(outcome.out)["error"]
    assert error["message"].startswith("out of memory in arm plain")
    assert "--batch-size" in error["hint"]


def test_an_interrupt_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spgsurgeon.training.loop.Retraining.take_step", interrupted)
    outcome = spgsurgeon("bench", *TINY)
    assert (outcome.code, outcome.out) == (130, "")


@pytest.mark.usefixtures("short")
def test_weights_of_a_file(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), tmp_path / "model.pth")
    found = package.bench(str(tmp_path / "model.pth"), arch="timm/test_resnet", overrides=SMALL, blocks=2, steps=1)
    assert found["grafted"]["images_per_second"] > 0
    assert "random weights (seed 0)" not in found["notes"]


def test_an_override_that_says_what_an_option_says() -> None:
    refused = spgsurgeon("bench", *TINY, "training.batch_size=2")
    assert refused.code == 2
    assert "training.batch_size=2 says again what an option says" in refused.err
