"""Counting: captions and items checked by a reading of their words against a count of the scene's objects."""
import hashlib
import json
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_jax.data import shapes, shapes_counting, shapes_suite
from cc_jax.data.phrases import noun_phrases
from cc_jax.data.readers import drawn
from cc_jax.data.shapes import Box, Mention, Scene, Spec, Statement, Thing
from cc_jax.evals import pointing
from cc_jax.evals.suites import folder, sugarcrepe

COUNTS = {"a": 1, "two": 2, "three": 3, "four": 4}
SINGULAR = {f"{shape}{'es' if shape == 'cross' else 's'}": shape for shape in Spec().shapes} | {
    shape: shape for shape in Spec().shapes}
BLIND = ("swap_count", "count_binding")


def says_so(caption: str, scene: Scene) -> bool:
    """Whether every "NUMBER [texture] colour shape" of the words is how many such objects there are."""
    said = re.findall(r"\b(a|two|three|four) (striped |dotted )?(\w+) (\w+)", caption)
    assert said
    right = []
    for number, texture, colour, shape in said:
        assert shape.endswith("s") == (number != "a") or SINGULAR[shape] == "cross"
        there = [thing for thing in scene.things if (thing.colour, thing.shape) == (colour, SINGULAR[shape])
                 and texture.strip() in ("", thing.texture)]
        right.append(len(there) == COUNTS[number])
    return all(right)


@pytest.fixture(scope="module")
def suite():
    return shapes_counting.make_suite(100, seed=1)


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_a_scene_holds_two_kinds_of_alike_objects_and_captions_count_them(seed, first, second):
    rng = shapes.generator(seed, "train counting", 0)
    scene = shapes_counting.draw_scene(rng, first, second)
    counts = Counter((thing.shape, thing.colour, thing.texture) for thing in scene.things)
    assert sorted(counts.values()) == sorted((first, second))
    assert all(len({kind[i] for kind in counts}) == 2 for i in (0, 1))
    cells = {(thing.box.x0 // 16, thing.box.y0 // 16) for thing in scene.things}
    assert len(cells) == first + second
    statement = shapes_counting.describe(rng, scene)
    caption = shapes.caption(statement)
    assert shapes.holds(statement, scene) and says_so(caption, scene)
    assert noun_phrases(caption) == [shapes.noun_phrase(mention).removeprefix("a ") for mention in statement.mentions]
    assert not caption.startswith("there is " if max(counts.values()) == min(counts.values()) == 2 else "there is two")


def test_items_are_true_and_false_by_a_count_of_the_objects(suite):
    scenes, categories = suite
    assert {name: len(items) for name, items in categories.items()} == dict.fromkeys(shapes_counting.CATEGORIES, 100)
    for items in categories.values():
        for item in items:
            scene = scenes[item["filename"]]
            assert says_so(item["caption"], scene) and not says_so(item["negative_caption"], scene)


def test_only_the_number_differs_and_a_bag_of_words_is_at_chance_where_it_is_true_of_the_scene(suite):
    scenes, categories = suite
    for name, items in categories.items():
        for item in items:
            before, after = (Counter(item[key].split()) for key in ("caption", "negative_caption"))
            assert {*(before - after), *(after - before)} <= set(COUNTS)
            assert ((before - after).total() == 0) == (name == "swap_count")
        assert shapes_suite.bag_of_words_score(items, scenes) == (0.5 if name in BLIND else 1)


def test_exactly_as_many_as_a_mention_says_must_be_there():
    ring = Thing("ring", "red", "small", "plain", Box(0, 0, 9, 9), (255, 0, 0))
    scene = Scene((ring,) * 3, (200, 200, 200), 48)
    claim = lambda **said: shapes.holds(Statement((Mention("ring", **said),)), scene)
    assert claim(count=3) and claim() and claim(count=3, colour="red")
    assert not claim(count=2) and not claim(count=4) and not claim(count=3, colour="blue")


def test_more_objects_than_cells_are_refused():
    with pytest.raises(ValueError, match="5 . 5 objects don't fit into 9 cells"):
        shapes_counting.draw_scene(shapes.generator(0, "train counting", 0), 5, 5)


def test_a_share_of_the_scenes_count_and_the_others_stay_as_they_are():
    plain = list(shapes.records("train", 0, 400, seed=2))
    assert list(shapes_counting.records("train", 0, 400, seed=2, share=0)) == plain
    mixed = list(shapes_counting.records("train", 0, 400, seed=2, share=0.25))
    assert list(shapes_counting.records("train", 100, 200, seed=2, share=0.25)) == mixed[100:200]
    changed = [a for a, b in zip(mixed, plain, strict=True) if a != b]
    assert 0.18 < len(changed) / 400 < 0.32
    assert [key for key, *_ in mixed] == [key for key, *_ in plain]
    numbers = Counter(word for _, _, captions, _ in changed for word in captions[0].split() if word in COUNTS)
    assert set(numbers) == set(COUNTS)


def test_the_embedded_dataset_is_the_one_that_results_were_measured_on():
    """Captions, boxes and items of the first scenes, by a hash that must never change."""
    digest = hashlib.sha256()
    for split in ("train", "test"):
        for index in range(100):
            rng = shapes.generator(0, split, index)
            scene = shapes.draw_scene(rng)
            digest.update(repr((scene, [shapes.caption(shapes.describe(rng, scene)) for _ in range(2)])).encode())
    digest.update(json.dumps(shapes_suite.make_suite(50)[1]).encode())
    assert digest.hexdigest() == "38f8367bbb174aebf7810cdb3bfb989cd691998d63b396a87650c3e500f6b18d"


def test_a_prepared_dataset_has_the_test_of_counting_and_pointing(shapes_dir):
    categories = folder.categories(str(shapes_dir / "counting"), sugarcrepe.KEYS)
    assert {name: len(items) for name, items in categories.items()} == dict.fromkeys(shapes_counting.CATEGORIES, 40)
    images = shapes_dir / "counting" / "images"
    assert all((images / item["filename"]).is_file() for items in categories.values() for item in items.values())
    scenes = json.loads((shapes_dir / "counting" / "scenes.json").read_text())
    for picture in pointing.read(str(shapes_dir / "counting" / "pointing.jsonl")):
        for phrase in picture.phrases:      # its boxes are those of all objects that have its words
            there = [each["box"] for each in scenes[picture.path.name]
                     if set(phrase.text.split()) <= {each[key] for key in ("shape", "colour", "texture")}]
            np.testing.assert_allclose(phrase.boxes * 48, there)


@pytest.mark.parametrize("argument", ["counts=1.5", "counts=-0.1", "counts=x", "count=0.5", "scenes=0.5", "scenes=0"])
def test_options_that_can_not_be_are_named(argument):
    with pytest.raises(ValueError, match=f"shapes:{argument}: '{argument}' is not an option; .* counts=SHARE from 0 to 1"):
        drawn.parse(argument)


def test_the_source_draws_the_share_it_was_asked_for():
    [train, *_] = drawn.parts("scenes=60,test_scenes=0,counts=1")
    captions = [record.captions[0] for record in train.read()]
    assert len(captions) == 60 and all(not re.search("above|over|left", caption) for caption in captions)
    assert drawn.parse("counts=0.25,seed=3")["counts"] == 0.25 and drawn.parse("")["counts"] == 0
