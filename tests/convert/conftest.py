"""What the tests of weights share: small models, and their parameters as each format has them."""
import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cc_jax.convert import formats
from cc_jax.convert.weights import Lazy, Sizes, Tower, Weights
from cc_jax.models.two_towers import TwoTowers
from cc_jax.optim import parameter_names
from cc_jax.step import abstract_params
from cc_jax.tools import bench_peer

NO_PEERS = "needs the peers: pip install -e '.[peers]'"
SMALL = Sizes(Tower(16, 2, 32, 2), Tower(16, 2, 32, 2), patch=8, res=16, vocab_size=50, length=8, embed=16)


@pytest.fixture(scope="session")
def small() -> Sizes:
    return SMALL


@functools.cache
def _model(sizes: Sizes, scan: bool) -> TwoTowers:
    image, text = dataclasses.asdict(sizes.image), dataclasses.asdict(sizes.text)
    return TwoTowers(image=image | dict(patch_size=(sizes.patch, sizes.patch)), scan=scan,
                     text=text | dict(vocab_size=sizes.vocab_size, length=sizes.length, num_classes=sizes.embed))


@functools.cache
def _abstract(sizes: Sizes, scan: bool) -> dict:
    return abstract_params(_model(sizes, scan), sizes.grid * sizes.patch)


@functools.cache
def _embed(sizes: Sizes, scan: bool) -> Callable:
    return jax.jit(lambda params, image, text: _model(sizes, scan).apply({"params": params}, image, text)[:2])


@pytest.fixture(scope="session")
def initial():
    """Parameters of the model of these sizes, on the device, as a run starts from: random."""
    def draw(sizes: Sizes = SMALL, scan: bool = False, seed: int = 0) -> dict:
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda leaf: jnp.asarray(0.1 * rng.standard_normal(leaf.shape), jnp.float32),
                            _abstract(sizes, scan))
    return draw


@pytest.fixture(scope="session")
def abstract():
    """The same without numbers: shapes and types."""
    return lambda sizes=SMALL, scan=False: _abstract(sizes, scan)


@pytest.fixture(scope="session")
def embeddings():
    """(image embeddings, text embeddings) that the model of these sizes gives."""
    def embed(params: dict, image, text, sizes: Sizes = SMALL, scan: bool = False) -> tuple[np.ndarray, np.ndarray]:
        return tuple(map(np.asarray, _embed(sizes, scan)(params, image, text)))
    return embed


@pytest.fixture(scope="session")
def random_weights():
    """Weights of these sizes, all random, biases and norms too."""
    def draw(sizes: Sizes = SMALL, seed: int = 0) -> Weights:
        rng = np.random.default_rng(seed)
        params = {name: Lazy.of(name.endswith("/scale") + rng.standard_normal(shape, np.float32) * np.float32(0.1))
                  for name, shape in sizes.shapes().items()}
        return Weights(params, "random numbers", sizes)
    return draw


@pytest.fixture(scope="session")
def named():
    """Name -> array of a tree of parameters."""
    def flat(params: dict) -> dict[str, np.ndarray]:
        return dict(zip(jax.tree.leaves(parameter_names(params)), map(np.asarray, jax.tree.leaves(params)), strict=True))
    return flat


@pytest.fixture(scope="session")
def write_npz(named):
    """Writes parameters with NumPy's own writer."""
    def write(path, params: dict, prefix: str = "params/", **more) -> str:
        np.savez(path, **({prefix + name: value for name, value in named(params).items()} | more))
        return str(path)
    return write


@pytest.fixture(scope="session")
def arrays():
    """Name -> array of weights in any format, read."""
    def read(path) -> dict[str, np.ndarray]:
        return {name: lazy.read() for name, lazy in formats.open_weights(str(path)).params.items()}
    return read


@pytest.fixture(scope="session")
def transformers():
    """Hugging Face's library, or a skipped test."""
    pytest.importorskip("torch", reason=NO_PEERS)
    bench_peer.import_torch()
    return pytest.importorskip("transformers", reason=NO_PEERS)


@pytest.fixture(scope="session")
def open_clip(transformers):
    """open_clip, or a skipped test."""
    return pytest.importorskip("open_clip", reason=NO_PEERS)


@pytest.fixture(scope="session")
def photos(test_data) -> list[Path]:
    """A few real photos of about 640 x 480 pixels."""
    return sorted((test_data / "sugarcrepe_images").glob("*.jpg"))[:4]


@pytest.fixture(scope="session")
def captions(test_data) -> list[str]:
    """A few real captions."""
    lines = (test_data / "flickr8k_small" / "captions.jsonl").read_text().splitlines()[:6]
    return [caption for line in map(json.loads, lines) for caption in line["captions"]]
