"""The sigmoid losses of image against text: whole captions (L_siglip) and noun phrases (L_npc)."""
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cc_jax.concepts import dot, phrase_positives, sigmoid_nll


def sigmoid_loss(
    image: Float[Array, "B D"], text: Float[Array, "B D"], scale: Float[Array, ""], bias: Float[Array, ""],
) -> Float[Array, ""]:
    """Pairs each image with its own caption: L_siglip (arXiv 2303.15343, eq. 1).

        L = -1/B  sum_i  sum_j  log sigmoid( z_ij (scale <image_i, text_j> + bias) ),    z_ij = 2 [i = j] - 1

    Args:
      image: l2-normalised image embeddings.
      text: l2-normalised caption embeddings, row by row those of `image`.
      scale: exp(log-temperature).
      bias: the learned bias, shared with the other losses.
    Returns: the loss in nats per image, float32 whatever the inputs.
    """
    if image.shape != text.shape:
        raise ValueError(f"image {image.shape} and text {text.shape} must have one shape (B, D), row i of both a pair.")
    logits = scale * dot("id,jd->ij", image, text) + bias
    return sigmoid_nll(logits, jnp.eye(len(image), dtype=bool)).sum() / len(image)


def phrase_loss(
    image: Float[Array, "B D"], phrases: Float[Array, "N D"], owner: Int[Array, " N"], phrase_id: Int[Array, " N"],
    valid: Bool[Array, " N"], scale: Float[Array, ""], bias: Float[Array, ""],
) -> Float[Array, ""]:
    """Aligns each phrase with every image whose caption holds it: L_npc (arXiv 2603.25722).

        L = -1/N  sum_j  sum_i  log sigmoid( z_ij (scale <image_i, phrase_j> + bias) ),    z_ij = +-1

    Args:
      image: l2-normalised image embeddings.
      phrases: l2-normalised phrase embeddings, all images' phrases one after the other.
      owner: which row of `image` each phrase was taken from.
      phrase_id: equal for equal phrases, so a phrase is a positive of every image that has it.
      valid: False for padding, which counts for nothing.
      scale, bias: as in `sigmoid_loss`.
    Returns: the loss in nats per valid phrase, 0 where none is valid. float32 whatever the inputs.
    """
    positive = phrase_positives(owner, phrase_id, valid, len(image))
    logits = scale * dot("bd,nd->bn", image, phrases) + bias
    return jnp.sum(sigmoid_nll(logits, positive), where=valid) / jnp.maximum(valid.sum(), 1)

