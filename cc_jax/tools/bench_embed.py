"""`bench embed`: a dataset's images and captions embedded as the evaluators do, against the bare jitted forward passes."""
import statistics
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np

from cc_jax import sharding
from cc_jax.config import Config
from cc_jax.data.transforms import view
from cc_jax.evals import embed
from cc_jax.evals.captioned import open_prepared
from cc_jax.evals.embedder import chunks
from cc_jax.models.two_towers import TwoTowers
from cc_jax.objective import pixels
from cc_jax.saved import load_tokenizer, make_model


def bench_embed(values: Mapping, split: str, limit: int, repeats: int) -> dict[str, list[dict]]:
    """The table, by a title that says what was embedded, by the towers of a config with random weights.

    The whole is from files and strings to embeddings. The bare passes get the same rows, decoded, resized and tokenised
    before, in batches of the same size without padding.
    """
    config = Config(values)
    mesh = sharding.make_mesh({"data": -1})
    model, tokenizer, res = make_model(config, sharding.platform(mesh)), load_tokenizer(config), config.data.res
    found = open_prepared(config.data.dir, split, limit)
    files = [found.read(i) for i in range(len(found.ids))]
    texts = [caption for captions in found.captions for caption in captions]
    params = random_params(model, res)
    embedder = embed.make(model, tokenizer, res, mesh)(params)
    images, tokens = np.stack([view(file, res) for file in files]), tokenizer.encode(texts, model.text["length"])
    bare_images = bare(lambda params, x: model.apply({"params": params}, pixels(x), None)[0], params)
    bare_texts = bare(lambda params, x: model.apply({"params": params}, None, x)[1], params)

    rows = []
    for what, count, plain, whole in (
            ("images", len(files), lambda n: bare_images(images[:n]), lambda n: embedder.images(files[:n])),
            ("captions", len(texts), lambda n: bare_texts(tokens[:n]), lambda n: embedder.texts(texts[:n]))):
        wall, cpu = times({"bare": plain, "whole": whole}, count, repeats)
        rows.append({"embedded": f"{count} {what}", "bare passes, s": wall["bare"], "whole, s": wall["whole"],
                     "whole / bare": wall["whole"] / wall["bare"], "of CPU time": cpu["whole"] / cpu["bare"]})
    return {f"embedding {config.data.dir} at {res} px, batches of {embed.BATCH}": rows}


def random_params(model: TwoTowers, res: int) -> dict:
    text = np.zeros((1, model.text["length"]), np.int32)
    return jax.jit(lambda key: model.init(key, np.zeros((1, res, res, 3)), text)["params"])(jax.random.key(0))


def bare(tower: Callable, params: dict) -> Callable[[np.ndarray], list[jax.Array]]:
    """Just the tower on one batch after the other, none waited for but the last."""
    tower = jax.jit(tower)
    return lambda inputs: jax.block_until_ready([tower(params, np.stack(batch)) for batch in chunks(inputs, embed.BATCH)])


def times(ways: Mapping[str, Callable], count: int, repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """(median seconds, median CPU seconds) of each way to embed `count`, taken in turns after a small call that compiles."""
    wall, cpu = {name: [] for name in ways}, {name: [] for name in ways}
    for way in ways.values():
        way(min(count, embed.BATCH + count % embed.BATCH))
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter(), time.process_time()
            way(count)
            wall[name].append(time.perf_counter() - start[0])
            cpu[name].append(time.process_time() - start[1])
    middle = lambda found: {name: statistics.median(values) for name, values in found.items()}
    return middle(wall), middle(cpu)
