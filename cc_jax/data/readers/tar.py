"""Image-text tar shards, as img2dataset and webdataset write them, read from end to end and never extracted to disk.

    tar:shards/{00000..01411}.tar       tar:gs://bucket/cc12m       tar:shards/*.tar,captions=txt|synthetic

The members of a record follow one another and share their name up to the first dot: 00042.jpg, 00042.txt, 00042.json.
Captions are those of the JSON member ("captions", a list, or "caption"), else the text member's; `captions=` names
other keys of the JSON, and "txt" for the text member. "phrases" of the JSON goes with them. `split=` names a JSON key.
"""
import codecs
import posixpath
import tarfile
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, BinaryIO

from cc_jax import strict_json
from cc_jax.data.readers import captions, files, options, tar_members
from cc_jax.data.readers.tar_members import PlainMember
from cc_jax.data.records import MAX_IMAGE_BYTES, MAX_LINE_BYTES, BadRecord, Note, Part, Record, Reject, excerpt

FORM = "tar:PATTERN[,captions=KEY|KEY,split=KEY]"
IMAGES = frozenset(("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"))
_READ = IMAGES | {"txt", "json"}
CODE = frozenset(("pyd", "pickle", "pkl", "pth", "pt", "ckpt", "joblib", "dill"))     # reading these could run code
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_NAME = 1024                                                                         # characters of a member's name


def parts(argument: str) -> list[Part]:
    """A part for each shard. Raises: ValueError, FileNotFoundError."""
    pattern, given = options.parse_argument("tar", argument, ("captions", "split"))
    wanted = options.names(given.get("captions"))
    return [Part(shard.name, partial(read_shard, shard, wanted, given.get("split")), shard.url)
            for shard in files.expand("tar", pattern, SUFFIXES)]


def read_shard(
    shard: files.File, wanted: list[str] | None = None, split_key: str | None = None,
) -> Iterator[Record | Reject | Note]:
    """The records of a shard, keys "SHARD:FOLDER/NAME"; what is broken is rejected, what comes after it goes on.

    The keys of one shard are held, to find duplicates; else one record is in memory at a time.
    """
    try:
        with files.open_stream(shard) as stream:
            for item in _groups(stream, shard.name):
                if isinstance(item, _Group):
                    yield from item.record(shard.name, wanted, split_key)
                else:
                    yield item
    except FileNotFoundError as error:
        yield Reject(shard.name, "file_missing", str(error))
    except OSError as error:
        yield Reject(shard.name, "read_failed", str(error))


class _Group:
    """The members of one record."""

    def __init__(self, stem: str):
        self.stem, self.members, self.problem = stem, {}, None       # members: bytes by extension

    def add(self, extension: str, size: int, stream: BinaryIO) -> None:
        """Reads a member, at which `stream` stands."""
        is_image = extension in IMAGES
        limit = MAX_IMAGE_BYTES if is_image else MAX_LINE_BYTES
        data = b""
        if is_image and not IMAGES.isdisjoint(self.members):
            self._fail("several_images", f"members {', '.join(self.members)} and {extension}; there must be one image.")
        elif size > limit:
            reason = "image_bytes" if is_image else "member_too_long"
            self._fail(reason, f"{extension}: {size} bytes, more than {limit}.")
        else:
            try:
                data = stream.read(size)
            except files.ReadFailed:
                raise
            except Exception as error:          # of the decompressors
                self._fail("tar_truncated", f"{extension}: {type(error).__name__}: {error}")
            if len(data) < size:
                self._fail("tar_truncated", f"{extension}: {len(data)} bytes of {size}, then the shard ends.")
        self.members[extension] = data

    def _fail(self, reason: str, detail: str) -> None:
        self.problem = self.problem or BadRecord(reason, detail)

    def record(self, shard: str, wanted: list[str] | None, split_key: str | None) -> Iterable[Record | Reject | Note]:
        """The record and what was noted, or why there is none."""
        key = f"{shard}:{self.stem}"
        try:
            if self.problem:
                raise self.problem
            image = next((data for extension, data in self.members.items() if extension in IMAGES), None)
            if image is None:
                raise BadRecord("no_image", f"only {', '.join(self.members)}; a record needs an image of the same name.")
            fields = _fields(self.members["json"]) if "json" in self.members else {}
            text = _decode(self.members["txt"]) if "txt" in self.members else None
            found, phrases = _captions(fields, text, wanted)
            split = fields.get(split_key) if split_key else "train"
            return captions.web_record(key, image, found, split, phrases)
        except BadRecord as error:
            return [error.reject(captions.printable(key))]


def _groups(stream: BinaryIO, shard: str) -> Iterator[_Group | Reject | Note]:
    """The members of a shard, grouped by their name up to the first dot."""
    group, seen = None, set()
    for member in tar_members.members(stream, shard):
        if isinstance(member, Reject):
            yield member
            continue
        try:
            stem, extension = _split_name(member)
        except BadRecord as error:
            yield error.reject(captions.printable(f"{shard}:{member.name[:MAX_NAME]}"))
            continue
        if extension not in _READ or not stem:
            if isinstance(member, PlainMember) or not member.isdir():
                code = extension.rpartition(".")[2] in CODE
                yield Note(captions.printable(f"{shard}:{member.name}"), "member_pickled" if code else "member_ignored")
            continue
        if group is None or stem != group.stem or extension in group.members:
            if group is not None:
                yield group
            group = _Group(stem)
            if stem in seen:
                group.problem = BadRecord("duplicate_key", "there was a record of this name before; all members of a "
                                                           "record must follow one another.")
            seen.add(stem)
        group.add(extension, member.size, stream)
    if group is not None:
        yield group


def _split_name(member: PlainMember | tarfile.TarInfo) -> tuple[str, str]:
    """(folder and name up to the first dot, extension in lower case) of a member; no name for what begins with a dot.

    Raises: BadRecord for a link, device or the like, and for a name that would lead out of a folder.
    """
    name = member.name
    if not isinstance(member, PlainMember):
        if member.isdir():
            return "", ""
        if not member.isreg() or member.issparse():
            raise BadRecord("member_kind", f"a member of type {member.type!r} leading to {excerpt(member.linkname)}; only "
                                           "plain files are read.")
    elif "/" not in name and "\\" not in name:      # most names: what follows would change nothing
        stem, _, extension = name.partition(".")
        return stem, extension.lower()
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or "\0" in name or len(name) > MAX_NAME:
        raise BadRecord("member_path", f"{excerpt(name)}; it must be a relative path of at most {MAX_NAME} characters, "
                                       "without '..'.")
    folder, base = posixpath.split(name.removeprefix("./"))
    stem, _, extension = base.partition(".")
    return posixpath.join(folder, stem) if stem else "", extension.lower()


def _decode(data: bytes) -> str:
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise BadRecord("not_utf8", f"byte {data[error.start]:#x} at {error.start}.") from error


def _fields(data: bytes) -> dict[str, Any]:
    text = _decode(data)
    try:
        fields = strict_json.loads(text, nan=True)
    except ValueError as error:
        raise BadRecord("not_json", f"{error}: {excerpt(text)}") from error
    if not isinstance(fields, dict):
        raise BadRecord("not_an_object", f"a {type(fields).__name__}: {excerpt(fields)}")
    return fields


def _captions(fields: dict[str, Any], text: str | None, wanted: list[str] | None) -> tuple[list[Any], Any]:
    """(captions, phrases) of a record: those wanted, else the JSON's, else the text's."""
    if wanted is not None:
        found = captions.flatten([text if key == "txt" else fields.get(key) for key in wanted])
    elif isinstance(fields.get("captions"), list):
        found = fields["captions"]
    elif fields.get("caption") is not None:
        found = captions.flatten([fields["caption"]])
    elif text is not None:
        found = [text]
    else:
        raise BadRecord("no_caption", f"no txt member, and no caption in the JSON, which has {excerpt(sorted(fields))}.")
    return found, fields.get("phrases")
