"""Part-of-speech taggers: NLTK's averaged perceptron and its files, with a `tag` that gives the same tags many times faster.

NLTK writes 14 features a token out as strings and adds up a dictionary for each. Most of them depend on one word in one
place ("the word before is `dog`") or on the two tags before; their weights are summed once, into a row with a number for
each tag, and kept. A token then takes the sum of seven rows.
"""
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:       # NLTK takes a second to import, and training needs none
    from nltk.tag.perceptron import PerceptronTagger

TAGGERS = ("shipped", "nltk")
TAGGER_FILES = {part: f"averaged_perceptron_tagger_captions.{part}.json" for part in ("weights", "tagdict", "classes")}
_KEPT = 1 << 14         # rows kept by place in the sentence, about 400 bytes each
_DECIMALS = 1000        # NLTK rounds weights to 3 decimals; as integers their sums are exact, in any order


@lru_cache(maxsize=len(TAGGERS))
def load_tagger(name: str) -> "PerceptronTagger":
    """The tagger "shipped" or "nltk", loaded once.

    Raises: ValueError for another name, LookupError where NLTK's data is missing.
    """
    if name not in TAGGERS:
        raise ValueError(f"tagger={name!r} is not known; use one of {', '.join(map(repr, TAGGERS))}.")
    if name == "shipped":
        return read_tagger(resources.files("cc_jax.data") / "tagger")
    import nltk
    from nltk.tag.perceptron import PerceptronTagger
    try:
        return PerceptronTagger()
    except LookupError as error:
        raise LookupError(
            "tagger='nltk' needs NLTK's averaged_perceptron_tagger_eng, which is in none of "
            f"{', '.join(nltk.data.path)}. Get it with nltk.download('averaged_perceptron_tagger_eng') (or point "
            "NLTK_DATA to it), or use tagger='shipped', which needs no data.") from error


def read_tagger(folder: Traversable) -> "PerceptronTagger":
    """A tagger from the three JSON files of NLTK's format in a folder."""
    from nltk.tag.perceptron import PerceptronTagger
    parts = {part: json.loads((folder / file).read_text("utf-8")) for part, file in TAGGER_FILES.items()}
    tagger = PerceptronTagger(load=False)
    tagger.model.weights, tagger.tagdict = parts["weights"], parts["tagdict"]
    tagger.classes = tagger.model.classes = set(parts["classes"])
    return tagger


def make_tag(tagger: "PerceptronTagger") -> Callable[[Sequence[str]], list[str]]:
    """A function from the words of a sentence to their tags: those of `tagger.tag`.

    Its weights are taken as they are now; weights of more than 3 decimals are rounded.
    """
    weights, always = tagger.model.weights, tagger.tagdict
    labels = sorted(tagger.classes, reverse=True)   # of equal scores argmax takes the first, NLTK the alphabet's last
    column = {label: i for i, label in enumerate(labels)}
    normalise, nothing = lru_cache(_KEPT)(tagger.normalize), np.zeros(len(labels), np.int32)

    def row(*features: str) -> np.ndarray:
        """(number of labels,): the summed weights of some features."""
        known = [weights[feature] for feature in features if feature in weights]
        if not known:
            return nothing
        scores = np.zeros(len(labels), np.int32)
        for by_label in known:
            for label, weight in by_label.items():
                scores[column[label]] += round(weight * _DECIMALS)
        return scores

    @lru_cache(_KEPT)
    def here(word: str) -> np.ndarray:
        return row("bias", f"i suffix {word[-3:]}", f"i pref1 {word[:1]}", f"i word {normalise(word)}")

    @lru_cache(_KEPT)
    def left(word: str) -> np.ndarray:
        return row(f"i-1 word {word}", f"i-1 suffix {word[-3:]}")

    @lru_cache(_KEPT)
    def left2(word: str) -> np.ndarray:
        return row(f"i-2 word {word}")

    @lru_cache(_KEPT)
    def right(word: str) -> np.ndarray:
        return row(f"i+1 word {word}", f"i+1 suffix {word[-3:]}")

    @lru_cache(_KEPT)
    def right2(word: str) -> np.ndarray:
        return row(f"i+2 word {word}")

    @lru_cache(_KEPT)
    def after_tags(tag: str, tag2: str) -> np.ndarray:
        return row(f"i-1 tag {tag}", f"i-2 tag {tag2}", f"i tag+i-2 tag {tag} {tag2}")

    @lru_cache(_KEPT)
    def after_tag(tag: str, word: str) -> np.ndarray:
        return row(f"i-1 tag+i word {tag} {word}")

    def tag(words: Sequence[str]) -> list[str]:
        context = [*tagger.START, *map(normalise, words), *tagger.END]
        (tag1, tag2), tags = tagger.START, []
        for i, word in enumerate(words):
            label = always.get(word)
            if not label:
                word_m2, word_m1, word_0, word_p1, word_p2 = context[i:i + 5]
                scores = (here(word) + left(word_m1) + left2(word_m2) + right(word_p1) + right2(word_p2)
                          + after_tags(tag1, tag2) + after_tag(tag1, word_0))
                label = labels[scores.argmax()]
            tags.append(label)
            tag1, tag2 = label, tag1
        return tags
    return tag


@lru_cache(maxsize=len(TAGGERS))
def load_tag(name: str) -> Callable[[Sequence[str]], list[str]]:
    """`make_tag` of a tagger by its name, made once. Raises: as `load_tagger`."""
    return make_tag(load_tagger(name))
