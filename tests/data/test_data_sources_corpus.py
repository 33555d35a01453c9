"""Texts without labels: what is read, what is left out, and the blocks of tokens that they make."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_texts import SPECIAL, VOCABULARY, corpus_folder, json_lines, opinions, reader, tokenizer_of_words

from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.sources.records.blocks import Blocks, Frame, blocks_of
from spgsurgeon.data.subsets import hold_out
from spgsurgeon.errors import DataError, UsageError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest

CLS, SEP, END = SPECIAL.index("[CLS]"), SPECIAL.index("[SEP]"), 2


@pytest.fixture
def preprocessing(tmp_path):
    return open_model(ModelRequest(str(reader(tmp_path / "model", "GPT2LMHeadModel")))).preprocessing.limited(10)


def tokens_of(*texts):
    tokenizer = tokenizer_of_words()
    return [number for text in texts for number in (*tokenizer.encode(text, add_special_tokens=False).ids, SEP)]


def unframed(preprocessing, tmp_path):
    """Return the same of a tokenizer that adds nothing, as GPT-2's."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_of_words()
    tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    tokenizer.save(str(tmp_path / "plain.json"))
    return replace(preprocessing, file=tmp_path / "plain.json")


def test_a_line_of_a_file_is_a_text_and_a_row_of_a_table_as_well(tmp_path) -> None:
    texts = [text for text, _ in opinions(6)]
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "train.txt").write_bytes("\r\n".join([texts[0], " ", *texts[1:], ""]).encode())
    rows = json_lines(tmp_path / "rows", train=[{"text": text, "label": 1} for text in texts])
    lines = open_source("corpus", tmp_path / "lines", "train")
    table = open_source("corpus", rows, "train")
    for source in (lines, table):
        assert [source.read(row)[0] for row in range(len(source))] == texts
    assert lines.describe(1).endswith("train.txt, line 3")
    assert "1 of the 7 texts of train.txt are empty, and were left out" in lines.notes
    assert any("data.columns" in note for note in table.notes)
    left, held = hold_out(lines, 0.5)
    assert (len(left), len(held)) == (3, 3)


def test_a_column_is_named_by_whoever_has_another(tmp_path) -> None:
    rows = json_lines(tmp_path / "data", train=[{"body": "it was good", "title": "film"}])
    with pytest.raises(UsageError) as caught:
        open_source("corpus", rows, "train")
    assert caught.value.code == "unknown-column"
    assert open_source("corpus", rows, "train", columns={"text": "body"}).read(0)[0] == "it was good"


@pytest.mark.parametrize(("content", "code"), [("", "no-rows"), ("\n  \n", "no-text")])
def test_a_file_without_a_text_is_refused(tmp_path, content, code) -> None:
    (tmp_path / "train.txt").write_text(content)
    with pytest.raises((DataError, UsageError)) as caught:
        open_source("corpus", tmp_path, "train")
    assert caught.value.code == code


def test_blocks_have_every_token_once_and_the_frame_of_the_tokenizer(tmp_path, preprocessing) -> None:
    texts = [text for text, _ in opinions(10)]
    source = open_source("corpus", json_lines(tmp_path / "data", train=[{"text": text} for text in texts]), "train")
    for framed in (False, True):
        blocks = blocks_of(source, preprocessing, framed=framed)
        read = [blocks.read(index)[0] for index in range(len(blocks))]
        assert all(len(block.tokens) == 10 for block in read[:-1])
        assert all(block.tokens[0] == CLS and (not framed or block.tokens[-1] == SEP) for block in read)
        inside = np.concatenate([block.tokens[1 : len(block.tokens) - framed] for block in read])
        assert inside.tolist() == tokens_of(*texts)
        for block in read:
            assert block.around.tolist() == [number in (CLS, SEP) for number in block.tokens]
    assert any(f"make {len(blocks)} blocks of 10, the last one shorter" in note for note in blocks.notes)


def test_a_tokenizer_that_adds_nothing_gets_the_models_end_of_a_text(tmp_path, preprocessing) -> None:
    source = open_source("corpus", json_lines(tmp_path / "data", train=[{"text": "it was good"}] * 2), "train")
    plain = unframed(preprocessing, tmp_path)
    assert plain.end == END
    (words,) = [tokens_of("it was good")[:-1]]
    assert blocks_of(source, plain, framed=False).tokens.tolist() == [*words, END] * 2
    assert blocks_of(source, replace(plain, end=None), framed=False).tokens.tolist() == words * 2


def test_a_rest_of_one_token_is_left_out(preprocessing, tmp_path) -> None:
    frame = Frame((), (), ())
    assert [len(Blocks("b", np.arange(count, dtype=np.int32), 4, frame)) for count in (8, 9, 10, 2)] == [2, 2, 3, 1]


def test_a_text_shorter_than_a_block_makes_one(tmp_path, preprocessing) -> None:
    source = open_source("corpus", json_lines(tmp_path / "data", train=[{"text": "it was"}]), "train")
    blocks = blocks_of(source, preprocessing, framed=False)
    assert (len(blocks), blocks.read(0)[0].tokens.tolist()) == (1, [CLS, *tokens_of("it was")])
    assert blocks_of(blocks, preprocessing, framed=False) is blocks


@pytest.mark.parametrize("spoil", ["unfit-vocabulary", "too-short", "no-text", "unreadable-text"])
def test_texts_and_models_that_do_not_fit_are_said(tmp_path, preprocessing, spoil) -> None:
    text = "it was good"
    if spoil == "unfit-vocabulary":
        preprocessing = replace(preprocessing, vocabulary=VOCABULARY.index("good"))
    elif spoil == "too-short":
        preprocessing = preprocessing.limited(2)
    elif spoil == "no-text":
        preprocessing, text = replace(unframed(preprocessing, tmp_path), end=None), "it"
    else:
        text = "\ud800"
    source = open_source("corpus", json_lines(tmp_path / "data", train=[{"text": text}]), "train")
    with pytest.raises((DataError, UsageError)) as caught:
        blocks_of(source, preprocessing, framed=False)
    assert (caught.value.code, len(caught.value.message) < 150) == (spoil, True)


def test_a_model_reads_blocks_of_1024_tokens_unless_more_are_asked_for(tmp_path) -> None:
    folder = reader(tmp_path / "model", "LlamaForCausalLM", max_position_embeddings=4096)
    (folder / "tokenizer_config.json").unlink()
    preprocessing = open_model(ModelRequest(str(folder))).preprocessing
    assert [preprocessing.limited(most).max_length for most in (None, 3000, 5)] == [1024, 3000, 5]


def test_splits_of_lines_are_found_by_their_name(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"no trian\{.*\.txt\}") as caught:
        open_source("corpus", corpus_folder(tmp_path / "data").parent / "data", "trian")
    assert "train" in str(caught.value.hint)
