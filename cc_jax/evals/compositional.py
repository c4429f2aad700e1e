"""Compositional choice in SugarCrepe's format: is the image closer to its caption than to a hard negative?"""
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cc_jax.config import ConfigError
from cc_jax.evals.embed import Embedder
from cc_jax.evals.result import Outcomes, Result

KEYS = ("filename", "caption", "negative_caption")


def make(
    suite: str, images: str = "", limit: int = 0, partial: bool = False,
) -> Callable[[Embedder], Result]:
    """The evaluator of a folder of category files `{id: {filename, caption, negative_caption}}`.

    Args:
      suite: folder of one JSON file per category.
      images: folder the filenames are relative to; default the suite's own `images`.
      limit: the first so many items of each category; 0: all.
      partial: go on without the items whose image is missing. Otherwise a missing image is an error.
    Scores by category: the share of items whose caption scores above its negative (a tie is not a win), their plain mean
    "macro", "items" evaluated and "expected".
    """
    categories, folder = read_suite(suite), Path(images or f"{suite}/images")
    expected = sum(map(len, categories.values()))
    if limit:
        categories = {name: items[:limit] for name, items in categories.items()}
        expected = sum(map(len, categories.values()))
    missing = sorted({item["filename"] for items in categories.values() for item in items
                      if not (folder / item["filename"]).is_file()})
    if missing and not partial:
        raise ConfigError(f"{len(missing)} images of suite {suite} are not in {folder}, such as {missing[0]!r}; name their "
                          "folder, or evaluate the items at hand with partial.")
    gone = set(missing)
    categories = {name: kept for name, items in categories.items()
                  if (kept := [item for item in items if item["filename"] not in gone])}
    if not categories:
        raise ConfigError(f"no image of suite {suite} is in {folder}; name the folder that holds them.")

    def evaluate(embedder: Embedder) -> Result:
        correct = choices(categories, folder, embedder)
        outcomes = {name: Outcomes([str(i) for i in range(len(right))], right, 0.5,
                                   [item["filename"] for item in categories[name]]) for name, right in correct.items()}
        return Result(outcomes, sum(map(len, correct.values())), expected, means={"macro": list(outcomes)})
    return evaluate


def choices(categories: dict[str, list[dict]], folder: Path, embedder: Embedder) -> dict[str, np.ndarray]:
    """{category: (items,) bool, whether each item's caption wins}. Every image and text is embedded once."""
    items = [item for each in categories.values() for item in each]
    files = {name: i for i, name in enumerate(sorted({item["filename"] for item in items}))}
    texts = {text: i for i, text in enumerate(sorted({item[key] for item in items for key in KEYS[1:]}))}
    image = embedder.images((folder / name).read_bytes() for name in files)
    text = embedder.texts(list(texts))
    similarity = lambda item, key: image[files[item["filename"]]] @ text[texts[item[key]]]
    return {name: np.array([similarity(item, "caption") > similarity(item, "negative_caption") for item in each])
            for name, each in categories.items()}


def read_suite(suite: str) -> dict[str, list[dict]]:
    """{category: items} of a folder's files; files of another format are passed over, a broken item is named."""
    categories = {}
    for path in sorted(Path(suite).glob("*.json")):
        content = json.loads(path.read_text())
        items = list(content.values()) if isinstance(content, dict) else content
        if not items or not isinstance(items[0], dict) or "caption" not in items[0]:
            continue  # such as the list of images that lies beside SugarCrepe's files
        for number, item in enumerate(items):
            wrong = [key for key in KEYS if not isinstance(item.get(key), str)]
            if wrong:
                raise ConfigError(f"{path}: item {number} has no text under {wrong[0]!r}; each needs {', '.join(KEYS)}.")
        categories[path.stem] = items
    if not categories:
        raise ConfigError(f"{suite} holds no suite: no JSON file {{id: {{{', '.join(KEYS)}}}}} in it.")
    return categories
