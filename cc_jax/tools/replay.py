"""Runs one step of a run again, exactly: `python -m cc_jax.tools.replay WORKDIR STEP`.

From the newest checkpoint before it, or from the start, updates are made on the run's own batches up to the one that is
asked for. Its losses are compared with those the run has noted, and its batch is shown: examples whose embeddings are not
finite first, then those of the greatest loss. The workdir is only read. Status 1 where losses differ.
"""
import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from cc_jax import build, checkpoint, incidents, metrics, sharding, train
from cc_jax.config import Config, ConfigError, total_steps
from cc_jax.convert import formats, released
from cc_jax.data import pipeline
from cc_jax.evals import embed
from cc_jax.progress import counted, grouped
from cc_jax.saved import read_tokenizer
from cc_jax.step import TrainState

SHOWN = 16          # examples of a batch
WIDTH = 90          # characters of a caption


@dataclass(frozen=True)
class Example:
    """One of the step's batch. `loss` is its part of L_siglip as image and as caption, nats."""
    number: int             # in the global order
    record: int             # in the dataset
    key: str
    caption: str
    loss: float             # NaN where an embedding of its own is not finite
    not_finite: tuple[str, ...]         # of "image" and "caption": whose embedding is not


class Replay:
    """A run at a step: `begin` is the step whose state it starts from."""

    def __init__(self, workdir: str, step: int):
        """Raises ConfigError for a step that the run does not have, FileNotFoundError for what is no run."""
        self.workdir, self.step = workdir, step
        self.config = config = Config(checkpoint.read_config(workdir))
        mesh = build.make_mesh(config)
        self._source = train.open_source(config)
        self.length = total_steps(config, len(self._source))
        if not 1 <= step <= self.length:
            raise ConfigError(f"there is no step {step}: the run in {workdir} has steps 1 to {self.length}.")
        self._tokenizer = read_tokenizer(workdir)
        self._example = train.make_example(config, self._tokenizer)
        self._run = build.build(config, mesh, self.length)
        self.begin, self._state = self._restore()

    def _restore(self) -> tuple[int, TrainState]:
        """The state of the newest checkpoint before the step, or the one that the run began with."""
        config, state = self.config, self._run.init_state()
        if before := [saved for saved in checkpoint.saved_steps(self.workdir) if saved < self.step]:
            with checkpoint.open_manager(self.workdir) as manager:
                return max(before), checkpoint.restore(manager, self._run.begin_from(state, state.params), max(before))
        params, init = state.params, config.get("model_init", None)
        if init:
            params, _ = formats.load(init, params, config.get("dont_load", ()), config.get("model_cache", released.CACHE),
                                     self._tokenizer)
        return 0, self._run.begin_from(state, params)

    def losses(self) -> dict[str, float]:
        """Makes the updates; the metrics of the last, beside which the parameters before it are kept for `examples`."""
        run, config = self._run, self.config
        batches = pipeline.training_batches(
            self._source, self._example, config.batch_size, self.length, run.seed, self.begin,
            threads=config.data.get("threads", 4), phrase_rows=run.phrase_rows)
        state = self._state
        with closing(batches):
            for done in counted(range(self.begin + 1, self.step + 1), "updates"):
                batch = sharding.place(next(batches), run.mesh)
                if done == self.step:
                    self._params = jax.tree.map(jnp.copy, state.params)
                state, values = run.update(state, batch)
        return {name: float(value) for name, value in jax.device_get(values).items()}

    def examples(self) -> list[Example]:
        """The step's batch by the parameters before it; after `losses`."""
        found = list(self._read())
        embedder = embed.make(self._run.model, self._tokenizer, self._run.res, self._run.mesh)(self._params)
        images = embedder.images([image for *_, image in found])
        captions = embedder.texts([caption for *_, caption, _ in found])
        scale, bias = float(jnp.exp(self._params["t"][0])), float(self._params["b"][0])
        sound = {"image": np.isfinite(images).all(axis=1), "caption": np.isfinite(captions).all(axis=1)}
        images, captions = (np.where(sound[name][:, None], z, 0) for name, z in (("image", images), ("caption", captions)))
        made = []
        for i, (number, record, key, caption, _) in enumerate(found):
            bad = tuple(name for name in sound if not sound[name][i])
            loss = math.nan if bad else own_loss(images, captions, i, scale, bias)
            made.append(Example(number, record, key, caption, loss, bad))
        return made

    def _read(self) -> Iterator[tuple[int, int, str, str, np.ndarray]]:
        """(number, record, key, caption, image) of each."""
        seed, size, broken = self._run.seed, self.config.batch_size, pipeline.BrokenImages()
        weights = pipeline.caption_weights(self.config.data.get("captions", "random"))
        order = pipeline.global_order(len(self._source), seed)
        for number in range(size * (self.step - 1), size * self.step):
            index, example = pipeline.find(self._source, order, self._example, number, size, broken)
            record = self._source[index]
            caption = pipeline.draw_caption(record, weights, np.random.default_rng([seed, number]))[1]
            yield number, index, record["key"].decode(), caption, example["image"]


def own_loss(images: np.ndarray, captions: np.ndarray, i: int, scale: float, bias: float) -> float:
    """The terms of L_siglip that image i or caption i is in, (B, D) each; the pair of both once."""
    logits = np.concatenate([images[i] @ captions.T, np.delete(captions[i] @ images.T, i)]) * scale + bias
    sign = np.where(np.arange(len(logits)) == i, 1, -1)
    return float(np.sum(np.logaddexp(0, -sign * logits)))


def compare(values: Mapping[str, float], noted: Mapping) -> str:
    """"the same, bit for bit", or what differs from what a run has noted, as JSON has it."""
    again = metrics.as_json(values)
    common = [name for name in again if name in noted]
    differing = [f"{name} {noted[name]} there, {again[name]} now" for name in common if noted[name] != again[name]]
    return "; ".join(differing) or f"the same, bit for bit ({len(common)} values)"


def report(replay: Replay) -> bool:
    """Says what became of the step; whether it is as the run has noted."""
    start = f"checkpoint {replay.begin}" if replay.begin else "the start, as there is no checkpoint before it"
    print(f"step {grouped(replay.step)} of {grouped(replay.length)}, from {start}", flush=True)
    values = replay.losses()
    print(f"  {incidents.described(values)}{'' if incidents.is_finite(values) else ': not finite'}")
    noted = {metrics.METRICS: next((line for line in metrics.read(replay.workdir)
                                    if line["step"] == replay.step and "loss" in line), None),
             f"{incidents.INCIDENTS}/{replay.step}.json": incidents.load(replay.workdir, replay.step)}
    verdicts = {name: compare(values, line) if line else "has no such step" for name, line in noted.items()}
    for name, verdict in verdicts.items():
        print(f"  {name}: {verdict}")
    examples = replay.examples()
    bad = sum(bool(example.not_finite) for example in examples)
    print(f"its {len(examples)} examples, {bad or 'none'} of them with an embedding that is not finite:")
    for example in sorted(examples, key=lambda each: (not each.not_finite, -np.nan_to_num(each.loss)))[:SHOWN]:
        mark = f"{' and '.join(example.not_finite)} not finite" if example.not_finite else f"loss {example.loss:.4g}"
        print(f"  {mark}  record {example.record} {example.key}: {json.dumps(example.caption[:WIDTH], ensure_ascii=False)}")
    if len(examples) > SHOWN:
        print(f"  ... and {len(examples) - SHOWN} others, of smaller loss")
    return not any(" there, " in verdict for verdict in verdicts.values())


def main(argv: list[str]) -> None:
    if len(argv) != 3 or not argv[2].isdecimal():
        raise app.UsageError("give the workdir of a run and the number of a step: python -m cc_jax.tools.replay runs/try 7")
    logging.set_verbosity(logging.WARNING)      # the checkpoint library logs twenty lines
    try:
        same = report(Replay(argv[1], int(argv[2])))
    except (ConfigError, FileNotFoundError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()
    app.run(main)
