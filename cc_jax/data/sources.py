"""Readers of what users have: each yields records of encoded image and captions, or says why one can't be read."""
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from fsspec.implementations.local import LocalFileSystem

from cc_jax.data import records
from cc_jax.data.readers import files, folder, parquet, table, tar, tfds
from cc_jax.data.records import MAX_IMAGE_BYTES, MAX_LINE_BYTES, BadRecord, Note, Record, Reject

Items = Iterator[Record | Reject | Note]


@dataclass(frozen=True)
class Source:
    """A kind of source. Each function takes what stands after the colon of `name:argument`."""
    form: str                                               # how a user writes it
    read: Callable[[str], Items]
    count: Callable[[str], int | None]                      # records there are, for progress; None if unknown
    write_extras: Callable[[str, Path], None] | None = None     # files that belong in the dataset's folder
    parts: Callable[[str], list[Callable[[], Items]]] | None = None     # the same as `read`, in pieces for many workers


def find_source(spec: str) -> tuple[Source, str]:
    """The source and the argument that a spec "name" or "name:argument" means. Raises ValueError if unknown."""
    name, _, argument = spec.partition(":")
    if name not in SOURCES:
        forms = ", ".join(source.form for source in SOURCES.values())
        raise ValueError(f"source {spec!r} is not known; use one of {forms}.")
    return SOURCES[name], argument


def open_source(spec: str) -> Items:
    """The records of "jsonl:FILE", "shapes:scenes=2000,seed=1" or another of SOURCES, one at a time.

    Raises: ValueError for a source or an argument that is not known, FileNotFoundError.
    """
    source, argument = find_source(spec)
    return source.read(argument)


def in_parts(
    form: str, parts: Callable[[str], list[Callable[[], Items]]], count: Callable[[str], int | None] = lambda _: None,
) -> Source:
    """A source whose files, or parts of them, can be read on their own; reading it reads them one after the other."""
    def read(argument: str) -> Items:
        readers = parts(argument)       # at once: what is wrong with the argument is found before the first record
        return chain.from_iterable(reader() for reader in readers)

    return Source(form, read, count, parts=parts)


def read_jsonl(path: str) -> Iterator[Record | Reject]:
    """Lines {"image": path relative to the file, "caption": str or "captions": [str, ...], "split": str, optional}.

    "phrases", optional, has the phrases of the caption, or a list of them for each of the captions.
    An image must lie in the file's folder or below; a link there may lead out of it. Blank lines are skipped.
    """
    file = _existing(path)
    return (_parse_line(line, f"{file.name}:{number}", file.parent) for number, line in _lines(file))


def count_lines(path: str) -> int:
    """Lines that are not blank."""
    return sum(1 for _ in _lines(_existing(path)))


def _existing(path: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        found = "a folder" if file.is_dir() else "no such file"
        raise FileNotFoundError(f"source jsonl:{path}: {found}; give the path of a file with a line "
                                '{"image": ..., "caption": ...} for each image.')
    return file


def _lines(file: Path) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, line) of the lines that are not blank; None for one over MAX_LINE_BYTES, which is never held."""
    with file.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES):
            number += 1
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                _skip_line(stream)
                yield number, None
            elif line.strip():
                yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _skip_line(stream: BinaryIO) -> None:
    while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
        pass


def _parse_line(line: bytes | None, key: str, folder: Path) -> Record | Reject:
    if line is None:
        return Reject(key, "line_too_long", f"more than {MAX_LINE_BYTES} bytes.")
    try:
        fields = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Reject(key, "not_utf8", f"byte {line[error.start]:#x} at {error.start}; save the file as UTF-8.")
    except (ValueError, RecursionError) as error:
        return Reject(key, "not_json", f"{error}: {records.excerpt(line.decode())}")
    if not isinstance(fields, dict):
        return Reject(key, "not_an_object", f"a {type(fields).__name__}: {records.excerpt(fields)}")
    if "image" not in fields or ("caption" in fields) == ("captions" in fields):
        return Reject(key, "record_keys", f"keys {records.excerpt(sorted(fields))}; there must be 'image' and either "
                                          "'caption' or 'captions'.")
    captions = [fields["caption"]] if "caption" in fields else fields["captions"]
    split = fields.get("split", "train")
    for name, value, kind in (("image", fields["image"], str), ("captions", captions, list), ("split", split, str)):
        if not isinstance(value, kind):
            return Reject(key, "record_types", f"{name!r} is a {type(value).__name__}: {records.excerpt(value)}; it must be "
                                               f"a {kind.__name__}.")
    try:
        records.check_split_name(split)
        phrases = records.phrases_of(fields.get("phrases"), len(captions))
        image = files.read_beside(fields["image"], LocalFileSystem(), str(folder), MAX_IMAGE_BYTES)
    except BadRecord as error:
        return error.reject(key)
    return Record(key, image, tuple(captions), split, phrases)


def read_shapes(argument: str) -> Iterator[Record]:
    """The embedded dataset's scenes."""
    options = shapes_options(argument)
    from cc_jax.data import shapes  # drawing is of no use to other sources

    return (Record(*record) for record in shapes.records(options["scenes"], options["test_scenes"], options["seed"]))


def count_shapes(argument: str) -> int:
    options = shapes_options(argument)
    return options["scenes"] + options["test_scenes"]


def write_shapes_suite(argument: str, directory: Path) -> None:
    """The embedded dataset's compositional test, as DIR/suite."""
    from cc_jax.data import shapes_suite
    options = shapes_options(argument)
    shapes_suite.write_suite(directory / "suite", options["suite_scenes"], options["seed"])


def shapes_options(argument: str) -> dict[str, int]:
    """"scenes=2000,seed=1" -> the options of `shapes`, the defaults filled in. Raises ValueError."""
    options = {"scenes": 16_000, "test_scenes": 1_000, "suite_scenes": 500, "seed": 0}
    for pair in filter(None, argument.split(",")):
        name, _, value = pair.partition("=")
        smallest = {"scenes": 1}.get(name, 0)
        if name not in options or not value.isdecimal() or int(value) < smallest:
            raise ValueError(f"source shapes:{argument}: {pair!r} is not an option; use "
                             f"{', '.join(f'{key}=N' for key in options)} with whole numbers, and scenes from 1.")
        options[name] = int(value)
    return options


SOURCES: dict[str, Source] = {
    "jsonl": Source("jsonl:FILE", read_jsonl, count_lines),
    "tar": in_parts(tar.FORM, tar.parts),
    "tsv": in_parts("tsv:" + table.FORM, partial(table.parts, "tsv")),
    "csv": in_parts("csv:" + table.FORM, partial(table.parts, "csv")),
    "parquet": in_parts(parquet.FORM, parquet.parts, parquet.count),
    "folder": in_parts(folder.FORM, folder.parts),
    "tfds": in_parts(tfds.FORM, tfds.parts, tfds.count),
    "shapes": Source("shapes[:scenes=N,test_scenes=N,suite_scenes=N,seed=N]", read_shapes, count_shapes, write_shapes_suite),
}
