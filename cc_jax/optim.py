"""The optimiser and its schedule, from the config's `optim` block."""
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from cc_jax.config import Config, ConfigError

SCHEDULES = ("cosine", "constant")


def parameter_names(params) -> dict:
    """The tree of `params` with each leaf replaced by its name, as "img/Transformer/encoderblock_0/..."."""
    return jax.tree_util.tree_map_with_path(lambda path, _: "/".join(str(key.key) for key in path), params)


def matching(params, pattern: str) -> dict:
    """The tree of `params` with True where the whole parameter name matches the regular expression `pattern`."""
    mask = jax.tree.map(lambda name: re.fullmatch(pattern, name) is not None, parameter_names(params))
    if not any(jax.tree.leaves(mask)):
        raise ConfigError(f"pattern {pattern!r} matches none of the {len(jax.tree.leaves(mask))} parameters, such as "
                          f"{jax.tree.leaves(parameter_names(params))[0]!r}.")
    return mask


def multipliers(params, pairs: Sequence[tuple[str, float]], otherwise: float, key: str) -> dict:
    """The tree of `params` with each leaf replaced by the number of the first of (pattern, number) that matches its name.

    Raises ConfigError, naming `key`, for a pattern that matches nothing or a number below 0.
    """
    tree = jax.tree.map(lambda _: otherwise, params)
    for pattern, number in reversed(pairs):
        if not number >= 0:
            raise ConfigError(f"{key}: {pattern!r} has {number!r}; use a number from 0.")
        tree = jax.tree.map(lambda hit, old: float(number) if hit else old, matching(params, pattern), tree)   # noqa: B023
    return tree


def frozen(optim: Config, params) -> dict | None:
    """The tree of `params` with True where `lr_mults` has 0; None where it has none."""
    rates = multipliers(params, optim.get("lr_mults", ()), 1.0, "config.optim.lr_mults")
    mask = jax.tree.map(lambda rate: rate == 0, rates)
    if all(jax.tree.leaves(mask)):
        raise ConfigError("config.optim.lr_mults freezes every parameter; leave some to train.")
    return mask if any(jax.tree.leaves(mask)) else None


def schedule(name: str, lr: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up from 0 to `lr`, then cosine to 0 at `total_steps`, or constant."""
    if name not in SCHEDULES:
        raise ConfigError(f"unknown config.optim.schedule={name!r}; use one of {', '.join(SCHEDULES)}.")
    if not 0 <= warmup_steps < total_steps:
        raise ConfigError(f"config.optim.warmup_steps={warmup_steps} does not fit into a run of {total_steps} steps.")

    def learning_rate(step):
        warmup = jnp.minimum(1.0, (step + 1) / (warmup_steps + 1))
        progress = jnp.clip((step - warmup_steps) / (total_steps - warmup_steps), 0.0, 1.0)
        decay = 0.5 * (1 + jnp.cos(jnp.pi * progress)) if name == "cosine" else 1.0
        return lr * warmup * decay

    return learning_rate


def make(optim: Config, params, total_steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """AdamW by the config's `optim` block: (transformation, learning rate by step).

    `lr_mults` and `wd_mults` are lists of (pattern, number): the number of the first pattern that matches a parameter's
    name multiplies its learning rate (1 for a name that none matches; 0 freezes it) or its weight decay (0 for a name that
    none matches; by default the kernels decay, as in big_vision). Decay is decoupled. Moments are float32; frozen parameters
    have none and do not count in the gradient's norm that `clip_norm` bounds.
    """
    if optim.get("name", "adamw") != "adamw":
        raise ConfigError(f"unknown config.optim.name={optim.name!r}; use 'adamw'.")
    learning_rate = schedule(optim.get("schedule", "cosine"), optim.lr, optim.get("warmup_steps", 0), total_steps)
    clip_norm = optim.get("clip_norm", None)
    rates = multipliers(params, optim.get("lr_mults", ()), 1.0, "config.optim.lr_mults")
    decays = multipliers(params, optim.get("wd_mults", ((r".*/kernel", 1.0),)), 0.0, "config.optim.wd_mults")
    transformation = optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        optax.scale_by_adam(optim.get("b1", 0.9), optim.get("b2", 0.999), optim.get("eps", 1e-8)),
        decay(optim.get("wd", 0.0), decays),
        scale(rates) if set(jax.tree.leaves(rates)) - {0.0, 1.0} else optax.identity(),
        optax.scale_by_learning_rate(learning_rate),
    )
    if (mask := frozen(optim, params)) is not None:
        labels = jax.tree.map(lambda held: "frozen" if held else "trained", mask)
        transformation = optax.multi_transform({"trained": transformation, "frozen": optax.set_to_zero()}, labels)
    return transformation, learning_rate


def decay(wd: float, multipliers: dict) -> optax.GradientTransformation:
    """Adds `wd` times its multiplier times a parameter to its update."""
    def add(updates, params):
        return jax.tree.map(lambda u, p, m: u + wd * m * p if m else u, updates, params, _like(updates, multipliers))
    return optax.stateless(add)


def scale(multipliers: dict) -> optax.GradientTransformation:
    """Multiplies each parameter's update."""
    return optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, _like(updates, multipliers)))


def _like(updates, numbers: dict):
    """`numbers` without those of the parameters that `optax.multi_transform` has masked out of `updates`."""
    masked = lambda x: isinstance(x, optax.MaskedNode)
    return jax.tree.map(lambda u, number: u if masked(u) else number, updates, numbers, is_leaf=masked)
