"""Stops a run whose input hangs, and says where: reading which record, decoding which, or putting a batch together."""
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock, Thread, get_ident
from typing import Any

from cc_jax.data.reading import InputFailed, Records

TIMEOUT = 600.0         # seconds without a batch: more than any storage that works takes


class Watched(Sequence):
    """Records, and the function that makes an example of one, that tell what each thread does with which."""

    def __init__(self, records: Records, example: Callable[[Mapping, int], dict]):
        self._records, self._example = records, example
        self._lock, self._doing = Lock(), {}        # of each thread: (since when, what)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        with self._stage(lambda: f"reading {self._records.place(index)}"):
            return self._records[index]

    def example(self, record: Mapping, number: int) -> dict:
        with self._stage(lambda: f"decoding the image and text of {record['key'].decode()}"):
            return self._example(record, number)

    def longest(self) -> str:
        """What has been done for longest."""
        with self._lock:
            since, what = min(self._doing.values(), key=lambda each: each[0], default=(None, None))
        return f"{what()}, for {time.monotonic() - since:.0f} s" if what else "putting the batch together"

    def close(self) -> None:
        self._records.close()

    @contextmanager
    def _stage(self, what: Callable[[], str]) -> Iterator[None]:
        with self._lock:
            self._doing[get_ident()] = time.monotonic(), what
        try:
            yield
        finally:
            with self._lock:
                del self._doing[get_ident()]


class Batches(Iterator):
    """The batches of an iterator, which a thread takes from it; the caller waits at most `timeout` seconds for each."""

    def __init__(self, batches: Iterator[dict], watched: Watched, timeout: float = TIMEOUT):
        self._batches, self._watched, self._timeout = batches, watched, timeout
        self._asked, self._ready = queue.SimpleQueue(), queue.SimpleQueue()
        Thread(target=self._take, name="batches", daemon=True).start()

    def __next__(self) -> dict:
        """Raises InputFailed, with what hangs, and what the iterator raises."""
        self._asked.put(True)
        try:
            batch, error = self._ready.get(timeout=self._timeout)
        except queue.Empty:
            raise InputFailed(f"no batch for {self._timeout:g} s (config.data.timeout): the input hangs in "
                              f"{self._watched.longest()}. See to what it waits for; the same command then "
                              "resumes.") from None
        if error is not None:
            raise error
        return batch

    def close(self) -> None:
        self._watched.close()
        self._asked.put(False)
        self._batches.close()

    def _take(self) -> None:
        while self._asked.get():
            try:
                self._ready.put((next(self._batches), None))
            except BaseException as error:      # StopIteration among them: the thread that asks gets it
                self._ready.put((None, error))
