"""Noun phrases of captions: what they are, that they stand in the caption, and how well both taggers find them."""
import nltk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_jax.data import grammar, perceptron, phrases, treebank

CHARACTERS = st.characters(codec="latin-1") | st.sampled_from("“”‘’«»'\"`.,;&<>()…é日 \n\t")
CAPTIONS = st.lists(st.text(CHARACTERS, max_size=8) | st.sampled_from(
    "a the his red striped dog dogs of in is and , . walking group '' 's".split()), max_size=30).map(" ".join)


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


@pytest.mark.parametrize("caption, expected", [        # an example of each rule of the grammar
    ("a man in a blue hat rides a bike", ["man", "blue hat", "bike"]),
    ("a well dressed man and a slightly bald one", ["well dressed man"]),
    ("a snow covered roof, tree lined streets", ["snow covered roof", "tree lined streets"]),
    ("people and a snow - covered roof", ["people", "snow - covered roof"]),
    ("a dog - small and friendly", ["dog"]),
    ("a red, white and blue flag", ["red, white and blue flag"]),
    ("a tall, old man", ["tall, old man"]),
    ("a boy throws the ball", ["boy", "ball"]),
    ("soldiers guard the gate", ["soldiers", "gate"]),
    ("the final game monday", ["final game"]),
    ("the saturday market", ["saturday market"]),
    ("i love the chair you found", ["chair"]),
    ("she holds her hat", ["hat"]),
    ("crowds of people with trays of ice", ["crowds of people", "trays of ice"]),
    ("stock photo of a horse", ["horse"]),
    ("a climbing wall", ["climbing wall"]),
    ("a man climbing a wall", ["man", "wall"]),
])
def test_rules_do_what_their_examples_say(caption, expected):
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


@settings(deadline=None)     # the first one loads the tagger
@given(CAPTIONS)
def test_phrases_stand_in_the_caption_normalised_once_and_always_the_same(caption):
    found = phrases.noun_phrases(caption)
    text = " ".join(caption.lower().split())
    assert all(phrase and phrase in text and phrase == phrases.normalise(phrase) for phrase in found)
    assert len(set(found)) == len(found) and phrases.noun_phrases(caption) == found
    assert all(sum(map(len, treebank.tokenise(phrase))) <= phrases.MAX_TOKENS for phrase in found)


@settings(deadline=None)     # the first one loads the tagger
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


def test_chunks_of_runs_are_the_chunks_of_the_whole_sentence(gold):
    """The parser on whole sentences, against `chunk`, which cuts them where no phrase can pass."""
    parser = nltk.RegexpParser(grammar.GRAMMAR)
    tag = perceptron.load_tag("shipped")
    for row in gold[:300]:
        words = [token.lower() for token in row["tokens"]]
        tags = grammar.refine(words, tag(words))
        trees = [tree for tree in parser.parse(list(enumerate(tags))) if isinstance(tree, nltk.Tree)]
        assert grammar.chunk(tags) == [(tree[0][0], tree[-1][0] + 1) for tree in trees]


def test_a_phrase_over_the_token_limit_is_left_out():
    most = "red " * (phrases.MAX_TOKENS - 1) + "dog"
    assert phrases.noun_phrases(f"a {most} and a cat") == [most, "cat"]
    assert phrases.noun_phrases(f"a red {most} and a cat") == ["cat"]
