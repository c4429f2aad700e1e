"""What a checkpoint consists of, so that damage is found before anything is restored from it.

    WORKDIR/checkpoints/1200/manifest.json
    {"step": 1200, "provenance": {...}, "files": {"state/_METADATA": {"bytes": 8123, "sha256": "5b1f..."}, ...},
     "sha256": "90c2..."}                                                                 of the manifest without this

It is written before the checkpoint gets its name: one that is there has its manifest, unless an older version saved it. Of
files in a bucket, which keeps checksums of its own, only names and sizes are checked.
"""
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

MANIFEST = "manifest.json"
LATER = (MANIFEST, "_CHECKPOINT_METADATA", "commit_success.txt")    # top-level files that are written after the manifest
NEEDED = "state/_METADATA"          # without which a checkpoint that has no manifest can't be whole
CHUNK = 2**22                       # bytes that are read at once
THREADS = 4                         # hashing lets go of the interpreter


def write(folder: epath.Path, step: int, provenance: Mapping[str, Any]) -> None:
    """Writes the manifest of the checkpoint in a folder."""
    paths = files_of(folder)
    with ThreadPoolExecutor(THREADS) as pool:
        facts = pool.map(lambda path: facts_of(path, is_remote(folder)), paths.values())
        found = {"step": step, "provenance": dict(provenance), "files": dict(zip(paths, facts, strict=True))}
    partial = folder / f".{MANIFEST}.partial"
    partial.write_text(json.dumps(found | {"sha256": own_checksum(found)}, indent=1))
    partial.rename(folder / MANIFEST)


def read(folder: epath.Path) -> dict[str, Any] | None:
    """A checkpoint's manifest; None where it has none. Raises: ValueError for one that is damaged."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_bytes())
        checksum = found.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{MANIFEST} can't be read ({type(error).__name__}: {error})") from error
    if own_checksum(found) != checksum:
        raise ValueError(f"{MANIFEST} is not what was written")
    return found


def own_checksum(found: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def damage(folder: epath.Path) -> str:
    """What is wrong with a checkpoint, or "".

    One without a manifest is that of an older version if all beside it have none, and only as damaged as it looks; else its
    deletion was cut off.
    """
    try:
        manifest = read(folder)
    except ValueError as error:
        return str(error)
    if manifest is None:
        others = any((path / MANIFEST).exists() for path in folder.parent.iterdir())
        return f"{MANIFEST} is missing" if others else "" if (folder / NEEDED).exists() else f"{NEEDED} is missing"

    def compare(item: tuple[str, dict]) -> str:
        name, wanted = item
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        found = facts_of(path, "sha256" not in wanted)
        if found["bytes"] != wanted["bytes"]:
            return f"{name} has {found['bytes']} bytes instead of {wanted['bytes']}"
        return "" if found == wanted else f"{name} is not what was written"

    with ThreadPoolExecutor(THREADS) as pool:
        return next(filter(None, pool.map(compare, manifest["files"].items())), "")


def files_of(folder: epath.Path) -> dict[str, epath.Path]:
    """{path within the checkpoint: path} of the files that a manifest lists."""
    found, folders = {}, [folder]
    while folders:
        for path in folders.pop().iterdir():
            if path.is_dir():
                folders.append(path)
            else:
                found[path.relative_to(folder).as_posix()] = path
    return {name: found[name] for name in sorted(found) if name not in LATER}


def facts_of(path: epath.Path, size_only: bool) -> dict[str, int | str]:
    """{"bytes", "sha256"} of a file."""
    if size_only:
        return {"bytes": path.stat().length}
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


def is_remote(path: epath.Path) -> bool:
    return "://" in str(path)
