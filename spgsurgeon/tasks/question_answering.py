"""Question answering: where in a text the answer to a question starts and ends, as SQuAD 1.1 asks and scores it.

Start and end are one prediction with one episode. Shapes: N questions of L tokens; logits float32 [N, L, 2], start and
end; targets int64 [N, 2] in training, [N, 2, 1 + L] when scored (see `data.QuestionTransform`).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from spgsurgeon.data import QUESTIONS, Answers, Asked, QuestionTransform, batches_padded, text_padding
from spgsurgeon.errors import UsageError
from spgsurgeon.objective import Readout, read_spans
from spgsurgeon.replicas import joined
from spgsurgeon.runtime import Processes, sum_dtype
from spgsurgeon.tasks.metrics import LOSS, Metric
from spgsurgeon.tasks.task import Measure, Scores, Task

LONGEST = 30
"""Tokens: no answer that is predicted is longer."""
ANSWER_F1 = Metric("answer_f1", "answer F1", hub_name="f1")
EXACT_MATCH = Metric("exact_match", "exact match", hub_name="exact_match")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


class Questions(NamedTuple):
    """What answers are scored by: targets [N, 2, 1 + L], and the questions with their answers."""

    targets: Tensor
    samples: Sequence[tuple[Asked, Answers]]


class AnswerTally:
    """Counts answer_f1 and exact_match (percent), loss and samples.

    The loss is the mean cross entropy of start and end among the tokens of the context, over questions whose answer is
    there: so neither depends on what else a batch has.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._found: list[tuple[Tensor, Sequence[tuple[Asked, Answers]]]] = []
        self._loss = torch.zeros(2, dtype=sum_dtype(processes.device), device=processes.device)  # and how many count

    def add(self, logits: Tensor, target: Questions) -> None:
        """Count a batch; what was predicted is read when it is scored, so this does not wait for the device."""
        self._found.append((best_spans(logits, target.targets[:, :, 1:]), target.samples))
        self._loss += _entropies(logits, target.targets)

    def scores(self) -> Scores:
        """Return the scores over all processes. Raises UsageError if no question has its answer in what is read."""
        agreements = [_agreements(spans, samples) for spans, samples in self._found]
        own = torch.cat(agreements) if agreements else torch.zeros(0, 2, dtype=torch.float64)
        sums = torch.tensor([*own.sum(0), len(own)], dtype=self._loss.dtype, device=self._loss.device)
        f1, exact, samples = self._processes.sum(sums).tolist()
        loss, counted = self._processes.sum(self._loss).tolist()
        if not samples:
            raise UsageError("there is not one sample to evaluate on")
        if not counted:
            raise UsageError(
                "not one of the questions has its answer in what is read of its context",
                hint="read more tokens: data.max_length (eval: --max-length)",
                code="answers-cut",
            )
        return {
            ANSWER_F1.name: 100 * f1 / samples,
            EXACT_MATCH.name: 100 * exact / samples,
            LOSS.name: loss / counted,
            "samples": round(samples),
        }

    def confusions(self) -> None:
        """See `Tally`: answers have no classes."""

    def drawn(self) -> None:
        """See `Tally`: nor are they drawn."""


def best_spans(logits: Tensor, offsets: Tensor) -> Tensor:
    """Return the characters, int64 [N, 2], of the likeliest answer in each context: from, and to before.

    `offsets` [N, 2, L] has the characters of each token, below 0 for those that are not of the context. An answer has
    `LONGEST` tokens at most. Without a token of a context it is -1 twice.
    """
    inside = logits.masked_fill((offsets[:, 0] < 0)[:, :, None], -torch.inf)
    ends = pad(inside[:, :, 1], (0, LONGEST - 1), value=-torch.inf).unfold(1, LONGEST, 1)  # [N, L, LONGEST]
    best = (inside[:, :, None, 0] + ends).flatten(1).argmax(1)
    first, last = best // LONGEST, best // LONGEST + best % LONGEST
    return torch.stack([offsets[:, 0].gather(1, first[:, None]), offsets[:, 1].gather(1, last[:, None])], 1).squeeze(2)


def _entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of the cross entropies of the questions that count, and how many do, [2]."""
    outside = targets[:, 0, 1:, None] < 0
    tokens = targets[:, :, 0]  # [N, 2]
    counted = (tokens >= 0).all(1)
    chances = logits.masked_fill(outside, -torch.inf).log_softmax(1)
    own = chances.gather(1, tokens.clamp(min=0)[:, None, :]).squeeze(1).mean(1)
    return torch.stack([-torch.where(counted, own, 0).sum(), counted.sum()]).to(sum_dtype(logits.device))


def _agreements(spans: Tensor, samples: Sequence[tuple[Asked, Answers]]) -> Tensor:
    """Return F1 and exact match (0 to 1) of answers at these characters, float64 [N, 2]; the best of those right."""
    found = []
    for (start, end), (asked, answers) in zip(spans.tolist(), samples, strict=True):
        words = normalized(asked.context[start:end] if start >= 0 else "")
        right = [normalized(text) for text in answers.texts]
        found.append((max(answer_f1(words, one) for one in right), float(words in right)))
    return torch.tensor(found, dtype=torch.float64).view(-1, 2)


def normalized(text: str) -> list[str]:
    """Return the words that count of an answer: in lower case, without punctuation and articles (as SQuAD 1.1)."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def answer_f1(words: Sequence[str], right: Sequence[str]) -> float:
    """Return the harmonic mean of the shares of words that two answers have in common; 0 if they have none."""
    common = sum((Counter(words) & Counter(right)).values())
    return 2 * common / (len(words) + len(right)) if common else 0.0


def read_answers(logits: Tensor, targets: Tensor, steps: int, label_smoothing: float) -> Readout:
    """Return the readout of stacked logits [rows, L, 2] by targets [N, 2]; see `read_spans`."""
    return read_spans(logits[..., 0], logits[..., 1], targets, steps, label_smoothing=label_smoothing)


def _of_each(logits: Tensor, target: Questions) -> Tensor:
    """Return F1, exact match and 1 of each question, [N, 3]."""
    own = _agreements(best_spans(logits, target.targets[:, :, 1:]), target.samples)
    return torch.cat([own, own.new_ones(len(own), 1)], 1)


def _mean_f1(counts: NDArray[Any]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = 100 * counts[..., 0] / counts[..., 2]
    return found


def _mean_exact_match(counts: NDArray[Any]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = 100 * counts[..., 1] / counts[..., 2]
    return found


QUESTION_ANSWERING = Task(
    name="question-answering",
    unit="question",
    predicts="where the answer to each question starts and ends",
    samples=QUESTIONS,
    source="questions",
    training_transform=lambda preprocessing, augmentation: QuestionTransform(preprocessing),
    evaluation_transform=lambda preprocessing: QuestionTransform(preprocessing, scores=True),
    size=lambda preprocessing: {"max_length": preprocessing.max_length},
    metrics=(ANSWER_F1, EXACT_MATCH, LOSS),
    tally=AnswerTally,
    counts=_of_each,
    from_counts=_mean_f1,
    collation=lambda preprocessing: batches_padded(text_padding(preprocessing)),
    output=joined,
    read=read_answers,
    episode_classes=lambda targets: torch.zeros_like(targets[:, 0]),
    scored_by_samples=Questions,
    alternatives={EXACT_MATCH.name: Measure(_of_each, _mean_exact_match)},
    pipeline_tag="question-answering",
)
