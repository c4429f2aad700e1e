"""The prepared dataset: a TFDS dataset in ArrayRecord files, written one record at a time and read at random.

The shards are not written by a TFDS builder: a builder shuffles as it writes, for which it holds up to 1 GB of a split in
memory, or all of it in Beam's, needs TensorFlow beyond that, and can't go on from what an interrupted run has finished.
Training shuffles anyway, so records keep the order of the source. Names, records and metadata are TFDS's own.
"""
import errno
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from cc_jax.config import DatasetError
from cc_jax.data import tf_example, tfds_folder

NAME, VERSION = "cc", "1.1.0"       # VERSION is the format's: of FEATURES and of what the folder holds
FORMAT = "array_record"
SHARD_BYTES = 2**28                 # a shard that holds as much is closed, and the next begun
DATASET_INFO = "dataset_info.json"  # TFDS's; a folder with it is a finished dataset
REJECTED = "rejected.jsonl"
REPORT = "report.html"
INTEGERS = ("phrase_caption", "phrase_start", "phrase_end")

FEATURES = tfds.features.FeaturesDict({
    "key": tfds.features.Text(doc="where the record came from, unique within the source"),
    "image": tfds.features.Image(doc="encoded, as the source had it: any format that transforms.decode reads"),
    "captions": tfds.features.Sequence(tfds.features.Text()),
    "phrases": tfds.features.Sequence(tfds.features.Text(), doc="of all captions, one after the other"),
    "phrase_caption": tfds.features.Sequence(np.int32, doc="which caption each phrase came from"),
    "phrase_start": tfds.features.Sequence(np.int32, doc="where each phrase stands in its caption, in characters"),
    "phrase_end": tfds.features.Sequence(np.int32, doc="exclusive"),
})

serialize = tf_example.make_serialize(FEATURES, INTEGERS)   # as FEATURES.serialize_example, in a fortieth of the time


def open_split(directory: str | Path, split: str, spans: bool = False) -> Sequence[dict[str, Any]]:
    """Random access to the records of a split, safe from many threads.

    A record is {"key": bytes, "image": bytes, still encoded, "captions": [bytes], "phrases": [bytes],
    "phrase_caption": [int], "phrase_start": [int], "phrase_end": [int]}, texts in UTF-8. A phrase is first mentioned at
    the characters [start, end) of its decoded caption; datasets of version 1.0.0 lack both.
    Raises: DatasetError, with `spans` also where the dataset lacks them.
    """
    builder = _open(directory)
    if split not in builder.info.splits:
        raise DatasetError(f"the dataset {directory} has no split {split!r}; it has {', '.join(builder.info.splits)}.")
    if spans and "phrase_start" not in builder.info.features:
        raise DatasetError(f"the dataset {directory} does not say where phrases stand in their captions (version "
                           f"{builder.version}, that of 1.1.0 and later does); prepare it anew.")
    if missing := [path for path in builder.info.splits[split].filepaths if not path.exists()]:
        raise DatasetError(f"the dataset {directory} lacks {missing[0].name}; copy it again, or prepare it anew.")
    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def split_sizes(directory: str | Path) -> dict[str, int]:
    """How many records each split has. Raises: DatasetError."""
    return {name: split.num_examples for name, split in _open(directory).info.splits.items()}


def read_metadata(directory: str | Path) -> dict[str, Any]:
    """What preparation counted, as `prepare.prepare` returns it. Raises: DatasetError."""
    return dict(_open(directory).info.metadata or {})


def is_finished(directory: str | Path) -> bool:
    """Whether the folder holds a prepared dataset."""
    return (Path(directory) / DATASET_INFO).is_file()


def _open(directory: str | Path) -> tfds.core.DatasetBuilder:
    directory = Path(directory)
    if is_finished(directory):
        return tfds_folder.open_folder(directory)
    if (directory / REJECTED).is_file():
        raise DatasetError(f"the preparation of {directory} failed, {directory / REJECTED} says why; prepare it again "
                           f"with `python -m cc_jax.data.prepare --source ... --out {directory}`.")
    raise DatasetError(f"there is no prepared dataset in {directory} ({DATASET_INFO} is missing); prepare one with "
                       f"`python -m cc_jax.data.prepare --source jsonl:FILE --out {directory}`.")


@dataclass
class Shard:
    """A file of records of one split."""
    file: str
    records: int
    bytes: int                          # of the records, as they were before they were framed


class ShardWriter:
    """Writes records to shards `NAME.SPLIT-00000`, ..., in a folder; of each split its own."""

    def __init__(self, directory: Path, name: str):
        self._directory, self._name = directory, name
        self._shards: dict[str, list[Shard]] = {}
        self._open: dict[str, ArrayRecordWriter] = {}

    def write(self, split: str, record: Mapping[str, Any]) -> None:
        """Args: record: values for FEATURES, "image" as encoded bytes. Raises: OSError where that fails."""
        serialized = serialize(record)
        writer = self._open.get(split)
        if writer is None or self._shards[split][-1].bytes >= SHARD_BYTES:
            writer = self._begin(split)
        writer.write(serialized)
        if not writer.ok():                         # a full disk, say; else only closing it would tell
            self._close(split)
        last = self._shards[split][-1]
        last.records += 1
        last.bytes += len(serialized)

    def _begin(self, split: str) -> ArrayRecordWriter:
        """Opens the next shard of a split."""
        self._close(split)
        shards = self._shards.setdefault(split, [])
        shards.append(Shard(f"{self._name}.{split}-{len(shards):05d}", 0, 0))
        # A group of one record is what makes random access cheap, and encoded images don't compress.
        writer = self._open[split] = ArrayRecordWriter(str(self._directory / shards[-1].file), "group_size:1,uncompressed")
        return writer

    def close(self) -> dict[str, list[Shard]]:
        """The shards of each split. Raises: OSError if they could not be written whole."""
        for split in list(self._open):
            self._close(split)
        return self._shards

    def _close(self, split: str) -> None:
        if (writer := self._open.pop(split, None)) is not None:
            try:
                writer.close()
            except RuntimeError as error:           # array_record's, for any failure
                full = "no space left" in str(error).lower()
                raise OSError(errno.ENOSPC if full else errno.EIO, f"records can't be written: {error}") from error


def shard_names(split: str, count: int) -> list[str]:
    """The files of a split with so many shards, as TFDS names them."""
    template = _template(Path(), split)
    return [template.sharded_filepath(shard_index=i, num_shards=count).name for i in range(count)]


def write_info(directory: Path, shards: Mapping[str, Sequence[Shard]], metadata: Mapping[str, Any]) -> None:
    """Writes TFDS's JSON files, which make a folder with these shards, named `shard_names`, a dataset.

    Args:
      metadata: JSON values, which become the dataset's.
    """
    with tempfile.TemporaryDirectory(dir=directory) as place:   # TFDS looks for the shards, which may lie elsewhere
        place = Path(place)
        for split, parts in shards.items():
            for name in shard_names(split, len(parts)):
                (place / name).touch()
        tfds.folder_dataset.write_metadata(
            data_dir=place, features=FEATURES, version=VERSION, check_data=False,
            split_infos=[tfds.core.SplitInfo(
                name=split, shard_lengths=[shard.records for shard in parts], filename_template=_template(place, split),
                num_bytes=sum(shard.bytes for shard in parts)) for split, parts in shards.items()],
            description="Images, their captions, and the captions' noun phrases.",
            metadata=tfds.core.MetadataDict(metadata))
        for path in place.glob("*.json"):
            path.rename(directory / path.name)


def _template(directory: Path, split: str) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(data_dir=directory, dataset_name=NAME, split=split, filetype_suffix=FORMAT)
