"""Embeddings of pictures and texts by a model's plain forward pass: what every evaluator stands on."""
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from cc_jax.data.tokenizer import Tokenizer
from cc_jax.data.transforms import view
from cc_jax.evals import patches
from cc_jax.evals.patches import Patches
from cc_jax.models.two_towers import TwoTowers
from cc_jax.objective import pixels
from cc_jax.sharding import over_batch, replicated

BATCH = 128


@dataclass(frozen=True)
class Embedder:
    """`images`: encoded image files (bytes), or pixels -> l2-normalised (N, D); `texts`: strings -> l2-normalised (N, D)."""
    images: Callable[[Iterable[bytes | np.ndarray]], Float[np.ndarray, "N D"]]
    texts: Callable[[Sequence[str]], Float[np.ndarray, "N D"]]
    params: dict
    at: Callable[[dict], "Embedder"]        # the same towers with other parameters
    patches: Callable[[Iterable[bytes | np.ndarray]], Iterator[Patches]] | None = None      # of pictures, one by one


def make(model: TwoTowers, tokenizer: Tokenizer, res: int, mesh: Mesh) -> Callable[[dict], Embedder]:
    """The function params -> Embedder, compiled once. Uses the transforms and the tokenizer of training."""
    rows = -(-BATCH // mesh.size) * mesh.size
    forward = lambda function: jax.jit(function, out_shardings=replicated(mesh))
    image_tower = forward(lambda params, x: model.apply({"params": params}, pixels(x), None)[0])
    text_tower = forward(lambda params, x: model.apply({"params": params}, None, x)[1])
    before_pooling = patches.make(model, res, mesh)

    def run(tower, params, batches: Iterator[np.ndarray]) -> Float[np.ndarray, "N D"]:
        embeddings, size = [], None
        for batch in batches:
            # Few are padded to a power of two: one picture is not worth the work of a whole batch.
            size = size or min(rows, -(-2 ** (len(batch) - 1).bit_length() // mesh.size) * mesh.size)
            full = np.concatenate([batch, np.zeros((size - len(batch), *batch.shape[1:]), batch.dtype)])
            embeddings.append(np.asarray(tower(params, jax.device_put(full, over_batch(mesh))))[:len(batch)])
        return np.concatenate(embeddings)

    def embedder(params) -> Embedder:
        return Embedder(
            images=lambda files: run(image_tower, params, (
                np.stack([view(file, res) for file in chunk]) for chunk in chunks(files, rows))),
            texts=lambda texts: run(text_tower, params, (
                tokenizer.encode(chunk, model.text["length"]) for chunk in chunks(texts, rows))),
            params=params, at=embedder, patches=lambda files: before_pooling(params, files))
    return embedder


def chunks(items: Iterable, size: int) -> Iterator[list]:
    """Lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
