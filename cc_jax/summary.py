"""What a run consists of, as a table on its start: parameters by part, memory of a device, FLOPs of a step."""
import math
from collections.abc import Mapping
from typing import Any

import jax

from cc_jax.progress import grouped


def summary(params: Mapping, state: Any, flops_per_step: float, batch_size: int, peak_flops: float) -> str:
    """A table of a run.

    Args:
      params: the parameters, two levels of whose names are the rows.
      state: the whole train state; what it holds beside them is the optimiser's, and copies of them.
      flops_per_step: of all devices.
      peak_flops: FLOP/s of all devices.
    """
    lines, counts = [], {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        part = "/".join(key.key for key in path[:2])
        count, memory = counts.get(part, (0, 0))
        counts[part] = (count + leaf.size, memory + held(leaf))
    rows = [(part, grouped(count), size(memory)) for part, (count, memory) in counts.items()]
    total, all_held = sum(leaf.size for leaf in jax.tree.leaves(params)), sum(map(held, jax.tree.leaves(params)))
    rows += [("all", grouped(total), size(all_held)),
             ("optimiser, copies", "", size(sum(map(held, jax.tree.leaves(state))) - all_held))]
    head = ("part", "parameters", "a device holds")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(3)]
    for part, count, memory in (head, *rows):
        lines.append(f"{part:<{widths[0]}}  {count:>{widths[1]}}  {memory:>{widths[2]}}")
    lines.append(f"a step of {grouped(batch_size)} images: {flops_per_step / 1e12:.3g} TFLOP; {jax.device_count()} x "
                 f"{jax.devices()[0].device_kind} at {peak_flops / 1e12:.3g} TFLOP/s in all: "
                 f"{flops_per_step / peak_flops:.3g} s at the least")
    return "\n".join(lines)


def held(leaf: jax.Array | jax.ShapeDtypeStruct) -> int:
    """Bytes that one device holds of an array, or would hold of one of this shape."""
    shape = leaf.sharding.shard_shape(leaf.shape) if getattr(leaf, "sharding", None) else leaf.shape
    return math.prod(shape) * leaf.dtype.itemsize


def size(count: int) -> str:
    """1234567 -> "1.23 MB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} B"
