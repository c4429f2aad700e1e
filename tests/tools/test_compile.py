"""Compiling for slices that are not here: what is read off HLO, what is said of it, what is refused."""
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from cc_jax import build, flops
from cc_jax.config import Config, ConfigError
from cc_jax.tools import compile as compile_tool
from cc_jax.tools import hlo
from configs import shapes_cc, siglip_b16_cc

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None,
                                  reason="libtpu is not installed: pip install -e '.[tpu]'; .ci/run does so beside .venv")
PROGRAM = """
import jax, jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, PartitionSpec as P
mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
def local(x, w):
    def hop(carry, _):
        moving, total = carry
        return (lax.ppermute(moving, "a", [(i, (i + 1) % 4) for i in range(4)]), total + x @ moving.T @ moving), None
    (_, total), _ = lax.scan(hop, (x, jnp.zeros_like(x)), None, length=5)
    every = lax.all_gather(w, "b", tiled=True)
    return total + lax.psum(total.sum(), ("a", "b")), lax.psum_scatter(2 * every, "b", tiled=True)
both = (P(("a", "b")),) * 2
f = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=both, out_specs=both, check_vma=False))
print(f.lower(jnp.zeros((32, 16)), jnp.zeros(64)).compile().as_text())
"""
# Of a TPU's compiler: a loop whose bound is in its condition, a permute that overlaps, what lives on the chip as S(1), a
# fusion that takes a slice of a stack and one that writes a slice into another.
TPU = (Path(__file__).parent / "tpu.hlo").read_text()


def test_collectives_of_a_program_for_eight_devices_count_as_often_as_they_run():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=True,
                          env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"})
    found = hlo.collectives(done.stdout, 8)
    assert found == {
        "collective-permute": (5, 5, 5 * 4 * 16 * 4, 5 * 4 * 16 * 4),       # 4 rows of 16 float32, each hop
        "all-gather": (1, 1, 8 * 4, 8 * 4),                                 # 8 numbers to the one other
        "all-reduce": (1, 1, 4 * 2 * 7 / 8, 4 * 2 * 7 / 8),                 # one number among 8
        "reduce-scatter": (1, 1, 16 * 4 / 2, 16 * 4 / 2)}                   # half of 16 numbers


def test_a_tpus_program_says_what_overlaps_and_what_main_memory_sees():
    assert hlo.collectives(TPU, 8) == {"collective-permute": (7, 0, 7 * 4096, 0), "all-reduce": (1, 1, 4096, 4096)}
    a_slice_read, a_slice_written, the_sum_written = 8 * 128 * 2, 8 * 128 * 4, 8 * 128 * 4
    assert hlo.traffic(TPU) == 7 * (a_slice_read + a_slice_written + 4) + the_sum_written       # 4: the loop's counter


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        hlo.parse("%add.1 = f32[] add(%a, %b)")


def config(**changes):
    return Config(shapes_cc.get_config("data=nowhere,runlocal").to_dict() | {"mesh": {"data": -1}} | changes)


def test_a_config_without_its_dataset_is_examined(monkeypatch):
    """For the CPU that is here, as if it were a chip of these peaks."""
    chip = flops.Chip(peak=1e12, hbm=2**30, hbm_rate=1e11, ici_rate=4e10, links=4)
    monkeypatch.setattr(flops, "CHIPS", {jax.devices()[0].device_kind: chip})
    found = compile_tool.examine(config(), jax.devices())
    memory, roof = found["memory"], found["roofline"]
    assert memory["optimiser"] == pytest.approx(2 * memory["parameters"], rel=1e-3) and memory["copies"] == 0
    assert memory["total"] >= sum(memory[name] for name in ("parameters", "optimiser", "temporaries"))
    assert found["flops"]["done"] == pytest.approx(found["flops"]["step"], rel=0.1)         # nothing is computed again
    assert roof["step_seconds"] == max(roof["seconds"].values()) and roof["bound"] in roof["seconds"]
    assert roof["mfu"] == pytest.approx(found["flops"]["step"] / roof["step_seconds"] / 1e12)
    shown = compile_tool.table(json.loads(json.dumps(found)))
    assert "memory in all" in shown and "of 1.07 GB" in shown and f"bound by {roof['bound']}" in shown

    monkeypatch.setattr(flops, "CHIPS", {jax.devices()[0].device_kind: chip._replace(hbm=10**6)})
    with pytest.raises(compile_tool.TooLarge, match="of the 1 MB of a device's memory; use a smaller batch_size"):
        compile_tool.examine(config(), jax.devices())


def test_what_waits_for_the_links_adds_to_a_step():
    chip = flops.Chip(peak=1e12, hbm=1, hbm_rate=1e9, ici_rate=4e9, links=4)
    roof = compile_tool.roofline({"step": 2e12, "done": 3e12}, 2e9, {
        "collective-permute": hlo.Collective(9, 0, 1e9, 0.0), "all-reduce": hlo.Collective(2, 1, 4e9, 2e9)}, chip)
    assert roof["seconds"] == {"matmuls": 3.0, "memory": 2.0, "links": 2.0}
    assert roof["waiting"] == 0.5 and roof["step_seconds"] == 3.5 and roof["bound"] == "matmuls"
    assert roof["mfu"] == pytest.approx(2 / 3.5)


@pytest.mark.parametrize(("changes", "message"), [
    ({"mesh": {"data": 3}}, "does not multiply to the 1 devices"),
    ({"batch_size": 5, "microbatches": 2}, "batch_size=5 does not divide over 2 microbatches"),
    ({"checked": True}, "config.checked=True stops on the host")])
def test_a_config_that_does_not_fit_is_refused(monkeypatch, changes, message):
    monkeypatch.setattr(flops, "CHIPS", {jax.devices()[0].device_kind: flops.CHIPS["TPU v4"]})
    with pytest.raises(ConfigError, match=message):
        compile_tool.examine(config(**changes), jax.devices())


def test_a_chip_without_numbers_is_refused():
    with pytest.raises(ConfigError, match="no peak numbers of a 'TPU v1' are known; there are those of TPU v4, TPU v5 lite"):
        compile_tool.examine(config(), [SimpleNamespace(device_kind="TPU v1")])


def test_without_libtpu_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="libtpu.*is not installed; run: pip install"):
        compile_tool.slice_devices("v5e:2x2")


@needs_libtpu
def test_the_tpus_compiler_compiles_a_small_slice_and_names_an_unknown_one(command, tmp_path):
    known = ("--config", "configs/shapes_cc.py:runlocal", "--topology")
    done = command("cc_jax.tools.compile", *known, "v5e:2x2", "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["devices"] == 4 and "4 x TPU v5 lite" in done.stdout
    assert found["collectives"]["collective-permute"]["synchronous"] == 0
    assert "--topology=v5e:3x3 is not known" in command("cc_jax.tools.compile", *known, "v5e:3x3", fails=True).stderr


def test_flops_as_done_hold_what_remat_computes_again():
    """Of a layer's forward pass all but the MLP's second product, two ninths more; of "projections" the attention alone."""
    def done(remat):
        values = siglip_b16_cc.get_config("batch_size=8").to_dict()
        values["model"]["remat"] = remat
        one = Config(values)
        made = build.build(one, build.make_mesh(one), build.length_without_data(one))
        return flops.traced_flops(made.update.trace(made.state, made.batch).jaxpr)
    full, projections, none = map(done, ("full", "projections", "none"))
    assert full / none == pytest.approx(1 + 2 / 9, abs=0.02) and 1.005 < projections / none < 1.04
