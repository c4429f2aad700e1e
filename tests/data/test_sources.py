"""Which source a user's words mean, and the embedded one's options."""
import pytest

from cc_jax.data.readers import drawn
from cc_jax.data.sources import find_source, open_source


@pytest.mark.parametrize("spec", ["zip:x", "", "JSONL:x", "photos/captions.jsonl"])
def test_an_unknown_source_is_an_error_that_names_the_known_ones(spec):
    with pytest.raises(ValueError, match=r"is not known; use one of jsonl:PATTERN, tar:PATTERN.*, shapes"):
        open_source(spec)


@pytest.mark.parametrize("argument, expected", [
    ("", {"scenes": 16_000, "test_scenes": 1_000, "suite_scenes": 500, "seed": 0}),
    ("scenes=2000,seed=1", {"scenes": 2000, "test_scenes": 1_000, "suite_scenes": 500, "seed": 1}),
    ("scenes=1,test_scenes=0", {"scenes": 1, "test_scenes": 0, "suite_scenes": 500, "seed": 0}),
])
def test_options_of_shapes(argument, expected):
    assert drawn.parse(argument) == expected | {"counts": 0.0}


@pytest.mark.parametrize("argument", ["scene=1", "scenes=-1", "scenes=0", "scenes=", "scenes", "seed=1.5", "2000"])
def test_an_option_of_shapes_that_is_none_is_an_error(argument):
    with pytest.raises(ValueError, match="is not an option; use scenes=N, test_scenes=N, suite_scenes=N, seed=N"):
        open_source(f"shapes:{argument}")


def test_scenes_are_drawn_in_parts(monkeypatch):
    monkeypatch.setattr(drawn, "PART_SCENES", 4)
    parts = drawn.parts("scenes=6,test_scenes=3")
    assert [(part.name, part.records) for part in parts] == [("train:0", 4), ("train:4", 2), ("test:0", 3)]
    keys = [record.key for part in parts for record in part.read()]
    assert keys == [f"train-{i:06d}" for i in range(6)] + [f"test-{i:06d}" for i in range(3)]


def test_a_spec_may_hold_more_colons():
    assert find_source("jsonl:c:/x.jsonl")[1] == "c:/x.jsonl"
