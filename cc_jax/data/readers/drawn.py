"""The embedded dataset, drawn on the spot: shapes, or shapes:scenes=2000,test_scenes=100,suite_scenes=100,seed=1."""
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cc_jax.data.records import Part, Record

FORM = "shapes[:scenes=N,test_scenes=N,suite_scenes=N,seed=N]"
PART_SCENES = 2000      # that one part draws


def parts(argument: str) -> list[Part]:
    """A part for each PART_SCENES scenes of each split. Raises: ValueError."""
    options = parse(argument)
    return [Part(f"{split}:{start}", partial(draw, split, start, stop := min(start + PART_SCENES, scenes), options["seed"]),
                 records=stop - start)
            for split, scenes in (("train", options["scenes"]), ("test", options["test_scenes"]))
            for start in range(0, scenes, PART_SCENES)]


def draw(split: str, start: int, stop: int, seed: int) -> Iterator[Record]:
    """The scenes [start, stop) of a split."""
    from cc_jax.data import shapes  # drawing is of no use to other sources
    return (Record(*record) for record in shapes.records(split, start, stop, seed))


def write_suite(argument: str, directory: Path) -> None:
    """The embedded dataset's compositional test, as DIR/suite."""
    from cc_jax.data import shapes_suite
    options = parse(argument)
    shapes_suite.write_suite(directory / "suite", options["suite_scenes"], options["seed"])


def parse(argument: str) -> dict[str, int]:
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
