"""Labelled images from folders and TFDS datasets: what is read, and how broken sources are named."""
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cc_jax.config import ConfigError, DatasetError
from cc_jax.data.transforms import ImageError
from cc_jax.evals import labelled

F = tfds.features


@pytest.fixture(scope="module")
def pets(tmp_path_factory, write_tfds, picture):
    """A TFDS dataset with features that no one needs; its last record has no label."""
    root = tmp_path_factory.mktemp("tfds")
    features = F.FeaturesDict({"id": F.Text(), "image": F.Image(), "label": F.ClassLabel(names=["cat", "big_dog"]),
                               "mask": F.Image(), "number": np.int64})
    record = lambda i, label: {"id": "x", "image": picture((i, 0, 0)), "mask": picture("red"), "label": label, "number": i}
    write_tfds(root / "pets" / "1.0.0", features, {
        "test": [record(i, i % 2) for i in range(5)], "hidden": [record(0, 1), record(1, -1)], "empty": []}, "pets", "1.0.0")
    return root


def test_a_folder_of_each_class_is_read(folder, picture, tmp_path):
    source = folder("birds", wren=["red", "green"], auk=["blue"])
    (tmp_path / "birds" / ".DS_Store").touch()
    (tmp_path / "birds" / "LICENSE").touch()
    found = labelled.open_labelled(source)
    assert found.classes == ["auk", "wren"] and found.ids == ["auk/0.png", "wren/0.png", "wren/1.png"]
    assert [found.read(i) for i in range(3)] == [(picture("blue"), 0), (picture("red"), 1), (picture("green"), 1)]


@pytest.mark.parametrize("how", ["tfds:{}/pets/1.0.0,split=test", "tfds:pets,split=test,data_dir={}"])
def test_a_tfds_dataset_is_read_without_tensorflow(pets, picture, how):
    found = labelled.open_labelled(how.format(pets))
    assert found.classes == ["cat", "big_dog"] and found.ids == [f"test:{i}" for i in range(5)]
    assert [found.read(i) for i in range(5)] == [(picture((i, 0, 0)), i % 2) for i in range(5)]
    assert found.read(3)[0].name == "pets/1.0.0/test:3" and "tensorflow" not in sys.modules


def test_some_are_spread_over_all(folder):
    found = labelled.open_labelled(folder("birds", auk=["red"] * 4, wren=["blue"] * 4))
    assert found.spaced(4).ids == ["auk/0.png", "auk/2.png", "wren/0.png", "wren/2.png"]
    assert [found.spaced(2).read(i)[1] for i in range(2)] == [0, 1]
    assert found.spaced(0) is found.spaced(99) is found


def test_a_broken_folder_is_named(folder, tmp_path):
    source = folder("birds", auk=["red"])
    place = tmp_path / "birds"
    (place / "empty").mkdir()
    with pytest.raises(ConfigError, match="the folder 'empty' is empty"):
        labelled.open_labelled(source)
    (place / "empty" / "notes.txt").touch()
    with pytest.raises(ConfigError, match="empty/notes.txt is no image by its name"):
        labelled.open_labelled(source)
    (place / "loose.JPG").touch()
    with pytest.raises(ConfigError, match="1 images are in no class's folder, such as 'loose.JPG'"):
        labelled.open_labelled(source)
    (tmp_path / "bare").mkdir()
    with pytest.raises(ConfigError, match="it holds no folders"):
        labelled.open_labelled(f"folder:{tmp_path / 'bare'}")


@pytest.mark.parametrize(("source", "message"), [
    ("birds", "'birds' are not known; use folder:DIR or tfds:"), ("folder:", "are not known"),
    ("folder:/no/where", "no such folder"), ("tfds:{}/pets/1.0.0", "no split None; name one with split=SPLIT: .*test"),
    ("tfds:{}/pets/1.0.0,split=dev", "no split 'dev'"), ("tfds:{}/pets/1.0.0,split=empty", "'empty' has no images"),
    ("tfds:{}/pets/1.0.0,split=test,label=number", "'number' is .*, and must be ClassLabel"),
    ("tfds:{}/pets/1.0.0,split=test,image=id", "'id' is Text, and must be Image"),
    ("tfds:{}/pets/1.0.0,split=test,label=kind", "no column 'kind'"), ("tfds:{}/pets/1.0.0,splits=test", "not an option"),
    ("tfds:{}/none,split=test,data_dir={}", "Give the folder of a prepared dataset")])
def test_a_source_that_can_not_be_read_is_named(pets, source, message):
    with pytest.raises(ConfigError, match=message):
        labelled.open_labelled(source.replace("{}", str(pets)))


def test_a_record_without_a_label_is_named(pets, colours):
    found = labelled.open_labelled(f"tfds:{pets}/pets/1.0.0,split=hidden")
    with pytest.raises(DatasetError, match="record pets/1.0.0/hidden:1 has the label -1, and labels are 0 to 1"):
        labelled.embed(found, colours)


def test_an_image_that_can_not_be_decoded_is_named(folder, tmp_path, colours):
    source = folder("birds", auk=["red", "blue"])
    (tmp_path / "birds" / "auk" / "1.png").write_bytes(b"")
    with pytest.raises(ImageError, match="birds/auk/1.png"):
        labelled.embed(labelled.open_labelled(source), colours)


def test_scores_are_shares_by_image_and_by_class(folder):
    found = labelled.open_labelled(folder("birds", **{name: ["red"] * 2 for name in "abcdef"}))
    labels = np.repeat(np.arange(6), 2)
    rank = np.array([0, 0, 0, 1, 4, 5, 5, 5, 5, 5, 5, 5])
    result = labelled.result(found, labels, rank)
    assert result.scores() == {
        "top1": 0.25, "top5": pytest.approx(5 / 12), "mean_per_class": 0.25, "items": 12, "expected": 12}
    assert result.outcomes["mean_per_class"].ids == list("abcdef")
    assert result.outcomes["top5"].chance == pytest.approx(5 / 6)
    few = labelled.result(found.spaced(3), labels[[0, 4, 8]], np.array([0, 1, 0])).scores()     # of three of the classes
    assert few["mean_per_class"] == pytest.approx(2 / 3)


def test_a_tie_of_classes_is_no_win_nor_is_what_is_not_a_number():
    scores = np.array([[1, 2, 3], [3, 3, 1], [1, 0, 2], [np.nan] * 3])
    assert labelled.rank_of_label(scores, np.array([2, 0, 0, 1])).tolist() == [0, 1, 1, 2]
