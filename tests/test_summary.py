"""The table on a run's start, against sizes counted by hand."""
import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cc_jax.summary import held, size, summary


def test_parts_are_counted_two_names_deep_and_memory_by_device():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    put = lambda *shape: jax.device_put(np.zeros(shape, np.float32), NamedSharding(mesh, P()))
    image = {"embedding": {"kernel": put(10, 20), "bias": put(20)}, "Transformer": {"a": {"b": put(7), "c": put(3)}}}
    params = {"img": image, "t": put(1)}
    state = {"params": params, "mu": jax.tree.map(np.copy, params), "step": put()}
    text = summary(params, state, 2e12, 64, 1e12)
    lines = {line.split("  ")[0].strip(): line.split() for line in text.splitlines()}
    assert lines["img/embedding"][1:] == ["220", "880", "B"] and lines["img/Transformer"][1:] == ["10", "40", "B"]
    assert lines["t"][1] == "1" and lines["all"][1:] == ["231", "924", "B"]
    assert lines["optimiser, copies"][-2:] == ["928", "B"]
    assert "64 images: 2 TFLOP" in text and "2 s at the least" in text


def test_what_a_device_holds_of_a_sharded_array():
    class Halved:
        """As on a mesh of two."""
        shape, dtype = (8, 3), np.dtype(np.float32)
    assert held(Halved()) == 96
    assert (size(999), size(1_234_567), size(2e9)) == ("999 B", "1.23 MB", "2 GB")
