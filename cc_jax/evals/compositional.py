"""Compositional suites: which text goes with which image, where a bag of words can't tell."""
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int

from cc_jax.config import ConfigError, suggest
from cc_jax.data.transforms import ImageError
from cc_jax.evals.embedder import Embedder, Sized
from cc_jax.evals.result import Outcomes, Result
from cc_jax.evals.suites import FORMATS, files
from cc_jax.evals.suites.items import COUNTS, Item, Items, Picture
from cc_jax.evals.suites.scoring import VERDICTS, Thing

CHUNK = 8192        # pairs whose similarity is computed at once: 24 MiB at a width of 768


def make(
    suite: str, images: str | Sequence[str] = "", limit: int = 0, partial: bool = False, format: str = "sugarcrepe",
) -> Callable[[Embedder], Result]:
    """The evaluator of a suite in one of the FORMATS; their modules in `evals/suites` say what files they read, and how they
    score. Each image and each text is embedded once.

    Args:
      suite: the folder of its files; of "json_lines" also one file.
      images: folders of images, a list or with commas between. They are tried in their order, then the suite's own `images`,
        then the suite's folder: first by the image's name as it stands in the file, then by the name's last part.
      limit: the first so many items of each category; 0: all.
      partial: go on without the items whose image is missing. Otherwise a missing image is an error.
    "items" counts the records evaluated in full, "expected" those of the whole suite, whatever `limit` and `partial` say.
    Raises: ConfigError naming the file and the item that are amiss, or the image that is missing.
    """
    if format not in FORMATS:
        raise ConfigError(f"unknown format {format!r} of a compositional suite; {suggest(format, FORMATS)}")
    whole = FORMATS[format](suite)
    check_names(whole, suite)
    folders = files.image_folders(suite, images)
    chosen = first(whole.items, limit) if limit else whole.items
    names = dict.fromkeys(picture.file for item in chosen for picture in item.pictures)
    paths = files.find(list(names), folders)
    missing = [name for name in names if name not in paths]
    if missing and not partial:
        raise ConfigError(f"{len(missing)} images of suite {suite} are not in {', '.join(map(str, folders))}, such as "
                          f"{missing[0]!r}; name their folder, or evaluate the items at hand with partial.")
    kept = [item for item in chosen if all(picture.file in paths for picture in item.pictures)]
    if not kept:
        raise ConfigError(f"no image of suite {suite} was found in {', '.join(map(str, folders))}; name their folder.")
    ids = {item.id for item in kept} - {item.id for item in chosen if any(each.file not in paths for each in item.pictures)}
    expected = len({item.id for item in whole.items})

    def evaluate(embedder: Embedder) -> Result:
        return result(kept, similarities(kept, paths, embedder), len(ids), expected, whole)
    return evaluate


def first(items: Sequence[Item], limit: int) -> list[Item]:
    """The first `limit` of each category."""
    seen, kept = {}, []
    for item in items:
        seen[item.category] = seen.get(item.category, 0) + 1
        if seen[item.category] <= limit:
            kept.append(item)
    return kept


def similarities(items: Sequence[Item], paths: Mapping[str, Path], embedder: Embedder) -> list[Float32[np.ndarray, " p"]]:
    """For each item the similarities of its pairs, in the order of `scoring.VERDICTS`."""
    wanted = [list(VERDICTS[len(item.pictures)].pairs(item)) for item in items]
    pictures = list(dict.fromkeys(picture for item in items for picture in item.pictures))
    texts = list(dict.fromkeys(text for item in items for text in (*item.right, *item.wrong)))
    place: dict[Thing, int] = {thing: i for i, thing in enumerate([*pictures, *texts])}
    embeddings = [embedder.texts(texts)]
    if pictures:
        embeddings.insert(0, embed_pictures(pictures, paths, embedder))
    table = np.concatenate(embeddings).astype(np.float32, copy=False)
    flat = products(table, np.array([[place[a], place[b]] for pairs in wanted for a, b in pairs]))
    return np.split(flat, np.cumsum([len(pairs) for pairs in wanted])[:-1])


def embed_pictures(
    pictures: Sequence[Picture], paths: Mapping[str, Path], embedder: Embedder,
) -> Float32[np.ndarray, "N D"]:
    """Raises: ConfigError naming an image that can't be used."""
    try:
        return embedder.images(Sized(len(pictures), files.read_pictures(pictures, paths)))
    except ImageError:
        files.check_images({picture.file: paths[picture.file] for picture in pictures})
        raise


def products(table: Float32[np.ndarray, "N D"], pairs: Int[np.ndarray, "P 2"]) -> Float32[np.ndarray, " P"]:
    """The dot product of each pair of rows, each rounded alike: equal embeddings have equal similarities."""
    parts = [pairs[start:start + CHUNK] for start in range(0, len(pairs), CHUNK)]
    return np.concatenate([np.sum(table[part[:, 0]] * table[part[:, 1]], axis=1) for part in parts])


def result(
    items: Sequence[Item], similarity: Sequence[Float32[np.ndarray, " p"]], count: int, expected: int, whole: Items,
) -> Result:
    """The outcomes score by score, and the suite's means over the scores that are there."""
    right: dict[str, list[bool]] = {}
    owners: dict[str, list[Item]] = {}
    chance: dict[str, list[float]] = {}
    for item, values in zip(items, similarity, strict=True):
        verdict = VERDICTS[len(item.pictures)]
        guessed = verdict.chance(item)
        for score, is_right in verdict.scores(item, values).items():
            right.setdefault(score, []).append(is_right)
            owners.setdefault(score, []).append(item)
            chance.setdefault(score, []).append(guessed[score])
    outcomes = {score: Outcomes([item.id for item in owners[score]], values, float(np.mean(chance[score])),
                                [item.cluster for item in owners[score]]) for score, values in right.items()}
    return Result(outcomes, count, expected, over(right, whole.means), over(right, whole.pooled))


def over(scores: Container[str], means: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The means over the scores that are there, without those of which none is."""
    return {mean: kept for mean, parts in means.items() if (kept := [part for part in parts if part in scores])}


def check_names(items: Items, suite: str) -> None:
    """Raises: ConfigError where a category is named as a mean is."""
    names = items.categories
    taken = {*over(names, items.means), *over(names, items.pooled), *COUNTS} & set(names)
    if taken:
        raise ConfigError(f"suite {suite} has a category {min(taken)!r}, which is the name of another score; rename it.")
