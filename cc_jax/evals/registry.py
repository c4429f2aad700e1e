"""The evaluators that a config can name by `type`."""
import importlib
import inspect
from collections.abc import Callable

from cc_jax.config import Config, ConfigError, suggest
from cc_jax.evals.embedder import Embedder
from cc_jax.evals.result import Result

# The modules of cc_jax.evals whose `make` makes an evaluator of its options.
TYPES = ("compositional", "knn", "linear_probe", "pointing", "retrieval", "zero_shot")


def maker(kind: str) -> Callable[..., Callable[[Embedder], Result]]:
    """The function that makes an evaluator of that type. Only what is asked for is imported."""
    if kind not in TYPES:
        raise ConfigError(f"unknown evaluator type {kind!r}; {suggest(kind, [*TYPES, 'interpolated'])}")
    return importlib.import_module(f"cc_jax.evals.{kind}").make


def make(block: Config) -> Callable[[Embedder], Result]:
    """The evaluator of one block of the config's `evals`: its `type`, and that type's options."""
    if block.type == "interpolated":
        from cc_jax.evals import interpolated

        options = block.options({"type", "every", "of", "start", "alphas"})
        inner = make(Config(options["of"], "evals.of"))
        return interpolated.make(inner, **{name: options[name] for name in ("start", "alphas") if name in options})
    made = maker(block.type)
    options = block.options({"type", "every", *inspect.signature(made).parameters})
    return made(**{name: value for name, value in options.items() if name not in ("type", "every")})
