"""Captions -> noun phrases, the "concepts" of the two concept losses.

    noun_phrases("A man in the red hat rides his horse.")  ->  ["man", "red hat", "horse"]

A backend (`backends.py`) gives tokens and chunks, whatever is behind it; which chunks are phrases, and their form, is
decided here. Phrases that come with the data: `given_phrases.py`.

    python -m cc_jax.data.phrases --explain "A man in the red hat"          # tokens, tags, chunks, phrases
    python -m cc_jax.data.phrases --evaluate gold.jsonl [--tagger nltk]     # scores, by form, and the commonest errors
"""
import sys
from collections.abc import Iterable, Iterator, Sequence

from absl import app, flags

from cc_jax import strict_json
from cc_jax.data import backends, grammar
from cc_jax.data.backends import Sentence, load_backend
from cc_jax.data.treebank import Span

MAX_TOKENS = 12             # a longer "phrase" is a slip of the tagger; the longest of 7 000 that people marked has 10

Located = list[tuple[str, Span]]


def located_phrases(caption: str, tagger: str = "shipped") -> Located:
    """The normalised noun phrases of a caption, each once, in the order of their first mention, and where that stands.

    Every one is a piece of the caption, but for case and white space: `normalise(caption[span.start:span.end])`; none is
    empty, none has more than MAX_TOKENS tokens.

    Args:
      caption: any text, several sentences too.
      tagger: the name of a backend: "shipped", "nltk" or "spacy:MODEL".
    Raises: as `backends.load_backend`.
    """
    return batch_located_phrases([caption], tagger)[0]


def noun_phrases(caption: str, tagger: str = "shipped") -> list[str]:
    """The phrases of `located_phrases` alone."""
    return [phrase for phrase, _ in located_phrases(caption, tagger)]


def batch_located_phrases(captions: Sequence[str], tagger: str = "shipped") -> list[Located]:
    """`located_phrases` of each caption."""
    found = []
    for caption, sentences in zip(captions, load_backend(tagger)(captions), strict=True):
        phrases = {}
        for span in _spans(sentences):
            if phrase := normalise(caption[span.start:span.end]):
                phrases.setdefault(phrase, span)
        found.append(list(phrases.items()))
    return found


def count_phrases(captions: Sequence[str]) -> int:
    """How many `batch_located_phrases` finds."""
    return sum(map(len, batch_located_phrases(captions)))


def normalise(phrase: str) -> str:
    """The form in which phrases are compared: lower case, white space joined, leading determiners dropped.

    Determiners and possessives are `grammar.DETERMINERS`; a phrase of nothing else becomes "".
    """
    words = phrase.lower().split()
    return " ".join(words[count_determiners(words):])


def phrase_spans(caption: str, tagger: str = "shipped") -> list[Span]:
    """Where the noun phrases of a caption stand, leading determiners left out, in order, repeated ones repeated."""
    return _spans(next(load_backend(tagger)([caption])))


def _spans(sentences: Iterable[Sentence]) -> list[Span]:
    return [Span(sentence.spans[first].start, sentence.spans[end - 1].end)
            for sentence in sentences for first, end, problem in judged_chunks(sentence) if not problem]


def judged_chunks(sentence: Sentence) -> Iterator[tuple[int, int, str]]:
    """(first, end, why it is no phrase, or "") of each chunk, leading determiners left out."""
    for start, end in sentence.chunks:
        first = start + count_determiners(sentence.words[start:end])
        words = sentence.words[first:end]
        if not words:
            yield start, end, "only determiners"
        elif " ".join(words) in grammar.STOP_PHRASES or words[0] in grammar.PRONOUNS and len(words) == 1:
            yield first, end, "names nothing"
        elif len(words) > MAX_TOKENS:
            yield first, end, f"more than {MAX_TOKENS} tokens"
        else:
            yield first, end, ""


def count_determiners(words: Sequence[str]) -> int:
    """How many determiners a phrase (lower case) begins with."""
    return next((i for i, word in enumerate(words) if word not in grammar.DETERMINERS), len(words))


def main(argv: Sequence[str]) -> None:
    from cc_jax.data import phrase_quality  # it imports this module

    options = flags.FLAGS
    if argv[1:] or (options.evaluate is None) == (options.explain is None):
        raise app.UsageError("give one of --evaluate FILE and --explain CAPTION, and nothing else.")
    try:
        if options.explain is not None:
            shown = phrase_quality.explain(options.explain, options.tagger)
        else:
            with open(options.evaluate, encoding="utf-8") as lines:
                shown = phrase_quality.show(phrase_quality.assess(map(strict_json.loads, lines), options.tagger))
    except (ValueError, LookupError, OSError) as error:
        sys.exit(f"error: {error}")
    print(shown)


if __name__ == "__main__":
    flags.DEFINE_string("evaluate", None, "JSON lines {caption, tokens, phrases: [{start, end}]} to score against.")
    flags.DEFINE_string("explain", None, "A caption to take apart.")
    flags.DEFINE_string("tagger", "shipped", f"What finds the phrases: {backends.NAMES}.")
    app.run(main)
