"""What an image tower makes of each patch before it pools them: concept tokens, and where its MAP head looks."""
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from cc_jax.data.transforms import view
from cc_jax.evals.embedder import Patches, chunks
from cc_jax.models.two_towers import TwoTowers, sizes
from cc_jax.objective import pixels
from cc_jax.sharding import over_batch, replicated

BATCH = 32      # of B/16, whose tokens are 0.6 MB an image


def make(model: TwoTowers, res: int, mesh: Mesh) -> Callable[[dict, Iterable[bytes | np.ndarray]], Iterator[Patches]]:
    """The function (params, encoded image files or pixels) -> the Patches of each, compiled once."""
    height, width = sizes(model.image)["patch_size"]
    grid, rows = (res // height, res // width), -(-BATCH // mesh.size) * mesh.size

    def forward(params: dict, images: UInt8[Array, "B H W 3"]) -> tuple[Float[Array, "B K D"], Float[Array, "B n K"] | None]:
        _, _, out = model.apply({"params": params}, pixels(images), None, want_tokens=True)
        attention = out.get("img/map_attention")
        return out["concept_tokens"], None if attention is None else attention.astype("float32")

    tower = jax.jit(forward, out_shardings=replicated(mesh))

    def patches(params: dict, files: Iterable[bytes | np.ndarray]) -> Iterator[Patches]:
        images, size = (view(file, res) for file in files), None
        for batch in chunks(images, rows):
            # Few are padded to a power of two: one picture is not worth the work of a whole batch.
            size = size or min(rows, -(-2 ** (len(batch) - 1).bit_length() // mesh.size) * mesh.size)
            full = np.stack(batch + [np.zeros_like(batch[0])] * (size - len(batch)))
            tokens, attention = jax.device_get(tower(params, jax.device_put(full, over_batch(mesh))))
            for i in range(len(batch)):
                heads = None if attention is None else attention[i].reshape(-1, *grid)
                yield Patches(tokens[i].reshape(*grid, -1), heads)
    return patches
