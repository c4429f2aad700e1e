"""The optimiser and its schedule, from the config's `optim` block."""
import re

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

    Weight decay is decoupled and reaches the parameters whose name matches `wd_pattern`: by default the kernels only, as
    in big_vision. Moments are float32.
    """
    if optim.get("name", "adamw") != "adamw":
        raise ConfigError(f"unknown config.optim.name={optim.name!r}; use 'adamw'.")
    learning_rate = schedule(optim.get("schedule", "cosine"), optim.lr, optim.get("warmup_steps", 0), total_steps)
    clip_norm = optim.get("clip_norm", None)
    return optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        optax.scale_by_adam(optim.get("b1", 0.9), optim.get("b2", 0.999), optim.get("eps", 1e-8)),
        optax.add_decayed_weights(optim.get("wd", 0.0), matching(params, optim.get("wd_pattern", r".*/kernel"))),
        optax.scale_by_learning_rate(learning_rate),
    ), learning_rate
