"""Weights laid into a model's parameters: every name and shape must match, or what is left out is said explicitly."""
import math
import re
from collections.abc import Sequence

import jax
import numpy as np

from cc_jax.convert.weights import Lazy, Weights, WeightsError, reading_order, require, rolled, shapes_of
from cc_jax.optim import parameter_names

IMAGE_POSITIONS = "img/pos_embedding"


def fit(weights: Weights, like: dict, dont_load: Sequence[str] = ()) -> tuple[dict, list[str]]:
    """(parameters, notes): the weights in the structure, types and sharding of `like`, and what was done to them.

    Parameters whose whole name matches one of the regular expressions `dont_load` stay as they are in `like`. Image
    position embeddings for another number of patches are resampled. One parameter at a time is read and placed.
    Raises: WeightsError that lists names and shapes on both sides where they differ, or names an idle pattern.
    """
    names = parameter_names(like)
    wanted = dict(zip(jax.tree.leaves(names), (leaf.shape for leaf in jax.tree.leaves(like)), strict=True))
    found = rolled(weights.params) if any("/encoderblock/" in name for name in wanted) else dict(weights.params)
    notes = list(weights.notes)

    left_out = _matching(dont_load, wanted.keys() | found.keys(), weights.where)
    found = {name: value for name, value in found.items() if name not in left_out}
    kept = sorted(left_out & wanted.keys())
    if kept:
        notes.append(f"{len(kept)} parameters not loaded, as config.dont_load says: {', '.join(kept[:5])}"
                     + (", ..." if len(kept) > 5 else ""))
    positions, wanted_positions = found.get(IMAGE_POSITIONS), wanted.get(IMAGE_POSITIONS)
    if positions is not None and wanted_positions is not None and _grids(positions.shape, wanted_positions):
        old, new = _grids(positions.shape, wanted_positions)
        found[IMAGE_POSITIONS] = positions.then(wanted_positions, lambda x: resample(x, new))
        notes.append(f"image position embeddings resampled (bilinear) from {old}x{old} to {new}x{new} patches")
    loaded = {name: shape for name, shape in wanted.items() if name not in left_out}
    require(shapes_of(found), loaded, weights.where, "the model", _hint(found, loaded))

    placed = dict(zip(jax.tree.leaves(names), jax.tree.leaves(like), strict=True))
    for name in reading_order(loaded):
        leaf = placed[name]
        placed[name] = jax.device_put(found[name].read().astype(leaf.dtype, copy=False), leaf.sharding)
    return jax.tree.map(placed.get, names), notes


def resample(positions: np.ndarray, grid: int) -> np.ndarray:
    """Position embeddings (1, n * n, D) for grid x grid patches: bilinear, corner on corner, as in big_vision."""
    _, count, width = positions.shape
    old = math.isqrt(count)
    place = np.linspace(0, old - 1, grid, dtype=np.float64)
    weight = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(old)))     # (grid, old), rows sum to 1
    square = positions.reshape(old, old, width).astype(np.float64)
    return np.einsum("ai,bj,ijd->abd", weight, weight, square, optimize=True).reshape(1, grid**2, width).astype(
        positions.dtype)


def _grids(found: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, int] | None:
    """Patches a side of either, where nothing else differs; None where there is nothing to resample."""
    if len(found) != 3 or found[1] == wanted[1] or found[::2] != wanted[::2]:
        return None
    sides = math.isqrt(found[1]), math.isqrt(wanted[1])
    return sides if tuple(side**2 for side in sides) == (found[1], wanted[1]) else None


def _matching(patterns: Sequence[str], names: set[str], where: str) -> set[str]:
    if isinstance(patterns, str):
        raise WeightsError(f"config.dont_load={patterns!r}; it is a list of regular expressions: write [{patterns!r}].")
    matched = set()
    for pattern in patterns:
        new = {name for name in names if re.fullmatch(pattern, name)}
        if not new:
            raise WeightsError(f"config.dont_load: {pattern!r} matches no parameter of the model or of {where}; whole names "
                               f"are matched, such as {sorted(names)[0]!r}.")
        matched |= new
    return matched


def _hint(found: dict[str, Lazy], wanted: dict[str, tuple[int, ...]]) -> str:
    if not found.keys() & wanted.keys():
        return " No name is the same: is it a checkpoint of another architecture?"
    vocabulary = found.get("txt/Embed_0/embedding")
    if vocabulary is not None and vocabulary.shape[0] != wanted.get("txt/Embed_0/embedding", vocabulary.shape)[0]:
        return f" Set config.model.text.vocab_size={vocabulary.shape[0]}, and use the checkpoint's tokenizer."
    return " Leave parameters out with config.dont_load, a list of regular expressions."
