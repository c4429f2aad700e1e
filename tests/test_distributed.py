"""Several real processes as one run: the same losses in any number, refusals, kills, and going on in another number."""
import functools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from cc_jax import checkpoint, distributed, metrics, saved
from cc_jax.train import train
from configs import shapes_cc

ROOT = Path(__file__).parent.parent
# Long enough to be met in the middle, with room for phrases: no process leaves one out that another number would keep.
CHANGES = {"total_steps": 60, "checkpoint.every": 5, "concepts.rows": 3.0, "optim.lr": 1e-4,
           "evals.retrieval.every": 60, "evals.compositional.every": 60}


class Run:
    """`count` processes of one run, each a real command; what each says goes to a file."""

    def __init__(self, workdir, shapes_dir, count, changes=(), of_process=lambda process: ()):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.logs = [workdir.parent / f"{workdir.name}.{count}.{process}.log" for process in range(count)]
        options = [f"--config.{key}={value}" for key, value in (CHANGES | dict(changes)).items()]
        # Little code is made fast: most of these seconds would be the compiler's.
        environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
        self.processes = []
        for process, log in enumerate(self.logs):
            command = [sys.executable, "-m", "cc_jax.main", "--config", f"configs/shapes_cc.py:data={shapes_dir},runlocal",
                       *options, "--workdir", str(workdir), "--coordinator", address, "--processes", str(count), "--process",
                       str(process), *of_process(process)]
            with log.open("w") as file:
                self.processes.append(subprocess.Popen(command, cwd=ROOT, stderr=file, env=environment))

    def signal_at(self, lines, workdir, process, number):
        """Sends a signal to a process once the run has written so many lines of metrics."""
        path, deadline = workdir / metrics.METRICS, time.monotonic() + 900
        while not (path.exists() and len(path.read_text().splitlines()) >= lines):
            assert time.monotonic() < deadline and all(p.poll() is None for p in self.processes), self.said()
            time.sleep(0.01)
        self.processes[process].send_signal(number)

    def wait(self, timeout=900):
        """The processes' exit codes."""
        return [process.wait(timeout) for process in self.processes]

    def said(self):
        return [log.read_text() for log in self.logs]


@pytest.fixture
def start():
    """Starts a `Run`, of which nothing is left after the test."""
    runs = []

    def start(*arguments, **options):
        runs.append(Run(*arguments, **options))
        return runs[-1]
    yield start
    for process in (process for run in runs for process in run.processes):
        process.kill()
        process.wait()


def losses(workdir):
    return {line["step"]: line["loss"] for line in metrics.read(workdir) if "loss" in line}


def test_a_run_of_four_processes_killed_goes_on_with_two_and_then_one_on_the_curve_of_one(start, shapes_dir, tmp_path):
    """The two split the towers instead of the batch; told to stop, both save and end well."""
    config = shapes_cc.get_config(f"data={shapes_dir},runlocal").to_dict()
    for path, value in CHANGES.items():
        *blocks, key = path.split(".")
        functools.reduce(dict.__getitem__, blocks, config)[key] = value
    whole, several = tmp_path / "whole", tmp_path / "several"
    train(config, str(whole))

    four = start(several, shapes_dir, 4)
    four.signal_at(12, several, 2, signal.SIGKILL)
    codes = four.wait(60)  # the others notice in under a minute
    assert codes[2] == -signal.SIGKILL and all(code != 0 for code in codes)
    for process in (0, 1, 3):
        assert re.search("another process ended before|another task died", four.said()[process]), four.said()
    before = losses(several)

    two = start(several, shapes_dir, 2, {"mesh.data": 1, "mesh.tensor": 2})
    two.signal_at(len(before) + 5, several, 1, signal.SIGTERM)
    assert two.wait() == [0, 0], two.said()
    said = two.said()[0]
    first, last = (int(re.search(text + r" (\d+)", said)[1]) for text in ("resuming .* after step", "saved after step"))
    assert 0 < first <= max(before) < last < 60

    train(checkpoint.read_config(str(several)), str(several))
    found, wanted = losses(several), losses(whole)
    assert sorted(found) == sorted(wanted) == list(range(1, 61))
    assert found == pytest.approx(wanted, rel=1e-4) and found[1] == pytest.approx(wanted[1], rel=1e-6)
    assert all(line["phrases/overflow"] == 0 for line in metrics.read(several) if "loss" in line)
    a, b = (saved.open_run(str(workdir)) for workdir in (whole, several))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), a.params, b.params)


def test_processes_that_disagree_are_refused_by_all_of_them_with_the_values(start, shapes_dir, tmp_path):
    other_rate = lambda process: ["--config.optim.lr=0.5"] if process == 1 else []
    run = start(tmp_path / "run", shapes_dir, 2, of_process=other_rate)
    assert run.wait() == [1, 1]
    for said in run.said():
        assert "ConfigError: 1 of 2 processes were started differently from process 0" in said and "process 1 on" in said
        assert "config.optim.lr: 0.5 there, 0.0001 on process 0" in said and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_another_number_of_processes_or_code_is_a_disagreement():
    facts = {"--processes": "3", "code": "abc", "config.seed": "0"}
    hosts = [{"host": host, "facts": facts | other} for host, other in (
        ("a", {}), ("b", {}), ("c", {"--processes": "4", "code": "def"}))]
    assert distributed.disagreement(hosts[:2]) == ""
    found = distributed.disagreement(hosts)
    assert "1 of 3 processes were started differently from process 0 on a: process 2 on c" in found
    assert "(--processes: 4 there, 3 on process 0; code: def there, abc on process 0)" in found
