"""JSON and JSON-lines files of suites, and the images they name: what is wrong with one is said by its name."""
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from cc_jax import strict_json
from cc_jax.config import ConfigError
from cc_jax.data.transforms import ImageError, decode, view
from cc_jax.evals.suites.items import Picture, short


def read_text(path: Path) -> str:
    """Raises: ConfigError for a file that is not there or is no UTF-8 text."""
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}.") from error


def parse(content: str, where: str) -> Any:
    """The value of a JSON text. Raises: ConfigError for what is no JSON, or has a key twice, of which one would be lost."""
    try:
        return strict_json.loads(content)
    except ValueError as error:
        raise ConfigError(f"{where} is not JSON: {error}.") from error


def records(path: Path) -> dict[str, Mapping]:
    """{id: record} of a JSON file that holds a table of records, or a list: ids are then those of the records or numbers.

    Raises: ConfigError.
    """
    content = parse(read_text(path), str(path))
    if isinstance(content, list):
        ids = [str(entry["id"]) if isinstance(entry, dict) and isinstance(entry.get("id"), int | str) else str(i)
               for i, entry in enumerate(content)]
        return table(zip(ids, content, strict=True), str(path))
    if isinstance(content, dict):
        return table(content.items(), str(path))
    raise ConfigError(f"{path} holds {short(content)}; a list of records, or a table of them, is needed.")


def json_lines(path: Path) -> dict[str, Mapping]:
    """{id: record} of a file with a record a line; ids are the records' own, or the lines' numbers. Raises: ConfigError."""
    pairs = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            record = parse(line, f"{path}, line {number},")
            id = record.get("id") if isinstance(record, dict) else None
            pairs.append((str(id) if isinstance(id, int | str) else f"line {number}", record))
    return table(pairs, str(path))


def table(pairs: Any, where: str) -> dict[str, Mapping]:
    """The records by id. Raises: ConfigError where one is none, or two have one id."""
    made = {}
    for id, record in pairs:
        if id in made:
            raise ConfigError(f"{where}: two items have the id {id!r}; give each its own.")
        if not isinstance(record, dict):
            raise ConfigError(f"{where}: item {id} is {short(record)}; a record, {{key: value}}, is needed.")
        made[id] = record
    return made


def image_folders(suite: str, images: str | Sequence[str]) -> list[Path]:
    """Where images are looked for: the folders given, one, several or with commas between, then the suite's own."""
    given = images.split(",") if isinstance(images, str) else images
    home = Path(suite) if Path(suite).is_dir() else Path(suite).parent
    return [*(Path(folder.strip()) for folder in given if folder.strip()), home / "images", home]


def find(files: Sequence[str], folders: Sequence[Path]) -> dict[str, Path]:
    """{file: where it lies} of those that are in one of the folders: by the relative name first, then by its last part."""
    def place(name: str) -> Path | None:
        tries = (folder / each for each in dict.fromkeys((name, Path(name).name)) for folder in folders)
        return next((path for path in tries if os.path.isfile(path)), None)     # False for impossible names
    return {name: path for name in files if (path := place(name))}


def read_pictures(pictures: Sequence[Picture], paths: Mapping[str, Path]) -> Iterator[bytes | UInt8[np.ndarray, "H W 3"]]:
    """What an embedder takes: the encoded file, or the pixels of its part. Raises: ConfigError naming the file."""
    for picture in pictures:
        data = paths[picture.file].read_bytes()
        yield data if picture.box is None else crop(data, picture, paths[picture.file])


def crop(data: bytes, picture: Picture, path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """The box of an image, its edges rounded to whole pixels; what of it lies outside the image is left out."""
    try:
        pixels = decode(data)
    except ImageError as error:
        raise ConfigError(f"{path} can't be used: {error}") from error
    x, y, width, height = picture.box
    left, right, top, bottom = (max(0, round(edge)) for edge in (x, x + width, y, y + height))
    part = pixels[top:bottom, left:right]
    if not part.size:
        raise ConfigError(f"box {picture.box} holds no pixel of {path}, which is {pixels.shape[1]} x {pixels.shape[0]}; "
                          "boxes are x, y, width, height in pixels.")
    return part


def check_images(paths: Mapping[str, Path]) -> None:
    """Raises: ConfigError naming the first image that can't be used. It opens them all: for when one is known to fail."""
    for path in paths.values():
        try:
            view(path.read_bytes(), 16)
        except ImageError as error:
            raise ConfigError(f"{path} can't be used: {error}") from error
