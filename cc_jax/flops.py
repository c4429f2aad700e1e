"""FLOPs of a training step, counted from the sizes, and the peak rate of the devices: together, the MFU."""
import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from cc_jax.models.two_towers import TwoTowers, sizes

# Dense bfloat16 FLOP/s of one JAX device, from the vendors' data sheets (TPU: per chip, v2 and v3 per core).
PEAK_FLOPS = {
    "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5e": 197e12, "TPU v5": 459e12, "TPU v5p": 459e12,
    "TPU v6 lite": 918e12, "TPU v6e": 918e12, "NVIDIA A100": 312e12, "NVIDIA H100": 989e12, "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12, "NVIDIA L40S": 362e12,
}


def peak_flops() -> float:
    """FLOP/s that one device can do: the data sheet's, or for a device not listed (a CPU) that of a large matmul now."""
    kind = jax.devices()[0].device_kind
    listed = [peak for name, peak in PEAK_FLOPS.items() if kind.startswith(name)]
    return listed[-1] if listed else measured_matmul_flops() / jax.local_device_count()


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


def encoder_flops(rows: int, length: int, width: int, depth: int, mlp_dim: int | None) -> float:
    """Forward pass of a transformer over (rows, length, width): projections, MLP, attention."""
    mlp_dim = mlp_dim or 4 * width
    per_token = 2 * (4 * width**2 + 2 * width * mlp_dim) + 4 * length * width
    return rows * length * depth * per_token


def step_flops(model: TwoTowers, batch: Mapping[str, jax.Array], weights: Mapping[str, float]) -> float:
    """Matmul FLOPs of one training step on the global `batch`; the backward pass counts as two forward passes.

    What remat computes again does not count: MFU is about useful work.
    """
    image, text = sizes(model.image), sizes(model.text)
    (count, side, _, _), (rows, length) = batch["image"].shape, batch["caption"].shape
    tokens, width = (side // image["patch_size"][0]) ** 2, image["width"]
    encoder = lambda tower, rows, length: encoder_flops(rows, length, tower["width"], tower["depth"],
                                                        tower.get("mlp_dim"))
    forward = encoder(image, count, tokens) + 2 * count * tokens * 3 * image["patch_size"][0] ** 2 * width
    if image.get("pool", "map") == "map":
        forward += 4 * count * tokens * width**2  # key and value of the MAP head
    forward += encoder(text, rows, length) + 2 * count * rows * width
    if weights["phrase"] > 0 or weights["concept_attention"] > 0:
        _, slots, length = batch["phrases"].shape
        phrases = count * slots
        forward += encoder(text, phrases, length) + 2 * count * phrases * width
        if weights["concept_attention"] > 0:
            mlp_dim = image.get("mlp_dim") or 4 * width
            forward += 2 * count * tokens * width * (width + 2 * mlp_dim + tokens)  # tokens of the head, their Gram
            forward += 2 * count * phrases * tokens * (width + tokens)
    return 3 * forward
