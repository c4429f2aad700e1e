"""Image-text retrieval: recall at 1, 5, 10, both ways, with several captions per image."""
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from cc_jax.config import ConfigError
from cc_jax.data import dataset
from cc_jax.evals.embed import Embedder
from cc_jax.evals.result import Outcomes, Result

RECALLS = (1, 5, 10)


def make(dir: str, split: str = "test", limit: int = 0) -> Callable[[Embedder], Result]:
    """The evaluator of a prepared dataset's split (its first `limit` images; 0: all).

    Scores: "image_to_text@k": the share of images one of whose captions is among the k most similar texts;
    "text_to_image@k": the share of captions whose image is among the k most similar images.
    """
    source = dataset.open_split(dir, split)
    count = min(limit, len(source)) if limit else len(source)
    if not count:
        raise ConfigError(f"split {split!r} of {dir} is empty; evaluate on one that has records.")

    def evaluate(embedder: Embedder) -> Result:
        images = embedder.images(source[i]["image"] for i in range(count))
        captions = [[caption.decode() for caption in source[i]["captions"]] for i in range(count)]
        owner = np.repeat(np.arange(count), [len(each) for each in captions])
        texts = embedder.texts([caption for each in captions for caption in each])
        return result(*ranks(images, texts, owner), owner)
    return evaluate


def result(
    image_rank: Int[np.ndarray, " I"], text_rank: Int[np.ndarray, " T"], owner: Int[np.ndarray, " T"],
) -> Result:
    """The recall at each of RECALLS both ways, query by query; captions of one image are no independent queries."""
    captions = [f"{image}#{t}" for t, image in enumerate(owner)]
    outcomes = {f"image_to_text@{k}": Outcomes([str(i) for i in range(len(image_rank))], image_rank < k) for k in RECALLS}
    outcomes |= {f"text_to_image@{k}": Outcomes(captions, text_rank < k, clusters=[str(i) for i in owner]) for k in RECALLS}
    return Result(outcomes, len(image_rank), len(image_rank))


def ranks(
    images: Float[np.ndarray, "I D"], texts: Float[np.ndarray, "T D"], owner: Int[np.ndarray, " T"], chunk: int = 1024,
) -> tuple[Int[np.ndarray, " I"], Int[np.ndarray, " T"]]:
    """How many wrong texts come before an image's best own one, and how many images before a text's own, 0 the best.

    Text t describes image owner[t]. A tie counts against the model.

    The similarity table is made a chunk of rows at a time, so memory stays at chunk x (I + T).
    """
    best = np.concatenate([  # of each image's own captions, the most similar
        np.where(owner == np.arange(i, min(i + chunk, len(images)))[:, None], images[i:i + chunk] @ texts.T, -np.inf)
        .max(axis=1) for i in range(0, len(images), chunk)])
    image_rank = np.concatenate([
        np.sum((images[i:i + chunk] @ texts.T >= best[i:i + chunk, None])
               & (owner != np.arange(i, min(i + chunk, len(images)))[:, None]), axis=1)
        for i in range(0, len(images), chunk)])
    own = np.sum(texts * images[owner], axis=1)
    text_rank = np.empty(len(texts), np.int64)
    for t in range(0, len(texts), chunk):
        similarity = texts[t:t + chunk] @ images.T
        rows = np.arange(len(similarity))
        own[t:t + chunk] = similarity[rows, owner[t:t + chunk]]  # one rounding for both sides of the comparison
        text_rank[t:t + chunk] = np.sum(similarity >= own[t:t + chunk, None], axis=1) - 1
    return image_rank, text_rank
