"""Weights of any format as a model that can be used, with its tokenizer."""
import tempfile
from pathlib import Path

import jax

from cc_jax import sharding
from cc_jax.config import Config
from cc_jax.convert import formats, released, vocabulary
from cc_jax.convert.fit import fit
from cc_jax.convert.weights import Sizes, Weights, WeightsError
from cc_jax.data.tokenizer import Tokenizer
from cc_jax.saved import SavedRun, make_model, open_run, read_tokenizer
from cc_jax.step import abstract_params


def open_model(
    path: str, step: int | None = None, tokenizer: str | None = None, cache: str = released.CACHE,
) -> SavedRun:
    """A workdir's checkpoint, weights of any format, or a released model, ready to use.

    Raises: FileNotFoundError, or ConfigError for what can't be used, weights without a tokenizer among them.
    """
    if (Path(path) / "checkpoints").exists():
        return open_run(path, step)
    if step is not None:
        raise WeightsError(f"step={step}, but {path} is not the workdir of a run, which has checkpoints; leave it out.")
    weights = formats.open_weights(path, cache)
    sizes = weights.complete()
    config = Config({"data": {"res": sizes.grid * sizes.patch}, "model": model_block(sizes, bool(weights.masks_padding))})
    mesh = sharding.make_mesh({"data": -1})
    model = make_model(config, sharding.platform(mesh))
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding.replicated(mesh)),
                        abstract_params(model, config.data.res))
    params, _ = fit(weights, like)
    return SavedRun(config, 0, model, params, find_tokenizer(weights, sizes, tokenizer), mesh)


def model_block(sizes: Sizes, mask_padding: bool) -> dict:
    """The `model` block of a config for weights of these sizes."""
    towers = {"image": dict(vars(sizes.image), patch_size=(sizes.patch, sizes.patch), pool="map"),
              "text": dict(vars(sizes.text), vocab_size=sizes.vocab_size, length=sizes.length, num_classes=sizes.embed,
                           mask_padding=mask_padding)}
    if sizes.embed != sizes.image.width:
        towers["image"]["num_classes"] = sizes.embed
    return towers


def find_tokenizer(weights: Weights, sizes: Sizes, given: str | None) -> Tokenizer:
    """The tokenizer that was given, or lies beside the weights. Raises WeightsError for none, or one that does not fit."""
    if given is not None:
        tokenizer = read_tokenizer(given)
    else:
        known = vocabulary.beside(weights)
        if known is None:
            raise WeightsError(f"there is no tokenizer beside {weights.where}; name its file with tokenizer=..., the one "
                               f"with {sizes.vocab_size} pieces that it was trained with.")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / known[0]).write_bytes(known[1])
            tokenizer = read_tokenizer(f"{folder}/{known[0]}")
    if tokenizer.vocab_size > sizes.vocab_size:
        raise WeightsError(f"the tokenizer of {weights.where} has {tokenizer.vocab_size} pieces, its text tower "
                           f"{sizes.vocab_size}; name the right one with tokenizer=....")
    return tokenizer
