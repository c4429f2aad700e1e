"""Compositional suites evaluated: scores by category, ties, images found and missing, each thing embedded once."""
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cc_jax.config import ConfigError
from cc_jax.data.transforms import view
from cc_jax.evals import compositional
from cc_jax.evals.suites.items import Item, Picture


def write(folder, files, images=()):
    for name, items in files.items():
        (folder / f"{name}.json").write_text(json.dumps(items))
    (folder / "images").mkdir()
    for name in images:
        (folder / "images" / name).write_bytes(name.encode())
    return str(folder)


def item(filename, caption, negative):
    return {"filename": filename, "caption": caption, "negative_caption": negative}


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(stream, "png")
    return stream.getvalue()


class Lengths:
    """Prefers shorter texts, and can't tell apart those of one length. Keeps what it was given."""
    def images(self, files):
        self.pictures = list(files)
        return np.ones((len(self.pictures), 1))

    def texts(self, texts):
        self.given = list(texts)
        return -np.array([[len(text)] for text in texts], float)


class Looking(Lengths):
    """Opens the images, as a real model does."""
    def images(self, files):
        return np.stack([view(file, 4).reshape(-1)[:1] for file in files])


def test_scores_by_category_and_a_tie_is_not_a_win(tmp_path):
    suite = write(tmp_path, {
        "add": {"0": item("a.jpg", "a cat", "a black cat"), "1": item("b.jpg", "a dog here", "a dog")},
        "swap": [item("a.jpg", "cat and dog", "dog and cat")], "images": ["a.jpg"]}, ["a.jpg", "b.jpg"])
    found = compositional.make(suite)(Lengths())
    assert found.scores() == {"add": 0.5, "swap": 0.0, "macro": 0.25, "items": 3, "expected": 3}
    assert list(found.outcomes["add"].ids) == ["add/0", "add/1"]
    assert list(found.outcomes["add"].clusters) == ["a.jpg", "b.jpg"]
    assert found.outcomes["add"].chance == 0.5


def test_each_image_and_each_text_is_embedded_once(tmp_path):
    suite = write(tmp_path, {"add": [item("a.jpg", "a", "bb"), item("a.jpg", "bb", "a"), item("b.jpg", "a", "ccc")],
                             "swap": [item("b.jpg", "ccc", "a")]}, ["a.jpg", "b.jpg"])
    embedder = Lengths()
    compositional.make(suite)(embedder)
    assert sorted(embedder.pictures) == [b"a.jpg", b"b.jpg"]
    assert sorted(embedder.given) == ["a", "bb", "ccc"]


def test_a_missing_image_is_an_error_unless_the_items_at_hand_are_asked_for(tmp_path):
    suite = write(tmp_path, {"add": [item("a.jpg", "a", "bb"), item("gone.jpg", "a", "bb")]}, ["a.jpg"])
    with pytest.raises(ConfigError, match="1 images .*'gone.jpg'"):
        compositional.make(suite)
    scores = compositional.make(suite, partial=True)(Lengths()).scores()
    assert (scores["items"], scores["expected"], scores["add"]) == (1, 2, 1.0)


def test_a_limit_takes_the_first_of_each_category_and_hides_nothing(tmp_path):
    suite = write(tmp_path, {"add": [item("a.jpg", "a", "bb"), item("gone.jpg", "bb", "a")],
                             "swap": [item("a.jpg", "bb", "a")]}, ["a.jpg"])
    assert compositional.make(suite, limit=1)(Lengths()).scores() == {
        "add": 1.0, "swap": 0.0, "macro": 0.5, "items": 2, "expected": 3}


@pytest.mark.parametrize("form", [list, tuple, lambda folders: ", ".join(folders)])
def test_images_are_found_by_name_in_the_first_folder_that_has_them_then_by_the_names_last_part(tmp_path, form):
    suite = write(tmp_path, {"add": [item("val/a.jpg", "a", "bb"), item("val/b.jpg", "a", "bb"), item("c.jpg", "a", "bb")]},
                  ["c.jpg"])
    for name in ("one/a.jpg", "two/val/a.jpg", "one/val/b.jpg", "two/val/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    embedder = Lengths()
    compositional.make(suite, form([str(tmp_path / "one"), str(tmp_path / "two")]))(embedder)
    assert embedder.pictures == [b"two/val/a.jpg", b"one/val/b.jpg", b"c.jpg"]


def test_the_model_sees_the_box_of_an_image_and_each_box_by_itself(tmp_path):
    pixels = np.arange(6 * 8 * 3).reshape(6, 8, 3)
    (tmp_path / "a.png").write_bytes(png(pixels))
    lines = [{"image": "a.png", "caption": "a", "negatives": ["bb"]} | more
             for more in ({"box": [1, 2, 3, 4]}, {}, {"box": [6, 5, 100, 100]}, {"box": [1, 2, 3, 4]})]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    embedder = Lengths()
    assert compositional.make(str(tmp_path), format="json_lines")(embedder).scores()["own"] == 1.0
    box, whole, corner = embedder.pictures
    np.testing.assert_array_equal(box, pixels[2:6, 1:4])
    np.testing.assert_array_equal(corner, pixels[5:, 6:])
    assert whole == png(pixels)


@pytest.mark.parametrize(("bytes", "box", "message"), [
    (png(np.zeros((4, 4, 3)))[:40], None, "a.png can't be used: image_"),
    (b"no image", [0, 0, 2, 2], "a.png can't be used: image_undecodable"),
    (png(np.zeros((4, 4, 3))), [4, 0, 2, 2], r"box \(4, 0, 2, 2\) holds no pixel of .*a.png, which is 4 x 4")])
def test_an_image_that_cant_be_used_is_named(tmp_path, bytes, box, message):
    (tmp_path / "a.png").write_bytes(bytes)
    (tmp_path / "b.png").write_bytes(png(np.zeros((4, 4, 3))))
    lines = [{"image": name, "caption": "a", "negatives": ["b"]} for name in ("b.png", "a.png")]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, [lines[0], lines[1] | ({"box": box} if box else {})])))
    with pytest.raises(ConfigError, match=message):
        compositional.make(str(tmp_path), format="json_lines")(Looking())


def test_a_suite_of_texts_alone_needs_no_images(tmp_path):
    (tmp_path / "own.jsonl").write_text(json.dumps({"caption": ["aa", "bb"], "negatives": ["c"]}))

    class Blind:
        def texts(self, texts):
            return np.array([{"aa": [1, 0], "bb": [.8, .6], "c": [0, 1]}[text] for text in texts])

    found = compositional.make(str(tmp_path), format="json_lines")(Blind())
    assert found.scores() == {"own": 1.0, "macro": 1.0, "micro": 1.0, "items": 1, "expected": 1}


def test_pairs_have_three_scores_by_category_and_over_all(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    lines = [{"images": ["a", "b"], "captions": ["a", "b"], "category": "right"},
             {"images": ["a", "b"], "captions": ["b", "a"], "category": "wrong"},
             {"images": ["a", "b"], "captions": ["a", "x"], "category": "wrong"}]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))

    class Letters:
        def images(self, files):
            return np.array([[file == b"a", file == b"b"] for file in files], float)

        def texts(self, texts):
            return np.array([[text == "a", text == "b"] for text in texts], float)

    scores = compositional.make(str(tmp_path), format="json_lines")(Letters()).scores()
    assert scores == pytest.approx({
        "text/right": 1, "image/right": 1, "group/right": 1, "text/wrong": 0, "image/wrong": 0, "group/wrong": 0,
        "text": 1 / 3, "image": 1 / 3, "group": 1 / 3, "items": 3, "expected": 3})


def test_a_record_is_an_item_when_all_of_it_was_evaluated(tmp_path):
    """SugarCrepe++ without images: its texts are compared, and no item counts as evaluated."""
    suite = write(tmp_path, {"swap_att": [item("gone.jpg", "aaa", "c") | {"caption2": "bb"}]})
    scores = compositional.make(suite, partial=True, format="sugarcrepe_pp")(Lengths()).scores()
    assert scores == {"tot/swap_att": 1.0, "tot/swap": 1.0, "tot": 1.0, "items": 0, "expected": 1}


@pytest.mark.parametrize(("files", "message"), [
    ({}, "holds no suite"),
    ({"add": [item("a.jpg", "a", "b"), {"caption": "a"}]}, "add.json: item 1 has nothing under 'filename'"),
    ({"add": [item("a.jpg", "a", None)]}, "item 0 has None under 'negative_caption'"),
    ({"macro": [item("a.jpg", "a", "b")]}, "category 'macro', which is the name of another score"),
    ({"add": [item("nowhere.jpg", "a", "b")]}, "nowhere.jpg")])
def test_a_broken_suite_is_named(tmp_path, files, message):
    with pytest.raises(ConfigError, match=message):
        compositional.make(write(tmp_path, files))


def test_an_unknown_format_is_named_with_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match="unknown format 'sugarcrep'.*did you mean sugarcrepe?"):
        compositional.make(str(tmp_path), format="sugarcrep")


def test_nothing_at_hand_is_an_error(tmp_path):
    suite = write(tmp_path, {"add": [item("gone.jpg", "a", "b")]})
    with pytest.raises(ConfigError, match="no image of suite"):
        compositional.make(suite, partial=True)


@st.composite
def embedded(draw):
    """Items of every kind over few pictures and texts, and small whole numbers for what they are embedded as."""
    pictures, words = [Picture(name) for name in "ab"], ["p", "q", "r", "s"]
    items = []
    for id in range(draw(st.integers(1, 5))):
        shown = tuple(draw(st.permutations(pictures))[:draw(st.integers(0, 2))])
        said = draw(st.permutations(words))
        right = 2 if len(shown) != 1 else draw(st.integers(1, 2))
        items.append(Item(str(id), f"{len(shown)}", shown, tuple(said[:right]),
                          () if len(shown) == 2 else tuple(said[right:draw(st.integers(right + 1, 4))])))
    vector = st.lists(st.integers(-1, 1), min_size=3, max_size=3)
    return items, {thing: draw(vector) for thing in (*pictures, *words)}


@given(embedded())
def test_evaluation_equals_brute_force(tmp_path_factory, drawn):
    """All kinds together, ties among them, straight from the definitions."""
    items, vectors = drawn
    paths = {}
    for name in "ab":
        paths[name] = tmp_path_factory.getbasetemp() / name
        paths[name].write_text(name)

    class Given:
        def images(self, files):
            return np.array([vectors[Picture(file.decode())] for file in files])

        def texts(self, texts):
            return np.array([vectors[text] for text in texts])

    similar = lambda a, b: sum(x * y for x, y in zip(vectors[a], vectors[b], strict=True))
    found = compositional.result(items, compositional.similarities(items, paths, Given()), len(items), len(items),
                                 compositional.Items(items))
    right = {score: dict(zip(outcomes.ids, outcomes.right, strict=True)) for score, outcomes in found.outcomes.items()}
    for each in items:
        if len(each.pictures) == 2:
            (a, b), (t, u) = each.pictures, each.right
            text = similar(a, t) > similar(a, u) and similar(b, u) > similar(b, t)
            image = similar(a, t) > similar(b, t) and similar(b, u) > similar(a, u)
            assert [right[f"{name}/2"][each.id] for name in ("text", "image", "group")] == [text, image, text and image]
        elif each.pictures:
            assert right["1"][each.id] == (min(similar(each.pictures[0], text) for text in each.right)
                                           > max(similar(each.pictures[0], text) for text in each.wrong))
        else:
            t, u = each.right
            assert right["0"][each.id] == all(similar(t, u) > similar(v, text) for v in (t, u) for text in each.wrong)


def test_equal_embeddings_tie_wherever_they_stand():
    """Each product is rounded alike, so that no order of the items decides a tie."""
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(2, 257)).astype(np.float32)
    table = np.stack([image, *[text] * 99])
    values = compositional.products(table, np.array([[0, i] for i in range(1, 100)]))
    assert len(set(values.tolist())) == 1
    assert values[0] == pytest.approx(np.dot(image.astype(float), text.astype(float)), rel=1e-5)


def test_the_published_files_are_evaluated_as_they_are(test_data):
    evaluate = compositional.make(str(test_data / "sugarcrepe"), str(test_data / "sugarcrepe_images"), partial=True)
    scores = evaluate(Lengths()).scores()
    assert (scores["items"], scores["expected"]) == (264, 7511)
    assert {"add", "replace", "swap", "macro", "micro"} < scores.keys()
    assert scores["swap"] == pytest.approx((scores["swap_att"] + scores["swap_obj"]) / 2)
    assert scores["micro"] != scores["macro"]
