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
MAX_BYTES = 2**26                                   # of each of these files
CLASS_KEYS = ("type", "pythonClassName", "python_class_name")   # under which TFDS looks for a class, old and new
OLD_NAMES = {"tensorflow_datasets.core.features.feature.Tensor"}    # as older versions wrote it
JSON_KEYS = ("content", "json")                     # under which it looks for JSON that was written as a text


def open_folder(folder: str | PathLike) -> Any:
    """TFDS's builder of a prepared dataset. Raises: DatasetError that names the folder or its file."""
    import tensorflow_datasets as tfds  # slow to import, and of no use to other sources
    check(folder)
    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:                      # of many types, most of them no OSError or ValueError
        why = f"{type(error).__name__}: {error}"[:300]
        raise DatasetError(f"the dataset {os.fspath(folder)} can't be read: {why}") from error


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
