"""What learns, and how fast: frozen parts stay bit for bit, layers and heads have rates of their own."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from attaching import attach
from command_line import TINY, spgsurgeon, succeed
from tiny_runs import SETTINGS, CrashError, changed, crash_at, tiny_grafted, tiny_retraining, train, weights_hash
from torch import nn

from spgsurgeon.errors import UsageError
from spgsurgeon.recipe.training_section import OptimizerSection, ScheduleSection
from spgsurgeon.training.optimization import learning_rate, make_optimizer, make_schedule
from spgsurgeon.training.weights.freezing import Frozen


def frozen_parameters(model: nn.Module, *patterns: str) -> set[str]:
    Frozen(model, patterns)
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def all_but(model: nn.Module, *starts: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if not name.startswith(starts)}


@pytest.mark.parametrize(
    ("patterns", "learns"),
    [
        (("layer1",), ("conv1", "bn1", "layer2", "layer3", "layer4", "fc")),
        (("layer[1-3]", "conv1", "bn1"), ("layer4", "fc")),
        (("layer*.0", "conv1"), ("bn1", "layer1.1", "layer2.1", "layer3.1", "layer4.1", "fc")),
        (("conv1", "bn1", "layer*"), ("fc",)),
        (("conv1.weight",), ("bn1", "layer", "fc")),
        ((), ("",)),
    ],
)
def test_a_pattern_freezes_what_it_names_and_all_that_lies_in_it(
    patterns: tuple[str, ...], learns: tuple[str, ...]
) -> None:
    model = timm.create_model("resnet18", num_classes=3)
    assert frozen_parameters(model, *patterns) == all_but(model, *learns)


def test_a_wildcard_does_not_reach_over_a_dot() -> None:
    model = torchvision.models.resnet18(num_classes=3)
    found = frozen_parameters(model, "layer1.*.bn*")
    norms = [f"layer1.{block}.bn{norm}" for block in (0, 1) for norm in (1, 2)]
    assert found == {f"{norm}.{name}" for norm in norms for name in ("weight", "bias")}


@pytest.mark.parametrize(
    ("pattern", "near"), [("layr1", "layer1"), ("layer1.2", "layer1"), ("base.layer1", "layer1"), ("classifier", None)]
)
def test_a_pattern_that_matches_nothing_is_refused_with_what_is_near(pattern: str, near: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        Frozen(timm.create_model("resnet18", num_classes=3), ["layer1", pattern])
    assert caught.value.code == "unmatched-freeze"
    assert caught.value.details["pattern"] == pattern
    assert any(near is None or near in name for name in caught.value.details["near"])


def test_something_of_the_model_must_learn() -> None:
    with pytest.raises(UsageError) as caught:
        tiny_retraining(changed(SETTINGS, freeze=("*",)))
    assert caught.value.code == "all-frozen"


def test_shared_weights_are_frozen_by_any_of_their_names() -> None:
    model = nn.ModuleDict({"words": nn.Embedding(5, 3), "out": nn.Linear(3, 5), "other": nn.Linear(3, 3)})
    model["out"].weight = model["words"].weight
    Frozen(model, ["out.weight"])
    assert not model["words"].weight.requires_grad


@pytest.mark.parametrize("replicas", [0, 2])
def test_frozen_parts_stay_bit_for_bit_running_statistics_included(replicas: int) -> None:
    objective = changed(SETTINGS.objective, weights=(0.4, 0.2)[:replicas])
    grafted = tiny_grafted(replicas=replicas)
    before = {key: value.clone() for key, value in grafted.base.state_dict().items()}
    settings = changed(SETTINGS, objective=objective, freeze=("body",))
    retraining = train(tiny_retraining(settings, grafted=grafted))
    after = grafted.base.state_dict()
    assert {key for key in before if not torch.equal(before[key], after[key])} == {"head.weight", "head.bias"}
    assert retraining.counters.step == 12


@pytest.mark.parametrize("replicas", [0, 2])
def test_running_statistics_stay_where_batch_norms_are_frozen_and_everything_learns(replicas: int) -> None:
    objective = changed(SETTINGS.objective, weights=(0.4, 0.2)[:replicas])
    grafted = tiny_grafted(replicas=replicas)
    before = {key: value.clone() for key, value in grafted.base.state_dict().items()}
    train(tiny_retraining(changed(SETTINGS, objective=objective, batch_norm="freeze"), grafted=grafted))
    after = grafted.base.state_dict()
    statistics = {name for name, _ in grafted.base.named_buffers()}
    assert statistics
    assert {key for key in before if torch.equal(before[key], after[key])} == statistics


def test_without_it_they_move() -> None:
    grafted = tiny_grafted()
    before = {key: value.clone() for key, value in grafted.base.state_dict().items()}
    train(tiny_retraining(SETTINGS, grafted=grafted))
    assert not any(torch.equal(value, before[key]) for key, value in grafted.base.state_dict().items())


def test_nothing_is_kept_for_a_backward_pass_below_what_learns() -> None:
    def kept(*patterns: str) -> int:
        retraining, bytes_kept = tiny_retraining(changed(SETTINGS, freeze=patterns)), 0

        def note(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal bytes_kept
            bytes_kept += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            retraining.try_batch()
        return bytes_kept

    assert kept("body") < kept() / 3


def test_a_run_with_frozen_parts_resumes(tmp_path: Path) -> None:
    settings = changed(SETTINGS, freeze=("body.0",), optimizer=OptimizerSection(name="adamw", lr=0.01, head_lr=0.1))
    whole = train(tiny_retraining(settings, path=tmp_path / "whole"))
    with pytest.raises(CrashError):
        train(tiny_retraining(settings, path=tmp_path / "run", progress=crash_at(8)))
    resumed = train(tiny_retraining(settings, path=tmp_path / "run", grafted=tiny_grafted(seed=9)), resume=True)
    assert weights_hash(resumed) == weights_hash(whole)


# Learning rates


def rates(grafted: Any, settings: OptimizerSection, update: int = 0) -> dict[str, float]:
    optimizer = make_optimizer(grafted, settings)
    make_schedule(optimizer, ScheduleSection(), 10, 10).step_update(update)
    found = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    everything = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(everything) == len(set(everything)) == len(list(grafted.parameters()))
    assert learning_rate(optimizer) == pytest.approx(settings.lr * (1.0 if update == 0 else 0.5))
    return {name: found[p] for name, p in grafted.named_parameters()}


@pytest.mark.parametrize("decay_bias_and_norm", [True, False])
@pytest.mark.parametrize("update", [0, 50])
def test_the_head_learns_at_a_rate_of_its_own(decay_bias_and_norm: bool, update: int) -> None:
    settings = OptimizerSection(lr=0.01, head_lr=0.2, decay_bias_and_norm=decay_bias_and_norm)
    found, factor = rates(tiny_grafted(), settings, update), 0.5 if update else 1.0
    for name, rate in found.items():
        assert rate == pytest.approx(factor * (0.2 if name.startswith("base.head") else 0.01)), name


@pytest.mark.parametrize("decay_bias_and_norm", [True, False])
def test_each_layer_learns_more_slowly_than_the_one_after_it(decay_bias_and_norm: bool) -> None:
    base = timm.create_model("test_vit", num_classes=3)
    settings = OptimizerSection(lr=0.01, layer_decay=0.5, decay_bias_and_norm=decay_bias_and_norm, head_lr=0.3)
    found = rates(attach(base, "head", "dropout", replicas=2), settings)
    blocks = [found[f"base.blocks.{block}.attn.qkv.weight"] for block in range(len(base.blocks))]
    assert blocks == pytest.approx([0.01 * 0.5 ** (len(blocks) - block) for block in range(len(blocks))])
    assert found["base.patch_embed.proj.weight"] == pytest.approx(blocks[0] / 2)
    assert found["base.norm.weight"] == pytest.approx(blocks[-1])
    assert found["base.head.weight"] == pytest.approx(0.3)
    assert {rate for name, rate in found.items() if name.startswith("replicas")} == {0.01}


@pytest.mark.parametrize("decay_bias_and_norm", [True, False])
def test_what_decays_does_not_depend_on_layers_and_heads(decay_bias_and_norm: bool) -> None:
    def decays(**more: Any) -> dict[str, float]:
        grafted = attach(timm.create_model("test_vit", num_classes=3), "head", "dropout", replicas=2)
        settings = OptimizerSection(weight_decay=0.1, decay_bias_and_norm=decay_bias_and_norm, **more)
        groups = make_optimizer(grafted, settings).param_groups
        found = {p: group["weight_decay"] for group in groups for p in group["params"]}
        return {name: found[p] for name, p in grafted.named_parameters()}

    plain = decays()
    assert decays(layer_decay=0.7) == decays(head_lr=0.1) == decays(layer_decay=0.7, head_lr=0.1) == plain
    assert Counter(plain.values())[0.0] == 0 if decay_bias_and_norm else Counter(plain.values())[0.0] > 3


def test_layers_that_nobody_knows() -> None:
    grafted = attach(torchvision.models.resnet18(num_classes=3), "fc", "dropout", replicas=2)
    with pytest.raises(UsageError) as caught:
        make_optimizer(grafted, OptimizerSection(layer_decay=0.7))
    assert caught.value.code == "unknown-layers"


def test_the_keys_through_train(tmp_path: Path) -> None:
    """With replicas of depth, which are not at the head, too; the plan counts what is frozen."""
    rates = ("training.optimizer.head_lr=0.3", "training.optimizer.layer_decay=0.8")
    keys = ("training.freeze=[conv1,'layer[12]']", *rates)
    command = ("train", *TINY, "--recipe", "digits-dropout", "training.epochs=1", "training.device=cpu", *keys)
    plan = succeed(*command, "--dry-run", "--json", "-o", tmp_path / "run").document
    model = timm.create_model("test_resnet", num_classes=10)
    expected = sum(p.numel() for part in (model.layer1, model.layer2) for p in part.parameters())
    assert plan["frozen_parameters"] >= expected
    refused = spgsurgeon(*command, "training.freeze=[covn1]", "--json", "-o", tmp_path / "run")
    assert refused.document["error"]["code"] == "unmatched-freeze"
    assert not (tmp_path / "run").exists()
    depth = ("trp={kind: depth, replicas: 1}", "objective.weights=[0.4]", "data.limit=8", "training.batch_size=16")
    succeed(*command, *depth, "-o", tmp_path / "depth", "--json")
    assert json.loads((tmp_path / "depth" / "metrics.jsonl").read_text().splitlines()[0])["phase"] == "train"
