"""Parquet files with images in them, as Hugging Face and img2dataset write them, whole and broken."""
import tracemalloc

import pytest
from hypothesis import given, settings

from cc_jax.data import sources
from cc_jax.data.readers import parquet

from .conftest import damage, damages

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def read_table(read, tmp_path):
    def read_one(columns, option="", **options):
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        pq.write_table(table, tmp_path / "x.parquet", **options)
        return read(f"parquet:{tmp_path / 'x.parquet'}{option}")
    return read_one


def test_bytes_and_structs_of_bytes(read_table):
    images = [b"one", b"two", None]
    plain = read_table({"jpg": images, "caption": ["a", "b", "c"], "width": [1, 2, 3]})
    structs = [image and {"bytes": image, "path": "x.jpg"} for image in images]
    struct = read_table({"image": structs, "text": ["a", "b", "c"]})
    for items in (plain, struct):
        assert [(r.key, r.image, r.captions) for r in items.records] == [
            ("x.parquet:0", b"one", ("a",)), ("x.parquet:1", b"two", ("b",))]
        assert items.reasons == [("x.parquet:2", "image_missing")]


def test_several_captions_splits_and_phrases(read_table):
    columns = {"image": [b"i"] * 2, "raw": ["a red dog", None], "short": [["dog", "animal"], []], "part": ["train", "test"],
               "nouns": [[["red dog"], [], None], [["x"]]]}
    one, two = read_table(columns, ",captions=raw|short,split=part,phrases=nouns").records
    assert (one.captions, one.split, one.phrases) == (("a red dog", "dog", "animal"), "train", (["red dog"], [], None))
    assert (two.captions, two.split, two.phrases) == ((None,), "test", (["x"],))


@pytest.mark.parametrize("image", [pa.binary(), pa.large_binary(), pa.struct({"bytes": pa.binary()})])
@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.list_(pa.string()),
                                  pa.dictionary(pa.int32(), pa.string())])
def test_types_that_mean_the_same(read_table, image, text):
    value = {"bytes": b"i"} if pa.types.is_struct(image) else b"i"
    caption = pa.array([["a dog"]], text) if pa.types.is_list(text) else pa.array(["a dog"]).cast(text)
    [record] = read_table({"image": pa.array([value], image), "caption": caption}).records
    assert (record.image, record.captions) == (b"i", ("a dog",))


@pytest.mark.parametrize("columns, option, message", [
    ({"image": ["path.jpg"], "caption": ["a"]}, "", "'image' has the type string; it must be bytes, or a struct"),
    ({"image": [{"path": "x"}], "caption": ["a"]}, "", "'image' has the type struct.*must be bytes"),
    ({"image": [b"i"], "caption": [3]}, "", "'caption' has the type int64; it must be text"),
    ({"image": [b"i"], "caption": [b"a"]}, "", "'caption' has the type binary; it must be text"),
    ({"image": [b"i"], "other": ["a"]}, "", "none of the columns caption.*it has 'image', 'other'.*captions=COLUMN"),
    ({"pixels": [b"i"], "caption": ["a"]}, "", "none of the columns image.*image=COLUMN"),
    ({"image": [b"i"], "caption": ["a"]}, ",captions=caption|raw", "no column 'raw'"),
    ({"image": [b"i"], "caption": ["a"]}, ",split=part", "no column 'part'.*split=COLUMN"),
    ({"image": [b"i"], "caption": ["a"]}, ",phrases=caption", "'caption' has the type string; it must be lists of text"),
    ({"image": [b"i"], "caption": ["a"]}, ",rows=3", "not an option"),
])
def test_a_wrong_column_is_an_error_before_the_first_record(tmp_path, columns, option, message):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=message):
        sources.open_source(f"parquet:{tmp_path / 'x.parquet'}{option}")


def test_a_file_that_can_not_be_used_is_rejected_and_the_next_goes_on(read, tmp_path):
    good = pa.table({"image": [b"i"], "caption": ["a"]})
    for name, data in (("0", b""), ("1", b"no parquet" * 10), ("4", b"PAR1" * 5)):
        (tmp_path / f"{name}.parquet").write_bytes(data)
    pq.write_table(good, tmp_path / "2.parquet")
    pq.write_table(pa.table({"image": [b"i"]}), tmp_path / "3.parquet")
    pq.write_table(good, tmp_path / "6.parquet")
    items = read(f"parquet:{tmp_path}/{{0..6}}.parquet")
    assert list(items.captions) == ["2.parquet:0", "6.parquet:0"]
    assert items.reasons == [
        ("0.parquet", "parquet_broken"), ("1.parquet", "parquet_broken"), ("3.parquet", "columns_missing"),
        ("4.parquet", "parquet_broken"), ("5.parquet", "file_missing")]


def test_a_broken_row_group_is_one_reject_and_the_next_group_goes_on(read, tmp_path):
    path = tmp_path / "x.parquet"
    table = pa.table({"image": [b"%05d" % i * 100 for i in range(90)], "caption": ["a dog"] * 90})
    pq.write_table(table, path, row_group_size=30, compression="snappy")
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset:chunk.data_page_offset + chunk.total_compressed_size // 2] = bytes(
        chunk.total_compressed_size // 2)
    path.write_bytes(data)
    items = read(f"parquet:{path}")
    assert len(items.records) == 60 and items.reasons == [("x.parquet:30", "parquet_broken")]
    assert "rows 30 to 59" in items.rejects[0].detail


def test_text_that_is_not_utf8_and_images_too_large_are_rejected(read_table, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_IMAGE_BYTES", 10)
    text = pa.Array.from_buffers(pa.string(), 3, pa.array([b"ok", b"caf\xe9", b"ok"]).buffers())
    items = read_table(pa.table({"image": [b"i", b"i", b"i" * 11], "caption": text}))
    assert list(items.captions) == ["x.parquet:0"]
    assert items.reasons == [("x.parquet:1", "not_utf8"), ("x.parquet:2", "image_bytes")]


def test_only_the_columns_needed_are_read(read, flaky, tmp_path, monkeypatch):
    big = {"image": [b"i"] * 10, "caption": ["a"] * 10, "latent": [bytes(range(256)) * 40_000] * 10}
    pq.write_table(pa.table(big), tmp_path / "x.parquet", compression="none", use_dictionary=False)
    flaky.pipe({"/b/x.parquet": (tmp_path / "x.parquet").read_bytes()})
    asked = []
    monkeypatch.setattr(type(flaky), "fail", lambda path, position, error: asked.append(position))
    assert len(read("parquet:flaky://b/x.parquet").records) == 10
    assert len(asked) < 12                          # of a MiB each; the file has 100


def test_a_remote_file_is_read_again_where_it_failed(read, flaky, tmp_path):
    pq.write_table(pa.table({"image": [b"i" * 1000] * 100, "caption": ["a"] * 100}), tmp_path / "x.parquet")
    flaky.pipe({"/b/x.parquet": (tmp_path / "x.parquet").read_bytes()})
    source = sources.open_source("parquet:flaky://b/*.parquet")
    flaky.reset(failures=3)
    assert len(list(source)) == 100 and flaky.waits == [0.5, 2.0, 8.0]
    source = sources.open_source("parquet:flaky://b/*.parquet")
    flaky.reset(failures=4)
    assert [item.reason for item in source] == ["read_failed"]


def test_the_parts_are_row_groups_that_are_read_on_their_own(read, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "PART_ROWS", 5)
    for name in "01":
        pq.write_table(pa.table({"image": [b"i"] * 14, "caption": [f"{name} {i}" for i in range(14)]}),
                       tmp_path / f"{name}.parquet", row_group_size=3)
    (tmp_path / "2.parquet").write_bytes(b"broken")
    parts = parquet.parts(str(tmp_path))
    assert [(part.name, part.records) for part in parts] == [
        ("0.parquet:0", 6), ("0.parquet:6", 6), ("0.parquet:12", 2),
        ("1.parquet:0", 6), ("1.parquet:6", 6), ("1.parquet:12", 2), ("2.parquet", None)]
    assert [len(list(part.read())) for part in parts] == [6, 6, 2] * 2 + [1]
    expected = {f"{name}.parquet:{i}": (f"{name} {i}",) for name in "01" for i in range(14)}
    assert read(f"parquet:{tmp_path}").captions == expected


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path):
    def peak(rows: int) -> int:
        pq.write_table(pa.table({"image": [bytes(10_000)] * rows, "caption": ["a dog"] * rows}), tmp_path / "x.parquet",
                       row_group_size=100)
        next(sources.open_source(f"parquet:{tmp_path / 'x.parquet'}"))      # what is imported on the way counts for nothing
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        most = 0
        for _ in sources.open_source(f"parquet:{tmp_path / 'x.parquet'}"):
            most = max(most, pa.total_allocated_bytes() - before)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most + top
    small = peak(200)
    assert peak(2000) < 1.15 * small + 500_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "x.parquet"
    images = [{"bytes": b"%d" % i * 50, "path": None} for i in range(30)]
    pq.write_table(pa.table({"image": images, "caption": ["a", "b", None] * 10}), path, row_group_size=10)
    return path.read_bytes()


@given(changes=damages)
@settings(deadline=5000, max_examples=150)
def test_any_damage_is_survived(read, whole, tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("any") / "x.parquet"
    damage(path, whole, changes)
    try:
        items = read(f"parquet:{path}")
    except ValueError as error:                     # the name or the type of a column was damaged
        assert "column" in str(error)
    else:
        assert items.records or items.rejects
