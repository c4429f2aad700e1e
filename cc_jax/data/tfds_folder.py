"""The one door to folders of TFDS datasets: what they say is checked before TFDS reads it.

TFDS imports the module that a folder's features.json names for a feature, so that a folder from a stranger could run code
that it or the machine holds. Here only TFDS's own features pass.
"""
import os
from collections.abc import Iterator
from functools import cache
from os import PathLike
from typing import Any

from etils import epath

from cc_jax import strict_json
from cc_jax.config import DatasetError

INFO, FEATURES, METADATA = "dataset_info.json", "features.json", "metadata.json"
MAX_BYTES = 2**24                                   # of each of these files
MAX_SHARDS = 100_000                                # of a split: their names have five digits
FEW = 1_000_000                                     # records that a split may be said to have without a look at its files
CLASS_KEYS = ("type", "pythonClassName", "python_class_name")   # under which TFDS looks for a class, old and new
OLD_NAMES = {"tensorflow_datasets.core.features.feature.Tensor"}    # as older versions wrote it
FILE_KEYS = ("names_file", "labels")                # under which old features name files of labels, anywhere
JSON_KEYS = ("content", "json")                     # under which it looks for JSON that was written as a text


def open_folder(folder: str | PathLike) -> Any:
    """TFDS's builder of a prepared dataset. Raises: DatasetError that names the folder or its file."""
    import tensorflow_datasets as tfds  # slow to import, and of no use to other sources
    check(folder)
    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:                      # of many types, most of them no OSError or ValueError
        why = f"{type(error).__name__}: {error}"[:300]
        raise DatasetError(f"the dataset {os.fspath(folder)} can't be read: {why}") from error
    _check_builder(builder, folder)
    return builder


def find(name: str, data_dir: str | None) -> epath.Path | None:
    """Where the dataset "name/config:version" lies below `data_dir`, by default TFDS's own; None where it does not."""
    from tensorflow_datasets.core import read_only_builder
    return read_only_builder._find_builder_dir(name, **({"data_dir": data_dir} if data_dir else {}))


def check(folder: str | PathLike) -> None:
    """Raises: DatasetError where a file of the dataset is not JSON, or names a class that is no feature of TFDS's own."""
    folder = epath.Path(folder)
    for name in (INFO, FEATURES, METADATA):
        path = folder / name
        if path.exists():
            content = _parse(path)
            if not isinstance(content, dict):
                raise DatasetError(f"{path} holds a {type(content).__name__}, not an object; TFDS writes objects only.")
            if name == INFO:                        # an old one has other things there that are called types
                content = content.get("features")
            if name != METADATA:                    # whose values are the dataset's own; TFDS looks for no classes there
                _check_classes(content, path)


def _check_builder(builder: Any, folder: str | PathLike) -> None:
    """Raises: DatasetError where records are no dicts, or more than the files can hold: some readers count up to them."""
    from tensorflow_datasets.core import features
    found, info = builder.info.features, f"{os.fspath(folder)}/{INFO}"
    if not isinstance(found, features.FeaturesDict):
        raise DatasetError(f"the dataset {os.fspath(folder)} has records that are {type(found).__name__}, not dicts.")
    for name, split in builder.info.splits.items():
        if split.num_shards > MAX_SHARDS:
            raise DatasetError(f"{info} says that split {name!r} has {split.num_shards} shards, more than {MAX_SHARDS}.")
        if split.num_examples > FEW:
            size = sum(path.stat().length for path in split.filepaths if path.exists())
            if split.num_examples > size:
                raise DatasetError(f"{info} says that split {name!r} has {split.num_examples} records, and its files have "
                                   f"{size} bytes; copy them all again.")


def _parse(path: epath.Path) -> Any:
    if (size := path.stat().length) > MAX_BYTES:
        raise DatasetError(f"{path} has {size} bytes, more than {MAX_BYTES}.")
    try:
        return strict_json.loads(path.read_bytes())
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON that can be used: {error}") from error


def _check_classes(content: Any, path: epath.Path) -> None:
    for key, text in _texts(content):
        if key in CLASS_KEYS and text not in _own_features():
            raise DatasetError(f"{path} names the feature class {text[:200]!r}, which is none of TFDS's own; a class from "
                              "elsewhere would run its code here, so prepare the dataset with features of TFDS.")
        if key in FILE_KEYS:
            raise DatasetError(f"{path} has labels read from the file {text[:200]!r}; put them into a file of the folder, "
                               "as TFDS does.")
        if key in JSON_KEYS:
            try:
                _check_classes(strict_json.loads(text), path)
            except DatasetError:
                raise
            except ValueError as error:
                raise DatasetError(f"{path}: {key!r} is not JSON that can be used: {error}") from error


def _texts(content: Any) -> Iterator[tuple[str, str]]:
    """(key, text) of all texts in objects, however deep."""
    if isinstance(content, dict):
        yield from ((key, value) for key, value in content.items() if isinstance(value, str))
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _texts(value)


@cache
def _own_features() -> frozenset[str]:
    """The names of TFDS's features as it writes them: "tensorflow_datasets.core.features.text_feature.Text"."""
    import tensorflow_datasets as tfds
    features = [value for value in vars(tfds.features).values() if isinstance(value, type)]
    return frozenset(f"{feature.__module__}.{feature.__name__}"
                     for feature in features if issubclass(feature, tfds.features.FeatureConnector)) | OLD_NAMES
