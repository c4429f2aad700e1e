"""The page of a dataset: right, complete, alone, and unmoved by hostile data."""
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cc_jax.data import dataset
from cc_jax.data.inspect import read_rejects, survey_dataset, write_report
from cc_jax.data.prepare import prepare
from cc_jax.data.survey import Survey
from cc_jax.data.survey_page import marked, page, quantile

VOID = {"meta", "img", "br"}
HOSTILE = '<script>alert(1)</script>"\'&<img src=http://evil.example/x>\ud800\x00'


class Page(HTMLParser):
    """The tags, addresses, marked pieces and texts of a page; every tag has to be closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.addresses, self.marks, self.rows, self.lines, self._open = [], [], [], [], [""], []
        self.feed(text)
        self.lines = [line.strip() for line in self.lines if line.strip()]
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "style")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "mark":
            self.marks.append("")
        else:
            self.lines.append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag != "mark":
            self.lines.append("")

    def handle_data(self, data):
        self.lines[-1] += data
        if "mark" in self._open:
            self.marks[-1] += data
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def cells(self, label: str) -> list[str]:
        return next(row[1:] for row in self.rows if row and row[0] == label)


def photo(number: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 48, 3), np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def example(key: str, *captions: str, image: bytes | None = None, phrases=()) -> dict:
    """Args: phrases: (caption, start, end) of each."""
    return {"key": key, "image": photo(0) if image is None else image, "captions": list(captions),
            "phrases": [captions[i][start:end].lower() for i, start, end in phrases],
            "phrase_caption": [i for i, _, _ in phrases], "phrase_start": [start for _, start, _ in phrases],
            "phrase_end": [end for _, _, end in phrases]}


def surveyed(*records: dict) -> Survey:
    survey = Survey()
    for record in records:
        survey.add(record, "train")
    return survey


@pytest.fixture
def photos(tmp_path) -> Path:
    """A small prepared dataset with two splits, and rejects."""
    folder = tmp_path / "source"
    folder.mkdir()
    with (folder / "captions.jsonl").open("w") as lines:
        for i in range(40):
            (folder / f"{i}.jpg").write_bytes(b"broken" if i < 5 else photo(i))
            line = {"image": f"{i}.jpg", "captions": ["A red dog sees the big ball.", "it is"],
                    "split": "test" if i % 4 == 0 else "train"}
            print(json.dumps(line), file=lines)
    prepare(f"jsonl:{folder / 'captions.jsonl'}", tmp_path / "photos", max_rejected=0.5, vocab_size=40)
    return tmp_path / "photos"


def test_the_command_shows_a_dataset(command, photos, tmp_path):
    done = command("cc_jax.data.inspect", photos)
    path = photos / "report.html"
    assert f"written to {path}" in done.stdout and "35 of 35 records  ETA" in done.stderr
    shown = Page(path.read_text())
    assert shown.cells("train") == ["27", "54", "54", "1.00", "50.0 %"]
    assert shown.cells("all") == ["35", "70", "70", "1.00", "50.0 %"]
    assert shown.tags.count("img") == 24 and shown.marks == ["red dog", "big ball"] * 24
    assert "image_undecodable" in shown.lines and "5 records" in shown.lines
    assert [line for line in shown.lines if line.startswith("captions.jsonl:")] == [f"captions.jsonl:{i}" for i in (1, 2, 3)]
    assert "5 of 40 records (12.5 %)" in path.read_text()
    assert not list(photos.glob(".*"))


def test_a_few_records_may_stand_for_all_and_nothing_is_written_into_the_dataset(command, photos, tmp_path):
    before = {path.name: path.stat().st_mtime_ns for path in photos.iterdir()}
    out = tmp_path / "new" / "look.html"
    command("cc_jax.data.inspect", photos, "--out", out, "--records", "7")
    assert {path.name: path.stat().st_mtime_ns for path in photos.iterdir()} == before
    shown = Page(out.read_text())
    assert "What follows is from 7 of these records, evenly spaced." in shown.lines
    assert shown.cells("all")[:3] == ["35", "7", "14"] and shown.tags.count("img") == 7
    assert "70" in shown.lines                                              # captions, of the whole dataset


def test_what_is_no_dataset_is_said_without_a_traceback(command, tmp_path):
    done = command("cc_jax.data.inspect", tmp_path / "none", fails=True)
    assert "error: there is no prepared dataset in" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("records", [6, 20, 34, 35, 99, 0])
def test_chosen_records_are_evenly_spaced(photos, records):
    survey, wanted = survey_dataset(photos, records), min(records or 35, 35)
    assert survey.total().records == wanted
    for split, size in dataset.split_sizes(photos).items():
        assert abs(survey.splits[split].records - wanted * size / 35) <= (1 if wanted < 35 else 0)


def test_a_page_needs_nothing_else_and_hostile_data_is_shown_as_it_is():
    survey = surveyed(example(HOSTILE, HOSTILE, "", phrases=[(0, 0, 8), (0, 4, 40)]))
    counts = {"source": HOSTILE, "tagger": HOSTILE, "splits": {HOSTILE: 1}, "records": 2, "rejected": {HOSTILE: 1},
              "notes": {HOSTILE: 3}}
    text = page(survey, counts, [{"key": HOSTILE, "reason": HOSTILE, "detail": HOSTILE}], name=HOSTILE)
    text.encode()
    shown = Page(text)
    assert not {"script", "link", "iframe", "object", "base"} & set(shown.tags)
    assert all(re.fullmatch(r"data:image/jpeg;base64,[\w+/=]+|height:[\d.]+%", address) for address in shown.addresses)
    assert "url(" not in text and "@import" not in text
    assert sum('<script>alert(1)</script>"\'&<img src=http://evil.example/x>?' in line for line in shown.lines) >= 8


def test_a_page_is_made_of_nothing_and_of_broken_images():
    assert "There are none." in page(Survey(), {}, [])
    records = [example(str(i), "a dog", image=b"broken" if i % 5 == 0 else photo(i)) for i in range(60)]
    shown = Page(page(surveyed(*records), {}, []))
    assert shown.tags.count("img") == 24 and shown.cells("train") == ["60", "60", "0", "0.00", "100.0 %"]


def test_rejects_are_counted_by_reason_with_the_first_three_of_each():
    rejects = ({"key": f"{reason}:{i}", "reason": reason, "detail": "x" * 10**4}
               for i in range(1000) for reason in ("image_bomb", "unheard"))
    counts = {"records": 5000, "rejected": {"image_bomb": 999}, "rejected_captions": {"image_bomb": 1},
              "notes": {"caption_entities": 7}}
    text = page(Survey(), counts, rejects)
    lines = Page(text).lines
    assert "999 records, 1 caption" in lines and "1 000 lines" in lines and "caption_entities" in lines
    assert [line for line in lines if line.startswith("image_bomb:")] == [f"image_bomb:{i}" for i in range(3)]
    assert "x" * 200 in text and "x" * 201 not in text


@given(st.text(max_size=30), st.lists(st.tuples(st.integers(-5, 35), st.integers(-5, 35)), max_size=6))
def test_marks_cover_the_spans_and_only_them(caption, spans):
    html = marked(caption, spans)
    covered = [sum(start <= i < end for start, end in spans) for i in range(len(caption))]

    class Depths(HTMLParser):
        depth, seen, text = 0, [], ""

        def handle_starttag(self, tag, attributes):
            self.depth = 2 if ("class", "twice") in attributes else 1

        def handle_endtag(self, tag):
            self.depth = 0

        def handle_data(self, data):
            self.text += data
            self.seen = self.seen + [self.depth] * len(data)

    parser = Depths()
    parser.feed(html)
    parser.close()
    assert parser.text == caption.encode(errors="replace").decode()
    assert parser.seen == [min(depth, 2) for depth in covered]


def test_overlapping_and_hostile_spans_are_marked():
    assert marked("a big <b> dog", [(2, 13), (10, 13)]) == \
        'a <mark>big &lt;b&gt; </mark><mark class="twice">dog</mark>'
    assert marked("red dog", [(0, 3), (3, 7)]) == "<mark>red</mark><mark> dog</mark>"


@given(st.lists(st.integers(0, 9), min_size=1), st.sampled_from([0.5, 0.95, 1.0]))
def test_a_quantile_is_that_of_the_values(values, share):
    counts = [values.count(value) for value in range(10)]
    assert quantile(counts, share) == np.quantile(values, share, method="inverted_cdf")


def test_a_dataset_of_the_first_version_lists_its_phrases(tmp_path, write_tfds):
    record = {"key": "a:1", "image": photo(1), "captions": ["a red dog", "no phrase"], "phrases": ["red dog"],
              "phrase_caption": [0]}
    features = tfds.features.FeaturesDict({name: dataset.FEATURES[name] for name in record})
    write_tfds(tmp_path, features, {"train": [record]}, version="1.0.0")
    assert list(read_rejects(tmp_path)) == []
    shown = Page(write_report(tmp_path).read_text())
    assert shown.marks == ["red dog"] and "a red dog" in shown.lines
    assert shown.cells("train") == ["1", "2", "1", "0.50", "50.0 %"]


def test_preparation_may_bring_its_own_survey_and_name(photos):
    path = write_report(photos, surveyed(example("only", "A dog", phrases=[(0, 2, 5)])), name="a name")
    shown = Page(path.read_text())
    assert path == photos / "report.html" and "A look at a name" in shown.lines and shown.marks == ["dog"]
