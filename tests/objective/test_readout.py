"""Every way of reading logits against the slow walker, and what is refused because it could be read otherwise."""

import itertools

import pytest
import torch
from slow_walker import slow_objective
from torch.nn.functional import cross_entropy, one_hot

from spgsurgeon.errors import UsageError
from spgsurgeon.objective.loss import FORMS, loss_of_readout, spg_loss
from spgsurgeon.objective.readout import fold_choices, read_logits, read_spans, shift_labels

WEIGHTS = (0.4, 0.2, 0.1)
STEPS = 4
IGNORED = -100


def lifted(logits, labels):
    """Return logits [T+1, ..., C] with the label's raised, so that episodes have all lengths."""
    return logits + 1.5 * one_hot(labels.clamp(min=0), logits.shape[-1])


def tokens(length, classes, samples=6):
    """Return logits [(T+1)*N, L, C] and labels [N, L] of which some are ignored."""
    labels = torch.randint(classes, (samples, length))
    labels[1::2, length // 2 :] = IGNORED  # padding
    return lifted(torch.randn(STEPS, samples, length, classes), labels).flatten(0, 1), labels


def slow_tokens(logits, labels, form, smoothing=0.0, soft=None):
    """`logits` [(T+1)*N, L, C] and `labels` [N, L], one token and step at a time; `soft` [N, L, C]."""
    rows = logits.unflatten(0, (STEPS, -1)).double()

    def at(t, place):
        target = labels[place] if soft is None else soft[place].double()
        entropy = cross_entropy(rows[t][place], target, label_smoothing=smoothing)
        return entropy.item(), bool(rows[t][place].argmax() == labels[place])

    places = itertools.product(*map(range, labels.shape))
    counted = [place for place in places if labels[place] != IGNORED]
    return slow_objective([[at(t, place) for t in range(STEPS)] for place in counted], WEIGHTS, form)


# The dimension of the classes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("length", "classes"), [(5, 3), (3, 5), (4, 4)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_tokens_have_their_classes_last(form, length, classes, smoothing):
    logits, labels = tokens(length, classes)
    fast = spg_loss(logits, labels, WEIGHTS, form, label_smoothing=smoothing, class_dim=-1)
    assert fast.loss.item() == pytest.approx(slow_tokens(logits, labels, form, smoothing), rel=1e-5)
    assert fast.episode.valid_mask.shape == (STEPS, *labels.shape)
    assert set(fast.episode.lengths[labels != IGNORED].tolist()) == {1, 2, 3, 4}
    second = spg_loss(logits.movedim(-1, 1), labels, WEIGHTS, form, label_smoothing=smoothing, class_dim=1)
    assert second.loss.item() == pytest.approx(fast.loss.item(), rel=1e-6)
    assert torch.equal(second.episode.lengths, fast.episode.lengths)


@pytest.mark.parametrize("class_dim", [1, 2, 3, -1, -2, -3])
@pytest.mark.parametrize("soft", [False, True])
def test_the_classes_can_be_anywhere(class_dim, soft):
    labels = torch.randint(4, (3, 4, 4))
    logits = lifted(torch.randn(STEPS, 3, 4, 4, 4), labels).flatten(0, 1)
    soft_labels = 0.7 * one_hot(labels, 4) + 0.3 * torch.rand(3, 4, 4, 4).softmax(-1)
    target = soft_labels.movedim(-1, class_dim) if soft else labels
    found = read_logits(logits.movedim(-1, class_dim), target, STEPS, class_dim=class_dim, soft=soft)
    for t, image, y, x in itertools.product(range(STEPS), range(3), range(4), range(4)):
        scores = logits.unflatten(0, (STEPS, -1))[t, image, y, x]
        truth = soft_labels[image, y, x] if soft else labels[image, y, x]
        assert found.cross_entropy[t, image, y, x].item() == pytest.approx(cross_entropy(scores, truth).item(), 1e-5)
        assert found.correct[t, image, y, x] == (scores.argmax() == labels[image, y, x])


@pytest.mark.parametrize("class_dim", [1, -1])
def test_further_outputs_share_a_target_wherever_the_classes_are(class_dim):
    labels = torch.tensor([0, 2, 1])
    outputs = [lifted(torch.randn(STEPS, 3, 5), labels).flatten(0, 1) for _ in range(5)]
    stacked = torch.stack(outputs, dim=2 if class_dim == 1 else 1)
    for target, soft in ((labels, False), (one_hot(labels, 5) * 0.5 + 0.1, True)):
        found = read_logits(stacked, target, STEPS, class_dim=class_dim, soft=soft)
        for number, output in enumerate(outputs):
            one = read_logits(output, target, STEPS, soft=soft)
            torch.testing.assert_close(found.cross_entropy[..., number], one.cross_entropy)
            assert torch.equal(found.correct[..., number], one.correct)


@pytest.mark.parametrize(
    ("logits", "target", "soft"),
    [
        ((8, 5, 5), (2, 5), False),  # tokens, as many as classes
        ((8, 5, 5, 5), (2, 5, 5), False),  # maps
        ((8, 6, 5), (2, 6, 5), True),  # soft labels are laid out as the logits, whichever way that is
        ((8, 5, 5), (2, 5), True),  # as many outputs as classes
    ],
)
def test_what_can_be_read_two_ways_is_refused_until_it_is_said(logits, target, soft):
    values = torch.rand(target) if soft else torch.zeros(target, dtype=torch.long)
    with pytest.raises(UsageError) as refusal:
        spg_loss(torch.randn(logits), values, WEIGHTS, soft=soft)
    assert refusal.value.code == "ambiguous-class-dim"
    assert f"class_dim={len(logits) - 1}" in refusal.value.hint
    first, last = (spg_loss(torch.ones(logits), values, WEIGHTS, soft=soft, class_dim=dim) for dim in (1, -1))
    assert first.loss.isfinite()
    assert last.loss.isfinite()


def test_what_has_always_been_read_is_read_without_being_asked():
    """[N, C], [N, C, H, W] and K outputs [N, C, K], also of as many classes as outputs or rows of a map."""
    for logits, target in (((8, 2), 2), ((8, 5, 5, 7), (2, 5, 7)), ((8, 5, 5), 2), ((8, 5, 5, 7, 2), (2, 5, 7))):
        values, labels = torch.randn(logits), torch.randint(2, (target,) if isinstance(target, int) else target)
        assert torch.equal(
            spg_loss(values, labels, WEIGHTS).cross_entropy,
            spg_loss(values, labels, WEIGHTS, class_dim=1).cross_entropy,
        )


@pytest.mark.parametrize(
    ("logits", "target", "options", "code"),
    [
        ((8, 6, 5), (2, 6), {}, "unfit-target"),  # tokens whose class_dim was forgotten
        ((8, 6, 5), (2, 6), {"class_dim": 1}, "unfit-target"),
        ((8, 5), (2, 5), {}, "unfit-target"),  # one-hot
        ((8, 5, 4, 4), (2, 4, 5), {}, "unfit-target"),
        ((8, 5), (2, 1), {}, "unfit-target"),
        ((8, 5), (2, 4), {"soft": True}, "unfit-target"),
        ((8, 5), (2,), {"soft": True}, "unfit-target"),
        ((8, 1), (2,), {}, "no-classes"),  # one score: regression, a binary logit, multiple choice
        ((8,), (2,), {}, "no-classes"),
        ((8, 5), (2,), {"class_dim": 2}, "no-such-class-dim"),
        ((8, 5), (2,), {"class_dim": 0}, "no-such-class-dim"),
        ((8, 5), (2,), {"class_dim": -2}, "no-such-class-dim"),
        ((9, 5), (2,), {}, "unfit-rows"),
        ((8, 5), (), {}, "unfit-rows"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(logits, target, options, code):
    values = torch.rand(target) if options.get("soft") else torch.zeros(target, dtype=torch.long)
    with pytest.raises(UsageError) as refusal:
        spg_loss(torch.randn(logits), values, WEIGHTS, **options)
    assert refusal.value.code == code


def test_a_forgotten_dimension_is_named():
    with pytest.raises(UsageError) as refusal:
        spg_loss(torch.randn(8, 6, 5), torch.zeros(2, 6, dtype=torch.long), WEIGHTS)
    assert "class_dim=2" in refusal.value.hint


# Soft labels


@pytest.mark.parametrize("form", FORMS)
def test_soft_labels_of_tokens(form):
    logits, labels = tokens(5, 3)
    labels = labels.clamp(min=0)
    soft = 0.7 * one_hot(labels, 3) + 0.3 * torch.rand(*labels.shape, 3).softmax(-1)
    fast = spg_loss(logits, soft, WEIGHTS, form, label_smoothing=0.1, class_dim=2, soft=True)
    assert fast.loss.item() == pytest.approx(slow_tokens(logits, labels, form, 0.1, soft), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.bool])
def test_targets_of_another_type_are_refused_unless_they_are_said_to_be_soft(dtype):
    target = torch.tensor([[1, 0, 1], [0, 1, 0]]).to(dtype)
    with pytest.raises(UsageError) as refusal:
        spg_loss(torch.randn(8, 3), target, WEIGHTS)
    assert refusal.value.code == "soft-labels-not-asked-for"
    for word in ("soft=True", "multi-label"):
        assert word in refusal.value.hint
    with pytest.raises(UsageError, match=r"\[2\]") as refusal:
        spg_loss(torch.randn(8, 3), target[:, 0], WEIGHTS)
    assert refusal.value.hint == "give class indices as integers: target.long()"


def test_class_indices_are_not_soft_labels():
    with pytest.raises(UsageError) as refusal:
        spg_loss(torch.randn(8, 3), torch.tensor([0, 1]), WEIGHTS, soft=True)
    assert refusal.value.code == "not-soft-labels"


# Questions answered by a span of the text


def spans(length=7, questions=40):
    """Return logits of starts and ends [(T+1)*N, L] and positions [N, 2], of which some are outside or ignored."""
    target = torch.randint(length, (questions, 2))
    starts, ends = (lifted(torch.randn(STEPS, questions, length), column) for column in target.unbind(1))
    target[::9, 0] = length  # as clamping leaves it
    target[1::9, 1] = length + 3
    target[2::9] = IGNORED
    return starts.flatten(0, 1), ends.flatten(0, 1), target


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_question_is_right_when_both_its_ends_are(form, smoothing):
    starts, ends, target = spans()

    def at(t, question):
        entropy, right = 0.0, True
        for logits, position in zip((starts, ends), target[question], strict=True):
            row = logits.unflatten(0, (STEPS, -1))[t, question].double()
            entropy += cross_entropy(row, position, label_smoothing=smoothing).item() / 2
            right = right and bool(row.argmax() == position)
        return entropy, right

    inside = [i for i, (start, end) in enumerate(target.tolist()) if 0 <= start < 7 and 0 <= end < 7]
    units = [[at(t, question) for t in range(STEPS)] for question in inside]
    readout = read_spans(starts, ends, target, STEPS, label_smoothing=smoothing)
    result = loss_of_readout(readout, WEIGHTS, form)
    assert result.loss.item() == pytest.approx(slow_objective(units, WEIGHTS, form), rel=1e-5)
    assert readout.counted.nonzero().flatten().tolist() == inside
    assert not result.cross_entropy[:, ~readout.counted].any()
    assert len(set(result.episode.lengths.tolist())) > 2


def test_questions_without_an_answer_in_the_text_give_zero_with_a_graph():
    starts, ends, target = spans()
    starts.requires_grad_()
    result = loss_of_readout(read_spans(starts, ends, torch.full_like(target, 7), STEPS), loss_normalization=True)
    result.loss.backward()
    assert result.loss.item() == 0
    assert torch.equal(starts.grad, torch.zeros_like(starts))


@pytest.mark.parametrize("shapes", [((8, 7), (8, 6), (2, 2)), ((8, 7), (8, 7), (2,)), ((8, 7, 2), (8, 7, 2), (2, 2))])
def test_spans_of_other_shapes_are_refused(shapes):
    start, end, target = shapes
    with pytest.raises(UsageError) as refusal:
        read_spans(torch.randn(start), torch.randn(end), torch.zeros(target, dtype=torch.long), STEPS)
    assert refusal.value.code == "unfit-target"


def test_positions_are_whole_numbers():
    with pytest.raises(UsageError) as refusal:
        read_spans(torch.randn(8, 7), torch.randn(8, 7), torch.zeros(2, 2), STEPS)
    assert refusal.value.code == "soft-labels-not-asked-for"


@pytest.mark.parametrize("form", FORMS)
def test_ranks_whose_questions_count_differently_agree_with_one_process(form):
    starts, ends, target = spans(questions=36)
    target[:6] = IGNORED
    whole = loss_of_readout(read_spans(starts, ends, target, STEPS), WEIGHTS, form)
    parts = []
    for rows in (slice(0, 18), slice(18, 36)):
        logits = [one.unflatten(0, (STEPS, -1))[:, rows].flatten(0, 1) for one in (starts, ends)]
        parts.append(read_spans(*logits, target[rows], STEPS))
    mean = torch.stack([loss_of_readout(part, WEIGHTS, form).step_sizes for part in parts]).mean(0)
    losses = [loss_of_readout(part, WEIGHTS, form, mean_over_ranks=lambda sizes: mean).loss.item() for part in parts]
    assert sum(losses) / 2 == pytest.approx(whole.loss.item(), rel=1e-5)


# Multiple choice and the next token


@pytest.mark.parametrize("form", FORMS)
def test_the_choices_of_a_question_are_its_classes(form):
    choices, questions = 4, 20
    labels = torch.randint(choices, (questions,))
    scores = lifted(torch.randn(STEPS, questions, choices), labels)  # of each step, question and choice
    logits = scores.reshape(STEPS * questions * choices, 1)  # as a head gives them, a choice a row
    fast = spg_loss(fold_choices(logits, choices), labels, WEIGHTS, form)
    units = []
    for question, label in enumerate(labels.tolist()):
        rows = [
            torch.stack([logits[(t * questions + question) * choices + k, 0] for k in range(choices)]) for t in range(4)
        ]
        units.append([(cross_entropy(row.double(), labels[question]).item(), row.argmax() == label) for row in rows])
    assert fast.loss.item() == pytest.approx(slow_objective(units, WEIGHTS, form), rel=1e-5)


@pytest.mark.parametrize(("shape", "choices"), [((8, 2), 2), ((9, 1), 2), ((8, 1), 1), ((8,), 2)])
def test_scores_that_are_not_those_of_choices_are_refused(shape, choices):
    with pytest.raises(UsageError) as refusal:
        fold_choices(torch.zeros(shape), choices)
    assert refusal.value.code == "unfit-choices"


@pytest.mark.parametrize("form", FORMS)
def test_a_causal_model_is_asked_for_the_next_token(form):
    labels = tokens(6, 5)[1]
    logits = lifted(torch.randn(STEPS, 6, 6, 5), labels.roll(-1, 1)).flatten(0, 1)
    fast = spg_loss(logits, shift_labels(labels), WEIGHTS, form, class_dim=-1)
    units = []
    for sample, place in itertools.product(range(6), range(5)):
        if (label := labels[sample, place + 1]) != IGNORED:
            rows = logits.unflatten(0, (STEPS, -1))[:, sample, place]
            units.append([(cross_entropy(row.double(), label).item(), row.argmax() == label) for row in rows])
    assert fast.loss.item() == pytest.approx(slow_objective(units, WEIGHTS, form), rel=1e-5)
    assert fast.step_sizes[0] == len(units)


def test_the_shift_is_that_of_transformers():
    losses = pytest.importorskip("transformers.loss.loss_utils")
    logits, labels = tokens(6, 5)
    theirs = losses.ForCausalLMLoss(logits[:6], labels, vocab_size=5)
    ours = spg_loss(logits[:6], shift_labels(labels), (), class_dim=-1).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_a_read_batch_needs_a_weight_for_each_step_after_the_first():
    readout = read_logits(torch.randn(8, 3), torch.tensor([0, 1]), STEPS)
    with pytest.raises(UsageError) as refusal:
        loss_of_readout(readout, (0.4,))
    assert refusal.value.code == "unfit-rows"


def test_the_form_is_step_unless_another_is_asked_for():
    logits, labels = tokens(5, 3)
    assert torch.equal(
        spg_loss(logits, labels, class_dim=-1).loss, spg_loss(logits, labels, WEIGHTS, "step", class_dim=-1).loss
    )
    readout = read_logits(logits, labels, STEPS, class_dim=-1)
    assert torch.equal(loss_of_readout(readout).loss, loss_of_readout(readout, WEIGHTS, "step").loss)
