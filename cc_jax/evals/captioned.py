"""Images with their captions, for retrieval, in the layouts that such sets are published in.

    *.jsonl     a line {"image": path, "captions": [text, ...]} ("caption": text) for each image, maybe with "split"
    *.json      Karpathy's: {"images": [{"filename", "filepath" where there are folders, "split", "sentences": [{"raw"}]}]}
    *.csv       Flickr30k's: columns filename, split, and raw, a JSON list of captions

A prepared dataset has them, too. Lines that name one image are one image with the captions of all.
"""
import csv
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cc_jax import strict_json
from cc_jax.config import ConfigError
from cc_jax.evals.embedder import ImageFile

FORMS = "*.jsonl, Karpathy's *.json, or Flickr30k's *.csv"
Item = tuple[str, list[str], str | None]        # an image's path, its captions, and its split


@dataclass(frozen=True)
class Captioned:
    """Images, each with a caption at least."""
    ids: Sequence[str]                          # each once
    captions: Sequence[Sequence[str]]
    read: Callable[[int], ImageFile]
    expected: int                               # how many images there should be


def open_prepared(directory: str, split: str, limit: int = 0) -> Captioned:
    """The first `limit` images (0: all) of a prepared dataset's split. Raises: DatasetError, ConfigError."""
    from cc_jax.data import dataset  # its libraries take a second to import, and files do without

    source = dataset.open_split(directory, split)
    records = range(min(limit, len(source)) if limit else len(source))
    if not records:
        raise ConfigError(f"split {split!r} of {directory} is empty; evaluate on one that has records.")
    ids, captions = [], []
    for i in records:
        record = source[i]
        ids.append(record["key"].decode())
        captions.append([caption.decode() for caption in record["captions"]])
    return Captioned(ids, captions, lambda i: ImageFile(source[i]["image"], ids[i]), len(ids))


def open_file(path: str, split: str, images: str = "", limit: int = 0, partial: bool = False) -> Captioned:
    """The first `limit` images (0: all) of a split.

    Args:
      path: the file of captions, in one of the layouts above; in one that names no splits all are of `split`.
      images: the folder that its paths are relative to; by default the file's own.
      partial: go on without the images that are missing. Otherwise one is an error.
    Raises: ConfigError.
    """
    items, splits = {}, {}
    for name, captions, of_split in _items(Path(path).expanduser()):
        splits[of_split] = splits.get(of_split, 0) + 1
        if of_split in (None, split):
            items.setdefault(name, []).extend(captions)
    if not items:
        there = ", ".join(f"{name!r} ({count})" for name, count in splits.items() if name is not None)
        raise ConfigError(f"{path} has no split {split!r}; it has {there or 'no images'}.")
    names = list(items)[:limit or None]
    folder = Path(images).expanduser() if images else Path(path).expanduser().parent
    here = [name for name in names if os.path.isfile(folder / name)]         # False for impossible names
    if len(here) < len(names) and not (partial and here):
        missing = sorted(set(names) - set(here))
        raise ConfigError(f"{len(missing)} of {len(names)} images of {path}, split {split!r}, are not in {folder}, such as "
                          f"{missing[0]!r}; name their folder with images, or evaluate those at hand with partial.")
    return Captioned(here, [items[name] for name in here],
                     lambda i: ImageFile((folder / here[i]).read_bytes(), str(folder / here[i])), len(names))


def _items(path: Path) -> Iterator[Item]:
    """The images that a file names. Raises: ConfigError."""
    read = {".jsonl": _json_lines, ".json": _karpathy, ".csv": _csv}.get(path.suffix.lower())
    if read is None:
        raise ConfigError(f"captions in {path} can't be read by its name; give {FORMS}.")
    try:
        yield from read(path)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8.") from error
    except csv.Error as error:
        raise ConfigError(f"{path} is no CSV: {error}.") from error
    except OSError as error:
        raise ConfigError(f"no captions in {path} ({error.strerror}); give {FORMS}.") from error


def _json_lines(path: Path) -> Iterator[Item]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                where = f"{path}, line {number}"
                item = _object(_parse(line, where), where)
                captions = item.get("captions", [item["caption"]] if "caption" in item else None)
                yield _checked(where, item.get("image"), captions, item.get("split"), ("image", "captions"))


def _karpathy(path: Path) -> Iterator[Item]:
    whole = _parse(path.read_text(encoding="utf-8-sig"), str(path))
    if not isinstance(whole, dict) or not isinstance(whole.get("images"), list):
        raise ConfigError(f"{path} has no list under 'images'; give {FORMS}.")
    for number, item in enumerate(whole["images"]):
        where = f"{path}, image {number}"
        item = _object(item, where)
        sentences = item.get("sentences")
        raw = [sentence.get("raw") if isinstance(sentence, dict) else None for sentence in sentences] \
            if isinstance(sentences, list) else None
        name, folder = item.get("filename"), item.get("filepath") or ""
        if isinstance(name, str) and isinstance(folder, str):
            name = str(PurePosixPath(folder) / name) if name else name
        yield _checked(where, name, raw, item.get("split"), ("filename", "sentences' raw"))


def _csv(path: Path) -> Iterator[Item]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream), 1):
            where = f"{path}, row {number}"
            yield _checked(where, row.get("filename"), _parse(row.get("raw") or "null", where), row.get("split"),
                           ("filename", "raw"))


def _checked(where: str, name: Any, captions: Any, split: Any, keys: tuple[str, str]) -> Item:
    """An item whose parts are what they must be. Raises: ConfigError."""
    path = PurePosixPath(name) if isinstance(name, str) else None
    if path is None or not path.name or path.is_absolute() or ".." in path.parts:
        raise ConfigError(f"{where}: {keys[0]} is {name!r}; it must be a path within the folder of the images.")
    are_texts = isinstance(captions, list) and all(map(_is_text, captions))
    if not captions or not are_texts:
        raise ConfigError(f"{where}: {keys[1]} is {str(captions)[:80]}; it must be a list of texts, not empty.")
    if split is not None and not isinstance(split, str):
        raise ConfigError(f"{where}: split is {split!r}; it must be a text.")
    return name, captions, split


def _is_text(text: Any) -> bool:
    """Whether it is a text that holds more than white space, and no half characters."""
    return isinstance(text, str) and bool(text.strip()) and text.encode("utf-8", "ignore").decode() == text


def _object(value: Any, where: str) -> dict:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {str(value)[:80]}; it must be an object {{...}}.")
    return value


def _parse(text: str, where: str) -> Any:
    try:
        return strict_json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where} is no JSON: {error}.") from error
