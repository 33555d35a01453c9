"""Laws 1 to 4 of replicas of depth over every encoder of transformers: tiny, of two samples the second is padded.

Shapes: N = 2 samples, T = 2 replicas.
"""

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from tiny_transformers import saved, tiny
from torch import Tensor

from spgsurgeon.commands.inspect import inspect
from spgsurgeon.commands.modules import graft, strip
from spgsurgeon.errors import ArchitectureError, UsageError
from spgsurgeon.models.modes import run_in_eval
from spgsurgeon.models.sites.transformers_depth import find_transformers_depth_site
from spgsurgeon.models.sites.transformers_heads import AUDIO, HEADS
from spgsurgeon.models.transformers_examples import example_of
from spgsurgeon.objective.loss import spg_loss
from spgsurgeon.replicas.grafted import GraftedModel, layout_of
from spgsurgeon.replicas.outputs import outputs_of
from spgsurgeon.surgery.proof import fingerprint, prove_graft, prove_strip

N, T = 2, 2
ENCODERS = [name for name, head in HEADS.items() if head.family.layers]
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # of WavLM's own attention


def encoder(name: str, **fields: Any) -> Any:
    """Return a tiny model of the class that skips no layer by chance."""
    return tiny(name, **({"layerdrop": 0.0} if HEADS[name].family.modality == "waves" else {}), **fields)


@dataclass(frozen=True)
class Operated:
    """What was seen of a class on the way: grafted, trained for two steps, stripped."""

    before: dict[str, Tensor]
    outputs: tuple[Tensor, ...]  # of the base
    eval_outputs: tuple[Tensor, ...]  # of the fresh graft
    graft_proof: dict[str, bool]
    hidden: Tensor  # [T+1, N, ...]
    stacked: Tensor  # [(T+1)*N, ...]
    without_gradient: list[str]  # replica parameters without one in both steps
    trained_outputs: tuple[Tensor, ...]
    strip_proof: dict[str, bool]
    stripped: Any
    layout: Any


@cache
def operate(name: str) -> Operated:
    module = encoder(name)
    inputs = example_of(module)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    layout, seen = layout_of(module), fingerprint(module, inputs)
    grafted = graft(module, "depth", replicas=T)
    eval_outputs = outputs_of(run_in_eval(grafted, inputs))
    proof = prove_graft(grafted, seen, inputs)
    hidden, stacked = of_replicas(grafted, inputs)
    without = train_two_steps(grafted, inputs)
    trained = outputs_of(run_in_eval(grafted.eval(), inputs))
    stripped = strip(grafted)
    return Operated(
        before, seen.outputs, eval_outputs, proof, hidden, stacked, without, trained,
        prove_strip(trained, stripped, layout, inputs), stripped, layout,
    )  # fmt: skip


@torch.no_grad()
def of_replicas(grafted: GraftedModel, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return hidden states and logits of all steps, of a pass in which only the chain is in train mode: no dropout."""
    grafted.eval().replicas.training = grafted.replicas[0].training = True
    states, stacked = grafted.hidden_states(**inputs)
    return next(iter(states.values())), stacked


def train_two_steps(grafted: GraftedModel, inputs: dict[str, Tensor]) -> list[str]:
    """Train without dropout; return which weights of replicas had no gradient in either step."""
    grafted.train()
    for part in grafted.modules():
        if hasattr(part, "p"):
            part.eval()
    optimizer = torch.optim.SGD(grafted.parameters(), lr=0.01)
    missing = dict(grafted.replicas.named_parameters())
    for _ in range(2):
        optimizer.zero_grad()
        grafted(**inputs).square().mean().backward()
        optimizer.step()
        missing = {key: value for key, value in missing.items() if value.grad is None or not value.grad.any()}
    return list(missing)


each_encoder = pytest.mark.parametrize("name", ENCODERS)


@each_encoder
def test_law_1_a_graft_in_eval_mode_is_the_base(name):
    seen = operate(name)
    assert all(map(torch.equal, seen.eval_outputs, seen.outputs))
    assert all(seen.graft_proof.values())


@each_encoder
def test_law_2_replicas_start_as_the_identity_and_every_step_gives_the_bases_logits(name):
    seen = operate(name)
    assert len(seen.hidden) == T + 1
    assert all(torch.equal(state, seen.hidden[0]) for state in seen.hidden)
    expected = torch.stack(seen.outputs, -1) if len(seen.outputs) > 1 else seen.outputs[0]
    for step in seen.stacked.chunk(T + 1):  # a product of other rows is rounded otherwise
        torch.testing.assert_close(step, expected, rtol=1e-4, atol=1e-5)


@each_encoder
def test_law_2_holds_in_bfloat16(name):
    module = encoder(name).to(torch.bfloat16)
    inputs = {
        key: value.to(torch.bfloat16) if value.is_floating_point() else value
        for key, value in example_of(module).items()
    }
    hidden, _ = of_replicas(graft(module, "depth", replicas=T), inputs)
    assert hidden.dtype == torch.bfloat16
    assert all(torch.equal(state, hidden[0]) for state in hidden)


@each_encoder
def test_law_3_stripping_leaves_keys_shapes_and_dtypes_as_they_were_and_no_hook(name):
    seen = operate(name)
    assert layout_of(seen.stripped) == seen.layout
    assert all(seen.strip_proof.values())
    after = seen.stripped.state_dict()
    assert any(not torch.equal(after[key], value) for key, value in seen.before.items())


@each_encoder
def test_law_4_the_stripped_model_gives_what_the_grafted_one_gave(name):
    seen = operate(name)
    found = outputs_of(run_in_eval(seen.stripped, example_of(seen.stripped)))
    assert all(map(torch.equal, found, seen.trained_outputs))
    assert not all(map(torch.equal, found, seen.outputs))


@each_encoder
def test_every_weight_of_a_replica_learns_within_two_steps(name):
    assert operate(name).without_gradient == []


@each_encoder
def test_a_replica_with_an_open_gate_is_the_model_with_one_more_layer(name):
    module = encoder(name)
    inputs = example_of(module)  # the second text is padded: without its mask the layer would read the padding
    grafted = graft(module, "depth", replicas=T)
    path = grafted.places[0].site.module
    last = module.get_submodule(path)
    block = grafted.replicas[0][0][0]
    block.layer.load_state_dict(last.state_dict())
    torch.nn.init.ones_(block.gate)
    steps = of_replicas(grafted, inputs)[1].chunk(T + 1)
    deeper = encoder(name, **{"n_layers" if hasattr(module.config, "n_layers") else "num_hidden_layers": 3})
    own = {key: value for key, value in module.state_dict().items() if not key.startswith(f"{path}.")}
    assert deeper.load_state_dict(own, strict=False).unexpected_keys == []
    for number in (1, 2):
        deeper.get_submodule(f"{path.rpartition('.')[0]}.{number}").load_state_dict(last.state_dict())
    outputs = outputs_of(run_in_eval(deeper, inputs))
    expected = torch.stack(outputs, -1) if len(outputs) > 1 else outputs[0]
    torch.testing.assert_close(steps[1], expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(steps[2], expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(steps[0], expected, rtol=1e-3, atol=1e-4)


def test_a_padded_text_gets_the_same_logits_alone_and_unpadded():
    module = encoder("BertForSequenceClassification")
    inputs = example_of(module)
    grafted = graft(module, "depth", replicas=T)
    for replica in grafted.replicas[0]:
        torch.nn.init.ones_(replica[0].gate)
    length = int(inputs["attention_mask"][1].sum())
    assert length < inputs["input_ids"].shape[1]
    alone = {key: value[1:, :length] for key, value in inputs.items()}
    found = of_replicas(grafted, inputs)[1].unflatten(0, (T + 1, N))[:, 1]
    torch.testing.assert_close(found, of_replicas(grafted, alone)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "Wav2Vec2ForSequenceClassification"])
def test_a_copy_of_a_graft_has_hooks_of_its_own(name):
    grafted = graft(encoder(name), "depth", replicas=T)
    inputs = example_of(grafted.base)
    copied = copy.deepcopy(grafted).train()
    grafted.eval()
    assert len(copied(**inputs)) == (T + 1) * N
    assert len(outputs_of(grafted(**inputs))[0]) == N


def test_it_trains_by_spg_loss_under_autocast_and_with_checkpointed_activations():
    grafted = graft(encoder("BertForSequenceClassification"), "depth", replicas=T).train()
    base = grafted.base
    getattr(base, "activation_checkpointing_enable", base.gradient_checkpointing_enable)()  # by the library's version
    with torch.autocast("cpu", torch.bfloat16):
        logits = grafted(**example_of(grafted.base))
    labels = logits[:N].detach().argmax(1)  # right at step 0, so that the episode goes on
    result = spg_loss(logits, labels, weights=(0.4, 0.2), label_smoothing=0.1)
    result.loss.backward()
    assert result.episode.lengths.shape == (N,)
    assert grafted.replicas[0][0][0].gate.grad.any()
    assert grafted.base.bert.encoder.layer[0].output.dense.weight.grad.any()


@pytest.mark.parametrize("name", [name for name in ENCODERS if HEADS[name].task == AUDIO and name.startswith("W")])
def test_layers_that_are_skipped_by_chance_are_refused_saying_what_to_do(name):
    with pytest.raises(ArchitectureError, match="skips each layer by chance") as caught:
        graft(tiny(name, layerdrop=0.1), "depth")
    assert '"layerdrop": 0.0' in caught.value.hint


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("AlbertForSequenceClassification", {}, "runs one layer again and again"),
        ("GPT2ForSequenceClassification", {}, "not known for a GPT2ForSequenceClassification"),
        ("ConvNextForImageClassification", {}, "not known for a ConvNextForImageClassification"),
        ("WavLMForSequenceClassification", {"layerdrop": 0.0, "use_weighted_layer_sum": True}, "of all layers"),
    ],
)
def test_what_has_no_last_layer_to_follow_is_refused_with_the_reason(name, fields, reason):
    with pytest.raises(ArchitectureError, match=reason):
        graft(tiny(name, **fields), "depth")


def test_a_mesh_with_an_axis_of_depth_is_refused():
    axes = [{"kind": "dropout", "replicas": 2}, {"kind": "depth", "replicas": 2}]
    with pytest.raises(UsageError, match="has no axis of depth in a BertForSequenceClassification"):
        graft(encoder("BertForSequenceClassification"), "mesh", axes=axes)


@pytest.mark.parametrize("name", [name for name in ENCODERS if name.endswith("SequenceClassification")])
def test_inspect_says_of_a_folder_what_the_model_has(name, tmp_path):
    module = encoder(name)
    expected = find_transformers_depth_site(module)
    found = inspect(str(saved(module, tmp_path / "base")), values=False)["sites"]["depth"]
    assert found["module"] == expected.module
    assert (found["width"], found["depths"]) == (expected.width, expected.depths(3))
    assert found["temporary_parameters"] == expected.temporary_parameters(3)


def test_inspect_names_no_depth_where_a_graft_would_refuse_it(tmp_path):
    for number, name in enumerate(("AlbertForSequenceClassification", "Wav2Vec2ForSequenceClassification")):
        assert "depth" not in inspect(str(saved(tiny(name), tmp_path / str(number))), values=False)["sites"]
