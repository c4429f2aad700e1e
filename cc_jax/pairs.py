"""A sigmoid loss over every pair of an image and a text of the global batch, wherever in the mesh the two live.

All three losses are this one sum with another similarity, so here is how it is computed: images in blocks, texts in one
chunk per device. The loss is a scalar, so its gradients are made along with it, tile by tile, and scaled in the backward
pass: nothing else is saved, and nothing of the size of the pair matrix is ever held.

Across devices image features stay where they are. Texts go round a ring, a chunk a hop, with what they are and with the
gradient they have gathered; after a whole turn both are home. Or every device gathers all texts at once.
"""
import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cc_jax.sharding import platform

KINDS = ("ring", "gather")
NORMALISERS = ("texts", "positives")
TILE = {"cpu": 480_000, "default": 2**26}  # numbers in a tile of images x tokens x texts: measured; a part of memory


class Texts(NamedTuple):
    """The texts that every image is compared with: the columns of the pair matrix."""
    embedding: Float[Array, "N D"]  # l2-normalised
    id: Int[Array, " N"]            # equal for equal texts
    weight: Float[Array, " N"]      # how many texts of the batch it stands for; 0 for padding, which counts for nothing


class Held(NamedTuple):
    """The texts that belong to each image, its positives, by their id."""
    id: Int[Array, "B P"]
    valid: Bool[Array, "B P"]


@dataclass(frozen=True)
class Exchange:
    """How texts meet the images of other devices. Without a mesh there are none.

    Attributes:
      mesh: texts are split evenly over all its axes; a text may lie on another device than its image.
      axes: those that images are split over, all where None. Devices that differ in the others only hold the same images,
        and share the texts that meet them.
      kind: "ring", or "gather" for an all-gather of the texts, faster on some fabrics.
      max_hops: at most so many of the devices' chunks meet an image: its own device's always, the others drawn anew by
        `key` at each step and weighted so that the expectation is the full loss.
    """
    mesh: Mesh | None = None
    kind: str = "ring"
    max_hops: int | None = None
    axes: tuple[str, ...] | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"exchange kind {self.kind!r} is not known; use one of {', '.join(KINDS)}.")
        if self.max_hops is not None and self.max_hops < 2:
            raise ValueError(f"max_hops={self.max_hops}; it must be at least 2, or no text of another device would ever "
                             "be met.")

    @property
    def over(self) -> tuple[str, ...]:
        """The axes that texts go round."""
        return () if self.mesh is None else self.axes or self.mesh.axis_names

    @property
    def sharing(self) -> tuple[str, ...]:
        """The axes of devices that hold the same images."""
        shape = self.mesh.shape if self.mesh else {}
        return tuple(name for name, size in shape.items() if name not in self.over and size > 1)

    @property
    def devices(self) -> int:
        """The parts of the images, and the hops of the texts."""
        return math.prod(self.mesh.shape[name] for name in self.over)


ALONE = Exchange()


class Similarity(Protocol):
    """What images and texts are compared by. `features` of B images have the leading axis B; hashable."""

    def expand(self, features: Array) -> Any:
        """What `cosine` needs of the images, made once for all texts."""

    def cosine(self, own: Any, texts: Float[Array, "N D"]) -> tuple[Float[Array, "B N"], Any]:
        """The similarities in float32, and the function from their gradient to (that of `own`, that of `texts`)."""

    def contract(self, features: Array, gradient: Any) -> Array:
        """From the gradient of `own` to that of `features`."""

    def tile_size(self, features: Array) -> int:
        """How many numbers of a tile one image takes for one text."""

    chunks: int     # of texts to meet at once in a ring: more where the gradient of `own`, written for each, is large


class DotProduct:
    """<image, text>."""
    chunks = 1

    def expand(self, features):
        return features

    def cosine(self, own, texts):
        def pullback(gradient):
            gradient = gradient.astype(own.dtype)
            return dot("bn,nd->bd", gradient, texts), dot("bn,bd->nd", gradient, own)
        return dot("bd,nd->bn", own, texts), pullback

    def contract(self, features, gradient):
        return gradient

    def tile_size(self, features):
        return 1


def dot(equation: str, a: Array, b: Array) -> Float[Array, "..."]:
    """An einsum that sums in float32. float32 factors are multiplied as such, on hardware that would round them, too."""
    precision = lax.Precision.HIGHEST if a.dtype == b.dtype == jnp.float32 else None
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32, precision=precision)


def pair_loss(
    similarity: Similarity, features: Float[Array, "B ..."], held: Held, texts: Texts, scale: Float[Array, ""],
    bias: Float[Array, ""], *, exchange: Exchange = ALONE, block: int | None = None, normaliser: str = "texts",
    key: PRNGKeyArray | None = None,
) -> Float[Array, ""]:
    """-1/n  sum_j weight_j  sum_i  log sigmoid( z_ij (scale similarity_ij + bias) ),  z_ij = +1 where i holds j, else -1.

    Args:
      held, texts: an image that holds a text's id is a positive of it.
      block: images per tile; must divide the images of a device. None: what suits the device.
      normaliser: n is the number of texts, sum_j weight_j, or of positive pairs, sum_ij weight_j [z_ij = 1]. The same where
        every text belongs to one image.
      key: draws the hops where `exchange.max_hops` leaves some out.
    Returns: the loss in nats, 0 where no text counts. float32.
    Raises: ValueError before compilation, naming the argument.
    """
    devices = exchange.devices
    block = check(features, held, texts, exchange, block, normaliser, similarity)
    sampled = exchange.max_hops is not None and exchange.max_hops < devices
    if sampled and key is None:
        raise ValueError(f"max_hops={exchange.max_hops} of {devices} draws hops at random; give a key.")
    hop_weight = draw_hops(key, devices, exchange.max_hops) if sampled else None

    def run(features, embedding, scale, bias, held, ids, weight, hop_weight):
        local = lambda *a: local_loss(similarity, exchange, block, normaliser, *a)
        if exchange.mesh is None:
            return local(features, Texts(embedding, ids, weight), held, scale, bias, hop_weight)
        images, every = PartitionSpec(exchange.over), PartitionSpec(exchange.over + exchange.sharing)
        whole = PartitionSpec()
        return jax.shard_map(
            local, mesh=exchange.mesh, in_specs=(images, every, images, whole, whole, whole),
            out_specs=(whole, (images, every, whole, whole)), check_vma=False,
        )(features, Texts(embedding, ids, weight), held, scale, bias, hop_weight)

    @jax.custom_vjp
    def loss(*arguments):
        return run(*arguments)[0]

    def forward(*arguments):
        value, gradients = run(*arguments)
        return value, tuple(g.astype(a.dtype) for g, a in zip(gradients, arguments[:4], strict=True))

    def backward(gradients, cotangent):
        return (*((g * cotangent).astype(g.dtype) for g in gradients), None, None, None, None)

    loss.defvjp(forward, backward)
    features, held, texts = jax.tree.map(jnp.asarray, (features, held, texts))
    scale, bias = (jnp.asarray(x, jnp.float32) for x in (scale, bias))
    return loss(features, texts.embedding, scale, bias, held, texts.id, texts.weight, hop_weight)


def local_loss(similarity, exchange, block, normaliser, features, texts, held, scale, bias, hop_weight):
    """One device's part of `pair_loss`: (the whole loss, the gradients of its features, its texts, scale and bias)."""
    axes, sharing = exchange.over, exchange.sharing
    total = lambda x, over=axes + sharing: lax.psum(x, over) if over else x
    if exchange.devices == 1:
        # The block makes what its images need: no array of it for all of them.
        sums, d_features, d_embedding = sum_blocks(similarity, block, features, held, texts, scale, bias, expanded=False)
    else:
        own = similarity.expand(features)

        def meet(texts: Texts, hop: Int[Array, ""]):
            """(sums, gradient of own, gradient of the texts' embedding) of this device's images and a chunk of texts."""
            tiles = lambda weight: sum_blocks(similarity, block, own, held, texts._replace(weight=weight), scale, bias)
            if hop_weight is None:
                return tiles(texts.weight)
            nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(tiles, texts.weight))
            return lax.cond(hop_weight[hop] > 0, lambda: tiles(texts.weight * hop_weight[hop]), lambda: nothing)

        if exchange.kind == "ring":
            sums, d_own, d_embedding = ring(meet, own, texts, exchange.devices, axes, at_once(similarity, exchange))
        else:
            sums, d_own, d_embedding = gather(meet, own, texts, exchange.devices, axes)
        d_features = similarity.contract(features, d_own)
    loss, d_scale, d_bias = map(total, sums)
    d_features = total(d_features, sharing)
    if normaliser == "texts":
        count = total(texts.weight.sum())
    else:
        count = total(count_positives(held, texts, axes))
    share = 1 / jnp.maximum(count, 1)
    return loss * share, (d_features * share, d_embedding * share, d_scale * share, d_bias * share)


def at_once(similarity: Similarity, exchange: Exchange) -> int:
    """How many chunks of texts a device meets at once: one where they don't divide, or each may be left out."""
    whole = exchange.kind == "ring" and exchange.max_hops is None and exchange.devices % similarity.chunks == 0
    return similarity.chunks if whole else 1


def ring(meet, own, texts: Texts, devices: int, axes: tuple[str, ...], chunks: int):
    """Sums `meet` over all chunks of texts, which go round with their gradient, from each device to the next.

    A device meets `chunks` of them at once, its own and those of the devices before it, then all move on by so many places.
    """
    move = lambda tree, by, step=1: tree if by == 0 else move(jax.tree.map(
        lambda x: lax.ppermute(x, axes, [(i, (i + step) % devices) for i in range(devices)]), tree), by - 1, step)

    def meet_all(carry, number):
        travelling, d_own, sums = carry
        texts, d_embedding = travelling
        new = meet(texts, number)
        travelling = move((texts, d_embedding + new[2]), chunks)
        return (travelling, add(d_own, new[1]), add(sums, new[0])), None

    met = jax.tree.map(lambda *parts: jnp.concatenate(parts), *(move(texts, place) for place in range(chunks)))
    start = ((met, zeros(met.embedding)), zeros(own), (jnp.zeros(()),) * 3)
    ((_, d_embedding), d_own, sums), _ = lax.scan(meet_all, start, jnp.arange(devices // chunks))
    return sums, d_own, sum(move(part, place, -1) for place, part in enumerate(jnp.split(d_embedding, chunks)))


def gather(meet, own, texts: Texts, devices: int, axes: tuple[str, ...]):
    """As `ring`, but every device holds all chunks at once, and their gradients are summed where they belong."""
    every = jax.tree.map(lambda x: lax.all_gather(x, axes), texts)  # (devices, n, ...)
    here = lax.axis_index(axes)

    def hop(carry, number):
        d_every, d_own, sums = carry
        source = (here - number) % devices
        new = meet(jax.tree.map(lambda x: x[source], every), number)
        return (d_every.at[source].add(new[2]), add(d_own, new[1]), add(sums, new[0])), None

    start = (zeros(every.embedding), zeros(own), (jnp.zeros(()),) * 3)
    (d_every, d_own, sums), _ = lax.scan(hop, start, jnp.arange(devices))
    return sums, d_own, lax.psum_scatter(d_every, axes)


def sum_blocks(similarity, block: int, own, held: Held, texts: Texts, scale, bias, expanded: bool = True):
    """A device's images against one chunk of texts, block by block: ((loss, d_scale, d_bias), d_own, d_embedding).

    With `expanded` False, `own` are the plain features and so is its gradient.
    """
    blocks = jax.tree.map(lambda x: x.reshape(-1, block, *x.shape[1:]), (own, held))

    def body(carry, of_block):
        own, held = of_block
        sums, d_embedding = carry
        cosine, pullback = similarity.cosine(own if expanded else similarity.expand(own), texts.embedding)
        new_sums, d_cosine = sigmoid_terms(cosine, positives(held, texts.id), texts.weight, scale, bias)
        d_own, d_new = pullback(d_cosine)
        d_own = d_own if expanded else similarity.contract(own, d_own)
        return (add(sums, new_sums), d_embedding + d_new), d_own

    start = ((jnp.zeros(()),) * 3, zeros(texts.embedding))
    (sums, d_embedding), d_own = lax.scan(body, start, blocks)
    return sums, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), d_own), d_embedding


def sigmoid_terms(cosine: Float[Array, "B N"], positive: Bool[Array, "B N"], weight: Float[Array, " N"], scale, bias):
    """((sum of the weighted losses, its gradient by scale, by bias), its gradient by each cosine)."""
    sign = jnp.where(positive, 1.0, -1.0)
    signed = sign * (scale * cosine + bias)
    d_logit = -weight * sign * jax.nn.sigmoid(-signed)
    return (jnp.sum(weight * jax.nn.softplus(-signed)), jnp.sum(d_logit * cosine), jnp.sum(d_logit)), scale * d_logit


def positives(held: Held, ids: Int[Array, " N"]) -> Bool[Array, "B N"]:
    """Which of the texts each image holds."""
    return jnp.any((held.id[:, :, None] == ids) & held.valid[:, :, None], axis=1)


def count_positives(held: Held, texts: Texts, axes: tuple[str, ...]) -> Float[Array, ""]:
    """This device's images' part of sum_ij weight_j [z_ij = 1]: by a sorted lookup, so never of the size of B x N."""
    if axes:
        texts = jax.tree.map(lambda x: lax.all_gather(x, axes, tiled=True), texts._replace(embedding=None))
    order = jnp.argsort(texts.id)
    ids, summed = texts.id[order], jnp.concatenate([jnp.zeros(1), jnp.cumsum(texts.weight[order])])
    first = jnp.searchsorted(ids, held.id, side="left")
    end = jnp.searchsorted(ids, held.id, side="right")
    # An image that lists a text twice holds it once.
    same = (held.id[:, :, None] == held.id[:, None, :]) & held.valid[:, None, :]
    again = jnp.any(jnp.tril(same, -1), axis=-1)
    return jnp.sum(summed[end] - summed[first], where=held.valid & ~again)


def draw_hops(key: PRNGKeyArray, devices: int, max_hops: int) -> Float[Array, " devices"]:
    """The weight of each hop: 1 for the local one, (devices - 1) / (max_hops - 1) for those drawn, else 0."""
    drawn = jax.random.permutation(key, jnp.arange(1, devices))[:max_hops - 1]
    return jnp.zeros(devices).at[0].set(1.0).at[drawn].set((devices - 1) / (max_hops - 1))


def check(features, held: Held, texts: Texts, exchange: Exchange, block: int | None, normaliser: str, similarity) -> int:
    """Raises ValueError for arguments that don't fit each other; returns the images per block."""
    count, rows = len(texts.id), len(held.id)
    if texts.embedding.ndim != 2 or texts.id.shape != (count,) or texts.weight.shape != (count,):
        raise ValueError(f"texts: embedding {texts.embedding.shape}, id {texts.id.shape}, weight {texts.weight.shape}; they "
                         "must be (N, D), (N,), (N,).")
    if held.id.shape != held.valid.shape or held.id.ndim != 2 or rows != len(features):
        raise ValueError(f"held: id {held.id.shape}, valid {held.valid.shape}; both must be (B, P), and the features "
                         f"{features.shape} have B = {len(features)}.")
    if features.shape[-1] != texts.embedding.shape[-1]:
        raise ValueError(f"features {features.shape} and texts {texts.embedding.shape} differ in their width, the last "
                         "axis.")
    for name, value in (("held.id", held.id), ("texts.id", texts.id)):
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise ValueError(f"{name} is {value.dtype}; it must be an integer type.")
    if held.valid.dtype != bool:
        raise ValueError(f"held.valid is {held.valid.dtype}; it must be bool.")
    if normaliser not in NORMALISERS:
        raise ValueError(f"normaliser={normaliser!r} is not known; use one of {', '.join(NORMALISERS)}.")
    devices, parts = exchange.devices, exchange.mesh.size if exchange.mesh else 1
    if rows % devices or count % parts:
        raise ValueError(f"{rows} images over {devices} devices and {count} texts over {parts} do not both divide; use "
                         "multiples.")
    images = rows // devices
    if block is None:
        backend = platform(exchange.mesh) if exchange.mesh else jax.default_backend()
        room = TILE.get(backend, TILE["default"]) // max(1, similarity.tile_size(features) * count // parts
                                                       * at_once(similarity, exchange))
        return max(size for size in range(1, images + 1) if images % size == 0 and size <= max(room, 1))
    if block < 1 or images % block:
        raise ValueError(f"block={block} does not divide the {images} images of a device; use a divisor, or None.")
    return block


def zeros(tree):
    """Zeros of the arrays' shapes, in float32: what gradients are summed in."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tree)


def add(a, b):
    return jax.tree.map(jnp.add, a, b)
