"""The taggers: the fast `tag` against NLTK's own, the shipped files, and what is said where data is missing."""
from importlib import resources

import nltk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_jax.data import perceptron, treebank

WORDS = st.lists(st.text(max_size=6) | st.sampled_from(
    "a the red dog dogs of is 1999 3 2nd well-known -x , . walking 's -START- -END-".split()), max_size=12)


def sentences(gold):
    return [[word for word, _ in tokens] for row in gold for tokens in treebank.tokenise(row["caption"])]


@pytest.mark.parametrize("name", ["shipped", "nltk"])
def test_tags_are_those_of_nltk_on_real_captions(name, gold, nltk_tagger):
    """NLTK's predict is slow, so a quarter of the captions, with their case and without."""
    own, tag = perceptron.load_tagger(name), perceptron.load_tag(name)
    for words in sentences(gold[::4]):
        for each in (words, [word.lower() for word in words]):
            assert tag(each) == [label for _, label in own.tag(each)]


@settings(deadline=None)
@given(WORDS)
def test_tags_are_those_of_nltk_on_any_words(words):
    own = perceptron.load_tagger("shipped").tag(words)
    assert perceptron.load_tag("shipped")(words) == [label for _, label in own]


def test_of_equal_scores_the_last_label_wins_as_in_nltk():
    tagger = nltk.PerceptronTagger(load=False)
    tagger.classes = tagger.model.classes = {"A", "C", "B"}
    tagger.model.weights = {"bias": {"A": 1, "B": 3}, "i word x": {"A": 2}, "i word y": {"B": -4, "A": -2}}
    words = ["x", "y", "z"]
    assert perceptron.make_tag(tagger)(words) == [label for _, label in tagger.tag(words)] == ["B", "C", "B"]


def test_the_shipped_files_are_small_and_readable_by_nltk_itself(monkeypatch):
    folder = resources.files("cc_jax.data") / "tagger"
    monkeypatch.setattr(nltk.data, "path", [str(folder)])       # NLTK reads only below its data path
    assert sum((folder / file).stat().st_size for file in perceptron.TAGGER_FILES.values()) <= 2_000_000
    theirs = nltk.PerceptronTagger(lang="captions", loc=nltk.data.FileSystemPathPointer(str(folder)))
    words = "a small dog sleeps near two red chairs".split()
    assert theirs.tag(words) == perceptron.load_tagger("shipped").tag(words)


def test_missing_nltk_data_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    perceptron.load_tagger.cache_clear()
    with pytest.raises(LookupError, match=r"nltk\.download\('averaged_perceptron_tagger_eng'\).*tagger='shipped'"):
        perceptron.load_tagger("nltk")
