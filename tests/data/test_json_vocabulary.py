"""SigLIP 2's tokens against transformers' tokenizer on the same file; hostile files give an error, never a wrong id."""
import copy
import json
import pickle  # noqa: TID251  (to be refused)

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_jax.data import tokenizer as tokenizer_module
from cc_jax.data.text_form import SIGLIP2, lower
from cc_jax.data.tokenizer import Tokenizer

EOS, PAD, LENGTH = 1, 0, 64
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=60) | st.lists(st.sampled_from(
    "a Red HAT, hat. dog's  ΣΑΣ İzmir 🐕 日本 é cafe\u0301 \n snake_case ▁ <eos> <pad> <0x41>".split(" ")), max_size=90).map(
        " ".join)


@pytest.fixture(scope="module")
def small(gemma_json):
    return Tokenizer.load(gemma_json)


@pytest.fixture(scope="module")
def whole(gemma_json) -> dict:
    return json.loads(gemma_json.read_text())


@pytest.fixture(scope="module")
def peer(gemma_json):
    """As SigLIP 2 checkpoints configure it; special tokens that a caption spells are text, as they were in training."""
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "Siglip2Tokenizer"):
        pytest.skip("this release of transformers has no Siglip2Tokenizer.")
    made = transformers.Siglip2Tokenizer.from_pretrained(
        gemma_json.parent, add_bos_token=False, add_eos_token=True, padding_side="right", split_special_tokens=True)
    return lambda texts: np.array(made(
        texts, padding="max_length", max_length=LENGTH, truncation=True, truncation_side="right")["input_ids"])


@settings(max_examples=300)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_rows_are_those_of_transformers(small, peer, texts):
    np.testing.assert_array_equal(small.encode(texts, LENGTH), peer(texts))


def test_rows_of_real_captions_are_those_of_transformers(small, peer, test_data):
    captions = (test_data / "captions" / "cc3m_val.txt").read_text().splitlines()[::20]
    np.testing.assert_array_equal(small.encode(captions, LENGTH), peer(captions))


def test_a_short_text_ends_once_and_is_padded_with_zero(small, gemma_json):
    plain = tokenizers.Tokenizer.from_file(str(gemma_json))
    plain.no_truncation(), plain.no_padding()
    ids = plain.encode("a red hat, dog.", add_special_tokens=False).ids
    assert small.encode(["a red hat, dog."], LENGTH)[0].tolist() == [*ids, EOS] + [PAD] * (LENGTH - len(ids) - 1)
    assert small.form == SIGLIP2 and small.vocab_size == plain.get_vocab_size()


@pytest.mark.parametrize("length", [1, 2, 8, 64])
def test_a_text_that_is_cut_still_ends(small, length):
    row = small.encode(["red hat " * 100], length)[0]
    assert row[-1] == EOS and not np.isin(row[:-1], [EOS, PAD]).any()


def test_case_does_not_count_but_punctuation_does(small):
    one, same, other = small.encode(["A RED Hat, dog.", "a red hat, dog.", "a red hat dog"], 32)
    assert (one == same).all() and (one != other).any()


@given(texts=st.lists(TEXTS, max_size=3), length=st.integers(1, 70))
def test_only_the_end_ends_a_row_and_only_after_it_comes_padding(small, texts, length):
    for row in small.encode(texts, length).tolist():
        end = row.index(EOS)
        assert PAD not in row[:end] and row[end + 1:] == [PAD] * (length - end - 1) and max(row) < small.vocab_size


@given(text=TEXTS, length=st.integers(1, 80), data=st.data())
def test_the_positions_of_a_span_are_those_whose_pieces_spell_it(small, gemma_json, text, length, data):
    """Every piece is laid out as the bytes it spells; a span's bytes lie in the pieces found, and in no fewer."""
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    [[first, last]] = small.token_spans(text, [(start, end)], length).tolist()
    plain = tokenizers.Tokenizer.from_file(str(gemma_json))
    ids = [i for i in small.encode([text], 1000)[0].tolist() if i not in (EOS, PAD)]
    owners = [place for place, i in enumerate(ids) for _ in spelled_by(plain.id_to_token(i))]
    kept = text[start:end].strip()
    before = text[:start] + text[start:end][:len(text[start:end]) - len(text[start:end].lstrip())]
    low, high = (len(lower(part).replace(" ", "▁").encode()) for part in (before, before + kept))
    expected = [owners[low], owners[high - 1] + 1] if kept else [0, 0]
    # A byte of a character that was cut into bytes stands for all of it.
    assert [first, last] == (expected if expected[1] < length else [0, 0])


def spelled_by(piece: str) -> bytes:
    return bytes([int(piece[3:5], 16)]) if piece.startswith("<0x") else piece.encode()


def test_the_positions_of_phrases_read_as_the_phrases(small, gemma_json):
    plain = tokenizers.Tokenizer.from_file(str(gemma_json))
    text = "İ – A Large  RED hat, on the Dog's small circle"
    for phrase in ("A Large  RED hat", "RED hat", "the Dog's", "small circle"):
        start = text.index(phrase)
        [[first, end]] = small.token_spans(text, [(start, start + len(phrase))], LENGTH)
        pieces = [plain.id_to_token(i) for i in small.encode([text], LENGTH)[0, first:end].tolist()]
        assert "".join(pieces).replace("▁", " ").strip() == phrase.lower()


def changed(whole: dict, path: str, value) -> bytes:
    whole = copy.deepcopy(whole)
    *places, last = path.split(".")
    block = whole
    for place in places:
        block = block[int(place) if place.isdigit() else place]
    block[int(last) if last.isdigit() else last] = value
    return json.dumps(whole).encode()


@pytest.mark.parametrize(("path", "value", "message"), [
    ("model.dropout", 0.5, "dropout=0.5"),
    ("model.byte_fallback", False, "byte_fallback=False"),
    ("model.unk_token", None, "unk_token=None"),
    ("model.unk_token", "<pad>", "unk_token='<pad>'"),
    ("model.unk_token", "<none>", "unk_token='<none>'"),
    ("model.vocab.<pad>", 3, "<pad> as 3"),
    ("model", {"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"}, "WordLevel model.*give the SentencePiece"),
    ("normalizer", {"type": "Replace", "pattern": {"Regex": "(a+)+b"}, "content": ""}, "the normalizer .*Regex"),
    ("normalizer", {"type": "NFKC"}, "the normalizer .*NFKC"),
    ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Removed", "invert": False},
     "the pre-tokenizer .*Regex"),
    ("added_tokens", [], "<pad> as an ordinary piece"),
    ("added_tokens.1.special", False, "<eos> as an ordinary piece"),
    ("model.vocab.<unused>", 5, "different ids"),
    ("model.vocab.<unused>", 2**31, "each needs its own"),
    ("model.vocab.<unused>", -1, "is not a tokenizer.json"),
    ("model.vocab.<unused>", 2**70, "is not a tokenizer.json"),
    ("model.merges", [["nowhere", "to be found"]], "is not a tokenizer.json"),
    ("model.ignore_merges", True, "makes text that spells them"),
])
def test_another_kind_of_tokenizer_is_refused(whole, tmp_path, path, value, message):
    (tmp_path / "tokenizer.json").write_bytes(changed(whole, path, value))
    with pytest.raises(ValueError, match=message) as error:
        Tokenizer.load(tmp_path / "tokenizer.json")
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("normalizer", [
    None, {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "Replace", "pattern": {"String": " "},
                                                                       "content": "▁"}]}])
def test_a_file_may_lower_the_case_itself(whole, small, tmp_path, normalizer):
    (tmp_path / "tokenizer.json").write_bytes(changed(whole, "normalizer", normalizer))
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    if normalizer:
        assert (loaded.encode(["A RED İ hat"], 32) == small.encode(["A RED İ hat"], 32)).all()


@pytest.mark.parametrize("data", [
    b"{}", b"{", b'{"a": ' * 50_000, b'{"model": ' + b"[" * 200_000, b'{"model": null}', b"{\xff\xfe}", pickle.dumps({}),
    b'{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}',
    b'{"version": "1.0", "model": {"type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]]}}',
])
def test_broken_files_are_refused(tmp_path, data):
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(ValueError, match="tokenizer.json"):
        Tokenizer.load(tmp_path)


def test_a_file_too_large_is_refused_unread(gemma_json, monkeypatch):
    monkeypatch.setattr(tokenizer_module, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match=r"has \d+ bytes; a tokenizer has at most 1000"):
        Tokenizer.load(gemma_json)


STRINGS = st.sampled_from(["", "▁", "<eos>", "BPE", "Sequence", "Replace", "Unigram"]) | st.text(max_size=5)
KEYS = st.sampled_from(["type", "pattern", "String", "Regex", "content", "vocab", "merges", "id"]) | st.text(max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2**65, 2**65) | st.floats() | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8)


@st.composite
def damaged(draw, whole: dict) -> bytes:
    """The file with a part of it replaced or left out, cut off, or with bytes flipped."""
    whole = copy.deepcopy(whole)
    for _ in range(draw(st.integers(0, 2))):
        block = whole
        while True:
            keys = list(block) if isinstance(block, dict) else range(len(block))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(block[key], dict | list) and draw(st.booleans()):
                block = block[key]
            elif draw(st.booleans()):
                block[key] = draw(JSON)
                break
            else:
                del block[key]
                break
    data = bytearray(json.dumps(whole).encode())
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[:draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@settings(max_examples=300)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_gives_rows_that_end(whole, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged" / "tokenizer.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data.draw(damaged(whole)))
    try:
        loaded = Tokenizer.load(path)
    except ValueError as error:
        assert str(path) in str(error)
        return
    row = loaded.encode(["A red hat 🐕, ünd <eos> <pad>"], LENGTH)[0]
    assert row.min() >= 0 and row.max() < loaded.vocab_size and EOS in row
    loaded.token_spans("A red hat", [(2, 5)], LENGTH)
