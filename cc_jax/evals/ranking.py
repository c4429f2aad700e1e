"""How many wrong candidates come before the right one, exactly: for retrieval both ways, and for classes.

Rounding in float32 moves a similarity by more than what parts close ones, and moves equal ones apart, by where they stand
in the table. So the table in float32 decides only what rounding can't touch; the rest is compared again in float64.
"""
import numpy as np
from jaxtyping import Bool, Float, Int

ROUNDING = 2.0**-21     # of a product of unit vectors in float32, times sqrt(D): 8 units (Higham and Mary 2019, section 3)
TIE = 1e-12             # similarities as close in float64 are equal
PAIRS = 2048            # multiplied at once in float64
DENSE = 1 / 64          # with a larger share of pairs to compare again, all of the table's are multiplied in float64


def ranks(
    images: Float[np.ndarray, "I D"], texts: Float[np.ndarray, "T D"], owner: Int[np.ndarray, " T"], chunk: int = 256,
) -> tuple[Int[np.ndarray, " I"], Int[np.ndarray, " T"]]:
    """How many wrong texts come before an image's best own one, and how many images before a text's own, 0 the best.

    Text t describes image owner[t]; an image without texts comes last. A tie counts against the model, and so does what is
    not a number. The similarity table is made once, `chunk` images at a time.
    """
    scale = _largest_norm(images) * _largest_norm(texts)
    slack, tie = ROUNDING * np.sqrt(images.shape[1]) * scale, TIE * scale
    own = _similarities(images, texts, owner, np.arange(len(texts)))
    best = np.full(len(images), -np.inf)
    with np.errstate(invalid="ignore"):         # what is not a number stays that, and is behind
        np.maximum.at(best, owner, own)
    image_rank, text_rank = np.zeros(len(images), np.int64), np.zeros(len(texts), np.int64)
    for start in range(0, len(images), chunk):
        part = images[start:start + chunk]
        table = part @ texts.T                                                         # (chunk, T)
        texts_here = np.flatnonzero((owner >= start) & (owner < start + chunk))
        table[owner[texts_here] - start, texts_here] = -np.inf                         # its own are no rivals
        for threshold, axis, rank in ((best[start:start + chunk, None], 1, image_rank[start:start + chunk]),
                                      (own[None], 0, text_rank)):
            rivals = ~(table < (threshold - slack).astype(table.dtype))
            close = rivals & (table <= (threshold + slack).astype(table.dtype))
            rank += np.count_nonzero(rivals, axis) - np.count_nonzero(_behind(part, texts, close, threshold - tie), axis)
    return image_rank, text_rank


def _behind(
    images: Float[np.ndarray, "I D"], texts: Float[np.ndarray, "T D"], among: Bool[np.ndarray, "I T"], threshold: np.ndarray,
) -> Bool[np.ndarray, "I T"]:
    """Which similarities `among` all are below the threshold in float64."""
    count = np.count_nonzero(among)
    if count > DENSE * among.size:
        return among & (images.astype(np.float64) @ texts.T.astype(np.float64) < threshold)
    behind = np.zeros_like(among)
    if count:
        pairs = np.nonzero(among)
        behind[pairs] = _similarities(images, texts, *pairs) < np.broadcast_to(threshold, among.shape)[pairs]
    return behind


def _similarities(
    images: Float[np.ndarray, "I D"], texts: Float[np.ndarray, "T D"], image: Int[np.ndarray, " n"],
    text: Int[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    """The dot products of pairs, in float64."""
    parts = [np.sum(images[image[i:i + PAIRS]].astype(np.float64) * texts[text[i:i + PAIRS]], axis=1)
             for i in range(0, len(image), PAIRS)]
    return np.concatenate([np.zeros(0), *parts])


def _largest_norm(vectors: Float[np.ndarray, "n D"]) -> float:
    return float(np.sqrt(np.max(np.einsum("nd,nd->n", vectors, vectors), initial=0)))
