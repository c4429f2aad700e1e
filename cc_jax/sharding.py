"""The mesh of devices, and where arrays live on it.

The mesh has three named axes, each of which may be of size 1. A batch is split over "data" and "fsdp"; parameters, with
all that a train state keeps for them, lie whole on every device of "data", and are split over "fsdp" and "tensor" as the
rules of `config.sharding` say; with the heads and the hidden units of a tower split over "tensor" its work is, too.
"""
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cc_jax.config import Config, ConfigError
from cc_jax.optim import matching, parameter_names

BATCH = ("data", "fsdp")        # the axes that a batch is split over
AXES = (*BATCH, "tensor")
RULES = ("replicate", "fsdp")


def make_mesh(axes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices, such as {"data": -1, "fsdp": 4}: -1 takes what is left, an axis that is not named has size 1.

    On TPUs each device is next to the one before, and the last next to the first, wherever the slice lets it be: what goes
    round the ring of `pairs` then crosses one link a hop, which the compiler overlaps with compute. Elsewhere neighbours
    along the last axes are neighbours in the hardware. Raises ConfigError where the sizes can't be.
    """
    devices = jax.devices() if devices is None else list(devices)
    if unknown := set(axes) - set(AXES):
        raise ConfigError(f"config.mesh={dict(axes)} has the axis {min(unknown)!r}; use some of {', '.join(AXES)}.")
    sizes = [axes.get(name, 1) for name in AXES]
    if bad := [size for size in sizes if not isinstance(size, int) or size < 1 and size != -1]:
        raise ConfigError(f"config.mesh={dict(axes)} has an axis of size {bad[0]!r}; use numbers from 1, or -1 for "
                          "the rest.")
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if -1 in sizes or math.prod(sizes) != len(devices):
        raise ConfigError(f"config.mesh={dict(axes)} does not multiply to the {len(devices)} devices there are; "
                          "leave one axis at -1 to take the rest.")
    ring = devices_in_a_ring(devices)
    placed = np.array(ring).reshape(sizes) if ring else mesh_utils.create_device_mesh(
        sizes, devices, allow_split_physical_axes=True)
    return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def platform(mesh: Mesh) -> str:
    """What the devices of a mesh are, here or not: "cpu", "gpu", "tpu"."""
    return mesh.devices.flat[0].platform


def devices_in_a_ring(devices: Sequence[jax.Device]) -> list[jax.Device] | None:
    """TPU devices along a closed path through their slice, the cores of a chip side by side; several slices one by one.

    None where they are no TPUs, or not the whole of a slice that has such a path.
    """
    if any(device.platform != "tpu" for device in devices):
        return None
    placed: dict[tuple, list] = {}
    for device in sorted(devices, key=lambda device: (getattr(device, "slice_index", 0) or 0, device.core_on_chip)):
        placed.setdefault((getattr(device, "slice_index", 0) or 0, *device.coords), []).append(device)
    ring = []
    for part in sorted({place[0] for place in placed}):
        chips = [place[1:] for place in placed if place[0] == part]
        first = [min(axis) for axis in zip(*chips, strict=True)]
        path = closed_path(tuple(max(axis) - low + 1 for axis, low in zip(zip(*chips, strict=True), first, strict=True)))
        path = [tuple(np.add(place, first).tolist()) for place in path or ()]
        if sorted(path) != sorted(chips):
            return None
        ring += [device for place in path for device in placed[(part, *place)]]
    return ring


def closed_path(sizes: tuple[int, int, int]) -> list[tuple[int, int, int]] | None:
    """Every place of a grid once, each next to the one before and the last to the first, without links round its edges.

    Down the left half of a plane line by line, up the right one; where there is depth each place is a whole line of it,
    to and fro. None where a plane's sides are odd. A line of two is a path, too, and so is one place.
    """
    columns, rows, depth = sizes
    if columns * rows == 1 or rows == 1 and columns == 2:
        plane = [(x, 0) for x in range(columns)]
    elif columns % 2 or rows % 2:
        return None
    else:
        half = columns // 2
        down = [(x, y) for y in range(rows) for x in (range(half) if y % 2 else reversed(range(half)))]
        plane = down + [(columns - 1 - x, y) for x, y in reversed(down)]
    if depth > 2 and len(plane) == 1:
        return None
    return [(x, y, z) for number, (x, y) in enumerate(plane)
            for z in (reversed(range(depth)) if number % 2 else range(depth))]


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over the batch's axes of the mesh."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def constrain(x: jax.Array, split: int | None = None, *, mesh: Mesh) -> jax.Array:
    """Keeps activations where they belong: rows over the batch's axes, dimension `split` (heads, hidden) over "tensor".

    Without it the compiler may move the rows to the parameters' parts instead of those to the rows.
    """
    spec: list = [BATCH] + [None] * (x.ndim - 1)
    if split is not None:
        if x.shape[split] % mesh.shape["tensor"]:
            raise ConfigError(f"config.mesh.tensor={mesh.shape['tensor']} does not divide dimension {split}, the heads or "
                              f"hidden units, of activations {x.shape}; use a divisor of {x.shape[split]}.")
        spec[split] = "tensor"
    return lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*spec)))


@dataclass(frozen=True)
class Rules:
    """Where parameters live: the rule of the first (pattern, rule) whose pattern matches the whole name of a parameter.

    "replicate" (as where none matches); "fsdp": the largest dimension that the axis divides is split over it, if the
    parameter has at least `min_size` numbers; or an axis or None for each of its last dimensions, as (None, "tensor").
    Of the stacked layers of a scan the leading dimension then stays whole: one rule serves both.
    """
    rules: Sequence[tuple[str, str | Sequence[str | None]]] = ()
    min_size: int = 0


def read_rules(config: Config) -> Rules:
    """The rules by the config's `sharding` block; without one all is replicated. Raises ConfigError."""
    block = config.get("sharding", {})
    rules, min_size = block.get("rules", ()), block.get("min_size", 0)
    for entry in rules:
        pattern, rule = entry if len(entry) == 2 else (None, entry)
        axes = [rule] if isinstance(rule, str) else rule
        known = RULES if isinstance(rule, str) else (*AXES, None)
        named = [axis for axis in axes if axis is not None]
        if not isinstance(pattern, str) or any(axis not in known for axis in axes) or len(named) != len(set(named)):
            raise ConfigError(f"config.sharding.rules has {entry!r}; use (pattern, rule) with a rule of {', '.join(RULES)}, "
                              f"or for each of the last dimensions None or an axis, at most once, of {', '.join(AXES)}.")
    return Rules(tuple(map(tuple, rules)), min_size)


def layout(params: Any, mesh: Mesh, rules: Rules = Rules()) -> Any:      # noqa: B008 (frozen)
    """The tree of `params` (arrays or their shapes) with the sharding of each.

    Raises ConfigError, with the names, for a pattern that matches nothing and a dimension that does not divide.
    """
    for pattern, _ in rules.rules:
        matching(params, pattern)

    def find(name: str, leaf: Any) -> NamedSharding:
        rule = next((rule for pattern, rule in rules.rules if re.fullmatch(pattern, name)), "replicate")
        if rule == "replicate":
            return replicated(mesh)
        spec = largest(name, leaf.shape, mesh, rules.min_size) if rule == "fsdp" else explicit(name, leaf.shape, mesh, rule)
        return NamedSharding(mesh, PartitionSpec(*spec))
    return jax.tree.map(find, parameter_names(params), params)


def largest(name: str, shape: tuple[int, ...], mesh: Mesh, min_size: int) -> list[str | None]:
    """The rule "fsdp" for one parameter."""
    size, spec = mesh.shape["fsdp"], [None] * len(shape)
    if size == 1 or math.prod(shape) < min_size:
        return spec
    dividing = [place for place in range(len(shape)) if shape[place] % size == 0]
    if not dividing:
        raise ConfigError(f"config.sharding: no dimension of {name} {shape} divides over the {size} devices of axis 'fsdp'; "
                          f"use another config.mesh.fsdp, or add the rule ({name!r}, 'replicate') before.")
    spec[max(dividing, key=lambda place: shape[place])] = "fsdp"
    return spec


def explicit(name: str, shape: tuple[int, ...], mesh: Mesh, rule: Sequence[str | None]) -> list[str | None]:
    """The rule that names an axis for each of the last dimensions of one parameter."""
    if len(rule) > len(shape):
        raise ConfigError(f"config.sharding: the rule {tuple(rule)} has more dimensions than {name} {shape}.")
    spec = [None] * (len(shape) - len(rule)) + list(rule)
    for length, axis in zip(shape, spec, strict=True):
        if axis is not None and length % mesh.shape[axis]:
            raise ConfigError(f"config.sharding: {length} of {name} {shape} does not divide over the {mesh.shape[axis]} "
                              f"devices of axis {axis!r}, as the rule {tuple(rule)} asks; use another config.mesh.{axis}, "
                              "or add a rule before.")
    return spec


def of_state(state: Any, parameters: Any, mesh: Mesh) -> Any:
    """The tree of a train state with the sharding of each array: that of the parameter whose name its place ends with (its
    moments, its average), else replicated. `parameters`: from `layout`."""
    by_name = dict(zip(*map(jax.tree.leaves, (parameter_names(parameters), parameters)), strict=True))

    def find(path: tuple, _: Any) -> NamedSharding:
        keys = list(itertools.takewhile(lambda key: isinstance(key, jax.tree_util.DictKey), reversed(path)))
        return by_name.get("/".join(str(key.key) for key in reversed(keys)), replicated(mesh))
    return jax.tree_util.tree_map_with_path(find, state)


def check_batch_size(batch_size: int, mesh: Mesh, microbatches: int = 1) -> None:
    """Raises ConfigError where a global batch does not split evenly over the mesh, and each part into microbatches."""
    if microbatches < 1:
        raise ConfigError(f"microbatches={microbatches}; it must be at least 1.")
    parts = mesh.size * microbatches
    if batch_size < 1 or batch_size % parts:
        into = f"{microbatches} microbatches on each of " if microbatches > 1 else ""
        raise ConfigError(f"batch_size={batch_size} does not divide over {into}{mesh.size} devices on mesh axes "
                          f"{mesh.axis_names}; use a multiple of {parts}.")


class Part(NamedTuple):
    """Which of the batch's equal parts this process reads: number `index` of `count`, on `devices` devices.

    Processes that share rows, where "tensor" reaches across them, read the same part.
    """
    index: int
    count: int
    devices: int


def part_of_batch(mesh: Mesh, process: int | None = None) -> Part:
    """The part that a process (this one where None) reads, by the rows that its devices hold."""
    process = jax.process_index() if process is None else process
    held: dict[int, set[int]] = {}
    rows = mesh.devices.reshape(-1, mesh.shape["tensor"])
    for row, holders in enumerate(rows):
        for device in holders:
            held.setdefault(device.process_index, set()).add(row)
    parts = sorted(set(map(frozenset, held.values())), key=min)
    if sum(map(len, parts)) != len(rows) or len(set(map(len, parts))) != 1:
        raise ConfigError(f"config.mesh={dict(mesh.shape)}: processes share some rows of a batch but not all; let "
                          "config.mesh.tensor divide the devices of a process, or be a multiple of them.")
    return Part(parts.index(frozenset(held[process])), len(parts), mesh.size // len(parts))


def placed(batches: Iterator[Mapping[str, np.ndarray]], mesh: Mesh) -> Iterator[dict[str, jax.Array]]:
    """`place` of each batch, in order, one ahead: while a batch is used the next is on its way to the devices.

    Closing it closes `batches`.
    """
    try:
        ready = None
        for batch in batches:
            coming = place(batch, mesh)
            if ready is not None:
                yield ready
            ready = coming
        if ready is not None:
            yield ready
    finally:
        batches.close()


def place(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's part of a batch -> global arrays split over the mesh."""
    sharding = over_batch(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}
