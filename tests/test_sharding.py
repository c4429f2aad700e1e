"""The mesh and the rules; training on several meshes gives what one device gives, with the state split as the rules say."""
import collections
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from cc_jax import optim, sharding
from cc_jax.config import Config, ConfigError
from cc_jax.models.two_towers import TwoTowers
from cc_jax.sharding import Rules
from cc_jax.step import TrainState
from configs.common import SHARDING

ROOT = Path(__file__).parent.parent
MESHES = ("data 8", "data 4 x fsdp 2", "data 2 x fsdp 2 x tensor 2")
MESH = AbstractMesh((2, 4, 2), sharding.AXES)


@pytest.fixture(scope="module")
def across(tmp_path_factory):
    """What across_meshes.py found on eight CPU devices."""
    path = tmp_path_factory.mktemp("across") / "results.json"
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"  # fewer seconds to compile
    subprocess.run([sys.executable, "tests/across_meshes.py", str(path)], cwd=ROOT, check=True, timeout=1800,
                   env=os.environ | {"XLA_FLAGS": flags})
    return json.loads(path.read_text())


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, np.float32)


def tower():
    """Names and shapes as of a tower with its layers apart, and of one with them stacked."""
    block = {"query": {"kernel": shape(64, 4, 16), "bias": shape(4, 16)}, "out": {"kernel": shape(4, 16, 64)},
             "Dense_0": {"kernel": shape(64, 128), "bias": shape(128)}, "Dense_1": {"kernel": shape(128, 64)}}
    stacked = jax.tree.map(lambda x: shape(12, *x.shape), block)
    image = {"block_0": block, "embedding": {"kernel": shape(4, 4, 3, 64)}}
    return {"img": image, "txt": {"blocks": stacked}, "t": shape(1)}


def specs(layout):
    return {name: x.spec for name, x in zip(*map(jax.tree.leaves, (optim.parameter_names(layout), layout)), strict=True)}


@pytest.mark.parametrize("mesh", [*MESHES, "fsdp 2 x tensor 2"])
def test_ten_steps_on_any_mesh_have_the_metrics_of_one_device(across, mesh):
    """The last with microbatches, and all texts gathered."""
    lines, wanted = across[mesh]["losses"], across["1"]["losses"]
    assert across[mesh]["first"] == across["1"]["first"]
    assert len(lines) == 10 and wanted[-1]["loss"] < 0.9 * wanted[0]["loss"]
    for line, expected in zip(lines, wanted, strict=True):
        assert line == pytest.approx(expected, rel=1e-4, abs=1e-6) and line["phrases/overflow"] == 0
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-5)


@pytest.mark.parametrize(("mesh", "most"), [("data 8", 1), ("data 4 x fsdp 2", 0.55), ("data 2 x fsdp 2 x tensor 2", 0.36)])
def test_a_device_holds_its_share_of_all_that_the_state_keeps(across, mesh, most):
    for kept in ("params", "opt_state", "average"):
        assert across[mesh]["share"][kept] <= most, kept
    assert mesh != "data 8" or across[mesh]["share"]["params"] == 1


def test_shards_are_those_of_the_rules(across):
    shards = across["data 2 x fsdp 2 x tensor 2"]["shards"]
    block = "img/Transformer/encoderblock_0/"
    assert shards[f"{block}MultiHeadDotProductAttention_0/query/kernel"] == [16, 2, 8]          # of (32, 4, 8)
    assert shards[f"{block}MlpBlock_0/Dense_1/kernel"] == [32, 16]                              # of (64, 32)
    assert shards["txt/Embed_0/embedding"] == [32, 32]                                          # of (64, 32)
    assert shards[f"{block}LayerNorm_0/scale"] == [32] and shards["t"] == [1]                # small ones stay whole


def test_activations_stay_with_their_rows_and_heads(across):
    """Of 32 images with 4 tokens of width 32 and 64 hidden units no device holds more than its part."""
    shapes = {mesh: set(re.findall(r"f32\[([\d,]+)\]", across[mesh]["hlo"])) for mesh in MESHES}
    assert "4,4,32" in shapes["data 4 x fsdp 2"] and "8,4,32" in shapes["data 2 x fsdp 2 x tensor 2"]
    assert not any(re.match(r"(32|16),4,(32|64)$", found) for of_mesh in shapes.values() for found in of_mesh)
    assert "8,4,64" not in shapes["data 2 x fsdp 2 x tensor 2"]


def test_the_first_rule_that_matches_says_where_a_parameter_lives():
    found = specs(sharding.layout(tower(), MESH, Rules(SHARDING, min_size=1000)))
    assert found["img/block_0/query/kernel"] == PartitionSpec("fsdp", "tensor", None)
    assert found["txt/blocks/query/kernel"] == PartitionSpec(None, "fsdp", "tensor", None)
    assert found["txt/blocks/out/kernel"] == PartitionSpec(None, "tensor", None, "fsdp")
    assert found["img/block_0/Dense_0/bias"] == PartitionSpec("tensor")
    assert found["img/embedding/kernel"] == PartitionSpec(None, None, None, "fsdp")     # the largest that 4 divides
    assert found["t"] == PartitionSpec(None)                                            # too small
    assert set(specs(sharding.layout(tower(), MESH)).values()) == {PartitionSpec()}
    one = Rules(((".*block_0.*", "replicate"), (".*", "fsdp")))
    smaller = {"img": tower()["img"]}
    assert specs(sharding.layout(smaller, MESH, one))["img/block_0/query/kernel"] == PartitionSpec()


def test_what_the_state_keeps_for_a_parameter_lies_where_the_parameter_does():
    params = {"img": {"kernel": shape(64, 32)}, "txt": {"kernel": shape(64, 8), "bias": shape(8)}}
    optimiser, _ = optim.make(Config({"lr": 0.1, "clip_norm": 1.0, "lr_mults": [("img/.*", 0.0)]}), params, 10)
    state = TrainState(shape(), params, jax.eval_shape(optimiser.init, params), average=params)
    layout = sharding.layout(params, MESH, Rules(((".*/kernel", ("fsdp", "tensor")),)))
    found = sharding.of_state(state, layout, MESH)
    assert found.params == found.average == layout and found.step.spec == PartitionSpec()
    moments = [x for x in jax.tree.leaves(found.opt_state, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState))
               if isinstance(x, optax.ScaleByAdamState)]
    assert len(moments) == 1 and moments[0].mu["txt"] == moments[0].nu["txt"] == layout["txt"]
    assert moments[0].count.spec == PartitionSpec() and layout["txt"]["kernel"].spec == PartitionSpec("fsdp", "tensor")


@pytest.mark.parametrize("count", [0, 1, 5])
def test_batches_are_placed_in_their_order_one_ahead_of_the_one_in_use(count):
    read = []

    def batches():
        for number in range(count):
            read.append(number)
            yield {"x": np.full(2, number)}
    used = []
    for batch in sharding.placed(batches(), sharding.make_mesh({"data": 1})):
        used.append(int(batch["x"][0]))
        assert read[-1] == min(used[-1] + 1, count - 1)
    assert used == read == list(range(count))


def test_placed_batches_that_are_closed_close_their_source():
    closed = []

    def batches():
        try:
            while True:
                yield {"x": np.zeros(2)}
        finally:
            closed.append(True)
    placed = sharding.placed(batches(), sharding.make_mesh({"data": 1}))
    next(placed)
    placed.close()
    assert closed == [True]


@pytest.mark.parametrize(("rules", "message"), [
    (("img/.*/kernels", "fsdp"), "'img/.*/kernels' matches none of the"),
    ((".*/query/bias", ("fsdp", None, None, None)), r"\('fsdp', None, None, None\) has more dimensions than .*query/bias"),
    ((".*embedding/kernel", ("fsdp", None)),
     r"3 of img/embedding/kernel \(4, 4, 3, 64\) does not divide over the 4 devices of axis 'fsdp'"),
    (("t", "fsdp"), r"no dimension of t \(1,\) divides over the 4 devices of axis 'fsdp'")])
def test_a_rule_that_does_not_fit_is_refused_with_the_names(rules, message):
    with pytest.raises(ConfigError, match=message):
        sharding.layout(tower(), MESH, Rules((rules,)))


@pytest.mark.parametrize("rule", ["fsd", ("tensor", "tensor"), ("model", None)])
def test_a_rule_that_can_not_be_is_refused(rule):
    with pytest.raises(ConfigError, match=re.escape(f"config.sharding.rules has ('.*', {rule!r})")):
        sharding.read_rules(Config({"sharding": {"rules": [(".*", rule)]}}))
    with pytest.raises(ConfigError, match="config.sharding.rules has 'fsdp'"):
        sharding.read_rules(Config({"sharding": {"rules": ["fsdp"]}}))


@pytest.mark.parametrize(("axes", "message"), [
    ({"data": -1, "model": 2}, "has the axis 'model'; use some of data, fsdp, tensor"),
    ({"data": 0}, "an axis of size 0; use numbers from 1, or -1"), ({"data": "8"}, "an axis of size '8'"),
    ({"data": -1, "fsdp": -1}, "does not multiply to the 1 devices"),
    ({"data": -1, "tensor": 2}, "does not multiply to the 1 devices"),
    ({"fsdp": 2}, "does not multiply to the 1 devices")])
def test_a_mesh_that_can_not_be_is_refused(axes, message):
    with pytest.raises(ConfigError, match=message):
        sharding.make_mesh(axes)


@pytest.mark.parametrize(("size", "microbatches", "message"), [
    (8, 1, r"batch_size=8 does not divide over 16 devices on mesh axes \('data', 'fsdp', 'tensor'\); use a multiple of 16"),
    (40, 3, "batch_size=40 does not divide over 3 microbatches on each of 16 devices.*; use a multiple of 48"),
    (48, 0, "microbatches=0; it must be at least 1")])
def test_a_batch_too_small_for_the_mesh_is_refused(size, microbatches, message):
    with pytest.raises(ConfigError, match=message):
        sharding.check_batch_size(size, MESH, microbatches)


def test_the_towers_say_where_each_of_their_activations_lives():
    """Of 4 tokens of an image, the head's 1 probe, and 12 of a text, and which dimension is split."""
    found, sizes = collections.Counter(), dict(width=32, depth=1, mlp_dim=64, num_heads=4)

    def constrain(x, split=None):
        found[x.shape[1:], split] += 1
        return x
    model = TwoTowers(image=dict(patch_size=(8, 8), **sizes), text=dict(vocab_size=64, length=12, **sizes))
    inputs = np.zeros((8, 16, 16, 3)), np.zeros((8, 12), int)
    params = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    jax.eval_shape(lambda params: model.clone(constrain=constrain).apply(params, *inputs, want_tokens=True), params)
    assert found == {
        ((4, 32), None): 4, ((1, 32), None): 1, ((12, 32), None): 3,        # states, the last 4 the concept tokens
        ((4, 64), 2): 2, ((1, 64), 2): 1, ((12, 64), 2): 1,                 # hidden units
        ((4, 4, 8), 2): 5, ((1, 4, 8), 2): 1, ((12, 4, 8), 2): 3}           # heads of queries, keys, values


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="config.mesh.tensor=2 does not divide dimension 2.*use a divisor of 3"):
        sharding.constrain(np.zeros((8, 4, 3, 8)), 2, mesh=MESH)


def mesh_of(processes, data, fsdp, tensor):
    """A mesh over `processes` equal processes, as far as `part_of_batch` looks at it."""
    count = data * fsdp * tensor
    devices = [SimpleNamespace(process_index=i * processes // count) for i in range(count)]
    return SimpleNamespace(devices=np.array(devices, object).reshape(data, fsdp, tensor), size=count,
                           shape=dict(zip(sharding.AXES, (data, fsdp, tensor), strict=True)))


@pytest.mark.parametrize(("mesh", "parts", "count", "devices"), [
    ((4, 8, 1, 1), [0, 1, 2, 3], 4, 2), ((4, 2, 2, 2), [0, 1, 2, 3], 4, 2), ((4, 2, 1, 4), [0, 0, 1, 1], 2, 4),
    ((2, 1, 1, 2), [0, 0], 1, 2), ((1, 2, 2, 2), [0], 1, 8)])
def test_processes_that_share_rows_read_the_same_part_of_a_batch(mesh, parts, count, devices):
    found = [sharding.part_of_batch(mesh_of(*mesh), process) for process in range(mesh[0])]
    assert found == [(part, count, devices) for part in parts]


def test_a_mesh_whose_processes_share_some_rows_is_refused():
    with pytest.raises(ConfigError, match="share some rows of a batch but not all"):
        sharding.part_of_batch(mesh_of(3, 2, 1, 3), 0)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 1, 2), (2, 1, 1), (2, 2, 1), (2, 4, 1), (4, 4, 1), (8, 8, 1), (16, 16, 1),
                                   (2, 2, 2), (4, 4, 4), (4, 4, 8), (8, 8, 8)])
def test_the_path_through_a_slice_is_closed_and_crosses_one_link_a_step(sizes):
    path = sharding.closed_path(sizes)
    assert sorted(path) == sorted(np.ndindex(*sizes))
    steps = np.abs(np.array(path) - np.roll(path, 1, axis=0)).sum(axis=1)
    assert set(steps) <= {1} or len(path) == 1


def tpu(x, y, z=0, core=0, part=0):
    return SimpleNamespace(platform="tpu", coords=(x, y, z), core_on_chip=core, slice_index=part)


def test_devices_of_a_tpu_slice_are_in_a_ring():
    chips = [tpu(x + 4, y, core=core) for core in range(2) for y in range(4) for x in range(2)]     # not from 0 on
    ring = sharding.devices_in_a_ring(chips)
    assert sorted(map(id, ring)) == sorted(map(id, chips))
    assert [chip.coords for chip in ring[::2]] == [chip.coords for chip in ring[1::2]]
    assert [chip.core_on_chip for chip in ring] == [0, 1] * 8
    two_slices = [tpu(x, y, part=part) for x in range(2) for y in range(2) for part in range(2)]
    assert [chip.slice_index for chip in sharding.devices_in_a_ring(two_slices)] == [0] * 4 + [1] * 4


@pytest.mark.parametrize("devices", [[tpu(0, 0), tpu(1, 0), tpu(0, 1)], [tpu(x, y) for x in range(3) for y in range(3)],
                                     [SimpleNamespace(platform="gpu", coords=(0, 0, 0))]])
def test_devices_without_such_a_path_stay_as_jax_orders_them(devices):
    assert sharding.devices_in_a_ring(devices) is None
