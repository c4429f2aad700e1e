"""Parsing errors at known rates, to measure what they cost: phrases as a worse parser would have found them.

    a man in khaki pants jumps over the fence       "khaki pants" becomes

    truncated         "pants"                       loses its first or its last words: one or more, never all
    merged            "khaki pants jumps over"      runs on over the next two or three words
    verb_swallowed    "khaki pants jumps"           runs on over the next word, as where a verb looks like a noun
    random_span       "man in"                      is any one to four words of the caption in a row
    dropped                                         is not found

A phrase to which its kind of error can't happen stays as it is: one word to be truncated, no word after it to run on over
(two, to be merged), determiners alone to be left over.
"""
import re
from collections.abc import Callable, Mapping
from itertools import islice

import numpy as np

from cc_jax.config import ConfigError
from cc_jax.data.phrases import Located, normalise
from cc_jax.data.treebank import Span

KINDS = ("truncated", "merged", "verb_swallowed", "random_span", "dropped")

_WORD, _RUN = re.compile(r"\w(?:\S*\w)?"), re.compile(r"\S+")   # a word has no punctuation around it


def check_rates(rates: Mapping[str, float]) -> dict[str, float]:
    """The rates above 0, in the order of KINDS, so that one set of rates always draws the same.

    Raises: ConfigError for a kind that is not of KINDS, a rate below 0, or rates of more than 1 together.
    """
    for kind, rate in rates.items():
        if kind not in KINDS:
            raise ConfigError(f"config.data.phrase_noise.{kind} is not known; use some of {', '.join(KINDS)}.")
        if not 0 <= rate <= 1:
            raise ConfigError(f"config.data.phrase_noise.{kind}={rate}; it is the share of phrases with this error: "
                              "0 to 1.")
    if (total := sum(rates.values())) > 1 + 1e-9:
        raise ConfigError(f"the rates of config.data.phrase_noise sum to {total:g}; a phrase has at most one error: "
                          "lower them to a sum of at most 1.")
    return {kind: rates[kind] for kind in KINDS if rates.get(kind, 0) > 0}


def add_noise(caption: str, phrases: Located, rates: Mapping[str, float], rng: np.random.Generator) -> Located:
    """The caption's phrases, each with one kind of error at most, equal ones once.

    Args:
      phrases: and where each stands, as `phrases.located_phrases`.
      rates: as `check_rates` returns them: how probable each kind is, for every phrase by itself.
    Returns: phrases and places like those given: `normalise(caption[span.start:span.end])` is the phrase, never empty.
    """
    drawn = np.searchsorted(np.cumsum(list(rates.values())), rng.random(len(phrases)), side="right")
    kinds, noisy = [*rates, None], {}
    for (phrase, span), kind in zip(phrases, (kinds[i] for i in drawn), strict=True):
        if kind == "dropped":
            continue
        if kind is not None:
            phrase, span = _bare(caption, _ERRORS[kind](caption, span, rng)) or (phrase, span)
        noisy.setdefault(phrase, span)
    return list(noisy.items())


def _truncated(caption: str, span: Span, rng: np.random.Generator) -> Span:
    words = _words(caption, *span)
    if len(words) < 2:
        return span
    lost = rng.integers(1, len(words))
    return Span(words[lost].start, span.end) if rng.random() < 0.5 else Span(span.start, words[-1 - lost].end)


def _merged(caption: str, span: Span, rng: np.random.Generator) -> Span:
    return _run_on(caption, span, 2, rng.integers(2, 4))


def _verb_swallowed(caption: str, span: Span, rng: np.random.Generator) -> Span:
    return _run_on(caption, span, 1, 1)


def _random_span(caption: str, span: Span, rng: np.random.Generator) -> Span:
    words = _words(caption, 0, len(caption))
    if not words:
        return span
    first = rng.integers(len(words))
    return Span(words[first].start, words[first:first + rng.integers(1, 5)][-1].end)


_ERRORS: dict[str, Callable[[str, Span, np.random.Generator], Span]] = {
    "truncated": _truncated, "merged": _merged, "verb_swallowed": _verb_swallowed, "random_span": _random_span}


def _run_on(caption: str, span: Span, least: int, most: int) -> Span:
    """The span up to the end of `most` words more, or of as many as there are; the span itself where these are few."""
    words = _words(caption, span.end, len(caption), most)
    return Span(span.start, words[-1].end) if len(words) >= least else span


def _words(caption: str, start: int, end: int, most: int | None = None) -> list[Span]:
    return [Span(*word.span()) for word in islice(_WORD.finditer(caption, start, end), most)]


def _bare(caption: str, span: Span) -> tuple[str, Span] | None:
    """(phrase, span) without leading determiners, None where nothing else is there."""
    phrase = normalise(caption[span.start:span.end])
    words = list(_RUN.finditer(caption, *span))[-len(phrase.split()):]
    return (phrase, Span(words[0].start(), span.end)) if phrase else None
