"""Retrieval from every layout of captions; recalls by query; and item by item what a peer's model gives."""
import json

import numpy as np
import pytest

from cc_jax.config import Config, ConfigError
from cc_jax.data.transforms import ImageError
from cc_jax.evals import captioned, registry, retrieval

CAPTIONS = {"red.png": ["a red wall", "red"], "blue.png": ["the blue sky"], "green.png": ["green grass", "a green hat here"]}
FULL = {f"{way}@{k}": 1.0 for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}


def json_lines(items):
    return "".join(json.dumps({"image": name, "captions": texts, "split": split}) + "\n\n" for name, texts, split in items)


def karpathy(items):
    return json.dumps({"dataset": "coco", "images": [
        {"filename": name.split("/")[-1], "filepath": name.rpartition("/")[0], "split": split, "imgid": i,
         "sentences": [{"raw": text, "tokens": text.split()} for text in texts]}
        for i, (name, texts, split) in enumerate(items)]})


def flickr_csv(items):
    quote = lambda text: '"' + text.replace('"', '""') + '"'
    return "raw,sentids,split,filename,img_id\n" + "".join(
        f'{quote(json.dumps(texts))},"[0, 1]",{split},{name},{i}\n' for i, (name, texts, split) in enumerate(items))


LAYOUTS = {"captions.jsonl": json_lines, "dataset_coco.json": karpathy, "flickr_annotations_30k.csv": flickr_csv}


@pytest.fixture
def write(tmp_path, picture):
    """Writes captions in the layout that the file's name says, of images in a folder."""
    def make(name, items=None, folder="val2014"):
        items = items or [(f"{folder}/{image}", texts, "test") for image, texts in CAPTIONS.items()]
        items = [*items, (f"{folder}/other.png", ["none"], "train")]
        (tmp_path / name).write_text(LAYOUTS[name](items))
        (tmp_path / folder).mkdir()
        for image in CAPTIONS:
            (tmp_path / folder / image).write_bytes(picture(image.removesuffix(".png")))
        return str(tmp_path / name)
    return make


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(write, colours, layout):
    result = registry.make(Config(dict(type="retrieval", captions=write(layout), every=1)))(colours)
    assert result.scores() == FULL | {"items": 3, "expected": 3}
    to_image = result.outcomes["text_to_image@1"]
    assert list(to_image.ids)[:3] == ["val2014/red.png#0", "val2014/red.png#1", "val2014/blue.png#0"]
    assert to_image.clusters[:3] == ["val2014/red.png", "val2014/red.png", "val2014/blue.png"]
    assert list(result.outcomes["image_to_text@1"].ids) == ["val2014/red.png", "val2014/blue.png", "val2014/green.png"]


def test_a_caption_of_two_images_is_a_tie_and_no_win(write, colours):
    items = [("val2014/red.png", ["one wall"], "test"), ("val2014/blue.png", ["one wall"], "test")]
    scores = retrieval.make(captions=write("captions.jsonl", items))(colours).scores()
    assert scores["image_to_text@1"] == 0 and scores["image_to_text@5"] == 1


def test_a_line_for_each_caption_gives_one_image(write, tmp_path):
    path = tmp_path / "each.jsonl"
    path.write_text("".join(json.dumps({"image": "a.png", "caption": text}) + "\n" for text in ("one", "two")))
    (tmp_path / "a.png").write_bytes(b"")
    found = captioned.open_file(str(path), "test")
    assert found.ids == ["a.png"] and found.captions == [["one", "two"]]


def test_a_missing_image_is_an_error_unless_those_at_hand_are_asked_for(write, tmp_path, colours):
    path = write("captions.jsonl")
    (tmp_path / "val2014" / "blue.png").unlink()
    with pytest.raises(ConfigError, match="1 of 3 images .*such as 'val2014/blue.png'"):
        retrieval.make(captions=path)
    scores = retrieval.make(captions=path, partial=True)(colours).scores()
    assert scores == FULL | {"items": 2, "expected": 3}
    scores = retrieval.make(captions=path, partial=True, limit=1)(colours).scores()
    assert (scores["items"], scores["expected"]) == (1, 1)
    with pytest.raises(ConfigError, match="3 of 3 images"):
        retrieval.make(captions=path, images=str(tmp_path / "nowhere"), partial=True)


def test_an_image_that_can_not_be_decoded_is_named(write, tmp_path, colours):
    path = write("dataset_coco.json")
    (tmp_path / "val2014" / "blue.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match="val2014/blue.png"):
        retrieval.make(captions=path)(colours)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.jsonl", '{"image": "a.png", "captions": ["a"]}\n{"image": "a.png"\n', "a.jsonl, line 2 is no JSON"),
    ("a.jsonl", '["a.png"]', "line 1 is .*must be an object"),
    ("a.jsonl", '{"captions": ["a"]}', "line 1: image is None"),
    ("a.jsonl", '{"image": "../a.png", "captions": ["a"]}', "line 1: image is '../a.png'"),
    ("a.jsonl", '{"image": "/etc/a.png", "captions": ["a"]}', "image is '/etc/a.png'"),
    ("a.jsonl", '{"image": "a.png", "captions": []}', r"captions is \[\]"),
    ("a.jsonl", '{"image": "a.png", "captions": "a"}', "captions is a; it must be a list"),
    ("a.jsonl", '{"image": "a.png", "caption": " "}', "captions is"),
    ("a.jsonl", '{"image": "a.png", "caption": "a", "split": 3}', "split is 3"),
    ("a.jsonl", '{"image": "a.png", "caption": "a", "split": "dev"}', r"no split 'test'; it has 'dev' \(1\)"),
    ("a.jsonl", "", "no split 'test'; it has no images"),
    ("a.json", "[" * 100_000, "is no JSON"),
    ("a.json", '{"annotations": []}', "no list under 'images'"),
    ("a.json", '{"images": [{"filename": "a.png", "split": "test"}]}', "image 0: sentences' raw is None"),
    ("a.json", '{"images": [{"sentences": [{"raw": "a"}], "split": "test"}]}', "image 0: filename is None"),
    ("a.json", '{"images": [{"filename": "a.png", "sentences": [{"tokens": ["a"]}]}]}', r"raw is \[None\]"),
    ("a.csv", "raw,filename\nsome text,a.png\n", "row 1 is no JSON"),
    ("a.csv", "caption,filename\na,a.png\n", "row 1: raw is None"),
    ("a.txt", "a", "can't be read by its name"),
])
def test_a_broken_file_is_named_with_the_item(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        retrieval.make(captions=str(tmp_path / name))


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"image": "\xff"}')
    with pytest.raises(ConfigError, match="a.jsonl is not UTF-8 at byte 11"):
        retrieval.make(captions=str(tmp_path / "a.jsonl"))
    with pytest.raises(ConfigError, match="no captions in .*b.json"):
        retrieval.make(captions=str(tmp_path / "b.json"))


def test_a_dataset_or_a_file_is_given_not_both(shapes_dir):
    for given in ({}, {"dir": str(shapes_dir), "captions": "a.json"}):
        with pytest.raises(ConfigError, match="give one"):
            retrieval.make(**given)
    with pytest.raises(ConfigError, match="go with captions"):
        retrieval.make(dir=str(shapes_dir), partial=True)


def test_the_evaluator_reads_a_prepared_dataset(shapes_dir):
    class Oracle:
        """Embeds the i-th image and its captions as the i-th unit vector."""
        def images(self, files):
            return np.eye(len(list(files)))

        def texts(self, texts):
            return np.repeat(np.eye(len(texts) // 2), 2, axis=0)

    result = retrieval.make(str(shapes_dir), "test", limit=10)(Oracle())
    assert result.scores() == FULL | {"items": 10, "expected": 10}
    assert len(set(result.outcomes["image_to_text@1"].ids)) == 10


def test_chance_is_what_random_ranks_score():
    rng = np.random.default_rng(0)
    own = np.array([1, 5, 5, 30])
    for k in (1, 5, 10):
        draws = np.argsort(rng.random((4000, own.sum())), axis=1)[:, :k]        # k texts at random
        first = np.cumsum(own) - own
        hit = [np.mean(np.any((draws >= start) & (draws < start + n), axis=1)) for start, n in zip(first, own, strict=True)]
        assert retrieval.chance(own, int(own.sum()), k) == pytest.approx(np.mean(hit), abs=0.01)
    assert retrieval.chance(np.array([2, 1]), 3, 10) == 1


def test_suites_are_found_where_their_files_are(write, tmp_path, test_data):
    suites = {suite.name: suite for suite in retrieval.SUITES}
    assert not any(suite.look(tmp_path) for suite in suites.values())
    (tmp_path / "coco").mkdir()
    for path in (write("dataset_coco.json"), tmp_path / "val2014"):
        (tmp_path / path).rename(tmp_path / "coco" / (tmp_path / path).name)
    found = suites["coco"].look(tmp_path)
    assert found.says == "3 of 3 images, 5 captions"
    assert callable(registry.make(Config(found.block)))
    assert suites["flickr8k"].look(test_data).says == "300 of 300 images, 1 500 captions"


def test_a_suite_that_is_broken_says_so(tmp_path):
    (tmp_path / "flickr30k").mkdir()
    (tmp_path / "flickr30k" / "dataset_flickr30k.json").write_text("{")
    [suite] = [suite for suite in retrieval.SUITES if suite.name == "flickr30k"]
    assert "is no JSON" in suite.look(tmp_path).says
