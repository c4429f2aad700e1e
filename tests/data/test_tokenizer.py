"""Tokens against SentencePiece itself, transformers' SigLIP tokenizer, and the text rules of SigLIP written out by hand."""
import json
import pickle  # noqa: TID251  (as processes send objects)
import shutil
import string

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from cc_jax.data.phrases import located_phrases
from cc_jax.data.text_form import SIGLIP, SIGLIP2, TextForm, canonicalize
from cc_jax.data.tokenizer import EOS, Tokenizer, is_in, train_tokenizer

CAPTIONS = [f"A {size} {colour} {shape} to the {side} of a {other} {shape}."
            for size in ("small", "large") for colour in ("red", "blue", "green") for shape in ("circle", "cross")
            for side in ("left", "right") for other in ("yellow", "black", "white")]


LENGTH = 400        # enough for whatever the texts drawn here become
WORDS = st.sampled_from(
    "a Dog dogs, RED (red) don't it's snake_case – … . '' ½ ™ Éclair cafe\u0301 ﬁsh İzmir ΣΑΣ 🐕 日本".split())
GAPS = st.text(" \t\n\u3000", min_size=1, max_size=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "trained.model"
    train_tokenizer(CAPTIONS, path, vocab_size=60)
    return path


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


def pieces(processor, text: str) -> list[str]:
    """Those of a text's canonical form; they spell it as the normaliser of SentencePiece has it, with "▁" for space."""
    return processor.encode(canonicalize(text), out_type=str)


def spell(processor, text: str) -> str:
    return processor.normalize(canonicalize(text)).replace("▁", " ").strip()


@pytest.mark.parametrize("text, span, expected", [
    ("Two  DOGS, run!", "DOGS", "dogs"),
    ("Two  DOGS, run!", "Two  DOGS", "two dogs"),
    ("Two  DOGS, run!", " DOGS, ", "dogs"),
    ("the so-called \"red hat\" on a shelf", "red hat", "red hat"),
    ("the boy's big ball", "boy's big ball", "boys big ball"),
    ("ein Überhut – schön, ein Hund", "ein Hund", "ein hund"),
    ("... a Dog in İzmir and a red hat", "red hat", "red hat"),
    ("snow_ball fight", "ball", "ball"),
])
def test_the_positions_of_a_span_read_as_the_span(test_data, text, span, expected):
    path = test_data / "tokenizer" / "spm32k.model"
    start = text.index(span)
    tokenizer = Tokenizer.load(path)
    [[first, end]] = tokenizer.token_spans(text, [(start, start + len(span))], 24)
    ids = tokenizer.encode([text], 24)[0, first:end].tolist()
    assert sentencepiece.SentencePieceProcessor(model_file=str(path)).decode(ids) == expected


@pytest.mark.parametrize("caption", ["A man's red hat, on 2 big Dogs - and the café\u0301's old  sign.", *CAPTIONS[:5]])
def test_the_positions_of_phrases_read_as_the_phrases(model, caption):
    plain = sentencepiece.SentencePieceProcessor(model_file=str(model))
    located = located_phrases(caption)
    for (phrase, _), (first, end) in zip(
            located, Tokenizer.load(model).token_spans(caption, [span for _, span in located], LENGTH), strict=True):
        assert "".join(pieces(plain, caption)[first:end]).replace("▁", " ").strip() == spell(plain, phrase)


@given(words=st.lists(WORDS, min_size=1, max_size=12), gaps=st.lists(GAPS, min_size=12, max_size=12), data=st.data())
def test_the_positions_of_words_spell_the_words(model, words, gaps, data):
    tokenizer, plain = Tokenizer.load(model), sentencepiece.SentencePieceProcessor(model_file=str(model))
    text, starts = "", []
    for word, gap in zip(words, gaps, strict=False):
        text += gap
        starts.append(len(text))
        text += word
    first_word = data.draw(st.integers(0, len(words) - 1))
    last_word = data.draw(st.integers(first_word, len(words) - 1))
    start, stop = starts[first_word], starts[last_word] + len(words[last_word])
    [[first, end]] = tokenizer.token_spans(text, [(start, stop)], LENGTH)
    assert "".join(pieces(plain, text)[first:end]).replace("▁", " ").strip() == spell(plain, text[start:stop])


@given(text=st.text(max_size=30) | st.lists(WORDS, max_size=6).map(" ".join), length=st.integers(1, 40), data=st.data())
def test_the_positions_are_those_found_character_by_character(model, text, length, data):
    places = st.integers(0, len(text))
    spans = data.draw(st.lists(st.tuples(places, places).map(sorted).map(tuple), max_size=4))
    plain = sentencepiece.SentencePieceProcessor(model_file=str(model))
    found = Tokenizer.load(model).token_spans(text, spans, length)
    assert found.dtype == np.int32 and found.shape == (len(spans), 2)
    holders = positions_by_character(plain, text)
    for span, range_ in zip(spans, found.tolist(), strict=True):
        held = [position for place in range(*span) for position in holders[place]]
        expected = [min(held), max(held) + 1] if held else [0, 0]
        assert range_ == (expected if expected[1] < length else [0, 0])


def positions_by_character(processor, text: str) -> list[set[int]]:
    """Which positions hold each character, from the rules written out and SentencePiece's map of its normaliser."""
    canonical, origins = "", []
    gap = False
    for place, character in enumerate(text):
        if character == "_" or character.isspace():
            gap = bool(canonical)
        elif character not in string.punctuation:
            new = (" " if gap else "") + character.lower()
            origins += [None] * gap + [place] * (len(new) - gap)
            canonical, gap = canonical + new, False
    owner = [position for position, piece in enumerate(pieces(processor, text)) for _ in piece]
    _, offsets = processor.normalize(canonical, with_offsets=True)
    assert len(owner) == len(offsets) - 1
    holders = [set() for _ in text]
    for i, position in enumerate(owner[1:], 1):             # the first is the space before the text
        reach = next((offset for offset in offsets[i:] if offset > offsets[i]), offsets[i])
        for origin in origins[offsets[i]:reach]:
            if origin is not None:
                holders[origin].add(position)
    return holders


def test_a_span_that_the_row_cuts_off_has_no_positions(model):
    tokenizer, text = Tokenizer.load(model), "a small red circle"
    spans = [(0, 1), (2, 11), (2, len(text))]
    whole = tokenizer.token_spans(text, spans, LENGTH)
    assert (whole[:, 1] > whole[:, 0]).all()
    for length in range(1, whole.max() + 2):
        kept = whole[:, 1:] <= length - 1
        np.testing.assert_array_equal(tokenizer.token_spans(text, spans, length), np.where(kept, whole, 0))


@pytest.mark.parametrize("span", [(5, 6), (5, 5), (8, 9), (0, 0), (1, 2), (10, 13)])
def test_a_span_of_punctuation_or_white_space_has_no_positions(model, span):
    text = "a boy's - \n._red hat"
    assert Tokenizer.load(model).token_spans(text, [span], 32).tolist() == [[0, 0]], text[slice(*span)]


def test_all_pieces_of_one_character_belong_to_it(tmp_path):
    """A character that becomes bytes, as in models with byte fallback, or several letters."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS), model_prefix=str(tmp_path / "bytes"), vocab_size=330, model_type="bpe",
        byte_fallback=True, hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2)
    plain = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "bytes.model"))
    text = "a 🐕 ½"
    assert pieces(plain, text) == "▁a ▁ <0xF0> <0x9F> <0x90> <0x95> ▁ <0x31> <0xE2> <0x81> <0x84> <0x32>".split()
    spans = [(0, 1), (2, 3), (4, 5), (2, 5)]
    found = Tokenizer.load(tmp_path / "bytes.model").token_spans(text, spans, 32)
    assert found.tolist() == [[0, 1], [2, 6], [7, 12], [2, 12]]


@pytest.mark.parametrize("span", [(-1, 2), (3, 2), (0, 6)])
def test_a_span_outside_the_text_is_an_error(model, span):
    with pytest.raises(ValueError, match=r"span \(.*\) does not lie in a text of 5 characters"):
        Tokenizer.load(model).token_spans("a dog", [span], 8)


def test_no_spans_give_no_ranges(model):
    assert Tokenizer.load(model).token_spans("a dog", [], 8).shape == (0, 2)


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
    with pytest.raises(ValueError, match="has 2 as its end-of-sentence id; it must be 1"):
        Tokenizer.load(tmp_path / "m.model")


def test_a_tokenizer_written_again_is_the_same(model):
    assert Tokenizer.load(model).serialized == model.read_bytes()


def test_a_row_needs_a_position(model):
    with pytest.raises(ValueError, match="length=0"):
        Tokenizer.load(model).encode(["a"], 0)
    with pytest.raises(ValueError, match="length=0"):
        Tokenizer.load(model).token_spans("a", [], 0)


def test_a_tokenizer_travels_to_a_worker(model):
    tokenizer = Tokenizer.load(model)
    copy = pickle.loads(pickle.dumps(tokenizer))     # noqa: S301  as the workers of the input pipeline get it
    np.testing.assert_array_equal(copy.encode(CAPTIONS, 9), tokenizer.encode(CAPTIONS, 9))


@pytest.fixture(scope="module")
def peer(test_data):
    transformers = pytest.importorskip("transformers")
    made = transformers.SiglipTokenizer(vocab_file=str(test_data / "tokenizer" / "spm32k.model"))
    return lambda texts: np.array(made(texts, padding="max_length", max_length=64, truncation=True)["input_ids"])


@pytest.mark.parametrize("file", ["cc3m_val", "coco_val2017", "flickr30k_part"])
def test_rows_of_real_captions_are_those_of_transformers(test_data, peer, file):
    captions = (test_data / "captions" / f"{file}.txt").read_text().splitlines()[::40]
    tokenizer = Tokenizer.load(test_data / "tokenizer" / "spm32k.model")
    np.testing.assert_array_equal(tokenizer.encode(captions, 64), peer(captions))


@given(texts=st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cn"], exclude_characters="_"), max_size=60)
    | st.lists(WORDS.filter(lambda word: "_" not in word), max_size=90).map(" ".join), min_size=1, max_size=4))
def test_rows_of_any_text_are_those_of_transformers(test_data, peer, texts):
    """Except for "_", which parts words here as in big_vision and open_clip, and vanishes there."""
    tokenizer = Tokenizer.load(test_data / "tokenizer" / "spm32k.model")
    np.testing.assert_array_equal(tokenizer.encode(texts, 64), peer(texts))


def test_a_name_of_a_special_token_in_a_caption_is_text(model):
    rows = Tokenizer.load(model).encode(["a </s> red <pad> circle"], 32)
    assert rows[0, :-1].tolist().index(EOS) > 5 and 0 not in rows


def test_case_and_punctuation_do_not_count(model):
    one, same = Tokenizer.load(model).encode(["A RED circle, to the left!", "a red circle to the left"], 32)
    assert (one == same).all()


def test_with_the_other_form_punctuation_counts_and_padding_is_zero(model, tmp_path):
    path = shutil.copy(model, tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer_form.json").write_text('{"cleaning": "lower", "pad_id": 0}')
    tokenizer = Tokenizer.load(path)
    plain = sentencepiece.SentencePieceProcessor(model_file=str(model))
    ids = plain.encode("a red circle.")
    assert tokenizer.form == SIGLIP2 and ids != plain.encode("a red circle")
    assert tokenizer.encode(["A RED Circle."], 32)[0].tolist() == ids + [EOS] + [0] * (31 - len(ids))
    [[first, end]] = tokenizer.token_spans("A RED Circle.", [(2, 5)], 32)
    assert plain.decode(ids[first:end]) == "red"


def test_a_vocabulary_numbered_as_gemmas_has_the_form_of_siglip_2(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS), model_prefix=str(tmp_path / "gemma"), vocab_size=60, model_type="bpe",
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, hard_vocab_limit=False, minloglevel=2)
    assert Tokenizer.load(tmp_path / "gemma.model").form == SIGLIP2


@pytest.mark.parametrize("kind", ["SentencePiece", "JSON"])
@pytest.mark.parametrize("pad_id", [0, 1])
def test_what_was_saved_is_read_back_from_the_folder(model, gemma_json, tmp_path, kind, pad_id):
    tokenizer = Tokenizer.load(model if kind == "SentencePiece" else gemma_json).padded_with(pad_id)
    assert not is_in(tmp_path)
    for _ in range(2):                                  # a second time over the first
        tokenizer.save(tmp_path)
    name = "tokenizer.model" if kind == "SentencePiece" else "tokenizer.json"
    assert {path.name for path in tmp_path.iterdir()} == {name, "tokenizer_form.json"} and is_in(tmp_path)
    for path in (tmp_path, tmp_path / name):
        again = Tokenizer.load(path)
        assert again.fingerprint == tokenizer.fingerprint and again.form.pad_id == pad_id
        assert (again.encode(["A red hat."], 9) == tokenizer.encode(["A red hat."], 9)).all()


def test_a_folder_of_an_earlier_version_has_the_form_of_siglip(model, tmp_path):
    shutil.copy(model, tmp_path / "tokenizer.model")
    assert Tokenizer.load(tmp_path).form == SIGLIP


def test_each_difference_gives_another_fingerprint(model, test_data, gemma_json):
    tokenizers = [Tokenizer.load(path) for path in (model, test_data / "tokenizer" / "spm32k.model", gemma_json)]
    tokenizers += [tokenizer.padded_with(1 - tokenizer.form.pad_id) for tokenizer in tokenizers]
    tokenizers.append(Tokenizer(None, TextForm("lower", EOS), tokenizers[0].serialized))
    assert len({tokenizer.fingerprint for tokenizer in tokenizers}) == len(tokenizers)
    assert tokenizers[0].fingerprint.endswith("(canonicalize, padded with 1)")


def test_a_swapped_file_no_longer_goes_with_its_form(model, test_data, tmp_path):
    Tokenizer.load(model).save(tmp_path)
    shutil.copy(test_data / "tokenizer" / "spm32k.model", tmp_path / "tokenizer.model")
    with pytest.raises(ValueError, match="_form.json does not say the form of tokenizer.model: .*put that one back"):
        Tokenizer.load(tmp_path)


def test_a_damaged_form_is_an_error(model, tmp_path):
    Tokenizer.load(model).save(tmp_path)
    form = tmp_path / "tokenizer_form.json"
    form.write_bytes(form.read_bytes()[:20])
    with pytest.raises(ValueError, match="it is not JSON"):
        Tokenizer.load(tmp_path)
    form.write_text(json.dumps({"cleaning": "none", "pad_id": 1}))
    with pytest.raises(ValueError, match="'none' is not known"):
        Tokenizer.load(tmp_path)


def test_a_folder_with_no_tokenizer_or_with_two_is_an_error(model, gemma_json, tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer in .*tokenizer.model and tokenizer.json"):
        Tokenizer.load(tmp_path)
    shutil.copy(model, tmp_path / "tokenizer.model")
    shutil.copy(gemma_json, tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match="tokenizer.model and tokenizer.json in .*must hold one"):
        Tokenizer.load(tmp_path)
