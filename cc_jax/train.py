"""One run: set up, resume, loop, log, evaluate, save. Read it top to bottom; `cc_jax.main` starts it."""
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import jax
from jax.experimental import multihost_utils

from cc_jax import build, checkpoint, claim, distributed, flops, incidents, metrics, objective, redact, sharding, step
from cc_jax.config import Config, ConfigError, steps, total_steps
from cc_jax.convert import formats, released
from cc_jax.data import dataset, phrase_noise, pipeline, prepare, reading, watchdog
from cc_jax.data.tokenizer import Tokenizer
from cc_jax.evals import embed, guard, registry
from cc_jax.lock import WorkdirLock
from cc_jax.preemption import Preemption
from cc_jax.preserve import Preserve
from cc_jax.saved import load_tokenizer
from cc_jax.saving import WAITS, Saver
from cc_jax.summary import summary
from cc_jax.trace import Trace

EMBEDDED = "datasets/shapes"


def train(values: Mapping, workdir: str, preemption: Preemption | None = None) -> None:
    """Trains by the config `values` into `workdir`; called again on the same workdir, it goes on where it stopped.

    Raises ConfigError for a config that can't be run or a workdir in use, FloatingPointError where a loss or gradient is not
    finite and `nonfinite` does not let it, ScoreFell where a score is under what `stop_if` lets it be, SaveFailed where a
    state can't be saved, InputFailed where the data can't be read.
    """
    with WorkdirLock(workdir) as lock:
        train_locked(values, workdir, lock, preemption or Preemption())


def train_locked(values: Mapping, workdir: str, lock: WorkdirLock, preemption: Preemption) -> None:
    """`train`, which takes the lock once the config is known to be one that runs."""
    redact.check(values)
    config = Config(values)
    mesh = build.make_mesh(config)
    prepare_embedded(config.data.dir)
    source = open_source(config)
    length = total_steps(config, len(source))
    tokenizer = load_tokenizer(config)
    example = make_example(config, tokenizer)
    run = build.build(config, mesh, length)
    evaluators = make_evaluators(config, length)
    guards, evaluates_start = guard.read(config.get("stop_if", ()), evaluators), config.get("evaluate_start", False)
    save_every = steps(config.checkpoint.every, length)
    preserve, force = Preserve.read(config.checkpoint, length, evaluators), config.checkpoint.get("force", False)
    retries = config.checkpoint.get("retries", WAITS)
    timeout, rereads = config.data.get("timeout", watchdog.TIMEOUT), config.data.get("retries", reading.WAITS)
    log_every, threads = config.get("log_every", 50), config.data.get("threads", 4)
    model_init, dont_load = config.get("model_init", None), config.get("dont_load", ())
    model_cache = config.get("model_cache", released.CACHE)
    watched = incidents.read(config)
    trace = Trace(workdir, config.get("profile_steps", ()), length)
    config.check_all_read()

    with distributed.first_then_others("the workdir is claimed"):
        newest, made_of = claim.claim(workdir, lock, dict(values), tokenizer, force)
    saver = Saver(workdir, preserve, made_of, retries)
    resumes = newest is not None
    state, notes = run.init_state(), []
    params = state.params
    if model_init and not resumes:
        params, notes = formats.load(model_init, state.params, dont_load, model_cache, tokenizer)
    state = run.begin_from(state, params)
    if resumes:
        state = checkpoint.restore(saver.manager, state, newest)
        metrics.say(f"resuming {workdir} after step {int(state.step)} of {length}")
    elif model_init:
        metrics.say("; ".join([f"parameters from {model_init}", *notes]))
    first_step = int(state.step)
    embedder = embed.make(run.model, tokenizer, run.res, mesh)

    records = watchdog.Watched(reading.Records(source, rereads), example)
    host_batches = watchdog.Batches(pipeline.training_batches(
        records, records.example, config.batch_size, length, run.seed, first_step, run.part.index, run.part.count, threads,
        run.phrase_rows), records, timeout)
    batches = sharding.placed(host_batches, mesh)
    writer = metrics.Writer(workdir, first_step, active=jax.process_index() == 0)
    watch = incidents.Watch(workdir, watched, functools.partial(incidents.batch_of, source, config.batch_size, run.seed),
                            active=jax.process_index() == 0)
    loop = Loop(length, first_step, log_every, config.batch_size, writer, watch)
    history = metrics.read(workdir) if resumes else ()
    guards = guard.Guards(guards, history)
    preserve.remember(history)

    def evaluate(done: int, known: Mapping[str, float] = MappingProxyType({})) -> None:
        """Evaluates what is due after `done` updates; `known` are scores that need no evaluation."""
        skip = {name.partition("/")[0] for name in known}
        due = {name: evaluator for name, (every, evaluator) in evaluators.items()
               if (done % every == 0 or done == length) and name not in skip}
        scores = {}
        if due:
            loop.flush()
            towers = embedder(state.params if state.average is None else state.average)
            scores = {f"{name}/{key}": value for name, evaluator in due.items()
                      for key, value in evaluator(towers).scores().items()}
            loop.evaluated(done, scores)
            preserve.remember([scores | {"step": done}])
        try:
            guards.check(done, known | scores)
        except guard.ScoreFell:
            if done:
                saver.finish(done, state)
            raise

    try:
        if first_step:  # a kill between saving and evaluating leaves that step's evaluation to do
            evaluate(first_step, metrics.scores_at(workdir, first_step))
        elif evaluates_start:
            evaluate(0)
        for done in range(first_step + 1, length + 1):
            batch = loop.next_batch(batches)
            if done == first_step + 1:
                loop.begin(flops.step_flops(run.model, batch, run.objective), state)
            trace.before(done)
            state, values_now = run.update(state, batch)
            preemption.can_cut = False  # from here on there is something to save
            trace.after(done, values_now)
            loop.record(done, values_now)
            if done % save_every == 0 or done == length or saver.due():
                loop.flush()  # never keep a state whose loss was not finite
                saver.save(done, state)
            preemption.cut_short(evaluate, done)
            # SIGTERM to any of several processes: all of them stop at one step.
            if stops := preemption.told or saver.manager.reached_preemption(done):
                loop.flush()
            if stops or done == length:
                saver.finish(done, state)
            if stops and done < length:
                metrics.say(f"told to stop: saved after step {done} of {length}; the same command resumes")
                break
    except reading.InputFailed:
        if done > first_step + 1 and jax.process_count() == 1:  # of several, the others may have what this one lacks
            loop.flush()
            saver.finish(done - 1, state)
        raise
    finally:
        trace.close()
        host_batches.close()        # `batches` would, but only once begun
        loop.close()
        saver.close()


class Loop:
    """The bookkeeping around the updates: times, metrics fetched one step late (so logging never stalls the device),
    the progress line, and the watch over steps that went wrong."""

    def __init__(self, total: int, first_step: int, log_every: int, batch_size: int, writer: metrics.Writer,
                 watch: incidents.Watch):
        self._flops_per_step = 0.0
        self._total, self._first, self._log_every, self._batch_size = total, first_step, log_every, batch_size
        self._writer, self._watch, self._pending = writer, watch, None
        self._progress = metrics.Progress(total) if jax.process_index() == 0 else None
        self._peak = flops.peak_flops() * jax.device_count()
        self._step_seconds, self._wait_seconds, self._window = 0.0, 0.0, 0
        self._last = time.perf_counter()

    def begin(self, flops_per_step: float, state: step.TrainState) -> None:
        """Before the first update: says what the run consists of."""
        self._flops_per_step = flops_per_step
        metrics.say(summary(state.params, state, flops_per_step, self._batch_size, self._peak))

    def next_batch(self, batches: Iterator[dict[str, jax.Array]]) -> dict[str, jax.Array]:
        start = time.perf_counter()
        batch = next(batches)
        self._wait_seconds += time.perf_counter() - start
        return batch

    def record(self, done: int, values: dict[str, jax.Array]) -> None:
        """Keeps the metrics of update number `done`, and handles those of the one before."""
        self.flush()
        self._pending = (done, values)

    def flush(self) -> None:
        """Fetches the pending metrics; logs them when due. Raises FloatingPointError where the run has to stop."""
        if self._pending is None:
            return
        (done, values), self._pending = self._pending, None
        values = {name: float(value) for name, value in jax.device_get(values).items()}
        now = time.perf_counter()
        first = done == self._first + 1  # holds the compilation: not a time to report
        self._step_seconds += now - self._last
        self._last, self._window = now, self._window + 1
        self._watch.check(done, values)
        seconds = self._step_seconds / self._window
        values |= {"images_per_second": self._batch_size / seconds, "seconds_per_step": seconds,
                   "mfu": self._flops_per_step / seconds / self._peak,
                   "input_wait": min(1.0, self._wait_seconds / self._step_seconds)}
        if self._progress:
            self._progress.show(done, metrics.loss_line(values), (self._total - done) * seconds, done == self._total)
        if done % self._log_every == 0 or done == self._total or first:
            self._writer.write(done, values)
            self._step_seconds = self._wait_seconds = 0.0
            self._window = 0

    def evaluated(self, done: int, scores: Mapping[str, float]) -> None:
        """Writes an evaluation's scores and leaves its time out of the steps'."""
        self._writer.write(done, scores)
        if self._progress:
            self._progress.done()
        metrics.say(f"step {metrics.grouped(done)}  " + "  ".join(f"{k} {v:.3f}" for k, v in scores.items()))
        self._last = time.perf_counter()

    def close(self) -> None:
        """Logs what is pending. A loss that is not finite raises here too, unless an error is already on its way."""
        try:
            self.flush()
        finally:
            if self._progress:
                self._progress.done()
            self._writer.close()


def prepare_embedded(directory: str) -> None:
    """Makes the embedded dataset where the config asks for `datasets/shapes` and it is not there yet: it needs nothing."""
    if directory == EMBEDDED and not dataset.is_finished(directory) and jax.process_index() == 0:
        metrics.say(f"preparing the embedded dataset in {directory}")
        prepare.prepare("shapes", directory)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the embedded dataset is prepared")


def open_source(config: Config) -> Sequence[Mapping]:
    """The records to train on; they must say where phrases stand where the config needs that."""
    return dataset.open_split(config.data.dir, config.data.split, objective.pools_spans(config) or bool(read_noise(config)))


def read_noise(config: Config) -> dict[str, float]:
    """The rates of errors to put into phrases, by the config's `data.phrase_noise` block."""
    block = config.data.get("phrase_noise", {})
    if not isinstance(block, Config):
        raise ConfigError(f"config.data.phrase_noise={block!r}; give a rate for each kind of error, such as "
                          f"dict({phrase_noise.KINDS[0]}=0.1), of {', '.join(phrase_noise.KINDS)}.")
    return phrase_noise.check_rates({kind: block[kind] for kind in block.keys()})


def make_example(config: Config, tokenizer: Tokenizer) -> Callable:
    """The pipeline's per-example function by the config's `data` block."""
    length, phrase_length = build.text_lengths(config)
    crop = config.data.get("crop", None)
    if crop is not None and not 0 < crop <= 1:
        raise ConfigError(f"config.data.crop={crop}; it is the least share of an image's area that a random crop keeps: "
                          "above 0 and at most 1, or None for the whole image.")
    return pipeline.make_example(
        tokenizer, config.data.res, length, config.data.get("max_phrases", 4), phrase_length,
        config.data.get("flip", False), config.get("seed", 0), objective.pools_spans(config), crop,
        read_noise(config), pipeline.caption_weights(config.data.get("captions", "random")))


def make_evaluators(config: Config, length: int) -> dict[str, tuple[int, Callable]]:
    """{name: (interval in steps, evaluator(embedder) -> Result)} by the config's `evals` block."""
    evaluators = {}
    blocks = config.get("evals", {})
    for name in blocks.keys():
        every = steps(blocks[name].get("every", "100 %"), length)
        evaluators[name] = (every, registry.make(blocks[name]))
    return evaluators
