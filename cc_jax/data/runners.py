"""Who prepares the parts: this process, several on this machine, or the workers of an Apache Beam runner."""
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from multiprocessing.connection import wait as wait_for

from cc_jax.data.part_work import Work
from cc_jax.data.records import Part
from cc_jax.progress import duration, grouped


def run_here(work: Work, parts: Mapping[int, Part], processes: int) -> None:
    """Prepares the parts in so many processes of this machine, showing progress.

    Processes are started anew (spawned): a script that asks for more than one needs `if __name__ == "__main__":`.
    Raises: OSError, and whatever else one of them does; parts that were finished by then stay so.
    """
    progress = Progress(parts.values())
    if min(processes, len(parts)) <= 1:
        for number, part in parts.items():
            work(number, part, progress.tick)
            progress.part_done()
    else:
        run_in_processes(work, parts, min(processes, len(parts)), progress)
    progress.show(last=True)


def run_in_processes(work: Work, parts: Mapping[int, Part], processes: int, progress: "Progress") -> None:
    """`run_here` in new processes, be it one."""
    context = multiprocessing.get_context("spawn")
    counts = context.Array("q", 2)              # of records and rejects, by all processes
    pool = ProcessPoolExecutor(processes, context, _begin, (work, counts))
    waiting = iter(parts.items())
    try:
        running = set()
        for number, part in waiting:
            running.add(pool.submit(_prepare, number, part))
            if len(running) >= 2 * processes:   # enough for all to have one to go on with
                running = _await(running, counts, progress)
        while running:
            running = _await(running, counts, progress)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _await(running: set, counts: Sequence[int], progress: "Progress") -> set:
    """Those still running when one or more have ended."""
    done = set()
    while not done:
        done, running = wait(running, 0.5, FIRST_EXCEPTION)
        progress.set(*counts)
    for future in done:
        future.result()
        progress.part_done()
    return running


def _begin(work: Work, counts: Sequence[int]) -> None:
    global _work, _counts
    _work, _counts = work, counts
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    wait_for([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _prepare(number: int, part: Part) -> None:
    def tick(records: int, rejects: int) -> None:
        with _counts.get_lock():
            _counts[0] += records
            _counts[1] += rejects
    _work(number, part, tick)


def run_on_beam(work: Work, parts: Mapping[int, Part], arguments: Sequence[str]) -> None:
    """Prepares the parts as an Apache Beam pipeline.

    Args:
      arguments: Beam's own, such as ["--runner=FlinkRunner", "--flink_master=host:8081"].
    Raises: RuntimeError for a failed pipeline.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    with beam.Pipeline(options=PipelineOptions(list(arguments))) as pipeline:
        _ = (pipeline
             | "Parts" >> beam.Create(list(parts.items()))
             | "Spread" >> beam.Reshuffle()
             | "Prepare" >> beam.MapTuple(_Counted(work)))


class _Counted:
    """The work on a part, with its records and rejects as counters of the Beam pipeline, which its monitor shows."""

    def __init__(self, work: Work):
        self._work = work

    def __call__(self, number: int, part: Part) -> int:
        from apache_beam.metrics import Metrics
        records, rejects = (Metrics.counter("cc_jax", name) for name in ("records", "rejected"))

        def tick(more: int, rejected: int) -> None:
            records.inc(more)
            rejects.inc(int(rejected))
        self._work(number, part, tick)
        return number


class Progress:
    """Shows progress on stderr: on a terminal in place every second, else a line every ten."""

    def __init__(self, parts: Sequence[Part]):
        counts = [part.records for part in parts]
        self._total, self._parts = None if None in counts else sum(counts), len(counts)
        self._records, self._rejected, self._done = 0, 0, 0
        self._start = self._shown = time.monotonic()
        self._live = sys.stderr.isatty()

    def tick(self, records: int, rejected: int) -> None:
        self.set(self._records + records, self._rejected + rejected)

    def set(self, records: int, rejected: int) -> None:
        self._records, self._rejected = records, rejected
        if time.monotonic() - self._shown >= (1 if self._live else 10):
            self.show()

    def part_done(self) -> None:
        self._done += 1

    def show(self, last: bool = False) -> None:
        self._shown = time.monotonic()
        seconds = self._shown - self._start
        line = progress_line(self._records, self._total, self._rejected, seconds, self._done, self._parts)
        end = "\n" if last or not self._live else ""
        print(f"\r{line:78}" if self._live else line, end=end, file=sys.stderr, flush=True)


def progress_line(
    records: int, total: int | None, rejected: int, seconds: float, parts: int = 0, all_parts: int = 0,
) -> str:
    """"2 000 of 8 000 records  500 records/s  rejected 3  ETA 12 s"; where the total is not known, by the parts done."""
    rate = records / max(seconds, 1e-9)
    share, of_total = (records / total, f" of {grouped(total)}") if total else (parts / max(all_parts, 1), "")
    in_parts = "" if total or not all_parts else f", {grouped(parts)} of {grouped(all_parts)} parts"
    eta = f"  ETA {duration(seconds * max(1 - share, 0) / share)}" if share else ""
    return f"{grouped(records)}{of_total} records{in_parts}  {rate:.0f} records/s  rejected {grouped(rejected)}{eta}"
