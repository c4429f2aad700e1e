"""The mesh of devices, and where arrays live on it."""
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cc_jax.config import ConfigError


def make_mesh(axes: Mapping[str, int]) -> Mesh:
    """A mesh over all devices with the named axes, such as {"data": -1}; one size may be -1, "what is left"."""
    devices, sizes = jax.devices(), list(axes.values())
    known = int(np.prod([size for size in sizes if size != -1]))
    if sizes.count(-1) == 1 and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if -1 in sizes or np.prod(sizes) != len(devices):
        raise ConfigError(f"config.mesh={dict(axes)} does not multiply to the {len(devices)} devices there are; "
                          "leave one axis at -1 to take the rest.")
    return jax.make_mesh(sizes, tuple(axes), devices=devices, axis_types=(AxisType.Auto,) * len(sizes))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over all devices."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def check_batch_size(batch_size: int, mesh: Mesh, microbatches: int = 1) -> None:
    """Raises ConfigError where a global batch does not split evenly over the mesh, and each part into microbatches."""
    if microbatches < 1:
        raise ConfigError(f"microbatches={microbatches}; it must be at least 1.")
    parts = mesh.size * microbatches
    if batch_size < 1 or batch_size % parts:
        into = f"{microbatches} microbatches on each of " if microbatches > 1 else ""
        raise ConfigError(f"batch_size={batch_size} does not divide over {into}{mesh.size} devices on mesh axes "
                          f"{mesh.axis_names}; use a multiple of {parts}.")


def place(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows of a batch -> global arrays split over the mesh."""
    sharding = over_batch(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}
