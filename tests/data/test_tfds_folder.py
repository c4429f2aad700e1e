"""Folders of TFDS datasets from strangers: nothing in them runs code."""
import json
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cc_jax.config import DatasetError
from cc_jax.data import dataset, sources, tfds_folder
from cc_jax.evals import labelled

MODULE = "cc_jax_stranger"
STRANGER = f"{MODULE}.Image"


@pytest.fixture
def folder(tmp_path, write_tfds):
    """A sound dataset, with all of TFDS's features that need nothing else."""
    F = tfds.features
    features = F.FeaturesDict({
        "image": F.Image(), "captions": F.Sequence({"text": F.Text()}), "type": F.Text(), "json": F.Text(),
        "label": F.ClassLabel(num_classes=2), "box": F.BBoxFeature(), "number": F.Scalar(np.int64),
        "both": F.Translation(["a"])})
    example = {"image": b"", "captions": [], "type": "x", "json": "x",
               "label": 0, "box": F.BBox(0.0, 0.0, 1.0, 1.0), "number": 0,
               "both": {"a": "x"}}
    write_tfds(tmp_path / "set" / "1.0.0", features, {"train": [example]}, "set", "1.0.0")
    return tmp_path / "set" / "1.0.0"


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that can be imported by name, and the file it writes when it is."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{MODULE}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield tmp_path / "ran"
    sys.modules.pop(MODULE, None)


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def a_class(features):
    features["featuresDict"]["features"]["image"]["pythonClassName"] = STRANGER


def a_class_by_its_other_key(features):
    image = features["featuresDict"]["features"]["image"]
    image["python_class_name"] = STRANGER
    del image["pythonClassName"]


def a_class_within_a_sequence(features):
    features["featuresDict"]["features"]["captions"]["sequence"]["feature"]["pythonClassName"] = STRANGER


def the_outermost(features):
    features["pythonClassName"] = STRANGER


def an_old_file(features):
    inner = {"type": STRANGER, "content": {}}
    features |= {"type": "tensorflow_datasets.core.features.features_dict.FeaturesDict", "content": {"image": inner}}


def json_in_a_text(features):
    inner = {"feature": {"type": STRANGER, "content": {}}, "length": None}
    captions = features["featuresDict"]["features"]["captions"]
    del captions["sequence"]
    captions["jsonFeature"] = {"json": json.dumps(inner)}


EDITS = [a_class, a_class_by_its_other_key, a_class_within_a_sequence, the_outermost, an_old_file, json_in_a_text]


@pytest.mark.parametrize("edit", EDITS)
def test_tfds_itself_would_run_the_code(folder, trap, edit):
    """What the check is there for; where TFDS imports nothing any more, it can go."""
    change(folder / "features.json", edit)
    with pytest.raises(Exception):                                  # noqa: B017 the class is none, as it turns out too late
        tfds.builder_from_directory(folder)                         # noqa: TID251
    assert trap.exists()


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("door", [
    lambda folder: dataset.open_split(folder, "train"), lambda folder: list(sources.open_source(f"tfds:{folder}")),
    lambda folder: list(sources.open_source(f"tfds:set,data_dir={folder.parent.parent}")),
    lambda folder: labelled.open_labelled(f"tfds:{folder},split=train")], ids=["dataset", "source", "name", "labelled"])
def test_a_class_from_elsewhere_is_refused_and_its_module_not_imported(folder, trap, door, edit):
    change(folder / "features.json", edit)
    with pytest.raises(ValueError, match=f"features.json names the feature class '{STRANGER}'"):
        door(folder)
    assert not trap.exists() and MODULE not in sys.modules


def test_nor_may_the_other_file_name_it(folder, trap):
    change(folder / "dataset_info.json", lambda info: info.update(features={"pythonClassName": STRANGER, "text": {}}))
    with pytest.raises(DatasetError, match="dataset_info.json names the feature class"):
        tfds_folder.open_folder(folder)
    assert not trap.exists()


@pytest.mark.parametrize("label", [
    {"type": "tensorflow_datasets.core.features.class_label_feature.ClassLabel", "content": {"names_file": "/dev/zero"}},
    {"type": "tensorflow_datasets.core.features.labeled_image.LabeledImage", "content": {"labels": "/dev/zero"}}])
def test_no_file_elsewhere_is_read(folder, label):
    """This one has no end."""
    old = {"type": "tensorflow_datasets.core.features.features_dict.FeaturesDict", "content": {"label": label}}
    (folder / "features.json").write_text(json.dumps(old))
    with pytest.raises(DatasetError, match="labels read from the file '/dev/zero'"):
        tfds_folder.open_folder(folder)


@pytest.mark.parametrize(("lengths", "message"), [
    (["2000000"], "2000000 records, and its files have"), (["1"] * 100_001, "100001 shards, more than")])
def test_counts_that_the_files_cannot_hold_are_refused(folder, lengths, message):
    """Readers make lists as long as these."""
    change(folder / "dataset_info.json", lambda info: info["splits"][0].update(shardLengths=lengths))
    with pytest.raises(DatasetError, match=f"dataset_info.json says that split 'train' has {message}"):
        tfds_folder.open_folder(folder)


def test_tfdss_own_features_pass(folder):
    assert len(tfds_folder.open_folder(folder).info.features) == 8


@pytest.mark.parametrize("content, message", [
    ("", "is not JSON"), ("{", "is not JSON"), ("\udcff", "is not JSON"), ('{"a": 1, "a": 2}', "key 'a' is there twice"),
    ("[" * 65 + "]" * 65, "nested 65 deep, more than 64"), ("[" * 100_000, "nested"),
    ('{"a": NaN}', "NaN is no JSON number"), ("{}", "can't be read"), ('{"type": 1}', "can't be read"),
    ("[]", "holds a list, not an object"), ('{"json": "{"}', "'json' is not JSON")])
def test_what_is_no_json_of_features_is_refused_by_the_files_name(folder, content, message):
    (folder / "features.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DatasetError, match=message) as caught:
        tfds_folder.open_folder(folder)
    assert str(folder) in str(caught.value)


def test_a_file_that_is_too_large_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(tfds_folder, "MAX_BYTES", 10)
    with pytest.raises(DatasetError, match="dataset_info.json has .* bytes, more than 10"):
        tfds_folder.open_folder(folder)
