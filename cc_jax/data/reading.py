"""Records read from storage that fails for a while: tried again, with pauses; then a stop that names shard and record."""
import copy
from collections.abc import Mapping, Sequence
from threading import Event, Lock
from typing import Any

WAITS = (1.0, 5.0, 15.0, 40.0)      # seconds between the tries


class InputFailed(RuntimeError):
    """The input gives no more batches. What has been trained can be saved."""


class Records(Sequence):
    """The records of a data source of TFDS, `dataset.open_split`. Safe from many threads."""

    def __init__(self, source: Sequence[Mapping], waits: Sequence[float] = WAITS):
        self._source, self._waits = source, waits
        self._lock, self._closed = Lock(), Event()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Raises InputFailed after the last try."""
        source = self._source
        for wait in (*self._waits, None):
            try:
                return source[index]
            except Exception as error:      # of ArrayRecord, TFDS and the system: whatever a failing disk makes them raise
                if wait is None or self._closed.wait(wait):
                    tries = len(self._waits) + 1
                    raise InputFailed(f"{self.place(index)} can't be read, tried {tries} times: {type(error).__name__}: "
                                      f"{error}. Copy that file again, or mend the filesystem; the same command then "
                                      "resumes.") from error
            source = self._reopened(source)

    def place(self, index: int) -> str:
        """Which record of which shard."""
        files = getattr(getattr(self._source, "data_source", None), "_read_instructions", ())
        for file in files:
            if index < file.num_records:
                return f"record {file.start + index} of {file.filename}"
            index -= file.num_records
        return f"record {index}"

    def close(self) -> None:
        """No more tries."""
        self._closed.set()

    def _reopened(self, failed: Sequence[Mapping]) -> Sequence[Mapping]:
        """A source with new readers, as one that failed once always does: made by the first of the threads that ask."""
        with self._lock:
            if self._source is failed:
                self._source = copy.copy(failed)
                if hasattr(failed, "data_source"):
                    self._source.data_source = copy.copy(failed.data_source)    # its copies begin without readers
            return self._source
