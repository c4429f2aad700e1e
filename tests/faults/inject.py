"""Faults, put into a process of the real command before it starts: where it dies, what fails, what hangs.

    {"kill": ["manifest", 2]}       SIGKILL when it comes to that point the second time: see POINTS
    {"file_limit": [2048, 7, 12]}   from the 7th to the 12th update no file grows over so many bytes, as on a full disk
    {"unreadable": [60, 2]}         the 60th record that is read can't be, twice; None: ever
    {"hang": "decoding"}            the input hangs there: "reading", "decoding", "batching"
    {"evaluations_hang": 60}        evaluations take so many seconds longer
    {"tell": FOLDER}                no fault: writes there which examples are read, and hashes of what is saved and restored
    {"clock": [-7200, 5]}           the clock is set back by so many seconds at the 5th update
"""
import errno
import hashlib
import json
import math
import os
import resource
import signal
import threading
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from cc_jax import checkpoint, claim, manifest, metrics, saving, train
from cc_jax.data import dataset, pipeline
from cc_jax.evals import registry

HANG_AT = 60        # calls of what hangs, after which it does


def inject(faults: dict) -> None:
    for name, value in faults.items():
        globals()[name](*value if isinstance(value, list) else [value])


def wrap(owner: object, name: str, before: Callable = None, after: Callable = None) -> None:
    """Calls `before` and `after` a function of a class or module with the number of its call."""
    function, count = getattr(owner, name), [0]
    lock = threading.Lock()

    def wrapped(*args, **kwargs):
        with lock:
            count[0] += 1
            number = count[0]
        if before:
            before(number)
        result = function(*args, **kwargs)
        if after:
            after(number)
        return result
    setattr(owner, name, wrapped)


# name: (what is called there, whether the process dies before it or after)
POINTS = {
    "start": (claim, "claim", "before"), "step": (train.Loop, "record", "before"),
    "save": (saving.Saver, "save", "before"), "saving": (saving.Saver, "save", "after"),
    "manifest": (manifest, "write", "before"), "commit": (manifest, "write", "after"),
    "saved": (saving.Saver, "_settle", "after"), "evaluation": (train.Loop, "evaluated", "before"),
    "evaluated": (train.Loop, "evaluated", "after"), "metrics": (metrics.Writer, "write", "after"),
}


def kill(point: str, number: int) -> None:
    owner, name, when = POINTS[point]
    wrap(owner, name, **{when: lambda count: count == number and os.kill(os.getpid(), signal.SIGKILL)})


def at_update(number: int, act: Callable[[], None]) -> None:
    wrap(train.Loop, "record", after=lambda count: count == number and act())


def file_limit(size: int, first: int, last: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    at_update(first, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard)))
    at_update(last, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)))


def unreadable(number: int, times: int | None) -> None:
    """The record that is read as the so-manieth of the training data can't be read, so many times."""
    opened, calls, failing = dataset.open_split, [0], {}
    lock = threading.Lock()

    def open_split(*args):
        source = opened(*args)

        class Failing(type(source)):
            def __getitem__(self, index):
                with lock:
                    calls[0] += 1
                    if calls[0] == number:
                        failing[index] = math.inf if times is None else times
                    if failing.get(index, 0) > 0:
                        failing[index] -= 1
                        raise OSError(errno.EIO, os.strerror(errno.EIO))
                return super().__getitem__(index)
        source.__class__ = Failing
        return source
    dataset.open_split = open_split


def hang(stage: str) -> None:
    sleep = lambda number: number >= HANG_AT and time.sleep(10_000)
    if stage == "decoding":
        wrap(pipeline, "load", before=sleep)
    elif stage == "batching":
        wrap(pipeline, "lay_out", before=lambda number: number >= 6 and time.sleep(10_000))
    else:
        opened = dataset.open_split

        def open_split(*args):
            source = opened(*args)
            wrap(source.data_source, "_ensure_reader_exists", before=sleep)
            return source
        dataset.open_split = open_split


def clock(seconds: float, number: int) -> None:
    shift, now, now_ns = [0.0], time.time, time.time_ns
    time.time, time.time_ns = lambda: now() + shift[0], lambda: now_ns() + int(shift[0] * 1e9)
    at_update(number, lambda: shift.__setitem__(0, seconds))


def evaluations_hang(seconds: float) -> None:
    """Each evaluation takes so long before it begins."""
    make = registry.make

    def slow(block):
        evaluator = make(block)
        return lambda towers: (time.sleep(seconds), evaluator(towers))[1]
    registry.make = slow


def tell(folder: str) -> None:
    """FOLDER/PROCESS.jsonl: [number of an example, its record's key], ["saved" or "restored", step, hash of the state]."""
    file = open(f"{folder}/{os.getpid()}.jsonl", "a", buffering=1)
    write = lambda *line: file.write(json.dumps(line) + "\n")

    def digest(state):
        leaves = jax.tree.leaves(multihost_utils.process_allgather(state, tiled=True))
        return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()

    make_example, restore, save = train.make_example, checkpoint.restore, saving.Saver.save

    def making(*args):
        example = make_example(*args)
        return lambda record, number: (write(number, record["key"].decode()), example(record, number))[1]

    def restoring(manager, like, step):
        state = restore(manager, like, step)
        write("restored", step, digest(state))
        return state

    def saves(self, step, state):
        write("saved", step, digest(state))
        return save(self, step, state)
    train.make_example, checkpoint.restore, saving.Saver.save = making, restoring, saves
