"""Tar shards, whole and broken: every record of a shard is yielded or counted, and nothing is ever written to disk."""
import contextlib
import io
import json
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_jax.data import sources
from cc_jax.data.readers import tar, tar_members

from .conftest import damage, damages

JPEG = b"\xff\xd8 bytes of an image"


def shard(members, end: bool = True, mode: str = "w", form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of (name, bytes) or TarInfo members."""
    stream = io.BytesIO()
    writer = tarfile.open(fileobj=stream, mode=mode, format=form)
    for member in members:
        info, data = (member, b"") if isinstance(member, tarfile.TarInfo) else (tarfile.TarInfo(member[0]), member[1])
        info.size = len(data)
        writer.addfile(info, io.BytesIO(data))
    if end:
        writer.close()
    return stream.getvalue()


def pair(key: str, caption: str = "a dog", image: bytes = JPEG) -> list[tuple[str, bytes]]:
    return [(f"{key}.jpg", image), (f"{key}.txt", caption.encode())]


def pairs(count: int, **options) -> list[tuple[str, bytes]]:
    return [member for key in range(count) for member in pair(f"{key:05d}", **options)]


def link(name: str, kind: bytes, target: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.fixture
def read_shard(read, tmp_path):
    def read_one(members, option: str = "", **options):
        (tmp_path / "0.tar").write_bytes(members if isinstance(members, bytes) else shard(members, **options))
        return read(f"tar:{tmp_path / '0.tar'}{option}")
    return read_one


def test_records_of_image_text_and_json(read_shard):
    fields = {"caption": "raw", "captions_short": ["s1", "s2"], "status": "success"}
    items = read_shard([
        *pair("a"), ("b.png", b"png"), ("b.json", json.dumps(fields).encode()), ("c/d.e.jpeg", b"no key of two dots"),
        ("c/d.webp", b"webp"), ("c/d.txt", b"\xef\xbb\xbfcaption\n"), ("c/d.JSON", b'{"captions": ["x", "y"]}')])
    assert items.captions == {"0.tar:a": ("a dog",), "0.tar:b": ("raw",), "0.tar:c/d": ("x", "y")}
    assert [record.image for record in items.records] == [JPEG, b"png", b"webp"]
    assert not items.rejects and items.notes == {"member_ignored": 1}


def test_several_captions_by_name_with_their_phrases_and_split(read_shard):
    fields = {"raw": "a red dog", "short": ["dog", "animal"], "part": "test", "phrases": [["red dog"], None, []]}
    members = [("a.jpg", JPEG), ("a.txt", b"text"), ("a.json", json.dumps(fields).encode())]
    [record] = read_shard(members, ",captions=raw|short,split=part").records
    assert (record.captions, record.split) == (("a red dog", "dog", "animal"), "test")
    assert record.phrases == (["red dog"], None, [])
    assert read_shard(members[:2], ",captions=txt|other").captions == {"0.tar:a": ("text", None)}


def test_captions_are_cleaned_and_each_cleaning_is_noted(read_shard):
    fields = {"caption": "Tom &amp; Jerry&#39;s\x00 \x07fish &notes\n\tAT&T&lt;3\r\n", "phrases": ["Tom &amp; Jerry&#39;s"]}
    items = read_shard([("a.jpg", JPEG), ("a.json", json.dumps(fields).encode())])
    assert items.captions == {"0.tar:a": ("Tom & Jerry's   fish &notes  AT&T<3",)}
    assert items.records[0].phrases == (["Tom & Jerry's"],)
    assert items.notes == {"caption_entities": 1, "caption_control": 1}


def test_a_caption_of_a_hundred_thousand_words_is_a_matter_of_preparation(read_shard):
    [record] = read_shard(pair("a", "word " * 100_000)).records
    assert len(record.captions[0].split()) == 100_000


@pytest.mark.parametrize("members, reason", [
    ([("x.jpg", JPEG)], "no_caption"),
    ([("x.jpg", JPEG), ("x.json", b'{"url": "u"}')], "no_caption"),
    ([("x.txt", b"alone")], "no_image"),
    ([("x.jpg", JPEG), ("x.png", JPEG), ("x.txt", b"t")], "several_images"),
    ([("x.jpg", JPEG), ("x.txt", b"caf\xe9")], "not_utf8"),
    ([("x.jpg", JPEG), ("x.json", b'{"caption": "\xe9"}')], "not_utf8"),
    ([("x.jpg", JPEG), ("x.json", b'{"caption": ')], "not_json"),
    ([("x.jpg", JPEG), ("x.json", b"[" * 100_000)], "not_json"),
    ([("x.jpg", JPEG), ("x.json", b"[1]")], "not_an_object"),
    ([("x.jpg", JPEG), ("x.json", b'{"caption": "a", "phrases": "a"}')], "phrases_shape"),
    ([("x.jpg", JPEG), ("x.json", b'{"captions": ["a", "b"], "phrases": [["a"]]}')], "phrases_shape"),
    ([("a.jpg", JPEG), ("a.txt", b"again")], "duplicate_key"),
    ([("/x.jpg", JPEG)], "member_path"),
    ([("../x.jpg", JPEG)], "member_path"),
    ([("y/../../x.jpg", JPEG)], "member_path"),
    ([("y\\..\\x.jpg", JPEG)], "member_path"),
    ([("y" * 2000 + ".jpg", JPEG)], "member_path"),
    ([link("x.jpg", tarfile.SYMTYPE)], "member_kind"),
    ([link("x.jpg", tarfile.LNKTYPE)], "member_kind"),
    ([link("x.jpg", tarfile.CHRTYPE)], "member_kind"),
    ([link("x.jpg", tarfile.FIFOTYPE)], "member_kind"),
])
def test_a_bad_record_is_rejected_with_its_address_and_the_rest_goes_on(read_shard, members, reason):
    items = read_shard([*pair("a"), *members, *pair("z")])
    assert list(items.captions) == ["0.tar:a", "0.tar:z"]
    [reject] = items.rejects
    assert reject.reason == reason and reject.key.startswith("0.tar:")


def test_a_key_that_comes_twice_in_a_row_is_a_duplicate(read_shard):
    items = read_shard([*pair("a", "first"), *pair("a", "second"), *pair("b")])
    assert items.captions == {"0.tar:a": ("first",), "0.tar:b": ("a dog",)}
    assert items.reasons == [("0.tar:a", "duplicate_key")]


def test_members_that_could_run_code_and_others_are_never_read(read_shard, monkeypatch):
    monkeypatch.setattr(tar._Group, "add", lambda self, extension, member, stream, add=tar._Group.add: (
        add(self, extension, member, stream) if extension in ("jpg", "txt") else pytest.fail(f"{member.name} was read")))
    items = read_shard([*pair("a"), ("a.pyd", b"cos\nsystem\n"), ("a.weights.pickle", b"x"), ("a.cls", b"7"),
                        ("._a.jpg", b""), ("README", b"")])
    assert len(items.records) == 1 and not items.rejects
    assert items.notes == {"member_pickled": 2, "member_ignored": 3}


def test_members_too_large_are_not_read(read_shard, monkeypatch):
    monkeypatch.setattr(tar, "MAX_IMAGE_BYTES", 100)
    monkeypatch.setattr(tar, "MAX_LINE_BYTES", 100)
    items = read_shard([*pair("a", image=b"x" * 101), *pair("b", "x" * 101), *pair("c")])
    assert items.reasons == [("0.tar:a", "image_bytes"), ("0.tar:b", "member_too_long")] and len(items.records) == 1


@pytest.mark.parametrize("data, reason", [
    (b"", "tar_empty"), (bytes(10240), "tar_empty"), (b"PAR1 is no tar" * 100, "tar_broken"), (b"short", "tar_truncated"),
    (shard([]), "tar_empty"),
])
def test_a_shard_without_members_is_rejected_and_the_next_goes_on(read, tmp_path, data, reason):
    (tmp_path / "0.tar").write_bytes(data)
    (tmp_path / "1.tar").write_bytes(shard(pair("a")))
    items = read(f"tar:{tmp_path}")
    assert items.reasons == [("0.tar", reason)] and list(items.captions) == ["1.tar:a"]


def test_a_truncated_shard_keeps_what_is_whole(read_shard):
    whole = shard([*pair("a"), *pair("b")])
    assert read_shard(whole[:512]).reasons == [("0.tar", "tar_truncated"), ("0.tar:a", "tar_truncated")]
    items = read_shard(whole[:3 * 512 + 512])       # after the text of a, at the border of a member
    assert list(items.captions) == ["0.tar:a"] and items.reasons == [("0.tar", "tar_truncated")]
    items = read_shard(whole[:3 * 512 + 512 + 520])
    assert list(items.captions) == ["0.tar:a"]
    assert items.reasons == [("0.tar", "tar_truncated"), ("0.tar:b", "tar_truncated")]


def test_reading_goes_on_after_a_broken_header_and_after_an_end_mark(read_shard):
    data = bytearray(shard([*pair("a"), *pair("b"), *pair("c")]))
    data[4 * 512] ^= 1                                                              # the header of b.jpg
    items = read_shard(bytes(data))
    assert list(items.captions) == ["0.tar:a", "0.tar:c"]
    assert items.reasons == [("0.tar", "tar_broken"), ("0.tar:b", "no_image")]
    items = read_shard(shard(pair("a")) + shard(pair("b")))                         # cat a.tar b.tar
    assert list(items.captions) == ["0.tar:a", "0.tar:b"] and items.reasons == [("0.tar", "tar_end")]


def test_a_shard_with_damage_everywhere_is_given_up(read_shard):
    damaged = bytearray(shard(pairs(300)))
    for place in range(0, len(damaged), 2048):
        damaged[place] ^= 1
    items = read_shard(bytes(damaged))
    assert sum("given up" in reject.detail for reject in items.rejects) == 1 and len(items.rejects) < 300


def test_a_header_that_claims_gigabytes_is_not_believed(read_shard):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**32
    tracemalloc.start()
    items = read_shard(shard(pair("a"), end=False) + info.tobuf(tarfile.USTAR_FORMAT) + bytes(512 * 8000) + shard(pair("b")))
    assert tracemalloc.get_traced_memory()[1] < 30_000_000
    tracemalloc.stop()
    assert list(items.captions) == ["0.tar:a", "0.tar:b"] and items.reasons == [("0.tar", "tar_broken")]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_a_shard_of_too_many_members_is_read_up_to_the_limit(read_shard, monkeypatch, form):
    monkeypatch.setattr(tar_members, "MAX_MEMBERS", 4)
    items = read_shard([*pair("a"), *pair("é"), *pair("c")], form=form)
    assert list(items.captions) == ["0.tar:a", "0.tar:é"] and items.reasons == [("0.tar", "tar_members")]
    assert not read_shard([*pair("a"), *pair("é")], form=form).rejects


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names(read_shard, form):
    key = "ordner/" + "é" * 60 + "/dog"
    assert list(read_shard(pair(key), form=form).captions) == [f"0.tar:{key}"]


def test_a_name_that_is_not_utf8_gives_a_key_that_is(read_shard):
    data = shard(pair("a"), form=tarfile.GNU_FORMAT).replace(b"a.jpg", b"\xe9.jpg").replace(b"a.txt", b"\xe9.txt")
    data = bytearray(data)
    for header in (0, 1024):
        data[header + 148:header + 156] = b" " * 8
        data[header + 148:header + 156] = b"%06o\0 " % sum(data[header:header + 512])
    assert list(read_shard(bytes(data)).captions) == [r"0.tar:\udce9"]


@pytest.mark.parametrize("suffix, mode", [(".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar.bz2", "w:bz2"), (".tar.xz", "w:xz")])
def test_compressed_shards_whole_and_cut(read, tmp_path, suffix, mode):
    data = shard(pairs(50), mode=mode)
    path = tmp_path / f"0{suffix}"
    path.write_bytes(data)
    assert len(read(f"tar:{tmp_path}").records) == 50
    path.write_bytes(data[:len(data) // 2])
    items = read(f"tar:{path}")
    assert len(items.records) < 50 and items.reasons[-1] == (path.name, "tar_truncated")
    path.write_bytes(b"not compressed at all")
    assert read(f"tar:{path}").reasons == [(path.name, "tar_truncated")]


def test_shards_by_braces_globs_and_folders_in_their_order(read, tmp_path):
    (tmp_path / "x").mkdir()
    for name in ("00.tar", "01.tar", "x/02.tar"):
        (tmp_path / name).write_bytes(shard(pair("a", name)))
    keys = {"00.tar:a": ("00.tar",), "01.tar:a": ("01.tar",)}
    for pattern in ("{00..01}.tar", "0[01].tar", "", "{00,01}.tar"):
        assert read(f"tar:{tmp_path}/{pattern}").captions == keys
    assert list(read(f"tar:{tmp_path}/{{x/02,00}}.tar").captions) == ["x/02.tar:a", "00.tar:a"]
    assert list(read(f"tar:{tmp_path}/**/*.tar").captions) == ["00.tar:a", "01.tar:a", "x/02.tar:a"]
    items = read(f"tar:{tmp_path}/{{00..02}}.tar")
    assert items.captions == keys and items.reasons == [("02.tar", "file_missing")]
    assert read(f"tar:file://{tmp_path}/00.tar").captions == {"00.tar:a": ("00.tar",)}


def test_the_parts_of_a_source_are_its_shards_and_can_be_sent_elsewhere(tmp_path):
    import pickle  # noqa: TID251  (what Beam sends parts with)
    for index in range(3):
        (tmp_path / f"{index}.tar").write_bytes(shard(pair(str(index))))
    source, argument = sources.find_source(f"tar:{tmp_path}/{{0..2}}.tar")
    parts = pickle.loads(pickle.dumps(source.parts(argument)))  # noqa: S301  (our own bytes, as Beam sends them)
    assert [part.name for part in parts] == ["0.tar", "1.tar", "2.tar"]
    assert [item for part in parts for item in part.read()] == list(sources.open_source(f"tar:{argument}"))


REGULAR = {tarfile.AREGTYPE: tarfile.REGTYPE}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@given(members=st.lists(st.tuples(st.text(max_size=120), st.binary(max_size=2000), st.sampled_from(
    [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.CONTTYPE])), max_size=6))
def test_members_are_those_that_tarfile_finds(form, members):
    """Most headers are not read by it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for name, data, kind in [("first.jpg", b"1", tarfile.REGTYPE), *members, ("last.jpg", b"2", tarfile.REGTYPE)]:
            info = tarfile.TarInfo(name)
            is_folder = kind == tarfile.AREGTYPE and name.endswith("/")
            info.type, info.size = kind, len(data) if kind in tarfile.REGULAR_TYPES and not is_folder else 0
            with contextlib.suppress(ValueError, UnicodeEncodeError):       # a name that this format can't hold
                tar.addfile(info, io.BytesIO(data))
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        expected = [(member.name, member.size, member.offset_data, member.type) for member in tar]
    kind = lambda member: tarfile.REGTYPE if isinstance(member, tar_members.PlainMember) else member.type
    found = [(member.name, member.size, stream.tell(), kind(member)) for member in tar_members.members(stream, "x.tar")]
    assert [(*facts, REGULAR.get(kind, kind)) for *facts, kind in found] == [
        (*facts, REGULAR.get(kind, kind)) for *facts, kind in expected]


@pytest.mark.parametrize("argument, message", [
    ("", "the path is missing"), ("x.tar,caption=y", "'caption=y' is not an option.*use captions=..., split=..."),
    ("x.tar,split=a,split=b", "given twice"), ("x.tar,split=", "not an option"), ("none.tar", "no such file"),
    ("none/*.tar", "no such file"), ("{0..3}.tar", "no such file"), ("{0..99999999999}.tar", "narrower"),
    ("nosuch://x.tar", "nosuch"),
])
def test_a_wrong_argument_is_an_error_before_the_first_record(argument, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        sources.open_source(f"tar:{argument}")


def test_remote_shards_are_read_again_where_a_connection_broke(read, flaky):
    records = pairs(4, image=b"x" * 600_000)
    flaky.pipe({f"/b/{i}.tar": shard(records) for i in range(2)})
    whole = read("tar:flaky://b/{0..1}.tar")
    assert len(whole.records) == 8 and not whole.rejects
    flaky.reset(failures=3, fails_after=1_500_000)
    assert read("tar:flaky://b/*.tar").records == whole.records
    assert flaky.waits == [0.5, 2.0, 8.0]


def test_a_remote_shard_that_disappears_is_counted_and_the_next_goes_on(read, flaky):
    records = pairs(4, image=b"x" * 600_000)
    flaky.pipe({f"/b/{i}.tar": shard(records) for i in range(2)})
    flaky.reset(failures=4, fails_after=1_500_000)
    items = read("tar:flaky://b")
    assert items.reasons == [("0.tar", "read_failed")] and 4 <= len(items.records) < 8
    assert "4 times" in items.rejects[0].detail and flaky.waits == [0.5, 2.0, 8.0]


def test_memory_does_not_grow_with_the_number_of_records(tmp_path):
    def peak(count: int) -> int:
        (tmp_path / "0.tar").write_bytes(shard(pairs(count, image=bytes(10_000))))
        tracemalloc.start()
        assert sum(1 for _ in sources.open_source(f"tar:{tmp_path / '0.tar'}")) == count
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top
    assert peak(1000) < 1.15 * peak(100) + 200 * 900            # and the keys of the shard


WHOLE = shard([member for key in range(6) for member in [*pair(f"{key:05d}"), (f"{key:05d}.json", b'{"caption": "x"}')]])


@given(changes=damages)
@settings(deadline=5000, max_examples=150)
def test_any_damage_leaves_each_record_yielded_or_the_loss_counted(read, tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("any") / "0.tar"
    damage(path, WHOLE, changes)
    items = read(f"tar:{path}")
    assert len(items.records) <= 6 and len(items.rejects) <= tar_members.MAX_DAMAGES
    assert len(items.records) == 6 or items.rejects
    if items.records and not items.rejects:
        assert len(items.records) == 6


@given(changes=damages)
@settings(deadline=5000, max_examples=60)
def test_any_damage_to_a_compressed_shard_is_survived(read, tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("any") / "0.tar.gz"
    damage(path, shard(pairs(6), mode="w:gz"), changes)
    items = read(f"tar:{path}")
    assert len(items.records) == 6 or items.rejects
