"""A tree of images with their captions beside them."""
import os

import pytest
from hypothesis import given, settings

from cc_jax.data import sources
from cc_jax.data.readers import folder as folder_reader
from cc_jax.data.records import Record

from .conftest import damage, damages


def add(folder, files: dict) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def test_each_line_of_a_text_is_a_caption(read, tmp_path):
    add(tmp_path, {"a.jpg": b"A", "a.txt": b"\xef\xbb\xbfa dog\r\n\n  an &lt;animal&gt; \n",
                   "x/y/b.PNG": b"B", "x/y/b.TXT": b"b", "x/c.d.webp": b"C", "x/c.d.txt": b"c", "x/c.d.jpg": b"another"})
    items = read(f"folder:{tmp_path}")
    assert items.captions == {"a.jpg": ("a dog", "an <animal>"),
                              "x/c.d.jpg": ("c",), "x/c.d.webp": ("c",), "x/y/b.PNG": ("b",)}
    assert [record.image for record in items.records] == [b"A", b"another", b"C", b"B"]
    assert not items.rejects and items.notes == {"caption_entities": 1}


def test_what_can_not_be_used_is_rejected_and_the_rest_goes_on(read, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_reader, "MAX_IMAGE_BYTES", 5)
    monkeypatch.setattr(folder_reader, "MAX_LINE_BYTES", 10)
    add(tmp_path, {"alone.jpg": b"A", "alone_too.txt": b"a", "latin.jpg": b"A", "latin.txt": b"\xe9", "long.jpg": b"A",
                   "long.txt": b"x" * 11, "big.jpg": b"123456", "big.txt": b"x", "model.pkl": b"cos\nsystem",
                   ".hidden/a.jpg": b"",
                   "good.jpg": b"A", "good.txt": b"x", "none.jpg": b"A", "none.txt": b" \n"})
    (tmp_path / "dir.jpg").mkdir()
    items = read(f"folder:{tmp_path}")
    assert items.captions == {"good.jpg": ("x",), "none.jpg": ()}
    assert items.reasons == [("alone.jpg", "no_caption"), ("big.jpg", "image_bytes"), ("latin.jpg", "not_utf8"),
                             ("long.jpg", "text_bytes"), ("alone_too.txt", "no_image")]
    assert items.notes == {"file_ignored": 1}


def test_links_in_a_circle_pipes_and_names_that_are_not_utf8(read, tmp_path):
    add(tmp_path, {"a.jpg": b"A", "a.txt": b"a", "sub/p.txt": b"p"})
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "sub" / "p.jpg")
    for name in (b"caf\xe9.jpg", b"caf\xe9.txt"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    items = read(f"folder:{tmp_path}")
    assert items.captions == {"a.jpg": ("a",), r"caf\udce9.jpg": ("x",)}
    assert items.reasons == [("sub/p.jpg", "image_missing")]


def test_no_folder_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for argument in ("", tmp_path / "none", tmp_path / "file"):
        with pytest.raises(FileNotFoundError, match="no such folder"):
            sources.open_source(f"folder:{argument}")


def test_parts_are_the_folders_at_the_top_several_to_a_part_where_there_are_many(tmp_path, monkeypatch):
    add(tmp_path, {f"{place}{name}": b"x" for place in ("", "a/", "b/c/", "d/e/f/") for name in ("1.jpg", "1.txt")})
    source, argument = sources.find_source(f"folder:{tmp_path}")
    keys = lambda: [[item.key for item in part.read()] for part in source.parts(argument)]
    assert keys() == [["1.jpg"], ["a/1.jpg"], ["b/c/1.jpg"], ["d/e/f/1.jpg"]]
    monkeypatch.setattr("cc_jax.data.readers.folder.MAX_PARTS", 2)
    assert keys() == [["1.jpg"], ["a/1.jpg", "b/c/1.jpg"], ["d/e/f/1.jpg"]]


def test_a_remote_folder(read, flaky):
    flaky.pipe({"/b/x/a.jpg": b"A", "/b/x/a.txt": b"a", "/b/x/sub/c.jpg": b"C", "/b/x/sub/c.txt": b"c"})
    flaky.reset(failures=3)
    assert read("folder:flaky://b/x").captions == {"a.jpg": ("a",), "sub/c.jpg": ("c",)}
    flaky.reset(failures=4)
    assert read("folder:flaky://b/x").reasons == [("a.jpg", "read_failed")]


@given(changes=damages)
@settings(deadline=5000, max_examples=60)
def test_any_damage_to_a_text_is_survived(read, tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("any")
    add(folder, {"a.jpg": b"A"})
    damage(folder / "a.txt", "a dog\nein Hündchen\n".encode(), changes)
    items = read(f"folder:{folder}")
    assert len(items.records) + len(items.rejects) == 1
    assert all(isinstance(record, Record) for record in items.records)
