"""A model in Python: images and texts in, embeddings out.

    model = cc_jax.load("runs/try")                         # a workdir, a file or directory of weights, a released model
    images = model.embed_image(["couch.jpg", Image.open("dog.png")])            # (2, D), l2-normalised
    texts = model.embed_text(["a red couch", "a dog"])                          # (2, D)
    probability = 1 / (1 + np.exp(-model.scale * images @ texts.T - model.bias))
    attention = model.phrase_attention("couch.jpg", ["red couch"])              # (1, h, w), over the grid of patches
"""
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from cc_jax.convert import released
from cc_jax.convert.model import open_model
from cc_jax.data import transforms
from cc_jax.data.phrases import normalise
from cc_jax.evals import attention
from cc_jax.saved import SavedRun

Picture = str | Path | bytes | Image.Image | np.ndarray     # a file's path or bytes, or pixels: uint8 (H, W, 3), or (H, W)


def load(path: str, step: int | None = None, tokenizer: str | None = None, cache: str = released.CACHE) -> "Model":
    """Opens a model to use.

    Args:
      path: the workdir of a run, weights of any format that `cc_jax.convert` reads, or a released model's name.
      step: which checkpoint of a workdir; the newest by default.
      tokenizer: the file to tokenise with, for weights that have none beside them.
      cache: where released models are kept.
    Raises: FileNotFoundError, or ConfigError for what can't be used; both say what to do.
    """
    return Model(open_model(path, step, tokenizer, cache))


class Model:
    """Two towers, their tokenizer and their image transform. Each function is compiled once per shape."""

    def __init__(self, run: SavedRun):
        self.run = run
        self.scale, self.bias = float(np.exp(run.params["t"][0])), float(run.params["b"][0])
        self._embedder = run.embedder()
        self._attend = attention.make(run, self._embedder)

    def embed_image(self, images: Picture | Iterable[Picture]) -> Float[np.ndarray, "n D"]:
        """The l2-normalised embeddings of images, in batches. Raises: ImageError for one that can't be decoded."""
        many = [images] if isinstance(images, Picture) else images
        return self._embedder.images(map(encoded_or_pixels, many))

    def embed_text(self, texts: str | Sequence[str]) -> Float[np.ndarray, "n D"]:
        """The l2-normalised embeddings of texts, in batches; they are cleaned as the model was trained."""
        return self._embedder.texts([texts] if isinstance(texts, str) else list(texts))

    def phrase_attention(self, image: Picture, phrases: str | Sequence[str]) -> Float[np.ndarray, "n h w"]:
        """What each phrase attends to in an image, over its patches, h down and w across; each map sums to 1."""
        phrases = [phrases] if isinstance(phrases, str) else phrases
        return self._attend(encoded_or_pixels(image), [normalise(phrase) or phrase for phrase in phrases]).phrases


def encoded_or_pixels(image: Picture) -> bytes | np.ndarray:
    """The bytes of a file, or RGB pixels. Raises: TypeError for what is none of `Picture`, FileNotFoundError."""
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.ndim == 3 and image.shape[2] not in (1, 3, 4):
            raise TypeError(f"an array of {image.dtype} {image.shape}; an image must be uint8, (H, W, 3) or (H, W).")
        return transforms.rgb(Image.fromarray(image.squeeze(2) if image.shape[2:] == (1,) else image))
    if isinstance(image, Image.Image):
        return transforms.rgb(image)
    if isinstance(image, bytes):
        return image
    raise TypeError(f"a {type(image).__name__}; an image is a path, a file's bytes, a PIL image or an array of pixels.")
