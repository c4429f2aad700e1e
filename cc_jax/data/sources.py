"""Readers of what users have: each yields records of encoded image and captions, or says why one can't be read."""
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from cc_jax.data.readers import drawn, folder, jsonl, parquet, table, tar, tfds
from cc_jax.data.records import Items, Part


@dataclass(frozen=True)
class Source:
    """A kind of source. Each function takes what stands after the colon of `name:argument`."""
    form: str                                               # how a user writes it
    parts: Callable[[str], list[Part]]                      # raises for what is wrong with the argument
    write_extras: Callable[[str, Path], None] | None = None     # files that belong in the dataset's folder


def find_source(spec: str) -> tuple[Source, str]:
    """The source and the argument that a spec "name" or "name:argument" means. Raises ValueError if unknown."""
    name, _, argument = spec.partition(":")
    if name not in SOURCES:
        forms = ", ".join(source.form for source in SOURCES.values())
        raise ValueError(f"source {spec!r} is not known; use one of {forms}.")
    return SOURCES[name], argument


def open_source(spec: str) -> Items:
    """The records of "jsonl:FILE", "shapes:scenes=2000,seed=1" or another of SOURCES, one at a time.

    Raises: ValueError for a source or an argument that is not known, FileNotFoundError; before the first record.
    """
    source, argument = find_source(spec)
    return chain.from_iterable(part.read() for part in source.parts(argument))


SOURCES: dict[str, Source] = {
    "jsonl": Source(jsonl.FORM, jsonl.parts),
    "tar": Source(tar.FORM, tar.parts),
    "tsv": Source("tsv:" + table.FORM, partial(table.parts, "tsv")),
    "csv": Source("csv:" + table.FORM, partial(table.parts, "csv")),
    "parquet": Source(parquet.FORM, parquet.parts),
    "folder": Source(folder.FORM, folder.parts),
    "tfds": Source(tfds.FORM, tfds.parts),
    "shapes": Source(drawn.FORM, drawn.parts, drawn.write_suite),
}
