"""Files wherever they lie: patterns expanded, streams that survive a flaky network, images beside a table.

fsspec reads them, local, gs://, s3://, https:// and all else it knows: etils.epath stands on it too, but has neither
streams that seek within blocks nor a place to add retries, and pyarrow takes these streams as they are.
"""
import glob
import io
import itertools
import lzma
import os
import posixpath
import re
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cc_jax.data.records import BadRecord, excerpt

RETRY_SECONDS = (0.5, 2.0, 8.0)         # waits before reading a remote object again; then it is given up
MAX_FILES = 1_000_000                   # that one brace pattern may mean
BUFFER_BYTES = 2**20
_COMPRESSIONS = {".gz": "gzip", ".tgz": "gzip", ".bz2": "bz2", ".xz": "xz"}
READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)      # of the network, the disk and the decompressors
T = TypeVar("T")


class ReadFailed(OSError):
    """A remote object that could not be read, although it was tried again and again."""


@dataclass(frozen=True)
class File:
    """A file of a source: plain data, so another process may read it."""
    name: str       # below the folder that all files of the source share: an address for rejects and keys
    url: str


def expand(source: str, pattern: str, suffixes: tuple[str, ...]) -> list[File]:
    """The files that a pattern means: braces "{00000..01411}" or "{a,b}", globs, a folder's files with the suffixes.

    Braces keep their order, the rest is sorted. A single file of many may be missing: reading it will tell.
    Raises: FileNotFoundError if there is none, ValueError for a protocol that is not installed or known.
    """
    urls = {}
    for path in expand_braces(pattern):
        urls.update(dict.fromkeys(_matches(path, suffixes)))
    if not any(fs.exists(path) for fs, path in map(filesystem, urls)):
        raise FileNotFoundError(f"source {source}:{pattern}: no such file; give a file, a folder with files "
                                f"{' or '.join('*' + suffix for suffix in suffixes)}, or a pattern of them.")
    paths = [filesystem(url)[1] for url in urls]
    root = posixpath.commonpath([posixpath.dirname(path) for path in paths])
    return [File(posixpath.relpath(path, root), url) for path, url in zip(paths, urls, strict=True)]


def expand_braces(pattern: str) -> Iterator[str]:
    """"a-{00..10}.{x,y}" -> "a-00.x", "a-00.y", "a-01.x", ... as a shell would. Raises ValueError for too many."""
    pieces = re.split(r"\{([^{}]*)\}", pattern)                # text and the insides of braces, in turn
    choices, count = [], 1
    for i, piece in enumerate(pieces):
        choices.append(_choices(piece) if i % 2 else [piece])
        count *= len(choices[-1])
        if count > MAX_FILES:
            raise ValueError(f"{pattern!r} means {count} files or more, more than {MAX_FILES}; use a narrower pattern.")
    return map("".join, itertools.product(*choices))


def _choices(inside: str) -> list[str]:
    if bounds := re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", inside, re.ASCII):
        first, last = map(int, bounds.groups())
        if last - first >= MAX_FILES:
            raise ValueError(f"'{{{inside}}}' means more than {MAX_FILES} files; use a narrower pattern.")
        return [str(number).zfill(len(bounds[1])) for number in range(first, last + 1)]
    return inside.split(",") if "," in inside else ["{" + inside + "}"]


def _matches(path: str, suffixes: tuple[str, ...]) -> list[str]:
    fs, path = filesystem(path)
    if glob.has_magic(path) and not fs.exists(path):
        found = sorted(match for match in fs.glob(path) if match.endswith(suffixes) or fs.isfile(match))
    elif not path.endswith(suffixes) and fs.isdir(path):        # asked only where the name leaves it open: it is slow
        found = sorted(name for name in fs.ls(path, detail=False) if name.endswith(suffixes))
    else:
        found = [path]
    return [fs.unstrip_protocol(match) for match in found]


def filesystem(url: str) -> tuple[Any, str]:
    """(fsspec's filesystem, the path there). Raises ValueError where the protocol is unknown or not installed."""
    try:
        return fsspec.core.url_to_fs(os.path.expanduser(url))
    except ImportError as error:
        raise ValueError(f"{url}: {error}. Remote files need an extra: pip install -e '.[prepare]'.") from error


def open_stream(file: File) -> io.BufferedReader:
    """A seekable stream of a file's bytes, decompressed where its name ends in .gz, .tgz, .bz2 or .xz.

    Raises: FileNotFoundError or another OSError; ReadFailed, also while reading, where retries don't help.
    """
    fs, path = filesystem(file.url)
    if isinstance(fs, LocalFileSystem):
        if not os.path.isfile(path):            # a folder, or a pipe, which would block
            raise FileNotFoundError(f"no file {path}")
        raw = open(path, "rb", buffering=0)
    else:
        raw = _RetryingStream(fs, path)
    stream = io.BufferedReader(raw, BUFFER_BYTES)
    if compression := _COMPRESSIONS.get(posixpath.splitext(path)[1]):
        return io.BufferedReader(fsspec.compression.compr[compression](stream, mode="rb"), BUFFER_BYTES)
    return stream


def is_compressed(file: File) -> bool:
    """Whether `open_stream` decompresses it."""
    return posixpath.splitext(file.url)[1] in _COMPRESSIONS


def stamp(url: str) -> str:
    """What changes when a file does, as far as its filesystem tells: its size and times, or its version."""
    fs, path = filesystem(url)
    try:
        return fs.ukey(path)
    except Exception:               # no such file, or a filesystem that can't tell
        return ""


def retry(action: Callable[[], T], path: str, forget: Callable[[], None] = lambda: None) -> T:
    """What `action` returns, tried again after each wait of RETRY_SECONDS. `forget` drops what a failure spoilt."""
    for wait in (*RETRY_SECONDS, None):
        try:
            return action()
        except Exception as error:      # the filesystems raise their libraries' own, which share no ancestor
            forget()
            if wait is None:
                raise ReadFailed(f"{path}: {type(error).__name__}: {excerpt(str(error))}, {len(RETRY_SECONDS) + 1} times."
                                 ) from error
            time.sleep(wait)


class _RetryingStream(io.RawIOBase):
    """A remote object's bytes. A read that fails is tried again on a new connection, from where it was."""

    def __init__(self, fs: Any, path: str):
        super().__init__()
        self._fs, self._path, self._position, self._stream = fs, path, 0, None
        size = retry(self._find_size, path, self._forget)
        if size is None:
            raise FileNotFoundError(f"no file {path}")
        self._size = size

    def _find_size(self) -> int | None:
        try:
            size = self._connection().size
        except FileNotFoundError:
            return None                 # an answer, not a failure to try again
        if size is None:
            raise OSError("its server does not say how large it is")
        return size

    def _connection(self) -> BinaryIO:
        if self._stream is None:
            self._stream = self._fs.open(self._path, "rb")
        return self._stream

    def _forget(self) -> None:
        self._stream = None
        self._fs.invalidate_cache()

    def _read(self, size: int) -> bytes:
        stream = self._connection()
        if stream.size != self._size:
            raise OSError(f"its size changed from {self._size} to {stream.size} bytes")
        stream.seek(self._position)
        return stream.read(size)

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        data = retry(lambda: self._read(wanted), self._path, self._forget)
        buffer[:len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        super().close()


def read_beside(name: str, fs: Any, folder: str, max_bytes: int, what: str = "image") -> bytes:
    """The bytes of the file that a record names, in `folder` or below; a link there may lead out of it.

    Raises: BadRecord "image_path", "image_missing", "image_bytes" (or another `what`), or "read_failed".
    """
    if not name or name.startswith(("/", "\\")) or "\0" in name or ".." in PurePosixPath(name).parts:
        raise BadRecord(f"{what}_path", f"{excerpt(name)}; it must be relative to the file, without '..'.")
    path = f"{folder}/{name}"
    try:
        if isinstance(fs, LocalFileSystem):
            size, data = _read_local(path, max_bytes)
        else:
            data = retry(lambda: _fetch(fs, path, max_bytes + 1), path)
            size = len(data or b"")
    except ReadFailed as error:
        raise BadRecord("read_failed", str(error)) from error
    except OSError as error:                                # no permission, a name too long, ...
        raise BadRecord(f"{what}_missing", f"{excerpt(name)}: {error.strerror}") from error
    except UnicodeEncodeError as error:
        raise BadRecord(f"{what}_missing", f"{excerpt(name)} holds half a character.") from error
    if data is None:
        raise BadRecord(f"{what}_missing", f"no file {excerpt(path)}")
    if size > max_bytes:
        raise BadRecord(f"{what}_bytes", f"{excerpt(path)} has {size} bytes or more, more than {max_bytes}.")
    return data


def _read_local(path: str, most: int) -> tuple[int, bytes | None]:
    """(size, bytes); no bytes where there is no file, none read where there are more than `most`."""
    if not os.path.isfile(path):            # a folder, or a pipe, which would block
        return 0, None
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        return size, stream.read(size) if size <= most else b""


def _fetch(fs: Any, path: str, most: int) -> bytes | None:
    try:
        return fs.cat_file(path, start=0, end=most)
    except FileNotFoundError:
        return None                     # an answer, not a failure to try again
