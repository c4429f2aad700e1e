"""JSON from strangers: nested no deeper than MAX_DEPTH, no key twice, and no NaN where it is not asked for."""
import json
import re
from typing import Any

import numpy as np

MAX_DEPTH = 64                  # of lists and objects within each other: what people write has fewer than ten

# All but brackets: a string, or what is left of one that does not end, and whatever else. No byte is looked at twice.
_OTHER = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[^"\[\]{}]++', re.DOTALL)
_STEP = np.full(256, -1, np.int32)
_STEP[[ord("["), ord("{")]] = 1


def loads(text: str | bytes, nan: bool = False) -> Any:
    """The value of a JSON text.

    Args:
      text: bytes are UTF-8, a byte order mark before it is passed over.
      nan: also read NaN and Infinity, which pandas writes where it has no value.
    Raises: ValueError for anything else; UnicodeDecodeError is one.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    check_depth(text)
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=None if nan else _refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deep to be read.") from error


def check_depth(text: str) -> None:
    """Raises: ValueError for a JSON text that is nested deeper than MAX_DEPTH. It need not be JSON in other respects."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:  # it can't be deeper: most lines of JSON lines
        return
    brackets = _OTHER.sub(b"", text.encode("utf-8", "surrogatepass"))
    depth = int(np.max(np.cumsum(_STEP[np.frombuffer(brackets, np.uint8)], dtype=np.int32), initial=0))
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested {depth} deep, more than {MAX_DEPTH}.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"key {twice[:80]!r} is there twice; give each entry its own.")
    return values


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number.")
