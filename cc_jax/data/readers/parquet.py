"""Parquet files with the bytes of images and their captions in columns, as img2dataset and Hugging Face write them.

    parquet:data/train-*.parquet     parquet:hf/{00000..00099}.parquet,image=image,captions=raw|short,phrases=nouns

An image is a column of bytes, or a struct {bytes, path}; a caption column has text or lists of texts. Only the columns
needed are read, a few rows at a time. Needs pyarrow: pip install -e '.[prepare]'.
"""
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from cc_jax.data.readers import captions, files, options
from cc_jax.data.records import MAX_IMAGE_BYTES, BadRecord, Note, Part, Record, Reject

FORM = "parquet:PATTERN[,image=COLUMN,captions=COLUMN|COLUMN,split=COLUMN,phrases=COLUMN]"
IMAGE_COLUMNS = ("image", "jpg", "png", "webp", "image_bytes", "img")
CAPTION_COLUMNS = ("caption", "captions", "text", "title", "txt")
PART_ROWS = 4096
BATCH_ROWS = 16                 # in memory at a time, beside pyarrow's own page of each column


@dataclass(frozen=True)
class Choice:
    """Which columns a user wants; None for the usual names, or for none of split and phrases."""
    image: str | None
    captions: list[str] | None
    split: str | None
    phrases: str | None


def parts(argument: str) -> list[Part]:
    """A part for each PART_ROWS rows of each file, in whole row groups.

    Raises: ValueError for options, and for columns that the first whole file lacks.
    """
    pattern, given = options.parse_argument("parquet", argument, ("image", "captions", "split", "phrases"))
    choice = Choice(given.get("image"), options.names(given.get("captions")), given.get("split"), given.get("phrases"))
    _types()
    found, checked = [], False
    for file in files.expand("parquet", pattern, (".parquet",)):
        footer = _footer(file)
        if footer and not checked:
            find_columns(footer.schema.to_arrow_schema(), choice, f"parquet {file.name}")
            checked = True
        found += _parts_of(file, footer, choice)
    return found


def _parts_of(file: files.File, footer: Any, choice: Choice) -> list[Part]:
    if not footer:                      # reading will tell
        return [Part(file.name, partial(read_file, file, choice), file.url)]
    found, first, row, rows = [], 0, 0, 0
    for group in range(footer.num_row_groups):
        rows += footer.row_group(group).num_rows
        if rows >= PART_ROWS or group == footer.num_row_groups - 1:
            found.append(Part(f"{file.name}:{row}", partial(read_file, file, choice, (first, group + 1)), file.url, rows))
            first, row, rows = group + 1, row + rows, 0
    return found


def read_file(
    file: files.File, choice: Choice, groups: tuple[int, int] | None = None,
) -> Iterator[Record | Reject | Note]:
    """The rows of a file, or of its row groups [first, end); keys "FILE:ROW" from 0.

    A broken row group is one reject, and the next group goes on.
    """
    try:
        with files.open_stream(file) as stream:
            yield from _read_groups(stream, file.name, choice, groups)
    except FileNotFoundError as error:
        yield Reject(file.name, "file_missing", str(error))
    except OSError as error:
        yield Reject(file.name, "read_failed", str(error))


def find_columns(schema: Any, choice: Choice, source: str) -> Choice:
    """The choice with all names filled in. Raises: ColumnError if one is not there or has another type."""
    image = options.choose(source, "image", choice.image, IMAGE_COLUMNS, schema.names)
    texts = [options.choose(source, "captions", name, CAPTION_COLUMNS, schema.names) for name in choice.captions or [None]]
    for name in filter(None, (choice.split, choice.phrases)):
        options.choose(source, "split" if name == choice.split else "phrases", name, (), schema.names)
    checks = [(image, _is_image, "bytes, or a struct {bytes, path}"),
              *((text, _is_texts, "text, or lists of text") for text in texts),
              *((name, _is_text, "text") for name in [choice.split] if name),
              *((name, _is_phrases, "lists of text, or of such lists") for name in [choice.phrases] if name)]
    for name, is_right, allowed in checks:
        if not is_right(schema.field(name).type):
            raise options.ColumnError(f"{source}: column {name!r} has the type {schema.field(name).type}; it must be "
                                      f"{allowed}.")
    return Choice(image, texts, choice.split, choice.phrases)


def _read_groups(stream: Any, name: str, choice: Choice, wanted: tuple[int, int] | None) -> Iterator[Record | Reject | Note]:
    try:
        parquet = _open(stream)
        choice = find_columns(parquet.schema_arrow, choice, name)
        sizes = [parquet.metadata.row_group(index).num_rows for index in range(parquet.num_row_groups)]
    except files.ReadFailed:
        raise
    except options.ColumnError as error:
        yield Reject(name, "columns_missing", f"{error}"[:500])
        return
    except Exception as error:
        yield Reject(name, "parquet_broken", f"{type(error).__name__}: {error}"[:500])
        return
    start, end = wanted or (0, len(sizes))
    first = sum(sizes[:start])
    for group, rows in enumerate(sizes[start:end], start):
        row, problem = first, "it has fewer rows than the file says"
        try:
            for batch in _batches(parquet, group, choice):
                yield from _records(batch, choice, name, row)
                row += batch.num_rows
        except files.ReadFailed:
            raise
        except Exception as error:      # broken bytes make pyarrow raise many things
            problem = f"{type(error).__name__}: {error}"
        if row < first + rows:
            yield Reject(f"{name}:{row}", "parquet_broken", f"rows {row} to {first + rows - 1}: {problem}"[:500])
        first += max(rows, row - first)


def _batches(parquet: Any, group: int, choice: Choice) -> Iterator[Any]:
    is_struct = _types().is_struct(parquet.schema_arrow.field(choice.image).type)
    wanted = [choice.image + ".bytes" if is_struct else choice.image, *choice.captions,
              *filter(None, (choice.split, choice.phrases))]
    return parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=wanted, use_threads=False)


def _records(batch: Any, choice: Choice, name: str, first: int) -> Iterator[Record | Reject | Note]:
    column = {field: batch.column(batch.schema.get_field_index(field)) for field in batch.schema.names}
    for row in range(batch.num_rows):
        try:
            image = _image(column[choice.image][row])
            texts = captions.flatten([_python(column[text][row]) for text in choice.captions])
            split = _python(column[choice.split][row]) if choice.split else "train"
            phrases = _python(column[choice.phrases][row]) if choice.phrases else None
        except BadRecord as error:
            yield error.reject(f"{name}:{first + row}")
        else:
            yield from captions.web_record(f"{name}:{first + row}", image, texts, split, phrases)


def _image(scalar: Any) -> bytes:
    if _types().is_struct(scalar.type) and scalar.is_valid:
        scalar = scalar["bytes"]
    if not scalar.is_valid:
        raise BadRecord("image_missing", "no bytes; images must be in the file, not beside it.")
    size = scalar.as_buffer().size
    if size > MAX_IMAGE_BYTES:
        raise BadRecord("image_bytes", f"{size} bytes, more than {MAX_IMAGE_BYTES}.")
    return scalar.as_py()


def _python(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        raise BadRecord("not_utf8", f"byte {error.object[error.start]:#x} at {error.start}.") from error


def _footer(file: files.File) -> Any:
    """What stands at a file's end; None if it can't be read."""
    try:
        with files.open_stream(file) as stream:
            return _open(stream).metadata
    except Exception:
        return None


def _open(stream: Any) -> Any:
    from pyarrow.parquet import ParquetFile
    return ParquetFile(stream, buffer_size=files.BUFFER_BYTES, pre_buffer=False)


def _types() -> Any:
    """pyarrow's tests of types. Raises: ValueError where it is not installed."""
    try:
        from pyarrow import types
    except ImportError as error:
        raise ValueError("parquet files need pyarrow, which is not installed: pip install -e '.[prepare]'.") from error
    return types


def _is_text(kind: Any) -> bool:
    types = _types()
    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind)


def _item(kind: Any) -> Any:
    """The type of a list's items; the type itself if it is none."""
    types = _types()
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return kind.value_type if is_list else kind


def _is_texts(kind: Any) -> bool:
    return _is_text(_item(kind))


def _is_phrases(kind: Any) -> bool:
    return _item(kind) != kind and _is_texts(_item(kind))


def _is_image(kind: Any) -> bool:
    types = _types()
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_image(kind.field(index).type)
    return types.is_binary(kind) or types.is_large_binary(kind)
