"""Any suite of choices or pairs as JSON lines, one item a line.

    {"image": "a.jpg", "caption": "a cat on a mat", "negatives": ["a mat on a cat"], "category": "order"}
    {"images": ["a.jpg", "b.jpg"], "captions": ["a cat on a mat", "a mat on a cat"], "category": "order"}
    {"caption": ["a cat on a mat", "on a mat lies a cat"], "negatives": ["a mat on a cat"], "category": "words"}

The first is right if the image is closer to its caption than to every negative (if there are several captions, to each of
them): SugarCrepe, CREPE, What'sUp. The second gives Winoground's three scores, the captions in their images' order: Cola,
ColorSwap. The third, without an image, is right if the two captions are closer to each other than to any negative.

"category" is the score's name, by default the file's name. "id" tells items apart, by default the line's number, so that
models are compared item by item. "box": [x, y, width, height] in pixels shows the model that part of the image alone.
Image names are relative to one of the folders of images.
"""
from collections.abc import Mapping
from pathlib import Path

from cc_jax.config import ConfigError
from cc_jax.evals.suites import files
from cc_jax.evals.suites.items import COUNTS, Item, Items, Picture, choice, file, short, text, texts
from cc_jax.evals.suites.winoground import SCORES, pair

KEYS = ("id", "category", "image", "box", "caption", "negatives", "images", "captions")
AVERAGES = ("macro", "micro", *SCORES)


def read(suite: str) -> Items:
    """The items of a file, or of all files *.jsonl of a folder.

    Scores: of choices each category's, "macro" and "micro"; of pairs "text", "image", "group" over all of them, and each by
    category as "text/CATEGORY".
    Raises: ConfigError naming file and item.
    """
    paths = sorted(Path(suite).glob("*.jsonl")) if Path(suite).is_dir() else [Path(suite)]
    items = [one(path, id, record) for path in paths for id, record in files.json_lines(path).items()]
    if not items:
        raise ConfigError(f"{suite} holds no items: a file, or a folder of files *.jsonl, with one item a line is needed.")
    choices = Items([item for item in items if len(item.pictures) < 2]).categories
    pairs = Items([item for item in items if len(item.pictures) == 2]).categories
    pooled = {score: [f"{score}/{name}" for name in pairs] for score in SCORES} if pairs else {}
    if choices:
        return Items(items, means={"macro": choices}, pooled={"micro": choices} | pooled)
    return Items(items, pooled=pooled)


def one(path: Path, id: str, record: Mapping) -> Item:
    where = f"{path}: item {id}"
    unknown = [key for key in record if key not in KEYS]
    if unknown:
        raise ConfigError(f"{where} has the key {unknown[0]!r}, which nothing reads; the keys are {', '.join(KEYS)}.")
    category = text(record, "category", where) if "category" in record else path.stem
    if category in (*COUNTS, *AVERAGES) or category.split("/")[0] in SCORES:
        raise ConfigError(f"{where} has the category {category!r}, which is the name of another score; use another.")
    id = f"{path.stem}/{id}"
    if "images" in record or "captions" in record:
        return _pair(id, category, record, where)
    right, wrong = texts(record, "caption", where), texts(record, "negatives", where)
    if "image" in record:
        return choice(id, category, [Picture(file(record, "image", where), _box(record, where))], right, wrong, where)
    if len(right) < 2 or "box" in record:
        raise ConfigError(f"{where} has no image; name it under 'image', or give two captions to be compared as texts.")
    return choice(id, category, (), right, wrong, where)


def _pair(id: str, category: str, record: Mapping, where: str) -> Item:
    both = {key: texts(record, key, where) for key in ("images", "captions")}
    mixed = [key for key in ("image", "box", "caption", "negatives") if key in record]
    if mixed or any(len(values) != 2 for values in both.values()):
        raise ConfigError(f"{where} is a pair: 2 images and 2 captions in their order, and nothing of a choice; it has "
                          f"{len(both['images'])} and {len(both['captions'])}{''.join(f', and {key!r}' for key in mixed)}.")
    pictures = tuple(Picture(file({"images": name}, "images", where)) for name in both["images"])
    return pair(id, category, pictures, both["captions"], where)


def _box(record: Mapping, where: str) -> tuple[float, float, float, float] | None:
    return box(record["box"], where) if "box" in record else None


def box(value: object, where: str) -> tuple[float, float, float, float]:
    """Raises: ConfigError for what is not x, y, width, height with an area."""
    right = isinstance(value, list) and len(value) == 4 and all(
        isinstance(each, int | float) and not isinstance(each, bool) and abs(each) < 2**31 for each in value)
    if not right or min(value[2:]) <= 0:
        raise ConfigError(f"{where} has the box {short(value)}; [x, y, width, height] in pixels is needed.")
    return tuple(value)
