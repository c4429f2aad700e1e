"""The sigmoid losses of image against text: whole captions (L_siglip) and noun phrases (L_npc)."""
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cc_jax.concepts import check_normalised, check_slots, held_phrases
from cc_jax.pairs import ALONE, DotProduct, Exchange, Held, Texts, pair_loss


def sigmoid_loss(
    image: Float[Array, "B D"], text: Float[Array, "B D"], scale: Float[Array, ""], bias: Float[Array, ""], *,
    block: int | None = None, exchange: Exchange = ALONE, checked: bool = False,
) -> Float[Array, ""]:
    """Pairs each image with its own caption: L_siglip (arXiv 2303.15343, eq. 1).

        L = -1/B  sum_i  sum_j  log sigmoid( z_ij (scale <image_i, text_j> + bias) ),    z_ij = 2 [i = j] - 1

    Args:
      image: l2-normalised image embeddings.
      text: l2-normalised caption embeddings, row by row those of `image`.
      scale: exp(log-temperature).
      bias: the learned bias, shared with the other losses.
      block, exchange: as in `pairs.pair_loss`; checked: the debug mode of `concepts.check_normalised`.
    Returns: the loss in nats per image, float32 whatever the inputs.
    """
    if image.shape != text.shape:
        raise ValueError(f"image {image.shape} and text {text.shape} must have one shape (B, D), row i of both a pair.")
    if checked:
        check_normalised(image=image, text=text)
    own = jnp.arange(len(image), dtype=jnp.int32)
    return pair_loss(DotProduct(), image, Held(own[:, None], jnp.ones((len(own), 1), bool)),
                     Texts(text, own, jnp.ones(len(own))), scale, bias, block=block, exchange=exchange)


def phrase_loss(
    image: Float[Array, "B D"], phrases: Float[Array, "N D"], owner: Int[Array, " N"], phrase_id: Int[Array, " N"],
    valid: Bool[Array, " N"], scale: Float[Array, ""], bias: Float[Array, ""], *, block: int | None = None,
    exchange: Exchange = ALONE, normaliser: str = "texts", key: PRNGKeyArray | None = None, checked: bool = False,
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
      block, exchange, normaliser, key: as in `pairs.pair_loss`; checked: the debug mode of `concepts.check_normalised`.
    Returns: the loss in nats per valid phrase, 0 where none is valid. float32 whatever the inputs.
    """
    check_slots(phrases, owner, phrase_id, valid)
    if checked:
        check_normalised(image=image, phrases=phrases)
    return pair_loss(DotProduct(), image, held_phrases(owner, phrase_id, valid, len(image)),
                     Texts(phrases, phrase_id, valid.astype(jnp.float32)), scale, bias, block=block, exchange=exchange,
                     normaliser=normaliser, key=key)
