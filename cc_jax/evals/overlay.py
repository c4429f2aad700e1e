"""Attention drawn over the picture: bright where a phrase looks."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from cc_jax.data.transforms import decode
from cc_jax.evals import attention
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


def overlay(
    image: UInt8[np.ndarray, "H W 3"], maps: Float[np.ndarray, "n h w"], size: int = 192, peak: float | None = None,
) -> UInt8[np.ndarray, "n H2 W2 3"]:
    """The picture once per map, bright where it attends and faded to a dark shade where it doesn't.

    Darkest are the patches that get no more than an even spread over the image would give them.

    Brightness, not hue, carries the attention: the picture's colours stay as they are, and all eyes can read it.

    Args:
      size: the longer side of the result in pixels; the picture's aspect is kept.
      peak: the attention drawn brightest, in units of an even spread; by default the `strongest` of the maps, so that those
        of an image share one scale. Give the greatest of several models' to compare them. Values beyond are clipped.
    """
    peak = strongest(maps) if peak is None else peak
    enlarged = fitted(image, size)
    weight = np.clip((maps * maps[0].size - 1) / max(peak - 1, 1e-9), 0, 1).astype(np.float32)
    weight = np.stack([np.asarray(Image.fromarray(each).resize(enlarged.shape[1::-1], Image.Resampling.BILINEAR))
                       for each in weight])
    left = (SHARE_LEFT + (1 - SHARE_LEFT) * weight)[..., None]                      # (n, H2, W2, 1)
    return np.round(left * enlarged + (1 - left) * SHADE).astype(np.uint8)


def fitted(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "H2 W2 3"]:
    """The picture with its longer side made `size` pixels."""
    longer = max(image.shape[:2])
    shape = [max(1, round(side * size / longer)) for side in image.shape[1::-1]]    # (width, height), as Pillow has it
    return np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BICUBIC))


def strongest(maps: Float[np.ndarray, "... h w"]) -> float:
    """The greatest attention that any patch gets, in units of an even spread over all patches."""
    return float(maps.max() * maps.shape[-2] * maps.shape[-1])


def examples(runs: Mapping[str, SavedRun], source: Sequence[Mapping[str, Any]], count: int) -> list[Example]:
    """The first `count` records (of `dataset.open_split`) whose first caption has two phrases or more.

    The maps of an image share one scale over all phrases and runs, so that they can be compared.
    """
    attend, made = {name: attention.make(run) for name, run in runs.items()}, []
    for record in (source[index] for index in range(len(source))):
        if len(made) == count:
            break
        phrases = [phrase.decode() for phrase, caption in zip(record["phrases"], record["phrase_caption"], strict=True)
                   if caption == 0][:MAX_PHRASES]
        if len(phrases) < 2:
            continue
        picture = decode(record["image"])
        maps = {name: each(record["image"], phrases).phrases for name, each in attend.items()}
        peak = max(map(strongest, maps.values()))
        overlays = {name: overlay(picture, each, peak=peak) for name, each in maps.items()}
        made.append(Example(record["captions"][0].decode(), picture, phrases, overlays, peak))
    return made
