"""The weights of a run's checkpoint."""
from pathlib import Path

import jax
import numpy as np

from cc_jax.convert.directory import tokenizer_files
from cc_jax.convert.weights import Lazy, Sizes, Weights, shapes_of, unrolled
from cc_jax.optim import parameter_names
from cc_jax.saved import open_run


def read(path: str, step: int | None = None) -> Weights:
    """The parameters that the run in a workdir saved last, or at `step`, with its tokenizer."""
    run = open_run(path, step)
    names, leaves = jax.tree.leaves(parameter_names(run.params)), jax.tree.leaves(run.params)
    params = unrolled({name: Lazy(leaf.shape, leaf.dtype, lambda leaf=leaf: np.asarray(leaf))
                       for name, leaf in zip(names, leaves, strict=True)})
    tokenizer = tokenizer_files(path)
    if "tokenizer.model" in tokenizer:
        tokenizer["spiece.model"] = tokenizer.pop("tokenizer.model")    # as SigLIP's tokenizers name it
    return Weights(params, f"{Path(path)} (step {run.step})", Sizes.of(shapes_of(params), path, run.res), tokenizer,
                   masks_padding=run.config.model.text.get("mask_padding", False))
