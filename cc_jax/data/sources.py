"""Readers of what users have: each yields records of encoded image and captions, or says why one can't be read."""
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

MAX_LINE_BYTES = 2**24          # of one JSON line: 16 MiB
MAX_IMAGE_BYTES = 2**26         # of one encoded image: 64 MiB


@dataclass(frozen=True)
class Record:
    """One image and the captions it came with, all as the source has them: `prepare` checks image and captions."""
    key: str                    # unique within the source
    image: bytes                # encoded: JPEG, PNG, ...
    captions: tuple[str, ...]
    split: str = "train"


@dataclass(frozen=True)
class Reject:
    """A record that can't be used. `reason` is a slug to count by, `detail` what was found."""
    key: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Source:
    """A kind of source. Each function takes what stands after the colon of `name:argument`."""
    form: str                                               # how a user writes it
    read: Callable[[str], Iterator[Record | Reject]]
    count: Callable[[str], int | None]                      # records there are, for progress; None if unknown
    write_extras: Callable[[str, Path], None] | None = None     # files that belong in the dataset's folder


def find_source(spec: str) -> tuple[Source, str]:
    """The source and the argument that a spec "name" or "name:argument" means. Raises ValueError if unknown."""
    name, _, argument = spec.partition(":")
    if name not in SOURCES:
        forms = ", ".join(source.form for source in SOURCES.values())
        raise ValueError(f"source {spec!r} is not known; use one of {forms}.")
    return SOURCES[name], argument


def open_source(spec: str) -> Iterator[Record | Reject]:
    """The records of "jsonl:FILE", "shapes" or "shapes:scenes=2000,seed=1", one at a time.

    Raises: ValueError for a source or an argument that is not known, FileNotFoundError.
    """
    source, argument = find_source(spec)
    return source.read(argument)


def read_jsonl(path: str) -> Iterator[Record | Reject]:
    """Lines {"image": path relative to the file, "caption": str or "captions": [str, ...], "split": str, optional}.

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
        return Reject(key, "not_json", f"{error}: {_excerpt(line.decode())}")
    if not isinstance(fields, dict):
        return Reject(key, "not_an_object", f"a {type(fields).__name__}: {_excerpt(fields)}")
    if "image" not in fields or ("caption" in fields) == ("captions" in fields):
        return Reject(key, "record_keys", f"keys {_excerpt(sorted(fields))}; there must be 'image' and either "
                                          "'caption' or 'captions'.")
    captions = [fields["caption"]] if "caption" in fields else fields["captions"]
    split = fields.get("split", "train")
    for name, value, kind in (("image", fields["image"], str), ("captions", captions, list), ("split", split, str)):
        if not isinstance(value, kind):
            return Reject(key, "record_types", f"{name!r} is a {type(value).__name__}: {_excerpt(value)}; it must be a "
                                               f"{kind.__name__}.")
    if not re.fullmatch(r"[A-Za-z0-9_]{1,64}", split, re.ASCII) or split == "all":
        return Reject(key, "split_name", f"{_excerpt(split)}; use letters, digits and _, but not 'all'.")
    image = _read_image(fields["image"], folder)
    if isinstance(image, bytes):
        return Record(key, image, tuple(captions), split)
    return Reject(key, *image)


def _read_image(name: str, folder: Path) -> bytes | tuple[str, str]:
    """The bytes of an image file, or (reason, detail)."""
    if not name or name.startswith(("/", "\\")) or "\0" in name or ".." in PurePosixPath(name).parts:
        return "image_path", f"{_excerpt(name)}; it must be relative to the file, without '..'."
    try:
        path = folder / name
        if not path.is_file():
            return "image_missing", f"no file {path}"
        if (size := path.stat().st_size) > MAX_IMAGE_BYTES:
            return "image_bytes", f"{path} has {size} bytes, more than {MAX_IMAGE_BYTES}."
        return path.read_bytes()
    except OSError as error:                                # no permission, a name too long, ...
        return "image_missing", f"{_excerpt(name)}: {error.strerror}"
    except UnicodeEncodeError:
        return "image_missing", f"{_excerpt(name)} holds half a character."


def _excerpt(value: Any) -> str:
    """At most 80 characters of a value's repr, as a hostile one may be endless."""
    text = value if isinstance(value, str) else repr(value)
    return repr(text[:80]) + ("..." if len(text) > 80 else "")


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
    "shapes": Source("shapes[:scenes=N,test_scenes=N,suite_scenes=N,seed=N]", read_shapes, count_shapes, write_shapes_suite),
}
