"""The Vision Transformer, with parameter names and shapes of big_vision's `models/vit.py`.

So that released SigLIP weights load one to one, the module names below (`MultiHeadDotProductAttention_0`,
`encoderblock_3`, `MAPHead_0`, ...) are part of the interface. Every intermediate is returned in a dict.
"""
import functools
import math
from collections.abc import Callable
from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from cc_jax.models import attention

# width, depth, mlp width, heads; "B/16" means variant B with 16x16 patches.
VARIANTS = {
    "mu": (32, 1, 128, 2),
    "Ti": (192, 12, 768, 3),
    "S": (384, 12, 1536, 6),
    "M": (512, 12, 2048, 8),
    "B": (768, 12, 3072, 12),
    "L": (1024, 24, 4096, 16),
    "So400m": (1152, 27, 4304, 16),
    "g-opt": (1536, 40, 6144, 16),
}
POOLS = ("map", "gap", "tok")
REMAT_POLICIES = {
    "none": None,  # save every activation
    "full": jax.checkpoint_policies.nothing_saveable,  # recompute the block in the backward pass
    "dots": jax.checkpoint_policies.dots_saveable,  # save matmul results, recompute the cheap rest
    # Save what the projections give, recompute the attention and the cheap rest.
    "projections": jax.checkpoint_policies.save_only_these_names("heads", "attended", "hidden"),
}


def decode_variant(variant: str) -> dict:
    """`"B/16"` -> dict(width=768, depth=12, mlp_dim=3072, num_heads=12, patch_size=(16, 16)); no patch size for `"B"`."""
    name, _, patch = variant.partition("/")
    if name not in VARIANTS or (patch and not patch.isdigit()):
        raise ValueError(f"unknown model variant {variant!r}; use one of {', '.join(VARIANTS)}, for images with a patch "
                         "size, as in 'B/16'.")
    sizes = dict(zip(("width", "depth", "mlp_dim", "num_heads"), VARIANTS[name], strict=True))
    return sizes | ({"patch_size": (int(patch), int(patch))} if patch else {})


class Constrain(Protocol):
    """Says where activations live on a mesh, such as `sharding.constrain`: their rows, and dimension `split`, if any."""

    def __call__(self, x: Array, split: int | None = None) -> Array: ...


def anywhere(x: Array, split: int | None = None) -> Array:
    """Without a mesh there is nothing to say."""
    return x


def split_heads(form: str, constrain: Constrain) -> Callable[..., Float[Array, "B Q H D"]]:
    """Attention in one of `attention.FORMS`, its heads split."""
    return lambda query, key, value, mask=None: attention.FORMS[form](
        *(checkpoint_name(constrain(x, 2), "heads") for x in (query, key, value)), mask)


def flat_dot_general(x: Array, kernel: Array, dimensions: tuple, precision: lax.Precision | None = None) -> Array:
    """`lax.dot_general` of the last dimensions of x and the first of a kernel, as one matmul: see MlpBlock's `flat`."""
    count = len(dimensions[0][1])
    over = math.prod(kernel.shape[:count])
    y = jnp.matmul(x.reshape(-1, over), kernel.reshape(over, -1), precision=precision)
    return y.reshape(*x.shape[:x.ndim - count], *kernel.shape[count:])


class MlpBlock(nn.Module):
    """Dense, gelu(tanh), Dense. `mlp_dim` defaults to four times the input width.

    `flat`: for CPUs, all positions as rows of one matrix, and the activation computed again in the backward pass. A gradient
    by weights is then one matmul of what is there, without copies; XLA would transpose both factors first.
    """
    mlp_dim: int | None = None
    dtype: jnp.dtype = jnp.float32
    constrain: Constrain = anywhere
    flat: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        init = dict(kernel_init=nn.initializers.xavier_uniform(), bias_init=nn.initializers.normal(stddev=1e-6))
        shape, width = x.shape, x.shape[-1]
        gelu = functools.partial(nn.gelu, approximate=True)
        if self.flat:
            x, gelu = x.reshape(-1, width), jax.checkpoint(gelu)
        x = self.constrain(nn.Dense(self.mlp_dim or 4 * width, dtype=self.dtype, **init)(x), x.ndim - 1)
        x = checkpoint_name(x, "hidden")
        return nn.Dense(width, dtype=self.dtype, **init)(gelu(x)).reshape(shape)


class EncoderBlock(nn.Module):
    """Pre-norm transformer block. Returns (x, None), the signature `nn.scan` wants."""
    mlp_dim: int | None = None
    num_heads: int = 12
    dtype: jnp.dtype = jnp.float32
    constrain: Constrain = anywhere
    attention: str = "xla"

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"],
                 mask: Bool[Array, "B 1 #L L"] | None = None) -> tuple[Float[Array, "B L D"], None]:
        x = self.constrain(x)
        flat = self.attention == "cpu"
        dots = dict(qkv_dot_general=flat_dot_general, out_dot_general=flat_dot_general) if flat else {}
        y = nn.LayerNorm(dtype=self.dtype)(x)
        y = nn.MultiHeadDotProductAttention(
            num_heads=self.num_heads, kernel_init=nn.initializers.xavier_uniform(), dtype=self.dtype,
            attention_fn=split_heads(self.attention, self.constrain), **dots)(y, y, mask=mask)
        x = self.constrain(x + checkpoint_name(y, "attended"))
        y = nn.LayerNorm(dtype=self.dtype)(x)
        return self.constrain(x + MlpBlock(self.mlp_dim, self.dtype, self.constrain, flat)(y)), None


class Encoder(nn.Module):
    """`depth` blocks, then LayerNorm. `mask` is False where a position (axis 2) must not attend to another (axis 3).

    scan=True compiles one block and loops over it, its parameters stacked on a leading layer axis under `encoderblock`;
    otherwise each block is `encoderblock_i`. `remat` (a key of REMAT_POLICIES) says what the backward pass recomputes,
    `attention` (of attention.FORMS) how it attends.
    """
    depth: int
    mlp_dim: int | None = None
    num_heads: int = 12
    scan: bool = False
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32
    constrain: Constrain = anywhere
    attention: str = "xla"

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], mask: Bool[Array, "B 1 #L L"] | None = None) -> Float[Array, "B L D"]:
        if self.remat not in REMAT_POLICIES:
            raise ValueError(f"unknown remat policy {self.remat!r}; use one of {', '.join(REMAT_POLICIES)}.")
        block = EncoderBlock
        if self.remat != "none":
            # A scan already keeps XLA from merging the recomputation with the forward pass.
            block = nn.remat(block, prevent_cse=not self.scan, policy=REMAT_POLICIES[self.remat])
        args = dict(mlp_dim=self.mlp_dim, num_heads=self.num_heads, dtype=self.dtype, constrain=self.constrain,
                    attention=self.attention)
        if self.scan:
            stack = nn.scan(block, variable_axes={"params": 0}, split_rngs={"params": True},
                            in_axes=nn.broadcast, length=self.depth)
            x, _ = stack(name="encoderblock", **args)(x, mask)
        else:
            for i in range(self.depth):
                x, _ = block(name=f"encoderblock_{i}", **args)(x, mask)
        return nn.LayerNorm(name="encoder_norm", dtype=self.dtype)(x)


class Attention(nn.Module):
    """Multi-head attention with the parameters of `nn.MultiHeadDotProductAttention`, whose value path can run alone."""
    num_heads: int
    dtype: jnp.dtype = jnp.float32
    constrain: Constrain = anywhere

    @nn.compact
    def __call__(self, query: Float[Array, "B Q D"], x: Float[Array, "B K D"],
                 want_tokens: bool) -> tuple[Float[Array, "B Q D"], Float[Array, "B K D"] | None, Float[Array, "B n Q K"]]:
        """Returns (attended queries, `out(value(x))` of every token: attention left out, or None if not wanted, and the
        attention's weights by head)."""
        width, init = x.shape[-1], dict(kernel_init=nn.initializers.xavier_uniform(), dtype=self.dtype)
        heads = lambda name: nn.DenseGeneral((self.num_heads, width // self.num_heads), name=name, **init)
        out = nn.DenseGeneral(width, axis=(-2, -1), name="out", **init)
        q, k, v = (self.constrain(y, 2) for y in (heads("query")(query), heads("key")(x), heads("value")(x)))
        weights = nn.dot_product_attention_weights(q, k, dtype=self.dtype)  # the softmax over tokens
        attended = out(jnp.einsum("bnqk,bknd->bqnd", weights, v))
        return attended, out(v) if want_tokens else None, weights


class MAPHead(nn.Module):
    """Multi-head attention pooling: a learned probe attends to all tokens, then a residual MLP.

    With `want_tokens` it also returns the concept tokens: the same weights with the attention itself left out,
    y = out(value(x)); y + mlp(layer_norm(y)) for each encoder token (METHOD: "concept tokens"). Adds no parameter.
    Last it returns the probe's attention by head.
    """
    mlp_dim: int | None = None
    num_heads: int = 12
    dtype: jnp.dtype = jnp.float32
    constrain: Constrain = anywhere

    @nn.compact
    def __call__(
        self, x: Float[Array, "B K D"], want_tokens: bool = False,
    ) -> tuple[Float[Array, "B D"], Float[Array, "B K D"] | None, Float[Array, "B n K"]]:
        batch, _, width = x.shape
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, width), jnp.float32)
        probe = jnp.tile(probe, (batch, 1, 1)).astype(self.dtype)
        norm = nn.LayerNorm(dtype=self.dtype, name="LayerNorm_0")
        mlp = MlpBlock(self.mlp_dim, self.dtype, self.constrain, name="MlpBlock_0")
        residual_mlp = lambda y: self.constrain(y + mlp(norm(y)))
        attention = Attention(self.num_heads, self.dtype, self.constrain, name="MultiHeadDotProductAttention_0")
        pooled, tokens, weights = attention(probe, x, want_tokens)
        return residual_mlp(pooled)[:, 0], residual_mlp(tokens) if want_tokens else None, weights[:, :, 0]


class ViT(nn.Module):
    """Vision Transformer; `num_classes` > 0 adds the projection `head` (released SigLIP towers have none).

    Compute runs in `dtype`, parameters are float32.
    """
    patch_size: tuple[int, int]
    width: int
    depth: int
    mlp_dim: int | None = None
    num_heads: int = 12
    num_classes: int = 0
    pool: str = "map"
    scan: bool = False
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32
    constrain: Constrain = anywhere
    attention: str = "xla"

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"],
                 want_tokens: bool = False) -> tuple[Float[Array, "B D"], dict[str, Array]]:
        """Args: image: pixels in [-1, 1]; want_tokens: also return "concept_tokens" (B, K, D), not normalised.

        With a MAP head "map_attention" (B, num_heads, K) is how its probe attends, each head's weights summing to 1.
        """
        if self.pool not in POOLS:
            raise ValueError(f"unknown pool {self.pool!r}; use one of {', '.join(POOLS)}.")
        if any(side % patch for side, patch in zip(image.shape[1:3], self.patch_size, strict=True)):
            raise ValueError(f"image resolution {image.shape[1]}x{image.shape[2]} does not divide into patches of "
                             f"{self.patch_size[0]}x{self.patch_size[1]}; use a multiple of the patch size.")
        out = {}
        x = nn.Conv(self.width, self.patch_size, strides=self.patch_size, padding="VALID", name="embedding",
                    dtype=self.dtype)(image.astype(self.dtype))
        x = x.reshape(x.shape[0], -1, self.width)  # (B, h, w, D) -> (B, K, D)
        x = x + self.param("pos_embedding", nn.initializers.normal(1 / np.sqrt(self.width)), (1, *x.shape[1:]),
                           jnp.float32).astype(self.dtype)
        if self.pool == "tok":
            cls = self.param("cls", nn.initializers.zeros, (1, 1, self.width), jnp.float32).astype(self.dtype)
            x = jnp.concatenate([jnp.tile(cls, (x.shape[0], 1, 1)), x], axis=1)
        x = out["encoded"] = Encoder(self.depth, self.mlp_dim, self.num_heads, self.scan, self.remat, self.dtype,
                                     self.constrain, self.attention, name="Transformer")(x)

        head = nn.Dense(self.num_classes, name="head", dtype=self.dtype) if self.num_classes else lambda y: y
        tokens = x[:, 1:] if self.pool == "tok" else x
        if self.pool == "map":
            map_head = MAPHead(self.mlp_dim, self.num_heads, self.dtype, self.constrain)
            pooled, concept_tokens, out["map_attention"] = map_head(x, want_tokens)
        else:
            pooled, concept_tokens = pool_without_head(self.pool)(x), tokens
        out["head_input"] = pooled
        if want_tokens:
            out["concept_tokens"] = head(concept_tokens)
        return head(pooled), out


def pool_without_head(pool: str) -> Callable[[Float[Array, "B K D"]], Float[Array, "B D"]]:
    """The pools that have no weights: the mean of the tokens ("gap"), or the class token ("tok")."""
    return (lambda x: x.mean(axis=1)) if pool == "gap" else (lambda x: x[:, 0])
