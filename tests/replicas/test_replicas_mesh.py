"""Meshes: the laws along both axes and in every cell, what a cell is made of, what is refused, and why not otherwise.

Shapes: N images, cells (i, j) of both axes, the first the slower.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
import yaml
from command_line import DIGITS, TINY, spgsurgeon, succeed
from folder_runs import check_resuming, hash_of, write_recipe
from tiny_texts import corpus_folder, opinions_folder, reader
from tiny_transformers import tiny
from torch import Tensor, nn
from torch.nn.functional import dropout

from spgsurgeon.commands.modules import graft, strip
from spgsurgeon.errors import ArchitectureError, RecipeError, UsageError
from spgsurgeon.objective.loss import spg_loss
from spgsurgeon.recipe.reading import read_recipe, replicas_of
from spgsurgeon.replicas.grafted import GraftedModel
from spgsurgeon.replicas.kinds import replicas_from
from spgsurgeon.replicas.places import Place
from spgsurgeon.surgery.proof import fingerprint, prove_graft, prove_strip

N = 3
IMAGES = torch.rand(N, 3, 64, 64, generator=torch.Generator().manual_seed(0))
DROPOUT, DEPTH = {"kind": "dropout", "replicas": 2, "rate": 0.3}, {"kind": "depth", "replicas": 2}
BARE = {"kind": "dropout", "replicas": 2, "rate": 0.3, "projection": False}
NOISE = {"kind": "feature-noise", "replicas": 1, "scale": 0.3}
Axes = list[dict[str, Any]]


def resnet() -> nn.Module:
    return timm.create_model("test_resnet", num_classes=5)


def vit() -> nn.Module:
    return timm.create_model("test_vit", num_classes=5, img_size=64)


def efficientnet() -> nn.Module:
    return timm.create_model("test_efficientnet", num_classes=5)


def mobilenet() -> nn.Module:
    return torchvision.models.mobilenet_v3_small(num_classes=5)


def segmenter() -> nn.Module:
    return torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=5)


MESHES: dict[str, tuple[Axes, Callable[[], nn.Module], tuple[int, int]]] = {
    "dropout-depth": ([DROPOUT, DEPTH], resnet, (3, 3)),
    "dropout-dropout": ([DROPOUT, {**DROPOUT, "replicas": 1}], resnet, (3, 2)),
    "noise-depth": ([NOISE, DEPTH], vit, (2, 3)),
    "depth-with-batch-norms-behind": ([DROPOUT, DEPTH], efficientnet, (3, 3)),
    "dropout-noise": ([DROPOUT, NOISE], mobilenet, (3, 2)),
    "channels-of-two-maps": ([{**DROPOUT, "kind": "channel-dropout"}, NOISE], segmenter, (3, 2)),
}
each_mesh = pytest.mark.parametrize(("axes", "make", "shape"), MESHES.values(), ids=MESHES)


def made(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def mesh(module: nn.Module, axes: Axes) -> GraftedModel:
    return graft(module, "mesh", axes=axes, example=IMAGES)


def weights_of(shape: tuple[int, ...]) -> list[tuple[float, ...]]:
    return [(0.4, 0.2)[: steps - 1] for steps in shape]


def still(grafted: GraftedModel) -> GraftedModel:
    """Return it in train mode, its perturbations off; the base's own dropouts too."""
    grafted.train()
    for part in grafted.modules():
        if not [*part.children(), *part.parameters(recurse=False), *part.buffers(recurse=False)]:
            part.eval()
    return grafted


# The laws


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@each_mesh
def test_laws_1_and_2_hold_along_both_axes(axes, make, shape, dtype) -> None:
    module, images = made(make).to(dtype).eval(), IMAGES.to(dtype)
    before = fingerprint(module, images)
    grafted = mesh(module, axes)
    assert all(prove_graft(grafted, before, images).values())
    assert (grafted.shape, grafted.steps) == (shape, shape[0] * shape[1])
    states, logits = still(grafted).hidden_states(images)
    assert len(logits) == grafted.steps * N
    for name, found in states.items():
        assert len(found) == shape[1 if "axis 2" in name else 0]
        assert all(torch.equal(state + 0, found[0] + 0) for state in found)
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    cells = logits.unflatten(0, (grafted.steps, N)).float()
    torch.testing.assert_close(cells, cells[:1].expand_as(cells), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["dropout-depth", "dropout-dropout", "dropout-noise"])
def test_every_cell_of_a_fresh_mesh_is_the_base_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    axes, make, shape = MESHES[name]
    grafted = mesh(made(make).to(dtype).eval(), axes)
    found = still(grafted).hidden_states(IMAGES.to(dtype))[0][grafted.sites[-1]]
    cells = found.unflatten(1, (shape[1], N)) + 0
    assert cells.shape[:3] == (*shape, N)
    assert torch.equal(cells, cells[:1, :1].expand_as(cells))


@each_mesh
def test_laws_3_and_4_hold_after_training_in_which_every_replica_learns(axes, make, shape) -> None:
    module = made(make)
    base = module.eval()
    grafted = mesh(base, axes)
    layout = grafted.layout
    optimizer = torch.optim.SGD(grafted.parameters(), lr=1e-2)
    without = dict(grafted.replicas.named_parameters())
    for _ in range(3):
        still(grafted)
        logits = grafted(IMAGES)
        labels = logits[:N].detach().argmax(1)
        loss = spg_loss(logits, labels, weights_of(shape), "episode", label_smoothing=0.1)
        optimizer.zero_grad()
        loss.loss.backward()
        without = {name: p for name, p in without.items() if p.grad is None or not p.grad.any()}
        optimizer.step()
    assert list(without) == []
    output = grafted.eval()(IMAGES)
    stripped = strip(grafted)
    assert all(prove_strip(output, stripped, layout, IMAGES).values())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in stripped.modules())


# What a cell is made of


@pytest.mark.parametrize("name", ["dropout-depth", "dropout-dropout"])
def test_the_edges_of_a_mesh_are_the_chains_of_its_axes(name: str) -> None:
    """With the other axis at its start, each column of a mesh is the chain of the first axis alone."""
    axes, make, shape = MESHES[name]
    grafted = mesh(made(make), axes).train()
    grafted.base.eval()
    other, first = grafted.replicas
    for parameter in first.parameters():
        nn.init.normal_(parameter, std=0.1)
    other.eval().training = True  # it draws nothing
    torch.manual_seed(3)
    found = grafted.hidden_states(IMAGES)[0][grafted.sites[-1]].unflatten(1, (shape[1], N))
    alone = graft(copy.deepcopy(strip(grafted)), example=IMAGES, **{k: v for k, v in axes[0].items() if k != "kind"})
    alone.train().base.eval()
    alone.replicas[0].load_state_dict(first.state_dict())
    torch.manual_seed(3)
    (chain_alone,) = alone.hidden_states(IMAGES)[0].values()
    for column in range(shape[1]):
        torch.testing.assert_close(found[:, column], chain_alone)


def test_what_one_axis_drops_it_drops_whatever_the_other_has_done() -> None:
    grafted = graft(nn.Linear(400, 5), "mesh", axes=[BARE, {**BARE, "rate": 0.5}], site=Place("")).train()
    states = grafted.hidden_states(torch.rand(N, 400) + 0.1)[0][""].unflatten(1, (3, N))
    gone = states == 0
    assert not (gone[:-1] & ~gone[1:]).any()
    assert not (gone[:, :-1] & ~gone[:, 1:]).any()
    first, second = gone[:, 0], gone[0]
    for i in range(3):
        for j in range(3):
            assert torch.equal(gone[i, j], first[i] | second[j])
            kept = states[0, 0] / (0.7**i * 0.5**j)
            torch.testing.assert_close(states[i, j], torch.where(gone[i, j], 0, kept))


@pytest.mark.parametrize("axes", [[DROPOUT, DEPTH], [NOISE, DEPTH], [{**DROPOUT, "kind": "channel-dropout"}, NOISE]])
def test_draws_are_the_same_in_every_cell_of_a_step_and_not_of_a_sample(axes: Axes) -> None:
    make = segmenter if "channel-dropout" in axes[0]["kind"] else resnet
    grafted = mesh(made(make), axes).train()
    for place, chain in zip(grafted.places, grafted.replicas, strict=True):
        if place.axis:
            chain.eval().training = True  # it draws nothing
    one = torch.cat([IMAGES[:1]] * 2)
    grafted.base.eval()
    found = grafted.hidden_states(one)[0][grafted.sites[-1]]
    cells = found.unflatten(1, (-1, 2))
    torch.testing.assert_close(cells, cells[:, :1].expand_as(cells))
    assert not torch.equal(cells[-1, 0, 0], cells[-1, 0, 1])


@each_mesh
def test_a_mesh_costs_one_pass_of_body_and_head_and_the_replicas_of_both_axes(axes, make, shape) -> None:
    grafted = mesh(made(make), axes).train()
    calls: list[tuple[str, int]] = []

    def count(module: nn.Module, name: str) -> None:
        module.register_forward_hook(lambda module, inputs, output: calls.append((name, len(inputs[0]))))

    count(next(part for part in grafted.base.modules() if isinstance(part, nn.Conv2d)), "body")
    count(grafted.base.get_submodule(grafted.places[-1].module), "head")
    for chain in grafted.replicas:
        for replica in chain:
            count(replica, "replica")
    grafted(IMAGES)
    assert [rows for name, rows in calls if name == "body"] == [N]
    assert len([rows for name, rows in calls if name == "head"]) == 1
    places = sum(place.axis == 0 for place in grafted.places)
    assert sum(name == "replica" for name, _ in calls) == places * (shape[0] + shape[1] - 2)


@each_mesh
def test_a_copy_runs_its_own_replicas_and_nothing_is_kept_of_a_pass_that_fails(axes, make, shape) -> None:
    grafted = mesh(made(make), axes).train()
    with pytest.raises(RuntimeError):
        grafted(IMAGES[:, :1])
    twin = copy.deepcopy(grafted)
    torch.manual_seed(2)
    expected = grafted(IMAGES)
    torch.manual_seed(2)
    torch.testing.assert_close(twin(IMAGES), expected)


@pytest.mark.parametrize("name", ["depth-with-batch-norms-behind", "channels-of-two-maps"])
def test_only_the_first_cell_moves_running_statistics(name: str) -> None:
    axes, make, _ = MESHES[name]
    module, twin = made(make), made(make).train()
    mesh(module.train(), axes)(IMAGES)
    twin(IMAGES)
    for (buffer, moved), expected in zip(module.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-6, msg=buffer)


@pytest.mark.slow
@each_mesh
def test_it_compiles_to_one_graph(axes, make, shape) -> None:
    grafted = mesh(made(make), axes).train()

    def step(images: Tensor) -> Tensor:
        logits = grafted(images)
        labels = torch.zeros(N, *logits.shape[2:], dtype=torch.long)
        return spg_loss(logits, labels, weights_of(shape)).loss

    torch.compile(step, backend="aot_eager", fullgraph=True)(IMAGES).backward()


# Why a cell is the composition of both axes, and not another combination of its two parents


def test_the_mean_of_both_parents_loses_what_each_axis_adds() -> None:
    torch.manual_seed(0)
    hidden = torch.ones(200_000)
    one, other = dropout(hidden, 0.3), dropout(hidden, 0.5)
    mean = (dropout(other, 0.3) + dropout(one, 0.5)) / 2
    composed = torch.where((one != 0) & (other != 0), hidden, 0)
    assert (composed == 0).float().mean().item() == pytest.approx(1 - 0.7 * 0.5, abs=0.01)
    assert (mean == 0).float().mean().item() < 0.5, "less is dropped than along one axis alone"


def test_the_sum_of_what_both_parents_add_changes_a_chain_by_rounding_and_dropped_features_turn_over() -> None:
    torch.manual_seed(0)
    start = torch.randn(10_000, dtype=torch.bfloat16)
    one = start + torch.randn(10_000).bfloat16() * 0.01
    idle = start.clone()  # the other axis has learned nothing yet
    assert not torch.equal(one + idle - start, one)
    hidden = torch.ones(10_000)
    summed = dropout(hidden, 0.5) + dropout(hidden, 0.5) - hidden
    assert (summed < 0).float().mean().item() == pytest.approx(0.25, abs=0.02)


# Settings


def test_a_mesh_says_its_axes_cells_and_lengths() -> None:
    found = replicas_of("mesh", {"axes": [DEPTH, DROPOUT]})
    assert [axis.kind for axis in found.axes] == ["dropout", "depth"], "depth acts first, and is last"
    assert found.length == 2
    assert replicas_from(found.document()) == found
    assert found.words() == "mesh of 2 dropout replicas, rate 0.3, and of 2 depth replicas, init identity"
    grafted = mesh(made(resnet), [DROPOUT, {**DROPOUT, "replicas": 1, "rate": 0.5}])
    assert grafted.sites == ("fc (axis 2)", "fc")


@pytest.mark.parametrize(
    ("axes", "fault"),
    [
        ("[{kind: dropout}]", "axes: "),
        ("[{kind: dropout}, {kind: dropout}, {kind: depth}]", "axes: "),
        ("[{kind: depth}, {kind: depth}]", "both axes are depth, which is one chain"),
        ("[{kind: dropout}, {kind: leaky-slope}]", "axes[1].kind: 'leaky-slope' is refused, it must be 'dropout', "),
        ("[{kind: dropout}, {kind: mesh}]", "axes[1].kind: 'mesh' is refused"),
        ("[{kind: dropout}, {kind: none}]", "axes[1].kind: 'none' is refused"),
        ("[{kind: dropout, rollouts: true}, {kind: depth}]", "and an axis is rollouts"),
        ("[{kind: dropout, head_batch: sequential}, {kind: depth}]", "and an axis is sequential"),
        ("[{kind: dropout, rate: 2}, {kind: depth}]", "axes[0].rate: 2 is refused, it must be less than 1"),
        (
            "[{kind: dropout, scale: 2}, {kind: depth}]",
            "axes[0].scale: scale is not a setting of dropout replicas",
        ),
        ("[{kind: dropout, raet: 2}, {kind: depth}]", "axes[0].raet: unknown key, did you mean 'rate'?"),
    ],
)
def test_what_can_not_be_crossed_is_refused_at_its_place(axes: str, fault: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe("digits-dropout", [f"trp={{kind: mesh, axes: {axes}}}"])
    assert fault in caught.value.message


def test_weights_are_those_of_the_longest_axis() -> None:
    axes = "trp={kind: mesh, axes: [{kind: dropout, replicas: 3}, {kind: depth, replicas: 1}]}"
    assert read_recipe("digits-dropout", [axes]).objective.weights == (0.4, 0.2, 0.1)
    with pytest.raises(RecipeError, match=r"2 weights for 3 replicas \(the longest of trp.axes\)"):
        read_recipe("digits-dropout", [axes, "objective.weights=[0.4, 0.2]"])


def test_trp_kind_alone_makes_the_control_of_a_mesh() -> None:
    axes = "trp={kind: mesh, axes: [{kind: dropout, replicas: 3}, {kind: depth, replicas: 1}]}"
    assert read_recipe("digits-dropout", [axes, "trp.kind=none"]).trp.control


def test_a_model_without_a_last_stage_and_a_place_of_ones_own_are_refused() -> None:
    with pytest.raises(ArchitectureError, match="SqueezeNet"):
        mesh(torchvision.models.squeezenet1_1(), [DROPOUT, DEPTH])
    with pytest.raises(UsageError, match="depth attach after the last stage"):
        graft(made(resnet), "mesh", axes=[DROPOUT, DEPTH], site="fc")
    assert graft(made(resnet), "mesh", axes=[DROPOUT, NOISE], site="fc").shape == (3, 2)
    with pytest.raises(UsageError, match="by one chain"):
        graft(made(resnet), "mesh", axes=[DROPOUT, NOISE], site="fc", head_batch="sequential")


# Texts


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "GPT2ForSequenceClassification"])
def test_a_classifier_of_texts_is_a_mesh_too(name: str) -> None:
    module = tiny(name)
    head = "classifier" if name.startswith("Bert") else "score"
    grafted = still(graft(module, "mesh", axes=[DROPOUT, NOISE], site=head))
    words = {"input_ids": torch.tensor([[3, 4, 5, 6], [5, 6, 0, 0]]), "attention_mask": torch.ones(2, 4).long()}
    words["attention_mask"][1, 2:] = 0
    grafted.base.eval()
    states, logits = grafted.hidden_states(**words)
    assert len(logits) == 6 * 2
    for found in states.values():
        assert all(torch.equal(state + 0, found[0] + 0) for state in found)
    cells = logits.unflatten(0, (6, 2))
    torch.testing.assert_close(cells, cells[:1].expand_as(cells))
    torch.testing.assert_close(cells[0], grafted.eval()(**words).logits)
    spg_loss(logits, torch.tensor([0, 1]), ((0.4, 0.2), (0.4,))).loss.backward()


@pytest.mark.slow
def test_a_mesh_on_texts_trains_resumes_and_is_stripped(tmp_path: Path) -> None:
    opinions_folder(tmp_path / "data")
    reader(tmp_path / "model", num_labels=2)
    write_recipe(tmp_path, "texts", drop_last=False)
    recipe = tmp_path / "recipe.yaml"
    axes = [{"kind": "dropout", "rate": 0.1, "replicas": 2}, {"kind": "feature-noise", "replicas": 2}]
    document = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump(document | {"trp": {"kind": "mesh", "axes": axes}}))
    check_resuming(tmp_path)
    proof = succeed("strip", "--json", tmp_path / "whole", "-o", tmp_path / "better").document["proof"]
    assert proof["from_pretrained_equal"]


def test_logits_that_never_exist_at_once_are_not_read_over_a_mesh(tmp_path: Path) -> None:
    corpus_folder(tmp_path / "data")
    reader(tmp_path / "model", "GPT2LMHeadModel")
    write_recipe(tmp_path, "corpus", drop_last=False)
    axes = "trp={kind: mesh, axes: [{kind: dropout, replicas: 2}, {kind: feature-noise, replicas: 1}]}"
    refused = spgsurgeon(
        "train", tmp_path / "model", "--recipe", tmp_path / "recipe.yaml", axes, "-o", tmp_path / "run"
    )
    assert (refused.code, "not over a mesh" in refused.err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_the_trainer_of_transformers_takes_no_mesh() -> None:
    module = tiny("BertForSequenceClassification")
    from spgsurgeon.hf import SPGTrainer

    with pytest.raises(UsageError, match="one chain of replicas, not a mesh"):
        SPGTrainer(graft(module, "mesh", axes=[DROPOUT, NOISE], site="classifier"), weights=(0.1,) * 5)


# Every command

AXES = "[{kind: dropout, replicas: 2}, {kind: depth, replicas: 1}]"
MESH = f"trp={{kind: mesh, axes: {AXES}}}"
FEW = ("data.limit=6", "data.holdout=0.1", "data.eval=holdout", "training.batch_size=20", "data.workers=0")
SHORT = (*DIGITS, *FEW, MESH, "objective.weights=[0.4, 0.2]", "training.record_episodes=true")


def test_a_mesh_is_inspected_grafted_trained_stripped_and_reported(tmp_path: Path) -> None:
    site = succeed("inspect", *TINY, "--json").document["sites"]["mesh"]
    assert [one["module"] for one in site["axes"]] == ["fc", "layer4.0"]
    grafted, own = tmp_path / "grafted", ("--trp", "mesh", "--set", f"axes={AXES}")
    shown = succeed("graft", *TINY, "--num-classes", 10, *own, "-o", grafted).out
    assert "mesh of 2 dropout replicas, rate 0.2, and of 1 depth replicas" in shown
    assert "at the input of fc and at the output of layer4.0" in shown

    run = tmp_path / "run"
    assert "mesh of 2 dropout" in succeed("train", grafted, *SHORT, "-o", run, "--dry-run").out
    succeed("train", grafted, *SHORT, "training.epochs=2", "-o", run, "--json")
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["steps"][:3] == ["0 x 11", "0 x 20", "0.2 x 11"]
    assert len(line["valid_share"]) == len(line["step_cross_entropy"]) == len(line["accepted_units"]) == 6
    assert list(line["accepted_units"]) == ["1", "2", "3", "4", "5", "6"]
    cells = [int(length) * units for length, units in line["accepted_units"].items()]
    assert line["mean_episode_length"] == pytest.approx(sum(cells) / sum(line["accepted_units"].values()))
    stripped = succeed("strip", run, "-o", tmp_path / "better", "--json").document
    assert set(stripped["proof"].values()) == {True}
    assert "mesh of 2 dropout replicas" in (tmp_path / "better" / "README.md").read_text()
    document = succeed("episodes", run, "--json").document
    assert (document["accepts"], document["steps"]) == ("cells", ["1", "2", "3", "4", "5", "6"])
    succeed("report", run, "-o", tmp_path / "report")
    assert "0.2 x 11: " in (tmp_path / "report" / "index.html").read_text()


@pytest.mark.slow
def test_a_mesh_resumes_to_the_same_weights(tmp_path: Path) -> None:
    asked = ("train", *TINY, *SHORT, "training.epochs=2")
    succeed(*asked, "-o", tmp_path / "whole")
    succeed(*asked, "training.checkpoints={steps: 1, keep: 9}", "-o", tmp_path / "parts")
    states = {
        json.loads(path.read_text())["counters"]["step"]: path for path in (tmp_path / "parts").rglob("state.json")
    }
    for step, path in states.items():
        if step > 2 and path.parent.parent.name == "checkpoints":
            shutil.rmtree(path.parent)
    resumed = succeed("train", "--json", "--resume", "-o", tmp_path / "parts").document
    assert min(states) <= 2 < max(states) == resumed["steps"]
    assert hash_of(tmp_path / "parts" / "last") == hash_of(tmp_path / "whole" / "last")
    assert (tmp_path / "parts" / "episodes.jsonl").read_text() == (tmp_path / "whole" / "episodes.jsonl").read_text()


def test_a_grafted_mesh_and_a_recipe_that_says_otherwise_contradict_each_other(tmp_path: Path) -> None:
    grafted = tmp_path / "grafted"
    own = ("--trp", "mesh", "--set", "axes=[{rate: 0.1}, {kind: depth}]")
    succeed("graft", *TINY, "--num-classes", 10, *own, "-o", grafted)
    other = "trp={kind: mesh, axes: [{rate: 0.3}, {kind: depth}]}"
    refused = spgsurgeon("train", grafted, *DIGITS, *FEW, other, "-o", tmp_path / "run", "--dry-run")
    assert (refused.code, "trp.axes is" in refused.err) == (2, True)
