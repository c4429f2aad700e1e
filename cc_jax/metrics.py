"""Where numbers go: JSON lines and TensorBoard files, and the live progress line with ETA."""
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
from etils import epath

from cc_jax.progress import duration, grouped

METRICS = "metrics.jsonl"


class Writer:
    """Appends metrics to `workdir/metrics.jsonl` and to TensorBoard event files under `workdir/tensorboard`.

    A resumed run passes its first step: lines of that step and later, left by the run that was killed, are dropped.
    A bucket can't be appended to: for a workdir such as gs://bucket/run the files are kept in a local folder, and copied
    into the workdir once a minute and at the end. With `active=False` (all processes but the first) nothing is written.
    """

    def __init__(self, workdir: str | Path, first_step: int = 0, active: bool = True):
        self._file = None
        if not active:
            return
        self._workdir = epath.Path(workdir)
        self._remote = "://" in str(workdir)
        self._local = Path(tempfile.mkdtemp(prefix="cc_jax-metrics-")) if self._remote else Path(workdir)
        self._copied = time.monotonic()
        path, kept = self._local / METRICS, []
        if (self._workdir / METRICS).exists():
            kept = [line for line in (self._workdir / METRICS).read_text().splitlines() if is_before(line, first_step)]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(line + "\n" for line in kept))
        partial.rename(path)
        self._file = path.open("a")
        # Its thread ends on a full disk: a queue without end holds up nobody then.
        self._board = _summary_writer()(str(self._local / "tensorboard"), purge_step=first_step or None, max_queue=0)
        self._failed = False

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """`step`: the number of updates made when the values were taken."""
        if self._file is None:
            return
        values = {name: float(value) for name, value in values.items()}
        line = json.dumps({"step": step} | as_json(values)) + "\n"
        self._tried(lambda: self._file.write(line) and self._file.flush())
        for name, value in values.items():
            if math.isfinite(value):            # tensorboardX warns of each that is not
                self._board.add_scalar(name, value, step)
        if self._remote and time.monotonic() - self._copied > 60:
            self._tried(self._copy)

    def close(self) -> None:
        if self._file is not None:
            self._tried(self._file.close)
            self._tried(self._board.close)
            if self._remote:
                self._tried(self._copy)

    def _tried(self, write: Callable[[], None]) -> None:
        """Writes; where that fails, says so once: what is kept back goes with what is written next."""
        try:
            write()
            self._failed = False
        except OSError as error:
            if not self._failed:
                say(f"metrics can't be written, training goes on: {error}")
            self._failed = True

    def _copy(self) -> None:
        """Copies the local files into the remote workdir."""
        for path in self._local.rglob("*"):
            if path.is_file():
                target = self._workdir / path.relative_to(self._local).as_posix()
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        self._copied = time.monotonic()


def as_json(values: Mapping[str, float]) -> dict[str, float | str]:
    """JSON has no NaN: a value that is not finite becomes its name."""
    return {name: value if math.isfinite(value) else str(value) for name, value in values.items()}


def _summary_writer() -> type:
    """tensorboardX's, kept from importing PyTorch where that is installed: it takes seconds, for graphs not drawn here."""
    hidden = sys.modules.setdefault("torch", None) is None
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter


def is_before(line: str, step: int) -> bool:
    """Whether a line of metrics.jsonl is whole and belongs to the updates before and including `step`."""
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError):  # the last line of a killed run may be cut
        return False


def read(workdir: str) -> list[dict]:
    """All lines of a run's metrics.jsonl."""
    lines = (epath.Path(workdir) / METRICS).read_text().splitlines()
    return [json.loads(line) for line in lines if is_before(line, sys.maxsize)]


def scores_at(workdir: str, step: int) -> dict[str, float]:
    """The scores "EVALUATION/SCORE" of `step` in a run's metrics.jsonl, losses "loss/..." and the like among them."""
    return {key: value for line in read(workdir) if line["step"] == step for key, value in line.items() if "/" in key}


class Progress:
    """The live line of a run: rewritten in place on a terminal, a new line every `every_seconds` elsewhere."""

    def __init__(self, total_steps: int, stream=None, every_seconds: float = 10.0):
        self._total, self._stream = total_steps, stream or sys.stderr
        self._live = self._stream.isatty()
        self._every, self._last, self._width = (0.5 if self._live else every_seconds), -math.inf, 0

    def show(self, step: int, text: str, eta_seconds: float, force: bool = False) -> None:
        now = time.monotonic()
        if now - self._last < self._every and not force:
            return
        self._last = now
        line = f"step {grouped(step)}/{grouped(self._total)}  {text}  ETA {duration(eta_seconds)}"
        self._stream.write("\r" + line.ljust(self._width) if self._live else line + "\n")
        self._stream.flush()
        self._width = len(line)

    def done(self) -> None:
        """Leaves the live line on the screen."""
        if self._live and self._width:
            self._stream.write("\n")


def say(text: str) -> None:
    """A line for the person who watches, from the first process only."""
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)


def describe_losses(values: Mapping[str, float]) -> str:
    """"loss 3.214 (siglip 1.101, phrase 2.009, attention 10.4)"."""
    parts = ", ".join(f"{name.removeprefix('loss/').removeprefix('concept_')} {value:.4g}"
                      for name, value in values.items() if name.startswith("loss/"))
    return f"loss {values['loss']:.3f} ({parts})"


def loss_line(values: Mapping[str, float]) -> str:
    """"loss 3.214 (siglip 1.101, phrase 2.009, attention 10.4)  812 images/s  MFU 48 %  input 0.3 %"."""
    return (f"{describe_losses(values)}  {values['images_per_second']:.0f} images/s  "
            f"MFU {100 * values['mfu']:.0f} %  input {100 * values['input_wait']:.1f} %")
