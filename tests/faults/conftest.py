"""Runs of the real command in which something goes wrong, quick to start: a few seconds each."""
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from cc_jax import checkpoint, metrics

ROOT = Path(__file__).parent.parent.parent
STEPS = 24       # of config.py
ALL = os.environ.get("CC_JAX_FAULTS") == "all"


def pytest_configure(config):
    config.addinivalue_line("markers", "long: left to `make faults`.")


def pytest_collection_modifyitems(config, items):
    long = [] if ALL else [item for item in items if "long" in item.keywords]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@dataclass
class Process:
    """A run of the command. `number` is the process's, `log` what it says."""
    server: "Server"
    number: int
    workdir: Path
    log: Path

    def signal(self, number):
        os.kill(self.number, number)

    def ended(self, timeout):
        """Whether it ends within so many seconds."""
        try:
            file = os.pidfd_open(self.number)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([file], [], [], timeout)[0])
        finally:
            os.close(file)

    def wait(self, timeout=300):
        """Its exit code; of one that a signal ended, less than 0."""
        assert self.ended(timeout), self.log.read_text()
        return self.server.ask({"wait": self.number})

    def said(self):
        return self.log.read_text()

    def steps(self):
        """How many updates it has logged."""
        path = self.workdir / metrics.METRICS
        return len(path.read_text().splitlines()) if path.exists() else 0

    def reached(self, lines, timeout=120):
        """Waits until the run has written so many lines of metrics."""
        deadline = time.monotonic() + timeout
        while self.steps() < lines:
            assert time.monotonic() < deadline and not self.ended(0.005), self.said()

    def losses(self):
        """{step: {"loss": ..., "loss/...": ...}}, as exact as they were written."""
        return {line["step"]: {name: value for name, value in line.items() if name.startswith("loss")}
                for line in metrics.read(self.workdir) if "loss" in line}

    def logged(self):
        """The steps whose losses are written."""
        return list(self.losses()) if self.steps() else []

    def first_step(self):
        """After which step it resumed."""
        said = self.said()
        return int(said.split("after step ")[1].split()[0]) if "resuming" in said else 0


class Server:
    """Starts runs; see server.py."""

    def __init__(self, shapes_dir):
        self._shapes_dir, self._started = shapes_dir, []
        # Every program is kept: runs compile once, not each.
        environment = os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self._process = subprocess.Popen([sys.executable, Path(__file__).with_name("server.py")], cwd=ROOT, text=True,
                                         env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout.readline() == "ready\n"

    def ask(self, request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self, workdir, faults=None, data=None, place=(), devices=1, **changes):
        """Starts a run of config.py; `changes` are block__key=value, `place` the flags of one of several processes."""
        log = workdir.parent / f"{workdir.name}.{len(self._started)}.log"
        arguments = [f"--config=tests/faults/config.py:{data or self._shapes_dir}", f"--workdir={workdir}", *place,
                     *(f"--config.{name.replace('__', '.')}={value}" for name, value in changes.items())]
        number = self.ask({"start": arguments, "log": str(log), "faults": faults or {}, "devices": devices})
        self._started.append(Process(self, number, workdir, log))
        return self._started[-1]

    def start_several(self, count, *args, **kwargs):
        """Starts a run of `count` processes, with so many `devices` each."""
        if count == 1:
            return [self.start(*args, **kwargs)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
        return [self.start(*args, place=[address, f"--processes={count}", f"--process={process}"], **kwargs)
                for process in range(count)]

    def close(self):
        for process in self._started:
            if not process.ended(0):
                process.signal(signal.SIGKILL)
        self._process.stdin.close()
        self._process.wait(60)


@pytest.fixture(scope="session")
def server(shapes_dir):
    server = Server(shapes_dir)
    yield server
    server.close()


@pytest.fixture(scope="session")
def whole(server, tmp_path_factory):
    """{step: losses} of an undisturbed run."""
    begun, run = time.monotonic(), server.start(tmp_path_factory.mktemp("whole") / "run")
    assert run.wait() == 0, run.said()
    server.seconds = time.monotonic() - begun       # that a run takes here
    return run.losses()


@pytest.fixture(scope="session")
def check_resumes(server, whole):
    """Starts a run again, and claims that it goes on from the newest checkpoint to the end of the undisturbed curve."""
    def check(workdir, newest=None, **options):
        newest = max(checkpoint.saved_steps(str(workdir)), default=0) if newest is None else newest
        run = server.start(workdir, **options)
        assert run.wait() == 0, run.said()
        assert run.first_step() == newest, run.said()
        assert run.losses() == whole
        assert max(checkpoint.saved_steps(str(workdir))) == STEPS
        return run
    return check
