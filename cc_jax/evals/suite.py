"""A suite that goes by a name: what it measures, what it needs, and what of it lies in a folder of evaluation data."""
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Found:
    """A suite found in a folder."""
    block: Mapping[str, Any]                # of a config's `evals` that evaluates it: its `type`, and that type's options
    says: str                               # what was found, in a line: "7 files, 7 511 items, 60 of their 1 561 images"


@dataclass(frozen=True)
class Suite:
    """`look(data)` finds the suite among the files of `data`, or gives None where they are not there."""
    name: str
    measures: str                           # in a line
    needs: str                              # the files under the folder of evaluation data, as they are published
    look: Callable[[Path], Found | None]
