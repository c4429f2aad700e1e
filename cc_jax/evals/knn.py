"""k-nearest-neighbour classification on frozen image embeddings."""
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from cc_jax.config import ConfigError
from cc_jax.evals import labelled
from cc_jax.evals.embedder import Embedder
from cc_jax.evals.linear_probe import open_pair
from cc_jax.evals.result import Result

TABLE = 2**26           # similarities at once: 256 MiB


def make(
    train: str, test: str, k: int = 20, temperature: float | None = 0.07, limit: int = 0,
) -> Callable[[Embedder], Result]:
    """The evaluator: each image of `test` takes the class that its `k` nearest in `train` vote for.

    Args:
      train, test: "folder:DIR" or "tfds:...": see `labelled`.
      temperature: a neighbour's vote weighs exp(cosine / temperature) (Wu et al. 2018, arXiv 1805.01978; with these
        numbers Caron et al. 2021, arXiv 2104.14294); None: all weigh alike.
      limit: so many images of each, evenly spaced; 0: all.
    Scores: as `labelled.result`. Of neighbours as near as each other the earlier in `train` counts; a tie of classes is
    not a win, so a class without a vote, no better than any other, is never right.
    Raises: ConfigError.
    """
    learn, judge, places = open_pair(train, test, limit)
    if not 1 <= k <= len(learn.ids):
        raise ConfigError(f"k={k} of a k-NN on {len(learn.ids)} images of {train}; use 1 to {len(learn.ids)}.")
    if temperature is not None and not temperature > 0:
        raise ConfigError(f"temperature={temperature!r} of a k-NN; use a number above 0, or None for a plain majority.")

    def evaluate(embedder: Embedder) -> Result:
        bank, classes = labelled.embed(learn, embedder)
        queries, labels = labelled.embed(judge, embedder)
        scores = votes(queries, bank, classes, len(learn.classes), k, temperature)[:, places]
        return labelled.result(judge, labels, labelled.rank_of_label(scores, labels))
    return evaluate


def votes(
    queries: Float[np.ndarray, "Q D"], bank: Float[np.ndarray, "N D"], labels: Int[np.ndarray, " N"], classes: int, k: int,
    temperature: float | None,
) -> Float[np.ndarray, "Q classes"]:
    """The votes for each class, of l2-normalised queries' neighbours in the l2-normalised bank."""
    found, on_device = np.zeros((len(queries), classes)), jnp.asarray(bank)
    step = max(1, TABLE // len(bank))
    for i in range(0, len(queries), step):
        cosine, index = map(np.asarray, nearest(jnp.asarray(queries[i:i + step]), on_device, k))
        # Of the nearest 1, lest all be 0 at a low temperature.
        weight = 1.0 if temperature is None else np.exp((cosine.astype(np.float64) - cosine[:, :1]) / temperature)
        np.add.at(found, (i + np.arange(len(cosine))[:, None], labels[index]), weight)
    return found


@partial(jax.jit, static_argnames="k")
def nearest(
    queries: Float[Array, "Q D"], bank: Float[Array, "N D"], k: int,
) -> tuple[Float[Array, "Q k"], Int[Array, "Q k"]]:
    """(cosines, indices) of the nearest, equal ones in the bank's order."""
    return lax.top_k(jnp.matmul(queries, bank.T, precision=lax.Precision.HIGHEST), k)    # (Q, N)
