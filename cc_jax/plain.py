"""The losses as the formulas stand, every array of the way held: the reference of the tests and the baseline of the bench.

Training uses the same functions of `losses.py` and `concepts.py`, which agree with these and hold far less.
"""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cc_jax.pairs import dot


def sigmoid_nll(logits: Float[Array, "..."], positive: Bool[Array, "..."]) -> Float[Array, "..."]:
    """-log sigmoid(+-logits), + where `positive`, elementwise."""
    return -jax.nn.log_sigmoid(jnp.where(positive, logits, -logits))


def phrase_positives(
    owner: Int[Array, " N"], phrase_id: Int[Array, " N"], valid: Bool[Array, " N"], num_images: int,
) -> Bool[Array, "B N"]:
    """z_ij > 0: image i's caption holds phrase j, whichever image phrase j was taken from. O(B N), any int32 ids."""
    # Number the ids that occur 0, 1, ...: then "image i holds phrase c" is a (B, N) table to write into and look up.
    _, column = jnp.unique(phrase_id, return_inverse=True, size=len(phrase_id))
    holds = jnp.zeros((num_images, len(phrase_id)), bool).at[owner, column].max(valid)
    return holds[:, column]


def sigmoid_loss(
    image: Float[Array, "B D"], text: Float[Array, "B D"], scale: Float[Array, ""], bias: Float[Array, ""],
) -> Float[Array, ""]:
    """`losses.sigmoid_loss`."""
    logits = scale * dot("id,jd->ij", image, text) + bias
    return sigmoid_nll(logits, jnp.eye(len(image), dtype=bool)).sum() / len(image)


def phrase_loss(
    image: Float[Array, "B D"], phrases: Float[Array, "N D"], owner: Int[Array, " N"], phrase_id: Int[Array, " N"],
    valid: Bool[Array, " N"], scale: Float[Array, ""], bias: Float[Array, ""],
) -> Float[Array, ""]:
    """`losses.phrase_loss`."""
    logits = scale * dot("bd,nd->bn", image, phrases) + bias
    nll = sigmoid_nll(logits, phrase_positives(owner, phrase_id, valid, len(image)))
    return jnp.sum(nll, where=valid) / jnp.maximum(valid.sum(), 1)


def concept_attention_loss(
    tokens: Float[Array, "B K D"], phrases: Float[Array, "N D"], owner: Int[Array, " N"], phrase_id: Int[Array, " N"],
    valid: Bool[Array, " N"], scale: Float[Array, ""], bias: Float[Array, ""], temperature: float = 1.0,
) -> Float[Array, ""]:
    """`concepts.concept_attention_loss`; holds the attention (B, N, K) and what each phrase sees (B, N, D)."""
    attention = jax.nn.softmax(dot("bkd,nd->bnk", tokens, phrases) / temperature, axis=-1)
    pooled = dot("bnk,bkd->bnd", attention, tokens)
    pooled = pooled * jax.lax.rsqrt(jnp.sum(pooled**2, axis=-1, keepdims=True) + 1e-12)
    logits = scale * dot("bnd,nd->bn", pooled, phrases) + bias
    nll = sigmoid_nll(logits, phrase_positives(owner, phrase_id, valid, len(tokens)))
    return jnp.sum(nll, where=valid) / jnp.maximum(valid.sum(), 1)
