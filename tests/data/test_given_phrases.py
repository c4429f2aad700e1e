"""Phrases that come with the data are used where they are a piece of their caption, and nowhere else."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_jax.data.given_phrases import MAX_PHRASES, locate
from cc_jax.data.phrases import normalise


@pytest.mark.parametrize("caption, phrase, mention", [
    ("A Red  Dog runs.", "red dog", "Red  Dog"),
    ("A Red Dog runs.", "a red dog", "Red Dog"),
    ("two red\tdogs", "Red dogs", "red\tdogs"),
    ("a woman and a man", "man", "man"),
    ("hot dog stand for the dog", "the dog", "dog"),
    ("hot dog stand", "the dog", "dog"),
    ("(blue) sky, 50% off!", "50% off", "50% off"),
    ("c++ on a t-shirt", "c++", "c++"),
    ("女孩骑着红色自行车", "红色自行车", "红色自行车"),
    ("STRASSE in Köln", "köln", "Köln"),
])
def test_a_phrase_is_found_in_its_caption(caption, phrase, mention):
    [(text, span)], rejected = locate([phrase], caption)
    assert caption[span.start:span.end] == mention and text == normalise(mention) and not rejected


def test_a_phrase_with_its_determiner_is_found_where_it_stands_so():
    [(_, span)], _ = locate(["the dog"], "a hot dog for the dog")
    assert span == (18, 21)


@pytest.mark.parametrize("phrase, reason", [
    ("man", "phrase_not_in_caption"), ("cat", "phrase_not_in_caption"), ("red", "phrase_not_in_caption"),
    ("", "phrase_empty"), (" \t", "phrase_empty"), ("the", "phrase_empty"), (None, "phrase_type"), (3, "phrase_type"),
    (["dog"], "phrase_type"), ("the ,", "phrase_empty"), ("red " * 12 + "dog", "phrase_too_long"),
])
def test_a_phrase_that_can_not_be_used_is_rejected_with_its_reason(phrase, reason):
    found, [(found_reason, detail)] = locate([phrase, "dog", "DOG", "a dog"], "a woman, a dog, reddish")
    assert [text for text, _ in found] == ["dog"] and found_reason == reason and len(detail) < 500


def test_phrases_without_end_are_cut_short():
    found, rejected = locate(["dog"] * (MAX_PHRASES + 1), "dog")
    assert len(found) == 1 and [reason for reason, _ in rejected] == ["phrases_too_many"]


@given(caption=st.text(max_size=40), phrases=st.lists(st.text(max_size=10), max_size=4),
       cut=st.tuples(*[st.integers(0, 40)] * 2))
@settings(deadline=None)
def test_every_phrase_found_is_a_piece_of_the_caption(caption, phrases, cut):
    found, rejected = locate([*phrases, caption[min(cut):max(cut)]], caption)
    for phrase, span in found:
        assert phrase and normalise(caption[span.start:span.end]) == phrase
    assert len(found) + len(rejected) <= len(phrases) + 1 and (found or rejected)
