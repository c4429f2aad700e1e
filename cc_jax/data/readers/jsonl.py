"""JSON lines: a line {"image": path, "caption": "..."} for each image, with the images beside the file.

    jsonl:photos/captions.jsonl     jsonl:gs://bucket/photos/{00..63}.jsonl.gz

A line may have "captions": ["...", ...] in place of "caption"; "split": "test" sets its image aside; "phrases" has the
phrases of the caption, or a list of them for each of the captions. An image must lie in the file's folder or below; a link
there may lead out of it. Blank lines are skipped.
"""
import posixpath
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO

from cc_jax import strict_json
from cc_jax.data.readers import files
from cc_jax.data.records import (
    MAX_IMAGE_BYTES,
    MAX_LINE_BYTES,
    BadRecord,
    Part,
    Record,
    Reject,
    check_split_name,
    excerpt,
    phrases_of,
)

FORM = "jsonl:PATTERN"
SUFFIXES = (".jsonl", ".jsonl.gz")
PART_LINES = 4096       # that one part reads; a compressed file, which can't be entered midway, is one part


def parts(argument: str) -> list[Part]:
    """A part for each PART_LINES lines of each file. Raises: FileNotFoundError."""
    return [part for file in _files(argument) for part in _parts_of(file)]


def _files(argument: str) -> list[files.File]:
    fs, path = files.filesystem(argument) if argument else (None, "")
    if not argument or fs.isdir(path):
        raise FileNotFoundError(f"source jsonl:{argument}: a folder; give the path of a file with a line "
                                '{"image": ..., "caption": ...} for each image.')
    return files.expand("jsonl", argument, SUFFIXES)


def _parts_of(file: files.File) -> list[Part]:
    """The parts of a file, by one look at all its lines."""
    if files.is_compressed(file):
        return [Part(file.name, partial(read_lines, file), file.url)]
    found, begin, begin_number, records, number = [], 0, 0, 0, 0
    try:
        with files.open_stream(file) as stream:
            for number, line in _lines(stream):
                records += bool(line is None or line.strip())
                if (number - begin_number) == PART_LINES:
                    found.append((begin, begin_number, records))
                    begin, begin_number, records = stream.tell(), number, 0
    except OSError:                     # reading will tell
        return [Part(file.name, partial(read_lines, file), file.url)]
    if records or not found:
        found.append((begin, begin_number, records))
    return [Part(f"{file.name}:{before + 1}", partial(read_lines, file, start, before, PART_LINES), file.url, count)
            for start, before, count in found]


def read_lines(file: files.File, start: int = 0, before: int = 0, most: int | None = None) -> Iterator[Record | Reject]:
    """The records of `most` lines from byte `start`, before which there are `before` lines; keys "FILE:LINE"."""
    fs, path = files.filesystem(file.url)
    folder = posixpath.dirname(path)
    try:
        with files.open_stream(file) as stream:
            stream.seek(start)
            for number, line in _lines(stream, before):
                if line is None or line.strip():
                    yield _parse_line(line, f"{file.name}:{number}", fs, folder)
                if most is not None and number - before == most:
                    return
    except FileNotFoundError as error:
        yield Reject(file.name, "file_missing", str(error))
    except files.READ_ERRORS as error:
        yield Reject(file.name, "read_failed", f"{type(error).__name__}: {error}")


def _lines(stream: BinaryIO, before: int = 0) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, line) of each line; None for one over MAX_LINE_BYTES, which is never held."""
    number = before
    while line := stream.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        else:
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _parse_line(line: bytes | None, key: str, fs: Any, folder: str) -> Record | Reject:
    if line is None:
        return Reject(key, "line_too_long", f"more than {MAX_LINE_BYTES} bytes.")
    try:
        fields = strict_json.loads(line, nan=True)
    except UnicodeDecodeError as error:
        return Reject(key, "not_utf8", f"byte {line[error.start]:#x} at {error.start}; save the file as UTF-8.")
    except ValueError as error:
        return Reject(key, "not_json", f"{error}: {excerpt(line.decode())}")
    if not isinstance(fields, dict):
        return Reject(key, "not_an_object", f"a {type(fields).__name__}: {excerpt(fields)}")
    if "image" not in fields or ("caption" in fields) == ("captions" in fields):
        return Reject(key, "record_keys", f"keys {excerpt(sorted(fields))}; there must be 'image' and either 'caption' or "
                                          "'captions'.")
    captions = [fields["caption"]] if "caption" in fields else fields["captions"]
    split = fields.get("split", "train")
    for name, value, kind in (("image", fields["image"], str), ("captions", captions, list), ("split", split, str)):
        if not isinstance(value, kind):
            return Reject(key, "record_types", f"{name!r} is a {type(value).__name__}: {excerpt(value)}; it must be a "
                                               f"{kind.__name__}.")
    try:
        check_split_name(split)
        phrases = phrases_of(fields.get("phrases"), len(captions))
        image = files.read_beside(fields["image"], fs, folder, MAX_IMAGE_BYTES)
    except BadRecord as error:
        return error.reject(key)
    return Record(key, image, tuple(captions), split, phrases)
