"""What finds the noun phrases of captions. A backend is chosen by name, and all give the same analysis.

    shipped         NLTK's tokenizer and tagger with weights that lie next to this file, and the grammar of `grammar.py`
    nltk            the same with NLTK's own weights, where its data is installed
    spacy:MODEL     the noun chunks of any installed spaCy pipeline, so of other languages too
    precomputed     nothing: captions have the phrases that came with the data, and no others

The first two look at the caption in lower case; spaCy sees it as it is.
"""
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from cc_jax.data import grammar
from cc_jax.data.perceptron import TAGGERS, load_tag
from cc_jax.data.treebank import Span, tokenise

SPACY = "spacy:"
PRECOMPUTED = "precomputed"
NAMES = f"{', '.join(map(repr, TAGGERS))}, '{SPACY}MODEL' or '{PRECOMPUTED}'"


class Sentence(NamedTuple):
    """A sentence of a caption, or all of it: tokens, and token ranges [start, end) that may be noun phrases."""
    words: list[str]                    # lower case
    spans: list[Span]                   # where each stands in the caption
    tags: list[str]                     # as the tagger gave them
    refined: list[str]                  # as the chunks were found in them
    chunks: list[tuple[int, int]]       # in order, without overlap; leading determiners included


Backend = Callable[[Iterable[str]], Iterator[list[Sentence]]]       # the sentences of each caption


def load_backend(name: str) -> Backend:
    """The backend of a name.

    Raises: ValueError for a name that is none of `NAMES`, or a spaCy pipeline that finds no noun chunks; LookupError
      where spaCy, its model or NLTK's data is missing.
    """
    if name.startswith(SPACY):
        pipeline = _load_spacy(name.removeprefix(SPACY))
        return lambda captions: map(_sentences_of_doc, pipeline.pipe(captions))
    if name == PRECOMPUTED:
        return lambda captions: ([] for _ in captions)
    if name not in TAGGERS:
        raise ValueError(f"tagger={name!r} is not known; use {NAMES}.")
    tag = load_tag(name)
    return lambda captions: ([_analyse(tokens, tag) for tokens in tokenise(caption)] for caption in captions)


def _analyse(tokens: list[tuple[str, Span]], tag: Callable[[list[str]], list[str]]) -> Sentence:
    words = [word.lower() for word, _ in tokens]
    tags = tag(words)
    refined = grammar.refine(words, tags)
    return Sentence(words, [span for _, span in tokens], tags, refined, grammar.chunk(refined))


@lru_cache(maxsize=2)
def _load_spacy(model: str) -> Any:
    """A spaCy pipeline that finds noun chunks. Raises: as `load_backend`."""
    try:
        import spacy
    except ImportError as error:
        raise LookupError(f"tagger='{SPACY}{model}' needs spaCy, which is not installed; pip install spacy, then "
                          f"python -m spacy download {model or 'MODEL'}.") from error
    try:
        pipeline = spacy.load(model)
    except (OSError, ValueError) as error:
        raise LookupError(f"tagger='{SPACY}{model}': no such spaCy pipeline is installed (there are: "
                          f"{', '.join(spacy.util.get_installed_models()) or 'none'}); python -m spacy download "
                          f"{model or 'MODEL'}, or give the folder of one.") from error
    try:
        list(pipeline("a red square").noun_chunks)
    except (ValueError, NotImplementedError) as error:
        raise ValueError(f"tagger='{SPACY}{model}': this pipeline finds no noun chunks; it has {pipeline.pipe_names} for "
                         f"language {pipeline.lang!r}. Use one with a parser, of a language that has them.") from error
    return pipeline


def _sentences_of_doc(doc: Any) -> list[Sentence]:
    tags = [token.tag_ or token.pos_ for token in doc]
    chunks = [(chunk.start, chunk.end) for chunk in doc.noun_chunks if chunk.root.pos_ != "PRON"]
    spans = [Span(token.idx, token.idx + len(token)) for token in doc]
    return [Sentence([token.lower_ for token in doc], spans, tags, tags, chunks)]
