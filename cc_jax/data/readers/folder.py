"""A tree of folders with images, each with its captions beside it: dog.jpg and dog.txt, one caption a line.

    folder:photos       folder:gs://bucket/photos

Links to folders are not followed, and hidden files and folders are left out.
"""
import posixpath
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from cc_jax.data.readers import captions, files
from cc_jax.data.records import MAX_IMAGE_BYTES, MAX_LINE_BYTES, BadRecord, Note, Part, Record, Reject

FORM = "folder:DIR"
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
TEXT = ".txt"
MAX_PARTS = 256


def parts(argument: str) -> list[Part]:
    """A part for the files right in the folder, and at most MAX_PARTS for the folders in it.

    Raises: FileNotFoundError, ValueError.
    """
    fs, root = files.filesystem(argument) if argument else (None, "")
    if not argument or not fs.isdir(root):
        raise FileNotFoundError(f"source folder:{argument}: no such folder; give one with images and a .txt beside each.")
    url = fs.unstrip_protocol(root)
    _, folders = _list(fs, root)
    size = -(-len(folders) // MAX_PARTS) or 1
    return [Part("", partial(read_folders, url, [""], False)),
            *(Part(folders[i], partial(read_folders, url, folders[i:i + size], True)) for i in range(0, len(folders), size))]


def read_folders(root: str, below: Sequence[str], deep: bool) -> Iterator[Record | Reject | Note]:
    """The records of the folders `below` in `root`, `deep` with all folders in them; keys are paths from `root`.

    The names in one folder are held, to pair them; else one record is in memory at a time.
    """
    fs, path = files.filesystem(root)
    waiting = list(reversed(below))
    while waiting:
        folder = waiting.pop()
        try:
            names, folders = files.retry(lambda: _list(fs, posixpath.join(path, folder)), folder)   # noqa: B023
        except OSError as error:
            yield Reject(captions.printable(folder), "read_failed", str(error))
            continue
        yield from _records(fs, path, folder, names)
        if deep:
            waiting += [posixpath.join(folder, name) for name in reversed(folders)]


def _list(fs: Any, folder: str) -> tuple[list[str], list[str]]:
    """(files, folders) that stand in a folder, sorted."""
    names, folders = [], []
    for entry in fs.ls(folder, detail=True):
        name = posixpath.basename(entry["name"].rstrip("/"))
        if not name.startswith(".") and entry["name"].rstrip("/") != folder:    # object stores list the folder, too
            (folders if entry["type"] == "directory" else names).append(name)
    return sorted(names), sorted(folders)


def _records(fs: Any, root: str, folder: str, names: list[str]) -> Iterator[Record | Reject | Note]:
    texts, with_image = {}, set()
    for name in names:
        stem, suffix = posixpath.splitext(name)
        if suffix.lower() == TEXT:
            texts.setdefault(stem, name)
    for name in names:
        stem, suffix = posixpath.splitext(name)
        key = captions.printable(posixpath.join(folder, name))
        if suffix.lower() in IMAGES:
            with_image.add(stem)
            try:
                if stem not in texts:
                    raise BadRecord("no_caption", f"there is no {stem[:200]}{TEXT} beside it.")
                place = posixpath.join(root, folder).rstrip("/")
                image = files.read_beside(name, fs, place, MAX_IMAGE_BYTES)
                lines = _lines(files.read_beside(texts[stem], fs, place, MAX_LINE_BYTES, "text"))
            except BadRecord as error:
                yield error.reject(key)
            else:
                yield from captions.web_record(key, image, lines)
        elif suffix.lower() != TEXT:
            yield Note(key, "file_ignored")
    for stem, name in texts.items():
        if stem not in with_image:
            yield Reject(captions.printable(posixpath.join(folder, name)), "no_image", f"no image {stem[:200]} beside it.")


def _lines(data: bytes) -> list[str]:
    """The lines that are not blank."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRecord("not_utf8", f"byte {data[error.start]:#x} at {error.start} of the text.") from error
    return [line for line in text.replace("\r", "\n").split("\n") if line.strip()]
