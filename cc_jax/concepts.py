"""Concept attention pooling: which phrase belongs to which image, and what a phrase sees in an image (L_xac)."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def dot(equation: str, a: Array, b: Array) -> Float[Array, "..."]:
    """An einsum that multiplies in the inputs' type and sums in float32."""
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def sigmoid_nll(logits: Float[Array, "..."], positive: Bool[Array, "..."]) -> Float[Array, "..."]:
    """-log sigmoid(+-logits), + where `positive`, elementwise."""
    return -jax.nn.log_sigmoid(jnp.where(positive, logits, -logits))


def phrase_positives(
    owner: Int[Array, " N"], phrase_id: Int[Array, " N"], valid: Bool[Array, " N"], num_images: int,
) -> Bool[Array, "B N"]:
    """z_ij > 0: image i's caption holds phrase j, whichever image phrase j was taken from. O(B N), any int32 ids."""
    for name, value in (("owner", owner), ("phrase_id", phrase_id), ("valid", valid)):
        if value.shape != valid.shape or valid.ndim != 1:
            raise ValueError(f"{name} has shape {value.shape}, valid {valid.shape}; all three must be (N,).")
        if name != "valid" and not jnp.issubdtype(value.dtype, jnp.integer):
            raise ValueError(f"{name} is {value.dtype}; it must be an integer type.")
    if valid.dtype != bool:
        raise ValueError(f"valid is {valid.dtype}; it must be bool.")
    # Number the ids that occur 0, 1, ...: then "image i holds phrase c" is a (B, N) table to write into and look up.
    _, column = jnp.unique(phrase_id, return_inverse=True, size=len(phrase_id))
    holds = jnp.zeros((num_images, len(phrase_id)), bool).at[owner, column].max(valid)
    return holds[:, column]


def concept_attention(tokens: Float[Array, "B K D"], phrases: Float[Array, "N D"]) -> Float[Array, "B N K"]:
    """Where each phrase looks in each image: a_ijk = softmax over k of <phrase_j, token_ik>."""
    return jax.nn.softmax(dot("bkd,nd->bnk", tokens, phrases), axis=-1)


def concept_attention_loss(
    tokens: Float[Array, "B K D"], phrases: Float[Array, "N D"], owner: Int[Array, " N"], phrase_id: Int[Array, " N"],
    valid: Bool[Array, " N"], scale: Float[Array, ""], bias: Float[Array, ""],
) -> Float[Array, ""]:
    """Aligns each phrase with what it attends to, in every image of the batch: L_xac (arXiv 2603.25722).

        a_ijk = softmax_k <phrase_j, token_ik>,    u_ij = normalise( sum_k a_ijk token_ik )
        L = -1/N  sum_j  sum_i  log sigmoid( z_ij (scale <u_ij, phrase_j> + bias) )

    The (B, N, D) tensor u is never formed. With s_ijk = <phrase_j, token_ik> and the Gram matrix G_i of image i's
    tokens (K x K), sum_k a_ijk token_ik has dot product sum_k a_ijk s_ijk with the phrase, and squared norm a^T G_i a.

    Args:
      tokens: l2-normalised concept tokens of each image.
      phrases, owner, phrase_id, valid, scale, bias: as in `losses.phrase_loss`.
    Returns: the loss in nats per valid phrase, 0 where none is valid. float32 whatever the inputs.
    """
    similarity = dot("bkd,nd->bnk", tokens, phrases)
    attention = jax.nn.softmax(similarity, axis=-1)
    gram = dot("bkd,bjd->bkj", tokens, tokens)
    squared_norm = jnp.sum(attention * dot("bnk,bkj->bnj", attention, gram), axis=-1)
    cosine = jnp.sum(attention * similarity, axis=-1) * jax.lax.rsqrt(squared_norm + 1e-12)  # <u_ij, phrase_j>
    nll = sigmoid_nll(scale * cosine + bias, phrase_positives(owner, phrase_id, valid, len(tokens)))
    return jnp.sum(nll, where=valid) / jnp.maximum(valid.sum(), 1)
