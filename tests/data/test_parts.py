"""Preparation in parts: the same bytes whoever does the work and however often it is killed, in memory that is bounded."""
import glob
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from cc_jax.data import dataset, prepare, runners
from cc_jax.data.annotate import Options
from cc_jax.data.part_work import Captions, Work
from cc_jax.data.prepare import PrepareError
from cc_jax.data.runners import progress_line

ROOT = Path(__file__).parents[2]
WORDS = "a red dog near the two big cats on some green grass beside an old house".split()


def photo(number: int, size=(40, 30)) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def write_tars(folder: Path, shards: int, each: int, image: bytes | None = None, first: int = 0) -> str:
    """Shards with a broken record each; returns the source."""
    folder.mkdir(exist_ok=True)
    rng = random.Random(first)
    for shard in range(first, first + shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for i in range(each):
                data = b"broken" if i == 1 else image or photo(i)
                text = " ".join(rng.choices(WORDS, k=10))
                for extension, content in (("jpg", data), ("txt", text.encode())):
                    member = tarfile.TarInfo(f"{shard:05d}{i:05d}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return f"tar:{folder}"


def digests(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(out.rglob("*")) if path.is_file()}


def command(source: str, out: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "cc_jax.data.prepare", "--source", source, "--out", str(out), *arguments],
                            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def tars(tmp_path_factory) -> str:
    return write_tars(tmp_path_factory.mktemp("source") / "tars", 6, 40)


@pytest.fixture(scope="module")
def expected(tars, tmp_path_factory) -> dict[str, str]:
    """The files of an uninterrupted preparation in this process."""
    out = tmp_path_factory.mktemp("expected") / "out"
    counts = prepare.prepare(tars, out)
    assert counts["splits"] == {"train": 234} and counts["rejected"] == {"image_undecodable": 6}
    assert len(list(out.glob("cc-train.array_record-0000?-of-00006"))) == 6
    return digests(out)


@pytest.mark.parametrize("arguments", [
    ["--processes=2"], ["--runner=DirectRunner"],
    ["--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]])
def test_the_bytes_are_the_same_whoever_does_the_work(tars, expected, tmp_path, arguments):
    if arguments[0].startswith("--runner"):
        pytest.importorskip("apache_beam", reason="Apache Beam is not installed: pip install -e '.[prepare]'")
    process = command(tars, tmp_path / "out", *arguments)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "train 234 records" in output and digests(tmp_path / "out") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path):
    """After two parts and within one: the others are large, so that the kill comes before the end. Then at random."""
    source = write_tars(tmp_path / "tars", 2, 40)
    write_tars(tmp_path / "tars", 2, 1500, photo(0), first=2)
    prepare.prepare(source, tmp_path / "whole", vocab_size=100)
    out, partial, rng = tmp_path / "out", tmp_path / ".out.partial", random.Random()
    finished = lambda: set(glob.glob("part-*.done", root_dir=partial))
    begun = lambda: set(glob.glob("scratch-*/part-*", root_dir=partial))

    def killed_when(ready: Callable[[set, set], bool]) -> bool:
        done, left = finished(), begun()
        process = command(source, out, "--processes=2", "--vocab_size=100")
        while process.poll() is None and not ready(finished() - done, begun() - left):
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        process.kill()
        # Its workers hold its pipes too: these end with the last process, so none outlives the one that was killed.
        _, errors = process.communicate(timeout=300)
        assert process.returncode == -signal.SIGKILL or process.returncode == 0 and "going on" in errors, errors
        return process.returncode != 0

    assert killed_when(lambda more, _: len(more) >= 2)
    assert killed_when(lambda _, parts: parts)
    while not out.exists():
        killed_when(lambda more, _: more)
    assert digests(out) == digests(tmp_path / "whole")


def test_an_interruption_while_the_dataset_is_put_together(tars, expected, tmp_path, monkeypatch):
    def fail(self, name, to, new_name, move=prepare.Folder.move):
        if new_name.startswith("cc-train.array_record-00003"):
            raise KeyboardInterrupt
        move(self, name, to, new_name)

    with monkeypatch.context() as patch:
        patch.setattr(prepare.Folder, "move", fail)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare(tars, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(Work, "__call__", lambda *_: pytest.fail("all parts were done"))
    prepare.prepare(tars, tmp_path / "out")
    assert digests(tmp_path / "out") == expected


def test_an_interruption_at_any_write_leaves_what_the_next_run_completes(tmp_path, monkeypatch):
    source = write_tars(tmp_path / "tars", 2, 4)
    prepare.prepare(source, tmp_path / "whole", max_rejected=0.5)
    whole, writes = digests(tmp_path / "whole"), []

    def interrupted(write):
        def write_or_stop(*arguments):
            writes.append(arguments)
            if len(writes) == last:
                raise KeyboardInterrupt
            write(*arguments)
        return write_or_stop

    for name in ("deliver", "move", "remove"):
        monkeypatch.setattr(prepare.Folder, name, interrupted(getattr(prepare.Folder, name)))
    for last in count(1):
        writes.clear()
        out = tmp_path / f"out{last}"
        try:
            prepare.prepare(source, out, max_rejected=0.5)
            break
        except KeyboardInterrupt:
            if not out.exists():                    # else all was done but the removal of the unfinished folder
                prepare.prepare(source, out, max_rejected=0.5)
        assert digests(out) == whole
    assert last > 15


def test_parts_left_of_a_removal_that_was_killed_are_not_taken_for_those_of_another_plan(tmp_path, monkeypatch):
    source = write_tars(tmp_path / "tars", 2, 5)
    with monkeypatch.context() as patch:
        patch.setattr(prepare.Folder, "remove", lambda self: os.unlink(self.local() / prepare.PLAN))
        with pytest.raises(PrepareError, match="2 of 10 records"):
            prepare.prepare(source, tmp_path / "out")
    assert (tmp_path / ".out.partial" / "part-000001.done").exists()
    prepare.prepare(source, tmp_path / "out", max_rejected=0.5, options=Options(short_side=20))
    prepare.prepare(source, tmp_path / "whole", max_rejected=0.5, options=Options(short_side=20))
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_going_on_takes_the_same_options_and_redoes_what_has_changed(tmp_path, monkeypatch, capsys):
    source = write_tars(tmp_path / "tars", 3, 5)

    def stop(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "train_tokenizer", stop)
        with pytest.raises(OSError, match="No space left"):
            prepare.prepare(source, tmp_path / "out", max_rejected=0.5)
    with pytest.raises(PrepareError, match="unfinished preparation with short_side=None there, 20 here"):
        prepare.prepare(source, tmp_path / "out", max_rejected=0.5, options=Options(short_side=20))
    (tmp_path / "tars" / "00001.tar").unlink()
    write_tars(tmp_path / "tars", 1, 7, first=1)
    counts = prepare.prepare(source, tmp_path / "out", max_rejected=0.5)
    assert "going on, 2 of 3 parts were finished" in capsys.readouterr().err
    assert counts["records"] == 17 and counts["splits"] == {"train": 14}


def test_a_part_that_lost_a_file_is_prepared_again(tmp_path, monkeypatch):
    source = write_tars(tmp_path / "tars", 2, 5)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "train_tokenizer", lambda *_: (_ for _ in ()).throw(OSError(5, "gone")))
        with pytest.raises(OSError, match="gone"):
            prepare.prepare(source, tmp_path / "out", max_rejected=0.5)
    (tmp_path / ".out.partial" / "part-000001.train-00000").unlink()
    assert prepare.prepare(source, tmp_path / "out", max_rejected=0.5)["splits"] == {"train": 8}
    assert len(list(dataset.open_split(tmp_path / "out", "train"))) == 8


def test_a_full_disk_is_a_clear_stop_and_what_was_finished_is_kept(tmp_path):
    image = photo(0, (300, 200))
    source = write_tars(tmp_path / "tars", 4, 30, image)
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={75 * len(image)}", "tmpfs", small],
                             capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a small file system, which this test fills")
    try:
        process = command(source, small / "out", "--processes=1")
        _, errors = process.communicate()
        assert process.returncode == 1 and "Traceback" not in errors
        assert "No space left on device" in errors and "same command goes on" in errors
        assert [path.name for path in sorted((small / ".out.partial").glob("*.done"))] == ["part-000000.done"]
        subprocess.run(["mount", "-o", "remount,size=50m", small], check=True)
        process = command(source, small / "out", "--processes=1")
        output, errors = process.communicate()
        assert process.returncode == 0 and "1 of 4 parts were finished" in errors and "train 116 records" in output
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_process_that_fails_ends_the_others_and_what_was_finished_is_kept(tmp_path):
    source = write_tars(tmp_path / "tars", 5, 5)
    partial = tmp_path / ".out.partial"
    (partial / "part-000003.rejected").mkdir(parents=True)          # can't be replaced by a file
    (partial / prepare.PLAN).write_text(json.dumps({"source": source, **asdict(Options()), "version": dataset.VERSION}))
    process = command(source, tmp_path / "out", "--processes=2", "--max_rejected=0.5")
    _, errors = process.communicate()
    assert process.returncode == 1 and "Is a directory" in errors and "What was finished is kept" in errors
    assert len(list(partial.glob("*.done"))) >= 2
    (partial / "part-000003.rejected").rmdir()
    process = command(source, tmp_path / "out", "--processes=2", "--max_rejected=0.5")
    assert "train 20 records" in process.communicate()[0]


def test_a_dataset_is_prepared_in_a_bucket(tars, expected, tmp_path):
    import fsspec
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    counts = prepare.prepare(tars, "memory://bucket/data/out")
    assert counts["splits"] == {"train": 234} and memory.ls("/bucket/data", detail=False) == ["/bucket/data/out"]
    memory.get("/bucket/data/out/", str(tmp_path / "copy"), recursive=True)
    assert digests(tmp_path / "copy") == expected
    with pytest.raises(PrepareError, match="prepared dataset already"):
        prepare.prepare(tars, "memory://bucket/data/out")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(PrepareError, match="holds no records"):
        prepare.prepare(f"jsonl:{tmp_path / 'empty.jsonl'}", "memory://bucket/none")
    assert [name.rpartition("/")[2] for name in memory.ls("/bucket/none", detail=False)] == [dataset.REJECTED]


def test_memory_does_not_grow_with_the_dataset(tmp_path):
    """Peak memory of the command at 1x and at 10x the records, within 15 %."""
    image = photo(0, (120, 90))

    def peak(shards: int) -> int:
        source = write_tars(tmp_path / f"tars{shards}", shards, 400, image)
        process = command(source, tmp_path / f"out{shards}", "--processes=1", "--vocab_size=60")
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, process.stderr.read()
        return usage.ru_maxrss

    small, large = peak(1), peak(10)
    assert dataset.split_sizes(tmp_path / "out10") == {"train": 3990} and large < 1.15 * small, (small, large)


def test_images_are_made_smaller_where_asked(tars, tmp_path):
    counts = prepare.prepare(tars, tmp_path / "out", options=Options(short_side=20))
    sizes = {Image.open(io.BytesIO(record["image"])).size for record in dataset.open_split(tmp_path / "out", "train")}
    assert sizes == {(27, 20)} and counts["short_side"] == 20 and counts["splits"] == {"train": 234}


def test_records_are_written_as_tfds_writes_them():
    for captions, phrases, places in ((["a dög", "b"], ["dög"], [0]), (["x"], [], [])):
        record = {"key": "a:1", "image": photo(1), "captions": captions, "phrases": phrases, "phrase_caption": places,
                  "phrase_start": places, "phrase_end": places}
        theirs = dataset.FEATURES.serialize_example(dataset.FEATURES.encode_example(record))
        ours = dataset.serialize(record)
        parse = lambda data: tf_example_pb2.Example.FromString(data)
        assert parse(ours) == parse(theirs) and ours == dataset.serialize(dict(reversed(record.items())))
        decoders = {"image": tfds.decode.SkipDecoding()}
        read = dataset.FEATURES.deserialize_example_np(ours, decoders=decoders)
        assert read["image"] == record["image"] and [text.decode() for text in read["captions"]] == captions


@pytest.mark.parametrize("arguments, line", [
    ((2000, 8000, 3, 4.0), "2 000 of 8 000 records  500 records/s  rejected 3  ETA 12 s"),
    ((2000, 3_000_000, 3, 4.0), "2 000 of 3 000 000 records  500 records/s  rejected 3  ETA 1 h 39 min"),
    ((2000, None, 0, 4.0, 2, 10), "2 000 records, 2 of 10 parts  500 records/s  rejected 0  ETA 16 s"),
    ((2000, None, 0, 4.0, 0, 10), "2 000 records, 0 of 10 parts  500 records/s  rejected 0"),
])
def test_the_progress_line(arguments, line):
    assert progress_line(*arguments) == line


def test_the_captions_kept_are_a_uniform_choice_whatever_the_parts():
    def choose(parts: int) -> list[str]:
        pairs = []
        for part in range(parts):
            kept = Captions(100)
            for i in range(part, 1000, parts):
                kept.add(str(i), [str(i)])
            pairs += kept.chosen()
        return [caption for _, caption in sorted(pairs)[:100]]
    chosen = np.array(choose(1), int)
    assert len(set(chosen)) == 100 and choose(1) == choose(3) == choose(10)
    assert abs(chosen.mean() - 499.5) < 3 * 1000 / np.sqrt(12 * 100)


def test_beam_that_is_not_installed_is_said(tars, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PrepareError, match=r"pip install -e '.\[prepare\]'"):
        prepare.prepare(tars, tmp_path / "out", beam=["--runner=DirectRunner"])


def test_an_argument_that_nothing_reads_is_an_error(tars, tmp_path):
    process = command(tars, tmp_path / "out", "--max_rejectd=0.1")
    assert "nothing reads ['--max_rejectd=0.1']" in process.communicate()[1] and process.returncode == 1


def test_progress_is_shown(tars, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runners.time, "monotonic", iter(range(0, 10**6, 11)).__next__)      # a line every ten seconds
    prepare.prepare(tars, tmp_path / "out")
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("240 records, 6 of 6 parts") and len(lines) > 6 and "rejected 6" in lines[-1]


def test_the_plan_of_an_unfinished_preparation_can_be_read(tars, tmp_path, monkeypatch):
    monkeypatch.setattr(Work, "__call__", lambda *_: (_ for _ in ()).throw(OSError(5, "gone")))
    with pytest.raises(OSError, match="gone"):
        prepare.prepare(tars, tmp_path / "out")
    plan = json.loads((tmp_path / ".out.partial" / prepare.PLAN).read_text())
    assert plan["source"] == tars and plan["tagger"] == "shipped"
