"""The text tower, with parameter names and shapes of big_vision's SigLIP text transformer."""
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cc_jax.models.vit import Encoder

EOS = 1  # ends a text, and pads it: the last position always holds it


class TextTransformer(nn.Module):
    """Token and position embeddings, an encoder, the LAST position, Dense to `num_classes`.

    Released SigLIP towers attend to their padding and pool position 63, so for them rows must stay 64 tokens long.
    `mask_padding`, for towers trained from scratch, hides the padding between a text's last token and the last position.
    A text then has the same embedding in a row of any length that holds it, so short phrases can be encoded in short
    rows at a fraction of the cost. The parameters are the same.
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

    @nn.compact
    def __call__(self, text: Int[Array, "B L"]) -> tuple[Float[Array, "B D"], dict[str, Array]]:
        text = jnp.asarray(text)
        length = text.shape[1]
        if length > self.length or (length < self.length and not self.mask_padding):
            raise ValueError(f"text rows of {length} tokens, but the text tower has {self.length} positions; tokenise to "
                             f"{self.length}" + (" or fewer." if self.mask_padding else
                                                 ", or set model.text.mask_padding=True to train on shorter rows."))
        out = {}
        x = nn.Embed(self.vocab_size, self.width, name="Embed_0", dtype=self.dtype)(text)
        positions = self.param("pos_embedding", nn.initializers.normal(1 / np.sqrt(self.width)),
                               (1, self.length, self.width), jnp.float32)
        # The pooled position is the tower's last, in rows of any length.
        positions = jnp.concatenate([positions[:, :length - 1], positions[:, -1:]], axis=1)
        x = x + positions.astype(self.dtype)
        mask = (text != EOS).at[:, -1].set(True)[:, None, None, :] if self.mask_padding else None
        x = out["encoded"] = Encoder(self.depth, self.mlp_dim, self.num_heads, self.scan, self.remat, self.dtype,
                                     name="Encoder_0")(x, mask)
        return nn.Dense(self.num_classes, name="head", dtype=self.dtype)(x[:, -1]), out
