"""FLOPs of a training step, counted from the sizes, and what the devices can do: together, the MFU."""
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cc_jax.models.two_towers import TwoTowers, sizes
from cc_jax.objective import Objective


class Chip(NamedTuple):
    """What one JAX device of a TPU can do.

    hbm: bytes of main memory; hbm_rate: bytes/s to and from it; ici_rate: bytes/s that it sends to its neighbours, one of
    `links`, in all.
    """
    peak: float
    hbm: int
    hbm_rate: float
    ici_rate: float
    links: int


# By `device_kind`, from cloud.google.com/tpu/docs (v4, v5e, v5p, v6e, tpu7x; ICI there counts both directions). Per chip; a
# TPU7x chip is two devices.
CHIPS = {
    "TPU v4": Chip(275e12, 32 * 2**30, 1200e9, 300e9, 6), "TPU v5 lite": Chip(197e12, 16 * 2**30, 819e9, 200e9, 4),
    "TPU v5": Chip(459e12, 95 * 2**30, 2765e9, 600e9, 6), "TPU v6 lite": Chip(918e12, 32 * 2**30, 1638e9, 400e9, 4),
    "TPU7x": Chip(2307e12 / 2, 96 * 2**30, 7380e9 / 2, 300e9, 3),
}

# Dense bfloat16 FLOP/s of one JAX device, from the vendors' data sheets (TPU: per chip, v2 and v3 per core).
PEAK_FLOPS = {name: chip.peak for name, chip in CHIPS.items()} | {
    "TPU v5e": CHIPS["TPU v5 lite"].peak, "TPU v6e": CHIPS["TPU v6 lite"].peak, "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12, "NVIDIA H200": 989e12, "NVIDIA L4": 121e12, "NVIDIA L40S": 362e12,
}


def listed_peak(kind: str) -> float | None:
    """The data sheet's FLOP/s of a device of this kind, by the longest name that fits; None where none does."""
    names = [name for name in PEAK_FLOPS if kind.startswith(name)]
    return PEAK_FLOPS[max(names, key=len)] if names else None


def peak_flops() -> float:
    """FLOP/s that one device can do: the data sheet's, or for a device not listed (a CPU) that of a large matmul now."""
    kind = jax.devices()[0].device_kind
    return listed_peak(kind) or measured_matmul_flops() / jax.local_device_count()


def measured_matmul_flops(size: int = 1024, repeats: int = 5) -> float:
    """The rate of the fastest of a few float32 matmuls of size^3 on the first device."""
    x = jnp.ones((size, size))
    matmul = jax.jit(lambda a: a @ a)
    matmul(x).block_until_ready()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        matmul(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def encoder_flops(rows: int, length: int, tower: Mapping) -> float:
    """Forward pass of a tower's transformer over (rows, length, width): projections, MLP, attention."""
    width = tower["width"]
    mlp_dim = tower.get("mlp_dim") or 4 * width
    return rows * length * tower["depth"] * (2 * (4 * width**2 + 2 * width * mlp_dim) + 4 * length * width)


def step_flops(model: TwoTowers, batch: Mapping[str, jax.Array], objective: Objective) -> float:
    """Matmul FLOPs of one training step on the global `batch` (only its shapes count).

    The backward pass of a layer counts as two forward passes. What remat or microbatches compute again does not count:
    MFU is about useful work.
    """
    image, text = sizes(model.image), sizes(model.text)
    (count, side, _, _), (_, length) = batch["image"].shape, batch["caption"].shape
    tokens, width = (side // image["patch_size"][0]) ** 2, image["width"]
    forward = encoder_flops(count, tokens, image) + 2 * count * tokens * 3 * image["patch_size"][0] ** 2 * width
    if image.get("pool", "map") == "map":
        forward += 4 * count * tokens * width**2  # key and value of the MAP head
    forward += encoder_flops(count, length, text) + 2 * count * text["width"] * width
    pairs = 2 * width * count  # by text
    again = forward if objective.distill else 0.0   # the towers that the run started from, which are not trained
    forward += pairs * count
    if not objective.has_concepts:
        return 3 * forward + again

    if objective.embedding == "span":
        texts = batch["phrase_mask"].size
    else:
        forward += encoder_flops(*batch["phrases"].shape, text)
        texts = batch["column_id"].size
    forward += 2 * texts * text["width"] * width
    if objective.phrase > 0:
        forward += pairs * texts
    if objective.concept_attention == 0:
        return 3 * forward + again
    forward += 2 * count * tokens * width * (width + 2 * (image.get("mlp_dim") or 4 * width))  # the head on every token
    return 3 * forward + again + attention_flops(count, texts, tokens, width, objective)


def attention_flops(images: int, texts: int, tokens: int, width: int, objective: Objective) -> float:
    """Matmul FLOPs of L_xac and its gradients: as in `concepts.AttentionCosine`, and the Gram matrices there and back."""
    hops = objective.exchange.devices
    met = min(objective.max_hops or hops, hops) / hops
    return images * (met * texts * (6 * tokens * width + 4 * tokens**2) + 4 * tokens**2 * width)


def traced_flops(jaxpr: Any) -> float:
    """Matmul FLOPs that a traced program does on all devices, what remat computes again included.

    Loops count as often as they run; of branches the dearest counts.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            ((contracted, _), _), left = params["dimension_numbers"], equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * math.prod(left[i] for i in contracted)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            features = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
            total += 2 * equation.outvars[0].aval.size * kernel.size / features
        else:
            inner = [traced_flops(sub) for sub in inner_jaxprs(params)]
            times = params["length"] if name == "scan" else params["mesh"].size if name == "shard_map" else 1
            total += times * (max(inner, default=0.0) if name == "cond" else sum(inner))
    return total


def inner_jaxprs(params: Mapping[str, Any]) -> Iterator[Any]:
    """The programs that an equation runs."""
    for value in params.values():
        for each in value if isinstance(value, (tuple, list)) else (value,):
            each = getattr(each, "jaxpr", each)
            if hasattr(each, "eqns"):
                yield each
