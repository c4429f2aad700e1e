"""A folder that preparation writes to: on a local disk, or in a bucket that fsspec writes to."""
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from cc_jax.data.readers import files

SCRATCH = "scratch-"


class Folder:
    """Files appear in it whole, at once, under their names; writing the same file again, from two machines too, is safe."""

    def __init__(self, url: str | Path):
        """Raises: ValueError for a protocol that is not known or not installed."""
        self.url = str(url)
        self._fs, self._path = files.filesystem(self.url)
        self.is_local = isinstance(self._fs, LocalFileSystem)

    def __truediv__(self, name: str) -> "Folder":
        return Folder(f"{self.url}/{name}")

    def local(self) -> Path:
        """The path of a local folder."""
        return Path(self._path)

    def names(self) -> set[str]:
        """What the folder holds."""
        self._fs.invalidate_cache()
        if not self._fs.isdir(self._path):
            return set()
        return {path.rstrip("/").rpartition("/")[2] for path in self._fs.ls(self._path, detail=False)}

    def exists(self, name: str) -> bool:
        self._fs.invalidate_cache()
        return self._fs.exists(self._at(name))

    def read(self, name: str) -> bytes:
        return self._fs.cat_file(self._at(name))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A local folder to make files in before they are delivered; removed at the end."""
        if self.is_local:
            os.makedirs(self._path, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=self._path if self.is_local else None) as scratch:
            yield Path(scratch)

    def deliver(self, source: Path, name: str) -> None:
        """Moves a file, or a folder, from `scratch` here."""
        if self.is_local:
            os.makedirs(os.path.dirname(self._at(name)), exist_ok=True)
            if source.is_dir():
                shutil.rmtree(self._at(name), ignore_errors=True)
            os.replace(source, self._at(name))
        elif source.is_dir():
            for path in sorted(source.rglob("*")):
                if path.is_file():
                    self.deliver(path, f"{name}/{path.relative_to(source).as_posix()}")
        else:
            self._fs.put_file(str(source), self._at(name))

    def move(self, name: str, to: "Folder", new_name: str) -> None:
        """Moves a file of this folder to another of the same filesystem."""
        if self.is_local:
            os.makedirs(to._path, exist_ok=True)
            os.replace(self._at(name), to._at(new_name))
        else:
            self._fs.mv(self._at(name), to._at(new_name))

    def delete(self, names: Iterable[str]) -> None:
        """Deletes files, and folders with all they hold."""
        for name in names:
            self._fs.rm(self._at(name), recursive=True)

    def remove(self) -> None:
        if self._fs.exists(self._path):
            self._fs.rm(self._path, recursive=True)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"
