"""From texts to batches: the tokens that transformers would have, what is cut, and what fills up."""

import pickle

import pytest
import torch
from tiny_texts import opinions, reader, with_tokenizer

from spgsurgeon.data.loading.samples import Loaded
from spgsurgeon.data.sources.traits import Traits
from spgsurgeon.data.transforms.texts import LabelledTextTransform, batches_padded, text_padding
from spgsurgeon.errors import DataError, SurgeonError, UsageError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.models.sites.transformers_heads import HEADS

NAMES = ("BertForSequenceClassification", "DistilBertForSequenceClassification", "RobertaForSequenceClassification")


def preprocessing_of(tmp_path, name=NAMES[0]):
    folder = tmp_path / "model"
    return open_model(ModelRequest(str(folder if folder.exists() else reader(folder, name)))).preprocessing


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_those_of_transformers(tmp_path, name) -> None:
    import transformers

    preprocessing = preprocessing_of(tmp_path, name)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "model"))
    transform = LabelledTextTransform(preprocessing)
    for one, other in zip(opinions(4), opinions(4, seed=1), strict=True):
        for texts in ([one[0]], [one[0], other[0]]):
            options = {"truncation": True, "max_length": 24, "return_token_type_ids": True}
            made, expected = transform(texts).inputs, theirs(*texts, **options)
            assert made["input_ids"].tolist() == expected["input_ids"]
            assert made["attention_mask"].tolist() == expected["attention_mask"]
    taken = HEADS[name].family.segments
    assert ("token_type_ids" in made) == taken
    assert not taken or made["token_type_ids"].tolist() == expected["token_type_ids"]


def test_roberta_keeps_positions_for_padding(tmp_path) -> None:
    (reader(tmp_path / "model", NAMES[2]) / "tokenizer_config.json").unlink()
    assert preprocessing_of(tmp_path).max_length == 38
    module = open_model(ModelRequest(str(tmp_path / "model"))).module
    ids = LabelledTextTransform(preprocessing_of(tmp_path))(["good " * 60]).inputs
    assert len(ids["input_ids"]) == 38
    assert module(**{name: value[None] for name, value in ids.items()}).logits.isfinite().all()


def test_a_long_text_is_cut_and_said_or_refused(tmp_path) -> None:
    preprocessing = preprocessing_of(tmp_path).limited(8)
    made = LabelledTextTransform(preprocessing)(["good " * 20])
    assert (made.inputs["input_ids"].shape, made.traits) == ((8,), Traits.CUT)
    assert LabelledTextTransform(preprocessing)(["good " * 6]).traits == Traits(0)
    with pytest.raises(DataError, match="more than 8 tokens"):
        LabelledTextTransform(preprocessing.limited(8, stops=True))(["good " * 20])
    for length in (25, 0):
        with pytest.raises(UsageError) as caught:
            preprocessing_of(tmp_path).limited(length)
        assert caught.value.code == "too-long"


def test_an_empty_text_is_said(tmp_path) -> None:
    transform = LabelledTextTransform(preprocessing_of(tmp_path))
    assert transform([" "]).traits == transform(["good", ""]).traits == Traits.EMPTY
    assert transform([""]).inputs["input_ids"].tolist() == [1, 2]


def test_batches_are_filled_up_to_the_longest(tmp_path) -> None:
    preprocessing = preprocessing_of(tmp_path, NAMES[2])  # whose padding is not token 0
    transform = LabelledTextTransform(preprocessing)
    items = [Loaded(transform([text]).inputs, label, n) for n, (text, label) in enumerate(opinions(5))]
    (batch,) = batches_padded(text_padding(preprocessing))(items)
    lengths = [len(item.inputs["input_ids"]) for item in items]
    assert len(set(lengths)) > 1
    for row, item in enumerate(items):
        length = lengths[row]
        assert torch.equal(batch.inputs["input_ids"][row, :length], item.inputs["input_ids"])
        assert batch.inputs["input_ids"][row, length:].eq(preprocessing.pad).all()
        assert batch.inputs["attention_mask"][row].tolist() == [1] * length + [0] * (max(lengths) - length)
    assert preprocessing.pad == 1
    assert batch.targets.tolist() == [item.target for item in items]
    assert batches_padded(text_padding(preprocessing))([]) == []


def test_a_transform_goes_to_other_processes(tmp_path) -> None:
    transform = LabelledTextTransform(preprocessing_of(tmp_path))
    before = transform(["good film"]).inputs
    after = pickle.loads(pickle.dumps(transform))(["good film"]).inputs
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("spoil", ["missing", "not a tokenizer", "settings"])
def test_a_tokenizer_that_is_missing_or_damaged(tmp_path, spoil) -> None:
    folder = reader(tmp_path / "model")
    if spoil == "missing":
        (folder / "tokenizer.json").unlink()
    elif spoil == "settings":
        (folder / "tokenizer_config.json").write_text("[1]")
    else:
        (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(SurgeonError) as caught:
        LabelledTextTransform(preprocessing_of(tmp_path))(["good"])
    assert caught.value.code == ("missing-tokenizer" if spoil == "missing" else "damaged-file")
    assert spoil != "missing" or "save_pretrained" in str(caught.value.hint)  # vocab.txt is there
    assert with_tokenizer(folder)
