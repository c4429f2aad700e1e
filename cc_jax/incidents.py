"""Steps that went wrong: a loss or gradient that is not finite, a loss that jumps. What the run does, and what it keeps.

The update itself is left out on the device (`step.make_update`), so the state stays sound; here the run is told of it, one
step late as of all metrics. `config.nonfinite` is "stop", or "skip": go on, until IN_A_ROW updates in a row were left out.
`config.spikes` is how many usual deviations above the usual loss count as a spike, which is reported; 0 looks for none.
WORKDIR/incidents/STEP.json holds a step's losses and which records it saw; `cc_jax.tools.replay` runs it again.
"""
import json
import math
import statistics
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from etils import epath

from cc_jax import metrics
from cc_jax.config import Config, ConfigError
from cc_jax.data import pipeline

INCIDENTS = "incidents"             # the folder, in the workdir
ACTIONS = ("stop", "skip")
IN_A_ROW = 10                       # so many updates left out in a row are not the fault of a few bad records
FILES, OF_SPIKES = 100, 50          # the most files in a workdir, and the number up to which a spike adds one
KEYS = 1024                         # of a larger batch the records' numbers are kept, not their keys, which cost a read each
WINDOW, LEAST = 128, 32             # losses that are compared with, and how many there must be


class Options(NamedTuple):
    nonfinite: str
    spikes: float


def read(config: Config) -> Options:
    """The config's `nonfinite` and `spikes`. Raises ConfigError."""
    nonfinite, spikes = config.get("nonfinite", ACTIONS[0]), config.get("spikes", 8.0)
    if nonfinite not in ACTIONS:
        raise ConfigError(f"config.nonfinite={nonfinite!r}; what to do where a loss or gradient is not finite is one of "
                          f"{', '.join(ACTIONS)}.")
    if not isinstance(spikes, int | float) or not 0 <= spikes < math.inf:
        raise ConfigError(f"config.spikes={spikes!r}; give how many usual deviations above the median of the last {WINDOW} "
                          "losses count as a spike, such as 8.0, or 0 to look for none.")
    return Options(nonfinite, float(spikes))


class Spikes:
    """Tells losses that stand out above the last WINDOW ones. Their usual deviation is that of normal ones with the same
    median absolute deviation, and at least 1 % of their median."""

    def __init__(self, factor: float):
        self._factor, self._losses = factor, deque(maxlen=WINDOW)

    def bound(self) -> float:
        """Above this a loss is a spike."""
        if not self._factor or len(self._losses) < LEAST:
            return math.inf
        median = statistics.median(self._losses)
        deviation = 1.4826 * statistics.median(abs(loss - median) for loss in self._losses)
        return median + self._factor * max(deviation, 0.01 * abs(median))

    def add(self, loss: float) -> None:
        self._losses.append(loss)


class Watch:
    """Looks at the metrics of each step of a run."""

    def __init__(self, workdir: str, options: Options, batch: Callable[[int], Mapping], active: bool = True):
        """`batch`: what is kept of a step's batch, as `batch_of`; only an `active` process writes it."""
        self._folder, self._workdir = epath.Path(workdir) / INCIDENTS, workdir
        self._nonfinite, self._spikes = options.nonfinite, Spikes(options.spikes)
        self._batch, self._active, self._seen = batch, active, Counter()

    def check(self, step: int, values: Mapping[str, float]) -> None:
        """Raises FloatingPointError where the run has to stop; says what else is worth saying."""
        if is_finite(values):
            if values["loss"] > (bound := self._spikes.bound()):
                self._report(step, "spike", values, f"above {bound:.4g}, so a spike", bound=bound)
            self._spikes.add(values["loss"])
            return
        if self._nonfinite == "skip" and values["skipped/in_a_row"] < IN_A_ROW:
            self._report(step, "nonfinite", values, f"not finite: the update is left out, {values['skipped']:.0f} so far")
            return
        why = "not finite" if self._nonfinite == "stop" else f"not finite, the {IN_A_ROW}th in a row"
        raise FloatingPointError(
            f"step {step}: {described(values)}: {why}{self._write(step, 'nonfinite', values)}. Nothing after the last "
            "checkpoint is kept. The same command with --config.nonfinite=skip goes on from there, and leaves such updates "
            "out; or lower config.optim.lr, or set config.optim.clip_norm, and start again in a new workdir.")

    def _report(self, step: int, kind: str, values: Mapping[str, float], what: str, **more: float) -> None:
        """Says and keeps the first ten of a kind, then every hundredth: a log is not flooded."""
        self._seen[kind] += 1
        if (count := self._seen[kind]) <= 10 or count % 100 == 0:
            metrics.say(f"step {metrics.grouped(step)}: {described(values)}: {what}"
                        f"{self._write(step, kind, values, **more)}")

    def _write(self, step: int, kind: str, values: Mapping[str, float], **more: float) -> str:
        """Keeps the step for `tools.replay`, if there is room; "; see FILE" where it is there."""
        if not self._active:
            return ""
        path = self._folder / f"{step}.json"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not path.exists() and len(list(self._folder.glob("*.json"))) >= (OF_SPIKES if kind == "spike" else FILES):
                return ""
            partial = self._folder / f".{step}.partial"
            partial.write_text(json.dumps({"step": step, "kind": kind} | metrics.as_json(values | more) | self._batch(step)))
            partial.replace(path)
        except (OSError, RuntimeError, ValueError) as error:    # of disk or dataset: a run is not lost for want of a note
            return f" ({path} can't be written: {error})"
        return f"; see {path}, and `python -m cc_jax.tools.replay {self._workdir} {step}`"


def is_finite(values: Mapping[str, float]) -> bool:
    """Whether a step's update was made."""
    return math.isfinite(values["loss"]) and math.isfinite(values["norm/gradient"])


def described(values: Mapping[str, float]) -> str:
    """"loss nan (siglip nan, phrase 2.009), gradient nan"."""
    return f"{metrics.describe_losses(values)}, gradient {values['norm/gradient']:.4g}"


def batch_of(source: Sequence[Mapping], batch_size: int, seed: int, step: int) -> dict:
    """What tells a step's batch: {"seed", "examples": [first, end) of the global order, "records", and their "keys"}."""
    records = pipeline.records_of_step(len(source), batch_size, seed, step)
    batch = {"seed": seed, "examples": [batch_size * (step - 1), batch_size * step], "records": records}
    return batch | ({"keys": [source[record]["key"].decode() for record in records]} if batch_size <= KEYS else {})


def load(workdir: str, step: int) -> dict | None:
    """The incident of a step, None where none was written."""
    path = epath.Path(workdir) / INCIDENTS / f"{step}.json"
    return json.loads(path.read_text()) if path.exists() else None
