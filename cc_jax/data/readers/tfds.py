"""TFDS datasets that have been prepared as ArrayRecord, read without TensorFlow and without their builder's code.

    tfds:coco_captions      tfds:my_data/config:1.0.0,data_dir=gs://bucket/tfds,splits=train|val      tfds:datasets/photos

A feature within a sequence or a dict is named with dots: captions=captions.text. Several captions of an image are kept.
"""
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from cc_jax.data import tfds_folder
from cc_jax.data.readers import captions, options
from cc_jax.data.records import MAX_IMAGE_BYTES, Note, Part, Record, Reject

FORM = "tfds:NAME_OR_DIR[,image=FEATURE,captions=FEATURE|FEATURE,splits=NAME|NAME,data_dir=DIR]"
IMAGE_FEATURES = ("image", "jpg", "img")
CAPTION_FEATURES = ("captions.text", "captions", "caption", "text", "sentences", "title")
PART_RECORDS = 10_000       # that one part reads


def parts(argument: str) -> list[Part]:
    """A part for each PART_RECORDS records of each split. Raises: ValueError, FileNotFoundError."""
    directory, wanted, image, texts = _resolve(argument)
    return [Part(f"{split}:{start}", partial(read_range, directory, split, start, stop, image, tuple(texts)),
                 f"{directory}/dataset_info.json", stop - start)
            for split, size in wanted.items()
            for start in range(0, size, PART_RECORDS) for stop in [min(start + PART_RECORDS, size)]]


def read_range(
    directory: str, split: str, start: int, stop: int, image: str, texts: tuple[str, ...],
) -> Iterator[Record | Reject | Note]:
    """The records [start, stop) of a split, keys "NAME/VERSION/SPLIT:INDEX"; a broken one is rejected, the next goes on."""
    import tensorflow_datasets as tfds  # slow to import, and of no use to other sources
    builder = tfds_folder.open_folder(directory)
    name = f"{builder.info.full_name}/{split}"
    # Only the features needed are decoded: others may need TensorFlow (tfds.decode.PartialDecoding does).
    features = tfds.features.FeaturesDict({
        feature: builder.info.features[feature] for feature in (image, *(path.split(".")[0] for path in texts))})
    decoders = {image: tfds.decode.SkipDecoding()}
    try:
        source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    except Exception as error:              # array_record raises many things for broken files, each a RuntimeError or so
        yield Reject(f"{name}:{start}", "record_broken", f"records {start} to {stop - 1}: {error}"[:500])
        return
    for index in range(start, stop):
        try:
            raw = source[index]
            if not raw:
                raise ValueError("no bytes")
            example = features.deserialize_example_np(raw, decoders=decoders)
            data, found = example[image], captions.flatten([_values(example, path.split(".")) for path in texts])
            if not isinstance(data, bytes):
                raise ValueError(f"the image is a {type(data).__name__}")
        except Exception as error:
            yield Reject(f"{name}:{index}", "record_broken", f"{type(error).__name__}: {error}"[:500])
            continue
        if len(data) > MAX_IMAGE_BYTES:
            yield Reject(f"{name}:{index}", "image_bytes", f"{len(data)} bytes, more than {MAX_IMAGE_BYTES}.")
        else:
            yield from captions.web_record(f"{name}:{index}", data, [_text(value) for value in found], split)


def _resolve(argument: str) -> tuple[str, dict[str, int], str, list[str]]:
    """(directory, size of each wanted split, image feature, caption features). Raises: ValueError, FileNotFoundError."""
    import tensorflow_datasets as tfds
    name, given = options.parse_argument("tfds", argument, ("image", "captions", "splits", "data_dir"))
    builder = open_prepared(name, given.get("data_dir"))
    source, info = f"tfds {name}", builder.info
    image = options.choose(source, "image", given.get("image"), IMAGE_FEATURES, dict(info.features))
    if not isinstance(info.features[image], tfds.features.Image):
        raise options.ColumnError(f"{source}: {image!r} is {type(info.features[image]).__name__}; name an Image feature "
                                  "with image=FEATURE.")
    known = _text_features(tfds, info.features)
    texts = [options.choose(source, "captions", path, CAPTION_FEATURES, known)
             for path in options.names(given.get("captions")) or [None]]
    sizes = {split: part.num_examples for split, part in info.splits.items()}
    wanted = options.names(given.get("splits")) or list(sizes)
    if missing := [split for split in wanted if split not in sizes]:
        raise ValueError(f"{source}: no split {', '.join(missing)}; it has {', '.join(sizes) or 'none'}.")
    return str(builder.data_path), {split: sizes[split] for split in wanted}, image, texts


def open_prepared(name: str, data_dir: str | None) -> Any:
    """The builder of a dataset prepared as ArrayRecord: a folder, or a name below `data_dir` (TFDS's own by default).

    Raises: ValueError, FileNotFoundError.
    """
    path = os.path.expanduser(name)
    if "://" not in path and not os.path.isdir(path):
        path = _find(name, data_dir)
    builder = tfds_folder.open_folder(path)
    if "array_record" not in {file_format.value for file_format in builder.info.available_file_formats()}:
        raise ValueError(f"tfds {name}: it is prepared as {builder.info.file_format and builder.info.file_format.value}; "
                         "prepare it with `tfds build --file_format=array_record`, which can be read without TensorFlow.")
    return builder


def _find(name: str, data_dir: str | None) -> Any:
    """The folder of a dataset given by name. Raises: FileNotFoundError."""
    try:
        found, why = tfds_folder.find(name, data_dir), "no such dataset."
    except Exception as error:      # of many types, and for unknown names with a list of all there are
        found, why = None, f"{error}"[:300]
    if found is None:
        raise FileNotFoundError(f"source tfds:{name}: {why} Give the folder of a prepared dataset, with dataset_info.json "
                                "in it, or its name and data_dir=DIR.")
    return found


def _text_features(tfds: Any, features: Any, prefix: str = "") -> list[str]:
    """The paths of all text features, those within sequences and dicts too."""
    found = []
    for name, feature in sorted(features.items()):
        while isinstance(feature, tfds.features.Sequence):
            feature = feature.feature
        if isinstance(feature, tfds.features.FeaturesDict):
            found += _text_features(tfds, feature, f"{prefix}{name}.")
        elif isinstance(feature, tfds.features.Text):
            found.append(prefix + name)
    return found


def _values(value: Any, path: list[str]) -> list[Any]:
    """What stands at a path, through lists of dicts and dicts of lists, as one list."""
    if hasattr(value, "tolist"):            # numpy's
        value = value.tolist()
    if isinstance(value, list):
        return [found for item in value for found in _values(item, path)]
    return _values(value[path[0]], path[1:]) if path else [value]


def _text(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
