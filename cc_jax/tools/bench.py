"""What the method costs, against named baselines, every ratio from one run.

python -m cc_jax.tools.bench losses                         # L_xac and its gradients, against the plain formula
python -m cc_jax.tools.bench step                           # a training step: images/s, share of the peak, memory
python -m cc_jax.tools.bench step --peer                    # and the same towers in PyTorch, in turns
python -m cc_jax.tools.bench step --start                   # and what compiling it takes, cold and from the cache
python -m cc_jax.tools.bench step --data datasets/photos    # and how long it waits for this data
python -m cc_jax.tools.bench step --sweep 64,128,256        # and the rates of these batches by remat policy
python -m cc_jax.tools.bench phrases --data datasets/photos # the rows that the phrases of real batches take
python -m cc_jax.tools.bench captions --captions FILE       # finding phrases, against NLTK's pos_tag and RegexpParser
python -m cc_jax.tools.bench prepare --captions FILE        # tar shards to a dataset, against finding the phrases alone
python -m cc_jax.tools.bench input                          # images to batches on one core, against Pillow's full decode
python -m cc_jax.tools.bench embed --data datasets/photos   # what the evaluators stand on, against the bare forward passes
python -m cc_jax.tools.bench saving                         # what saves cost the steps between them

Times are medians of calls that take turns, so that what else the machine does falls on all alike. `--json FILE` keeps the
numbers. The rate of a large matmul, measured in the same run, is the peak that shares are given of.
"""
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from nltk import RegexpParser
from nltk.tokenize import TreebankWordTokenizer

from cc_jax import build, concepts, config_flag, flops, memory, objective, plain, sharding, train
from cc_jax.config import Config
from cc_jax.data import packing, pipeline
from cc_jax.data.perceptron import load_tagger
from cc_jax.data.phrases import batch_located_phrases
from cc_jax.data.treebank import tokenise
from cc_jax.models.two_towers import TwoTowers
from cc_jax.saved import load_tokenizer
from cc_jax.tools import bench_step
from cc_jax.tools.bench_embed import bench_embed
from cc_jax.tools.bench_input import bench_input
from cc_jax.tools.bench_prepare import bench_prepare
from cc_jax.tools.bench_saving import bench_saving

SIZES = flags.DEFINE_list("sizes", ["96x400x196x768", "64x256x64x256"],
                          "losses: images x phrases x tokens x width, separated by commas.")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "losses: the type of tokens and phrases.")
LIMIT = flags.DEFINE_integer("limit", 0, "embed: only the first so many images.", lower_bound=0)
SPLIT = flags.DEFINE_string("split", "test", "embed: which of the dataset's splits.")
REPEATS = flags.DEFINE_integer("repeats", 7, "How often each is timed.", lower_bound=1)
DATA = flags.DEFINE_string("data", "datasets/shapes", "phrases, embed: the prepared dataset that is used; "
                           "input: if given, the dataset whose images are, instead of drawn ones; step: if given, the "
                           "dataset that the step is fed from.")
CONFIG = config_flag.define("configs/siglip_b16_cc.py:runlocal", "step, phrases, embed: ")
CAPTIONS = flags.DEFINE_string("captions", None, "captions, prepare: a text file with one caption a line.")
PROCESSES = flags.DEFINE_integer("processes", 2, "prepare: how many processes are compared with one.",
                                 lower_bound=2)
FORM = flags.DEFINE_multi_string("form", None, "step: only these forms of encoding phrases, of those in bench_step.FORMS.")
PEER = flags.DEFINE_bool("peer", False, "step: also the same towers in PyTorch (pip install -e '.[peers]').")
START = flags.DEFINE_bool("start", False, "step: also what compiling it takes, in fresh processes.")
SWEEP = flags.DEFINE_list("sweep", [], "step: also these batch sizes, with each remat policy.")
JSON = flags.DEFINE_string("json", None, "A file for the numbers.")

BATCHES = (256, 768, 4_096, 16_384, 65_536)


def bench_losses() -> list[dict]:
    """The compiled op against the plain formula: time, share of the peak, temporary memory."""
    return [losses_of(*(int(number) for number in size.split("x"))) for size in SIZES.value]


def losses_of(images: int, phrases: int, tokens: int, width: int) -> dict:
    """A row of `bench_losses`: both versions of L_xac and its gradients, and a matmul, called in turn."""
    arguments, slots = random_batch(images, phrases, tokens, width)
    side = bench_step.matmul_size()
    factor = jnp.ones((side, side), DTYPE.value)

    def with_gradients(module) -> jax.stages.Compiled:
        loss = lambda *a: module.concept_attention_loss(*a[:2], *slots, *a[2:])
        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3))).lower(*arguments).compile()

    slow, fast = with_gradients(plain), with_gradients(concepts)
    matmul = jax.jit(lambda x: jnp.matmul(x, x, preferred_element_type=jnp.float32))
    times = seconds({"plain": lambda: slow(*arguments), "this": lambda: fast(*arguments), "matmul": lambda: matmul(factor)})
    work, peak = flops.attention_flops(images, phrases, tokens, width, objective.Objective()), 2 * side**3 / times["matmul"]
    memory = {name: c.memory_analysis().temp_size_in_bytes / 1e6 for name, c in (("plain", slow), ("this", fast))}
    return {"images x phrases x tokens x width": f"{images}x{phrases}x{tokens}x{width}", "type": DTYPE.value,
            "plain, ms": 1e3 * times["plain"], "this, ms": 1e3 * times["this"], "speed-up": times["plain"] / times["this"],
            "GFLOP": work / 1e9, "matmul peak, GFLOP/s": peak / 1e9, "share of peak": work / times["this"] / peak,
            "temporary memory, MB: plain": memory["plain"], "this": memory["this"],
            "memory ratio": memory["this"] / memory["plain"]}


def random_batch(images: int, phrases: int, tokens: int, width: int) -> tuple:
    """((tokens, phrases, scale, bias), (owner, phrase_id, valid)): unit vectors, a tenth of the phrases repeated."""
    rng = np.random.default_rng(0)
    unit = lambda *shape: jnp.asarray((x := rng.normal(size=shape)) / np.linalg.norm(x, axis=-1, keepdims=True), DTYPE.value)
    owner = jnp.arange(phrases, dtype=jnp.int32) * images // phrases
    phrase_id = jnp.asarray(rng.integers(0, 9 * phrases // 10, phrases), jnp.int32)
    arguments = (unit(images, tokens, width), unit(phrases, width), jnp.float32(10), jnp.float32(-10))
    return arguments, (owner, phrase_id, jnp.ones(phrases, bool))


def batches(config: Config, count: int, rows: packing.PhraseRows | None | bool = True) -> Iterator[dict]:
    """The first batches of the config's data; `rows`: the room for phrases, the config's own where True."""
    source = train.open_source(config)
    example = train.make_example(config, load_tokenizer(config))
    part = sharding.part_of_batch(build.make_mesh(config))
    rows = build.make_phrase_rows(config, part, config.get("microbatches", 1)) if rows is True else rows
    iterator = pipeline.training_batches(source, example, config.batch_size, count, 0, phrase_rows=rows)
    try:
        yield from iterator
    finally:
        iterator.close()


def overhead() -> list[dict]:
    """FLOPs of a step over plain SigLIP's, ViT-B/16 at 224 px, 4 phrases an image, by global batch, all pairs met."""
    model = TwoTowers(image=dict(variant="B/16"), text=dict(variant="B", vocab_size=32_000, length=64))
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.int32)
    table = []
    for images in BATCHES:
        given = {"image": shape(images, 224, 224, 3), "caption": shape(images, 64), "phrase_mask": shape(images, 4)}
        layouts = {"rows of 64": (4 * images, 64, 1), "rows of 64, 3 distinct": (3 * images, 64, 1),
                   "rows of 16": (4 * images, 16, 1), "packed, 0.75 rows of 16": (3 * images // 4, 16, 4), "span": None}
        count = lambda batch, **changes: flops.step_flops(
            model, batch, objective.Objective(phrase=1.0, concept_attention=0.01, **changes))
        siglip = flops.step_flops(model, given, objective.Objective())
        row = {"global batch": images}
        for name, layout in layouts.items():
            if layout is None:
                work = count(given, embedding="span")
            else:
                rows, length, per_row = layout
                work = count(given | {"phrases": shape(rows, length), "column_id": shape(rows, per_row)})
            row[name] = work / siglip - 1
        table.append(row)
    return table


def bench_phrases() -> list[dict]:
    """How many rows and columns the phrases of real batches take, by batch size: what to set `concepts.rows` to."""
    values, table = load_config(), []
    length = values["data"]["phrase_length"]
    for size in (64, 256, 1024):
        config = Config(values | {"batch_size": size})
        slots = distinct = full = tokens = 0
        packed = []
        for batch in batches(config, 4, rows=None):
            filled = batch["column_weight"][:, 0] > 0
            ids, first = np.unique(batch["column_id"][filled, 0], return_index=True)
            sizes = 1 + packing.text_lengths(batch["phrases"][filled])
            slots, full, distinct, tokens = slots + filled.sum(), full + size, distinct + len(ids), tokens + sizes.sum()
            packed.append(rows_needed(sizes[first], 4, length))
        table.append({"batch": size, "phrases an image": slots / full, "tokens a phrase, its end included": tokens / slots,
                      "distinct phrases an image": distinct / full,
                      f"rows of {length} an image, 4 phrases each": max(packed) / size})
    return table


def rows_needed(sizes: np.ndarray, per_row: int, length: int) -> int:
    """The fewest rows that first-fit packs phrases of these lengths into."""
    fewest, most = 1, len(sizes)
    while fewest < most:
        middle = (fewest + most) // 2
        if packing.first_fit(sizes, packing.PhraseRows(middle, per_row), length) is None:
            fewest = middle + 1
        else:
            most = middle
    return most


def bench_captions() -> list[dict]:
    """Captions a second on one core against NLTK's recipe with its own weights.

    Every call gets captions that no call before it had, so that nothing it kept of them helps.
    """
    captions = read_captions()
    size = len(captions) // (REPEATS.value + 1)
    if not size:
        raise app.UsageError(f"{CAPTIONS.value} holds {len(captions)} captions; give at least {REPEATS.value + 1}.")
    tagger, tokenizer = load_tagger("nltk"), TreebankWordTokenizer()
    parser = RegexpParser(r"NP: {<DT|PRP\$>?<JJ.*>*<NN.*>+}")

    def recipe(tokens: Sequence[Sequence[str]]) -> list:
        return [[tree.leaves() for tree in parser.parse(tagger.tag(words)).subtrees(lambda t: t.label() == "NP")]
                for words in tokens]

    def on_parts(function: Callable, parts: Iterable) -> Callable:
        parts = iter(parts)
        return lambda: function(next(parts)) and None       # what it returns is not to be looked into

    parts = [captions[i * size:(i + 1) * size] for i in range(REPEATS.value + 1)]
    tokens = [[[word for sentence in tokenise(caption) for word, _ in sentence] for caption in part] for part in parts]
    rates = {name: size / time for name, time in seconds({
        "pos_tag + RegexpParser": on_parts(recipe, tokens),
        "the same, tokenizer included": on_parts(lambda part: recipe(map(tokenizer.tokenize, part)), parts),
        "this": on_parts(batch_located_phrases, parts)}).items()}
    return [{"way": name, "captions/s": rate, "/ pos_tag + RegexpParser": rate / rates["pos_tag + RegexpParser"]}
            for name, rate in rates.items()]


def read_captions() -> list[str]:
    if CAPTIONS.value is None:
        raise app.UsageError("captions, prepare: give a text file with one caption a line as --captions FILE.")
    return Path(CAPTIONS.value).read_text("utf-8").splitlines()


def seconds(functions: Mapping[str, Callable]) -> dict[str, float]:
    """The median time of each function, all called in turn; a first call, which compiles, is not counted."""
    times = {name: [] for name in functions}
    for number in range(REPEATS.value + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def steps() -> dict[str, list[dict]]:
    """The tables of `bench step`."""
    memory.keep_freed()
    values = load_config()
    found = {"step": bench_step.bench_step(values, FORM.value, PEER.value, seconds)}
    if START.value:
        found["start"] = bench_step.bench_start(values)
    if DATA.present:
        found["fed from a dataset"] = bench_step.bench_feed(values, REPEATS.value)
    if SWEEP.value:
        found["batch and remat"] = bench_step.bench_sweep(values, [int(size) for size in SWEEP.value], REPEATS.value)
    return found | {"FLOPs over plain SigLIP, ViT-B/16, 4 phrases an image": overhead()}


def load_config() -> dict:
    """The values of the config that the flags name, on the dataset that they name."""
    values = CONFIG.value.to_dict()
    values["data"]["dir"] = DATA.value
    return values


def table(rows: Sequence[Mapping]) -> str:
    """The rows as a Markdown table; numbers with three digits, small shares in percent."""
    show = lambda value: value if isinstance(value, str) else f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
    lines = ["| " + " | ".join(rows[0]) + " |", "| --- |" + " ---: |" * (len(rows[0]) - 1)]
    return "\n".join(lines + ["| " + " | ".join(map(show, row.values())) + " |" for row in rows])


KINDS = {
    "losses": lambda: {"losses": bench_losses()},
    "step": lambda: steps(),
    "phrases": lambda: {"phrases": bench_phrases()},
    "captions": lambda: {"captions": bench_captions()},
    "prepare": lambda: {f"preparation, {len(os.sched_getaffinity(0))} cores":
                        bench_prepare(read_captions(), PROCESSES.value, REPEATS.value)},
    "embed": lambda: bench_embed(load_config(), SPLIT.value, LIMIT.value, REPEATS.value),
    "saving": lambda: {"saving": bench_saving(load_config(), *batches(Config(load_config()), 1), REPEATS.value)},
    "input": lambda: bench_input(DATA.value if DATA.present else None, seconds),
}


def main(argv: list[str]) -> None:
    if len(argv) != 2 or argv[1] not in KINDS:
        raise app.UsageError(f"{argv[1:] or 'no'} kind of benchmark; give one of {', '.join(KINDS)}.")
    logging.set_verbosity(logging.WARNING)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")     # a GPU is shared with the peer
    device = jax.devices()[0]
    results = KINDS[argv[1]]()
    print(f"{jax.device_count()} x {device.device_kind}, jax {jax.__version__}, {REPEATS.value} repeats")
    for title, rows in results.items():
        print(f"\n{title}\n{table(rows)}")
    if JSON.value:
        Path(JSON.value).write_text(json.dumps({"device": device.device_kind, "jax": jax.__version__} | results, indent=1))


if __name__ == "__main__":
    app.run(main, flags_parser=config_flag.parse)
