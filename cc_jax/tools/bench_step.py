"""`bench step`: a training step on the present devices, its start, what feeds it, and the batches that fit."""
import copy
import dataclasses
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import jax
import jax.numpy as jnp
import numpy as np

from cc_jax import build, flops, metrics, sharding, step, train
from cc_jax.config import Config, ConfigError
from cc_jax.data import pipeline
from cc_jax.models.text import EOS
from cc_jax.models.vit import REMAT_POLICIES
from cc_jax.saved import load_tokenizer
from cc_jax.tools import bench_peer

# How phrases can be encoded: the changes to a config's `concepts` and `data` blocks.
FORMS = {
    "a full row each": dict(rows=None, per_row=1, phrase_length=None),
    "a full row each, equal ones once": dict(per_row=1, phrase_length=None),
    "a short row each": dict(rows=None, per_row=1),
    "packed, equal ones once": dict(),
    "span": dict(embedding="span"),
}
NO_ROOM = "out of memory"


@dataclasses.dataclass
class Step:
    """A config's step, compiled, with a state and a batch of drawn numbers; calling it makes one update.

    Attributes:
      flops: of the whole step, on all devices.
      memory: bytes that a device needs: state, batch and temporaries.
    """
    made: build.Built
    compiled: Callable
    batch: dict[str, jax.Array]
    state: step.TrainState
    flops: float
    memory: float

    def __call__(self) -> dict[str, jax.Array]:
        self.state, values = self.compiled(self.state, self.batch)
        return values


def prepare(values: Mapping) -> build.Built:
    """The parts of the config's run, whatever its length and data."""
    config = Config(values)
    return build.build(config, build.make_mesh(config), build.length_without_data(config))


def make_step(values: Mapping) -> Step:
    made = prepare(values)
    compiled = made.update.lower(made.state, made.batch).compile()
    used = compiled.memory_analysis()
    memory = used.argument_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes + used.temp_size_in_bytes
    check_room(memory)
    state = made.init_state()
    return Step(made, compiled, draw(made), made.begin_from(state, state.params),
                flops.step_flops(made.model, made.batch, made.objective), memory)


def check_room(memory: float) -> None:
    """A CPU's process would be killed where a GPU's gets an error: raises it instead."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if jax.default_backend() == "cpu" and memory > free:
        raise MemoryError(f"a step needs {memory / 1e9:.1f} GB, {free / 1e9:.1f} GB are free.")


def draw(made: build.Built) -> dict[str, jax.Array]:
    """A batch of the run's shapes: images and texts random, every phrase there and another one."""
    rng = np.random.default_rng(0)

    def fill(name: str, shape: jax.ShapeDtypeStruct) -> np.ndarray:
        if name in ("image", "caption", "phrases"):
            least, limit = (0, 256) if name == "image" else (EOS + 1, made.model.text["vocab_size"])
            value = rng.integers(least, limit, shape.shape)
            if name != "image":
                value[:, -1] = EOS
        elif name.endswith("_id"):
            value = np.arange(math.prod(shape.shape)).reshape(shape.shape)
        else:
            value = np.full(shape.shape, name in ("phrase_mask", "column_weight"))
        return value.astype(shape.dtype)
    return {name: jax.device_put(fill(name, shape), shape.sharding) for name, shape in made.batch.items()}


def bench_step(values: Mapping, forms: Sequence[str] | None, peer: bool, seconds: Callable) -> list[dict]:
    """A step with the config's losses, in each form of its phrases that its text tower allows, against plain SigLIP's.

    seconds: {name: function} -> {name: median time of a call}, all called in turn; `peer`: PyTorch's among them.
    """
    with_concepts = any(values["loss"].get(name, 0) for name in ("phrase", "concept_attention"))
    steps: dict[str, Callable] = {"SigLIP": make_step(with_form(values, None))}
    for name in (forms or FORMS) if with_concepts else ():
        try:
            steps[name] = make_step(with_form(values, FORMS[name]))
        except ConfigError as error:
            metrics.say(f"{name}: left out, {error}")
    siglip, work = steps["SigLIP"], {name: one.flops for name, one in steps.items()}
    memory = {name: one.memory / 1e9 for name, one in steps.items()}
    if peer:
        name = "SigLIP in PyTorch"
        steps[name] = bench_peer.make_step(siglip.made.model, jax.device_get(siglip.batch))
        work[name] = siglip.flops
    peak, matmul = peak_of(values)
    times = seconds(steps | {"matmul": matmul})
    if peer:
        memory[name] = bench_peer.peak_memory()
    rate = peak or 2 * matmul_size() ** 3 / times["matmul"]
    share = "MFU" if peak else f"of the matmul peak, {rate / 1e9:.0f} GFLOP/s"
    return [{"step": name, "ms": 1e3 * times[name], "images/s": values["batch_size"] / times[name],
             "TFLOP": work[name] / 1e12, share: work[name] / times[name] / rate, "memory, GB": memory[name],
             "time / SigLIP": times[name] / times["SigLIP"], "FLOPs / SigLIP": work[name] / work["SigLIP"]}
            for name in steps]


def peak_of(values: Mapping) -> tuple[float | None, Callable]:
    """(the listed peak of all devices, or None where it is measured; a large matmul that measures it)."""
    listed, size = flops.listed_peak(jax.devices()[0].device_kind), matmul_size()
    x = jnp.ones((size, size), values["model"].get("dtype", "float32"))
    matmul = jax.jit(lambda x: x @ x)
    return listed and listed * jax.device_count(), lambda: matmul(x)


def matmul_size() -> int:
    """The side of the square matrices whose product measures the peak."""
    return 2048 if jax.default_backend() == "cpu" else 8192


def with_form(values: Mapping, changes: Mapping | None) -> dict:
    """The config with its phrases in another form; None: without concept losses."""
    values = copy.deepcopy(dict(values))
    if changes is None:
        values["loss"] = {"siglip": 1.0}
        return values
    changes = dict(changes)
    if "phrase_length" in changes:
        del changes["phrase_length"]
        values["data"]["phrase_length"] = values["model"]["text"].get("length", 64)
    values["concepts"] = values.get("concepts", {}) | changes
    return values


def bench_start(values: Mapping) -> list[dict]:
    """What a run of the config waits for before its first update: tracing and compiling, each in a fresh process."""
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "from the cache"):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
                lowering, compiling = fresh.submit(start, dict(values), cache).result()
            rows.append({"start": name, "trace, s": lowering, "compile, s": compiling, "both, s": lowering + compiling})
    return rows


def start(values: Mapping, cache: str) -> tuple[float, float]:
    """(seconds to trace, seconds to compile) of the config's step, with a folder of compiled programs."""
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    made, begin = prepare(values), time.perf_counter()
    lowered = made.update.lower(made.state, made.batch)
    traced = time.perf_counter()
    lowered.compile()
    return traced - begin, time.perf_counter() - traced


def bench_feed(values: Mapping, steps: int) -> list[dict]:
    """How long the config's steps wait for its data, as training measures it; the first two are left out."""
    config = Config(values)
    one, example = make_step(values), train.make_example(config, load_tokenizer(config))
    batches = sharding.placed(pipeline.training_batches(
        train.open_source(config), example, config.batch_size, steps + 2, 0, threads=config.data.get("threads", 4),
        phrase_rows=one.made.phrase_rows), one.made.mesh)
    waits, ends, before = [], [], None
    for _ in range(steps + 2):
        begin = time.perf_counter()
        one.batch = next(batches)
        waits.append(time.perf_counter() - begin)
        after = one()
        jax.block_until_ready(before)       # one step late, as the metrics of a run
        before = after
        ends.append(time.perf_counter())
    jax.block_until_ready(before)
    batches.close()
    whole = time.perf_counter() - ends[1]
    return [{"input": config.data.dir, "ms a step": 1e3 * whole / steps, "images/s": config.batch_size * steps / whole,
             "waits for input, ms": 1e3 * sum(waits[2:]) / steps, "input wait": sum(waits[2:]) / whole}]


def bench_sweep(values: Mapping, sizes: Sequence[int], repeats: int) -> list[dict]:
    """images/s and memory of a device by batch size and remat policy; "out of memory" where a step does not fit."""
    rows = []
    for size in sizes:
        row = {"batch": str(size)}
        for policy in REMAT_POLICIES:
            changed = copy.deepcopy(dict(values)) | {"batch_size": size}
            changed["model"]["remat"] = policy
            row[f"{policy}: images/s, GB"] = try_step(changed, repeats)
        rows.append(row)
    return rows


def try_step(values: Mapping, repeats: int) -> str:
    """"812, 13.4" of the config's step."""
    try:
        one, times = make_step(values), []
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            jax.block_until_ready(one())
            times.append(time.perf_counter() - begin)
    except MemoryError:
        return NO_ROOM
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return NO_ROOM
    return f"{values['batch_size'] / statistics.median(times[1:]):.3g}, {one.memory / 1e9:.3g}"
