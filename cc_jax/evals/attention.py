"""What a phrase sees in an image: its concept attention, and how the MAP head attends, as numbers; as a command, a figure.

    python -m cc_jax.evals.attention runs/concepts couch.jpg "red couch" "blue pillow" --out couch.png
    python -m cc_jax.evals.attention runs/concepts couch.jpg "red couch" --compare runs/siglip      # a row for each model
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from absl import app, flags
from jaxtyping import Float

from cc_jax.concepts import concept_attention
from cc_jax.evals.embedder import Embedder
from cc_jax.saved import SavedRun


@dataclass(frozen=True)
class Maps:
    """Attention over an image's grid of patches, h down and w across; each map sums to 1."""
    phrases: Float[np.ndarray, "n h w"]
    pooling: Float[np.ndarray, "h w"] | None    # the MAP head's, the mean over its heads; None for a tower without one


Attend = Callable[[bytes | np.ndarray, Sequence[str]], Maps]


def phrase_attention(run: SavedRun, image: bytes | np.ndarray, phrases: Sequence[str]) -> Float[np.ndarray, "n h w"]:
    """The attention of each phrase over the image's grid of patches; each map sums to 1.

    Args:
      image: an encoded image file, or its pixels.
      phrases: as training saw them, that is through `phrases.normalise`.
    Raises: ValueError where there is no phrase, ImageError for an image that can't be decoded.
    """
    return make(run)(image, phrases).phrases


def make(run: SavedRun, embedder: Embedder | None = None) -> Attend:
    """The function (image, phrases) -> Maps of one run, compiled once: for many images.

    Args: embedder: the run's, where there is one already.
    """
    embedder = embedder or run.embedder()
    temperature = run.config.get("concepts", {}).get("temperature", 1.0)

    def attend(image: bytes | np.ndarray, phrases: Sequence[str]) -> Maps:
        if not phrases:
            raise ValueError("there is no phrase to attend with; give at least one.")
        [patches] = embedder.patches([image])
        height, width, _ = patches.tokens.shape
        tokens = patches.tokens.reshape(1, height * width, -1)
        maps = np.asarray(concept_attention(tokens, embedder.texts(phrases), temperature)[0])
        heads = patches.map_attention
        return Maps(maps.reshape(-1, height, width), None if heads is None else heads.mean(axis=0))
    return attend


if __name__ == "__main__":
    from cc_jax.evals import attention_figure  # matplotlib, which those who want numbers need not wait for

    flags.DEFINE_string("out", "attention.png", "The picture to write.")
    flags.DEFINE_multi_string("compare", [], "Another model, for a row of its own; may be given again.")
    flags.DEFINE_string("tokenizer", None, "The tokenizer's file, for weights that have none beside them.")
    app.run(attention_figure.main)
