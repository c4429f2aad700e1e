"""What saving costs the steps of a run: `python -m cc_jax.tools.bench saving`."""
import itertools
import statistics
import tempfile
import time
from collections.abc import Mapping

import jax

from cc_jax import build, saving, sharding
from cc_jax.config import Config
from cc_jax.preserve import Preserve

INTERVALS = (25, 100)       # steps from one save to the next


def bench_saving(values: Mapping, batch: Mapping, repeats: int) -> list[dict]:
    """The time of a step with a save every so many, against one without; both in turns.

    What the save does in the background counts as far as it falls into these steps. Args: batch: of the config's data.
    """
    config = Config(values)
    made = build.build(config, build.make_mesh(config), build.length_without_data(config))
    batch, state = sharding.place(batch, made.mesh), made.init_state()
    state = made.begin_from(state, state.params)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    with tempfile.TemporaryDirectory() as workdir:
        saver, numbers = saving.Saver(workdir, Preserve(), {}), itertools.count(1)

        def block(steps: int, save: bool) -> tuple[float, float]:
            """(seconds a step, of which the call that begins the save held up the steps)."""
            nonlocal state
            start, held, number = time.perf_counter(), 0.0, next(numbers)
            for step in range(steps):
                state, metrics = made.update(state, batch)
                jax.block_until_ready(metrics)
                if save and step == 0:
                    begun = time.perf_counter()
                    saver.save(number, state)
                    held = time.perf_counter() - begun
            seconds = (time.perf_counter() - start) / steps
            if save:
                saver.finish(number, state)
            return seconds, held

        rows = []
        for steps in INTERVALS:
            block(3, True)      # compiles, and makes the folders
            pairs = [(block(steps, False)[0], *block(steps, True)) for _ in range(repeats)]
            without, with_saves, held = map(statistics.median, zip(*pairs, strict=True))
            rows.append({"a save every": f"{steps} steps", "MB": size / 1e6, "step without, ms": 1e3 * without,
                         "with, ms": 1e3 * with_saves, "slower": f"{100 * (with_saves / without - 1):.1f} %",
                         "held up by its begin, ms": 1e3 * held})
        saver.close()
    return rows
