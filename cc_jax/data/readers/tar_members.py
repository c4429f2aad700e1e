"""The members of a tar, also of a damaged one: reading goes on at the next header that is whole.

`tarfile` alone ends in silence at a broken header in the middle, at a missing end mark, and before what was appended.
"""
import tarfile
import zlib
from collections.abc import Generator, Iterator
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from cc_jax.data.readers.files import ReadFailed
from cc_jax.data.records import Reject

BLOCK = tarfile.BLOCKSIZE
MAX_DAMAGES = 100               # of one shard; then it is given up
MAX_MEMBERS = 2**22             # of one shard, whose names are held; the rest is not read
MAX_HEADER_BYTES = 2**20        # of a long name or a PAX header, which `tarfile` reads at once, whatever it says
_CHUNK = 2**20
_ZEROS = bytes(BLOCK)


class PlainMember(NamedTuple):
    """What is needed of a regular file with a short ASCII name."""
    name: str
    size: int


def members(stream: BinaryIO, shard: str) -> Iterator[PlainMember | tarfile.TarInfo | Reject]:
    """The members in order, and a reject for each damage: "tar_empty", "tar_broken", "tar_truncated", "tar_end".

    After MAX_MEMBERS comes the reject "tar_members", and no more. The caller may read a member's bytes, at which `stream`
    then stands, before it asks for the next. Raises: ReadFailed.
    """
    for count, member in enumerate(_members(stream, shard)):
        if count == MAX_MEMBERS:
            yield Reject(shard, "tar_members", f"more than {MAX_MEMBERS} members; split the shard.")
            return
        yield member


def _members(stream: BinaryIO, shard: str) -> Iterator[PlainMember | tarfile.TarInfo | Reject]:
    capped, damages = _Capped(stream), 0
    start = yield from _plain_members(stream)
    count = start                               # of members; of plain ones only whether there are any
    while start is not None:
        tar, problem = None, None
        try:
            stream.seek(start)
            tar = tarfile.TarFile(fileobj=capped, mode="r")
            while (member := tar.next()) is not None:
                tar.members.clear()             # `tarfile` keeps all it has met
                count += 1
                stream.seek(member.offset_data)
                yield member
        except ReadFailed:
            raise
        except Exception as error:              # broken bytes make `tarfile` and the decompressors raise nearly anything
            problem = f"{type(error).__name__}: {error}"[:200]
        try:
            damage, start = _look_on(stream, tar.offset if tar else start, problem)
        except ReadFailed:
            raise
        except Exception as error:              # of the decompressors
            damage, start = ("tar_truncated", f"{type(error).__name__}: {error}"[:200]), None
        if damage:
            yield Reject(shard, *damage)
            damages += 1
            if start is not None and damages == MAX_DAMAGES:
                yield Reject(shard, "tar_broken", f"given up at byte {start} after {damages} damages.")
                return
        elif count == 0:
            yield Reject(shard, "tar_empty", "no members, or no bytes at all.")


def _plain_members(stream: BinaryIO) -> Generator[PlainMember, None, int]:
    """The plain members that a tar begins with, in a tenth of the time `tarfile` takes; returns where another header is.

    Plain is a whole header of a regular file with a short ASCII name and nothing that another header may have said.
    """
    start = 0
    try:
        while True:
            stream.seek(start)
            block = stream.read(BLOCK)
            if (block[257:262] != b"ustar" or block[156] not in b"0\0" or block[345] or not block.isascii()
                    or zlib.adler32(block) & 0xFFFF != _sum_that_fits(block[148:156])):
                break
            end = block.index(0)                # of the name, which may have 100 bytes
            size = int(block[124:136].rstrip(b"\0 "), 8)
            if not 0 < end < 100 or block[end - 1] == ord("/") or size < 0:
                break
            yield PlainMember(block[:end].decode(), size)
            start += BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK
    except ReadFailed:
        raise
    except Exception:           # `tarfile` will tell, as it does of all that is not plain
        pass
    return start


@lru_cache(maxsize=4096)
def _sum_that_fits(checksum: bytes) -> int:
    """The lower half of the Adler-32 of an ASCII header with this checksum: 1 + the sum of its bytes, below 65 521.

    The checksum is that sum with spaces in its own place.
    """
    return 1 + int(checksum.rstrip(b"\0 "), 8) - len(checksum) * ord(" ") + sum(checksum)


def _look_on(stream: BinaryIO, stop: int, problem: str | None) -> tuple[tuple[str, str] | None, int | None]:
    """((reason, detail) of the damage at `stop`, or None; where the next header is, or None)."""
    stream.seek(stop)
    block = stream.read(BLOCK)
    if len(block) < BLOCK:
        if stop == 0 and not block:
            return None, None
        return ("tar_truncated", problem or f"it ends at byte {stop} without an end mark."), None
    ended = block == _ZEROS
    start, only_zeros = _next_header(stream, stop + BLOCK)
    if not ended:
        return ("tar_broken", f"at byte {stop}: {problem or 'a broken header'}; {_goes_on(start)}"), start
    if start is not None or not only_zeros:
        return ("tar_end", f"there are bytes after the end mark at {stop}; {_goes_on(start)}"), start
    return None, None


def _goes_on(start: int | None) -> str:
    return "no header follows." if start is None else f"reading goes on at {start}."


def _next_header(stream: BinaryIO, position: int) -> tuple[int | None, bool]:
    """(where the next whole header is, or None; whether there are only zeros before it)."""
    only_zeros = True
    while chunk := stream.read(_CHUNK):
        only_zeros = only_zeros and not chunk.strip(b"\0")
        found = chunk.find(b"ustar")
        while found >= 0:
            header = found - 257
            if header >= 0 and header % BLOCK == 0 and _is_header(chunk[header:header + BLOCK]):
                return position + header, only_zeros
            found = chunk.find(b"ustar", found + 1)
        position += len(chunk)
    return None, only_zeros


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


class _Capped:
    """A stream that refuses to read much at once: a header may say that its name has gigabytes."""

    def __init__(self, stream: BinaryIO):
        self.seek, self.tell, self._read = stream.seek, stream.tell, stream.read

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes, more than {MAX_HEADER_BYTES}")
        return self._read(size)
