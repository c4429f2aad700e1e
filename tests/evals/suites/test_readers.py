"""The files of suites: published forms are read, broken ones named by file and item, whatever is in them."""
import copy
import json
import random
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cc_jax.config import ConfigError
from cc_jax.data.perceptron import load_tag
from cc_jax.evals.suites import FORMATS, aro, aro_order, files, valse
from cc_jax.evals.suites.items import NoSuite, Picture

RELATION = {"image_path": "1.jpg", "bbox_x": 1, "bbox_y": 2, "bbox_w": 30, "bbox_h": 40, "relation_name": "on",
            "true_caption": "the cat is on the mat", "false_caption": "the mat is on the cat"}
ATTRIBUTION = {key: value for key, value in RELATION.items() if key != "relation_name"} | {"attributes": ["black", "white"]}
CREPE = {"filename": "1.jpg", "caption": "a cat and a dog", "negative_caption": "a cat and two dogs"}
VALSE = {"image_file": "1.jpg", "caption": "there are no cats", "foil": "there are cats",
         "mturk": {"caption": 2, "foil": 1, "other": 0}}
WINOGROUND = {"id": 7, "image_0": "ex_7_img_0", "image_1": "ex_7_img_1", "caption_0": "an old person kisses a young person",
              "caption_1": "a young person kisses an old person", "collapsed_tag": "Object", "num_main_preds": 1}
CHOICE = {"image": "1.jpg", "box": [0, 0, 5, 5.5], "caption": "a cat", "negatives": ["a dog", "a cow"], "category": "nouns"}
PAIR = {"images": ["1.jpg", "2.jpg"], "captions": ["a cat", "a dog"]}
TEXTS = {"id": "t", "caption": ["a cat", "one cat"], "negatives": "a dog"}

# What each format's files hold: {format: {file: records}}.
GOOD = {
    "sugarcrepe": {"swap_att.json": {"0": CREPE, "1": CREPE}},
    "sugarcrepe_pp": {"swap_obj.json": [{"id": 4, "caption2": "a dog, a cat"} | CREPE]},
    "valse": {"relations.json": {"a": VALSE, "b": VALSE | {"mturk": {"caption": 1}}}},
    "winoground": {"examples.jsonl": [WINOGROUND]},
    "aro": {"visual_genome_relation.json": [RELATION]},
    "aro_order": {"coco_karpathy_test.json": [{"image": "val2014/1.jpg", "caption": ["A black cat sits on a red mat."]}]},
    "json_lines": {"own.jsonl": [CHOICE, PAIR, TEXTS]}}


def write(folder, contents):
    for name, content in contents.items():
        text = "\n".join(map(json.dumps, content)) if name.endswith(".jsonl") else json.dumps(content)
        (folder / name).write_text(text)
    return str(folder)


def read(folder, format, contents):
    return FORMATS[format](write(folder, contents))


def with_(record, **changes):
    """The record with keys changed, or left out where the value is Ellipsis."""
    return {key: value for key, value in (record | changes).items() if value is not ...}


def test_sugarcrepe_pp_has_a_test_by_the_image_and_one_of_texts(tmp_path):
    by_image, by_text = read(tmp_path, "sugarcrepe_pp", GOOD["sugarcrepe_pp"]).items
    assert (by_image.category, by_text.category) == ("itt/swap_obj", "tot/swap_obj")
    assert by_image.id == by_text.id == "swap_obj/4"
    assert by_image.pictures == (Picture("1.jpg"),) and by_text.pictures == ()
    assert by_image.cluster == by_text.cluster == "1.jpg"
    assert by_text.right == ("a cat and a dog", "a dog, a cat") and by_text.wrong == ("a cat and two dogs",)


def test_winogrounds_images_have_their_ending(tmp_path):
    [item] = read(tmp_path, "winoground", GOOD["winoground"]).items
    assert item.pictures == (Picture("ex_7_img_0.png"), Picture("ex_7_img_1.png"))
    assert (item.id, item.category, item.cluster) == ("7", "Object", "7")
    assert item.right == (WINOGROUND["caption_0"], WINOGROUND["caption_1"])


def test_valse_leaves_out_what_annotators_did_not_confirm_and_counts_it(tmp_path):
    suite = read(tmp_path, "valse", {"relations.json": {
        "a": VALSE, "b": VALSE | {"mturk": {"caption": 1}},
        "c": VALSE | {"mturk": {"caption": 0}, "foil": VALSE["caption"]}}})
    assert [item.id for item in suite.items] == ["relations/a"]
    assert suite.left_out == {valse.INVALID: 2}


def test_aro_averages_over_relations_and_frequent_pairs_of_attributes(tmp_path):
    pairs = [ATTRIBUTION] * aro.FEWEST + [ATTRIBUTION | {"attributes": ["red", "wet"]}] * (aro.FEWEST - 1)
    relations = [RELATION | {"relation_name": name} for name in ("on", "on", "riding", "near", "next to")]
    suite = read(tmp_path, "aro", {"visual_genome_relation.json": relations, "visual_genome_attribution.json": pairs})
    assert Counter(item.category for item in suite.items) == {
        "relation/on": 2, "relation/riding": 1, "attribution/black_white": aro.FEWEST}
    assert suite.means == {"relation": ["relation/on", "relation/riding"], "relation_spatial": ["relation/on"],
                           "relation_action": ["relation/riding"], "attribution": ["attribution/black_white"]}
    assert sorted(suite.left_out.values()) == [2, aro.FEWEST - 1]
    assert suite.items[0].pictures == (Picture("1.jpg", (1, 2, 30, 40)),)


def test_reordered_captions_have_the_captions_words_and_are_always_the_same(tmp_path):
    suite = read(tmp_path, "aro_order", {"flickr30k_test.json": [
        {"image": "flickr30k-images/1.jpg", "caption": ["Two young men, in (red) hats, walk.", "Cats"]}]})
    [item] = suite.items
    assert item.right == ("two young men, in red hats, walk",) and 1 <= len(item.wrong) <= 4
    for text in item.wrong:
        assert text != item.right[0]
        assert sorted(text.replace(",", " ").split()) == sorted(item.right[0].replace(",", " ").split())
    assert suite.left_out == {aro_order.SAME: 1}
    assert FORMATS["aro_order"](str(tmp_path)) == suite


@given(st.integers(0, 10**6))
def test_each_reordering_moves_only_what_it_may(seed):
    caption, tag = "a small brown dog and two white cats play near an old wooden house", load_tag("shipped")
    words = caption.split()
    kinds = [label[:2] if label[:2] in ("NN", "JJ") else "" for label in tag(words)]
    like, others, within, threes = (
        each.split() for each in aro_order.reorderings(caption, tag, random.Random(seed)))
    at = lambda kind, order: [word for word, each in zip(order, kinds, strict=True) if each == kind]
    assert at("", like) == at("", words)
    assert [sorted(at(kind, like)) for kind in ("NN", "JJ")] == [sorted(at(kind, words)) for kind in ("NN", "JJ")]
    assert [at(kind, others) for kind in ("NN", "JJ")] == [at(kind, words) for kind in ("NN", "JJ")]
    assert sorted(others) == sorted(words)
    chunks = lambda order: [order[i:i + 3] for i in range(0, len(words) - 2, 3)]
    assert list(map(sorted, chunks(within))) == list(map(sorted, chunks(words)))
    assert all(" ".join(three) in " ".join(threes) for three in chunks(words)) and sorted(threes) == sorted(words)


def test_json_lines_hold_choices_pairs_and_texts(tmp_path):
    choice, pair, texts = read(tmp_path, "json_lines", GOOD["json_lines"]).items
    assert (choice.id, choice.category, choice.pictures) == ("own/line 1", "nouns", (Picture("1.jpg", (0, 0, 5, 5.5)),))
    assert (choice.right, choice.wrong) == (("a cat",), ("a dog", "a cow"))
    assert (pair.category, pair.pictures, pair.right) == ("own", (Picture("1.jpg"), Picture("2.jpg")), ("a cat", "a dog"))
    assert (texts.id, texts.pictures, texts.right, texts.wrong) == ("own/t", (), ("a cat", "one cat"), ("a dog",))
    assert FORMATS["json_lines"](str(tmp_path / "own.jsonl")) == FORMATS["json_lines"](str(tmp_path))


@pytest.mark.parametrize(("format", "contents", "message"), [
    ("sugarcrepe", {"add.json": {"x": with_(CREPE, caption=...)}}, "add.json: item x has nothing under 'caption'"),
    ("sugarcrepe", {"add.json": {"x": with_(CREPE, caption=" ")}}, "add.json: item x has ' ' under 'caption'"),
    ("sugarcrepe", {"add.json": {"x": with_(CREPE, caption="\ud800")}}, "add.json: item x has '.ud800' under 'caption'"),
    ("sugarcrepe", {"add.json": {"x": with_(CREPE, negative_caption="a cat  and a dog ")}},
     "add.json: item x has 'a cat and a dog' as a right text and as a wrong one"),
    ("sugarcrepe", {"add.json": {"x": with_(CREPE, filename="../1.jpg")}}, "item x has '../1.jpg' under 'filename'"),
    ("sugarcrepe", {"add.json": [CREPE, 3]}, "add.json: item 1 is 3; a record"),
    ("sugarcrepe", {"add.json": [CREPE | {"id": 1}, CREPE | {"id": "1"}]}, "add.json: two items have the id '1'"),
    ("sugarcrepe", {"images.json": ["1.jpg"], "empty.json": {}}, "holds no suite"),
    ("sugarcrepe_pp", {"swap_obj.json": [CREPE]}, "item 0 has nothing under 'caption2'"),
    ("sugarcrepe_pp", {"swap_att.json": [CREPE | {"id": 2, "caption2": "x", "negative_caption": CREPE["caption"]}]},
     "swap_att.json: item 2 has 'a cat and a dog' as a right text"),
    ("valse", {"a.json": {"x": with_(VALSE, mturk=...)}}, "a.json: item x has nothing under 'mturk'"),
    ("valse", {"a.json": {"x": with_(VALSE, mturk={"caption": "3"})}}, "item x has .* under 'mturk'"),
    ("valse", {"a.json": {"x": with_(VALSE, mturk={"caption": 1})}}, "none of its 1 items was confirmed"),
    ("winoground", {"other.jsonl": [WINOGROUND]}, "holds no examples.jsonl"),
    ("winoground", {"examples.jsonl": [with_(WINOGROUND, image_1=3)]}, "examples.jsonl: item 7 has 3 under 'image_1'"),
    ("winoground", {"examples.jsonl": [with_(WINOGROUND, image_1="ex_7_img_0")]}, "item 7 has two images that are the same"),
    ("winoground", {"examples.jsonl": []}, "examples.jsonl has no items"),
    ("aro", {}, "holds none of visual_genome_relation.json"),
    ("aro", {"visual_genome_relation.json": [with_(RELATION, bbox_w=0)]}, r"item 0 has the box \[1, 2, 0, 40\]"),
    ("aro", {"visual_genome_relation.json": [with_(RELATION, bbox_y=...)]}, r"item 0 has the box \[1, None, 30, 40\]"),
    ("aro", {"visual_genome_relation.json": [with_(RELATION, relation_name="near")]}, "leaves out all of its 1 items"),
    ("aro", {"visual_genome_attribution.json": [with_(ATTRIBUTION, attributes=["a"])]}, "under 'attributes'; two"),
    ("aro_order", {}, "holds none of coco_karpathy_test.json"),
    ("aro_order", {"flickr30k_test.json": [{"image": "1.jpg", "caption": []}]}, r"item 0 has \[\] under 'caption'"),
    ("json_lines", {"own.jsonl": [with_(CHOICE, negatives=...)]}, "own.jsonl: item line 1 has nothing under 'negatives'"),
    ("json_lines", {"own.jsonl": [with_(CHOICE, negatives=["a", 3])]}, "line 1, list 'negatives', has 3 under 1"),
    ("json_lines", {"own.jsonl": [CHOICE | {"catgory": "x"}]}, "the key 'catgory', which nothing reads"),
    ("json_lines", {"own.jsonl": [CHOICE | {"category": "micro"}]}, "the category 'micro', which is the name of another"),
    ("json_lines", {"own.jsonl": [CHOICE | {"box": [0, 0, 5]}]}, r"has the box \[0, 0, 5\]"),
    ("json_lines", {"own.jsonl": [with_(CHOICE, image=...)]}, "line 1 has no image"),
    ("json_lines", {"own.jsonl": [PAIR | {"images": ["1.jpg"]}]}, "line 1 is a pair: .* it has 1 and 2"),
    ("json_lines", {"own.jsonl": [PAIR | {"caption": "a cat"}]}, "line 1 is a pair: .* it has 2 and 2, and 'caption'"),
    ("json_lines", {"own.jsonl": [PAIR | {"captions": ["a", "a"]}]}, "two captions that are the same"),
    ("json_lines", {}, "holds no items")])
def test_what_is_amiss_is_named_by_file_and_item(tmp_path, format, contents, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, format, contents)


@pytest.mark.parametrize(("text", "message"), [
    (b'{"0": ', "add.json is not JSON: Expecting value: line 1"), (b"\xff\xfe", "add.json can't be read: 'utf-8'"),
    (b'{"0": {"a": 1}, "0": {"a": 2}}', "add.json is not JSON: key '0' is there twice"),
    (b"[" * 100_000, "add.json is not JSON")])
def test_files_that_are_no_json_are_named(tmp_path, text, message):
    (tmp_path / "add.json").write_bytes(text)
    with pytest.raises(ConfigError, match=message):
        FORMATS["sugarcrepe"](str(tmp_path))


def nodes(value, path=()):
    """The path of every value within a JSON value."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from nodes(value[key], (*path, key))


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3))
MISSING = object()


@st.composite
def broken(draw):
    """A format, and its good files with one value in them replaced or left out."""
    format = draw(st.sampled_from(sorted(GOOD)))
    contents = copy.deepcopy(GOOD[format])
    [name] = contents
    *way, last = draw(st.sampled_from([path for path in nodes(contents) if path]))
    place = contents
    for key in way:
        place = place[key]
    value = draw(JSON | st.just(MISSING)) if way else draw(JSON)
    if value is MISSING:
        del place[last]
    elif name.endswith(".jsonl") and not way:
        contents[name] = [value]
    else:
        place[last] = value
    return format, name, contents


@given(broken())
@example(("json_lines", "own.jsonl", {"own.jsonl": [CHOICE | {"image": "x" * 5000}]}))
def test_any_file_is_read_or_refused_by_name(tmp_path_factory, drawn):
    format, name, contents = drawn
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        suite = read(folder, format, contents)
    except ConfigError as error:
        assert name in str(error) or (isinstance(error, NoSuite) or "all of its" in str(error) or "none of its" in str(error)
                                      or "holds no" in str(error)) and str(folder) in str(error)
        return
    assert suite.items
    for item in suite.items:
        assert all(isinstance(each, str) and each.strip() for each in (*item.right, *item.wrong, item.id, item.category))
    files.find([picture.file for item in suite.items for picture in item.pictures], files.image_folders(str(folder), ""))


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused_by_name(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("bytes")
    for format, contents in GOOD.items():
        [name] = contents
        (folder / name).write_bytes(data)
        with pytest.raises(ConfigError, match=f"{name}|{folder}"):
            FORMATS[format](str(folder))
        (folder / name).unlink()


def test_published_sugarcrepe_pp_has_two_items_that_no_model_gets_right(test_data):
    suite = FORMATS["sugarcrepe_pp"](str(test_data / "scpp"))
    sizes = {"replace_att": 788, "replace_obj": 1652, "replace_rel": 1406, "swap_att": 666, "swap_obj": 245}
    assert Counter(item.category for item in suite.items) == {
        f"{score}/{name}": size for score in ("itt", "tot") for name, size in sizes.items()}
    assert len({item.id for item in suite.items}) == 4757
    assert {item.id for item in suite.items if set(item.right) & set(item.wrong)} == {"swap_obj/2", "swap_obj/8"}


def test_published_valse_has_so_many_valid_items(test_data):
    suite = FORMATS["valse"](str(test_data / "valse"))
    assert Counter(item.category for item in suite.items) == {
        "existence": 505, "plurals": 851, "counting-hard": 868, "counting-small-quant": 900, "counting-adversarial": 691,
        "relations": 535, "action-replacement": 648, "actant-swap": 949, "coreference-standard": 708,
        "coreference-hard": 104, "foil-it": 943}
    assert suite.left_out == {valse.INVALID: 8782 - 7702}
