"""Tokens: the fast way against NLTK's, on real captions and on any text."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tokenize import TreebankWordTokenizer

from cc_jax.data import treebank

PIECES = st.sampled_from(
    "a dog man's cannot wanna St. 1,000 't 's . , ,, .. - -- x-ray é 'S d'ye ' it's. U.S. (b) ſ's".split())
PLAIN = st.lists(PIECES | st.text("ab1 ,.'-sS_é", max_size=5), max_size=12).map(" ".join)


def theirs(text):
    return [text[start:end] for start, end in TreebankWordTokenizer().span_tokenize(text)]


@settings(deadline=None)
@given(PLAIN)
def test_tokens_of_a_sentence_are_nltks(text):
    assert [word for word, _ in treebank._tokenise_sentence(text, 0)] == theirs(text.replace("''", ";;"))


def test_tokens_of_real_captions_are_nltks(test_data):
    plain = 0
    for file in ("cc3m_val", "flickr30k_part", "coco_val2017"):
        captions = (test_data / "captions" / f"{file}.txt").read_text("utf-8").splitlines()[::40]
        for caption in captions:
            if not treebank._SPECIAL.search(caption):
                plain += 1
                assert [word for word, _ in treebank._tokenise_sentence(caption, 0)] == theirs(caption)
    assert plain > 2_000


@pytest.mark.parametrize("caption, expected", [
    ("A dog. The man's hat", [["A", "dog", "."], ["The", "man", "'s", "hat"]]),
    ("St. Ives, 1,000 boats", [["St.", "Ives", ",", "1,000", "boats"]]),
    ("a “red” hat", [["a", ";", "red", ";", "hat"]]),
    ("", [[]]),
])
def test_sentences_and_quotation_marks(caption, expected):
    assert [[word for word, _ in tokens] for tokens in treebank.tokenise(caption)] == expected


@settings(deadline=None)
@given(st.text())
def test_tokens_stand_in_the_caption_in_order(caption):
    position = 0
    for tokens in treebank.tokenise(caption):
        for word, (start, end) in tokens:
            assert position <= start < end and len(word) == end - start
            position = end
