"""Another evaluator on weights between those that a run started from and those it has: what a little less of it costs.

    c.evals.sweep = dict(type="interpolated", start="SigLIP B/16 224", alphas=(0.25, 0.5, 0.75), every="50 %",
                         of=dict(type="retrieval", dir="datasets/photos"))

Weights half-way often keep what the start could do and have most of what was learned (Wortsman et al. 2022, WiSE-FT,
arXiv 2109.01903).
"""
from collections.abc import Callable, Mapping, Sequence

import jax

from cc_jax.config import ConfigError
from cc_jax.convert import formats
from cc_jax.evals.embedder import Embedder
from cc_jax.evals.result import Result, joined


def make(
    evaluator: Callable[[Embedder], Result], start: str, alphas: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
) -> Callable[[Embedder], Result]:
    """The evaluator at each alpha, 0 the start and 1 the run; scores are named "0.25/...".

    Args: start: as `config.model_init`.
    """
    if not alphas or not all(0 <= alpha <= 1 for alpha in alphas):
        raise ConfigError(f"alphas={alphas!r} of an interpolated evaluator: use numbers from 0 to 1.")

    def evaluate(embedder: Embedder) -> Result:
        before, _ = formats.load(start, embedder.params)
        return joined({f"{alpha:.2f}": evaluator(embedder.at(between(before, embedder.params, alpha))) for alpha in alphas})
    return evaluate


def between(start: Mapping, end: Mapping, alpha: float) -> Mapping:
    """(1 - alpha) start + alpha end, parameter by parameter, in float32; exactly one of them at 0 and 1."""
    if alpha in (0.0, 1.0):
        return end if alpha else start
    mix = lambda a, b: ((1 - alpha) * a.astype("float32") + alpha * b.astype("float32")).astype(b.dtype)
    return jax.tree.map(mix, start, end)
