"""Suites found in a folder of evaluation data, with what of their images is there."""
import json

import numpy as np
import pytest

from cc_jax.config import Config
from cc_jax.evals import registry
from cc_jax.evals.suites import SUITES

NAMED = {suite.name: suite for suite in SUITES}
CREPE = {"filename": "1.jpg", "caption": "a cat and a dog", "negative_caption": "a cat and two dogs"}
LAYOUTS = {         # {suite: {file: content}}, as published files lie once unpacked
    "sugarcrepe": {"sugarcrepe/data/add_att.json": {"0": CREPE, "1": CREPE | {"filename": "gone.jpg"}},
                   "coco/val2017/1.jpg": None},
    "sugarcrepe_pp": {"scpp/swap_att.json": [CREPE | {"id": 0, "caption2": "a dog and a cat"},
                                             CREPE | {"id": 1, "caption2": "a dog and a cat", "filename": "gone.jpg"}],
                      "val2017/1.jpg": None},
    "winoground": {"winoground/data/examples.jsonl": {
        "id": 0, "image_0": "x", "image_1": "y", "caption_0": "a on b", "caption_1": "b on a"},
        "winoground/data/images/x.png": None},
    "aro": {"aro/visual_genome_relation.json": [
        {"image_path": name, "bbox_x": 0, "bbox_y": 0, "bbox_w": 3, "bbox_h": 4, "relation_name": "on",
         "true_caption": "a on b", "false_caption": "b on a"} for name in ("1.jpg", "gone.jpg")], "aro/images/1.jpg": None},
    "aro_order": {"aro_order/coco_karpathy_test.json": [
        {"image": f"val2014/{name}", "caption": ["A black cat sits on a mat."]} for name in ("1.jpg", "gone.jpg")],
        "coco/val2014/1.jpg": None},
    "valse": {"valse/data/plurals.json": {
        id: {"image_file": name, "caption": "a cat", "foil": "cats", "mturk": {"caption": vote}}
        for id, name, vote in (("a", "1.jpg", 3), ("b", "gone.jpg", 2), ("c", "1.jpg", 1))},
        "coco/train2014/1.jpg": None}}


def lay(folder, layout):
    for name, content in layout.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image" if content is None else json.dumps(content).encode())
    return folder


class Constant:
    def images(self, files):
        return np.ones((len(list(files)), 2))

    def texts(self, texts):
        return np.ones((len(texts), 2))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_layout_is_found_with_the_images_at_hand(tmp_path, name):
    found = NAMED[name].look(lay(tmp_path, LAYOUTS[name]))
    assert found.says.startswith("1 items, 0 with their images (1 of 2)" if name == "winoground" else       # a pair
                                 "2 items, 1 with their images (1 of 2)")
    assert ("left out: 1 items that fewer than 2 of 3" in found.says) == (name == "valse")
    assert [suite.name for suite in SUITES if suite.look(tmp_path)] == [name]
    if name not in ("winoground", "aro"):       # whose one pair is not whole, and whose boxes are cut from real images
        evaluate = registry.make(Config(dict(found.block) | {"partial": True}, "evals.it"))
        scores = evaluate(Constant()).scores()
        assert (scores["items"], scores["expected"]) == (1, 2)


def test_nothing_is_found_where_nothing_is(tmp_path):
    assert not any(suite.look(tmp_path) for suite in SUITES)
    lay(tmp_path, {"sugarcrepe/images.json": ["1.jpg"], "aro/notes.json": {}, "winoground/readme.txt": None})
    assert not any(suite.look(tmp_path) for suite in SUITES)


def test_a_broken_suite_is_found_and_said_to_be(tmp_path):
    found = NAMED["sugarcrepe"].look(lay(tmp_path, {"sugarcrepe/add_att.json": {"0": CREPE | {"caption": 3}}}))
    assert found.says.startswith("broken: ") and "add_att.json: item 0 has 3 under 'caption'" in found.says


def test_the_development_data_is_such_a_folder(test_data):
    says = {name: found.says for name, suite in NAMED.items() if (found := suite.look(test_data))}
    assert says["sugarcrepe"] == "7 511 items, 264 with their images (60 of 1 560)"
    assert says["sugarcrepe_pp"] == "4 757 items, 175 with their images (60 of 1 542)"
    assert says["valse"].startswith("7 702 items, ") and "left out: 1 080 items" in says["valse"]


def test_every_suite_says_what_it_measures_and_needs():
    assert list(NAMED) == ["sugarcrepe", "sugarcrepe_pp", "winoground", "aro", "aro_order", "valse"]
    assert all(suite.measures and suite.needs for suite in SUITES)
