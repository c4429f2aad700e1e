"""Captions -> sentences -> Treebank tokens, each with its place in the caption.

NLTK's tokenizer rewrites the text a dozen times and then looks for the tokens in it. Most sentences have nothing but
words, commas, a possessive and a full stop: one regular expression gives the same tokens of those, several times faster.
"""
import re
from functools import cache
from typing import Any, NamedTuple


class Span(NamedTuple):
    """Characters [start, end) of a caption."""
    start: int
    end: int


def tokenise(caption: str) -> list[list[tuple[str, Span]]]:
    """The Treebank tokens of each sentence of a caption: words, quotation marks made plain, and where they stand."""
    sentences, start = [], 0
    for stop in [*_SENTENCE_ENDS.finditer(caption), None]:  # Treebank takes only the last full stop of a text off its word
        end = stop.start() if stop else len(caption)
        sentences.append(_tokenise_sentence(caption[start:end], start))
        start = stop.end() if stop else end
    return sentences


def _tokenise_sentence(text: str, offset: int) -> list[tuple[str, Span]]:
    if not _SPECIAL.search(text):
        return [(match[0], Span(offset + match.start(), offset + match.end())) for match in _PLAIN_TOKENS.finditer(text)]
    # The tokenizer rewrites quotation marks, so that tokens no longer stand in the text; semicolons it only separates.
    text = text.translate(_QUOTES).replace("''", ";;")
    return [(text[a:b], Span(offset + a, offset + b)) for a, b in _tokenizer().span_tokenize(text)]


@cache
def _tokenizer() -> Any:
    from nltk.tokenize import TreebankWordTokenizer  # here: NLTK takes a second to import
    return TreebankWordTokenizer()


_QUOTES = str.maketrans({**dict.fromkeys('"“”„«»', ";"), **dict.fromkeys("‘’´", "'")})
# Two lower-case letters or digits before the stop: not the "St." of "St. Patrick's Day" nor an initial.
_SENTENCE_ENDS = re.compile(r"(?<=[^\W_A-Z][^\W_A-Z][.!?])\s+(?=\S)")

_PLAIN_TOKENS = re.compile(r"[^ ,.']+|[,.]|'[sS]")
_SPECIAL = re.compile(
    r"[^\w ,.'-]|--"                            # other punctuation and white space
    r"|\.(?! *$)|,(?! |$)"                      # "St. Ives", "1,000"
    r"|(?<![^\W_])'|'(?![sS](?:[ ,.]|$))"       # "'tis", "don't"; but "man's" is plain
    r"|\b(?i:cannot|gimme|gonna|gotta|lemme|wanna)\b")
