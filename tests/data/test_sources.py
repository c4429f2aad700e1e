"""What each line of a JSON lines file becomes: the record it says, or a reject with its reason."""
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_jax.data import sources
from cc_jax.data.sources import Record, Reject, find_source, open_source


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
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 1000)
    line = {"image": "photos/a.jpg", "caption": "a dog"}
    endless = {"image": "photos/a.jpg", "caption": "x" * 2_000_000}
    [bad, good] = read(folder, endless, line)
    assert bad.reason == "line_too_long" and good.key == "captions.jsonl:2"
    tracemalloc.start()
    assert sources.count_lines(str(folder / "captions.jsonl")) == 2
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_an_image_file_too_large_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(sources, "MAX_IMAGE_BYTES", 9)
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
    assert len(items) == sources.count_lines(str(folder / "x.jsonl")) == (1 if line.split() else 0)


def test_the_count_for_progress_is_that_of_the_items(folder):
    read(folder, b"", {"image": "photos/a.jpg", "caption": "a"}, b"no json", b"")
    assert sources.count_lines(str(folder / "captions.jsonl")) == 2


@pytest.mark.parametrize("spec", ["zip:x", "", "JSONL:x", "photos/captions.jsonl"])
def test_an_unknown_source_is_an_error_that_names_the_known_ones(spec):
    with pytest.raises(ValueError, match=r"is not known; use one of jsonl:FILE, tar:PATTERN.*, shapes"):
        open_source(spec)


def test_a_missing_file_is_an_error_before_the_first_record(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.jsonl: no such file"):
        open_source(f"jsonl:{tmp_path / 'none.jsonl'}")
    with pytest.raises(FileNotFoundError, match="a folder"):
        open_source(f"jsonl:{tmp_path}")


@pytest.mark.parametrize("argument, expected", [
    ("", {"scenes": 16_000, "test_scenes": 1_000, "suite_scenes": 500, "seed": 0}),
    ("scenes=2000,seed=1", {"scenes": 2000, "test_scenes": 1_000, "suite_scenes": 500, "seed": 1}),
    ("scenes=1,test_scenes=0", {"scenes": 1, "test_scenes": 0, "suite_scenes": 500, "seed": 0}),
])
def test_options_of_shapes(argument, expected):
    assert sources.shapes_options(argument) == expected


@pytest.mark.parametrize("argument", ["scene=1", "scenes=-1", "scenes=0", "scenes=", "scenes", "seed=1.5", "2000"])
def test_an_option_of_shapes_that_is_none_is_an_error(argument):
    with pytest.raises(ValueError, match="is not an option; use scenes=N, test_scenes=N, suite_scenes=N, seed=N"):
        open_source(f"shapes:{argument}")


def test_a_spec_may_hold_more_colons():
    assert find_source("jsonl:c:/x.jsonl")[1] == "c:/x.jsonl"
