"""What stands after the colon of a source: a path, then the reader's options, "FILE,image=path,captions=raw|short"."""
import re
from collections.abc import Collection


class ColumnError(ValueError):
    """A table without a column that is wanted, or with another type there."""


def parse_argument(source: str, argument: str, known: Collection[str]) -> tuple[str, dict[str, str]]:
    """(path, options) of an argument; commas within the path, as in "{a,b}.tar", are its own.

    Raises: ValueError for an option that is not `known`, is empty or given twice, or a missing path.
    """
    path, *pairs = re.split(r",(?=[a-z_]*=)", argument)
    options = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in known or not value or name in options:
            raise ValueError(f"source {source}:{argument}: {pair!r} is not an option, or given twice; use "
                             f"{', '.join(f'{name}=...' for name in known)}.")
        options[name] = value
    if not path:
        raise ValueError(f"source {source}:{argument}: the path is missing; write {source}:PATH.")
    return path, options


def names(value: str | None) -> list[str] | None:
    """"raw|short" -> ["raw", "short"]; None where the option was not given."""
    return None if value is None else list(filter(None, value.split("|")))


def choose(source: str, what: str, wanted: str | None, defaults: Collection[str], found: Collection[str]) -> str:
    """The wanted column, else the first of `defaults` that was found. Raises ColumnError if it is not there."""
    for name in (wanted,) if wanted is not None else defaults:
        if name in found:
            return name
    asked = f"no column {wanted!r}" if wanted is not None else f"none of the columns {', '.join(defaults)}"
    raise ColumnError(f"{source}: {asked}; it has {', '.join(map(repr, list(found)[:30])) or 'none'}. Name the right one "
                      f"with {what}=COLUMN.")
