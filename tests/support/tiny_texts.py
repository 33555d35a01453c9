"""Tiny tables of texts, a tokenizer of forty words, and a model that reads them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tiny_transformers import saved, tiny

SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
GOOD, BAD = ("fine", "good", "great"), ("awful", "bad", "poor")
PLAIN = ("a", "and", "film", "is", "it", "plot", "so", "the", "very", "was")
VOCABULARY = (*SPECIAL, *GOOD, *BAD, *PLAIN, *(f"word{number}" for number in range(40 - 21)))


def tokenizer_of_words(*, pair: bool = True) -> Any:
    """Return a tokenizer with a token a word, that says [CLS] and [SEP] as BERT's does."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    made = tokenizers.Tokenizer(WordLevel({word: n for n, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.add_special_tokens(list(SPECIAL))
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return made


def with_tokenizer(folder: Path) -> Path:
    """Put the tokenizer into a model's folder, as transformers writes it."""
    made = tokenizer_of_words()
    made.enable_padding(length=30)  # what its file says of padding and cutting is not what a batch gets
    made.enable_truncation(5)
    made.save(str(folder / "tokenizer.json"))
    named = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    settings = named | {"unk_token": "[UNK]", "model_max_length": 24, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def reader(folder: Path, name: str = "BertForSequenceClassification", **fields: Any) -> Path:
    """Write a tiny model of the class `name`, with its tokenizer, to a folder."""
    return with_tokenizer(saved(tiny(name, **fields), folder))


def opinions(count: int, seed: int = 0) -> list[tuple[str, int]]:
    """Return texts of several lengths, each with whether it says something good."""
    drawn = random.Random(seed)
    found = []
    for _ in range(count):
        label = drawn.randrange(2)
        words = [*drawn.choices(PLAIN, k=drawn.randrange(2, 9)), drawn.choice(GOOD if label else BAD)]
        drawn.shuffle(words)
        found.append((" ".join(words), label))
    return found


def opinions_folder(folder: Path, train: int = 48, dev: int = 20) -> Path:
    """Write tables of opinions, `train.tsv` and `dev.tsv`, and return their folder."""
    folder.mkdir()
    for seed, (split, count) in enumerate((("train", train), ("dev", dev))):
        lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in opinions(count, seed))]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def questions(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return questions in SQuAD's form: which opinion a text has. Some answers have two words."""
    drawn = random.Random(seed)
    found = []
    for number in range(count):
        words = drawn.choices(PLAIN, k=drawn.randrange(2, 9))
        answer = drawn.choice(GOOD + BAD)
        answer = f"very {answer}" if number % 3 == 0 else answer
        place = drawn.randrange(len(words) + 1)
        before = "".join(f"{word} " for word in words[:place])
        context = " ".join([*words[:place], answer, *words[place:]])
        answers = {"text": [answer], "answer_start": [len(before)]}
        found.append({"id": str(number), "question": "was it so", "context": context, "answers": answers})
    return found


def json_lines(folder: Path, **splits: list[dict[str, Any]]) -> Path:
    """Write the rows of splits, a .jsonl each, and return their folder."""
    folder.mkdir(exist_ok=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def tagged(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return sentences in words, those that say an opinion tagged by which; some end in a word of two tokens."""
    tags = dict.fromkeys(GOOD, "GOOD") | dict.fromkeys(BAD, "BAD")
    found = []
    for text, _ in opinions(count, seed):
        words = text.split()
        words = [*words[:-1], f"{words[-1]}-film"]
        found.append({"tokens": words, "tags": [tags.get(word.partition("-")[0], "O") for word in words]})
    return found


def chosen(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return questions of three choices, one of which says something good, as SWAG has them."""
    drawn = random.Random(seed)
    found = []
    for _ in range(count):
        label = drawn.randrange(3)
        endings = [
            " ".join([*drawn.choices(PLAIN, k=drawn.randrange(1, 4)), drawn.choice(GOOD if place == label else BAD)])
            for place in range(3)
        ]
        columns = {f"ending{place}": ending for place, ending in enumerate(endings)}
        found.append({"sent1": "was it good", "sent2": "it was", **columns, "label": label})
    return found


def corpus_folder(folder: Path, train: int = 60, dev: int = 20) -> Path:
    """Write texts without labels, `train.txt` and `dev.txt` with one a line, and return their folder."""
    folder.mkdir()
    for seed, (split, count) in enumerate((("train", train), ("dev", dev))):
        (folder / f"{split}.txt").write_text("".join(f"{text}\n" for text, _ in opinions(count, seed)))
    return folder
