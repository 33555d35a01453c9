"""Laws 1 to 4 over every class of transformers in the table: tiny, with two samples of which the second is padded.

Shapes: N = 2 samples, T = 2 replicas, K = outputs where there are several.
"""

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tiny_transformers import CLASSES, tiny
from torch import Tensor, nn

from spgsurgeon.commands.modules import graft, strip
from spgsurgeon.errors import ArchitectureError, UsageError
from spgsurgeon.models.modes import run_in_eval
from spgsurgeon.models.sites.transformers_heads import AUDIO, CHOICE, HEADS, QUESTION, TEXT
from spgsurgeon.models.transformers_examples import example_of
from spgsurgeon.objective.loss import spg_loss
from spgsurgeon.replicas.grafted import GraftedModel, layout_of
from spgsurgeon.replicas.outputs import joined, outputs_of
from spgsurgeon.surgery.proof import fingerprint, prove_graft, prove_strip

N, T = 2, 2
PROBLEMS = ("regression", "multi_label_classification")
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # of WavLM's own attention
TILED = [name for name, head in HEADS.items() if head.tiled]


@dataclass(frozen=True)
class Operated:
    """What was seen of a class on the way: grafted, trained for a step, stripped."""

    inputs: dict[str, Tensor]
    before: dict[str, Tensor]
    outputs: tuple[Tensor, ...]  # of the base
    eval_outputs: tuple[Tensor, ...]  # of the fresh graft
    graft_proof: dict[str, bool]
    hidden: Tensor  # [T+1, N, ...]
    stacked: Tensor  # [(T+1)*N, ...], without any dropout
    body_rows: list[int]
    first_gradient: Tensor
    trained_outputs: tuple[Tensor, ...]  # of the graft after a step
    strip_proof: dict[str, bool]
    stripped: Any
    layout: Any


@cache
def operate(name: str) -> Operated:
    module = tiny(name)
    inputs = example_of(module)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    layout, seen = layout_of(module), fingerprint(module, inputs)
    grafted = graft(module, replicas=T, rate=0.3)
    eval_outputs = outputs_of(run_in_eval(grafted, inputs))
    proof = prove_graft(grafted, seen, inputs)
    hidden, stacked, rows = without_dropout(grafted, inputs)
    grafted.train()
    optimizer = torch.optim.SGD(grafted.parameters(), lr=0.01)
    grafted(**inputs).square().mean().backward()
    gradient = grafted.replicas[0][0].projection.weight.grad.clone()
    optimizer.step()
    trained = outputs_of(run_in_eval(grafted.eval(), inputs))
    stripped = strip(grafted)
    return Operated(
        inputs, before, seen.outputs, eval_outputs, proof, hidden, stacked, rows, gradient, trained,
        prove_strip(trained, stripped, layout, inputs), stripped, layout,
    )  # fmt: skip


def without_dropout(grafted: GraftedModel, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, list[int]]:
    """Return the hidden states, the logits of all steps, and how many rows the body saw, each time that it ran."""
    rows: list[int] = []
    body = grafted.base.base_model
    handle = body.register_forward_hook(lambda module, args, output: rows.append(len(output[0])))
    grafted.eval().replicas.train()
    for part in grafted.replicas.modules():
        if isinstance(part, nn.Dropout):
            part.eval()
    with torch.no_grad():
        states, stacked = grafted.hidden_states(**inputs)
    handle.remove()
    return next(iter(states.values())), stacked, rows


@pytest.mark.parametrize("name", HEADS)
def test_law_1_a_graft_in_eval_mode_is_the_base(name):
    seen = operate(name)
    assert all(map(torch.equal, seen.eval_outputs, seen.outputs))
    assert all(seen.graft_proof.values())


@pytest.mark.parametrize("name", HEADS)
def test_law_2_replicas_start_as_the_identity_and_every_step_gives_the_bases_logits(name):
    seen = operate(name)
    assert len(seen.hidden) == T + 1
    assert all(torch.equal(state, seen.hidden[0]) for state in seen.hidden)
    expected = torch.stack(seen.outputs, -1) if len(seen.outputs) > 1 else seen.outputs[0]
    for step in seen.stacked.chunk(T + 1):  # a product of other rows is rounded otherwise
        torch.testing.assert_close(step, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_the_body_runs_once_on_the_samples_alone(name):
    choices = 3 if HEADS[name].task == CHOICE else 1
    assert operate(name).body_rows == [N * choices]


@pytest.mark.parametrize("name", HEADS)
def test_the_first_replica_and_the_base_learn(name):
    seen = operate(name)
    assert seen.first_gradient.abs().sum() > 0
    after = seen.stripped.state_dict()
    assert any(not torch.equal(after[key], value) for key, value in seen.before.items())


@pytest.mark.parametrize("name", HEADS)
def test_law_3_stripping_leaves_keys_shapes_and_shared_words_as_they_were(name):
    seen = operate(name)
    assert layout_of(seen.stripped) == seen.layout
    assert all(seen.strip_proof.values())
    after = seen.stripped.state_dict(keep_vars=True)
    for key, source in seen.stripped.all_tied_weights_keys.items():
        assert after[key] is after[source]


@pytest.mark.parametrize("name", HEADS)
def test_law_4_the_stripped_model_gives_what_the_grafted_one_gave(name):
    seen = operate(name)
    found = outputs_of(run_in_eval(seen.stripped, seen.inputs))
    assert all(map(torch.equal, found, seen.trained_outputs))


@pytest.mark.parametrize("name", [name for name in TILED if HEADS[name].task == TEXT])
def test_a_padded_text_gets_the_same_logits_alone_and_unpadded(name):
    module = tiny(name)
    inputs = example_of(module)
    stacked = without_dropout(graft(module, replicas=T), inputs)[1]
    length = int(inputs["attention_mask"][1].sum())
    alone = {key: value[1:, :length] for key, value in inputs.items()}
    with torch.no_grad():
        expected = run_in_eval(strip(graft(module_like(module), replicas=T)), alone).logits
    for step in stacked.chunk(T + 1):
        torch.testing.assert_close(step[1:], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in TILED if HEADS[name].task == AUDIO])
def test_sound_without_a_mask_is_right_as_well_and_the_mask_counts(name):
    module = tiny(name)
    masked = example_of(module)
    inputs = {"input_values": masked["input_values"]}
    expected = outputs_of(run_in_eval(module, inputs))[0]
    assert not torch.allclose(expected, outputs_of(run_in_eval(module, masked))[0])
    for step in without_dropout(graft(module, replicas=T), inputs)[1].chunk(T + 1):
        torch.testing.assert_close(step, expected, rtol=1e-5, atol=1e-6)


def test_a_proof_leaves_the_generators_of_masks_as_they_were():
    module = tiny("Wav2Vec2ForSequenceClassification", mask_time_prob=0.5)
    inputs = example_of(module)
    np.random.seed(0)
    state, seen = np.random.get_state()[1].copy(), fingerprint(module, inputs)
    prove_graft(graft(module, replicas=T), seen, inputs)
    assert (np.random.get_state()[1] == state).all()
    assert np.random.get_state()[2] == 624  # not one number was drawn since


def module_like(module: Any) -> Any:
    """Return another module of the same class with the same weights and no hooks."""
    other = type(module)(module.config).eval()
    other.load_state_dict(module.state_dict())
    return other


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "LlamaForSequenceClassification", "GPT2LMHeadModel"])
def test_a_copy_of_a_graft_has_hooks_of_its_own(name):
    grafted = graft(tiny(name), replicas=T, rate=0.3)
    inputs = example_of(grafted.base)
    copied = copy.deepcopy(grafted)
    copied.train()
    assert len(copied(**inputs)) == (T + 1) * N
    assert len(joined(grafted(**inputs))) == N
    grafted.train()
    copied.eval()
    assert len(joined(copied(**inputs))) == N
    assert len(grafted(**inputs)) == (T + 1) * N


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "LlamaForSequenceClassification"])
def test_a_failed_pass_leaves_nothing_behind(name):
    grafted = graft(tiny(name), replicas=T, rate=0.0)
    inputs = example_of(grafted.base)
    grafted.train()
    handle = grafted.base.base_model.register_forward_pre_hook(fail, prepend=True)
    with pytest.raises(RuntimeError, match="broken"):
        grafted(**inputs)
    handle.remove()
    many = {key: torch.cat([value] * (T + 1)) for key, value in inputs.items()}
    assert len(grafted.base.base_model(**many)[0]) == (T + 1) * N
    assert len(grafted(**inputs)) == (T + 1) * N
    grafted.eval()
    assert len(joined(grafted(**inputs))) == N


def fail(*_):
    raise RuntimeError("broken")


@pytest.mark.parametrize("name", TILED[:1])
def test_each_rollout_of_a_tiled_head_is_a_step_of_the_stacked_pass(name):
    module = tiny(name)
    inputs = example_of(module)
    rolled = graft(module_like(module), replicas=T, rate=0.0, head_batch="rollouts")
    stacked = without_dropout(graft(module, replicas=T), inputs)[1]
    torch.testing.assert_close(without_dropout_of_replicas(rolled, inputs), stacked, rtol=1e-5, atol=1e-6)


def without_dropout_of_replicas(grafted: GraftedModel, inputs: dict[str, Tensor]) -> Tensor:
    grafted.eval().replicas.train()
    with torch.no_grad():
        return grafted(**inputs)


def test_keys_and_values_are_not_kept_while_grafted_unless_asked_for_and_are_again_afterwards():
    module = tiny("LlamaForCausalLM")
    inputs, before = example_of(module), module.config.to_dict()
    grafted = graft(module, replicas=T)
    assert grafted(**inputs).past_key_values is None
    assert grafted(**inputs, use_cache=True).past_key_values is not None
    module = strip(grafted)
    assert module(**inputs).past_key_values is not None
    assert module.config.to_dict() == before


def test_a_text_classifier_trains_by_spg_loss():
    grafted = graft(tiny("BertForSequenceClassification"), replicas=T, rate=0.3).train()
    labels = torch.tensor([0, 2])
    result = spg_loss(grafted(**example_of(grafted.base)), labels, weights=(0.4, 0.2))
    result.loss.backward()
    assert result.episode.lengths.shape == (N,)
    assert grafted.base.classifier.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("BertForSequenceClassification", {"labels": torch.tensor([0, 1])}),
        ("BertForQuestionAnswering", {"start_positions": torch.tensor([0, 1]), "end_positions": torch.tensor([2, 3])}),
    ],
)
def test_labels_do_not_go_into_a_grafted_model(name, labels):
    grafted = graft(tiny(name), replicas=T).train()
    with pytest.raises(UsageError, match="takes no"):
        grafted(**example_of(grafted.base), **labels)


def test_an_answers_start_and_end_come_stacked():
    assert all(operate(name).stacked.shape[2:] == (2,) for name in HEADS if HEADS[name].task == QUESTION)


@pytest.mark.parametrize("fields", [{"num_labels": 1}, *({"problem_type": problem} for problem in PROBLEMS)], ids=str)
def test_a_head_without_one_right_class_is_refused(fields):
    with pytest.raises(ArchitectureError, match="right class"):
        graft(tiny("BertForSequenceClassification", **fields))


def test_a_class_that_is_not_in_the_table_is_grafted_where_its_site_is_named():
    transformers = pytest.importorskip("transformers", minversion="5")
    config = tiny("BertForSequenceClassification").config
    module = transformers.BertForNextSentencePrediction(config).eval()
    with pytest.raises(ArchitectureError, match="BertForNextSentencePrediction"):
        graft(module)
    grafted = graft(module, site="cls.seq_relationship").train()
    inputs = {"input_ids": torch.ones(N, 5, dtype=torch.int64)}
    assert grafted(**inputs).shape == (4 * N, 2)


def test_two_texts_need_a_padding_token_where_the_last_one_is_looked_for():
    module = tiny("GPT2ForSequenceClassification", pad_token_id=None)
    with pytest.raises(ArchitectureError) as caught:
        example_of(module)
    assert caught.value.code == "no-padding-token"


def test_every_text_classifier_of_the_table_has_its_classes():
    assert all(operate(name).outputs[0].shape == (N, CLASSES) for name in HEADS if HEADS[name].task == TEXT)
