"""Preparation as a user drives it: files in, a dataset that TFDS reads out, nothing half-done that looks finished."""
import hashlib
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from cc_jax.data import dataset, part_work, sources
from cc_jax.data.annotate import Options
from cc_jax.data.phrases import normalise, noun_phrases
from cc_jax.data.prepare import PrepareError, prepare
from cc_jax.data.records import Note, Part, Record
from cc_jax.data.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]


def encode(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def photo(number: int, form: str = "JPEG") -> bytes:
    return encode(Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 48, 3), np.uint8)), form)


class Folder:
    """A JSON lines file and its images, as a user has them."""

    def __init__(self, path: Path):
        self.path, self.lines = path, []
        (path / "images").mkdir(parents=True)

    @property
    def source(self) -> str:
        (self.path / "captions.jsonl").write_bytes(b"".join(line + b"\n" for line in self.lines))
        return f"jsonl:{self.path / 'captions.jsonl'}"

    def add(self, image: bytes | None, *captions, **fields) -> None:
        name = f"images/{len(self.lines):05d}"
        if image is not None:
            (self.path / name).write_bytes(image)
        self.lines.append(json.dumps({"image": name, "captions": captions, **fields}).encode())

    def add_good(self, count: int, **fields) -> None:
        for _ in range(count):
            number = len(self.lines)
            self.add(photo(number), f"A red dog sees {number} small cats.", "the dog's big ball", **fields)


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path / "photos")


def rejects(out: Path) -> list[tuple[str, str]]:
    """(line number, with #caption, and reason) of each."""
    lines = map(json.loads, (out / "rejected.jsonl").read_text().splitlines())
    return [(line["key"].removeprefix("captions.jsonl:"), line["reason"]) for line in lines]


def digests(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()}


def mentions(record: dict) -> list[str]:
    """The piece of its caption that each phrase of a record is first mentioned by."""
    captions = [caption.decode() for caption in record["captions"]]
    places = zip(record["phrase_caption"], record["phrase_start"], record["phrase_end"], strict=True)
    return [captions[i][start:end] for i, start, end in places]


def run(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "cc_jax.data.prepare", *arguments], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_dataset_reads_back_with_tfds_as_it_went_in(folder, tmp_path):
    """Bytes of every format, captions, and the phrases of each caption with where they stand in it."""
    images = [photo(i, form) for i, form in enumerate(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])]
    captions = [("A red dog.", "it is", "the dog's big ball on a green field"), ("Ein Hündchen 🐕 in the Deep\tSnow",)]
    for i, image in enumerate(images):
        folder.add(image, *captions[i % 2], split="test" if i == 3 else "train")
    counts = prepare(folder.source, tmp_path / "out")

    builder = tfds.builder_from_directory(tmp_path / "out")     # noqa: TID251  (what we wrote, as anyone may read it)
    read = {split: list(builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()}))
            for split in ("train", "test")}
    assert [len(records) for records in read.values()] == [5, 1]
    assert [record["image"] for record in read["train"]] == images[:3] + images[4:]
    assert read["test"][0]["image"] == images[3] and read["test"][0]["key"] == b"captions.jsonl:4"
    for record in read["train"] + read["test"]:
        texts = [caption.decode() for caption in record["captions"]]
        assert tuple(texts) in captions
        pairs = [(i, phrase) for i, text in enumerate(texts) for phrase in noun_phrases(text)]
        assert list(zip(record["phrase_caption"], map(bytes.decode, record["phrases"]), strict=True)) == pairs
        assert [normalise(mention) for mention in mentions(record)] == [phrase for _, phrase in pairs]
    assert mentions(read["test"][0])[-1] == "Deep\tSnow" and mentions(read["train"][0])[:2] == ["red dog", "dog's big ball"]
    assert dict(builder.info.metadata) == counts == dataset.read_metadata(tmp_path / "out")
    assert counts["records"] == 6 and counts["captions"] == 12 and counts["rejected"] == {}
    assert counts["splits"] == {"train": 5, "test": 1} == dataset.split_sizes(tmp_path / "out")
    assert counts["phrases"] == sum(len(record["phrases"]) for records in read.values() for record in records)


def test_bad_records_are_counted_by_reason_and_listed_and_the_rest_goes_on(folder, tmp_path):
    folder.add_good(2)
    folder.add(None, "no image")                                                            # 3
    folder.add(b"not an image", "a dog")
    folder.add(photo(5)[:-400], "a dog")
    folder.add(encode(Image.new("1", (9000, 9000)), "PNG"), "a dog")
    folder.add(photo(7), " \t")
    folder.add(photo(8), "x" * 10_000_000)                                                  # 8
    folder.lines.append(b'{"image": "images/00000", "caption": "caf\xe9"}')
    folder.lines.append(b"no json")
    folder.add(photo(11), "half a \ud800")
    folder.add(photo(12), 5)
    folder.add(photo(13))
    folder.add(photo(14), "", "a good caption", None, "y" * 10_001)                         # 14
    folder.add_good(1)
    counts = prepare(folder.source, tmp_path / "out", max_rejected=0.8)
    assert rejects(tmp_path / "out") == [
        ("3", "image_missing"), ("4", "image_undecodable"), ("5", "image_truncated"), ("6", "image_bomb"),
        ("7", "caption_empty"), ("8", "caption_too_long"), ("9", "not_utf8"), ("10", "not_json"),
        ("11", "caption_not_utf8"), ("12", "caption_type"), ("13", "caption_empty"),
        ("14#0", "caption_empty"), ("14#2", "caption_type"), ("14#3", "caption_too_long")]
    assert counts["rejected_captions"] == {"caption_empty": 1, "caption_type": 1, "caption_too_long": 1}
    assert sum(counts["rejected"].values()) == 11 and counts["rejected"]["caption_empty"] == 2
    assert counts["records"] == 15 and counts["splits"] == {"train": 4} and counts["captions"] == 7
    [record] = [r for r in dataset.open_split(tmp_path / "out", "train") if r["key"].endswith(b":14")]
    assert record["captions"] == [b"a good caption"] and set(record["phrase_caption"]) == {0}
    assert (tmp_path / "out" / "rejected.jsonl").stat().st_size < 5000


def test_phrases_that_come_with_the_data_are_used_as_they_are(folder, tmp_path):
    """Those of a caption that has none are found as ever; one that is not in its caption is rejected, not the record."""
    folder.add(photo(1), "A red dog.", "the big ball", phrases=[["A red DOG", "cat", "", 5], None])
    folder.add(photo(2), "", "two cats", phrases=[["x"], ["cats", "two cats"]])
    folder.add(photo(3), "a", "b", phrases=["a"])
    counts = prepare(folder.source, tmp_path / "out", max_rejected=0.5)
    first, second = dataset.open_split(tmp_path / "out", "train")
    assert first["phrases"] == [b"red dog", b"big ball"] and mentions(first) == ["red dog", "big ball"]
    assert second["phrases"] == [b"cats", b"two cats"] and list(second["phrase_caption"]) == [0, 0]
    assert rejects(tmp_path / "out") == [
        ("1#0", "phrase_not_in_caption"), ("1#0", "phrase_empty"), ("1#0", "phrase_type"), ("2#0", "caption_empty"),
        ("3", "phrases_shape")]
    assert counts["rejected_phrases"] == {"phrase_not_in_caption": 1, "phrase_empty": 1, "phrase_type": 1}


def test_precomputed_phrases_are_the_only_ones_where_asked(folder, tmp_path):
    folder.add(photo(1), "A red dog.", "the big ball", phrases=[["red dog"], None])
    counts = prepare(folder.source, tmp_path / "out", options=Options(tagger="precomputed"))
    [record] = dataset.open_split(tmp_path / "out", "train")
    assert record["phrases"] == [b"red dog"] and counts["captions_without_phrase"] == 1


def test_notes_are_counted_and_cost_no_record(tmp_path, monkeypatch):
    def read(_):
        yield Note("0", "caption_entities")
        yield Record("0", photo(0), ("a dog",))
        yield Note("0", "member_ignored")

    monkeypatch.setitem(sources.SOURCES, "mine", sources.Source("mine", lambda _: [Part("all", lambda: read(_))]))
    counts = prepare("mine", tmp_path / "out")
    assert counts["records"] == 1 and counts["notes"] == {"caption_entities": 1, "member_ignored": 1}


def test_unusual_images_are_accepted_untouched(folder, tmp_path):
    blue = Image.new("RGB", (8, 8), "blue")
    images = [encode(Image.new("CMYK", (8, 8)), "JPEG"), encode(blue.convert("P"), "PNG"),
              encode(Image.fromarray(np.full((4, 4), 40_000, np.uint16)), "PNG"),
              encode(blue, "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")]),
              encode(Image.new("RGB", (1, 1)), "PNG"), encode(Image.new("LA", (3, 3)), "PNG")]
    for image in images:
        folder.add(image, "a picture")
    prepare(folder.source, tmp_path / "out", max_rejected=0)
    assert [record["image"] for record in dataset.open_split(tmp_path / "out", "train")] == images


def test_too_many_rejects_fail_with_the_counts_and_leave_only_their_list(folder, tmp_path):
    folder.add_good(9)
    folder.add(b"", "a dog")
    out = tmp_path / "out"
    with pytest.raises(PrepareError, match=r"1 of 10 records \(10.0%\) were rejected \(image_undecodable 1\)"):
        prepare(folder.source, out, max_rejected=0.05)
    assert [path.name for path in out.iterdir()] == ["rejected.jsonl"] and rejects(out) == [("10", "image_undecodable")]
    with pytest.raises(dataset.DatasetError, match="failed"):
        dataset.open_split(out, "train")
    prepare(folder.source, out, max_rejected=0.1)
    assert dataset.split_sizes(out) == {"train": 9}


@pytest.mark.parametrize("lines, message", [([], "holds no records"), ([b"x", b"{}"], "all 2 records .* rejected")])
def test_no_good_record_is_an_error_whatever_is_allowed(folder, tmp_path, lines, message):
    folder.lines = lines
    with pytest.raises(PrepareError, match=message):
        prepare(folder.source, tmp_path / "out", max_rejected=1.0)


def test_the_same_input_gives_the_same_bytes_and_several_shards_keep_the_order(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "SHARD_BYTES", 20_000)
    folder.add_good(30)
    prepare(folder.source, tmp_path / "one")
    prepare(folder.source, tmp_path / "two")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert len(list((tmp_path / "one").glob("cc-train.array_record-0000?-of-0000?"))) > 2
    keys = [record["key"].decode() for record in dataset.open_split(tmp_path / "one", "train")]
    assert keys == [f"captions.jsonl:{i + 1}" for i in range(30)]


def test_the_tokenizer_is_trained_on_train_captions_only(folder, tmp_path):
    folder.add_good(5)
    folder.add(photo(0), "zzzz QQQQ", split="test")
    counts = prepare(folder.source, tmp_path / "out", vocab_size=60)
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert tokenizer.vocab_size == counts["vocab_size"] <= 60
    unknown = 2
    assert unknown not in tokenizer.encode(["a red dog sees 3 cats"], 32) and unknown in tokenizer.encode(["zzzz"], 8)


def test_a_given_tokenizer_is_copied(folder, tmp_path):
    folder.add_good(3)
    prepare(folder.source, tmp_path / "one")
    given = tmp_path / "one" / "tokenizer.model"
    folder.add_good(3)
    prepare(folder.source, tmp_path / "two", tokenizer=given)
    assert (tmp_path / "two" / "tokenizer.model").read_bytes() == given.read_bytes()


def test_a_given_tokenizer_json_is_copied_with_its_form(folder, gemma_json, tmp_path):
    folder.add_good(3)
    counts = prepare(folder.source, tmp_path / "out", tokenizer=gemma_json)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == gemma_json.read_bytes()
    assert not (tmp_path / "out" / "tokenizer.model").exists()
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert tokenizer.vocab_size == counts["vocab_size"] and str(tokenizer.form) == "lower, padded with 0"


def test_a_dataset_without_a_train_split_has_no_tokenizer(folder, tmp_path):
    folder.add_good(2, split="test")
    assert prepare(folder.source, tmp_path / "out")["vocab_size"] is None
    assert dataset.split_sizes(tmp_path / "out") == {"test": 2}


def test_splits_without_end_are_rejected(folder, tmp_path):
    for i in range(part_work.MAX_SPLITS + 2):
        folder.add(photo(0), "a dog", split=f"s{i}")
    counts = prepare(folder.source, tmp_path / "out", max_rejected=0.5)
    assert len(counts["splits"]) == part_work.MAX_SPLITS and counts["rejected"] == {"split_name": 2}


@pytest.mark.parametrize("options, message", [
    ({"source": "zip:x"}, "source 'zip:x' is not known"),
    ({"source": "tar:/none/x.tar"}, "no such file"),
    ({"source": "tar:/none/x.tar,size=3"}, "'size=3' is not an option"),
    ({"source": "jsonl:/none/x.jsonl"}, "no such file"),
    ({"tokenizer": "/none/x.model"}, "no tokenizer in"),
    ({"options": Options(tagger="spacy")}, "tagger='spacy' is not known"),
    ({"out": "nosuch://bucket/data"}, "nosuch"),
])
def test_what_is_wrong_with_the_arguments_is_said_before_any_work(folder, tmp_path, options, message):
    folder.add_good(1)
    with pytest.raises(PrepareError, match=message):
        prepare(**{"source": folder.source, "out": tmp_path / "out", **options})
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_never_overwritten(folder, tmp_path):
    folder.add_good(2)
    prepare(folder.source, tmp_path / "out")
    before = digests(tmp_path / "out")
    with pytest.raises(PrepareError, match="prepared dataset already; remove it, or choose another --out"):
        prepare(folder.source, tmp_path / "out")
    assert digests(tmp_path / "out") == before
    with pytest.raises(PrepareError, match="exists and is no dataset"):
        prepare(folder.source, folder.path)
    assert (folder.path / "captions.jsonl").exists()
    with pytest.raises(PrepareError, match="exists and is no dataset"):
        prepare(folder.source, folder.path / "captions.jsonl")


def test_a_killed_preparation_leaves_nothing_finished_and_the_next_one_works(folder, tmp_path):
    """And while the killed one ran, no other could write to the same place."""
    out, partial = tmp_path / "out", tmp_path / ".out.partial"
    folder.add_good(1)
    folder.lines *= 50_000                                                  # a minute's work at the least
    process = run("--source", folder.source, "--out", str(out))
    try:
        deadline = time.monotonic() + 60
        while not list(partial.glob("scratch-*/part-000000.train-*")):      # until the first record is written
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(PrepareError, match="another preparation is writing"):
            prepare(folder.source, out)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert partial.exists() and not out.exists()
    with pytest.raises(dataset.DatasetError, match="no prepared dataset"):
        dataset.open_split(out, "train")
    folder.lines = folder.lines[:5]
    prepare(folder.source, out)
    assert dataset.split_sizes(out) == {"train": 5} and not partial.exists()


def test_the_command_prepares_and_says_what_to_do_next(folder, tmp_path):
    folder.add_good(40)
    folder.add(b"", "a dog")
    process = run("--source", folder.source, "--out", str(tmp_path / "out"))
    output, progress = process.communicate()
    assert process.returncode == 0, progress
    assert "train 40 records; 80 captions with" in output and "rejected: image_undecodable 1" in output
    assert f"--config configs/siglip_b16_cc.py:data={tmp_path / 'out'},runlocal --workdir runs/try" in output
    assert "41 of 41 records" in progress and "tensorflow" not in progress.lower()


def test_the_command_fails_without_a_traceback(folder, tmp_path):
    folder.add(b"", "a dog")
    process = run("--source", folder.source, "--out", str(tmp_path / "out"))
    output, errors = process.communicate()
    assert process.returncode == 1 and "Traceback" not in errors
    assert "error: no data left: all 1 records" in errors and "image_undecodable 1" in errors


def test_opening_what_is_not_there_says_what_to_do(folder, tmp_path):
    folder.add_good(1)
    out = tmp_path / "out"
    with pytest.raises(dataset.DatasetError, match="no prepared dataset in .*out .*python -m cc_jax.data.prepare"):
        dataset.split_sizes(out)
    prepare(folder.source, out)
    with pytest.raises(dataset.DatasetError, match="no split 'val'; it has train"):
        dataset.open_split(out, "val")
    next(out.glob("cc-train*")).unlink()
    with pytest.raises(dataset.DatasetError, match="lacks cc-train.array_record-00000-of-00001"):
        dataset.open_split(out, "train")


def test_a_dataset_of_the_first_version_reads_as_it_did(tmp_path, write_tfds):
    """It has no places of phrases, and its records must not claim any."""
    record = {"key": "a:1", "image": photo(1), "captions": ["a red dog"], "phrases": ["red dog"], "phrase_caption": [0]}
    features = tfds.features.FeaturesDict({name: dataset.FEATURES[name] for name in record})
    write_tfds(tmp_path, features, {"train": [record]}, version="1.0.0", made="before")
    [read] = dataset.open_split(tmp_path, "train")
    assert set(read) == set(record) and read["image"] == record["image"]
    assert read["phrases"] == [b"red dog"] and list(read["phrase_caption"]) == [0]
    assert dataset.read_metadata(tmp_path) == {"made": "before"} and dataset.VERSION == "1.1.0"


def test_a_new_source_is_a_line_in_the_table_and_may_add_files(tmp_path, monkeypatch):
    def parts(argument):
        return [Part("all", lambda: (Record(str(i), photo(i), (f"{argument} {i}",)) for i in range(3)))]

    def write_extras(argument, directory):
        (directory / "more.txt").write_text(argument)

    monkeypatch.setitem(sources.SOURCES, "mine", sources.Source("mine:WORD", parts, write_extras))
    prepare("mine:hello", tmp_path / "out")
    records = dataset.open_split(tmp_path / "out", "train")
    assert [record["captions"] for record in records] == [[f"hello {i}".encode()] for i in range(3)]
    assert (tmp_path / "out" / "more.txt").read_text() == "hello"


def test_the_embedded_dataset_is_prepared_with_its_compositional_test(tmp_path):
    counts = prepare("shapes:scenes=30,test_scenes=10,seed=1", tmp_path / "out", max_rejected=0)
    assert counts["splits"] == {"train": 30, "test": 10}
    suite = tmp_path / "out" / "suite"
    items = [item for path in suite.glob("swap_*.json") for item in json.loads(path.read_text()).values()]
    assert items and all((suite / "images" / item["filename"]).exists() for item in items)


def test_real_photos_are_prepared(test_data, tmp_path):
    lines = (test_data / "flickr8k_small" / "captions.jsonl").read_text().splitlines()
    folder = Folder(tmp_path / "photos")
    for line in lines[:20] + lines[-20:]:
        fields = json.loads(line)
        image = (test_data / "flickr8k_small" / fields["image"]).read_bytes()
        folder.add(image, *fields["captions"], split=fields["split"])
    counts = prepare(folder.source, tmp_path / "out")
    assert counts["splits"] == {"train": 20, "test": 20} and counts["captions"] == 200
    assert 2 < counts["phrases"] / counts["captions"] < 5
    for record in dataset.open_split(tmp_path / "out", "train"):
        assert list(map(normalise, mentions(record))) == list(map(bytes.decode, record["phrases"]))
