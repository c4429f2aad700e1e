"""Drawn scenes against their pixels, and captions read back word by word against the scenes."""
import io
import re
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cc_jax.data import shapes
from cc_jax.data.phrases import noun_phrases
from cc_jax.data.shapes import Box, Mention, Relation, Scene, Spec, Statement, Thing

WORDS = {"colour": shapes.COLOURS, "texture": ("striped", "dotted"), "size": shapes.SIZES, "shape": Spec().shapes}
SIDES = {"left": "left", "right": "right", "above": "above", "over": "above", "below": "below", "under": "below"}
specs = st.sampled_from([Spec(), Spec(min_objects=2), Spec(min_objects=4, max_objects=4), Spec(res=96, grid=4)])


@st.composite
def scenes(draw) -> tuple[Scene, Statement]:
    """A scene and what is said of it."""
    spec = draw(specs)
    rng = shapes.generator(draw(st.integers(0, 10**6)), "train", draw(st.integers(0, 10**6)))
    scene = shapes.draw_scene(rng, spec)
    return scene, shapes.describe(rng, scene, spec)


def read(caption: str) -> tuple[list[dict[str, str]], list[tuple[str, str, str]]]:
    """(what is said of each object, (shape, side, shape) of each relation), by a reading of the words alone."""
    objects, relations, subject, side = [], [], None, None
    for word in re.findall(r"\w+|,", caption):
        if word == "a":
            objects.append({})
        elif word == ",":
            subject = None
        elif word in SIDES:
            side = SIDES[word]
        for kind, values in WORDS.items():
            if word in values:
                objects[-1][kind] = word
        if word in WORDS["shape"]:
            if side:
                relations.append((subject, side, word))
            else:
                subject = word
            side = None
    return objects, relations


def centre(thing: Thing) -> np.ndarray:
    return np.array([thing.box.x0 + thing.box.x1, thing.box.y0 + thing.box.y1]) / 2


@given(scenes())
def test_objects_have_colours_shapes_and_places_of_their_own(drawn):
    things = drawn[0].things
    assert len({thing.colour for thing in things}) == len({thing.shape for thing in things}) == len(things)
    taken = np.zeros((drawn[0].res, drawn[0].res), int)
    for thing in things:
        x0, y0, x1, y1 = thing.box
        assert 0 <= x0 < x1 <= drawn[0].res and 0 <= y0 < y1 <= drawn[0].res
        taken[y0:y1, x0:x1] += 1
    assert taken.max() == 1


@given(scenes())
def test_captions_say_of_every_object_what_it_is(drawn):
    scene, statement = drawn
    objects, _ = read(shapes.caption(statement))
    by_shape = {thing.shape: thing for thing in scene.things}
    assert len(objects) == len(by_shape) == len({each["shape"] for each in objects})
    for said in objects:
        thing = by_shape[said["shape"]]
        assert said["colour"] == thing.colour
        assert said.get("texture", "plain") == thing.texture
        assert said.get("size", thing.size) == thing.size


@given(scenes())
def test_relations_of_captions_are_to_be_seen(drawn):
    scene, statement = drawn
    _, relations = read(shapes.caption(statement))
    by_shape = {thing.shape: thing for thing in scene.things}
    assert len(relations) == len(statement.relations)
    for subject, side, other in relations:
        dx, dy = centre(by_shape[other]) - centre(by_shape[subject])
        distance = {"left": dx, "right": -dx, "above": dy, "below": -dy}[side]
        assert distance >= scene.res / 8            # clearly, not by a pixel


@given(scenes())
def test_each_mention_is_a_noun_phrase_to_the_extractor(drawn):
    mentions = [shapes.noun_phrase(mention).removeprefix("a ") for mention in drawn[1].mentions]
    assert noun_phrases(shapes.caption(drawn[1])) == mentions


@given(scenes())
def test_captions_are_true_and_stay_below_33_words(drawn):
    scene, statement = drawn
    assert shapes.holds(statement, scene)
    assert len(shapes.caption(statement).split()) <= 32


@given(scenes(), st.data())
def test_a_statement_with_one_thing_wrong_does_not_hold(drawn, data):
    scene, statement = drawn
    number = data.draw(st.integers(0, len(statement.mentions) - 1))
    mention = statement.mentions[number]
    thing = next(thing for thing in scene.things if thing.shape == mention.shape)
    kind = data.draw(st.sampled_from(sorted(WORDS)))
    present = {each.shape for each in scene.things} if kind == "shape" else {getattr(thing, kind)}
    wrong = data.draw(st.sampled_from([value for value in WORDS[kind] if value not in present]))
    mentions = list(statement.mentions)
    mentions[number] = replace(mention, **{kind: wrong})
    assert not shapes.holds(replace(statement, mentions=tuple(mentions)), scene)


def test_relations_hold_by_the_sides_of_boxes():
    ring = Thing("ring", "red", "small", "plain", Box(0, 0, 10, 10), (255, 0, 0))
    star = Thing("star", "blue", "small", "plain", Box(10, 5, 20, 15), (0, 0, 255))
    scene = Scene((ring, star), (200, 200, 200), 32)
    claim = lambda subject, name, other: shapes.holds(
        Statement((Mention(subject), Mention(other)), (Relation(0, name, 1),)), scene)
    assert claim("ring", "left", "star") and claim("star", "right", "ring")
    for subject, other in permutations(("ring", "star")):
        assert not claim(subject, "above", other) and not claim(subject, "below", other)    # their rows overlap
    assert not claim("star", "left", "ring") and not claim("ring", "left", "heart")


@given(scenes())
def test_pixels_are_background_outside_the_boxes_and_the_objects_colour_within(drawn):
    scene, _ = drawn
    image = shapes.render(scene)
    assert image.shape == (scene.res, scene.res, 3) and image.dtype == np.uint8
    outside = np.ones(image.shape[:2], bool)
    for x0, y0, x1, y1 in (thing.box for thing in scene.things):
        outside[y0:y1, x0:x1] = False
    assert (image[outside] == scene.background).all()
    for thing in scene.things:
        x0, y0, x1, y1 = thing.box
        pixels = image[y0:y1, x0:x1].reshape(-1, 3).astype(int)
        own = (np.abs(pixels - thing.rgb).max(1) <= 1).sum()
        white = (pixels.min(1) >= 250).sum()
        assert own >= 8
        assert (white >= 3) == (thing.texture != "plain")


def test_shapes_sizes_and_textures_all_look_different():
    """The nearest two of a size still differ in a twentieth of their pixels."""
    for side in (10, 15):
        looks = {}
        for shape in Spec().shapes:
            for texture in shapes.TEXTURES:
                box = Box(0, 0, side, side)
                thing = Thing(shape, "blue", "large", texture, box, shapes.COLOURS["blue"])
                looks[shape, texture] = shapes.render(Scene((thing,), (205, 205, 205), side)).astype(int)
        for a, b in combinations(looks, 2):
            assert (np.abs(looks[a] - looks[b]).max(-1) > 60).mean() >= 0.05, (a, b, side)


@pytest.mark.parametrize("texture", shapes.TEXTURES)
@pytest.mark.parametrize("shape", Spec().shapes)
def test_a_shape_fills_its_box(shape, texture):
    colour, white = shapes.stamp(shape, texture, 15)
    covered = (colour + white)[..., 0]
    assert covered.min() >= 0 and covered.max() <= 1
    assert all(edge.max() > 0.05 for edge in (covered[0], covered[-1], covered[:, 0], covered[:, -1]))


def test_records_are_the_same_again_wherever_one_begins():
    first = [*shapes.records("train", 0, 20, seed=3), *shapes.records("test", 0, 5, seed=3)]
    assert list(shapes.records("train", 10, 20, seed=3)) == first[10:20]
    assert [split for *_, split in first] == ["train"] * 20 + ["test"] * 5
    assert len({key for key, *_ in first}) == 25
    for _, image, captions, _ in first:
        assert np.asarray(Image.open(io.BytesIO(image))).shape == (48, 48, 3)
        assert len(captions) == 2


def test_seeds_and_splits_draw_other_scenes():
    images = [image for seed in (0, 1, 2) for split in ("train", "test")
              for _, image, _, _ in shapes.records(split, 0, 50, seed)]
    assert len(set(images)) == len(images)


def test_the_two_captions_of_a_scene_are_mostly_put_differently():
    different = [a != b for _, _, (a, b), _ in shapes.records("train", 0, 200)]
    assert np.mean(different) > 0.9


def test_a_spec_can_leave_textures_and_sizes_out():
    spec = Spec(textures=("plain",), sizes=("large",), share_size_said=0)
    for _, _, captions, _ in shapes.records("train", 0, 20, spec=spec):
        objects, _ = read(captions[0])
        assert all(set(said) == {"colour", "shape"} for said in objects)


@pytest.mark.parametrize("options, message", [
    (dict(min_objects=4), r"min_objects=4, max_objects=3: use 1 <= min <= max <= 6"),
    (dict(max_objects=8), r"max_objects=8: use 1 <= min <= max <= 6"),
    (dict(res=32), r"res=32 leaves a cell 10 pixels .* use res=36 or more"),
])
def test_a_spec_that_can_not_be_drawn_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        Spec(**options)
