"""A head read in chunks gives what all of its logits give, and never has them."""

import pytest
import torch
from head_steps import HeadStep
from slow_walker import slow_objective
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from spgsurgeon.errors import UsageError
from spgsurgeon.objective.chunked_readout import CHUNK, read_hidden
from spgsurgeon.objective.loss import FORMS, loss_of_readout, spg_loss

WEIGHTS = (0.4, 0.2, 0.1)
STEPS = 4
IGNORED = -100
SAMPLES, LENGTH, WIDTH, VOCABULARY = 3, 8, 6, 11


@pytest.fixture
def head():
    return nn.Linear(WIDTH, VOCABULARY, dtype=torch.float64)


@pytest.fixture
def hidden():
    return torch.randn(STEPS * SAMPLES, LENGTH, WIDTH, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def target(head, hidden):
    """Most units are right at first, fewer later; some are ignored."""
    target = head(hidden.detach()).argmax(-1).view(STEPS, SAMPLES, LENGTH).mode(0).values
    target[0, 3:5] = target[2, -2:] = IGNORED
    return target


def chunked(hidden, head, target, form="step", chunk=5, **options):
    return loss_of_readout(read_hidden(hidden, head, target, STEPS, chunk=chunk, **options), WEIGHTS, form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunk", [1, 5, 1000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_chunks_agree_with_the_slow_walker(form, chunk, smoothing, hidden, head, target):
    fast = chunked(hidden, head, target, form, chunk, label_smoothing=smoothing)
    logits = head(hidden).unflatten(0, (STEPS, -1))

    def at(t, place):
        entropy = cross_entropy(logits[t][place], target[place], label_smoothing=smoothing)
        return entropy.item(), bool(logits[t][place].argmax() == target[place])

    counted = [tuple(place) for place in (target != IGNORED).nonzero().tolist()]
    slow = slow_objective([[at(t, place) for t in range(STEPS)] for place in counted], WEIGHTS, form)
    assert fast.loss.item() == pytest.approx(slow, rel=1e-6)
    assert len(set(fast.episode.lengths.flatten().tolist())) > 2


@pytest.mark.parametrize("form", FORMS)
def test_everything_but_the_entropy_of_padding_is_that_of_all_logits(form, hidden, head, target):
    inputs = [hidden, *head.parameters()]
    whole = spg_loss(head(hidden), target, WEIGHTS, form, loss_normalization=True, class_dim=-1)
    readout = read_hidden(hidden, head, target, STEPS, chunk=5)
    parts = loss_of_readout(readout, WEIGHTS, form, loss_normalization=True)
    for ours, theirs in zip(
        torch.autograd.grad(parts.loss, inputs), torch.autograd.grad(whole.loss, inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    assert torch.equal(parts.step_sizes, whole.step_sizes)
    torch.testing.assert_close(parts.step_losses, whole.step_losses)
    counted = parts.episode.counted
    assert torch.equal(counted, whole.episode.counted)
    assert torch.equal(parts.episode.lengths[counted], whole.episode.lengths[counted])
    read = parts.episode.valid_mask & counted
    torch.testing.assert_close(parts.cross_entropy, whole.cross_entropy * read)


def test_a_step_reads_the_units_that_are_still_valid(hidden, head, target):
    seen = []

    def counting(states):
        seen.append(len(states))
        return head(states)

    result = chunked(hidden, counting, target, chunk=1000)
    assert seen == result.step_sizes.tolist()
    assert seen[0] == (target != IGNORED).sum()
    assert seen == sorted(seen, reverse=True)
    assert seen[0] > seen[-1] > 0


class Largest(TorchDispatchMode):
    """Remembers the most rows of logits that any operator gave."""

    rows = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        found = function(*arguments, **(options or {}))
        for tensor in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(tensor, torch.Tensor) and tensor.dim() > 1 and tensor.shape[-1] == VOCABULARY:
                self.rows = max(self.rows, tensor.numel() // VOCABULARY)
        return found


def test_no_more_logits_than_those_of_a_chunk_exist(hidden, target):
    head = nn.Linear(2 * WIDTH, VOCABULARY)  # wider, so that its weight is not taken for logits
    states = torch.cat([hidden.detach().float()] * 2, dim=-1).requires_grad_()
    with Largest() as largest:
        chunked(states, head, target, chunk=13).loss.backward()
    assert largest.rows == 13
    with Largest() as largest:
        spg_loss(head(states), target, class_dim=-1).loss.backward()
    assert largest.rows == STEPS * SAMPLES * LENGTH


def test_chunks_take_at_most_half_more_than_the_plain_head():
    """At the height of a step whose units are all valid. The peaks grow with the vocabulary, which is small here."""
    step = HeadStep(vocabulary=3000, tokens=512, width=768, weights=WEIGHTS, device=torch.device("cpu"))
    assert step.chunked(CHUNK).item() == pytest.approx(step.stacked().item(), rel=1e-5)
    plain, stacked, in_chunks = (step.peak(loss) for loss in (step.plain, step.stacked, lambda: step.chunked(CHUNK)))
    states = step.hidden.numel() * 4  # the gradient of T+1 hidden states does not grow with the vocabulary
    assert in_chunks - states <= 1.35 * plain
    assert stacked > 3.5 * plain


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_without_counted_tokens_gives_zero_with_a_graph_to_every_weight(form, hidden, head, target):
    result = chunked(hidden, head, torch.full_like(target, IGNORED), form)
    result.loss.backward()
    assert result.loss.item() == 0
    for tensor in (hidden, *head.parameters()):
        assert torch.equal(tensor.grad, torch.zeros_like(tensor))


def test_a_step_that_no_token_reaches_still_leads_to_its_hidden_states(head, target):
    """Processes wait for each other's gradients, so one that has none to give must say so with zeros."""
    parts = [torch.randn(SAMPLES, LENGTH, WIDTH, dtype=torch.float64, requires_grad=True) for _ in range(STEPS)]
    wrong = (head(parts[0].detach()).argmax(-1) + 1) % VOCABULARY
    result = chunked(torch.cat(parts), head, wrong)
    result.loss.backward()
    assert result.step_sizes.tolist() == [24, 0, 0, 0]
    assert all(torch.equal(part.grad, torch.zeros_like(part)) for part in parts[1:])
    assert parts[0].grad.any()


def test_arithmetic_is_float32_under_autocast_and_the_head_is_under_it(hidden, target):
    head = nn.Linear(WIDTH, VOCABULARY)
    states, dtypes = hidden.detach().float(), []

    def watched(rows):
        dtypes.append(head(rows).dtype)
        return head(rows)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = chunked(states, watched, target)
        logits = head(states)
    assert set(dtypes) == {torch.bfloat16}
    assert result.loss.dtype == torch.float32
    whole = spg_loss(logits, target, class_dim=-1)
    assert result.loss.item() == pytest.approx(whole.loss.item(), rel=1e-6)


def test_under_autocast_gradients_are_summed_over_chunks_in_float32():
    torch.manual_seed(0)
    head, states = nn.Linear(8, 5, bias=False), torch.randn(2048, 8)
    target = torch.randint(5, (2048,))

    def gradient(chunk):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            readout = read_hidden(states, head, target, 1, chunk=chunk)
        return torch.autograd.grad(readout.cross_entropy.sum(), head.weight)[0]

    exact = torch.autograd.grad(cross_entropy(head(states), target, reduction="sum"), head.weight)[0]
    error = (gradient(8) - exact).norm() / exact.norm()
    assert error <= 1.5 * (gradient(2048) - exact).norm() / exact.norm()


def test_weights_that_are_used_elsewhere_too_get_the_whole_gradient(hidden, target):
    """As an embedding that the head is tied to."""
    embedding = nn.Embedding(VOCABULARY, WIDTH, dtype=torch.float64)
    tokens = torch.randint(VOCABULARY, (STEPS * SAMPLES, LENGTH))

    def gradient(read):
        states = hidden.detach() + embedding(tokens)
        return torch.autograd.grad(read(states, lambda rows: rows @ embedding.weight.T), embedding.weight)[0]

    torch.testing.assert_close(
        gradient(lambda states, head: chunked(states, head, target, "episode").loss),
        gradient(lambda states, head: spg_loss(head(states), target, form="episode", class_dim=-1).loss),
    )


def test_gradients_have_gradients(hidden, head, target):
    def curvature(loss):
        (slope,) = torch.autograd.grad(loss, head.weight, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), head.weight)[0]

    torch.testing.assert_close(
        curvature(chunked(hidden, head, target).loss), curvature(spg_loss(head(hidden), target, class_dim=-1).loss)
    )


def test_a_row_can_be_one_unit(head):
    hidden, target = torch.randn(STEPS * 9, WIDTH, dtype=torch.float64), torch.randint(VOCABULARY, (9,))
    assert chunked(hidden, head, target).loss.item() == pytest.approx(spg_loss(head(hidden), target).loss.item())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"target": torch.zeros(SAMPLES, LENGTH)}, "soft-labels-not-asked-for"),
        ({"target": torch.zeros(SAMPLES, LENGTH - 1, dtype=torch.long)}, "unfit-target"),
        ({"target": torch.zeros(SAMPLES + 1, LENGTH, dtype=torch.long)}, "unfit-rows"),
        ({"head": lambda states: states.sum(1)}, "unfit-head"),
        ({"chunk": 0}, "usage"),
    ],
)
def test_what_does_not_fit_is_refused(change, code, hidden, head, target):
    with pytest.raises(UsageError) as refusal:
        chunked(**{"hidden": hidden, "head": head, "target": target, **change})
    assert refusal.value.code == code
