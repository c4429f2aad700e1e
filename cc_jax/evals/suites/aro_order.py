"""ARO's order parts (Yuksekgonul et al. 2023, arXiv 2210.01936): a caption against its own words in other orders.

`coco_karpathy_test.json` and `flickr30k_test.json`, or one of them: a list of {image, caption: [five]}. The wrong captions
are not published; they are made here, as in the paper, but with this project's tagger, and the same for every model.
"""
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

from cc_jax.config import ConfigError
from cc_jax.data.perceptron import load_tag
from cc_jax.data.treebank import tokenise
from cc_jax.evals.suites import files
from cc_jax.evals.suites.items import Item, Items, NoSuite, Picture, file, texts

FILES = {"coco_order": "coco_karpathy_test.json", "flickr30k_order": "flickr30k_test.json"}
WORDS = 30          # of a caption that count
SAME = "captions that no reordering changes"
_DROPPED = re.compile(r"[.!\"()*#:;~]")

Tag = Callable[[Sequence[str]], list[str]]


def read(suite: str) -> Items:
    """Scores: "coco_order" and "flickr30k_order", the share of captions that win against all of their reorderings.

    Raises: ConfigError naming file and item.
    """
    there = {part: path for part, name in FILES.items() if (path := Path(suite) / name).is_file()}
    if not there:
        raise NoSuite(f"{suite} holds none of {', '.join(FILES.values())}; give the folder of the captions' files.")
    tag = load_tag("shipped")
    items = [item for part, path in there.items() for id, record in files.records(path).items()
             for item in of_image(part, id, record, f"{path}: item {id}", tag)]
    kept = [item for item in items if item.wrong]
    if not kept:
        raise ConfigError(f"{suite} holds no caption that another order of its words would change.")
    left_out = {SAME: len(items) - len(kept)} if len(kept) < len(items) else {}
    return Items(kept, left_out)


def of_image(part: str, id: str, record: Mapping, where: str, tag: Tag) -> Iterator[Item]:
    """An item for each caption of an image."""
    picture = Picture(file(record, "image", where))
    for number, caption in enumerate(texts(record, "caption", where)):
        right = plain(caption)
        wrong = dict.fromkeys(map(plain, reorderings(caption, tag, Random(f"{picture.file}#{number}"))))
        # An order that happens to be the caption's own is no choice; published, such a tie counts for the model.
        yield Item(f"{part}/{id}#{number}", part, (picture,), (right,), tuple(each for each in wrong if each != right))


def plain(caption: str) -> str:
    """The caption in lower case without most punctuation, of its words the first WORDS."""
    return " ".join(_DROPPED.sub(" ", caption.lower()).split()[:WORDS])


def reorderings(caption: str, tag: Tag, rng: Random) -> Iterator[str]:
    """Nouns and adjectives exchanged among their like; all other words exchanged; words within each three; threes."""
    sentences = [[word for word, _ in sentence] for sentence in tokenise(caption)]
    words = [word for sentence in sentences for word in sentence]
    tags = [label[:2] for sentence in sentences for label in tag([word.lower() for word in sentence])]
    nouns, adjectives, others = ([i for i, label in enumerate(tags) if (label if label in ("NN", "JJ") else "") == kind]
                                 for kind in ("NN", "JJ", ""))
    yield " ".join(_exchanged(_exchanged(words, nouns, rng), adjectives, rng))
    yield " ".join(_exchanged(words, others, rng))
    threes = [words[start:start + 3] for start in range(0, len(words), 3)]
    yield " ".join(word for three in threes for word in rng.sample(three, len(three)))
    yield " ".join(word for three in rng.sample(threes, len(threes)) for word in three)


def _exchanged(words: Sequence[str], places: Sequence[int], rng: Random) -> list[str]:
    """The words with those at some places in another order."""
    made = list(words)
    for place, source in zip(places, rng.sample(places, len(places)), strict=True):
        made[place] = words[source]
    return made
