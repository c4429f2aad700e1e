"""TSV and CSV files with the path of an image and its captions in columns, as CC3M and CC12M are kept.

    csv:photos/list.csv     csv:list.csv,image=path,captions=raw|short,split=part     tsv:cc3m/*.tsv,image=#2,captions=#1

Columns are chosen by the names in the first line, or, in files without such a line, by position from "#1". An image is
a path relative to its file, in that folder or below. Fields may be quoted; `quotes=no` takes quotation marks as they are.
"""
import csv
import posixpath
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from cc_jax.data.readers import captions, files, options
from cc_jax.data.records import MAX_IMAGE_BYTES, MAX_LINE_BYTES, BadRecord, Note, Part, Record, Reject, excerpt

FORM = "PATTERN[,image=COLUMN,captions=COLUMN|COLUMN,split=COLUMN,quotes=no]"
DELIMITERS = {"csv": ",", "tsv": "\t"}
IMAGE_COLUMNS = ("image", "filepath", "path", "image_path", "file_name", "filename")
CAPTION_COLUMNS = ("caption", "captions", "title", "text")
MAX_RECORD_LINES = 100          # a quotation mark that is never closed costs its own line, not what comes after it

csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))      # of the whole process; by default 131 072


@dataclass(frozen=True)
class Layout:
    """How a user says the tables are laid out."""
    kind: str                       # "csv" or "tsv"
    image: str | None               # columns by name, or "#1", ...; None for the usual names
    captions: list[str] | None
    split: str | None
    quotes: bool


@dataclass(frozen=True)
class Columns:
    """Where a table has what, counted from 0."""
    count: int
    image: int
    captions: list[int]
    split: int | None


def parts(kind: str, argument: str) -> list[Part]:
    """A part for each file of "csv:" or "tsv:". Raises: ValueError for options and for columns that the first lacks."""
    pattern, given = options.parse_argument(kind, argument, ("image", "captions", "split", "quotes"))
    if given.get("quotes", "yes") not in ("yes", "no"):
        raise ValueError(f"source {kind}:{argument}: quotes={given['quotes']}; use yes or no.")
    layout = Layout(kind, given.get("image"), options.names(given.get("captions")), given.get("split"),
                    given.get("quotes") != "no")
    tables = files.expand(kind, pattern, (f".{kind}", f".{kind}.gz"))
    for table in tables:
        if (first := _first_row(table, layout)) is not None:
            find_columns(first, layout, f"{kind} {table.name}")
            break
    return [Part(table.name, partial(read_table, table, layout), table.url) for table in tables]


def read_table(table: files.File, layout: Layout) -> Iterator[Record | Reject | Note]:
    """The rows of a table, keys "FILE:LINE"; what can't be used is rejected, what comes after it goes on."""
    fs, path = files.filesystem(table.url)
    try:
        with files.open_stream(table) as stream:
            yield from _records(_rows(stream, layout), layout, table.name, fs, posixpath.dirname(path))
    except FileNotFoundError as error:
        yield Reject(table.name, "file_missing", str(error))
    except files.READ_ERRORS as error:
        yield Reject(table.name, "read_failed", f"{type(error).__name__}: {error}")


def find_columns(first: list[str], layout: Layout, source: str) -> Columns:
    """Where the columns are, by the first row of a table. Raises: ColumnError if one is not there."""
    wanted = [layout.image, *(layout.captions or [None]), *filter(None, [layout.split])]
    if not has_header(layout):
        if not all(name and name.startswith("#") for name in wanted):
            raise options.ColumnError(f"{source}: columns {wanted} are chosen partly by position; choose all with #1, #2, "
                                      "..., both image= and captions=, or all by name.")
        places = [int(name[1:]) if name[1:].isdecimal() else 0 for name in wanted]
        if not all(1 <= place <= len(first) for place in places):
            raise options.ColumnError(f"{source}: there are no columns {', '.join(wanted)}; it has #1 to #{len(first)}.")
        image, *texts = [place - 1 for place in places]
        split = texts.pop() if layout.split else None
        return Columns(len(first), image, texts, split)
    image = options.choose(source, "image", layout.image, IMAGE_COLUMNS, first)
    texts = [options.choose(source, "captions", name, CAPTION_COLUMNS, first) for name in layout.captions or [None]]
    split = options.choose(source, "split", layout.split, (), first) if layout.split else None
    return Columns(len(first), first.index(image), list(map(first.index, texts)), first.index(split) if split else None)


def has_header(layout: Layout) -> bool:
    """Whether the first line names the columns: not where any is chosen by position."""
    return not any(name and name.startswith("#") for name in [layout.image, layout.split, *(layout.captions or [])])


def _records(
    rows: Iterable[tuple[int, list[str] | BadRecord]], layout: Layout, name: str, fs: object, folder: str,
) -> Iterator[Record | Reject | Note]:
    columns = None
    for line, row in rows:
        key = f"{name}:{line}"
        try:
            if isinstance(row, BadRecord):
                raise row
            if columns is None:
                columns = find_columns(row, layout, name)
                if has_header(layout):
                    continue
            if len(row) != columns.count:
                raise BadRecord("row_columns", f"{len(row)} columns, the first row has {columns.count}: {excerpt(row)}")
            image = files.read_beside(row[columns.image], fs, folder, MAX_IMAGE_BYTES)
        except BadRecord as error:
            yield error.reject(key)
            continue
        except options.ColumnError as error:    # another file than the first lacks it
            yield Reject(name, "columns_missing", f"{error}"[:500])
            return
        split = "train" if columns.split is None else row[columns.split]
        yield from captions.web_record(key, image, [row[place] for place in columns.captions], split)


def _first_row(table: files.File, layout: Layout) -> list[str] | None:
    """The first row that can be read, or None."""
    try:
        with files.open_stream(table) as stream:
            return next((row for _, row in _rows(stream, layout) if not isinstance(row, BadRecord)), None)
    except files.READ_ERRORS:                   # reading will tell
        return None


def _rows(stream: BinaryIO, layout: Layout) -> Iterator[tuple[int, list[str] | BadRecord]]:
    """(number of its first line, row) of each row that is not blank.

    Bytes that are not UTF-8 become half characters, which no caption may have.
    """
    quoting = csv.QUOTE_MINIMAL if layout.quotes else csv.QUOTE_NONE
    lines = _Lines(stream)
    while lines.more():
        lines.taken.clear()
        number = lines.number + 1
        try:
            row = next(csv.reader(lines, delimiter=DELIMITERS[layout.kind], quoting=quoting, strict=True))
        except (csv.Error, BadRecord) as error:
            lines.give_back()
            if isinstance(error, csv.Error):
                hint = "close quotation marks and double those inside, or use quotes=no."
                error = BadRecord("row_quotes", f"{error}; {hint}")
            yield number, error
        else:
            if row:
                yield number, row


class _Lines:
    """The lines of a table for `csv.reader`, of which all but the first of a broken row can be given back."""

    def __init__(self, stream: BinaryIO):
        self._stream, self._waiting, self.taken, self.number = stream, deque(), [], 0

    def more(self) -> bool:
        if not self._waiting and (line := self._stream.readline(MAX_LINE_BYTES)):
            self._waiting.append(line)
        return bool(self._waiting)

    def give_back(self) -> None:
        self._waiting.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if not self.more():
            raise StopIteration
        if len(self.taken) == MAX_RECORD_LINES or sum(map(len, self.taken)) > MAX_LINE_BYTES:
            raise BadRecord("row_quotes", f"a quoted field goes on for more than {len(self.taken)} lines; close the "
                                          "quotation mark, or use quotes=no.")
        line = self._waiting.popleft()
        self.taken.append(line)
        self.number += 1
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := self._stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            raise BadRecord("line_too_long", f"more than {MAX_LINE_BYTES} bytes.")
        text = line.decode("utf-8", "surrogateescape")
        return text.removeprefix("\ufeff") if self.number == 1 else text
