"""A long run of tiny steps, with evaluations and checkpoints: does what its process holds stay what it was?

    python tests/long_run.py --data datasets/shapes --workdir runs/long --steps 20000       # make long

Starts the command that trains, looks at its own memory, threads and open files while it runs, and says how they
changed between the first `--warm` steps and the end, and how large its logs have become. Linux only: it reads /proc.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, NamedTuple

ROOT = Path(__file__).parent.parent
WINDOWS = 20            # parts of the run after the warm-up, whose medians are compared
MIB = 2**20
PASSING = 4             # threads and files come and go, with saves


class Sample(NamedTuple):
    """What a process holds after a step."""
    step: int
    memory: int         # of its own, bytes
    threads: int
    files: int


def start(data: str, workdir: str, steps: int, every: int, environment: dict, said: IO, *more: str) -> subprocess.Popen:
    """A run of tiny steps, with evaluations and a checkpoint each `every` steps; `said` is the file that it writes to."""
    changes = dict(batch_size=4, total_steps=steps, log_every=max(10, steps // 1000), **{
        "checkpoint.every": every, "evals.retrieval.every": every, "evals.retrieval.limit": 16,
        "evals.compositional.every": every, "evals.compositional.limit": 2, "evals.pointing.every": every})
    return subprocess.Popen(
        [sys.executable, "-m", "cc_jax.main", "--config", f"configs/shapes_cc.py:data={data},runlocal", "--workdir", workdir,
         *(f"--config.{name}={value}" for name, value in changes.items()), *more],
        cwd=ROOT, env=environment, stderr=said)


def look(process: int, workdir: Path) -> Sample | None:
    """Now; None before the first line of metrics, and once the process has ended."""
    try:
        with (workdir / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            step = json.loads(file.read().decode().splitlines()[-1])["step"]
        proc = Path(f"/proc/{process}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        # Pages of files are left out: the system takes and gives them as it likes.
        own = sum(int(status[name].split()[0]) * 1024 for name in ("RssAnon", "VmSwap"))
        return Sample(step, own, len(os.listdir(proc / "task")), len(os.listdir(proc / "fd")))
    except (OSError, ValueError, IndexError, KeyError):     # a line that is being written, a process that has ended
        return None


def watch(process: subprocess.Popen, workdir: Path, seconds: float = 0.1) -> list[Sample]:
    """Samples until the process ends. Raises CalledProcessError where it failed."""
    samples = []
    while process.poll() is None:
        if sample := look(process.pid, workdir):
            samples.append(sample)
        time.sleep(seconds)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return samples


def windows(samples: list[Sample], warm: int, steps: int) -> list[Sample]:
    """Medians of the samples after `warm` steps, in WINDOWS equal parts of the run; parts without samples are left out."""
    parts = [[] for _ in range(WINDOWS)]
    for sample in samples:
        if sample.step >= warm:
            parts[min(WINDOWS - 1, WINDOWS * (sample.step - warm) // max(1, steps - warm))].append(sample)
    return [Sample(*map(int, map(statistics.median, zip(*part, strict=True)))) for part in parts if part]


def logs(workdir: Path) -> dict[str, int]:
    """The bytes of all that is not a checkpoint."""
    sizes = {}
    for path in workdir.rglob("*"):
        if path.is_file() and path.relative_to(workdir).parts[0] != "checkpoints":
            name = path.relative_to(workdir).parts[0]
            sizes[name] = sizes.get(name, 0) + path.stat().st_size
    return sizes


def plain(environment: dict) -> dict:
    """The environment without what the Makefile tells the allocator: most users' runs have none of it."""
    return {name: value for name, value in environment.items() if not name.startswith("MALLOC_")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--warm", type=int, default=1000)
    parser.add_argument("--growth", type=float, default=0.03, help="The most that memory may grow by.")
    parser.add_argument("--keep_malloc", action="store_true", help="Leave MALLOC_* in the environment.")
    a, more = parser.parse_known_args()
    began = time.monotonic()
    environment = dict(os.environ) if a.keep_malloc else plain(dict(os.environ))
    with start(a.data, a.workdir, a.steps, a.every, environment, sys.stderr, *more) as process:
        try:
            samples = watch(process, Path(a.workdir))
        finally:
            process.kill()
    medians = windows(samples, a.warm, a.steps)
    for each in medians:
        print(f"step {each.step:6d}  memory {each.memory / MIB:8.1f} MiB  threads {each.threads}  files {each.files}")
    growth = max(each.memory for each in medians) / medians[0].memory - 1
    print(f"{a.steps} steps in {time.monotonic() - began:.0f} s; memory at most {100 * growth:+.2f} % over that "
          f"after {a.warm} steps; bytes of logs: {logs(Path(a.workdir))}")
    more_of = lambda name: getattr(medians[-1], name) > getattr(medians[0], name) + PASSING
    if growth > a.growth or more_of("threads") or more_of("files"):
        raise SystemExit(f"what the process holds has grown: memory by more than {a.growth:.0%}, or threads, or open files.")


if __name__ == "__main__":
    main()
