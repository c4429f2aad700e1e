"""Compositional choice: scores by category, ties, missing images, files of the wrong form."""
import json

import numpy as np
import pytest

from cc_jax.config import ConfigError
from cc_jax.evals import compositional


def write(folder, files, images=()):
    for name, items in files.items():
        (folder / f"{name}.json").write_text(json.dumps(items))
    (folder / "images").mkdir()
    for name in images:
        (folder / "images" / name).write_bytes(name.encode())
    return str(folder)


def item(filename, caption, negative):
    return {"filename": filename, "caption": caption, "negative_caption": negative}


class Lengths:
    """Prefers shorter texts, and can't tell apart those of one length."""
    def images(self, files):
        return np.ones((len(list(files)), 1))

    def texts(self, texts):
        return -np.array([[len(text)] for text in texts], float)


def test_scores_by_category_and_a_tie_is_not_a_win(tmp_path):
    suite = write(tmp_path, {
        "add": {"0": item("a.jpg", "a cat", "a black cat"), "1": item("b.jpg", "a dog here", "a dog")},
        "swap": [item("a.jpg", "cat and dog", "dog and cat")], "images": ["a.jpg"]}, ["a.jpg", "b.jpg"])
    scores = compositional.make(suite)(Lengths()).scores()
    assert scores == {"add": 0.5, "swap": 0.0, "macro": 0.25, "items": 3, "expected": 3}


def test_a_missing_image_is_an_error_unless_the_items_at_hand_are_asked_for(tmp_path):
    suite = write(tmp_path, {"add": [item("a.jpg", "a", "bb"), item("gone.jpg", "a", "bb")]}, ["a.jpg"])
    with pytest.raises(ConfigError, match="1 images .*'gone.jpg'"):
        compositional.make(suite)
    scores = compositional.make(suite, partial=True)(Lengths()).scores()
    assert (scores["items"], scores["expected"], scores["add"]) == (1, 2, 1.0)


@pytest.mark.parametrize(("files", "message"), [
    ({}, "holds no suite"),
    ({"add": [item("a.jpg", "a", "b"), {"caption": "a"}]}, "add.json: item 1 has no text under 'filename'"),
    ({"add": [item("a.jpg", "a", None)]}, "item 0 has no text under 'negative_caption'"),
    ({"add": [item("nowhere.jpg", "a", "b")]}, "nowhere.jpg")])
def test_a_broken_suite_is_named(tmp_path, files, message):
    with pytest.raises(ConfigError, match=message):
        compositional.make(write(tmp_path, files))


def test_the_published_files_are_read_as_they_are(test_data):
    categories = compositional.read_suite(str(test_data / "sugarcrepe"))
    assert {name: len(items) for name, items in categories.items()} == {
        "add_att": 692, "add_obj": 2062, "replace_att": 788, "replace_obj": 1652, "replace_rel": 1406, "swap_att": 666,
        "swap_obj": 245}
    evaluate = compositional.make(str(test_data / "sugarcrepe"), str(test_data / "sugarcrepe_images"), partial=True)
    scores = evaluate(Lengths()).scores()
    assert (scores["items"], scores["expected"]) == (264, 7511)
