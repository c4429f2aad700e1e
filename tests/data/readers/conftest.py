"""What the tests of the readers share: items sorted by kind, and random damage to a file."""
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import strategies as st

from cc_jax.data.readers import files
from cc_jax.data.records import Note, Record, Reject
from cc_jax.data.sources import open_source


@dataclass
class Items:
    """What a source yields, by kind."""
    records: list[Record] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    notes: Counter = field(default_factory=Counter)

    @property
    def reasons(self) -> list[tuple[str, str]]:
        return [(reject.key, reject.reason) for reject in self.rejects]

    @property
    def captions(self) -> dict[str, tuple]:
        return {record.key: record.captions for record in self.records}


def _read(spec: str) -> Items:
    items = Items()
    for item in open_source(spec):
        if isinstance(item, Record):
            items.records.append(item)
            assert isinstance(item.image, bytes) and item.key.encode() and isinstance(item.captions, tuple)
        elif isinstance(item, Reject):
            items.rejects.append(item)
            assert item.reason.isidentifier() and 0 < len(item.detail) < 1000 and item.key.encode()
        else:
            assert isinstance(item, Note) and item.key
            items.notes[item.reason] += 1
    assert len({record.key for record in items.records}) == len(items.records)
    return items


@pytest.fixture(scope="session")
def read():
    return _read


@st.composite
def _damages(draw, most: int = 3) -> list[tuple[str, float, bytes]]:
    kinds = st.sampled_from(["overwrite", "insert", "delete", "cut"])
    return draw(st.lists(st.tuples(kinds, st.floats(0, 1), st.binary(min_size=1, max_size=40)), min_size=1, max_size=most))


damages = _damages()


def damage(path: Path, data: bytes, changes: list[tuple[str, float, bytes]]) -> None:
    """Writes `data` with each change made somewhere, 0 to 1 of its length."""
    for kind, where, piece in changes:
        place = int(where * len(data))
        keep = {"overwrite": len(piece), "insert": 0, "delete": len(piece), "cut": len(data)}[kind]
        data = data[:place] + (piece if kind in ("overwrite", "insert") else b"") + data[place + keep:]
    path.write_bytes(data)


class FlakyFileSystem(MemoryFileSystem):
    """Objects in memory at flaky://; a read past `fails_after` bytes of an object fails `failures` times."""
    protocol = "flaky"
    store: dict = {}
    pseudo_dirs = [""]
    fails_after, failures, waits = 0, 0, []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    @classmethod
    def reset(cls, failures: int = 0, fails_after: int = 0) -> None:
        cls.failures, cls.fails_after = failures, fails_after

    def _open(self, path, mode="rb", **options):
        file = super()._open(path, mode, **options)
        return _FlakyFile(file, path) if mode == "rb" else file

    def cat_file(self, path, start=None, end=None, **options):
        self.fail(path, end or 0, ConnectionError("reset by peer"))
        return super().cat_file(path, start, end, **options)

    @classmethod
    def fail(cls, path: str, position: int, error: Exception) -> None:
        if position > cls.fails_after and cls.failures:
            cls.failures -= 1
            raise error


class _FlakyFile:
    def __init__(self, file, path):
        self._file, self._path, self.size = file, path, file.size
        self.seek, self._place = file.seek, 0

    def read(self, size):
        data = self._file.read(size)
        FlakyFileSystem.fail(self._path, self._file.tell(), FileNotFoundError(self._path))
        return data

    def close(self):
        pass


@pytest.fixture
def flaky(monkeypatch):
    """An empty flaky:// filesystem; waits before retries are recorded and not waited."""
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    FlakyFileSystem.store.clear()
    FlakyFileSystem.reset()
    FlakyFileSystem.waits = []
    monkeypatch.setattr(files.time, "sleep", FlakyFileSystem.waits.append)
    return FlakyFileSystem()
