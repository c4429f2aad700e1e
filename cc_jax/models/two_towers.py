"""Image tower, text tower, temperature and bias: big_vision's two-towers model API and parameter tree."""
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cc_jax.models.text import PackedText, TextTransformer
from cc_jax.models.vit import Constrain, ViT, anywhere, decode_variant


def normalise(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """l2-normalises the last axis, in float32."""
    x = x.astype(jnp.float32)
    return x / jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)


class TwoTowers(nn.Module):
    """SigLIP's model: `zimg, ztxt, out = model.apply({"params": params}, image, text)`, either input may be None.

    `image` and `text` are the towers' options: `variant` (as "B/16", "B"), or its sizes in full. Embeddings are
    l2-normalised float32. `out` holds the scale "t" = exp(log-temperature), the bias "b" and the towers' intermediates
    under "img/..." and "txt/..."; with `want_tokens` the normalised "concept_tokens" (B, K, D), with `spans` of the texts'
    tokens [first, end) the normalised "span_embeddings" (N * P, D).
    `text` may be a PackedText of R rows with S places: then N = R * S, row by row.
    `constrain` says where activations live on a mesh, `attention` (of attention.FORMS) how blocks attend.
    """
    image: Mapping
    text: Mapping
    temperature_init: float = 10.0
    bias_init: float = -10.0
    scan: bool = False
    remat: str = "none"
    dtype: str = "float32"
    constrain: Constrain = anywhere
    attention: str = "xla"

    def setup(self):
        common = dict(scan=self.scan, remat=self.remat, dtype=jnp.dtype(self.dtype), constrain=self.constrain,
                      attention=self.attention)
        self.img = ViT(**sizes(self.image), **common)
        image_width = self.img.num_classes or self.img.width
        self.txt = TextTransformer(**{"num_classes": image_width} | sizes(self.text), **common)
        if self.txt.num_classes != image_width:
            raise ValueError(f"the text tower gives {self.txt.num_classes} numbers, the image tower {image_width}; set "
                             "both to one embedding width (num_classes).")
        constant = lambda value: lambda _: jnp.full((1,), value, jnp.float32)
        self.t = self.param("t", constant(np.log(self.temperature_init)))
        self.b = self.param("b", constant(self.bias_init))

    def __call__(
        self, image: Float[Array, "B H W 3"] | None, text: Int[Array, "N L"] | PackedText | None = None,
        want_tokens: bool = False, spans: Int[Array, "N P 2"] | None = None,
    ) -> tuple[Float[Array, "B D"] | None, Float[Array, "N D"] | None, dict[str, Array]]:
        zimg, ztxt, out = None, None, {"t": jnp.exp(self.t[0]), "t/parameter": self.t, "b": self.b[0]}
        if image is not None:
            zimg, intermediates = self.img(image, want_tokens)
            zimg = normalise(zimg)
            if want_tokens:
                out["concept_tokens"] = normalise(intermediates.pop("concept_tokens"))
            out |= {f"img/{k}": v for k, v in intermediates.items()}
        if text is not None:
            ztxt, intermediates = self.txt(text, spans)
            ztxt = normalise(ztxt)
            if spans is not None:
                spans = normalise(intermediates.pop("spans"))
                out["span_embeddings"] = spans.reshape(-1, spans.shape[-1])
            out |= {f"txt/{k}": v for k, v in intermediates.items()}
        return zimg, ztxt, out


def sizes(options: Mapping) -> dict:
    """A tower's options with its `variant` name spelled out; options given beside the name win."""
    options = dict(options)
    variant = options.pop("variant", None)
    options = (decode_variant(variant) if variant else {}) | options
    return options | ({"patch_size": tuple(options["patch_size"])} if "patch_size" in options else {})
