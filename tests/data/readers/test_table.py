"""TSV and CSV tables as people have them, well-formed or not."""
import csv
import gzip

import pytest
from hypothesis import given, settings

from cc_jax.data import sources
from cc_jax.data.readers import table

from .conftest import damage, damages


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"image a")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.png").write_bytes(b"image b")
    return tmp_path


@pytest.fixture
def read_text(read, folder):
    """The items of a table with this text."""
    def read_one(text, options="", kind="csv"):
        (folder / f"x.{kind}").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read(f"{kind}:{folder / f'x.{kind}'}{options}")
    return read_one


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_what_the_csv_module_writes_reads_back(read, folder, kind):
    texts = ['a "red" dog, running', "two\nlines", "tab\there", "plain", '"', "é 犬"]
    with (folder / f"x.{kind}").open("w", newline="") as stream:
        writer = csv.writer(stream, "excel-tab" if kind == "tsv" else "excel")
        writer.writerows([["id", "caption", "image"], *[[1, text, "a.jpg"] for text in texts]])
    items = read(f"{kind}:{folder}/x.{kind}")
    assert [record.captions[0] for record in items.records] == [text.replace("\n", " ").replace("\t", " ") for text in texts]
    assert {record.image for record in items.records} == {b"image a"} and not items.rejects
    assert [record.key for record in items.records][:3] == [f"x.{kind}:2", f"x.{kind}:3", f"x.{kind}:5"]


def test_columns_by_name_and_several_captions(read_text):
    text = "path,raw,short,part\na.jpg,one,two,test\nin/b.png,three,,train\n"
    items = read_text(text, ",image=path,captions=raw|short,split=part")
    assert [(r.captions, r.split, r.image) for r in items.records] == [
        (("one", "two"), "test", b"image a"), (("three", ""), "train", b"image b")]


def test_columns_by_position_have_no_header(read_text):
    items = read_text("one\ta.jpg\ntwo\tin/b.png", ",image=#2,captions=#1", kind="tsv")
    assert items.captions == {"x.tsv:1": ("one",), "x.tsv:2": ("two",)}


def test_entities_and_control_characters(read_text):
    items = read_text("image,caption\na.jpg,Tom &amp; Jerry\x00\x1b[1m\n")
    assert items.captions == {"x.csv:2": ("Tom & Jerry  [1m",)}
    assert items.notes == {"caption_entities": 1, "caption_control": 1}


def test_huge_fields_go_on_to_the_check_of_captions(read_text):
    [record] = read_text("image,caption\na.jpg," + "word " * 100_000 + "\n").records
    assert len(record.captions[0].split()) == 100_000


@pytest.mark.parametrize("row, reason", [
    ("a.jpg", "row_columns"), ("a.jpg,one,two", "row_columns"), ("none.jpg,one", "image_missing"), (",one", "image_path"),
    ("../a.jpg,one", "image_path"), ("/etc/hostname,one", "image_path"), ("in,one", "image_missing"),
    ('a.jpg,"never closed', "row_quotes"), ('a.jpg,"closed" early', "row_quotes"), ("a.jpg,\rone", "row_quotes"),
    ("\0,one", "image_path"), ("x" * 5000 + ",one", "image_missing"),
])
def test_a_bad_row_is_rejected_with_its_line_and_the_rest_goes_on(read_text, row, reason):
    items = read_text(f"image,caption\na.jpg,first\n{row}\n\na.jpg,last\n")
    assert [record.captions for record in items.records] == [("first",), ("last",)]
    assert items.reasons == [("x.csv:3", reason)]


def test_quotation_marks_can_be_taken_as_they_are(read_text):
    items = read_text('image\tcaption\na.jpg\t"so called\na.jpg\tlast "\n', ",quotes=no", kind="tsv")
    assert [record.captions for record in items.records] == [('"so called',), ('last "',)]


def test_an_open_quotation_mark_does_not_swallow_the_table(read_text):
    rows = "".join(f"a.jpg,caption {i}\n" for i in range(1000))
    items = read_text('image,caption\na.jpg,"open\n' + rows)
    assert len(items.records) == 1000 and items.reasons == [("x.csv:2", "row_quotes")]
    assert items.records[-1].key == "x.csv:1002"


def test_a_line_without_end_is_rejected_and_never_held(read_text, monkeypatch):
    monkeypatch.setattr(table, "MAX_LINE_BYTES", 1000)
    items = read_text("image,caption\na.jpg," + "x" * 5000 + "\na.jpg,last\n")
    assert items.captions == {"x.csv:3": ("last",)} and items.reasons == [("x.csv:2", "line_too_long")]


def test_bytes_that_are_not_utf8_are_for_the_check_of_captions(read_text):
    [record] = read_text(b"image,caption\na.jpg,caf\xe9\n").records
    with pytest.raises(UnicodeEncodeError):
        record.captions[0].encode()


@pytest.mark.parametrize("text, options, message", [
    ("path,caption\n", "", None),
    ("a,caption\n", "", "none of the columns image, filepath.*it has 'a', 'caption'.*image=COLUMN"),
    ("image,b\n", "", "none of the columns caption.*captions=COLUMN"),
    ("image,caption\n", ",captions=raw", "no column 'raw'; it has 'image', 'caption'"),
    ("image,caption\n", ",split=part", "no column 'part'"),
    ("a,b\n", ",image=#1,captions=#3", "no columns #1, #3; it has #1 to #2"),
    ("a,b\n", ",image=#0,captions=#1", "no columns"),
    ("a,b\n", ",image=#1,captions=b", "partly by position"),
    ("a,b\n", ",image=#1", "partly by position"),
    ("a,b\n", ",quotes=maybe", "use yes or no"),
    ("a,b\n", ",delimiter=;", "not an option"),
])
def test_missing_columns_are_an_error_before_the_first_record(folder, text, options, message):
    (folder / "x.csv").write_text(text)
    if message is None:
        assert list(sources.open_source(f"csv:{folder / 'x.csv'}{options}")) == []
    else:
        with pytest.raises(ValueError, match=message):
            sources.open_source(f"csv:{folder / 'x.csv'}{options}")


def test_a_later_file_without_the_columns_is_rejected_and_the_next_goes_on(read, folder):
    for name, header in (("0", "image,caption"), ("1", "image,other"), ("2", "caption,image"), ("3", "")):
        row = "one,a.jpg" if name == "2" else "a.jpg,one"
        (folder / f"{name}.csv").write_text(f"{header}\n{row}\n" if header else "")
    items = read(f"csv:{folder}/{{0..4}}.csv")
    assert list(items.captions) == ["0.csv:2", "2.csv:2"]
    assert items.reasons == [("1.csv", "columns_missing"), ("4.csv", "file_missing")]


def test_a_compressed_table_whole_and_cut(read, folder):
    data = gzip.compress(b"image,caption\n" + b"".join(b"a.jpg,caption %d\n" % i for i in range(5000)))
    (folder / "x.csv.gz").write_bytes(data)
    assert len(read(f"csv:{folder}/x.csv.gz").records) == 5000
    (folder / "x.csv.gz").write_bytes(data[:len(data) // 2])
    assert read(f"csv:{folder}/x.csv.gz").reasons[-1] == ("x.csv.gz", "read_failed")


def test_remote_tables_and_images_are_read_again_where_it_failed(read, flaky):
    flaky.pipe({"/b/x.csv": b"image,caption\na.jpg,one\nnone.jpg,two\n", "/b/a.jpg": b"image a", "/b/none.jpg": b""})
    flaky.rm("/b/none.jpg")
    flaky.reset(failures=2)
    items = read("csv:flaky://b/x.csv")
    assert items.captions == {"x.csv:2": ("one",)} and items.reasons == [("x.csv:3", "image_missing")]
    assert flaky.waits == [0.5, 2.0]


TEXT = b'image,caption\na.jpg,one\nin/b.png,"two, ""2"""\na.jpg,"three\nlines"\na.jpg,four\n'


@given(changes=damages)
@settings(deadline=5000, max_examples=150)
@pytest.mark.parametrize("option", ["", ",image=#1,captions=#2", ",quotes=no"])
def test_any_damage_is_survived(read, tmp_path_factory, option, changes):
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.jpg").write_bytes(b"image a")
    damage(folder / "x.csv", TEXT, changes)
    try:
        items = read(f"csv:{folder / 'x.csv'}{option}")
    except ValueError as error:                     # the header lost a column
        assert "column" in str(error)
    else:
        assert len(items.records) + len(items.rejects) <= TEXT.count(b"\n") + 40 * 3
