"""Embeddings kept on disk: a model embeds each image and each text once, whatever suites they are in.

    ~/.cache/cc_jax/embeddings/MODEL/images-1f0c....npz     keys (n, 16) uint8, embeddings (n, D) float32

A key is the hash of an image file's bytes, of pixels, or of a text. MODEL is the hash of what makes the embeddings: the
files of the checkpoint and the tokenizer (their names, sizes and times), and the code of towers and transforms.
"""
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

import numpy as np
from jaxtyping import Float

import cc_jax
from cc_jax.config import ConfigError
from cc_jax.evals.embedder import Embedder
from cc_jax.progress import counted

CACHE = "~/.cache/cc_jax/embeddings"
CODE = ("models/*.py", "data/transforms.py", "data/tokenizer.py", "data/text_form.py", "data/*_vocabulary.py",
        "evals/embed.py")
_SAVE_EVERY = 1024                  # images or texts: so much work is lost where an evaluation is killed


class CachedEmbedder:
    """An `Embedder` that opens its model only for what has not been embedded before."""

    def __init__(self, open_embedder: Callable[[], Embedder], folder: str | Path | None):
        """`folder`: of the model's embeddings, as `model_folder` names it; None keeps them in memory only."""
        self._open, self._folder = open_embedder, None if folder is None else Path(folder)
        self._known = {"images": self._read("images"), "texts": self._read("texts")}

    def images(self, files: Iterable[bytes | np.ndarray]) -> Float[np.ndarray, "N D"]:
        return self._embed("images", files)

    def texts(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        return self._embed("texts", texts)

    @cached_property
    def _embedder(self) -> Embedder:
        return self._open()

    def __getattr__(self, name: str):
        """What can't be cached is the model's own."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._embedder, name)

    def _embed(self, kind: str, items: Iterable) -> Float[np.ndarray, "N D"]:
        known, keys, asked = self._known[kind], [], set()

        def new() -> Iterator[tuple[bytes, bytes | np.ndarray | str]]:
            for item in counted(items, kind):
                keys.append(key := content_key(item))
                if key not in known and key not in asked:
                    asked.add(key)
                    yield key, item
        missing = new()
        while first := next(missing, None):
            made = []                           # their keys, in the order in which the model takes them
            batch = (made.append(key) or item for key, item in chain([first], islice(missing, _SAVE_EVERY - 1)))
            embeddings = getattr(self._embedder, kind)(list(batch) if kind == "texts" else batch)
            known.update(zip(made, embeddings, strict=True))
            self._write(kind, made, embeddings)
        if not keys:
            raise ConfigError(f"there are no {kind} to embed.")
        return np.stack([known[key] for key in keys])

    def _read(self, kind: str) -> dict[bytes, Float[np.ndarray, " D"]]:
        known = {}
        for path in sorted(self._folder.glob(f"{kind}-*.npz")) if self._folder else ():
            try:
                with np.load(path, allow_pickle=False) as file:
                    known.update(zip(map(bytes, file["keys"]), file["embeddings"], strict=True))
            except Exception as error:          # of zip, zlib or NumPy: whatever a damaged file makes them raise
                raise ConfigError(f"{path} is damaged ({type(error).__name__}: {error}); delete it, and what it held is "
                                  "embedded again.") from error
        return known

    def _write(self, kind: str, keys: Sequence[bytes], embeddings: Float[np.ndarray, "n D"]) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{kind}-{uuid.uuid4().hex}.npz"
        partial = self._folder / f".{name}.partial"
        with partial.open("wb") as file:
            np.savez(file, keys=np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16), embeddings=embeddings)
        partial.rename(self._folder / name)     # two evaluations may share the folder: each file is whole, or not there


def content_key(item: bytes | np.ndarray | str) -> bytes:
    """16 bytes that tell contents apart."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(item, np.ndarray):
        digest.update(f"{item.dtype.str} {item.shape}".encode())
        item = np.ascontiguousarray(item).data
    digest.update(item.encode() if isinstance(item, str) else item)
    return digest.digest()


def model_folder(cache: str | Path, files: Iterable[Path], *settings: str) -> Path:
    """The folder, in the folder `cache`, of the embeddings of a model that consists of `files`, opened with `settings`."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(files):
        status = os.stat(path)
        digest.update(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    code = Path(cc_jax.__file__).parent
    for path in sorted(path for pattern in CODE for path in code.glob(pattern)):
        digest.update(path.read_bytes())
    digest.update("\0".join(settings).encode())
    return Path(cache).expanduser() / digest.hexdigest()
