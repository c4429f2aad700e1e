"""The evaluators that a config can name by `type`."""
import inspect
from collections.abc import Callable

from cc_jax.config import Config, ConfigError
from cc_jax.evals import compositional, interpolated, retrieval
from cc_jax.evals.embed import Embedder
from cc_jax.evals.result import Result

EVALUATORS = {"retrieval": retrieval.make, "compositional": compositional.make}


def make(block: Config) -> Callable[[Embedder], Result]:
    """The evaluator of one block of the config's `evals`: its `type`, and that type's options."""
    if block.type == "interpolated":
        options = block.options({"type", "every", "of", "start", "alphas"})
        inner = make(Config(options["of"], "evals.of"))
        return interpolated.make(inner, **{name: options[name] for name in ("start", "alphas") if name in options})
    if block.type not in EVALUATORS:
        raise ConfigError(f"unknown evaluator type {block.type!r}; use one of interpolated, {', '.join(EVALUATORS)}.")
    maker = EVALUATORS[block.type]
    options = block.options({"type", "every", *inspect.signature(maker).parameters})
    return maker(**{name: value for name, value in options.items() if name not in ("type", "every")})
