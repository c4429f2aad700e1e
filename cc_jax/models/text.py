"""The text tower, with parameter names and shapes of big_vision's SigLIP text transformer."""
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cc_jax.models.vit import Constrain, Encoder, anywhere

EOS = 1  # ends a text, and pads it: the last position always holds it


class PackedText(NamedTuple):
    """Several short texts in each row of tokens, as `data.packing` lays them out; none sees another.

    tokens: EOS where there is no text.
    segment: 0 for padding, s + 1 for the tokens of the text at place s of the row, its EOS included.
    position: 0, 1, 2, ... in each text; -1, the tower's last, for its EOS.
    end: where each text's EOS is, from which its embedding is read; at an empty place any position.
    """
    tokens: Int[Array, "R L"]
    segment: Int[Array, "R L"]
    position: Int[Array, "R L"]
    end: Int[Array, "R S"]


class TextTransformer(nn.Module):
    """Token and position embeddings, an encoder, the LAST position, Dense to `num_classes`.

    Released SigLIP towers attend to their padding and pool position 63, so for them rows must stay 64 tokens long.
    `mask_padding`, for towers trained from scratch, hides the padding between a text's last token and the last position.
    A text then has the same embedding in a row of any length that holds it, so short phrases can be encoded in short
    rows, or several in one row (PackedText), at a fraction of the cost. The parameters are the same.
    """
    width: int
    depth: int
    num_classes: int
    vocab_size: int
    length: int = 64
    mlp_dim: int | None = None
    num_heads: int = 12
    mask_padding: bool = False
    scan: bool = False
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32
    constrain: Constrain = anywhere
    attention: str = "xla"

    @nn.compact
    def __call__(self, text: Int[Array, "N L"] | PackedText,
                 spans: Int[Array, "N P 2"] | None = None) -> tuple[Float[Array, "N D"], dict[str, Array]]:
        """Returns (embeddings, intermediates). Of a PackedText N = R * S, the places row by row; empty ones hold any number.

        For each of `spans`, positions [first, end) of its row, the intermediates have "spans" (N, P, D): the mean of their
        states in place of the last one's. An empty span's is any number.

        Raises ValueError for rows that the tower's positions, or its view of padding, don't allow.
        """
        packed = isinstance(text, PackedText)
        tokens = jnp.asarray(text.tokens if packed else text)
        self._check_rows(tokens.shape[1], packed)
        out = {}
        x = nn.Embed(self.vocab_size, self.width, name="Embed_0", dtype=self.dtype)(tokens)
        positions = self.param("pos_embedding", nn.initializers.normal(1 / np.sqrt(self.width)),
                               (1, self.length, self.width), jnp.float32)
        if packed:
            positions = positions[0][text.position]
            mask = (text.segment[:, :, None] == text.segment[:, None, :])[:, None]  # padding sees padding
        else:
            # The pooled position is the tower's last, in rows of any length.
            positions = jnp.concatenate([positions[:, :tokens.shape[1] - 1], positions[:, -1:]], axis=1)
            mask = (tokens != EOS).at[:, -1].set(True)[:, None, None, :] if self.mask_padding else None
        x = x + positions.astype(self.dtype)
        x = out["encoded"] = Encoder(self.depth, self.mlp_dim, self.num_heads, self.scan, self.remat, self.dtype,
                                     self.constrain, self.attention, name="Encoder_0")(x, mask)
        # Row by row, so that rows split over devices stay there.
        pooled = jax.vmap(lambda row, end: row[end])(x, text.end).reshape(-1, self.width) if packed else x[:, -1]
        head = nn.Dense(self.num_classes, name="head", dtype=self.dtype)
        if spans is not None:
            place = jnp.arange(tokens.shape[1])
            inside = (place >= spans[..., :1]) & (place < spans[..., 1:])  # (N, P, L)
            share = inside / jnp.maximum(inside.sum(axis=-1, keepdims=True), 1)
            out["spans"] = head(jnp.einsum("npl,nlw->npw", share.astype(self.dtype), x))
        return head(pooled), out

    def _check_rows(self, length: int, packed: bool) -> None:
        if packed and not self.mask_padding:
            raise ValueError("packed rows of several texts, but with mask_padding=False the text tower attends to its "
                             "padding; give it one text a row, or set model.text.mask_padding=True for a tower trained from "
                             "scratch.")
        if length > self.length or (length < self.length and not self.mask_padding):
            raise ValueError(f"text rows of {length} tokens, but the text tower has {self.length} positions; tokenise to "
                             f"{self.length}" + (" or fewer." if self.mask_padding else
                                                 ", or set model.text.mask_padding=True to train on shorter rows."))
