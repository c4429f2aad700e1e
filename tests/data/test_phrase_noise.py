"""Parsing errors put into phrases: pieces of the caption, of the kinds and at the rates asked for."""
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_jax.config import ConfigError
from cc_jax.data.phrase_noise import KINDS, add_noise, check_rates
from cc_jax.data.phrases import normalise
from cc_jax.data.treebank import Span

CAPTIONS = st.lists(st.text(max_size=5) | st.sampled_from(
    "a the his red striped dog dogs, of in is and , . walking man's well-known 日本の寺 İstanbul".split()),
    max_size=20).map(" ".join)
RATES = st.lists(st.floats(0, 1), min_size=5, max_size=5).map(
    lambda shares: {kind: share / max(1, sum(shares)) for kind, share in zip(KINDS, shares, strict=True)})
SEEDS = st.integers(0, 2**32)


@st.composite
def located(draw):
    """A caption and phrases anywhere in it, such as any backend may have found."""
    caption, phrases = draw(CAPTIONS), {}
    ends = st.integers(0, len(caption))
    for pair in draw(st.lists(st.tuples(ends, ends), max_size=6)):
        if phrase := normalise(caption[min(pair):max(pair)]):
            phrases.setdefault(phrase, Span(min(pair), max(pair)))
    return caption, list(phrases.items())


def noisy(caption, phrases, seed=0, **rates):
    return add_noise(caption, phrases, check_rates(rates), np.random.default_rng(seed))


def outcomes(caption, phrase, **rates):
    """What becomes of a phrase over 300 seeds."""
    start = caption.index(phrase)
    found = [noisy(caption, [(phrase, Span(start, start + len(phrase)))], seed, **rates) for seed in range(300)]
    return {text for phrases in found for text, _ in phrases}


@settings(max_examples=300)
@given(located(), RATES, SEEDS)
def test_every_phrase_is_a_piece_of_the_caption_once_and_never_empty(example, rates, seed):
    caption, phrases = example
    found = noisy(caption, phrases, seed, **rates)
    for phrase, span in found:
        assert phrase and phrase == normalise(caption[span.start:span.end])
        assert 0 <= span.start < span.end <= len(caption)
    assert len({phrase for phrase, _ in found}) == len(found) <= len(phrases)


@given(located(), SEEDS)
def test_without_noise_phrases_are_as_they_were(example, seed):
    assert noisy(*example, seed) == noisy(*example, seed, **dict.fromkeys(KINDS, 0.0)) == example[1]


@given(located(), RATES, SEEDS)
def test_the_same_seed_gives_the_same_errors_in_whatever_order_rates_are_written(example, rates, seed):
    assert noisy(*example, seed, **rates) == noisy(*example, seed, **dict(reversed(rates.items())))


@given(located(), SEEDS)
def test_what_is_truncated_lies_in_the_phrase_and_what_runs_on_begins_with_it(example, seed):
    caption, phrases = example
    for phrase, span in phrases:
        [(_, less)] = noisy(caption, [(phrase, span)], seed, truncated=1)
        assert span.start <= less.start < less.end <= span.end
        for kind in ("verb_swallowed", "merged"):
            [(text, more)] = noisy(caption, [(phrase, span)], seed, **{kind: 1})
            assert more.end >= span.end and text == normalise(caption[span.start:more.end])
    assert noisy(caption, phrases, seed, dropped=1) == []


CAPTION = "A man in Khaki cargo pants jumps over the fence."


@pytest.mark.parametrize(("kind", "phrase", "expected"), [
    ("truncated", "Khaki cargo pants", {"khaki", "khaki cargo", "cargo pants", "pants"}),
    ("merged", "Khaki cargo pants", {"khaki cargo pants jumps over", "khaki cargo pants jumps over the"}),
    ("merged", "over", {"over the fence"}),
    ("verb_swallowed", "Khaki cargo pants", {"khaki cargo pants jumps"}),
    ("verb_swallowed", "over the", {"over the fence"}),
    ("dropped", "Khaki cargo pants", set()),
])
def test_each_kind_does_what_it_says(kind, phrase, expected):
    start = CAPTION.index(phrase)
    span, lower = Span(start, start + len(phrase)), phrase.lower()
    assert {text for seed in range(300) for text, _ in noisy(CAPTION, [(lower, span)], seed, **{kind: 1})} == expected


def test_a_random_span_is_any_one_to_four_words_in_a_row_of_the_caption():
    words = "one two three four five six".split()
    assert outcomes(" ".join(words), "two", random_span=1) == {
        " ".join(words[i:j]) for i in range(6) for j in range(i + 1, min(i + 4, 6) + 1)}


@pytest.mark.parametrize(("caption", "phrase", "kind"), [
    ("a dog runs", "dog", "truncated"),
    ("runs a dog.", "dog", "verb_swallowed"),
    ("a dog runs.", "dog", "merged"),
    ("... !", "...", "random_span"),
])
def test_a_phrase_to_which_its_error_can_not_happen_stays(caption, phrase, kind):
    assert outcomes(caption, phrase, **{kind: 1}) == {phrase}


def test_determiners_that_come_to_lead_are_dropped_from_phrase_and_place():
    assert outcomes("state of the art", "of the art", truncated=1) == {"of", "of the", "art"}
    assert outcomes("cat the dog", "cat the", truncated=1) == {"cat", "cat the"}    # "the" alone would be none
    for seed in range(50):
        [(phrase, span)] = noisy("state of the art", [("state", Span(0, 5))], seed, random_span=1)
        assert "state of the art"[span.start:span.end] == phrase


def test_an_error_that_makes_two_phrases_equal_leaves_one():
    caption, phrases = "red dog runs", [("red dog", Span(0, 7)), ("red dog runs", Span(0, 12))]
    assert noisy(caption, phrases[:1] + phrases, verb_swallowed=1) == [("red dog runs", Span(0, 12))]


def test_rates_are_met():
    """Of 6 000 phrases a share of 0.2 deviates by 0.005. Each kind is told by what it makes of "p q"."""
    caption, rng = "p q x y z" + " r" * 200, np.random.default_rng(0)
    rates = dict(truncated=0.1, merged=0.05, verb_swallowed=0.2, random_span=0.15, dropped=0.1)
    kind = {"p": "truncated", "q": "truncated", "p q x y": "merged", "p q x y z": "merged", "p q x": "verb_swallowed",
            "": "dropped", "p q": "none"}
    counts = Counter()
    for _ in range(6000):
        found = add_noise(caption, [("p q", Span(0, 3))], check_rates(rates), rng)
        counts[kind.get(found[0][0] if found else "", "random_span")] += 1
    for name, rate in (rates | {"none": 0.4}).items():
        assert counts[name] / 6000 == pytest.approx(rate, abs=0.025), name


@pytest.mark.parametrize(("rates", "message"), [
    ({"swapped": 0.1}, r"phrase_noise.swapped is not known; use some of truncated, merged, verb_swallowed, random_span"),
    ({"merged": -0.1}, r"phrase_noise.merged=-0.1; it is the share .* 0 to 1"),
    ({"dropped": 1.5}, r"phrase_noise.dropped=1.5; .* 0 to 1"),
    ({"dropped": float("nan")}, r"phrase_noise.dropped=nan"),
    ({"dropped": 0.6, "merged": 0.6}, r"phrase_noise sum to 1.2; .*at most 1"),
])
def test_rates_that_can_not_be_are_refused(rates, message):
    with pytest.raises(ConfigError, match=message):
        check_rates(rates)


def test_rates_may_fill_the_whole():
    assert check_rates(dict.fromkeys(KINDS, 0.2)) == dict.fromkeys(KINDS, 0.2)
    assert check_rates({"dropped": 0.9, "merged": 0.0, "truncated": 0.1}) == {"truncated": 0.1, "dropped": 0.9}
