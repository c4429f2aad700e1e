"""The loop: change an input, run a target on it, keep what did something new, report what must not happen.

A finding is an error that the target does not allow, a hang, memory beyond the bound, or the death of the process, which
`__main__` sees. Where Python can tell cheaply (sys.monitoring, 3.12 and later) new is a line of cc_jax that no input had
reached, and everywhere another outcome: an error from another place, or another answer of the target's.
"""
import contextlib
import faulthandler
import gc
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import mutate

CPU_SECONDS = 10                # of one run: more is a hang
WALL_SECONDS = 300              # the same where no Python runs that could notice; also of a process that waits
MAX_GROWTH = 2**28              # bytes that the peak of memory may grow by in one run
MAX_ALLOCATION = 2**31          # bytes beyond what the process had: asking for more is a MemoryError, no matter of luck
MAX_CORPUS = 500
TOOL = 4                        # of sys.monitoring's, one that debuggers and profilers leave
SMALLER_SECONDS = 10            # that are spent on making a finding's input smaller


@dataclass(frozen=True)
class Target:
    """Something that reads what strangers write."""
    run: Callable[[bytes, Path], Any]           # of an input, in a folder of its own; what it returns tells outcomes apart
    seeds: Callable[[], Sequence[bytes]]        # sound inputs
    allowed: tuple[type[Exception], ...] = ()   # what it may raise
    named: str = ""                             # what must stand in the message of that
    is_json: bool = False                       # or JSON lines
    tokens: tuple[bytes, ...] = ()
    json_within: tuple[Callable[[bytes], bytes], Callable[[bytes, bytes], bytes]] | None = None     # take out, put back
    speed: float = 1.0                          # runs of a short session, relative to others


@dataclass(frozen=True)
class Finding:
    kind: str                                   # the error's type, or "Hang", "Memory", "Death"
    place: str                                  # "file:line" it was raised at
    detail: str
    data: bytes = field(repr=False)


class Hang(KeyboardInterrupt):                  # which no `except Exception` on the way takes for its own
    pass


class Coverage:
    """Counts the lines of cc_jax that are reached for the first time."""

    def __init__(self):
        self.lines = 0
        if monitoring := getattr(sys, "monitoring", None):
            if monitoring.get_tool(TOOL) is None:
                monitoring.use_tool_id(TOOL, "fuzz")
            monitoring.register_callback(TOOL, monitoring.events.LINE, self._on_line)
            monitoring.set_events(TOOL, monitoring.events.LINE)
            monitoring.restart_events()

    def _on_line(self, code: Any, line: int) -> Any:
        self.lines += "/cc_jax/" in code.co_filename
        return sys.monitoring.DISABLE           # this line's job is done


def session(
    target: Target, folder: Path, seed: int, kept: Sequence[bytes] = (), runs: int | None = None,
    seconds: float | None = None, before: Callable[[bytes], None] = lambda data: None,
) -> Iterator[Finding]:
    """The findings of so many runs, or seconds, after one of each seed and kept input; one of each kind and place."""
    rng, coverage, start, watched = Random(seed), Coverage(), time.monotonic(), 0.0
    corpus, outcomes, places = [], set(), set()
    first = [*target.seeds(), *kept]
    run = 0
    while first or (run < runs if runs is not None else time.monotonic() - start < seconds):
        data = first.pop() if first else _next(target, rng, corpus)
        run += not first
        if time.monotonic() - watched > WALL_SECONDS / 10:  # not in each run, for it starts a thread
            watched = time.monotonic()
            faulthandler.dump_traceback_later(WALL_SECONDS, exit=True)
        before(data)
        lines = coverage.lines
        outcome = run_once(target, data, folder)
        if isinstance(outcome, Finding):
            if (where := (outcome.kind, outcome.place)) not in places:
                places.add(where)
                yield smallest(target, outcome, folder, before)
        elif outcome not in outcomes or coverage.lines > lines:
            outcomes.add(outcome)
            corpus.append(data)
            if len(corpus) > MAX_CORPUS:
                corpus.pop(rng.randrange(len(corpus)))


def _next(target: Target, rng: Random, corpus: Sequence[bytes]) -> bytes:
    data, changed = rng.choice(corpus), None
    if target.json_within and rng.random() < 0.7:
        take, put = target.json_within
        inner = take(data)
        changed = put(data, (rng.random() < 0.7 and mutate.change_json(inner, rng)) or mutate.change(inner, rng, [inner]))
    elif target.is_json and rng.random() < 0.6:
        changed = mutate.change_json(data, rng)
    return mutate.change(data, rng, corpus, target.tokens) if changed is None else changed


def run_once(target: Target, data: bytes, folder: Path) -> str | Finding:
    """What came of an input, in a word, or a finding."""
    held = _reset_peak()
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        try:
            outcome = repr(target.run(data, folder))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except Hang as error:
        return Finding("Hang", _place(error), f"more than {CPU_SECONDS} s of CPU", data)
    except BaseException as error:              # some libraries raise what is no Exception
        if not isinstance(error, target.allowed):
            return Finding(type(error).__name__, _place(error), "".join(traceback.format_exception(error))[-3000:], data)
        if target.named not in str(error):
            return Finding("Unnamed", _place(error), f"{error!r} does not name {target.named!r}", data)
        outcome = f"{type(error).__name__} {_place(error)}"
    if (growth := _memory("VmHWM") - held) > MAX_GROWTH:
        return Finding("Memory", "", f"{growth // 2**20} MiB more than before", data)
    return outcome


def smallest(target: Target, finding: Finding, folder: Path, before: Callable[[bytes], None]) -> Finding:
    """The finding with as much of its input left out as can be found in time."""
    if finding.kind in ("Hang", "Memory"):      # a peak is reached once, and a hang takes long
        return finding
    stop, size = time.monotonic() + SMALLER_SECONDS, len(finding.data) // 2
    while size and time.monotonic() < stop:
        start = 0
        while start < len(finding.data) and time.monotonic() < stop:
            data = finding.data[:start] + finding.data[start + size:]
            before(data)
            again = run_once(target, data, folder)
            if isinstance(again, Finding) and (again.kind, again.place) == (finding.kind, finding.place):
                finding = again
            else:
                start += size
        size //= 2
    return finding


def set_limits() -> None:
    """Makes a run that takes too long, or asks for much more memory than there is now, raise an error, in this process."""
    def hang(*_):
        raise Hang
    signal.signal(signal.SIGPROF, hang)
    gc.collect()
    resource.setrlimit(resource.RLIMIT_DATA, (_memory("VmData") + MAX_ALLOCATION, resource.RLIM_INFINITY))


def _memory(name: str) -> int:
    """Bytes of this process: "VmHWM" is the peak, "VmRSS" what is held, "VmData" what was asked for."""
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split(maxsplit=1)[0]) * 1024


def _reset_peak() -> int:
    """Lets the peak begin from what is held now, which it returns."""
    with contextlib.suppress(OSError):      # where that is not allowed, it is the highest of all runs
        Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _place(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tests/fuzz/engine" not in frame.filename]
    ours = [frame for frame in frames if "/cc_jax/" in frame.filename]
    return " ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in (ours[-1:] + frames[-1:])) or "?"
