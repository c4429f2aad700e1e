"""Captions -> noun phrases, the "concepts" of the two concept losses.

    noun_phrases("A man in the red hat rides his horse.")  ->  ["man", "red hat", "horse"]

Treebank tokens -> averaged perceptron tags -> the chunk grammar of `grammar.py` -> `normalise`. Nothing is downloaded:
the tagger "shipped" lies next to this file (trained by `cc_jax/tools/train_tagger.py`); "nltk" is NLTK's own, where its
data is installed. Case changes nothing: tags are found on the lower-cased caption.

    python -m cc_jax.data.phrases --evaluate gold.jsonl [--tagger nltk]     # precision, recall and F1
"""
import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

import nltk
from absl import app, flags
from nltk.tag.perceptron import PerceptronTagger
from nltk.tokenize import TreebankWordTokenizer

from cc_jax.data import grammar

TAGGERS = ("shipped", "nltk")
TAGGER_FILES = {part: f"averaged_perceptron_tagger_captions.{part}.json" for part in ("weights", "tagdict", "classes")}


class Span(NamedTuple):
    """Characters [start, end) of a caption."""
    start: int
    end: int


class Scores(NamedTuple):
    """How predicted spans agree with gold ones; fractions of 1."""
    precision: float
    recall: float
    f1: float


def located_phrases(caption: str, tagger: str = "shipped") -> list[tuple[str, Span]]:
    """The normalised noun phrases of a caption, each once, in the order of their first mention, and where that stands.

    Every one is a piece of the caption, but for case and white space: `normalise(caption[span.start:span.end])`.

    Args:
      caption: any text, several sentences too.
      tagger: "shipped", or "nltk" for NLTK's own where its data is installed.
    Raises: ValueError for another tagger, LookupError where NLTK's data is missing.
    """
    found = {}
    for span in phrase_spans(caption, tagger):
        if phrase := normalise(caption[span.start:span.end]):
            found.setdefault(phrase, span)
    return list(found.items())


def noun_phrases(caption: str, tagger: str = "shipped") -> list[str]:
    """The phrases of `located_phrases` alone."""
    return [phrase for phrase, _ in located_phrases(caption, tagger)]


def batch_located_phrases(captions: Sequence[str], tagger: str = "shipped") -> list[list[tuple[str, Span]]]:
    """`located_phrases` of each caption."""
    return [located_phrases(caption, tagger) for caption in captions]


def batch_noun_phrases(captions: Sequence[str], tagger: str = "shipped") -> list[list[str]]:
    """`noun_phrases` of each caption."""
    return [noun_phrases(caption, tagger) for caption in captions]


def normalise(phrase: str) -> str:
    """The form in which phrases are compared: lower case, white space joined, leading determiners dropped.

    Determiners and possessives are `grammar.DETERMINERS`; a phrase of nothing else becomes "".
    """
    words = phrase.lower().split()
    return " ".join(words[_count_determiners(words):])


def phrase_spans(caption: str, tagger: str = "shipped") -> list[Span]:
    """Where the noun phrases of a caption stand, leading determiners left out, in order, repeated ones repeated."""
    model = load_tagger(tagger)
    spans = []
    for tokens in tokenise(caption):
        words = [word.lower() for word, _ in tokens]
        tags = grammar.refine(words, [tag for _, tag in model.tag(words)])
        for first, end in grammar.chunk(tags):
            first += _count_determiners(words[first:end])
            if first < end and " ".join(words[first:end]) not in grammar.STOP_PHRASES:
                spans.append(Span(tokens[first][1].start, tokens[end - 1][1].end))
    return spans


def tokenise(caption: str) -> list[list[tuple[str, Span]]]:
    """The Treebank tokens of each sentence of a caption: words, quotation marks made plain, and where they stand."""
    # The tokenizer rewrites quotation marks, so that tokens no longer stand in the text; semicolons it only separates.
    text = caption.translate(_QUOTES).replace("''", ";;")
    sentences, start = [], 0
    for stop in [*_SENTENCE_ENDS.finditer(text), None]:     # it takes only the last full stop of a text off its word
        end = stop.start() if stop else len(text)
        spans = (Span(start + a, start + b) for a, b in _TOKENIZER.span_tokenize(text[start:end]))
        sentences.append([(text[a:b], Span(a, b)) for a, b in spans])
        start = stop.end() if stop else end
    return sentences


@lru_cache(maxsize=len(TAGGERS))
def load_tagger(name: str) -> PerceptronTagger:
    """The tagger "shipped" or "nltk", loaded once.

    Raises: ValueError for another name, LookupError where NLTK's data is missing.
    """
    if name not in TAGGERS:
        raise ValueError(f"tagger={name!r} is not known; use one of {', '.join(map(repr, TAGGERS))}.")
    if name == "shipped":
        return read_tagger(resources.files("cc_jax.data") / "tagger")
    try:
        return PerceptronTagger()
    except LookupError as error:
        raise LookupError(
            "tagger='nltk' needs NLTK's averaged_perceptron_tagger_eng, which is in none of "
            f"{', '.join(nltk.data.path)}. Get it with nltk.download('averaged_perceptron_tagger_eng') (or point "
            "NLTK_DATA to it), or use tagger='shipped', which needs no data.") from error


def read_tagger(folder: Traversable) -> PerceptronTagger:
    """A tagger from the three JSON files of NLTK's format in a folder."""
    parts = {part: json.loads((folder / file).read_text("utf-8")) for part, file in TAGGER_FILES.items()}
    tagger = PerceptronTagger(load=False)
    tagger.model.weights, tagger.tagdict = parts["weights"], parts["tagdict"]
    tagger.classes = tagger.model.classes = set(parts["classes"])
    return tagger


def evaluate(rows: Iterable[dict], tagger: str = "shipped") -> Scores:
    """Exact-match scores of `phrase_spans` against gold phrases, leading determiners left out on both sides.

    Args:
      rows: {"caption", "tokens", "phrases": [{"start", "end"}, ...]}; start and end count tokens.
      tagger: as in `located_phrases`.
    Gold sets that mark only phrases with a box make precision a lower bound.
    """
    found = predicted = expected = 0
    for row in rows:
        gold, guesses = _gold_spans(row), set(phrase_spans(row["caption"], tagger))
        found += len(gold & guesses)
        predicted += len(guesses)
        expected += len(gold)
    precision, recall = found / max(predicted, 1), found / max(expected, 1)
    return Scores(precision, recall, 2 * precision * recall / max(precision + recall, 1e-9))


def _gold_spans(row: dict) -> set[Span]:
    """Character spans of the gold phrases; a token that the caption spells otherwise gets a span nothing can match."""
    spans, position = [], 0
    for token in row["tokens"]:
        start = row["caption"].find(token, position)
        spans.append(Span(start, start + len(token)) if start >= 0 else Span(-1, -1))
        position = max(position, spans[-1].end)
    gold = set()
    for phrase in row["phrases"]:
        first = phrase["start"] + _count_determiners(
            [token.lower() for token in row["tokens"][phrase["start"]:phrase["end"]]])
        if first < phrase["end"]:
            gold.add(Span(spans[first].start, spans[phrase["end"] - 1].end))
    return gold


def _count_determiners(words: Sequence[str]) -> int:
    """How many determiners a phrase (lower case) begins with."""
    return next((i for i, word in enumerate(words) if word not in grammar.DETERMINERS), len(words))


_TOKENIZER = TreebankWordTokenizer()
_QUOTES = str.maketrans({**dict.fromkeys('"“”„«»', ";"), **dict.fromkeys("‘’´", "'")})
# Two lower-case letters or digits before the stop: not the "St." of "St. Patrick's Day" nor an initial.
_SENTENCE_ENDS = re.compile(r"(?<=[^\W_A-Z][^\W_A-Z][.!?])\s+(?=\S)")


def main(_) -> None:
    with open(flags.FLAGS.evaluate, encoding="utf-8") as lines:
        scores = evaluate(map(json.loads, lines), flags.FLAGS.tagger)
    print("  ".join(f"{name} {value:.4f}" for name, value in scores._asdict().items()))


if __name__ == "__main__":
    flags.DEFINE_string("evaluate", None, "JSON lines {caption, tokens, phrases: [{start, end}]} to score against.",
                        required=True)
    flags.DEFINE_enum("tagger", "shipped", TAGGERS, "Which part-of-speech tagger to use.")
    app.run(main)
