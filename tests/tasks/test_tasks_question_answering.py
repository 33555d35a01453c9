"""Answers: which span is the likeliest, what it shares with those that are right, and what a question teaches."""

import itertools

import pytest
import torch
from tiny_runs import ONE_PROCESS

from spgsurgeon.data.sources.records.questions import Answers, Asked
from spgsurgeon.errors import UsageError
from spgsurgeon.objective.loss import loss_of_readout
from spgsurgeon.tasks.question_answering import (
    LONGEST,
    QUESTION_ANSWERING,
    AnswerTally,
    Questions,
    answer_f1,
    best_spans,
    normalized,
)

CONTEXT = "The cat, a big one, sat."
# [CLS] question [SEP] then a token for "The", "cat", ",", "a", "big", "one", ",", "sat", "." and [SEP]
STARTS = [-1, -1, -1, 0, 4, 7, 9, 11, 15, 18, 20, 23, -1]
ENDS = [-1, -1, -1, 3, 7, 8, 10, 14, 18, 19, 23, 24, -1]


def offsets() -> torch.Tensor:
    return torch.tensor([[STARTS, ENDS]])


def asked(*texts: str, tokens=(7, 8)) -> Questions:
    answers = Answers(texts, tuple(CONTEXT.index(text) for text in texts))
    targets = torch.cat([torch.tensor([[[tokens[0]], [tokens[1]]]]), offsets()], 2)
    return Questions(targets, [(Asked("q", CONTEXT), answers)])


def logits_for(start: int, end: int) -> torch.Tensor:
    logits = torch.zeros(1, len(STARTS), 2)
    logits[0, start, 0] = logits[0, end, 1] = 9.0
    return logits


def scored(logits: torch.Tensor, target: Questions):
    tally = AnswerTally(ONE_PROCESS)
    tally.add(logits, target)
    return tally.scores()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Cat.", ["cat"]),
        ("an  apple a day", ["apple", "day"]),
        ("U.S.A.", ["usa"]),
        ("anthem", ["anthem"]),
        ("«a»", ["«", "»"]),
        ("the", []),
    ],
)
def test_words_that_count(text, words) -> None:
    assert normalized(text) == words


def test_the_score_of_an_answer() -> None:
    assert answer_f1(["big", "one"], ["big", "one"]) == 1
    assert answer_f1(["big"], ["big", "one"]) == pytest.approx(2 / 3)
    assert answer_f1(["one", "one"], ["one"]) == pytest.approx(2 / 3)
    assert answer_f1([], ["one"]) == answer_f1([], []) == 0


def test_the_best_of_the_right_answers_counts() -> None:
    found = scored(logits_for(7, 8), asked("cat", "a big one"))
    assert (found["answer_f1"], found["exact_match"], found["samples"]) == (100, 100, 1)
    found = scored(logits_for(7, 7), asked("cat", "big one"))
    assert (found["answer_f1"], found["exact_match"]) == (pytest.approx(200 / 3), 0)


def test_an_answer_lies_in_the_context_and_its_end_not_before_its_start() -> None:
    for start, end in itertools.product(range(len(STARTS)), repeat=2):
        first, last = best_spans(logits_for(start, end), offsets())[0].tolist()
        assert 0 <= first < last <= len(CONTEXT)
        if 3 <= start <= end < 12:
            assert (first, last) == (STARTS[start], ENDS[end])


def test_the_likeliest_span_is_the_one_of_a_search() -> None:
    length = 2 * LONGEST
    places = torch.arange(length).expand(2, -1).T.clone() + torch.tensor([0, 1])
    offsets_of = torch.stack([places.T, places.T])
    offsets_of[1, :, :20] = -1
    logits = torch.randn(2, length, 2, generator=torch.Generator().manual_seed(0))
    for one, (first, last) in enumerate(best_spans(logits, offsets_of).tolist()):
        allowed = range(20 if one else 0, length)
        pairs = [(i, j) for i in allowed for j in allowed if i <= j < i + LONGEST]
        best = max(pairs, key=lambda pair: float(logits[one, pair[0], 0] + logits[one, pair[1], 1]))
        assert (first, last) == (best[0], best[1] + 1)


def test_a_context_without_a_token_has_no_answer() -> None:
    nothing = torch.full((1, 2, 4), -1)
    assert best_spans(torch.zeros(1, 4, 2), nothing).tolist() == [[-1, -1]]


def test_a_question_whose_answer_was_cut_away_is_wrong_and_adds_no_loss() -> None:
    lost = asked("big one", tokens=(-100, -100))
    with pytest.raises(UsageError) as caught:
        scored(logits_for(3, 4), lost)
    assert caught.value.code == "answers-cut"
    tally = AnswerTally(ONE_PROCESS)
    tally.add(logits_for(7, 8), asked("big one"))
    alone = tally.scores()
    tally.add(logits_for(3, 4), lost)
    both = tally.scores()
    assert (both["answer_f1"], both["samples"], both["loss"]) == (50, 2, alone["loss"])


def test_scores_of_samples_come_to_the_score() -> None:
    target = asked("cat", "big one")
    for task in (QUESTION_ANSWERING, QUESTION_ANSWERING.scored_by("exact_match")):
        counts = task.counts(logits_for(7, 7), target).numpy()
        assert counts.shape == (1, 3)
        assert task.from_counts is not None
        expected = scored(logits_for(7, 7), target)[task.primary.name]
        assert task.from_counts(counts.sum(0, keepdims=True))[0] == pytest.approx(expected)


def test_start_and_end_have_one_episode() -> None:
    right, half = logits_for(7, 8), logits_for(7, 9)
    stacked = torch.cat([right, half, half, right, right, right])  # three steps of two questions
    targets = torch.tensor([[7, 8], [7, 8]])
    assert QUESTION_ANSWERING.read is not None
    result = loss_of_readout(QUESTION_ANSWERING.read(stacked, targets, 3, 0.0), (0.4, 0.2))
    assert result.episode.lengths.tolist() == [2, 1]
    assert QUESTION_ANSWERING.episode_classes(targets).tolist() == [0, 0]
