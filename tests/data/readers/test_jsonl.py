"""What each line of a JSON lines file becomes: the record it says, or a reject with its reason."""
import gzip
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_jax.data.readers import jsonl
from cc_jax.data.records import Record, Reject
from cc_jax.data.sources import open_source


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"bytes of a")
    return tmp_path


def read(folder, *lines) -> list[Record | Reject]:
    """The items of a file with these lines: bytes as they are, other values as JSON."""
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (folder / "captions.jsonl").write_bytes(b"\n".join(encoded))
    return list(open_source(f"jsonl:{folder / 'captions.jsonl'}"))


def test_a_line_becomes_a_record(folder):
    [one, several] = read(folder, {"image": "photos/a.jpg", "caption": "a dog"},
                          {"image": "photos/a.jpg", "captions": ["a dog", "an animal"], "split": "test", "more": 1})
    assert one == Record("captions.jsonl:1", b"bytes of a", ("a dog",), "train")
    assert several == Record("captions.jsonl:2", b"bytes of a", ("a dog", "an animal"), "test")


@pytest.mark.parametrize("line, reason", [
    (b"{'image': 1}", "not_json"),
    (b'{"image": "photos/a.jpg", "caption": "cut', "not_json"),
    (b"[" * 100_000, "not_json"),
    (b"1" * 10_000, "not_json"),
    (b"[1, 2]", "not_an_object"),
    (b"null", "not_an_object"),
    ('{"image": "photos/a.jpg", "caption": "caf\xe9"}'.encode("latin-1"), "not_utf8"),
    ({"image": "photos/a.jpg"}, "record_keys"),
    ({"caption": "a dog"}, "record_keys"),
    ({"image": "photos/a.jpg", "caption": "a", "captions": ["b"]}, "record_keys"),
    ({"image": 7, "caption": "a dog"}, "record_types"),
    ({"image": "photos/a.jpg", "captions": "a dog"}, "record_types"),
    ({"image": "photos/a.jpg", "caption": "a dog", "split": 1}, "record_types"),
    ({"image": "photos/a.jpg", "caption": "a dog", "split": "../x"}, "split_name"),
    ({"image": "photos/a.jpg", "caption": "a dog", "split": "all"}, "split_name"),
    ({"image": "photos/none.jpg", "caption": "a dog"}, "image_missing"),
    ({"image": "photos", "caption": "a dog"}, "image_missing"),
    ({"image": "x" * 5000, "caption": "a dog"}, "image_missing"),
    ({"image": "\ud800.jpg", "caption": "a dog"}, "image_missing"),
    ({"image": "../a.jpg", "caption": "a dog"}, "image_path"),
    ({"image": "photos/../photos/a.jpg", "caption": "a dog"}, "image_path"),
    ({"image": "/etc/hostname", "caption": "a dog"}, "image_path"),
    ({"image": "", "caption": "a dog"}, "image_path"),
    ({"image": "photos/a.jpg\0", "caption": "a dog"}, "image_path"),
])
def test_a_bad_line_is_rejected_with_its_reason_and_the_next_goes_on(folder, line, reason):
    [bad, good] = read(folder, line, {"image": "photos/a.jpg", "caption": "a dog"})
    assert isinstance(bad, Reject) and (bad.key, bad.reason) == ("captions.jsonl:1", reason)
    assert 0 < len(bad.detail) < 1000
    assert isinstance(good, Record)


def test_blank_lines_and_a_byte_order_mark_are_skipped_and_lines_keep_their_numbers(folder):
    line = b'{"image": "photos/a.jpg", "caption": "a dog"}'
    items = read(folder, b"\xef\xbb\xbf" + line, b"", b"  \r", line + b"\r", b"")
    assert [item.key for item in items] == ["captions.jsonl:1", "captions.jsonl:4"]


def test_a_caption_of_ten_megabytes_is_a_matter_of_preparation(folder):
    [record] = read(folder, {"image": "photos/a.jpg", "caption": "x" * 10_000_000})
    assert len(record.captions[0]) == 10_000_000


def test_a_line_without_end_is_rejected_and_never_held(folder, monkeypatch):
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 1000)
    line = {"image": "photos/a.jpg", "caption": "a dog"}
    endless = {"image": "photos/a.jpg", "caption": "x" * 5_000_000}
    [bad, good] = read(folder, endless, line)
    assert bad.reason == "line_too_long" and good.key == "captions.jsonl:2"
    tracemalloc.start()
    assert [part.records for part in jsonl.parts(str(folder / "captions.jsonl"))] == [2]
    assert tracemalloc.get_traced_memory()[1] < 2_500_000      # the buffer has one MiB
    tracemalloc.stop()


def test_an_image_file_too_large_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(jsonl, "MAX_IMAGE_BYTES", 9)
    [bad] = read(folder, {"image": "photos/a.jpg", "caption": "a dog"})
    assert bad.reason == "image_bytes" and "10 bytes" in bad.detail


KEYS = st.sampled_from(["image", "caption", "captions", "split"])
VALUES = st.recursive(st.none() | st.booleans() | st.floats() | st.text(),
                      lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))


@given(line=st.binary(max_size=200) | VALUES.map(json.dumps).map(str.encode))
def test_any_line_becomes_an_item_or_nothing(tmp_path_factory, line):
    folder = tmp_path_factory.mktemp("any")
    (folder / "x.jsonl").write_bytes(line.replace(b"\n", b" "))
    items = list(open_source(f"jsonl:{folder / 'x.jsonl'}"))
    [part] = jsonl.parts(str(folder / "x.jsonl"))
    assert len(items) == part.records == (1 if line.removeprefix(b"\xef\xbb\xbf").split() else 0)


def test_parts_are_lines_that_are_read_on_their_own(folder, monkeypatch):
    """Wherever they begin, keys are those of the whole file; what they hold adds up, blank lines left out."""
    monkeypatch.setattr(jsonl, "PART_LINES", 3)
    line = {"image": "photos/a.jpg", "caption": "a dog"}
    whole = read(folder, line, b"", line, line, b"no json", line, b"", b"", b"", line)
    parts = jsonl.parts(str(folder / "captions.jsonl"))
    assert [(part.name, part.records) for part in parts] == [
        ("captions.jsonl:1", 2), ("captions.jsonl:4", 3), ("captions.jsonl:7", 0), ("captions.jsonl:10", 1)]
    assert [item for part in parts for item in part.read()] == whole
    assert [item.key for item in whole] == [f"captions.jsonl:{i}" for i in (1, 3, 4, 5, 6, 10)]


def test_several_files_some_compressed_and_elsewhere(folder, flaky):
    line = json.dumps({"image": "photos/a.jpg", "caption": "a dog"}).encode() + b"\n"
    flaky.pipe({"/b/photos/a.jpg": b"bytes of a", "/b/0.jsonl": line * 2, "/b/1.jsonl.gz": gzip.compress(line),
                "/b/2.jsonl.gz": gzip.compress(line)[:-9]})
    items = list(open_source("jsonl:flaky://b/{0.jsonl,1.jsonl.gz,2.jsonl.gz,3.jsonl}"))
    assert [item.key for item in items[:3]] == ["0.jsonl:1", "0.jsonl:2", "1.jsonl.gz:1"]
    assert all(item.image == b"bytes of a" for item in items[:3])
    assert ("read_failed", "file_missing") == tuple(item.reason for item in items[-2:])
    assert [part.records for part in jsonl.parts("flaky://b/*.jsonl*")] == [2, None, None]


def test_a_missing_file_is_an_error_before_the_first_record(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.jsonl: no such file"):
        open_source(f"jsonl:{tmp_path / 'none.jsonl'}")
    for folder in (tmp_path, ""):
        with pytest.raises(FileNotFoundError, match="a folder"):
            open_source(f"jsonl:{folder}")
