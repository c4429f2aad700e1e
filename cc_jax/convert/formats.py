"""One door for weights in any format: told apart by what lies at the path, written so that they appear whole."""
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from etils import epath

from cc_jax.convert import big_vision, directory, hugging_face, open_clip, released, vocabulary, workdir
from cc_jax.convert.fit import fit
from cc_jax.convert.weights import DTYPES, Lazy, Weights, WeightsError
from cc_jax.data.tokenizer import Tokenizer

FORMATS = ("big_vision", "huggingface", "open_clip")
KNOWN = ("a big_vision .npz (or IMAGE.npz,TEXT.npz), a directory of Hugging Face's SiglipModel or of open_clip with "
         "safetensors, a run's workdir, or a released model such as 'SigLIP B/16 224'")


def open_weights(path: str, cache: str = released.CACHE) -> Weights:
    """The weights at a path or of a released model's name; numbers are read later, one parameter at a time.

    Raises WeightsError for what is not there, can't be read safely or fits no known format.
    """
    place = epath.Path(path)
    name = None if place.exists() else released.find(path)
    if name:
        return released.read(name, cache)
    directory.refuse_pickle(path)
    if npz := big_vision.find(path):
        return big_vision.read(npz)
    if not place.exists():
        raise WeightsError(f"{path!r} does not exist; name {KNOWN}.")
    if (place / open_clip.CONFIG).exists():
        return open_clip.read(path)
    if (place / "checkpoints").exists():
        return workdir.read(path)
    if (place / hugging_face.CONFIG).exists():
        return hugging_face.read(path)
    if place.is_dir():
        directory.refuse_pickles(path)
    raise WeightsError(f"{path} is in no known format; name {KNOWN}.")


def load(
    path: str, like: dict, dont_load: Sequence[str] = (), cache: str = released.CACHE, tokenizer: Tokenizer | None = None,
) -> tuple[dict, list[str]]:
    """(parameters, notes): the weights at `path` in the structure, types and sharding of `like`; see `fit`.

    Raises WeightsError, also for a `tokenizer` that is not theirs: see `vocabulary.check`.
    """
    weights = open_weights(path, cache)
    if tokenizer is not None:
        vocabulary.check(weights, tokenizer, dont_load)
    return fit(weights, like, dont_load)


def write(weights: Weights, path: str, to: str, dtype: str) -> None:
    """Writes the weights as `path`, a file or directory that must not exist yet, for the loader of one of FORMATS.

    Raises WeightsError for a format that has no place for them. Whatever happens, `path` appears whole or not at all.
    """
    target = Path(path)
    if target.exists() or "://" in path:
        raise WeightsError(f"{path} exists, or is not on a local disk; name another place.")
    if to == "big_vision" and target.suffix != ".npz":
        raise WeightsError(f"{path} is to be a file of big_vision; its name must end in .npz.")
    weights.complete()
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        if to == "big_vision":
            partial = folder / target.name
            big_vision.write(as_type(weights, dtype), str(partial))
        else:
            partial = folder / "directory"
            partial.mkdir()
            {"huggingface": hugging_face, "open_clip": open_clip}[to].write(weights, str(partial), DTYPES[dtype])
        os.rename(partial, target)
    finally:
        shutil.rmtree(folder)


def as_type(weights: Weights, dtype: str) -> Weights:
    """The same weights as numbers of another type."""
    cast = lambda lazy: Lazy(lazy.shape, DTYPES[dtype], lambda: lazy.read().astype(DTYPES[dtype], copy=False))
    return Weights({name: cast(lazy) for name, lazy in weights.params.items()}, weights.where, weights.sizes,
                   weights.tokenizer, weights.masks_padding, weights.notes)
