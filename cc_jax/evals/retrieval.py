"""Image-text retrieval: recall at 1, 5, 10, both ways, with several captions per image."""
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from cc_jax.config import ConfigError
from cc_jax.evals import captioned
from cc_jax.evals.captioned import Captioned
from cc_jax.evals.embedder import Embedder, Sized
from cc_jax.evals.ranking import ranks
from cc_jax.evals.result import Outcomes, Result
from cc_jax.evals.suite import Found, Suite

RECALLS = (1, 5, 10)


def make(
    dir: str = "", split: str = "test", limit: int = 0, captions: str = "", images: str = "", partial: bool = False,
) -> Callable[[Embedder], Result]:
    """The evaluator of one split of a prepared dataset, `dir`, or of a file of captions.

    Args:
      limit: its first so many images; 0: all.
      captions: a file of images with captions: see `captioned`.
      images: the folder that the file's paths are relative to; by default its own.
      partial: evaluate on the images of `captions` that are at hand. Otherwise a missing one is an error.
    Scores: "image_to_text@k": the share of images one of whose captions is among the k most similar texts;
    "text_to_image@k": the share of captions whose image is among the k most similar images. A tie is not a win.
    Raises: ConfigError, DatasetError.
    """
    if bool(dir) == bool(captions):
        raise ConfigError(f"retrieval has dir={dir!r} and captions={captions!r}; give one, a prepared dataset or a file.")
    if dir and (images or partial):
        raise ConfigError("images and partial of a retrieval go with captions; a prepared dataset (dir) has its images.")
    found = (captioned.open_prepared(dir, split, limit) if dir else
             captioned.open_file(captions, split, images, limit, partial))

    def evaluate(embedder: Embedder) -> Result:
        image_embeddings = embedder.images(Sized(len(found.ids), map(found.read, range(len(found.ids)))))
        texts = [caption for of_image in found.captions for caption in of_image]
        place = {text: i for i, text in enumerate(dict.fromkeys(texts))}    # a caption of two images is embedded once
        text_embeddings = embedder.texts(list(place))[[place[text] for text in texts]]
        return result(found, *ranks(image_embeddings, text_embeddings, owners(found)))
    return evaluate


def owners(found: Captioned) -> Int[np.ndarray, " T"]:
    """Which image each caption belongs to, the captions of all images being one after the other."""
    return np.repeat(np.arange(len(found.ids)), [len(of_image) for of_image in found.captions])


def result(found: Captioned, image_rank: Int[np.ndarray, " I"], text_rank: Int[np.ndarray, " T"]) -> Result:
    """The recall at each of RECALLS both ways, query by query; captions of one image are no independent queries."""
    own = np.array([len(of_image) for of_image in found.captions])
    queries = [f"{name}#{n}" for name, of_image in zip(found.ids, found.captions, strict=True) for n in range(len(of_image))]
    clusters = [found.ids[i] for i in owners(found)]
    outcomes = {f"image_to_text@{k}": Outcomes(found.ids, image_rank < k, chance(own, len(queries), k)) for k in RECALLS}
    outcomes |= {f"text_to_image@{k}": Outcomes(queries, text_rank < k, min(1.0, k / len(own)), clusters) for k in RECALLS}
    return Result(outcomes, len(found.ids), found.expected)


def chance(own: Int[np.ndarray, " I"], texts: int, k: int) -> float:
    """How probable one of an image's `own` captions is among k of all `texts` drawn at random, in the mean over images."""
    drawn = np.arange(min(k, texts))
    none: Float[np.ndarray, " I"] = np.prod(np.maximum(texts - own[:, None] - drawn, 0) / (texts - drawn), axis=1)
    return float(1 - none.mean())


def look(data: Path, layouts: Sequence[tuple[str, Sequence[str]]]) -> Found | None:
    """The first file of captions that is in `data`, with the first of its folders of images that is beside it.

    Args: layouts: (pattern of the file, folders).
    """
    found = ((file, folders) for pattern, folders in layouts for file in sorted(data.glob(pattern)))
    file, folders = next(found, (None, ()))
    if file is None:
        return None
    folder = next((file.parent / name for name in folders if (file.parent / name).is_dir()), file.parent)
    try:
        there = captioned.open_file(str(file), "test", str(folder), partial=True)
        images, expected, texts = (f"{count:,}".replace(",", " ") for count in (
            len(there.ids), there.expected, sum(map(len, there.captions))))
        says = f"{images} of {expected} images, {texts} captions"
    except ConfigError as error:
        says = f"not to be used: {error}"
    return Found({"type": "retrieval", "captions": str(file), "images": str(folder), "split": "test"}, says)


SUITES = (
    Suite("coco", "retrieval, Karpathy's test split of COCO: 5 000 images, 25 010 captions",
          "coco/dataset_coco.json (Karpathy's) and coco/val2014/*.jpg",
          functools.partial(look, layouts=[("coco/dataset_coco.json", ["images"])])),
    Suite("flickr30k", "retrieval, Karpathy's test split of Flickr30k: 1 000 images, 5 000 captions",
          "flickr30k/dataset_flickr30k.json (Karpathy's) or flickr_annotations_30k.csv, and flickr30k/images/*.jpg",
          functools.partial(look, layouts=[("flickr30k/dataset_flickr30k.json", ["images", "flickr30k-images"]),
                                           ("flickr30k/flickr_annotations_30k.csv", ["images", "flickr30k-images"])])),
    Suite("flickr8k", "retrieval, the test split of Flickr8k: 1 000 images, 5 000 captions",
          "flickr8k/dataset_flickr8k.json (Karpathy's) and flickr8k/images/*.jpg, or flickr8k*/captions.jsonl",
          functools.partial(look, layouts=[("flickr8k/dataset_flickr8k.json", ["images", "Flicker8k_Dataset"]),
                                           ("flickr8k*/captions.jsonl", [])])),
)
