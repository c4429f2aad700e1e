"""Numbers and times as progress lines show them, and the line of work that is counted."""
import operator
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def duration(seconds: float) -> str:
    """5025 -> "1 h 23 min"."""
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 3600 else f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def grouped(number: int) -> str:
    """12345 -> "12 345"."""
    return f"{number:,}".replace(",", " ")


def counted(items: Iterable[T], what: str) -> Iterator[T]:
    """The items; on stderr a line says how many have been taken, of how many where that is known, how fast, and the ETA.

    On a terminal it is rewritten twice a second, elsewhere there is a new one every ten seconds; short work says nothing.
    """
    total, live = operator.length_hint(items, 0), sys.stderr.isatty()
    start = shown = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - shown >= (0.5 if live else 10):
            shown, rate = now, count / (now - start)
            of_total, eta = (f" of {grouped(total)}", f"  ETA {duration((total - count) / rate)}") if total else ("", "")
            line = f"{grouped(count)}{of_total} {what}  {rate:.3g} a second{eta}"
            print(f"\r{line:70}" if live else line, end="" if live else "\n", file=sys.stderr, flush=True)
    if live and shown > start:
        print(file=sys.stderr)
