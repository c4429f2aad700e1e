"""The prepared dataset: a TFDS dataset in ArrayRecord files, written one record at a time and read at random.

Not written by a TFDS builder, because a builder shuffles as it writes: it holds up to 1 GB of a split in memory for
that, and beyond needs TensorFlow. Training shuffles anyway, so records keep the order of the source.
"""
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

NAME, VERSION = "cc", "1.1.0"       # VERSION is the format's: of FEATURES and of what the folder holds
FORMAT = "array_record"
SHARD_BYTES = 2**28                 # a shard that holds as much is closed, and the next begun
DATASET_INFO = "dataset_info.json"  # TFDS's; a folder with it is a finished dataset
TOKENIZER = "tokenizer.model"
REJECTED = "rejected.jsonl"

FEATURES = tfds.features.FeaturesDict({
    "key": tfds.features.Text(doc="where the record came from, unique within the source"),
    "image": tfds.features.Image(doc="encoded, as the source had it: any format that transforms.decode reads"),
    "captions": tfds.features.Sequence(tfds.features.Text()),
    "phrases": tfds.features.Sequence(tfds.features.Text(), doc="of all captions, one after the other"),
    "phrase_caption": tfds.features.Sequence(np.int32, doc="which caption each phrase came from"),
    "phrase_start": tfds.features.Sequence(np.int32, doc="where each phrase stands in its caption, in characters"),
    "phrase_end": tfds.features.Sequence(np.int32, doc="exclusive"),
})


class DatasetError(ValueError):
    """A folder that is not a prepared dataset, or lacks what was asked of it; the message says what to do."""


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


def tokenizer_path(directory: str | Path) -> Path:
    """The SentencePiece model that goes with the dataset."""
    return Path(directory) / TOKENIZER


def is_finished(directory: str | Path) -> bool:
    """Whether the folder holds a prepared dataset."""
    return (Path(directory) / DATASET_INFO).is_file()


def _open(directory: str | Path) -> tfds.core.DatasetBuilder:
    directory = Path(directory)
    if is_finished(directory):
        return tfds.builder_from_directory(directory)
    if (directory / REJECTED).is_file():
        raise DatasetError(f"the preparation of {directory} failed, {directory / REJECTED} says why; prepare it again "
                           f"with `python -m cc_jax.data.prepare --source ... --out {directory}`.")
    raise DatasetError(f"there is no prepared dataset in {directory} ({DATASET_INFO} is missing); prepare one with "
                       f"`python -m cc_jax.data.prepare --source jsonl:FILE --out {directory}`.")


class DatasetWriter:
    """Writes records to the shards of their splits, a record at a time; `finish` makes the folder a dataset."""

    def __init__(self, directory: Path):
        self._directory, self._splits = directory, {}

    def write(self, split: str, record: Mapping[str, Any]) -> None:
        """Args: record: values for FEATURES, "image" as encoded bytes."""
        if split not in self._splits:
            self._splits[split] = _SplitWriter(self._directory, split)
        self._splits[split].write(FEATURES.serialize_example(FEATURES.encode_example(record)))

    def sizes(self) -> dict[str, int]:
        """How many records each split has so far."""
        return {split: sum(writer.lengths) for split, writer in self._splits.items()}

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """Names the shards and writes TFDS's JSON files; `metadata` (JSON values) becomes the dataset's."""
        tfds.folder_dataset.write_metadata(
            data_dir=self._directory, features=FEATURES, version=VERSION, check_data=False,
            split_infos=[writer.finish() for writer in self._splits.values()],
            description="Images, their captions, and the captions' noun phrases.",
            metadata=tfds.core.MetadataDict(metadata))

    def close(self) -> None:
        for writer in self._splits.values():
            writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _SplitWriter:
    """The shards of one split. While it is open their number is unknown, so they get their names in the end."""

    def __init__(self, directory: Path, split: str):
        self._template = tfds.core.ShardedFileTemplate(
            data_dir=directory, dataset_name=NAME, split=split, filetype_suffix=FORMAT)
        self._writer, self._bytes = None, []        # of the open shard; of each shard
        self.lengths = []                           # records of each shard

    def write(self, serialized: bytes) -> None:
        if self._writer is None or self._bytes[-1] >= SHARD_BYTES:
            self.close()
            # A group of one record is what makes random access cheap.
            self._writer = ArrayRecordWriter(str(self._open_path(len(self.lengths))), "group_size:1")
            self.lengths.append(0)
            self._bytes.append(0)
        self._writer.write(serialized)
        self.lengths[-1] += 1
        self._bytes[-1] += len(serialized)

    def finish(self) -> tfds.core.SplitInfo:
        self.close()
        for index in range(len(self.lengths)):
            os.rename(self._open_path(index), self._template.sharded_filepath(
                shard_index=index, num_shards=len(self.lengths)))
        return tfds.core.SplitInfo(name=self._template.split, shard_lengths=self.lengths, num_bytes=sum(self._bytes),
                                   filename_template=self._template)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open_path(self, index: int) -> Path:
        return Path(self._template.data_dir) / f"{self._template.split}-{index:05d}.open"
