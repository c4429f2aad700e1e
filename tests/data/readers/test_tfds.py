"""TFDS datasets that were prepared elsewhere, with features as they come."""
import io
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from PIL import Image

from cc_jax.data import dataset, sources

from .conftest import damage, damages

F = tfds.features


def png(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


FEATURES = F.FeaturesDict({
    "image": F.Image(), "captions": F.Sequence({"id": np.int64, "text": F.Text()}), "title": F.Text(), "mask": F.Image(),
    "number": np.int64})


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, write_tfds):
    """With a dataset of images with several captions in a sequence of dicts, and features that no one needs."""
    root = tmp_path_factory.mktemp("tfds")
    folder = root / "like_coco" / "1.0.0"
    write_tfds(folder, FEATURES, {split: [
        {"image": png(i), "mask": png(i), "number": i, "title": f"Tom &amp; {i}",
         "captions": [{"id": j, "text": f"{i} {j}"} for j in range(i)]} for i in range(count)]
        for split, count in (("train", 5), ("val", 2))}, "like_coco", "1.0.0")
    return root


def test_by_name_and_by_folder_with_the_usual_features(read, data_dir):
    by_name, by_folder = read(f"tfds:like_coco,data_dir={data_dir}"), read(f"tfds:{data_dir}/like_coco/1.0.0")
    assert by_name == by_folder and not by_name.rejects
    train = [record for record in by_name.records if record.split == "train"]
    assert [len(train), len(by_name.records)] == [5, 7]
    assert all(record.image == png(len(record.captions)) for record in by_name.records)
    assert sorted(record.captions for record in train)[3] == ("3 0", "3 1", "3 2")
    assert train[0].key == "like_coco/1.0.0/train:0" and "tensorflow" not in sys.modules


def test_features_and_splits_by_name(read, data_dir):
    items = read(f"tfds:like_coco:1.0.0,image=mask,captions=title|captions.text,splits=val,data_dir={data_dir}")
    assert sorted(record.captions for record in items.records) == [("Tom & 0",), ("Tom & 1", "1 0")]
    assert items.notes == {"caption_entities": 2}


@pytest.mark.parametrize("argument, message", [
    ("", "the path is missing"), ("like_coco,images=x", "not an option"), ("like_coco,image=x", "no column 'x'"),
    ("like_coco,image=title", "'title' is Text; name an Image feature"), ("like_coco,captions=number", "no column 'number'"),
    ("like_coco,captions=captions.none", "it has 'captions.text', 'title'"), ("like_coco,splits=dev", "it has train, val"),
    ("nosuch", "data_dir=DIR"), ("like_coco:2.0.0", "data_dir=DIR"), ("../x", "data_dir=DIR"),
    ("{FOLDER}", "dataset_info.json"),
])
def test_what_is_not_there_is_an_error_before_the_first_record(data_dir, argument, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        sources.open_source(f"tfds:{argument.replace('{FOLDER}', str(data_dir))}" + f",data_dir={data_dir}" * bool(argument))
    assert len(str(error.value)) < 700


def test_another_file_format_is_an_error_that_says_how_to_prepare(data_dir, tmp_path):
    for path in (data_dir / "like_coco" / "1.0.0").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes().replace(b'"arrayRecord"', b'"tfrecord"').replace(
            b'"array_record"', b'"tfrecord"'))
    with pytest.raises(ValueError, match="prepared as tfrecord.*file_format=array_record"):
        sources.open_source(f"tfds:{tmp_path}")


def test_a_dataset_of_ours_is_a_source_too(read, tmp_path, write_tfds):
    record = {"key": "a:1", "image": png(1), "captions": ["a red dog", "b"], "phrases": ["red dog"], "phrase_caption": [0],
              "phrase_start": [2], "phrase_end": [9]}
    write_tfds(tmp_path, dataset.FEATURES, {"train": [record]})
    assert read(f"tfds:{tmp_path}").captions == {"cc/1.1.0/train:0": ("a red dog", "b")}


def test_the_count_and_the_parts(data_dir, monkeypatch):
    monkeypatch.setattr("cc_jax.data.readers.tfds.PART_RECORDS", 2)
    source, argument = sources.find_source(f"tfds:{data_dir}/like_coco/1.0.0")
    parts = source.parts(argument)
    assert [len(list(part.read())) for part in parts] == [part.records for part in parts] == [2, 2, 1, 2]


@given(changes=damages)
@settings(deadline=10_000, max_examples=60)
def test_any_damage_to_the_records_is_counted(read, data_dir, tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("any")
    for path in (data_dir / "like_coco" / "1.0.0").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    [shard] = folder.glob("*train*")
    damage(shard, shard.read_bytes(), changes)
    items = read(f"tfds:{folder}")
    assert len(items.records) + len(items.rejects) == 7 or len(items.rejects) == 1
