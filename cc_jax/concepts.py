"""Concept attention pooling: what a phrase sees in an image, and the loss that aligns the two (L_xac)."""
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cc_jax.pairs import ALONE, Exchange, Held, Texts, dot, pair_loss

SAFE_TEMPERATURE = 0.1  # above it exp(similarity / temperature) of unit vectors and its square stay in float32's range


def concept_attention(
    tokens: Float[Array, "B K D"], phrases: Float[Array, "N D"], temperature: float = 1.0,
) -> Float[Array, "B N K"]:
    """Where each phrase looks in each image: a_ijk = softmax over k of <phrase_j, token_ik> / temperature."""
    return jax.nn.softmax(dot("bkd,nd->bnk", tokens, phrases) / temperature, axis=-1)


def concept_attention_loss(
    tokens: Float[Array, "B K D"], phrases: Float[Array, "N D"], owner: Int[Array, " N"], phrase_id: Int[Array, " N"],
    valid: Bool[Array, " N"], scale: Float[Array, ""], bias: Float[Array, ""], *, temperature: float = 1.0,
    block: int | None = None, exchange: Exchange = ALONE, normaliser: str = "texts", key: PRNGKeyArray | None = None,
    checked: bool = False,
) -> Float[Array, ""]:
    """Aligns each phrase with what it attends to, in every image of the batch: L_xac (arXiv 2603.25722).

        a_ijk = softmax_k <phrase_j, token_ik> / temperature,    u_ij = normalise( sum_k a_ijk token_ik )
        L = -1/N  sum_j  sum_i  log sigmoid( z_ij (scale <u_ij, phrase_j> + bias) ),    z_ij = +-1

    Args:
      tokens: l2-normalised concept tokens of each image.
      phrases, owner, phrase_id, valid, scale, bias: as in `losses.phrase_loss`.
      temperature: of the attention, a number; the paper's is 1.
      block, exchange, normaliser, key: as in `pairs.pair_loss`.
      checked: the debug mode of `check_normalised`: the caller must be transformed by `checkify.checkify`.
    Returns: the loss in nats per valid phrase, 0 where none is valid. float32 whatever the inputs.
    Raises: ValueError before compilation, naming the argument.
    """
    check_slots(phrases, owner, phrase_id, valid)
    if checked:
        check_normalised(tokens=tokens, phrases=phrases)
    return pair_loss(AttentionCosine(temperature), tokens, held_phrases(owner, phrase_id, valid, len(tokens)),
                     Texts(phrases, phrase_id, valid.astype(jnp.float32)), scale, bias, block=block, exchange=exchange,
                     normaliser=normaliser, key=key)


@dataclass(frozen=True)
class AttentionCosine:
    """<u_ij, phrase_j> of concept tokens T_i (K, D) and phrases p_j, without u, which would be (B, N, D).

    The normaliser of the softmax cancels in u = normalise(...), so with s = T p, e = exp(s / temperature), and the Gram
    matrix G = T T^T (K x K) of an image,

        cosine = e.s / sqrt(e^T G e)          r = 1 / sqrt(e^T G e),    y = G e

    and its gradients, with the two ways in which s enters (itself, and through e) added up, are

        d cosine / d s = r e (1 + s / temperature) - cosine r^2 e y / temperature
        d cosine / d G = -1/2 cosine r^2 e e^T,    and dG adds (dG + dG^T) T to that of the tokens

    2 (K D + K^2) FLOPs a pair forward, 2 (2 K D + K^2) backward. Cosines need no shift of the exponent unless the
    temperature is low; then the largest s of a pair is taken off, which cancels, too.
    """
    temperature: float = 1.0
    chunks: ClassVar[int] = 2       # the tokens' gradient, in float32, is half of all traffic where texts go round in ones

    def __post_init__(self):
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature} of the concept attention; it must be above 0.")

    def expand(self, features):
        """(tokens, their Gram matrices)."""
        return features, dot("bkd,bjd->bkj", features, features).astype(features.dtype)

    def cosine(self, own, texts):
        tokens, gram = own
        images, count, width = tokens.shape
        flat = tokens.reshape(images * count, width)
        s = dot("xd,nd->xn", flat, texts).reshape(images, count, -1)
        exponent = s / self.temperature
        if self.temperature < SAFE_TEMPERATURE:
            exponent = exponent - exponent.max(axis=1, keepdims=True)
        # Rounded once, here: all of the cosine is then exact for a slightly different attention.
        e = jnp.exp(exponent).astype(tokens.dtype)
        y = dot("bkj,bjn->bkn", gram, e)
        r = jax.lax.rsqrt(jnp.sum(e * y, axis=1) + 1e-30)
        cosine = jnp.sum(e * s, axis=1) * r

        def pullback(gradient):
            straight = (gradient * r)[:, None]
            radial = straight * (cosine * r)[:, None]
            d_s = e * (straight * (1 + s / self.temperature) - radial * y / self.temperature)
            d_s = d_s.astype(tokens.dtype).reshape(images * count, -1)
            d_tokens = dot("xn,nd->xd", d_s, texts).reshape(tokens.shape)
            d_gram = dot("bkn,bjn->bkj", (e * radial).astype(tokens.dtype), e)  # -2 times that of the formula
            return (d_tokens, d_gram), dot("xn,xd->nd", d_s, flat)
        return cosine, pullback

    def contract(self, features, gradient):
        d_tokens, d_gram = gradient
        return d_tokens - dot("bkj,bjd->bkd", d_gram.astype(features.dtype), features)

    def tile_size(self, features):
        return features.shape[1]


def held_phrases(
    owner: Int[Array, " N"], phrase_id: Int[Array, " N"], valid: Bool[Array, " N"], num_images: int,
) -> Held:
    """The valid phrases of each image as rows of ids, whatever the order of the slots.

    A row has a place for as many phrases as an image has at most, or N where `owner` is traced and nobody knows yet.
    """
    if any(isinstance(x, jax.core.Tracer) for x in (owner, valid)):
        places = len(owner)
    else:
        owned = np.asarray(owner)[np.asarray(valid)]
        if owned.size and not (0 <= owned.min() and owned.max() < num_images):
            raise ValueError(f"owner holds {owned.min()} to {owned.max()}; with {num_images} images it must be 0 to "
                             f"{num_images - 1}.")
        places = int(np.bincount(owned, minlength=1).max(initial=1))
    owner, phrase_id, valid = map(jnp.asarray, (owner, phrase_id, valid))
    image = jnp.where(valid, owner, num_images)
    order = jnp.argsort(image)
    image = image[order]
    place = jnp.arange(len(order)) - jnp.searchsorted(image, image)  # 0, 1, ... within each image
    empty = jnp.zeros((num_images, max(places, 1)), jnp.int32)
    return Held(empty.astype(phrase_id.dtype).at[image, place].set(phrase_id[order], mode="drop"),
                empty.astype(bool).at[image, place].set(True, mode="drop"))


def check_slots(phrases, owner, phrase_id, valid) -> None:
    """Raises ValueError for slots of the wrong shape or type."""
    for name, value in (("owner", owner), ("phrase_id", phrase_id), ("valid", valid)):
        if value.shape != phrases.shape[:1]:
            raise ValueError(f"{name} has shape {value.shape}; for phrases {phrases.shape} it must be (N,) = "
                             f"{phrases.shape[:1]}.")
        if name != "valid" and not jnp.issubdtype(value.dtype, jnp.integer):
            raise ValueError(f"{name} is {value.dtype}; it must be an integer type.")
    if valid.dtype != bool:
        raise ValueError(f"valid is {valid.dtype}; it must be bool.")


def check_normalised(**features: Float[Array, "... D"]) -> None:
    """The debug mode: an error, at run time, where a feature vector is not of length 1 (to 1 %: bfloat16 rounds).

    Under `checkify.checkify(function)` the error is returned; `error.throw()` raises it. Config: `checked=True`.
    """
    for name, value in features.items():
        norm = jnp.linalg.norm(value.astype(jnp.float32), axis=-1)
        worst = norm.ravel()[jnp.argmax(jnp.abs(norm - 1).ravel())]
        checkify.check(jnp.abs(worst - 1) < 0.01, name + " hold a vector of length {norm}; normalise them to 1.", norm=worst)
