"""Noun phrases of captions: what they are, that they stand in the caption, and how well both taggers find them."""
import json
import subprocess
import sys
from importlib import resources

import nltk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_jax.data import grammar, phrases

CHARACTERS = st.characters(codec="latin-1") | st.sampled_from("“”‘’«»'\"`.,;&<>()…é日 \n\t")
CAPTIONS = st.lists(st.text(CHARACTERS, max_size=8) | st.sampled_from(
    "a the his red striped dog dogs of in is and , . walking group '' 's".split()), max_size=30).map(" ".join)


@pytest.fixture
def nltk_tagger(test_data, monkeypatch):
    """NLTK's own tagger data, found the way users have it found."""
    monkeypatch.setattr(nltk.data, "path", [str(test_data / "nltk_data")])
    phrases.load_tagger.cache_clear()
    yield "nltk"
    phrases.load_tagger.cache_clear()


@pytest.mark.parametrize("caption, expected", [
    ("A man in the red hat rides his horse.", ["man", "red hat", "horse"]),
    ("Two dogs and a group of young people in front of a car .", ["two dogs", "group of young people", "car"]),
    ("a black and white dog catches a frisbee", ["black and white dog", "frisbee"]),
    ("The boy's left hand holds a tennis ball, a book and a very large cup", [
        "boy's left hand", "tennis ball", "book", "very large cup"]),
    ("A picture of a cat.", ["cat"]),
    ("A man with no shirt", ["man", "no shirt"]),
    ("two red crosses and three dotted rings", ["two red crosses", "three dotted rings"]),
    ("a boy jumps off a red wall near something", ["boy", "red wall"]),
    ("a large striped red circle above a small blue square, next to a green star", [
        "large striped red circle", "small blue square", "green star"]),
    ("There is a tiny yellow cross to the left of a dotted purple triangle.", [
        "tiny yellow cross", "dotted purple triangle"]),
    ("A plain cyan ring is on the right. The big brown arrow is below it.", ["plain cyan ring", "big brown arrow"]),
    ("on the left a white moon and at the top a black plus", ["white moon", "black plus"]),
])
def test_noun_phrases_of_typical_captions(caption, expected):
    assert phrases.noun_phrases(caption) == expected


def test_every_object_of_a_drawn_scene_is_one_phrase():
    shapes = "circle square triangle star cross ring heart diamond hexagon pentagon plus moon arrow".split()
    colours = "red green blue yellow orange purple pink black white brown cyan gray".split()
    for i, shape in enumerate(shapes):
        for j, colour in enumerate(colours):
            first = f"{'large small big tiny'.split()[(i + j) % 4]} {colour} {shape}"
            second = f"{'striped dotted plain checkered'.split()[j % 4]} {colours[j - 1]} {shapes[i - 1]}"
            for caption in (f"a {first} to the right of a {second}", f"There is a {second} and a {first}."):
                assert sorted(phrases.noun_phrases(caption)) == sorted([first, second]), caption


def test_a_repeated_phrase_comes_once_but_has_all_its_spans():
    caption = "A  dog, the\tDog and his dog"
    assert phrases.noun_phrases(caption) == ["dog"]
    assert [caption[start:end] for start, end in phrases.phrase_spans(caption)] == ["dog", "Dog", "dog"]


def test_a_located_phrase_stands_where_it_is_first_mentioned():
    caption = 'The  “Red\tHat”, a dog, his red hat and the Dog 🐕'
    assert [(phrase, caption[start:end]) for phrase, (start, end) in phrases.located_phrases(caption)] == [
        ("red hat", "Red\tHat"), ("dog", "dog")]


@pytest.mark.parametrize("caption", ["", " \n", ".", "the", "it is", "\"", "!!! ''' ``", "\x00", "in front of"])
def test_a_caption_without_phrases_gives_none(caption):
    assert phrases.noun_phrases(caption) == []


@pytest.mark.parametrize("caption", ["A RED HAT AND TWO GREEN SHOES.", "A Red Hat and two Green shoes .",
                                     "a red hat and two green shoes"])
def test_case_and_the_full_stop_change_nothing(caption):
    assert phrases.noun_phrases(caption) == ["red hat", "two green shoes"]


@pytest.mark.parametrize("caption, expected", [
    ('the so-called "red hat" on a shelf', "red hat"),
    ("a “red hat” on a shelf", "red hat"),
    ("a (red hat) of ''felt''", "red hat"),
    ("the man’s red hat", "man’s red hat"),
])
def test_quotation_marks_and_brackets_stay_outside(caption, expected):
    assert expected in phrases.noun_phrases(caption)


@given(CAPTIONS)
def test_phrases_stand_in_the_caption_normalised_once_and_always_the_same(caption):
    found = phrases.noun_phrases(caption)
    text = " ".join(caption.lower().split())
    assert all(phrase and phrase in text and phrase == phrases.normalise(phrase) for phrase in found)
    assert len(set(found)) == len(found)
    assert phrases.batch_noun_phrases([caption, caption]) == [found, found]


@given(CAPTIONS)
def test_every_phrase_is_located_once_at_the_first_span_that_reads_so(caption):
    located = phrases.located_phrases(caption)
    assert [phrase for phrase, _ in located] == phrases.noun_phrases(caption)
    spans = phrases.phrase_spans(caption)
    for phrase, span in located:
        assert span == next(each for each in spans if phrases.normalise(caption[each.start:each.end]) == phrase)
    assert phrases.batch_located_phrases([caption, caption]) == [located, located]


@pytest.mark.parametrize("phrase, expected", [
    ("The  Dog", "dog"), ("all his\nthree dogs", "three dogs"), ("no dog", "no dog"), ("this", ""), ("", ""),
    ("theatre", "theatre"), ("dog the", "dog the"),
])
def test_normalise_lowers_joins_and_drops_leading_determiners(phrase, expected):
    assert phrases.normalise(phrase) == expected


def test_a_very_long_caption_is_read_to_its_end():
    caption = "red " * 5_000 + "dog " * 5_000 + ", a blue cup next to a tree. " * 2_000 + "An owl."
    found = phrases.noun_phrases(caption)
    assert found[-3:] == ["blue cup", "tree", "owl"]


def test_chunks_of_runs_are_the_chunks_of_the_whole_sentence(test_data):
    """The parser on whole sentences, against `chunk`, which cuts them where no phrase can pass."""
    parser = nltk.RegexpParser(grammar.GRAMMAR)
    model = phrases.load_tagger("shipped")
    for row in _gold(test_data)[:300]:
        words = [token.lower() for token in row["tokens"]]
        tags = grammar.refine(words, [tag for _, tag in model.tag(words)])
        trees = [tree for tree in parser.parse(list(enumerate(tags))) if isinstance(tree, nltk.Tree)]
        assert grammar.chunk(tags) == [(tree[0][0], tree[-1][0] + 1) for tree in trees]


def test_the_shipped_tagger_is_within_a_point_of_nltks_own(test_data, nltk_tagger):
    gold = _gold(test_data)
    shipped, own = phrases.evaluate(gold), phrases.evaluate(gold, nltk_tagger)
    assert own.f1 > 0.82
    assert shipped.f1 > max(0.82, own.f1 - 0.01)


def test_evaluate_counts_exact_matches_without_leading_determiners():
    row = {"caption": "A dog and the red hat", "tokens": "A dog and the red hat".split(),
           "phrases": [{"start": 0, "end": 2}, {"start": 5, "end": 6}, {"start": 3, "end": 6}]}
    scores = phrases.evaluate([row])
    assert scores == pytest.approx((1.0, 2 / 3, 0.8))


def test_the_shipped_files_are_small_and_readable_by_nltk_itself(monkeypatch):
    folder = resources.files("cc_jax.data") / "tagger"
    monkeypatch.setattr(nltk.data, "path", [str(folder)])       # NLTK reads only below its data path
    assert sum((folder / file).stat().st_size for file in phrases.TAGGER_FILES.values()) <= 2_000_000
    theirs = nltk.PerceptronTagger(lang="captions", loc=nltk.data.FileSystemPathPointer(str(folder)))
    words = "a small dog sleeps near two red chairs".split()
    assert theirs.tag(words) == phrases.load_tagger("shipped").tag(words)


def test_missing_nltk_data_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    phrases.load_tagger.cache_clear()
    with pytest.raises(LookupError, match=r"nltk\.download\('averaged_perceptron_tagger_eng'\).*tagger='shipped'"):
        phrases.noun_phrases("a dog", tagger="nltk")


def test_an_unknown_tagger_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="tagger='spacy'.*'shipped', 'nltk'"):
        phrases.noun_phrases("a dog", tagger="spacy")


def test_the_command_prints_the_scores(tmp_path):
    gold = tmp_path / "gold.jsonl"
    gold.write_text(json.dumps({"caption": "A dog.", "tokens": ["A", "dog", "."], "phrases": [{"start": 0, "end": 2}]}))
    command = [sys.executable, "-m", "cc_jax.data.phrases", "--evaluate", str(gold)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == (
        "precision 1.0000  recall 1.0000  f1 1.0000\n")


def _gold(test_data):
    return [json.loads(line) for line in (test_data / "np_gold" / "dev.jsonl").open(encoding="utf-8")]
