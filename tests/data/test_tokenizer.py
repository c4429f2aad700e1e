"""Tokens against SentencePiece itself, and against the text rules of SigLIP written out by hand."""
import pickle

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from cc_jax.data.tokenizer import EOS, Tokenizer, canonicalize, train_tokenizer

CAPTIONS = [f"A {size} {colour} {shape} to the {side} of a {other} {shape}."
            for size in ("small", "large") for colour in ("red", "blue", "green") for shape in ("circle", "cross")
            for side in ("left", "right") for other in ("yellow", "black", "white")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "trained.model"
    train_tokenizer(CAPTIONS, path, vocab_size=60)
    return path


@pytest.mark.parametrize("text, expected", [
    ("A red HAT, and a \"blue\" one.", "a red hat and a blue one"),
    ("  two\tdogs\n run ", "two dogs run"),
    ("snake_case it's", "snake case its"),
    ("Ein ÜBER-Hut – schön", "ein überhut – schön"),
    ("...", ""),
])
def test_canonical_text_is_lower_case_without_ascii_punctuation(text, expected):
    assert canonicalize(text) == expected


@given(st.text())
def test_canonical_text_is_a_fixed_point(text):
    once = canonicalize(text)
    assert canonicalize(once) == once or "İ" in text     # its lower case has one more character, which is no letter


@pytest.mark.parametrize("length", [1, 2, 8, 64])
def test_ids_are_those_of_sentencepiece_then_end_of_sentence(model, length):
    texts = ["a red circle", "", CAPTIONS[0], "a zebra, unknown here", " ".join(CAPTIONS)]
    plain = sentencepiece.SentencePieceProcessor(model_file=str(model))
    rows = Tokenizer.load(model).encode(texts, length)
    assert rows.dtype == np.int32
    for row, text in zip(rows, texts, strict=True):
        ids = plain.encode(text.lower().translate(str.maketrans("", "", ".,")))[:length - 1]
        assert row.tolist() == ids + [EOS] * (length - len(ids))


def test_no_texts_give_no_rows(model):
    assert Tokenizer.load(model).encode([], 5).shape == (0, 5)


@given(texts=st.lists(st.text(max_size=40), max_size=4), length=st.integers(1, 20))
def test_any_text_ends_in_end_of_sentence_and_within_the_vocabulary(model, texts, length):
    tokenizer = Tokenizer.load(model)
    rows = tokenizer.encode(texts, length)
    assert rows.shape == (len(texts), length)
    assert (rows[:, -1] == EOS).all() and (rows >= 0).all() and (rows < tokenizer.vocab_size).all()


def test_a_real_vocabulary_is_read(test_data):
    path = test_data / "tokenizer" / "spm32k.model"
    plain = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokenizer = Tokenizer.load(path)
    assert tokenizer.vocab_size == plain.vocab_size()
    ids = plain.encode("two dogs run across a grassy field")
    assert tokenizer.encode(["Two dogs run across a grassy field."], 16)[0].tolist() == ids + [EOS] * (16 - len(ids))


def test_training_is_deterministic(model, tmp_path):
    train_tokenizer(iter(CAPTIONS), tmp_path / "again.model", vocab_size=60)
    assert (tmp_path / "again.model").read_bytes() == model.read_bytes()


def test_a_trained_tokenizer_has_the_ids_of_siglip_and_reads_back_what_it_wrote(model):
    plain = sentencepiece.SentencePieceProcessor(model_file=str(model))
    assert (plain.pad_id(), plain.eos_id(), plain.unk_id(), plain.bos_id()) == (0, 1, 2, -1)
    assert plain.vocab_size() == 60
    assert plain.decode(plain.encode("a large green cross")) == "a large green cross"


def test_a_vocabulary_too_large_for_the_captions_is_reduced(tmp_path):
    train_tokenizer(CAPTIONS, tmp_path / "small.model", vocab_size=4096)
    assert 30 < Tokenizer.load(tmp_path / "small.model").vocab_size < 500


def test_words_of_a_small_world_stay_whole(tmp_path):
    """Few words that share hardly a piece, as drawn scenes have, must not fall apart into letters."""
    train_tokenizer(CAPTIONS, tmp_path / "small.model", vocab_size=4096)
    plain = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "small.model"))
    assert plain.encode("a small green cross", out_type=str) == ["▁a", "▁small", "▁green", "▁cross"]


def test_one_short_caption_is_enough_to_train_on(tmp_path):
    train_tokenizer(["a"], tmp_path / "tiny.model", vocab_size=4096)
    assert Tokenizer.load(tmp_path / "tiny.model").encode(["a"], 4)[0, -1] == EOS


def test_a_long_caption_is_trained_on(tmp_path):
    train_tokenizer(["word " * 1999], tmp_path / "long.model", vocab_size=4096)
    assert 2 not in Tokenizer.load(tmp_path / "long.model").encode(["word word"], 8)


def test_a_vocabulary_smaller_than_the_alphabet_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="vocab_size=10 .* Choose another"):
        train_tokenizer(CAPTIONS, tmp_path / "x.model", vocab_size=10)
    assert not (tmp_path / "x.model").exists()


def test_captions_of_punctuation_can_not_be_trained_on(tmp_path):
    with pytest.raises(ValueError, match="nothing to train a tokenizer on"):
        train_tokenizer(["...", "!"], tmp_path / "x.model", vocab_size=100)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer in .*none.model"):
        Tokenizer.load(tmp_path / "none.model")


@pytest.mark.parametrize("data", [b"", b"hello", bytes(range(256)) * 9])
def test_a_file_of_another_kind_is_an_error(tmp_path, data):
    path = tmp_path / "other.model"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is not a SentencePiece model"):
        Tokenizer.load(path)


def test_a_model_with_another_end_of_sentence_is_an_error(tmp_path):
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CAPTIONS), model_prefix=str(tmp_path / "m"),
                                             vocab_size=30, minloglevel=2)
    with pytest.raises(ValueError, match="id of .* is 2; it must be 1"):
        Tokenizer.load(tmp_path / "m.model")


def test_a_tokenizer_written_again_is_the_same(model):
    assert Tokenizer.load(model).serialized == model.read_bytes()


def test_a_row_needs_a_position(model):
    with pytest.raises(ValueError, match="length=0"):
        Tokenizer.load(model).encode(["a"], 0)


def test_a_tokenizer_travels_to_a_worker(model):
    tokenizer = Tokenizer.load(model)
    copy = pickle.loads(pickle.dumps(tokenizer))     # noqa: S301  as the workers of the input pipeline get it
    np.testing.assert_array_equal(copy.encode(CAPTIONS, 9), tokenizer.encode(CAPTIONS, 9))
