"""Zero-shot classification: an image's class is the one whose prompts it is closest to (Radford et al. 2021, 3.1)."""
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cc_jax.config import ConfigError
from cc_jax.evals import labelled
from cc_jax.evals.embedder import Embedder
from cc_jax.evals.prompts import IMAGENET, prompts
from cc_jax.evals.ranking import ranks
from cc_jax.evals.result import Result
from cc_jax.evals.suite import Found, Suite


def make(
    data: str, names: str = "", templates: str | Sequence[str] = (), limit: int = 0,
) -> Callable[[Embedder], Result]:
    """The evaluator of labelled images.

    Args:
      data: "folder:DIR" or "tfds:...": see `labelled`.
      names, templates: of the classes' prompts: see `prompts.prompts`.
      limit: so many of the images, evenly spaced; 0: all.
    Scores: as `labelled.result`. A tie is not a win.
    Raises: ConfigError.
    """
    images = labelled.open_labelled(data).spaced(limit)
    of_classes = prompts(images.classes, names, templates)

    def evaluate(embedder: Embedder) -> Result:
        embeddings, labels = labelled.embed(images, embedder)
        _, rank = ranks(class_embeddings(of_classes, embedder), embeddings, labels)
        return labelled.result(images, labels, rank)
    return evaluate


def class_embeddings(of_classes: Sequence[Sequence[str]], embedder: Embedder) -> Float[np.ndarray, "C D"]:
    """Of each class the mean of its prompts' embeddings, l2-normalised again. Equal prompts are embedded once."""
    place = {text: i for i, text in enumerate(dict.fromkeys(text for texts in of_classes for text in texts))}
    texts = embedder.texts(list(place))
    means = np.stack([texts[[place[text] for text in each]].mean(axis=0) for each in of_classes])
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def look(data: Path, name: str, folder: str, split: str, **options: str) -> Found | None:
    """Images by class in `data / folder`, or a TFDS dataset `name` in `data`."""
    infos = sorted(data.glob(f"{name}/**/dataset_info.json"))
    if (data / folder).is_dir():
        source = f"folder:{data / folder}"
    elif infos:
        source = f"tfds:{infos[-1].parent},split={split}"
    else:
        return None
    try:
        found = labelled.open_labelled(source)
        says = f"{len(found.ids):,} images of {len(found.classes)} classes".replace(",", " ")
    except ConfigError as error:
        says = f"not to be used: {error}"
    return Found({"type": "zero_shot", "data": source, **options}, says)


CIFAR = {"cifar10": 10, "cifar100": 100}
SUITES = (
    Suite("imagenet", "zero-shot classification, 1 000 classes, 80 prompts each",
          "imagenet/val/n01440764/*.JPEG, ..., or imagenet2012/ as TFDS prepares it (--file_format=array_record)",
          partial(look, name="imagenet2012", folder="imagenet/val", split="validation", names=IMAGENET, templates=IMAGENET)),
    *(Suite(name, f"zero-shot classification, {count} classes",
            f"{name}/ as TFDS prepares it (--file_format=array_record), or {name}/test/CLASS/*.png",
            partial(look, name=name, folder=f"{name}/test", split="test")) for name, count in CIFAR.items()),
)
