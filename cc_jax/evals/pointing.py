"""Pointing: does a phrase look at its object? The patch it attends to most must have its middle in the object's box.

A file of JSON lines, one for each image:

    {"image": "photos/couch.jpg", "phrases": [{"text": "red couch", "boxes": [[40, 60, 180, 150]], "category": "furniture"}]}

Boxes are [x0, y0, x1, y1] in pixels of the stored image, right and lower ends exclusive; several are several objects of
which any will do. Images are relative to the file's folder; a category may be left out. The measure is the pointing game
(Zhang et al. 2016, arXiv 1608.00507) without its margin.
"""
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from cc_jax import strict_json
from cc_jax.config import ConfigError
from cc_jax.data.images import check
from cc_jax.data.phrases import normalise
from cc_jax.data.transforms import FORMATS, ImageError
from cc_jax.evals.embedder import Embedder
from cc_jax.evals.result import Outcomes, Result
from cc_jax.evals.suite import Found, Suite

FILE = "pointing.jsonl"
RESERVED = ("pointing", "items", "expected")    # names of what is scored, so not of categories


@dataclass(frozen=True)
class Phrase:
    """A phrase and the objects it is true of."""
    text: str
    boxes: Float[np.ndarray, "n 4"]     # x0, y0, x1, y1, the image's sides 1
    category: str | None


@dataclass(frozen=True)
class Picture:
    line: int                           # of the file, from 1
    path: Path
    phrases: list[Phrase]


def make(file: str, images: str = "", limit: int = 0) -> Callable[[Embedder], Result]:
    """The evaluator of a file of phrases with boxes.

    Args:
      images: the folder that its images are relative to; by default the file's own.
      limit: the first so many images; 0: all.
    Scores: "pointing", the share of all phrases that point at their object, and that of each category. A peak shared with a
      patch outside the boxes is not a win. Chance is the share of patches whose middle is in a box.
    Raises: ConfigError that names the file and line of what is wrong, a missing image too.
    """
    pictures = read(file, images)[:limit or None]

    def evaluate(embedder: Embedder) -> Result:
        texts = {text: i for i, text in enumerate(dict.fromkeys(
            normalise(phrase.text) or phrase.text for picture in pictures for phrase in picture.phrases))}
        embedded = embedder.texts(list(texts))
        ids, right, chance, categories, clusters = [], [], [], [], []
        patches = embedder.patches(picture.path.read_bytes() for picture in pictures)
        for picture, seen in zip(pictures, patches, strict=True):
            for place, phrase in enumerate(picture.phrases):
                within = inside(phrase.boxes, *seen.tokens.shape[:2])
                ids.append(f"{picture.line}.{place}")
                # The softmax keeps the order of cosines, whatever its temperature.
                right.append(points(seen.tokens @ embedded[texts[normalise(phrase.text) or phrase.text]], within))
                chance.append(within.mean())
                categories.append(phrase.category)
                clusters.append(str(picture.path))

        def outcomes(chosen: list[int]) -> Outcomes:
            take = lambda values: [values[i] for i in chosen]
            return Outcomes(take(ids), np.array(take(right)), float(np.mean(take(chance))), take(clusters))

        by_category = {name: outcomes([i for i, each in enumerate(categories) if each == name])
                       for name in dict.fromkeys(categories) if name is not None}
        return Result({"pointing": outcomes(list(range(len(ids))))} | by_category, len(ids), len(ids))
    return evaluate


def points(attention: Float[np.ndarray, "h w"], within: Bool[np.ndarray, "h w"]) -> bool:
    """Whether the patch that gets most, or each of several that do, is within."""
    return bool(within[attention == attention.max()].all())


def inside(boxes: Float[np.ndarray, "n 4"], height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """Which patches of a grid have their middle in one of the boxes."""
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height)[:, None] + 0.5) / height
    return np.any([(x0 <= x) & (x < x1) & (y0 <= y) & (y < y1) for x0, y0, x1, y1 in boxes], axis=0)


def read(file: str, images: str = "") -> list[Picture]:
    """The lines of a file. Raises: ConfigError that names the line of anything wrong."""
    path, pictures = Path(file), []
    if not path.is_file():
        raise ConfigError(f"there is no file {file} of phrases with boxes; write one as cc_jax/evals/pointing.py says, or "
                          "prepare the dataset `shapes` anew, which has its own in suite/.")
    folder = Path(images) if images else path.parent
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                pictures.append(parse(strict_json.loads(line, nan=True), number, folder))
            except ValueError as error:
                raise ConfigError(f"{file}, line {number}: {error}") from error
    if not pictures:
        raise ConfigError(f"{file} has no line; each is an image with its phrases and their boxes.")
    return pictures


def parse(entry: Any, line: int, folder: Path) -> Picture:
    """One line's entry. Raises: ValueError that says what is wrong."""
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or not entry["image"]:
        raise ValueError('no image is named; write {"image": "a.jpg", "phrases": [...]}.')
    known, listed = ("image", "phrases"), entry.get("phrases")
    _refuse_unknown(entry, known)
    if not isinstance(listed, list) or not listed:
        raise ValueError('"phrases" is not a list of one or more {"text": ..., "boxes": [...]}.')
    path = folder / entry["image"]
    if PurePosixPath(entry["image"]).is_absolute() or ".." in PurePosixPath(entry["image"]).parts:
        raise ValueError(f"the image {entry['image']!r} must be a path within the folder of the images.")
    try:
        data = path.read_bytes()
        check(data)
    except FileNotFoundError:
        raise ValueError(f"the image {path} does not exist; name the folder that holds it with `images`.") from None
    except (OSError, ImageError) as error:
        raise ValueError(f"the image {path} can't be used: {error}") from None
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        size = image.size
    return Picture(line, path, [parse_phrase(each, size) for each in listed])


def parse_phrase(entry: Any, size: tuple[int, int]) -> Phrase:
    """A phrase of an image of `size` (width, height). Raises: ValueError."""
    text = entry.get("text") if isinstance(entry, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'a phrase has no "text": {json.dumps(entry)[:100]}.')
    _refuse_unknown(entry, ("text", "boxes", "category"))
    boxes, category = entry.get("boxes"), entry.get("category")
    if category is not None and (not isinstance(category, str) or not category or category in RESERVED):
        raise ValueError(f"phrase {text!r}: category {category!r}; use text other than {', '.join(RESERVED)}.")
    if not isinstance(boxes, list) or not boxes:
        raise ValueError(f'phrase {text!r}: "boxes" is not a list of one or more [x0, y0, x1, y1].')
    for box in boxes:
        numbers = isinstance(box, list) and len(box) == 4 and all(type(side) in (int, float) for side in box)
        if not numbers or not (0 <= box[0] < box[2] <= size[0] and 0 <= box[1] < box[3] <= size[1]):
            raise ValueError(f"phrase {text!r}: box {box}; use pixels 0 <= x0 < x1 <= {size[0]} and 0 <= y0 < y1 <= "
                             f"{size[1]}, the image's width and height.")
    return Phrase(text, np.array(boxes, np.float64) / [*size, *size], category)


def _refuse_unknown(entry: dict, known: tuple[str, ...]) -> None:
    if unknown := sorted(set(entry) - set(known)):
        raise ValueError(f"nothing reads {unknown[0]!r}; known here: {', '.join(known)}.")


def look(data: Path) -> Found | None:
    """`pointing.jsonl` of a folder of evaluation data, or of a prepared dataset `shapes`."""
    for path in (data / FILE, data / "pointing" / FILE, data / "suite" / FILE):
        if path.is_file():
            pictures = read(str(path))
            phrases = sum(len(picture.phrases) for picture in pictures)
            return Found({"type": "pointing", "file": str(path)}, f"{path}: {phrases} phrases in {len(pictures)} images")
    return None


SUITES = (Suite("pointing", "does the patch that a phrase attends to most lie in its object's box?",
                f"{FILE}, pointing/{FILE} or suite/{FILE}: phrases with boxes, as cc_jax/evals/pointing.py says", look),)
