"""Attention in the forms that `config.model.attention` names: the same numbers but for rounding, at each backend's speed."""
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from cc_jax.config import ConfigError


def xla(
    query: Float[Array, "B Q H D"], key: Float[Array, "B K H D"], value: Float[Array, "B K H D"],
    mask: Bool[Array, "B 1 #Q K"] | None = None,
) -> Float[Array, "B Q H D"]:
    """softmax(query key^T / sqrt(D)) value of each head, as flax has it; XLA fuses it as it sees fit.

    mask: False where a query must not attend to a key; every query must see at least one.
    """
    return nn.dot_product_attention(query, key, value, mask=mask)


def cudnn(
    query: Float[Array, "B Q H D"], key: Float[Array, "B K H D"], value: Float[Array, "B K H D"],
    mask: Bool[Array, "B 1 #Q K"] | None = None,
) -> Float[Array, "B Q H D"]:
    """The same by cuDNN's flash attention: NVIDIA GPUs, bfloat16 or float16."""
    if mask is not None:
        mask = jnp.broadcast_to(mask, (*mask.shape[:2], query.shape[1], key.shape[1]))
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="cudnn")


def cpu(
    query: Float[Array, "B Q H D"], key: Float[Array, "B K H D"], value: Float[Array, "B K H D"],
    mask: Bool[Array, "B 1 #Q K"] | None = None,
) -> Float[Array, "B Q H D"]:
    """The same with heads before positions, and few passes over the (Q, K) weights, each of which costs a CPU as much as a
    matmul does: they are exponentiated but never divided, the D numbers of a result are, and again in its gradient."""
    heads_first = lambda x: x.swapaxes(1, 2)
    scale = jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    return heads_first(_weighted(heads_first(query * scale), heads_first(key), heads_first(value), mask))


@jax.custom_vjp
def _weighted(
    q: Float[Array, "B H Q D"], k: Float[Array, "B H K D"], v: Float[Array, "B H K D"], mask: Bool[Array, "B 1 #Q K"] | None,
) -> Float[Array, "B H Q D"]:
    return _forward(q, k, v, mask)[0]


def _forward(q: Array, k: Array, v: Array, mask: Array | None) -> tuple[Array, tuple]:
    logits = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32)
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights.astype(q.dtype)
    out = jnp.einsum("bhqk,bhkd->bhqd", weights, v, preferred_element_type=jnp.float32) / total
    out = out.astype(q.dtype)
    return out, (q, k, v, mask, weights, total, out)


def _backward(kept: tuple, d_out: Array) -> tuple:
    q, k, v, _, weights, total, out = kept
    d_out = d_out / total                                       # the division of the weights, done here once for both uses
    d_total = (d_out * out).sum(axis=-1, keepdims=True)
    d_out = d_out.astype(q.dtype)
    d_value = jnp.einsum("bhqk,bhqd->bhkd", weights, d_out)
    d_logits = jnp.einsum("bhqd,bhkd->bhqk", d_out, v, preferred_element_type=jnp.float32)
    d_logits = (weights * (d_logits - d_total)).astype(q.dtype)
    return (jnp.einsum("bhqk,bhkd->bhqd", d_logits, k), jnp.einsum("bhqk,bhqd->bhkd", d_logits, q), d_value, None)


_weighted.defvjp(_forward, _backward)

FORMS: dict[str, Callable[..., Array]] = {"xla": xla, "cudnn": cudnn, "cpu": cpu}
HALF = ("bfloat16", "float16")


def choose(name: str, platform: str, dtype: str) -> str:
    """The key of FORMS for `config.model.attention`; "auto" takes the fastest that the platform of the devices has.

    platform: as jax.Device.platform, such as "tpu". Raises ConfigError for a name that is not known or can't be there.
    """
    if name not in ("auto", *FORMS):
        raise ConfigError(f"config.model.attention={name!r}; use auto, {', '.join(FORMS)}.")
    fits = platform in ("gpu", "cuda") and dtype in HALF
    if name == "cudnn" and not fits:
        raise ConfigError(f"config.model.attention='cudnn' needs GPUs and config.model.dtype of {' or '.join(HALF)}; here "
                          f"are {platform} and {dtype}: use attention='auto'.")
    if name != "auto":
        return name
    return "cudnn" if fits else "cpu" if platform == "cpu" else "xla"
