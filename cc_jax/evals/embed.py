"""Embeddings of pictures and texts by a model's plain forward pass: what every evaluator stands on.

Images are decoded in threads while the device computes, and results are fetched a batch late, so that it never waits.
"""
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, UInt8

from cc_jax.data.tokenizer import Tokenizer
from cc_jax.data.transforms import ImageError, view
from cc_jax.evals import patches
from cc_jax.evals.embedder import Embedder, chunks
from cc_jax.models.two_towers import TwoTowers
from cc_jax.objective import pixels
from cc_jax.sharding import over_batch, replicated

BATCH = 128
TAIL = 16                               # the last, shorter batch is padded to a multiple of it
THREADS = min(16, os.cpu_count() or 4)  # that decode


def make(model: TwoTowers, tokenizer: Tokenizer, res: int, mesh: Mesh) -> Callable[[dict], Embedder]:
    """The function params -> Embedder, compiled once. Uses the transforms and the tokenizer of training."""
    rows = -(-BATCH // mesh.size) * mesh.size
    length = model.text["length"]
    forward = lambda function: jax.jit(function, out_shardings=replicated(mesh))
    image_tower = forward(lambda params, x: model.apply({"params": params}, pixels(x), None)[0])
    text_tower = forward(lambda params, x: model.apply({"params": params}, None, x)[1])
    before_pooling = patches.make(model, res, mesh)

    def run(tower: Callable, params: dict, examples: Iterable[np.ndarray], empty: np.ndarray) -> Float[np.ndarray, "N D"]:
        """The embeddings of examples that come in pieces of `rows`; `empty` is a piece of none."""
        computing, done = deque(), []
        fetch = lambda: done.append(np.asarray((item := computing.popleft())[0])[:item[1]])
        for batch in examples:
            padding = np.zeros((padded(len(batch), rows, mesh.size) - len(batch), *batch.shape[1:]), batch.dtype)
            full = jax.device_put(np.concatenate([batch, padding]), over_batch(mesh))
            computing.append((tower(params, full), len(batch)))
            if len(computing) > 1:
                fetch()
        while computing:
            fetch()
        if not done:
            one = jax.ShapeDtypeStruct((rows, *empty.shape[1:]), empty.dtype)
            return np.zeros((0, jax.eval_shape(tower, params, one).shape[1]), np.float32)
        return np.concatenate(done)

    def embedder(params: dict) -> Embedder:
        def images(files: Iterable[bytes | np.ndarray]) -> Float[np.ndarray, "N D"]:
            decode = lambda numbered: _view(*numbered, res)
            with closing(in_threads(decode, enumerate(files), rows)) as decoded:
                return run(image_tower, params, map(np.stack, chunks(decoded, rows)), np.zeros((0, res, res, 3), np.uint8))

        def texts(texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
            encoded = (tokenizer.encode(chunk, length) for chunk in chunks(texts, rows))
            return run(text_tower, params, encoded, np.zeros((0, length), np.int32))

        return Embedder(images, texts, params, at=embedder, patches=lambda files: before_pooling(params, files))
    return embedder


def padded(count: int, most: int, devices: int) -> int:
    """How many rows are computed for `count`, at most `most`: of few sizes, for each is compiled, yet with little waste.

    A multiple of the devices, and of the least such multiple from TAIL on where `count` is above TAIL.
    """
    tail = -(-TAIL // devices) * devices
    size = 2 ** (count - 1).bit_length() if count <= TAIL else -(-count // tail) * tail
    return min(most, -(-size // devices) * devices)


def in_threads(function: Callable[[Any], Any], items: Iterable, ahead: int) -> Iterator:
    """function(item) of each item, in order, up to `ahead` of them computed before they are asked for.

    What `items` or the function raises is raised here, at its place. Close the iterator when leaving before its end.
    """
    pool, waiting = ThreadPoolExecutor(THREADS), deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _view(number: int, image: bytes | np.ndarray, res: int) -> UInt8[np.ndarray, "res res 3"]:
    try:
        return view(image, res)
    except ImageError as error:
        name = getattr(image, "name", f"image {number} of those given")
        raise ImageError(error.reason, f"{name}: {error.detail}") from error
