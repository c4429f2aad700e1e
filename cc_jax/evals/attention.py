"""What a phrase sees in an image: its concept attention as numbers, and drawn over the picture."""
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image

from cc_jax.concepts import concept_attention
from cc_jax.data.transforms import decode, view
from cc_jax.models.two_towers import sizes
from cc_jax.objective import pixels
from cc_jax.saved import SavedRun

SHADE = np.array([14, 17, 38])  # what the picture fades to where nothing is attended to
SHARE_LEFT = 0.18               # of the picture, at the lowest attention: enough to see what was passed over
MAX_PHRASES = 5                 # of an example: as many as stay legible side by side


@dataclass(frozen=True)
class Example:
    """An image and, for each run, its attention of every phrase drawn over the picture."""
    caption: str
    picture: UInt8[np.ndarray, "H W 3"]
    phrases: list[str]
    overlays: dict[str, UInt8[np.ndarray, "n H2 W2 3"]]
    peak: float                 # the attention drawn brightest, in units of an even spread over all patches


def phrase_attention(run: SavedRun, image: bytes | np.ndarray, phrases: Sequence[str]) -> Float[np.ndarray, "n h w"]:
    """The attention of each phrase over the image's grid of patches; each map sums to 1.

    Args:
      image: an encoded image file, or its pixels.
      phrases: as training saw them, that is through `phrases.normalise`.
    Raises: ValueError where there is no phrase, ImageError for an image that can't be decoded.
    """
    return make(run)(image, phrases)


def make(run: SavedRun) -> Callable[[bytes, Sequence[str]], Float[np.ndarray, "n h w"]]:
    """`phrase_attention` of one run, compiled once per number of phrases: for many images."""
    temperature = run.config.get("concepts", {}).get("temperature", 1.0)

    @jax.jit
    def forward(params: dict, image: UInt8[Array, "1 H W 3"], text: Int[Array, "n L"]) -> Float[Array, "1 n K"]:
        _, phrases, out = run.model.apply({"params": params}, pixels(image), text, want_tokens=True)
        return concept_attention(out["concept_tokens"], phrases, temperature)

    def attend(image: bytes | np.ndarray, phrases: Sequence[str]) -> Float[np.ndarray, "n h w"]:
        if not phrases:
            raise ValueError("there is no phrase to attend with; give at least one.")
        text = run.tokenizer.encode(phrases, run.model.text["length"])
        attention = forward(run.params, view(image, run.res)[None], text)
        return np.asarray(attention).reshape(len(phrases), *patch_grid(run))
    return attend


def patch_grid(run: SavedRun) -> tuple[int, int]:
    """How many patches an image has, down and across."""
    height, width = sizes(run.model.image)["patch_size"]
    return run.res // height, run.res // width


def overlay(
    image: UInt8[np.ndarray, "H W 3"], attention: Float[np.ndarray, "n h w"], size: int = 192,
    peak: float | None = None,
) -> UInt8[np.ndarray, "n H2 W2 3"]:
    """The picture once per phrase, bright where the phrase attends and faded to a dark shade where it doesn't.

    Darkest are the patches that get no more than an even spread over the image would give them.

    Brightness, not hue, carries the attention: the picture's colours stay as they are, and all eyes can read it.

    Args:
      size: the longer side of the result in pixels; the picture's aspect is kept.
      peak: the attention drawn brightest; by default the greatest of all phrases, so that the maps of an image share
        one scale. Give the greatest of several models' to compare them. Values beyond are clipped.
    """
    even, peak = 1 / attention[0].size, float(attention.max()) if peak is None else peak
    longer = max(image.shape[:2])
    shape = [max(1, round(side * size / longer)) for side in image.shape[1::-1]]    # (width, height), as Pillow has it
    enlarged = np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BICUBIC), np.float32)
    weight = np.clip((attention - even) / max(peak - even, 1e-12), 0, 1).astype(np.float32)
    weight = np.stack([np.asarray(Image.fromarray(each).resize(shape, Image.Resampling.BILINEAR)) for each in weight])
    left = (SHARE_LEFT + (1 - SHARE_LEFT) * weight)[..., None]                      # (n, H2, W2, 1)
    return np.round(left * enlarged + (1 - left) * SHADE).astype(np.uint8)


def examples(runs: Mapping[str, SavedRun], source: Sequence[Mapping[str, Any]], count: int) -> list[Example]:
    """The first `count` records (of `dataset.open_split`) whose first caption has two phrases or more.

    The maps of an image share one scale over all phrases and runs, so that they can be compared.
    """
    attend, made = {name: make(run) for name, run in runs.items()}, []
    for record in (source[index] for index in range(len(source))):
        if len(made) == count:
            break
        phrases = [phrase.decode() for phrase, caption in zip(record["phrases"], record["phrase_caption"], strict=True)
                   if caption == 0][:MAX_PHRASES]
        if len(phrases) < 2:
            continue
        picture, maps = decode(record["image"]), {name: each(record["image"], phrases) for name, each in attend.items()}
        peak = max(float(each.max()) for each in maps.values())
        overlays = {name: overlay(picture, each, peak=peak) for name, each in maps.items()}
        patches = max(each[0].size for each in maps.values())
        made.append(Example(record["captions"][0].decode(), picture, phrases, overlays, peak * patches))
    return made
