"""Pointing: against brute force over pixels, on models that point by construction, and files with something wrong."""
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cc_jax.config import Config, ConfigError
from cc_jax.data import shapes, shapes_suite
from cc_jax.evals import pointing, registry
from cc_jax.evals.embedder import Embedder, Patches
from cc_jax.evals.pointing import inside, points
from cc_jax.saved import open_run

WORDS = ["left", "right", "nowhere"]


def looker(grids):
    """An embedder whose texts are one-hot by WORDS, and whose concept tokens of image i are `grids[i]` (h, w, 3)."""
    return Embedder(images=None, texts=lambda texts: np.stack([np.eye(3)[WORDS.index(text)] for text in texts]), params={},
                    at=None, patches=lambda files: (Patches(grid, None) for grid, _ in zip(grids, files, strict=True)))


def grid(height=2, width=4, **peaks):
    """Tokens that are like a word in the patch (row, column) given for it, and like no other."""
    tokens = np.zeros((height, width, 3))
    for word, patch in peaks.items():
        tokens[patch][WORDS.index(word)] = 1
    return tokens


def write(folder, *lines, name="pointing.jsonl", size=(40, 20)):
    Image.new("RGB", size).save(folder / "a.png")
    (folder / name).write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(folder / name)


def phrase(text, *boxes, **more):
    return {"text": text, "boxes": [list(box) for box in boxes], **more}


def test_phrases_point_at_any_box_of_theirs_and_categories_are_scored(tmp_path):
    left, right = (0, 0, 10, 10), (30, 10, 40, 20)
    file = write(tmp_path, {"image": "a.png", "phrases": [phrase("the Left", left, category="side"),
                                                          phrase("right", left, right, category="side")]}, "",
                 {"image": "a.png", "phrases": [phrase("right", left)]})
    embedder = looker([grid(left=(0, 0), right=(1, 3)), grid(right=(1, 3))])
    result = pointing.make(file)(embedder)
    assert result.scores() == {"pointing": 2 / 3, "side": 1.0, "items": 3, "expected": 3}
    assert result.outcomes["pointing"].chance == pytest.approx((1 + 2 + 1) / 3 / 8)
    assert result.outcomes["side"].chance == pytest.approx(3 / 2 / 8)
    assert list(result.outcomes["side"].ids) == list(result.outcomes["pointing"].ids)[:2] == ["1.0", "1.1"]
    assert set(result.outcomes["pointing"].clusters) == {str(tmp_path / "a.png")}
    scores = pointing.make(file, limit=1)(looker([grid(left=(0, 0), right=(0, 1))])).scores()
    assert (scores["pointing"], scores["items"], scores["expected"]) == (0.5, 2, 2)


def test_a_peak_shared_with_a_patch_outside_is_not_a_win(tmp_path):
    file = write(tmp_path, {"image": "a.png", "phrases": [phrase("left", (0, 0, 10, 10)), phrase("right", (0, 0, 40, 20))]})
    shared = grid(left=(0, 0)) + grid(left=(1, 1))
    scores = pointing.make(file)(looker([shared])).scores()
    assert scores["pointing"] == 0.5        # "right" is alike everywhere, and everywhere is in its box


boxes = st.tuples(*[st.integers(0, 30)] * 4).map(lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]) + 1,
                                                            max(b[1], b[3]) + 1))


@given(st.lists(boxes, min_size=1, max_size=4), st.integers(1, 8), st.integers(1, 8))
def test_a_patch_is_inside_where_its_middle_is(listed, height, width):
    """By integers alone: the middle of column c is at pixel 31 (2 c + 1) / (2 width) of 31."""
    within = inside(np.array(listed) / 31, height, width)
    for row in range(height):
        for column in range(width):
            middle_x, middle_y = 31 * (2 * column + 1), 31 * (2 * row + 1)
            on_edge = any(2 * width * x == middle_x for box in listed for x in box[::2]) or any(
                2 * height * y == middle_y for box in listed for y in box[1::2])
            expected = any(2 * width * x0 <= middle_x < 2 * width * x1 and 2 * height * y0 <= middle_y < 2 * height * y1
                           for x0, y0, x1, y1 in listed)
            assert on_edge or within[row, column] == expected


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6))
def test_points_is_the_place_of_the_greatest(seed, height, width):
    rng = np.random.default_rng(seed)
    attention, within = rng.integers(0, 4, (height, width)), rng.integers(0, 2, (height, width)).astype(bool)
    greatest = max(attention.ravel().tolist())
    places = [(i, j) for i in range(height) for j in range(width) if attention[i, j] == greatest]
    assert points(attention, within) == all(within[place] for place in places)


@pytest.mark.parametrize(("line", "message"), [
    ("{", "line 2: Expecting property name"),
    ([1], "line 2: no image is named"),
    ({"image": "/dev/zero", "phrases": [phrase("x", (0, 0, 1, 1))]}, "line 2: the image '/dev/zero' must be a path within"),
    ({"image": "b.png", "phrases": [phrase("x", (0, 0, 1, 1))]}, "line 2: the image .*b.png does not exist"),
    ({"image": "pointing.jsonl", "phrases": [phrase("x", (0, 0, 1, 1))]}, "line 2: .* can't be used: image_undecodable"),
    ({"image": "a.png"}, 'line 2: "phrases" is not a list'),
    ({"image": "a.png", "phrases": []}, 'line 2: "phrases" is not a list'),
    ({"image": "a.png", "phrases": [phrase("x", (0, 0, 1, 1))], "split": "x"}, "line 2: nothing reads 'split'; known"),
    ({"image": "a.png", "phrases": [phrase("x", (0, 0, 1, 1), label=1)]}, "line 2: nothing reads 'label'; known here: text"),
    ({"image": "a.png", "phrases": ["red"]}, 'line 2: a phrase has no "text"'),
    ({"image": "a.png", "phrases": [phrase(" ", (0, 0, 1, 1))]}, 'line 2: a phrase has no "text"'),
    ({"image": "a.png", "phrases": [phrase("x")]}, "line 2: phrase 'x': \"boxes\" is not a list"),
    ({"image": "a.png", "phrases": [phrase("x", (0, 0, 1))]}, r"line 2: phrase 'x': box \[0, 0, 1\]; use pixels"),
    ({"image": "a.png", "phrases": [phrase("x", (0, 0, 1, True))]}, "line 2: phrase 'x': box"),
    ({"image": "a.png", "phrases": [phrase("x", (0, 0, 1, float("nan")))]}, "line 2: phrase 'x': box"),
    ({"image": "a.png", "phrases": [phrase("x", (5, 0, 5, 1))]}, "line 2: phrase 'x': box"),
    ({"image": "a.png", "phrases": [phrase("x", (0, 0, 41, 1))]}, "x0 < x1 <= 40 and 0 <= y0 < y1 <= 20"),
    ({"image": "a.png", "phrases": [phrase("x", (0, 0, 1, 1), category="items")]}, "line 2: phrase 'x': category 'items'"),
    ({"image": "a.png", "phrases": [phrase("x", (0, 0, 1, 1), category=3)]}, "line 2: phrase 'x': category 3"),
])
def test_what_is_wrong_is_named_by_file_and_line(tmp_path, line, message):
    file = write(tmp_path, {"image": "a.png", "phrases": [phrase("x", (0, 0, 40, 20))]}, line)
    with pytest.raises(ConfigError, match=f"pointing.jsonl, {message}"
                       if message.startswith("line") else f"pointing.jsonl, line 2: .*{message}"):
        pointing.make(file)


def test_a_truncated_image_is_named_before_anything_is_embedded(tmp_path):
    file = write(tmp_path, {"image": "b.png", "phrases": [phrase("x", (0, 0, 1, 1))]})
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ConfigError, match="line 1: the image .*b.png can't be used: image_truncated"):
        pointing.make(file)


def test_a_missing_or_empty_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="there is no file nowhere.jsonl"):
        pointing.make("nowhere.jsonl")
    with pytest.raises(ConfigError, match="has no line"):
        pointing.make(write(tmp_path))


def test_images_may_lie_elsewhere_and_a_config_names_the_evaluator(tmp_path):
    (tmp_path / "lists").mkdir()
    file = tmp_path / "lists" / "mine.jsonl"
    write(tmp_path, {})
    file.write_text(json.dumps({"image": "a.png", "phrases": [phrase("left", (0, 0, 10, 10))]}))
    with pytest.raises(ConfigError, match="name the folder that holds it with `images`"):
        pointing.make(str(file))
    block = {"type": "pointing", "file": str(file), "images": str(tmp_path), "every": 3}
    evaluate = registry.make(Config(block, "evals.pointing"))
    assert evaluate(looker([grid(left=(0, 0))])).scores()["pointing"] == 1
    with pytest.raises(ConfigError, match="nothing reads evals.pointing.image; did you mean evals.pointing.images"):
        registry.make(Config(block | {"image": "x"}, "evals.pointing"))


def test_the_drawn_scenes_own_file_is_pointed_at_by_a_model_that_sees_their_boxes(tmp_path):
    """Each phrase of a scene is found by its words; the model looks at the cell of the object that has them all."""
    shapes_suite.write_suite(tmp_path / "suite", scenes=20, seed=3)
    scenes = json.loads((tmp_path / "suite" / "scenes.json").read_text())
    words = sorted({*shapes.COLOURS, *shapes.TEXTURES, *shapes.Spec().shapes})
    vector = lambda text: np.array([word in text.split() for word in words], float)

    def patches(files):
        for things, _ in zip(scenes.values(), files, strict=True):
            tokens = np.zeros((3, 3, len(words)))
            for thing in things:
                x0, y0, *_ = thing["box"]
                tokens[y0 // 16, x0 // 16] = vector(f"{thing['colour']} {thing['texture']} {thing['shape']}")
            yield Patches(tokens, None)

    [suite] = pointing.SUITES
    found = suite.look(tmp_path)
    assert found.block == {"type": "pointing", "file": str(tmp_path / "suite" / "pointing.jsonl")}
    assert found.says.endswith("120 phrases in 20 images") and suite.look(tmp_path / "images") is None
    result = registry.make(Config(found.block))(
        Embedder(images=None, texts=lambda texts: np.stack([vector(text) for text in texts]), params={}, at=None,
                 patches=patches))
    assert result.scores() == {"pointing": 1, "attributes_and_shape": 1, "shape": 1, "items": 120, "expected": 120}
    assert result.outcomes["pointing"].chance == pytest.approx(1 / 9)


def test_a_real_model_is_scored_by_the_attention_it_shows(tiny_run, shapes_dir):
    from cc_jax.evals.attention import make
    run = open_run(str(tiny_run))
    file = str(shapes_dir / "suite" / "pointing.jsonl")
    result, attend = pointing.make(file, limit=4)(run.embedder()), make(run)
    for picture in pointing.read(file)[:4]:
        maps = attend(picture.path.read_bytes(), [phrase.text for phrase in picture.phrases]).phrases
        for place, (phrase_, attention) in enumerate(zip(picture.phrases, maps, strict=True)):
            row, column = np.unravel_index(attention.argmax(), attention.shape)
            x, y = (column + 0.5) / 3, (row + 0.5) / 3
            expected = any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in phrase_.boxes)
            at = list(result.outcomes["pointing"].ids).index(f"{picture.line}.{place}")
            assert result.outcomes["pointing"].right[at] == expected
