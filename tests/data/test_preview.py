"""A preview tells what a preparation of the same records would."""
import json

import pytest

from cc_jax.data import dataset
from cc_jax.data.prepare import prepare
from cc_jax.data.preview import preview
from cc_jax.data.survey_page import page


@pytest.fixture
def photos(tmp_path):
    """Four records: two good ones, one with an empty caption, one whose image is missing."""
    from PIL import Image

    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.jpg")
    captions = [["a red dog", "the dog"], ["a man in a blue hat"], ["  "], ["a cat"]]
    lines = [{"image": "red.jpg" if i < 3 else "gone.jpg", "captions": each} for i, each in enumerate(captions)]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"jsonl:{tmp_path}/captions.jsonl"


def test_a_preview_counts_what_preparing_would(photos, tmp_path):
    made = preview(photos)
    folder = tmp_path / "prepared"
    counts = prepare(photos, str(folder), max_rejected=1.0)
    for name in ("records", "rejected", "captions", "phrases", "captions_without_phrase"):
        assert made.counts[name] == counts[name], name
    assert made.survey.phrases == {"red dog": 1, "dog": 1, "man": 1, "blue hat": 1}
    assert sorted(reject["reason"] for reject in made.rejects) == ["caption_empty", "image_missing"]
    assert "image_missing" in page(made.survey, made.counts, made.rejects)


def test_only_so_many_records_are_read(photos):
    assert preview(photos, records=1).counts["records"] == 1


def test_a_prepared_dataset_is_looked_at_as_it_is(shapes_dir):
    made = preview(str(shapes_dir), records=50)
    assert made.survey.total().records == 50
    assert made.counts == dataset.read_metadata(shapes_dir)
