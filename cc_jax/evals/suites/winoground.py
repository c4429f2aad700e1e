"""Winoground (Thrush et al. 2022, arXiv 2204.03162): two images and two captions of the same words.

`examples.jsonl`, a line of which is {id, image_0, image_1, caption_0, caption_1, collapsed_tag, ...}. The images lie in
`images` beside it; their names stand in the file without ".png".
"""
from pathlib import Path

from cc_jax.config import ConfigError
from cc_jax.evals.suites import files
from cc_jax.evals.suites.items import Item, Items, NoSuite, Picture, file, text

FILE = "examples.jsonl"
SCORES = ("text", "image", "group")
TAG = "collapsed_tag"       # what is swapped: Object, Relation or Both


def read(suite: str) -> Items:
    """Scores: "text", "image", "group" over all items, as the paper reports, and each by what is swapped: "text/Object".

    Raises: ConfigError naming file and item.
    """
    path = Path(suite) / FILE
    if not path.is_file():
        raise NoSuite(f"{suite} holds no {FILE}; give the folder that Winoground's data is in.")
    return pooled([one(id, record, f"{path}: item {id}") for id, record in files.json_lines(path).items()], path)


def one(id: str, record: dict, where: str) -> Item:
    names = [file(record, key, where) for key in ("image_0", "image_1")]
    pictures = tuple(Picture(name if Path(name).suffix else f"{name}.png") for name in names)
    captions = tuple(text(record, key, where) for key in ("caption_0", "caption_1"))
    return pair(id, text(record, TAG, where) if TAG in record else "untagged", pictures, captions, where)


def pair(id: str, category: str, pictures: tuple[Picture, ...], captions: tuple[str, ...], where: str) -> Item:
    """An item of two pictures and their texts. Raises: ConfigError where two are the same."""
    for kind, (a, b) in (("images", pictures), ("captions", captions)):
        if a == b:
            raise ConfigError(f"{where} has two {kind} that are the same, so no answer is right; correct or remove it.")
    return Item(id, category, pictures, captions)


def pooled(items: list[Item], path: Path) -> Items:
    if not items:
        raise ConfigError(f"{path} has no items.")
    names = Items(items).categories
    return Items(items, pooled={score: [f"{score}/{name}" for name in names] for score in SCORES})
