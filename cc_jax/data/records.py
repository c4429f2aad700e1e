"""What readers share: the parts of a source; the records, rejects and notes they yield; the checks of a record."""
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MAX_LINE_BYTES = 2**24          # of one line, text file or table row: 16 MiB
MAX_IMAGE_BYTES = 2**26         # of one encoded image: 64 MiB

Phrases = tuple[list[Any] | None, ...]


@dataclass(frozen=True)
class Record:
    """One image and the captions it came with, all as the source has them: `prepare` checks image and captions."""
    key: str                            # unique within the source
    image: bytes                        # encoded: JPEG, PNG, ...
    captions: tuple[str, ...]
    split: str = "train"
    phrases: Phrases | None = None      # those that came with each caption; None where they are still to be found


@dataclass(frozen=True)
class Reject:
    """A record, or a whole file, that can't be used. `reason` is a slug to count by, `detail` what was found."""
    key: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Note:
    """Something to count that cost no record: a caption that was cleaned, a member of a shard that nothing needs."""
    key: str
    reason: str


Items = Iterator[Record | Reject | Note]


@dataclass(frozen=True)
class Part:
    """A piece of a source that is read on its own, by any process: the unit of work of a preparation."""
    name: str
    read: Callable[[], Items]           # gives the same items each time
    url: str | None = None              # of the file it is, or is in: a part whose file has changed is prepared anew
    records: int | None = None          # how many items to expect, for progress; None if unknown


class BadRecord(ValueError):
    """Raised inside a reader where a record can't be used: `reason` and `detail` as those of `Reject`."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def reject(self, key: str) -> Reject:
        return Reject(key, self.reason, self.detail)


def excerpt(value: Any) -> str:
    """At most 80 characters of a value's repr, as a hostile one may be endless."""
    text = value if isinstance(value, str) else repr(value)
    return repr(text[:80]) + ("..." if len(text) > 80 else "")


def check_split_name(split: Any) -> None:
    """Raises BadRecord "split_name" for a split that TFDS could not hold."""
    if split == "train":
        return
    if not isinstance(split, str) or not re.fullmatch(r"[A-Za-z0-9_]{1,64}", split, re.ASCII) or split == "all":
        raise BadRecord("split_name", f"{excerpt(split)}; use letters, digits and _, but not 'all'.")


def phrases_of(value: Any, captions: int) -> Phrases | None:
    """The field "phrases" of a record: a list of phrases, or null, for each caption; for a lone one also its list alone.

    Whether each is text and stands in its caption is for `prepare` to check.
    Raises: BadRecord "phrases_shape".
    """
    if value is None:
        return None
    if captions == 1 and isinstance(value, list) and not (len(value) == 1 and isinstance(value[0], list | None)):
        value = [value]
    if not (isinstance(value, list) and len(value) == captions and all(isinstance(part, list | None) for part in value)):
        raise BadRecord("phrases_shape", f"'phrases' is {excerpt(value)}; it must be a list of phrases, or null, for each "
                                         f"of the {captions} captions.")
    return tuple(value)
