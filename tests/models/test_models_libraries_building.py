"""From an identity and tensors to a module that holds exactly these tensors."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from families import Family, require
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from spgsurgeon.errors import ArchitectureError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.models.libraries.building import (
    _parameters_on_meta,
    build,
    build_for_loading,
    fit_identity,
    load_weights,
    with_classes,
)
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.replicas.outputs import main_output

RESNET = Identity("timm", "test_resnet", 7)
VIT = Identity("timm", "test_vit", 7, {"img_size": 32})
SQUEEZENET = Identity("torchvision", "squeezenet1_1", 7)
LEVIT = Identity("timm", "levit_128s", 7, {"img_size": 32})
GOOGLENET = Identity("torchvision", "googlenet", 7)
DEEPLAB = Identity("torchvision", "deeplabv3_mobilenet_v3_large", 7)
LRASPP = Identity("torchvision", "lraspp_mobilenet_v3_large", 7)


def weights(identity: Identity, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return build(identity).to(dtype).state_dict()


@pytest.mark.parametrize("identity", [RESNET, SQUEEZENET])
def test_the_tensors_become_the_weights_without_a_copy_and_with_their_dtype(identity):
    tensors = dict(reversed(weights(identity, torch.bfloat16).items()))
    module = build(identity)
    keys = list(module.state_dict())
    load_weights(module, tensors, identity.name)
    state = module.state_dict()
    assert list(state) == keys
    assert all(state[key].data_ptr() == tensors[key].data_ptr() for key in keys)
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.bfloat16}
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_weights_of_a_model_that_asks_for_a_format_version_are_taken_from_a_plain_dict():
    mnasnet = Identity("torchvision", "mnasnet0_5", 7)
    load_weights(build_for_loading(mnasnet), dict(weights(mnasnet)), mnasnet.name)


def test_every_fault_of_a_checkpoint_is_named_and_the_module_stays_as_it_was():
    tensors = weights(RESNET)
    del tensors["fc.bias"]
    tensors |= {"fc.weight": torch.zeros(9, 96), "head.weight": torch.zeros(1)}
    module = build(RESNET)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(ArchitectureError) as caught:
        load_weights(module, tensors, "timm/test_resnet")
    assert caught.value.message == (
        "the checkpoint does not fit timm/test_resnet: missing fc.bias; unexpected head.weight; "
        "fc.weight is [9, 96], expected [7, 96]"
    )
    assert len(caught.value.details["faults"]) == 3
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_many_faults_are_counted():
    with pytest.raises(ArchitectureError, match=r"missing conv1.*; and|and \d+ more$") as caught:
        load_weights(build(RESNET), {}, "timm/test_resnet")
    counters = [key for key in weights(RESNET) if key.endswith("num_batches_tracked")]
    assert len(caught.value.details["faults"]) == len(weights(RESNET)) - len(counters)


def test_counters_may_be_absent_and_are_said_to_start_at_zero():
    tensors = {key: value for key, value in weights(RESNET).items() if not key.endswith("num_batches_tracked")}
    module = build(RESNET)
    assert load_weights(module, weights(RESNET), RESNET.name) == []
    [note] = load_weights(module, tensors, RESNET.name)
    assert note == f"{len(weights(RESNET)) - len(tensors)} counters of batch norms are absent and start at 0"


def test_an_identity_takes_the_classes_and_input_channels_of_the_checkpoint():
    grey = Identity("timm", "test_resnet", 7, {"in_chans": 1})
    assert fit_identity(Identity("timm", "test_resnet", 1000), weights(grey)) == replace(grey)
    assert fit_identity(Identity("timm", "test_resnet", 1000), weights(RESNET)) == RESNET
    assert fit_identity(Identity("torchvision", "squeezenet1_1", 1000), weights(SQUEEZENET)) == SQUEEZENET
    assert fit_identity(Identity("timm", "test_vit", 1000), weights(VIT)) == VIT  # positions for images of 32 pixels
    usual = Identity("timm", "test_vit", 7)
    assert fit_identity(usual, weights(usual)) == usual


@pytest.mark.parametrize("without", [{}, {"aux_logits": False}])
def test_the_classes_of_several_heads_and_which_of_them_there_are_is_read_from_the_shapes(without):
    found = replace(GOOGLENET, model_args=without)
    assert fit_identity(Identity("torchvision", "googlenet", 1000), weights(found)) == found
    assert fit_identity(Identity("timm", "levit_128s", 1000, {"img_size": 32}), weights(LEVIT)) == LEVIT


@pytest.mark.parametrize("found", [DEEPLAB, replace(DEEPLAB, model_args={"aux_loss": False}), LRASPP], ids=str)
def test_the_heads_and_classes_of_a_segmentation_model_are_read_from_the_shapes(found):
    assert fit_identity(replace(found, num_classes=21, model_args={}), weights(found)) == found
    assert fit_identity(replace(found, num_classes=21, model_args={}), weights(found), 7) == found


def test_numbers_of_classes_that_disagree_leave_the_identity_as_it_was():
    tensors = weights(RESNET) | {"fc.bias": torch.zeros(9)}
    assert fit_identity(Identity("timm", "test_resnet", 1000), tensors).num_classes == 1000


@pytest.mark.parametrize("said", [0, 1000])
def test_a_checkpoint_without_a_head_is_of_a_model_without_a_classifier(said):
    headless = replace(RESNET, num_classes=0)
    assert fit_identity(replace(RESNET, num_classes=said), weights(headless)) == headless
    assert fit_identity(replace(RESNET, num_classes=said), weights(RESNET)) == RESNET


@pytest.mark.parametrize(
    ("identity", "heads"),
    [
        (RESNET, ("fc.",)),
        (SQUEEZENET, ("classifier.1.",)),
        (VIT, ("head.",)),
        (LEVIT, ("head.linear.", "head_dist.linear.")),
        (GOOGLENET, ("fc.", "aux1.fc2.", "aux2.fc2.")),
    ],
    ids=lambda case: str(case),
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_number_of_classes_keeps_everything_but_the_heads(identity, heads, dtype):
    module = build(identity).to(dtype)
    before = module.state_dict()
    other, renamed = with_classes(module, identity, 4)
    assert renamed == replace(identity, num_classes=4)
    after = other.state_dict()
    assert list(after) == list(before)
    for key, value in after.items():
        assert value.dtype == before[key].dtype
        assert value.shape[0] == 4 if key.startswith(heads) else torch.equal(value, before[key])
    assert other(torch.zeros(2, 3, 64, 64, dtype=dtype)[..., :32, :32]).shape == (2, 4)


@pytest.mark.parametrize(
    ("identity", "heads"),
    [
        (DEEPLAB, ("classifier.4.", "aux_classifier.4.")),
        (replace(DEEPLAB, model_args={"aux_loss": False}), ("classifier.4.",)),
        (LRASPP, ("classifier.low_classifier.", "classifier.high_classifier.")),
    ],
    ids=str,
)
def test_another_number_of_classes_of_pixels_keeps_everything_but_the_last_layers(identity, heads):
    module = build(identity)
    before = module.state_dict()
    other, renamed = with_classes(module, identity, 4)
    assert renamed == replace(identity, num_classes=4)
    for key, value in other.state_dict().items():
        assert value.shape[0] == 4 if key.startswith(heads) else torch.equal(value, before[key])
    assert other(torch.zeros(1, 3, 64, 64))["out"].shape == (1, 4, 64, 64)


@pytest.mark.parametrize("identity", [RESNET, SQUEEZENET, VIT, LEVIT, DEEPLAB], ids=str)
def test_all_classes_are_as_likely_to_a_new_head(identity):
    """And a gradient reaches it, whatever comes after the logits."""
    torch.manual_seed(0)
    module = build(identity)
    other, _ = with_classes(module, identity, 4)
    images = 2 * torch.randn(2, 3, 64, 64)[..., :32, :32]
    logits = main_output(other(images))
    target = torch.zeros(logits.shape[:1] + logits.shape[2:], dtype=torch.int64)
    loss = cross_entropy(logits, target)
    assert loss.item() == pytest.approx(math.log(4), rel=0.02)
    loss.backward()
    before = module.state_dict()
    new = [p for name, p in other.named_parameters() if before[name].shape != p.shape and "aux" not in name]
    assert new
    assert all(p.grad.norm() > 0 for p in new if p.dim() > 1)


def test_another_number_of_classes_drops_the_names_of_the_old_ones():
    named = replace(RESNET, pretrained_cfg={"label_names": ["a", "b"], "mean": [0.5, 0.5, 0.5]})
    assert with_classes(build(named), named, 4)[1].pretrained_cfg == {"mean": [0.5, 0.5, 0.5]}


def test_an_encoder_is_given_no_classifier_and_said_to_be_one():
    small = {"embed_dim": 32, "depth": 2, "num_heads": 2}
    require(Family("timm", "qwen3_vit_88m_enc"))
    encoder = Identity("timm", "qwen3_vit_88m_enc", 0, small)
    with pytest.raises(ArchitectureError, match="timm/qwen3_vit_88m_enc is an encoder"):
        with_classes(build(encoder), encoder, 4)
    assert fit_identity(encoder, weights(encoder)) == encoder


def test_a_model_without_a_classifier_is_given_one():
    headless = replace(RESNET, num_classes=0)
    module = build(headless)
    other, identity = with_classes(module, headless, 4)
    assert identity.num_classes == 4
    assert other(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    assert torch.equal(other.conv1[0].weight, module.conv1[0].weight)


@pytest.mark.parametrize("identity", [RESNET, VIT, SQUEEZENET])
def test_an_empty_module_draws_no_random_numbers_and_computes_as_any_other(identity):
    tensors = weights(identity)
    expected = build(identity)
    load_weights(expected, tensors, identity.name)
    before = torch.random.get_rng_state()
    module = build_for_loading(identity)
    assert torch.equal(torch.random.get_rng_state(), before)
    load_weights(module, tensors, identity.name)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(module(images), expected(images))


def test_opening_a_model_leaves_the_callers_random_numbers_alone(tmp_path):
    save_file(weights(VIT), tmp_path / "model.safetensors", {"architecture": "test_vit", "library": "timm"})
    save_file(weights(RESNET), tmp_path / "resnet.safetensors", {"architecture": "test_resnet", "library": "timm"})
    before = torch.random.get_rng_state()
    seeded = [open_model(ModelRequest("timm/test_vit", random_seed=seed)).module.state_dict() for seed in (0, 0, 1)]
    opened = open_model(ModelRequest(str(tmp_path / "resnet.safetensors")))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert opened.identity.num_classes == 7
    assert all(torch.equal(seeded[0][key], value) for key, value in seeded[1].items())
    assert not torch.equal(seeded[0]["pos_embed"], seeded[2]["pos_embed"])


class _DerivedBuffer(torch.nn.Linear):
    """Has a buffer, no part of its state dict, that is made of its parameters' numbers."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.register_buffer("norm", self.weight.detach().norm(), persistent=False)


class _Reader(torch.nn.Linear):
    """Reads a number of its parameters while it is built."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.first = self.weight.flatten()[0].item()


@pytest.mark.parametrize("kind", [_DerivedBuffer, _Reader])
def test_a_module_that_needs_its_parameters_numbers_has_them(kind, monkeypatch):
    class Library:
        def build(self, identity):
            try:
                return kind()
            except RuntimeError as error:
                raise ArchitectureError(str(error)) from error

    monkeypatch.setattr("spgsurgeon.models.libraries.building.library", lambda name: Library())
    module = build_for_loading(RESNET)
    assert not any(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()])


def test_other_modules_are_built_as_ever_afterwards_and_meanwhile_in_other_threads():
    module = build_for_loading(RESNET)
    assert all(parameter.is_meta for parameter in module.parameters())
    assert not any(buffer.is_meta for buffer in module.buffers())
    assert not torch.nn.Linear(2, 2).weight.is_meta
    with _parameters_on_meta(), ThreadPoolExecutor() as pool:
        assert torch.nn.Linear(2, 2).weight.is_meta
        assert not pool.submit(torch.nn.Linear, 2, 2).result().weight.is_meta
