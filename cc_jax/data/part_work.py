"""One part of a source prepared: read, checked, annotated and written, by whatever process does it.

Its files appear in the folder of the unfinished dataset, the last of them part-00012.json, which says that it is whole.
They depend on the part and the options alone, so it does not matter who prepares it, or how often.
"""
import gc
import hashlib
import heapq
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from cc_jax.data.annotate import Annotated, Counts, Options, annotate
from cc_jax.data.dataset import Shard, ShardWriter
from cc_jax.data.readers import files
from cc_jax.data.records import Part, Record, Reject
from cc_jax.data.storage import Folder
from cc_jax.data.survey import Survey

MAX_SPLITS = 32                     # of a part: each keeps a file open
TRAIN = "train"
KINDS = ("rejected", "captions", "done")    # of a part's files beside its shards; the last says that it is whole
_BATCH, _BATCH_BYTES = 256, 2**23   # records in memory at a time, and bytes of their images, but for the last one's
Tick = Callable[[int, int], None]   # told of records and rejects as they come


@dataclass(frozen=True)
class Done:
    """What is known of a part that has been prepared."""
    name: str
    stamp: str                      # of the file it was read from, before
    counts: Counts
    shards: dict[str, list[Shard]]
    survey: Survey

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "stamp": self.stamp, "counts": vars(self.counts), "survey": self.survey.to_json(),
                "shards": {split: list(map(asdict, shards)) for split, shards in self.shards.items()}}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Done":
        shards = {split: [Shard(**shard) for shard in shards] for split, shards in values["shards"].items()}
        return cls(values["name"], values["stamp"], Counts.from_json(values["counts"]), shards,
                   Survey.from_json(values["survey"]))


@dataclass(frozen=True)
class Work:
    """What a process needs to know to prepare parts; it can be sent to another."""
    folder: str                     # of the unfinished dataset
    options: Options
    captions: int                   # at most so many of a part's train captions are kept, for the tokenizer
    samples: int                    # and so many records, for the report

    def __call__(self, number: int, part: Part, tick: Tick = lambda records, rejected: None) -> None:
        """Prepares part `number`. Raises: OSError where its files can't be written."""
        folder, name = Folder(self.folder), part_name(number)
        stamp = files.stamp(part.url) if part.url else ""
        counts, survey, captions = Counts(), Survey(candidates=self.samples), Captions(self.captions)
        with folder.scratch() as scratch, rare_collection():
            writer = ShardWriter(scratch, name)
            with (scratch / "rejected").open("w") as rejected:
                items = counts.without_notes(part.read())
                splits = set()
                for batch in batches(items):
                    # One step for all of a batch before the next: 1.2 times as fast as all steps for one record.
                    done = list(checked(batch, self.options, splits))
                    good = [item for item in done if isinstance(item, Annotated)]
                    examples = [item.example() for item in good]
                    for item, example in zip(good, examples, strict=True):
                        writer.write(item.record.split, example)
                    for item, example in zip(good, examples, strict=True):
                        survey.add(example, item.record.split)
                    for item in good:
                        if item.record.split == TRAIN:
                            captions.add(item.record.key, item.captions)
                    for item in done:
                        counts.add(item)
                        for reject in [item] if isinstance(item, Reject) else item.rejected_captions + item.rejected_phrases:
                            rejected.write(json.dumps(asdict(reject)) + "\n")
                    tick(len(batch), len(batch) - len(good))
            shards = writer.close()
            (scratch / "captions").write_text(json.dumps(captions.chosen()))
            (scratch / "done").write_text(json.dumps(Done(part.name, stamp, counts, shards, survey).to_json()))
            for shard in [shard for of_split in shards.values() for shard in of_split]:
                folder.deliver(scratch / shard.file, shard.file)
            for kind in KINDS:
                folder.deliver(scratch / kind, f"{name}.{kind}")


def part_name(number: int) -> str:
    return f"part-{number:06d}"


@contextmanager
def rare_collection() -> Iterator[None]:
    """Python looks for garbage in cycles once in 50 000 new objects, not in 700: records make hundreds, but no cycles."""
    threshold = gc.get_threshold()
    gc.set_threshold(50_000)
    try:
        yield
    finally:
        gc.set_threshold(*threshold)


def batches(items: Iterator[Record | Reject]) -> Iterator[list[Record | Reject]]:
    """The items, so many at a time as may be in memory."""
    batch, size = [], 0
    for item in items:
        batch.append(item)
        size += len(item.image) if isinstance(item, Record) else 0
        if len(batch) == _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def checked(batch: Sequence[Record | Reject], options: Options, splits: set[str]) -> Iterator[Annotated | Reject]:
    """What becomes of each item; a record that would need one split too many is rejected, new ones come to `splits`."""
    for item in annotate(batch, options):
        if isinstance(item, Annotated):
            split = item.record.split
            if problem := check_split(split, splits):
                item = Reject(item.record.key, *problem)
            else:
                splits.add(split)
        yield item


def check_split(split: str, known: Collection[str]) -> tuple[str, str] | None:
    """(reason, detail) if there are too many splits to begin another."""
    if split not in known and len(known) == MAX_SPLITS:
        return "split_name", f"{split!r} would be one more split than the {MAX_SPLITS} there can be."
    return None


def is_done(folder: Folder, names: Collection[str], number: int, part: Part) -> bool:
    """Whether a part's files are all among the folder's `names`, and the file it was read from has not changed since."""
    if not {f"{part_name(number)}.{kind}" for kind in KINDS} <= set(names):
        return False
    done = Done.from_json(json.loads(folder.read(f"{part_name(number)}.done")))
    stamp = files.stamp(part.url) if part.url else ""
    return (done.name, done.stamp) == (part.name, stamp) and all(
        shard.file in names for shards in done.shards.values() for shard in shards)


class Captions:
    """A random choice of at most `most` captions: those whose hash is smallest, so that choices of parts can be merged."""

    def __init__(self, most: int):
        self._most, self._heap = most, []

    def add(self, key: str, captions: Sequence[str]) -> None:
        for index, caption in enumerate(captions):
            digest = hashlib.blake2b(f"{key}#{index}".encode(), digest_size=8).digest()
            pair = (-int.from_bytes(digest), caption)
            if len(self._heap) < self._most:
                heapq.heappush(self._heap, pair)
            elif pair > self._heap[0]:
                heapq.heapreplace(self._heap, pair)

    def chosen(self) -> list[tuple[int, str]]:
        """(hash, caption), by hash."""
        return [(-negated, caption) for negated, caption in sorted(self._heap, reverse=True)]
