"""The compositional test: every item checked by its words against its scene, and what a bag of words makes of it."""
import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from cc_jax.data import shapes, shapes_suite
from cc_jax.data.shapes import Mention, Spec, Statement
from cc_jax.evals.suites import folder, sugarcrepe

SPECS = {"three objects": Spec(), "four objects": Spec(min_objects=4, max_objects=4)}
SCENES = 100


@pytest.fixture(scope="module", params=list(SPECS))
def suite(request):
    """(scenes by filename, items by category)"""
    return shapes_suite.make_suite(SCENES, seed=1, spec=SPECS[request.param])


def bag(text: str) -> Counter:
    return Counter(text.replace(",", "").split())


def things(scene: shapes.Scene) -> dict[str, set[str]]:
    """{shape: its other words}"""
    return {thing.shape: {thing.colour, thing.texture, thing.size} for thing in scene.things}


def test_every_scene_has_an_item_of_every_category(suite):
    assert {category: len(items) for category, items in suite[1].items()} == {
        category: SCENES for category in shapes_suite.CATEGORIES}


@pytest.mark.parametrize("category", list(shapes_suite.CATEGORIES))
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_captions_hold_and_negatives_do_not(category, spec):
    rng = shapes.generator(2, "suite", 0)
    for _ in range(SCENES):
        scene = shapes.draw_scene(rng, spec)
        true, false = shapes_suite.make_pair(category, rng, scene, spec)
        assert shapes.holds(true, scene) and not shapes.holds(false, scene)
        assert shapes.caption(true) != shapes.caption(false)


@pytest.mark.parametrize("category", ["swap_object", "swap_attribute", "swap_relation"])
def test_a_swap_has_the_very_words_of_its_caption(suite, category):
    for item in suite[1][category]:
        assert bag(item["caption"]) == bag(item["negative_caption"])


def test_a_phrase_and_its_negative_have_one_word_each_that_is_true_of_the_scene_but_only_one_is_bound(suite):
    scenes, categories = suite
    kinds = Counter()
    for item in categories["phrase_binding"]:
        said = things(scenes[item["filename"]])
        *attributes, shape = item["caption"].split()[1:]
        *swapped, same = item["negative_caption"].split()[1:]
        assert same == shape and set(attributes) <= said[shape] and not set(swapped) <= said[shape]
        (wrong,) = set(swapped) - set(attributes)
        assert any(wrong in words for other, words in said.items() if other != shape)
        kinds[len(attributes), wrong in shapes.COLOURS] += 1
    assert set(kinds) == {(1, True), (2, True), (1, False), (2, False)}     # colours, textures, and both said


@pytest.mark.parametrize("category, removed, added", [
    ("replace_object", 1, 1), ("replace_attribute", 1, 1), ("add_attribute", 0, 1)])
def test_how_many_words_an_edit_changes(suite, category, removed, added):
    for item in suite[1][category]:
        before, after = bag(item["caption"]), bag(item["negative_caption"])
        assert ((before - after).total(), (after - before).total()) == (removed, added)


def test_objects_replaced_or_added_are_not_in_the_scene(suite):
    scenes, categories = suite
    for item in categories["replace_object"] + categories["add_object"]:
        new = bag(item["negative_caption"]) - bag(item["caption"])
        (shape,) = set(new) & set(Spec().shapes)
        assert shape not in things(scenes[item["filename"]])


def test_negatives_read_as_captions_do(suite):
    """Each is longer by at most one object's phrase or one relation, and no comma, article or word is out of place."""
    extra = {"add_object": 6, "add_relation": 4, "add_attribute": 1}
    for category, items in suite[1].items():
        for item in items:
            longer = len(item["negative_caption"].split()) - len(item["caption"].split())
            assert longer <= extra.get(category, 3)
            for text in (item["caption"], item["negative_caption"]):
                assert text == " ".join(text.split()) and " ," not in text and "a a " not in text


def test_a_bag_of_words_is_at_chance_where_words_only_change_places(suite):
    scenes, categories = suite
    scores = {category: shapes_suite.bag_of_words_score(items, scenes) for category, items in categories.items()}
    for category in ("swap_object", "swap_attribute", "swap_relation", "phrase_binding"):
        assert scores[category] == 0.5
    assert max(scores[category] for category in ("replace_relation", "add_relation")) < 0.6
    assert scores["replace_object"] == scores["add_object"] == 1


def test_true_words_are_those_of_objects_and_of_pairs():
    """A ring left of a star, in one row: "above" is true of nothing."""
    box = lambda x: shapes.Box(x, 0, x + 9, 9)
    thing = lambda shape, colour, x: shapes.Thing(shape, colour, "small", "dotted", box(x), (0, 0, 0))
    scene = shapes.Scene((thing("ring", "red", 0), thing("star", "blue", 16)), (200, 200, 200), 48)
    assert shapes_suite.true_words(scene) == {"ring", "star", "red", "blue", "small", "dotted", "left", "right"}


def test_the_oracle_of_scenes_with_known_sets():
    """Of four captions two are the same to it: 2 x 1 and 2 x 1/2 of 4."""
    thing = lambda shape, colour: shapes.Thing(shape, colour, "small", "plain", shapes.Box(0, 0, 9, 9), (0, 0, 0))
    scene = lambda *pairs: shapes.Scene(tuple(thing(*pair) for pair in pairs), (200, 200, 200), 48)
    scenes = [scene(("ring", "red"), ("star", "blue")), scene(("star", "red"), ("ring", "blue")),
              scene(("ring", "red"), ("star", "pink")), scene(("ring", "red"), ("heart", "blue"))]
    assert shapes_suite.retrieval_oracle(scenes, batch_size=4) == 0.75
    with pytest.raises(ValueError, match="batch_size=5 needs as many scenes, and there are 4"):
        shapes_suite.retrieval_oracle(scenes, batch_size=5)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_captions_of_a_batch_are_told_apart_by_their_bag_of_words(spec):
    """So training has no need to bind, which is what the embedded dataset must model. From the captions' own words."""
    known = {*spec.colours, *spec.shapes, *spec.textures}
    scenes, bags = [], []
    for index in range(512):
        rng = shapes.generator(0, "train", index)
        scenes.append(shapes.draw_scene(rng, spec))
        bags.append(frozenset(bag(shapes.caption(shapes.describe(rng, scenes[-1], spec)))) & known)
    batches = [bags[start:start + 128] for start in range(0, 512, 128)]
    found = np.mean([[1 / batch.count(own) for own in batch] for batch in batches])
    assert found >= 0.95
    assert shapes_suite.retrieval_oracle(scenes, 128) == pytest.approx(found, abs=0.02)     # other batches


def test_a_written_suite_is_read_by_the_evaluator(tmp_path):
    shapes_suite.write_suite(tmp_path / "suite", scenes=12, seed=5)
    categories = folder.categories(str(tmp_path / "suite"), sugarcrepe.KEYS)
    assert set(categories) == set(shapes_suite.CATEGORIES)
    objects = json.loads((tmp_path / "suite" / "scenes.json").read_text())
    for items in categories.values():
        assert items and all(item["filename"] in objects for item in items.values())
    for name, drawn in objects.items():
        image = np.asarray(Image.open(io.BytesIO((tmp_path / "suite" / "images" / name).read_bytes())))
        for each in drawn:
            x0, y0, x1, y1 = each["box"]
            colour = np.array(shapes.COLOURS[each["colour"]])
            assert (np.abs(image[y0:y1, x0:x1] - colour).max(-1) <= 13).any()     # colours vary by 12 levels


def test_the_same_seed_writes_the_same_files_and_another_does_not(tmp_path):
    contents = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        shapes_suite.write_suite(tmp_path / name, scenes=5, seed=seed)
        contents[name] = {str(path.relative_to(tmp_path / name)): path.read_bytes()
                          for path in sorted((tmp_path / name).rglob("*.*"))}
    assert contents["a"] == contents["b"] != contents["c"]
    assert len(contents["a"]) == len(shapes_suite.CATEGORIES) + 2 + 5


def test_no_scene_of_the_test_was_trained_on():
    seen = {image for split in ("train", "test") for _, image, _, _ in shapes.records(split, 0, 300, seed=0)}
    scenes, _ = shapes_suite.make_suite(100, seed=0)
    assert not seen & {shapes.png(shapes.render(scene)) for scene in scenes.values()}


def test_a_scene_without_a_negative_gives_none():
    """One object: nothing to exchange."""
    spec = Spec(min_objects=1, max_objects=1)
    rng = shapes.generator(0, "suite", 0)
    scene = shapes.draw_scene(rng, spec)
    assert shapes_suite.make_pair("swap_object", rng, scene, spec) is None
    assert shapes_suite.make_pair("replace_object", rng, scene, spec) is not None
    assert shapes.holds(Statement((Mention(scene.things[0].shape),)), scene)
