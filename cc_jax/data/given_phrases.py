"""Phrases that come with the data: found again in their caption, in the form all phrases have."""
import re
from collections.abc import Sequence
from typing import Any

from cc_jax.data.phrases import MAX_TOKENS, normalise
from cc_jax.data.records import excerpt
from cc_jax.data.treebank import Span, tokenise

MAX_PHRASES = 1000      # of one caption: each is looked for in it
# Scripts that put no spaces between words, where a phrase may begin and end anywhere: Thai, Lao, Burmese, Khmer, CJK.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_START, _END = rf"(?:(?<!\w)|(?<=[{_UNSPACED}])|(?=[{_UNSPACED}]))", rf"(?:(?!\w)|(?=[{_UNSPACED}])|(?<=[{_UNSPACED}]))"


def locate(phrases: Sequence[Any], caption: str) -> tuple[list[tuple[str, Span]], list[tuple[str, str]]]:
    """((normalised phrase, where the caption mentions it first), ...), and (reason, detail) of each that can't be used.

    A phrase is used if it is a piece of the caption, whole words, but for case, white space and leading determiners:
    `phrases.normalise(caption[span.start:span.end])` is the phrase. One given twice is kept once.
    Reasons: "phrase_type", "phrase_empty", "phrase_too_long", "phrase_not_in_caption", "phrases_too_many" (once, for all
    over MAX_PHRASES).
    """
    found, rejected = {}, []
    for phrase in phrases[:MAX_PHRASES]:
        if not isinstance(phrase, str):
            rejected.append(("phrase_type", f"a {type(phrase).__name__}: {excerpt(phrase)}; a phrase must be text."))
        elif not any(map(str.isalnum, normalise(phrase))):
            rejected.append(("phrase_empty", f"{excerpt(phrase)} has nothing but determiners and punctuation."))
        elif (tokens := sum(map(len, tokenise(phrase)))) > MAX_TOKENS:
            rejected.append(("phrase_too_long", f"{tokens} tokens, more than {MAX_TOKENS}: {excerpt(phrase)}."))
        elif (place := _find(phrase.split(), caption)) is None:
            rejected.append(("phrase_not_in_caption", f"{excerpt(phrase)} is not in {excerpt(caption)}."))
        else:
            found.setdefault(*place)
    if len(phrases) > MAX_PHRASES:
        rejected.append(("phrases_too_many", f"{len(phrases)}, more than {MAX_PHRASES}; the rest is left out."))
    return list(found.items()), rejected


def _find(words: list[str], caption: str) -> tuple[str, Span] | None:
    """(normalised phrase, span): with its determiners if it stands so, as "the dog" in "a hot dog for the dog"."""
    bare = normalise(" ".join(words)).split()
    for wanted in (words, bare):
        pattern = _START + r"\s+".join(map(re.escape, wanted)) + _END
        for match in re.finditer(pattern, caption, re.IGNORECASE):
            mention = list(re.finditer(r"\S+", match[0]))[-len(bare):]
            span = Span(match.start() + mention[0].start(), match.end())
            if (phrase := normalise(caption[span.start:span.end])) == " ".join(bare):   # lower case may differ from what
                return phrase, span                                                     # matches whatever the case
    return None
