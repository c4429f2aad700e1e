"""The embedded dataset, drawn on the spot: shapes, or shapes:scenes=2000,test_scenes=100,suite_scenes=100,seed=1.

With counts=0.2 a fifth of the scenes repeat objects and say how many there are (`shapes_counting`).
"""
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cc_jax.data.records import Part, Record

FORM = "shapes[:scenes=N,test_scenes=N,suite_scenes=N,seed=N,counts=SHARE]"
SUITES = "suite", "counting"
PART_SCENES = 2000      # that one part draws


def parts(argument: str) -> list[Part]:
    """A part for each PART_SCENES scenes of each split. Raises: ValueError."""
    options = parse(argument)
    return [Part(f"{split}:{start}",
                 partial(draw, split, start, stop := min(start + PART_SCENES, scenes), options["seed"], options["counts"]),
                 records=stop - start)
            for split, scenes in (("train", options["scenes"]), ("test", options["test_scenes"]))
            for start in range(0, scenes, PART_SCENES)]


def draw(split: str, start: int, stop: int, seed: int, counts: float) -> Iterator[Record]:
    """The scenes [start, stop) of a split, a share of them with counts."""
    from cc_jax.data import shapes_counting  # drawing is of no use to other sources
    return (Record(*record) for record in shapes_counting.records(split, start, stop, seed, counts))


def write_suite(argument: str, directory: Path) -> None:
    """The embedded dataset's compositional tests, as DIR/suite and, of counting, DIR/counting."""
    from cc_jax.data import shapes_counting, shapes_suite
    options = parse(argument)
    for name, module in (("suite", shapes_suite), ("counting", shapes_counting)):
        module.write_suite(directory / name, options["suite_scenes"], options["seed"])


def parse(argument: str) -> dict[str, int | float]:
    """"scenes=2000,seed=1" -> the options of `shapes`, the defaults filled in. Raises ValueError."""
    options = {"scenes": 16_000, "test_scenes": 1_000, "suite_scenes": 500, "seed": 0, "counts": 0.0}
    for pair in filter(None, argument.split(",")):
        name, _, text = pair.partition("=")
        share = name == "counts" and re.fullmatch(r"0|1|0?\.\d+", text)
        smallest = {"scenes": 1}.get(name, 0)
        if name not in options or not (share or name != "counts" and text.isdecimal() and int(text) >= smallest):
            raise ValueError(f"source shapes:{argument}: {pair!r} is not an option; use "
                             f"{', '.join(f'{key}=N' for key in options if key != 'counts')} with whole numbers, scenes "
                             "from 1, and counts=SHARE from 0 to 1.")
        options[name] = float(text) if share else int(text)
    return options
