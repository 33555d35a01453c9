"""The proofs must fail where a law is broken, and disturb nothing."""

import re

import pytest
import torch
from attaching import attach
from torch import Tensor, nn

from spgsurgeon.commands.modules import graft
from spgsurgeon.errors import ArchitectureError, UsageError, VerificationError
from spgsurgeon.models.libraries.building import build
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.modes import run_in_eval
from spgsurgeon.replicas.grafted import GraftedModel, detach, layout_of
from spgsurgeon.replicas.places import Place
from spgsurgeon.surgery.proof import Fingerprint, example_images, fingerprint, prove_graft, prove_strip
from spgsurgeon.tasks.registry import TASKS

T = 2


def resnet() -> tuple[nn.Module, Tensor]:
    module = build(Identity("timm", "test_resnet", 7, {"drop_rate": 0.5}))
    return module, example_images(module, (3, 32, 32))


def changed_weight(grafted: GraftedModel) -> None:
    next(grafted.base.parameters()).data[0] += 1


def changed_statistics(grafted: GraftedModel) -> None:
    next(buffer for buffer in grafted.base.buffers() if buffer.is_floating_point())[0] += 1


def replica_that_is_no_identity(grafted: GraftedModel) -> None:
    grafted.replicas[0][1].projection.bias.data[0] = 1e-3


def later_site_that_is_no_identity(grafted: GraftedModel) -> None:
    grafted.replicas[1][0].projection.bias.data[0] = 1e-3


def replicas_that_run_in_eval_mode(grafted: GraftedModel) -> None:
    grafted._handles[0].remove()
    head = grafted.base.get_submodule(grafted.sites[0])
    grafted._handles[0] = head.register_forward_pre_hook(lambda _, inputs: (inputs[0].repeat(T + 1, 1),))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (changed_weight, "changed the base's state dict"),
        (changed_statistics, "changed the base's state dict"),
        (replicas_that_run_in_eval_mode, r"outputs in eval mode differ .*\(law 1\)"),
        (replica_that_is_no_identity, r"replica 2 at 'fc' does not start as the identity \(law 2\)"),
    ],
)
def test_the_proof_of_a_graft_finds_what_breaks_a_law(harm, message):
    module, images = resnet()
    before = fingerprint(module, images)
    grafted = attach(module, "fc", replicas=T, rate=0.1)
    harm(grafted)
    with pytest.raises(VerificationError, match=message):
        prove_graft(grafted, before, images)


def levit() -> tuple[nn.Module, Tensor]:
    """A model of two heads that it averages."""
    module = build(Identity("timm", "levit_128s", 7, {"img_size": 32}))
    return module, example_images(module, (3, 32, 32))


HEADS = ["head.linear", "head_dist.linear"]


def test_law_2_is_proven_at_every_site():
    module, images = levit()
    before = fingerprint(module, images)
    grafted = attach(module, HEADS, replicas=T, rate=0.1)
    assert all(prove_graft(grafted, before, images).values())
    later_site_that_is_no_identity(grafted)
    with pytest.raises(VerificationError, match=r"replica 1 at 'head_dist.linear' does not start"):
        prove_graft(grafted, before, images)


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (HEADS[:1], "the model grafted at head.linear fails: The size of tensor"),  # the other head gives N rows
        (["stages.0.blocks.0.mlp.ln1.linear", *HEADS], "not what makes the logits|fails"),
    ],
)
def test_a_site_too_few_or_too_many_is_refused_by_name(sites, message):
    module, images = levit()
    before = fingerprint(module, images)
    grafted = attach(module, sites, replicas=T, rate=0.1)
    with pytest.raises(ArchitectureError, match=message):
        prove_graft(grafted, before, images)


def test_a_site_that_train_mode_does_not_reach_is_refused():
    module, images = resnet()
    module.spare = nn.Linear(4, 7)
    before = fingerprint(module, images)
    with pytest.raises(ArchitectureError, match="nothing passes through spare"):
        prove_graft(attach(module, ["fc", "spare"], replicas=T, rate=0.1), before, images)


def segmentation() -> tuple[nn.Module, Tensor]:
    """A model of two outputs, whose head reads two maps by name, and batch norms in it."""
    module = Segmentation().eval()
    return module, example_images(module, (3, 16, 16))


class Segmentation(nn.Module):
    """As torchvision's: a mapping of outputs, from heads that read maps of different widths."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.low, self.high = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)
        self.classifier = TwoMaps()
        self.aux_classifier = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = {"low": self.low(images), "high": self.high(images)}
        return {"aux": self.aux_classifier(maps["low"]), "out": self.classifier(maps)}


class TwoMaps(nn.Module):
    """A head as LR-ASPP's."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Conv2d(4, 5, 1), nn.Sequential(nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5))

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        total: Tensor = self.low(maps["low"]) + self.high(maps["high"])
        return total


PLACES = [
    Place("classifier", key="low", width=4),
    Place("classifier", key="high", width=6),
    Place("aux_classifier", width=4),
]


def test_laws_1_and_2_are_proven_of_every_output_and_every_map():
    module, images = segmentation()
    before = fingerprint(module, images)
    assert [tuple(output.shape) for output in before.outputs] == [(2, 5, 16, 16)] * 2
    assert torch.equal(before.outputs[0], run_in_eval(module, images)["out"])
    grafted = attach(module, PLACES, replicas=T, rate=0.1)
    assert all(prove_graft(grafted, before, images).values())
    assert fingerprint(module, images).content_hash == before.content_hash
    for chain, name in zip(grafted.replicas, ("classifier[low]", "classifier[high]", "aux_classifier"), strict=True):
        chain[1].projection.bias.data[0] = 1e-3
        with pytest.raises(VerificationError, match=re.escape(f"replica 2 at {name!r} does not start")):
            prove_graft(grafted, before, images)
        chain[1].projection.bias.data[0] = 0


def other_auxiliary_output(module: nn.Module) -> None:
    module.aux_classifier.register_forward_hook(lambda module, inputs, output: output + 1e-6)


def no_auxiliary_output(module: nn.Module) -> None:
    module.register_forward_hook(lambda module, inputs, output: {"out": output["out"]})


@pytest.mark.parametrize("harm", [other_auxiliary_output, no_auxiliary_output])
def test_law_1_is_proven_of_an_auxiliary_output(harm):
    module, images = segmentation()
    before = fingerprint(module, images)
    harm(module)
    with pytest.raises(VerificationError, match=r"outputs in eval mode differ .*\(law 1\)"):
        prove_graft(attach(module, PLACES, replicas=T, rate=0.1), before, images)


def test_law_4_is_proven_of_an_auxiliary_output():
    module, images = segmentation()
    outputs, layout = run_in_eval(module, images), layout_of(module)
    assert all(prove_strip(outputs, module, layout, images).values())
    module.aux_classifier[1].bias.data[0] += 1e-6
    with pytest.raises(VerificationError, match=r"outputs differ .*\(law 4\)"):
        prove_strip(outputs, module, layout, images)


def test_a_nan_in_an_auxiliary_output_is_refused():
    module, images = segmentation()
    module.aux_classifier[1].weight.data[0] = torch.nan
    with pytest.raises(VerificationError, match="gives NaN on images of noise"):
        fingerprint(module, images)


def deep() -> tuple[GraftedModel, Fingerprint, Tensor]:
    module, images = resnet()
    before = fingerprint(module, images)
    return graft(module, "depth", replicas=T, blocks=2, example=images), before, images


def test_law_2_is_proven_of_blocks_and_their_statistics_are_put_back():
    grafted, before, images = deep()
    for part in grafted.replicas.modules():
        if isinstance(part, nn.Conv2d):
            assert part.weight.any(), "blocks are the identity though their convolutions are not zero"
    state = {key: value.clone() for key, value in grafted.state_dict().items()}
    assert all(prove_graft(grafted, before, images).values())
    assert all(torch.equal(value, state[key]) for key, value in grafted.state_dict().items())
    next(reversed(list(grafted.replicas[0][1].parameters()))).data += 1e-3
    with pytest.raises(VerificationError, match=r"replica 2 at 'layer4\.[01]' does not start as the identity"):
        prove_graft(grafted, before, images)


def test_a_depth_graft_leaves_no_forward_hook():
    grafted, _, images = deep()
    outputs = run_in_eval(grafted, images)
    layout = layout_of(grafted.base)
    with pytest.raises(VerificationError, match=r"hooks are left on layer4\.[01] \(law 3\)"):
        prove_strip(outputs, grafted.base, layout, images)
    assert all(prove_strip(outputs, detach(grafted), layout, images).values())


@pytest.mark.parametrize("kind", [{"kind": "none"}, {"kind": "fixed-dropout", "rate": 0.5}])
def test_a_control_has_no_replicas_to_prove(kind):
    module, images = resnet()
    before = fingerprint(module, images)
    assert all(prove_graft(attach(module, "fc", **kind), before, images).values())


def test_dropout_that_falls_on_nothing_is_no_control():
    module, images = resnet()
    module.unused = nn.Linear(512, 7)
    before = fingerprint(module, images)
    with pytest.raises(ArchitectureError, match="in train mode nothing passes through unused"):
        prove_graft(attach(module, "unused", "fixed-dropout", rate=0.5), before, images)


def other_layout(module: nn.Module) -> None:
    module.register_buffer("leftover", torch.zeros(1))


def leftover_hook(module: nn.Module) -> None:
    module.layer2.register_forward_hook(lambda *_: None)


def other_outputs(module: nn.Module) -> None:
    module.fc.bias.data[0] += 1e-6


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (other_layout, r"are not the base's \(law 3\)"),
        (leftover_hook, r"hooks are left on layer2 \(law 3\)"),
        (other_outputs, r"outputs differ .*\(law 4\)"),
    ],
)
def test_the_proof_of_a_strip_finds_what_breaks_a_law(harm, message):
    module, images = resnet()
    grafted, layout = attach(module, "fc", replicas=T, rate=0.1), layout_of(module)
    outputs = run_in_eval(grafted, images)
    stripped = detach(grafted)
    harm(stripped)
    with pytest.raises(VerificationError, match=message):
        prove_strip(outputs, stripped, layout, images)


def test_a_proof_leaves_modes_statistics_and_random_numbers_as_they_were():
    module, images = resnet()
    before = fingerprint(module.train(), images)
    module.layer2.eval()
    grafted = attach(module, "fc", replicas=T, rate=0.1)
    modes, numbers = [part.training for part in grafted.modules()], torch.random.get_rng_state()
    prove_graft(grafted, before, images)
    assert [part.training for part in grafted.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), numbers)
    assert fingerprint(module, images).content_hash == before.content_hash
    assert len(module.fc._forward_pre_hooks) == 1


def test_a_model_that_gives_nan_is_refused_as_such():
    module, images = resnet()
    module.fc.weight.data[0] = torch.nan
    with pytest.raises(VerificationError, match="gives NaN on images of noise"):
        fingerprint(module, images)


def test_example_images_are_the_same_on_every_call_and_of_the_models_dtype():
    module = resnet()[0].to(torch.bfloat16)
    images = example_images(module, (3, 32, 48), batch=4)
    torch.manual_seed(5)
    assert images.shape == (4, 3, 32, 48)
    assert images.dtype == torch.bfloat16
    assert torch.equal(example_images(module, (3, 32, 48), batch=4), images)


@pytest.mark.parametrize(("task", "size"), [("classification", (520, 64)), ("segmentation", (128, 64))])
def test_maps_are_proven_on_smaller_images(task, size):
    largest = TASKS[task].largest_side
    assert example_images(resnet()[0], (3, 520, 64), largest_side=largest).shape == (2, 3, *size)


def test_a_picture_the_model_can_not_take_is_said_so():
    with pytest.raises(UsageError, match=r"can't take images of \[4, 32, 32\]: Given groups=1"):
        fingerprint(resnet()[0], torch.zeros(2, 4, 32, 32))


def test_a_model_that_gives_no_tensor_is_refused():
    module, images = resnet()
    module.register_forward_hook(lambda module, inputs, output: {"out": output, "names": None})
    with pytest.raises(ArchitectureError, match=r"gives tensors, not a dict of out, names"):
        fingerprint(module, images)


class Signs(nn.Module):
    """Gives zeros whose signs another output does not have, and hidden states that hold -0."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign, self.fc = sign, nn.Linear(12, 7)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        hidden = nn.functional.hardswish(images.flatten(1)[:, :12] * 4)
        logits = self.fc(hidden)
        return torch.cat([logits, torch.zeros_like(logits[:, :1]) * self.sign], 1)


def test_laws_1_and_4_are_of_bits_and_zeros_have_signs():
    images = torch.randn(2, 3, 4, 4)
    module = Signs(1.0).eval()
    before = fingerprint(module, images)
    assert prove_strip(before.outputs, module, layout_of(module), images)["eval_outputs_equal"]
    module.sign = -1.0
    assert torch.equal(module(images), before.outputs[0]), "equal, and not the same"
    with pytest.raises(VerificationError, match="law 4"):
        prove_strip(before.outputs, module, layout_of(module), images)
    grafted = attach(module, "fc", replicas=T, rate=0.1)
    with pytest.raises(VerificationError, match="law 1"):
        prove_graft(grafted, before, images)


def test_law_2_leaves_the_sign_of_zeros_aside():
    """No sum with zero keeps -0; hard swish makes it, as in MobileNetV3."""
    images = torch.randn(2, 3, 4, 4)
    hidden = nn.functional.hardswish(images.flatten(1)[:, :12] * 4)
    assert (hidden.eq(0) & hidden.signbit()).any()
    module = Signs(1.0).eval()
    before = fingerprint(module, images)
    assert all(prove_graft(attach(module, "fc", replicas=T, rate=0.1), before, images).values())
