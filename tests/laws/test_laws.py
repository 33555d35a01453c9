"""The laws of grafting, stripping and exporting, over every model family: `families.py` lists them.

Each family is operated on once with each kind of replica that it can have, some also as the control that has none but
drops; what was seen on the way is kept, and each law is a test on that.
Shapes: N = 2 images, T = 2 replicas, K = outputs in train mode where there are several.
"""

import json
from dataclasses import dataclass

import pytest
import torch
from families import CLASSES, DEPTH, OTHERS, SUPPORTED, UNSUPPORTED, Family, require
from timm.layers import DropPath
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from spgsurgeon.commands.modules import graft
from spgsurgeon.errors import ArchitectureError
from spgsurgeon.exporting.onnx_file import export_onnx
from spgsurgeon.models.graph_inputs import image_inputs
from spgsurgeon.models.libraries.building import build, build_for_loading, load_weights
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.libraries.registry import library
from spgsurgeon.models.modes import run_in_eval
from spgsurgeon.objective.loss import spg_loss
from spgsurgeon.replicas.grafted import GraftedModel, detach, layout_of
from spgsurgeon.replicas.kinds import kind_named
from spgsurgeon.replicas.outputs import outputs_of
from spgsurgeon.replicas.places import Place
from spgsurgeon.surgery.proof import Layout, example_images, fingerprint, prove_graft, prove_strip

N, T = 2, 2
SETTINGS = {
    "dropout": {"rate": 0.0},
    "depth": {},
    "fixed-dropout": {"rate": 0.5},
    "channel-dropout": {"rate": 0.0},
    "feature-noise": {"scale": 0.0},
    "drop-path": {"rate": 0.0},
    "token-drop": {"rate": 0.0},
    "leaky-slope": {"slope": 0.0},
    "norm-momentum": {"momentum": 1.0},
    "norm-noise": {"noise": 0.0},
}
"""Settings of each kind under which its replicas change nothing."""


@dataclass(frozen=True)
class Seen:
    """A model at one moment, as it looks from outside."""

    state: dict[str, Tensor]
    layout: Layout
    hooks: int
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Surgery:
    """One family grafted, stripped, grafted again, trained for two steps and stripped, with what was seen each time."""

    base: Seen
    replicas: int  # T, or 0 for a control
    grafted: Seen
    graft_proof: dict[str, bool]
    hidden: dict[str, Tensor]  # [T+1, N, ...] by site, in train mode, dropout off
    logits: Tensor  # [(T+1)*N, CLASSES, ...] or [(T+1)*N, CLASSES, ..., K], likewise
    stripped: Seen
    without_gradient: list[str]  # replica parameters whose gradient is zero or missing in both steps
    moved: list[bool]  # of each site with weights: whether the first replica is not the identity after two steps
    trained: Seen
    strip_proof: dict[str, bool]
    trained_and_stripped: Seen
    rebuilt: Seen  # from config.json, with the weights of the last one


def see(module: nn.Module, images: Tensor) -> Seen:
    hooks = sum(len(part._forward_pre_hooks) + len(part._forward_hooks) for part in module.modules())
    state = {key: value.detach().clone() for key, value in module.state_dict().items()}
    return Seen(state, layout_of(module), hooks, outputs_of(run_in_eval(module, images)))


def see_grafted(grafted: GraftedModel, images: Tensor) -> Seen:
    base = see(grafted.base, images)
    return Seen(base.state, base.layout, base.hooks, outputs_of(run_in_eval(grafted, images)))


def open_family(family: Family) -> tuple[Identity, nn.Module, Tensor]:
    require(family)
    torch.manual_seed(0)
    identity = Identity(family.library, family.architecture, CLASSES, family.args)
    module = build(identity)
    return identity, module, example_images(module, (3, family.size, family.size), batch=N)


def operate(family: Family, kind: str) -> Surgery:
    identity, module, images = open_family(family)
    base, before = see(module, images), fingerprint(module, images)

    fresh = graft(module, kind, replicas=T, example=images, **SETTINGS[kind])
    grafted, graft_proof = see_grafted(fresh, images), prove_graft(fresh, before, images)
    hidden, logits = run_in_train(fresh, images)
    for key, value in module.state_dict().items():
        value.copy_(grafted.state[key])  # train mode moved the running statistics
    stripped = see(detach(fresh), images)

    again = graft(module, kind, replicas=T, example=images, **SETTINGS[kind])
    without_gradient = train_two_steps(again, images, auxiliary=logits.dim() > base.outputs[0].dim())
    chains = zip(again.sites, again.replicas, strict=True)
    moved = [changes(chain[0], hidden[site][0]) for site, chain in chains if any(True for _ in chain.parameters())]
    trained = see_grafted(again, images)
    strip_proof = prove_strip(trained.outputs, detach(again), base.layout, images)
    return Surgery(
        base=base,
        replicas=0 if kind_named(kind).control else T,
        grafted=grafted,
        graft_proof=graft_proof,
        hidden=hidden,
        logits=logits,
        stripped=stripped,
        without_gradient=without_gradient,
        moved=moved,
        trained=trained,
        strip_proof=strip_proof,
        trained_and_stripped=see(module, images),
        rebuilt=see(rebuild(identity, module), images),
    )


@torch.no_grad()
def run_in_train(grafted: GraftedModel, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return the hidden states by site, and the logits, of one pass in train mode, without the base's own dropout."""
    grafted.train()
    for part in grafted.base.modules():
        if isinstance(part, nn.Dropout):
            part.eval()
    return grafted.hidden_states(images)


@torch.no_grad()
def changes(replica: nn.Module, hidden: Tensor) -> bool:
    return not torch.equal(replica.eval()(hidden), hidden)


def train_two_steps(grafted: GraftedModel, images: Tensor, *, auxiliary: bool) -> list[str]:
    """Train heads and replicas by small steps, with the base right each time, so that episodes run to their end.

    Two steps, since replicas have no gradient in the first where the head, or the end of a block, starts at zero; label
    smoothing, since an untrained model may be certain of its answer, and then has none at all. The base is in eval
    mode, all but its own flag where it has `auxiliary` outputs. If replicas are at a layer of its body it trains with
    the rest, and its batch norms normalise: hidden states of an untrained model vanish on their way through it else.
    """
    grafted.train().base.eval()
    if any(type(place) is not Place for place in grafted.places):
        for part in grafted.base.modules():
            # in eval mode timm keeps these biases, and what they were made of, from one step to the next
            part.training = isinstance(part, nn.BatchNorm2d) or hasattr(part, "attention_bias_cache")
            if isinstance(part, nn.Linear) and not part.weight.any():
                nn.init.normal_(part.weight, std=0.1)  # some heads start at zero, and let nothing through
    else:
        grafted.base.requires_grad_(False)
        grafted.base.training = auxiliary
        for place in grafted.places:
            grafted.base.get_submodule(place.module).requires_grad_(True)
    for part in grafted.replicas.modules():
        part.training &= not isinstance(part, DropPath | StochasticDepth)  # what is skipped has no gradient
    optimizer = torch.optim.SGD([p for p in grafted.parameters() if p.requires_grad], lr=1e-3)
    without_gradient = dict(grafted.replicas.named_parameters())
    for _ in range(2):
        labels = grafted(images)[:N].detach().argmax(1)
        optimizer.zero_grad()
        weights = (0.4, 0.2)[: grafted.steps - 1]
        spg_loss(grafted(images), labels, weights=weights, label_smoothing=0.1).loss.backward()
        optimizer.step()
        without_gradient = {name: p for name, p in without_gradient.items() if p.grad is None or not p.grad.any()}
    grafted.base.requires_grad_(True)
    return list(without_gradient)


def rebuild(identity: Identity, module: nn.Module) -> nn.Module:
    """Return the module that a folder's `config.json` and weights give."""
    owner = library(identity.library)
    config = json.loads(json.dumps(owner.config(identity, module, None)))
    rebuilt = build_for_loading(owner.identity_from_config(config))
    load_weights(rebuilt, module.state_dict(), identity.name)
    return rebuilt


def case(family: Family, kind: str, number: int):
    """Return one operation; the number tells members of a family with different arguments apart."""
    name = family.name if kind == "dropout" else f"{family.name}-{kind}"
    marks = [pytest.mark.slow] * family.slow
    return pytest.param((family, kind), id=f"{name}-{number}" if family.args and kind == "depth" else name, marks=marks)


CASES = [
    *(case(family, "dropout", number) for number, family in enumerate(SUPPORTED)),
    *(case(family, "depth", number) for number, family in enumerate(DEPTH)),
    *(case(family, kind, number) for kind, families in OTHERS.items() for number, family in enumerate(families)),
]


@pytest.fixture(scope="module", params=CASES)
def surgery(request):
    return operate(*request.param)


def assert_same_state(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    assert [key for key, value in expected.items() if not torch.equal(found[key], value)] == []


def equal(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> bool:
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


def test_law_1_a_fresh_graft_in_eval_mode_is_the_base_bit_for_bit(surgery):
    assert all(output.shape[:2] == (N, CLASSES) and torch.isfinite(output).all() for output in surgery.base.outputs)
    assert equal(surgery.grafted.outputs, surgery.base.outputs)
    assert_same_state(surgery.grafted.state, surgery.base.state)


def test_law_2_a_fresh_graft_in_train_mode_repeats_the_base_in_every_step(surgery):
    replicas = surgery.replicas
    for hidden in surgery.hidden.values():
        assert len(hidden) == replicas + 1
        assert all(torch.equal(state, hidden[0]) for state in hidden)
    assert surgery.logits.shape[:2] == ((replicas + 1) * N, CLASSES)
    steps = surgery.logits.unflatten(0, (replicas + 1, N))
    torch.testing.assert_close(steps, steps[:1].expand_as(steps), rtol=1e-5, atol=1e-5)


def test_laws_1_and_2_are_what_graft_proves(surgery):
    expected = {"state_dict_unchanged": True, "eval_outputs_equal": True, "replicas_start_as_identity": True}
    assert surgery.graft_proof == expected


def test_law_3_stripping_a_fresh_graft_gives_the_base_back(surgery):
    assert surgery.stripped.layout == surgery.base.layout
    assert surgery.stripped.hooks == surgery.base.hooks
    assert_same_state(surgery.stripped.state, surgery.base.state)
    assert equal(surgery.stripped.outputs, surgery.base.outputs)


def test_law_3_stripping_after_training_changes_only_values(surgery):
    assert surgery.trained_and_stripped.layout == surgery.base.layout
    assert surgery.trained_and_stripped.hooks == surgery.base.hooks
    before, after = surgery.base.state, surgery.trained_and_stripped.state
    assert any(not torch.equal(after[key], before[key]) for key in before)


def test_law_4_the_stripped_model_is_the_grafted_one_in_eval_mode_bit_for_bit(surgery):
    assert not equal(surgery.trained.outputs, surgery.base.outputs)
    assert equal(surgery.trained_and_stripped.outputs, surgery.trained.outputs)
    assert_same_state(surgery.trained_and_stripped.state, surgery.trained.state)


def test_laws_3_and_4_are_what_strip_proves(surgery):
    assert surgery.strip_proof == {"layout_equal": True, "no_hooks_left": True, "eval_outputs_equal": True}


def test_every_replica_learns(surgery):
    assert surgery.without_gradient == []
    assert all(surgery.moved)


def test_config_and_weights_rebuild_the_model_bit_for_bit(surgery):
    assert surgery.rebuilt.layout == surgery.base.layout
    assert equal(surgery.rebuilt.outputs, surgery.trained_and_stripped.outputs)


def graft_and_prove(module: nn.Module, images: Tensor) -> None:
    before = fingerprint(module, images)
    prove_graft(graft(module, replicas=T, rate=0.0, example=images), before, images)


@pytest.mark.parametrize(("family", "reason"), [pytest.param(*case, id=case[0].name) for case in UNSUPPORTED])
def test_a_family_that_is_not_supported_is_refused_with_what_was_found(family, reason):
    _, module, images = open_family(family)
    with pytest.raises(ArchitectureError) as caught:
        graft_and_prove(module, images)
    assert caught.value.message.startswith(reason)
    assert caught.value.exit_code == 5


EXPORTED = [
    "timm/swin_tiny_patch4_window7_224",
    "timm/test_byobnet",
    "timm/test_convnext",
    "timm/test_efficientnet",
    "timm/test_mambaout",
    "timm/test_vit",
    "torchvision/mobilenet_v3_small",
    "torchvision/shufflenet_v2_x0_5",
]
"""Segmentation models are exported by the tests of `exporting`, in every output."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name != "timm/test_byobnet" else []) for name in EXPORTED]
)
def test_law_9_the_exported_graph_agrees_on_inputs_it_was_not_exported_with(name, tmp_path):
    family = next(family for family in SUPPORTED if family.name == name)
    _, module, images = open_family(family)
    stripped = detach(graft(module, replicas=T, rate=0.1, example=images))
    report = export_onnx(stripped, tmp_path / "model.onnx", image_inputs((3, family.size, family.size), (1, 3)))
    assert report.top1_equal
    assert report.top1_compared > 0
    assert report.largest_difference <= 1e-4 * report.logits_scale
