"""Several processes as one run: they meet, make sure that they run the same, and none is left when one ends."""
import hashlib
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import jax
from jax._src import distributed as jax_distributed  # its key-value store: what works before any device does
from jax.experimental import multihost_utils

from cc_jax.checkpoint import flatten
from cc_jax.config import ConfigError
from cc_jax.processes import Place

HEARTBEAT = 30          # seconds without a sign of life after which a process counts as dead
TOGETHER = 300          # seconds that the processes wait for each other at the start
LINGER = 3              # seconds that the first process stays after an error: JAX ends the others with it, in mid-message
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def start(place: Place | None, values: Mapping, workdir: str) -> None:
    """Joins the processes of a run, and makes sure that all are of the same run. Before anything else asks JAX for a device.

    Raises ConfigError on all of them, naming what differs and on which process.
    """
    if place is None:
        return
    # JAX ends a process that does not find the others without an exception: this line then says what it was told.
    print(f"{socket.gethostname()}: {place}", file=sys.stderr, flush=True)
    known = dict(cluster_detection_method=place.method) if place.method else dict(
        coordinator_address=place.coordinator, num_processes=place.processes, process_id=place.process,
        local_device_ids=place.local_devices, cluster_detection_method="deactivate")
    try:
        jax.distributed.initialize(initialization_timeout=TOGETHER, heartbeat_timeout_seconds=HEARTBEAT, **known)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"{place}: {error} For a process alone give --nodistributed.") from error
    agree(facts_of_run(values, workdir))


def facts_of_run(values: Mapping, workdir: str) -> dict[str, str]:
    """What must be the same on all processes: {name: value}."""
    config = flatten(json.loads(json.dumps(dict(values), default=str)))
    return {"--processes": str(jax_distributed.global_state.num_processes), "--workdir": workdir, "code": code_version(),
            **{f"version of {name}": metadata.version(name) for name in PACKAGES},
            **{f"config.{name}": str(value) for name, value in config.items()}}


def code_version() -> str:
    """A hash of the package's Python files."""
    root, found = Path(__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:12]


def agree(facts: Mapping[str, str]) -> None:
    """Raises ConfigError on every process where the facts of one differ from those of the first."""
    state, wait = jax_distributed.global_state, TOGETHER * 1000
    key = lambda process: f"cc_jax/facts/{process}"
    state.client.key_value_set(key(state.process_id), json.dumps({"host": socket.gethostname(), "facts": dict(facts)}))
    if state.process_id == 0:
        found = [json.loads(state.client.blocking_key_value_get(key(process), wait))
                 for process in range(state.num_processes)]
        state.client.key_value_set("cc_jax/verdict", disagreement(found) or "agreed")
    verdict = state.client.blocking_key_value_get("cc_jax/verdict", wait)
    if verdict != "agreed":
        jax.distributed.shutdown()      # all are here: none is cut off before it has said why
        raise ConfigError(verdict)


def disagreement(found: list[dict]) -> str:
    """What the processes' {"host", "facts"} differ in from the first's, or ""."""
    first, *others = found
    lines = []
    for process, other in enumerate(others, start=1):
        names = first["facts"].keys() | other["facts"].keys()
        differing = [name for name in sorted(names) if first["facts"].get(name) != other["facts"].get(name)]
        if differing:
            which = "; ".join(f"{name}: {other['facts'].get(name, 'not set')} there, {first['facts'].get(name, 'not set')} "
                              "on process 0" for name in differing[:5])
            lines.append(f"process {process} on {other['host']} ({which})")
    return lines and (f"{len(lines)} of {len(found)} processes were started differently from process 0 on {first['host']}: "
                      f"{', '.join(lines[:5])}; start all with the same command, config and code.") or ""


@contextmanager
def first_then_others(what: str) -> Iterator[None]:
    """The first process goes through the block before the others: they find done what it does."""
    if jax.process_count() > 1 and jax.process_index() > 0:
        multihost_utils.sync_global_devices(what)
    yield
    if jax.process_count() > 1 and jax.process_index() == 0:
        multihost_utils.sync_global_devices(what)


def stop(message: str, hangs: bool = False) -> NoReturn:
    """Ends this process with a message and status 1: at once where there are others, or a thread that `hangs`, for which a
    normal exit would wait."""
    state = jax_distributed.global_state
    if state.client is None and not hangs:
        raise SystemExit(message)
    print(message, file=sys.stderr, flush=True)
    if state.client is not None and state.process_id == 0:
        time.sleep(LINGER)
    os._exit(1)


def stop_after(error: BaseException) -> NoReturn:
    """`stop` after an error that nobody expected: where there are others, one of them may have ended before."""
    state = jax_distributed.global_state
    if state.client is None:
        raise error
    traceback.print_exception(error)
    stop(f"process {state.process_id} of {state.num_processes} ends after {type(error).__name__}. If this is a failed "
         "collective, another process ended before, and its log says why. Start all again with the same command, in any "
         "number: the run resumes from its last checkpoint.")
