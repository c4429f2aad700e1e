"""One run at a time in a workdir: a lock that the system lets go of when its holder ends, however that comes about."""
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import IO, Self

from cc_jax.config import ConfigError

LOCK = "lock"
PATIENCE = 3        # seconds: a killed process holds its files until the system has taken it down


class WorkdirLock:
    """Of several processes of a run the first takes it, for all. A bucket has no locks: there nothing is taken.

    Used as a context, it is let go of at the end; `take` when the workdir is to be written to.
    """

    def __init__(self, workdir: str):
        self._workdir, self._file = workdir, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        if self._file is not None:
            self._file.close()

    def take(self) -> None:
        """Raises ConfigError, naming who holds it, where another run does."""
        if "://" in self._workdir:
            return
        path = Path(self._workdir) / LOCK
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+")
        try:
            self._wait(file)
        except OSError:
            holder = file.read()
            file.close()
            raise ConfigError(f"workdir {self._workdir} is in use by {describe(holder)}; let that run end, or use another "
                              "--workdir.") from None
        self._file = file

    def sign(self) -> None:
        """Writes who holds the lock into it."""
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()
            json.dump({"host": socket.gethostname(), "process": os.getpid()}, self._file)
            self._file.flush()

    def _wait(self, file: IO) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def describe(holder: str) -> str:
    """Who holds a lock, by what it wrote."""
    try:
        known = json.loads(holder)
        return f"process {known['process']} on {known['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
