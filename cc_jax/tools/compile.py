"""Compiles a config's real update for a TPU slice, on any machine, and says what it takes there. It needs no dataset.

pip install -e '.[tpu]'
python -m cc_jax.tools.compile --config configs/siglip_b16_cc.py --topology v5e:16x16
python -m cc_jax.tools.compile --config configs/siglip_b16.py:batch_size=8192 --topology v4:4x4x4 --config.mesh.fsdp=4

Numbers are per device, which is a chip of all TPUs but TPU7x. Memory is the compiler's; a program that does not fit is an
error. FLOPs are those of the step, and as done, what remat computes again included. The time of a step is at least the
longest of what the matmuls, the main memory and the links between chips take at their peak rates. `--json FILE` keeps all.
"""
import importlib.util
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from absl import app, flags, logging
from jax.experimental import topologies

from cc_jax import build, config_flag, flops
from cc_jax.config import Config, ConfigError
from cc_jax.progress import grouped
from cc_jax.summary import held, size
from cc_jax.tools import hlo

EXAMPLES = "v5e:16x16, v6e:8x8, v4:4x4x4, v5p:4x4x4, tpu7x:2x2x1"
SMALLER = ("use a smaller batch_size, config.model.remat=full, config.microbatches, or config.mesh.fsdp, which splits the "
           "parameters")


class TooLarge(Exception):
    """The program does not fit into a device's memory."""


def slice_devices(topology: str) -> Sequence[jax.Device]:
    """The devices of a slice that need not be here. Raises ConfigError for one that can't be, or without the compiler."""
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError("libtpu, the compiler for TPUs, is not installed; run: pip install -e '.[tpu]'")
    # One device a chip, as on real slices.
    options = {"chip_config_name": "megacore"} if re.match("v4:|v5p:", topology) else {}
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"--topology={topology} is not known ({reason}); use a slice such as {EXAMPLES}.") from error


def examine(config: Config, devices: Sequence[jax.Device]) -> dict:
    """Compiles the config's update for the devices: what it takes of each, times in seconds, sizes in bytes.

    Raises ConfigError for what does not fit together, TooLarge for what does not fit into memory.
    """
    kind = devices[0].device_kind
    if kind not in flops.CHIPS:
        raise ConfigError(f"no peak numbers of a {kind!r} are known; there are those of {', '.join(flops.CHIPS)}.")
    made = build.build(config, build.make_mesh(config, devices), build.length_without_data(config))
    if made.objective.checked:
        raise ConfigError("config.checked=True stops on the host, for which nothing is compiled here; set it to False.")
    traced, start = made.update.trace(made.state, made.batch), time.perf_counter()
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if used := re.search(r"Used (\S+) of (\S+) hbm", str(error)):
            raise TooLarge(f"needs {used[1]}iB of the {used[2]}iB of a device's memory; {SMALLER}.") from error
        raise
    seconds = time.perf_counter() - start
    count = len(devices)
    memory = memory_of(made, compiled.memory_analysis(), flops.CHIPS[kind].hbm)
    work = {"step": flops.step_flops(made.model, made.batch, made.objective) / count,
            "done": flops.traced_flops(traced.jaxpr) / count}
    text = compiled.as_text()
    collectives = hlo.collectives(text, count)
    return {"device": kind, "devices": count, "mesh": dict(made.mesh.shape), "batch_size": config.batch_size,
            "compile_seconds": seconds, "memory": memory, "flops": work,
            "collectives": {name: of_kind._asdict() for name, of_kind in sorted(collectives.items())},
            "roofline": roofline(work, hlo.traffic(text), collectives, flops.CHIPS[kind])}


def memory_of(made: build.Built, found, limit: int) -> dict[str, int]:
    """What a device holds, by `memory_analysis`. Raises TooLarge."""
    total = lambda tree: sum(map(held, jax.tree.leaves(tree)))
    memory = {"parameters": total(made.state.params), "optimiser": total(made.state.opt_state),
              "copies": total((made.state.average, made.state.start)), "batch": total(made.batch),
              "temporaries": found.temp_size_in_bytes, "program": found.generated_code_size_in_bytes}
    memory |= {"total": found.argument_size_in_bytes + found.temp_size_in_bytes + found.generated_code_size_in_bytes
               + found.output_size_in_bytes - found.alias_size_in_bytes, "limit": limit}
    if memory["total"] > limit:
        raise TooLarge(f"needs {size(memory['total'])} of the {size(limit)} of a device's memory; {SMALLER}.")
    return memory


def roofline(work: Mapping, traffic: float, collectives: Mapping[str, hlo.Collective], chip: flops.Chip) -> dict:
    """The time of a step at peak rates: the longest of matmuls, memory and links, and what waits for the links besides."""
    # A permute uses one link, one way; the others are spread over all.
    rate = lambda name: chip.ici_rate / (chip.links if name == "collective-permute" else 1)
    waiting = sum(each.sent_synchronous / rate(name) for name, each in collectives.items())
    times = {"matmuls": work["done"] / chip.peak, "memory": traffic / chip.hbm_rate,
             "links": sum(each.sent / rate(name) for name, each in collectives.items())}
    overlapped = {**times, "links": times["links"] - waiting}
    step = max(overlapped.values()) + waiting
    return {"seconds": times, "traffic": traffic, "waiting": waiting, "step_seconds": step,
            "bound": max(times, key=times.get), "mfu": work["step"] / step / chip.peak}


def table(found: Mapping) -> str:
    """The result of `examine` as text."""
    memory, work, roof = found["memory"], found["flops"], found["roofline"]
    seconds = lambda value: f"{1e3 * value:.3g} ms"
    rows = [(name, size(memory[name])) for name in ("parameters", "optimiser", "copies", "batch", "temporaries", "program")
            if memory[name]]
    rows += [("memory in all", f"{size(memory['total'])} of {size(memory['limit'])} "
              f"({memory['total'] / memory['limit']:.0%})"),
             ("FLOPs of the step", f"{work['step'] / 1e12:.3g} T, {work['done'] / 1e12:.3g} T as done")]
    rows += [(name, f"{each['times']} times, {each['synchronous']} of them synchronous; {size(round(each['sent']))} sent")
             for name, each in found["collectives"].items()]
    rows += [("matmuls", seconds(roof["seconds"]["matmuls"])),
             ("memory traffic", f"{size(round(roof['traffic']))}, {seconds(roof['seconds']['memory'])}"),
             ("links", f"{seconds(roof['seconds']['links'])}, {seconds(roof['waiting'])} of it synchronous"),
             ("a step, at the least", f"{seconds(roof['step_seconds'])}, bound by {roof['bound']}: MFU "
              f"{roof['mfu']:.0%}, {found['batch_size'] / found['devices'] / roof['step_seconds']:.0f} images/s")]
    mesh = " x ".join(f"{name} {length}" for name, length in found["mesh"].items())
    head = (f"{found['devices']} x {found['device']}, mesh {mesh}, batch {grouped(found['batch_size'])}, compiled in "
            f"{found['compile_seconds']:.0f} s; of each device:")
    width = max(len(name) for name, _ in rows)
    return "\n".join([head, *(f"  {name:<{width}}  {value}" for name, value in rows)])


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --.")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")    # else libtpu asks the network which TPU this machine has
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")    # no TPU is opened
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    logging.set_verbosity(logging.ERROR)
    try:
        found = examine(Config(flags.FLAGS.config.to_dict()), slice_devices(flags.FLAGS.topology))
    except (ConfigError, TooLarge) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    print(table(found))
    if flags.FLAGS.json:
        Path(flags.FLAGS.json).write_text(json.dumps({"topology": flags.FLAGS.topology} | found, indent=1))


if __name__ == "__main__":
    config_flag.define()
    flags.DEFINE_string("topology", None, "The slice, as kind:shape, such as v5e:16x16.")
    flags.DEFINE_string("json", None, "A file for the numbers.")
    flags.mark_flags_as_required(["config", "topology"])
    app.run(main, flags_parser=config_flag.parse)
