"""How phrases are judged: scores against gold, forms, kinds of error, and the two commands."""
import json
import re

import pytest

from cc_jax.data import backends, phrase_quality
from cc_jax.data.phrase_quality import Tally
from cc_jax.data.treebank import Span

CAPTION = "A dog and the red hat"
ROW = {"caption": CAPTION, "tokens": CAPTION.split(),
       "phrases": [{"start": 0, "end": 2}, {"start": 5, "end": 6}, {"start": 3, "end": 6}]}


def test_phrases_are_as_good_as_promised_with_both_taggers(gold, nltk_tagger):
    for tagger in ("shipped", nltk_tagger):
        scores = phrase_quality.evaluate(gold, tagger)
        assert scores.f1 >= 0.82 and scores.recall >= 0.88


def test_every_phrase_and_error_is_counted_once(gold):
    rows = gold[:300]
    scores, forms, errors, examples = phrase_quality.assess(rows)
    expected = sum(len(phrase_quality.gold_spans(row)) for row in rows)
    total = Tally(*map(sum, zip(*forms.values(), strict=True)))
    assert total.gold == expected and total.gold_found == total.predicted_right
    assert scores.recall == pytest.approx(total.gold_found / expected)
    wrong = sum(counter.total() for kind, counter in errors.items() if kind != "missed")
    assert wrong == total.predicted - total.predicted_right
    assert {kind for kind, _ in examples} == set(phrase_quality.ERRORS)


def test_matches_are_exact_without_leading_determiners():
    assert phrase_quality.evaluate([ROW]) == pytest.approx((1.0, 2 / 3, 0.8))


@pytest.mark.parametrize("before, phrase, expected", [
    ("we see ", "two", "pronoun, number"), ("a ", "group of people", "with of"),
    ("a ", "black and white dog", "coordinated"), ("the ", "man's hat", "possessive"), ("", "two dogs", "number + noun"),
    ("a ", "Boston street", "proper name"), ("", "Dogs", "one noun"), ("THE ", "DOG", "one noun"),
    ("a ", "red hat", "adjective + noun"), ("a ", "tennis ball", "noun + noun"), ("with ", "no shirt", "other"),
])
def test_forms_are_those_of_their_examples(before, phrase, expected):
    sentences = next(backends.load_backend("shipped")([before + phrase]))
    assert phrase_quality.form(Span(len(before), len(before + phrase)), before + phrase, sentences) == expected


@pytest.mark.parametrize("gold, found, expected", [
    ((6, 9), (2, 9), [("too long", "red …", "red [dog]")]),
    ((2, 9), (6, 9), [("too short", "red …", "red [dog]")]),
    ((2, 9), (6, 15), [("shifted", "dog barks for red dog", "")]),
    ((2, 9), (10, 15), [("spurious", "barks", ""), ("missed", "red dog", "")]),
    ((2, 9), (2, 9), []),
])
def test_an_error_is_named_by_what_was_found_too_much_or_too_little(gold, found, expected):
    assert list(phrase_quality.find_errors("a red dog barks", [Span(*gold)], [Span(*found)])) == expected


def test_the_command_shows_scores_forms_and_errors(tmp_path, command):
    rows = [ROW, {"caption": "A red dog", "tokens": ["A", "red", "dog"], "phrases": [{"start": 2, "end": 3}]}]
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = command("cc_jax.data.phrases", "--evaluate", tmp_path / "gold.jsonl").stdout.splitlines()
    assert shown[0] == "precision 0.6667  recall 0.5000  f1 0.5714"
    assert any(line.split() == ["one", "noun", "dog", "3", "0.333", "1", "1.000"] for line in shown)
    assert "     1  red …    as in: red [dog]" in shown


def test_the_command_explains_a_caption_in_aligned_columns(command):
    lines = command("cc_jax.data.phrases", "--explain", "A group of men on the Left. The photo").stdout.splitlines()
    assert lines[0].split() == ["token", "tag", "refined", "chunk", "phrase"]
    assert lines[1].split() == ["A", "DT", "1", "group", "of", "men"]
    assert lines[2].split() == ["group", "NN", "PART", "1"]
    assert lines[-2].endswith("- (names nothing)")
    place = lines[0].index("refined")
    assert all(line[place - 1:place] in (" ", "") for line in lines)


@pytest.mark.parametrize("arguments, said", [
    ([], "give one of --evaluate FILE and --explain CAPTION"),
    (["--explain", "a dog", "--tagger", "other"], "error: tagger='other' is not known"),
    (["--evaluate", "nowhere.jsonl"], "error: .*nowhere.jsonl"),
])
def test_what_the_command_cannot_do_ends_with_one_line(command, arguments, said):
    assert re.search(said, command("cc_jax.data.phrases", *arguments, fails=True).stderr)
