"""Makes a dataset for training from what you have: checks images and captions, finds noun phrases, writes ArrayRecord.

python -m cc_jax.data.prepare --source jsonl:photos/captions.jsonl --out datasets/photos
python -m cc_jax.data.prepare --source shapes:scenes=2000 --out datasets/shapes        # drawn here, needs nothing

A line of a JSON lines file is {"image": path relative to the file, "caption": "..."}, or has "captions": ["...", ...];
"split": "test" sets records aside, "phrases" has a list of phrases for each caption, used in place of those found here.
Other sources are tar shards, tables, Parquet, folders and TFDS datasets: `sources.SOURCES`. What can't be used is listed in
DIR/rejected.jsonl and counted by reason, the rest goes on. DIR appears when all is done, at once; an interrupted
preparation leaves nothing in its place.
"""
import fcntl
import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from absl import app, flags

from cc_jax.data import dataset, given_phrases, sources, transforms
from cc_jax.data.phrases import Span, batch_located_phrases
from cc_jax.data.records import Note, Record, Reject
from cc_jax.data.sources import Items, Source, find_source
from cc_jax.data.tokenizer import Tokenizer, canonicalize, train_tokenizer
from cc_jax.metrics import duration, grouped

MAX_CAPTION_BYTES = 10_000
MAX_SPLITS = 32                     # each keeps a file open
TOKENIZER_CAPTIONS = 200_000        # a random choice of so many train captions trains the tokenizer
TRAIN = "train"
VOCAB_SIZE = 4096
_BATCH = 64                         # records in memory at a time


class PrepareError(ValueError):
    """A preparation that can't begin or can't succeed; the message says why and what to do."""


@dataclass(frozen=True)
class Annotated:
    """A record that passed, with the captions that did and the phrases of each, as `phrases.located_phrases`."""
    record: Record
    captions: list[str]
    phrases: list[list[tuple[str, Span]]]
    rejected_captions: list[Reject]
    rejected_phrases: list[Reject]

    def example(self) -> dict[str, Any]:
        """The values of `dataset.FEATURES`."""
        located = list(chain.from_iterable(self.phrases))
        return {"key": self.record.key, "image": self.record.image, "captions": self.captions,
                "phrases": [phrase for phrase, _ in located],
                "phrase_caption": [i for i, phrases in enumerate(self.phrases) for _ in phrases],
                "phrase_start": [span.start for _, span in located], "phrase_end": [span.end for _, span in located]}


@dataclass
class Counts:
    """What a preparation has met so far."""
    records: int = 0
    rejected: Counter = field(default_factory=Counter)              # records, by reason
    captions: int = 0
    rejected_captions: Counter = field(default_factory=Counter)     # of records that keep another caption, by reason
    phrases: int = 0
    rejected_phrases: Counter = field(default_factory=Counter)      # of those that came with the data, by reason
    notes: Counter = field(default_factory=Counter)                 # what cost no record, by reason, as sources.Note
    captions_without_phrase: int = 0

    def add(self, item: Annotated | Reject) -> None:
        self.records += 1
        if isinstance(item, Reject):
            self.rejected[item.reason] += 1
        else:
            self.rejected_captions.update(reject.reason for reject in item.rejected_captions)
            self.rejected_phrases.update(reject.reason for reject in item.rejected_phrases)
            self.captions += len(item.captions)
            self.phrases += sum(map(len, item.phrases))
            self.captions_without_phrase += item.phrases.count([])

    def without_notes(self, items: Items) -> Iterator[Record | Reject]:
        """The records and rejects; notes are counted on the way."""
        for item in items:
            if isinstance(item, Note):
                self.notes[item.reason] += 1
            else:
                yield item


def prepare(
    source: str, out: str | Path, max_rejected: float = 0.05, vocab_size: int = VOCAB_SIZE,
    tokenizer: str | Path | None = None, tagger: str = "shipped",
) -> dict[str, Any]:
    """Prepares `source` into the folder `out`, which must not hold a dataset yet.

    Args:
      source: as `sources.open_source`.
      max_rejected: the share of records, 0 to 1, that may be rejected.
      vocab_size: at most so many pieces has the tokenizer trained on the train split's captions.
      tokenizer: a SentencePiece model to use instead.
      tagger: as `phrases.located_phrases`.
    Returns: the counts, which are also the dataset's metadata (metadata.json).
    Raises: PrepareError. If too many records were rejected, `out` then holds their list and nothing else.
    """
    out = Path(out)
    _check_target(out)
    reader, argument, records = _set_up(source, tokenizer, tagger)
    with _partial_folder(out) as partial, dataset.DatasetWriter(partial) as writer:
        captions = Reservoir(TOKENIZER_CAPTIONS)
        counts = _write_records(records, writer, partial / dataset.REJECTED, captions, tagger, reader.count(argument))
        if problem := find_problem(counts, source, max_rejected):
            writer.close()
            _clear(partial, keep=dataset.REJECTED)
            _publish(partial, out)
            raise PrepareError(f"{problem} See {out / dataset.REJECTED}.")
        metadata = {"source": source, "tagger": tagger, "version": dataset.VERSION, "splits": writer.sizes(),
                    **vars(counts), "vocab_size": _write_tokenizer(partial, tokenizer, captions.items, vocab_size)}
        writer.finish(metadata)
        if reader.write_extras:
            reader.write_extras(argument, partial)
        _publish(partial, out)
    return metadata


def check_split(split: str, known: Collection[str]) -> tuple[str, str] | None:
    """(reason, detail) if there are too many splits to begin another."""
    if split not in known and len(known) == MAX_SPLITS:
        return "split_name", f"{split!r} would be one more split than the {MAX_SPLITS} there can be."
    return None


def check_caption(caption: Any) -> tuple[str, str] | None:
    """(reason, detail) if a caption can't be used."""
    if not isinstance(caption, str):
        return "caption_type", f"a {type(caption).__name__}; a caption must be text."
    try:
        size = len(caption.encode())
    except UnicodeEncodeError as error:
        return "caption_not_utf8", f"{caption[error.start]!r} at {error.start} is half a character."
    if size > MAX_CAPTION_BYTES:
        return "caption_too_long", f"{size} bytes, more than {MAX_CAPTION_BYTES}: {caption[:60]!r}..."
    if not canonicalize(caption):
        return "caption_empty", f"{caption[:60]!r} has nothing but punctuation and white space."
    return None


def check_captions(record: Record) -> tuple[list[tuple[int, str, list | None]], list[Reject]]:
    """(index, caption, phrases it came with) of the captions of a record that can be used; why the others can't."""
    good, bad = [], []
    given = record.phrases or [None] * len(record.captions)
    for index, (caption, phrases) in enumerate(zip(record.captions, given, strict=True)):
        if problem := check_caption(caption):
            bad.append(Reject(f"{record.key}#{index}", *problem))
        else:
            good.append((index, caption, phrases))
    return good, bad


def check_image(record: Record | Reject) -> Record | Reject:
    """The record itself, or the reject that its image makes it."""
    if isinstance(record, Record):
        try:
            transforms.decode(record.image)
        except transforms.ImageError as error:
            return Reject(record.key, error.reason, error.detail)
    return record


def find_problem(counts: Counts, source: str, max_rejected: float) -> str | None:
    """Why the preparation fails, if it does."""
    rejected = counts.rejected.total()
    if counts.records == 0:
        return f"no data: source {source} holds no records; check the path."
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.rejected.most_common())
    if rejected == counts.records:
        return f"no data left: all {rejected} records of source {source} were rejected ({reasons})."
    if rejected > max_rejected * counts.records:
        return (f"{rejected} of {counts.records} records ({rejected / counts.records:.1%}) were rejected ({reasons}), "
                f"more than --max_rejected={max_rejected:g} allows; mend the source or allow more.")
    return None


class Reservoir:
    """A uniform random choice of at most `size` of the texts added, the same for the same texts."""

    def __init__(self, size: int):
        self.items: list[str] = []
        self._size, self._seen, self._rng = size, 0, random.Random(0)

    def add(self, text: str) -> None:
        self._seen += 1
        if len(self.items) < self._size:
            self.items.append(text)
        elif (place := self._rng.randrange(self._seen)) < self._size:
            self.items[place] = text


def progress_line(done: int, total: int | None, rejected: int, seconds: float) -> str:
    """"2 000 of 8 000 records  500 records/s  rejected 3  ETA 12 s"; without a total, without an ETA."""
    rate = done / max(seconds, 1e-9)
    of_total = f" of {grouped(total)}" if total else ""
    eta = f"  ETA {duration(max(total - done, 0) / rate)}" if total and done else ""
    return f"{grouped(done)}{of_total} records  {rate:.0f} records/s  rejected {grouped(rejected)}{eta}"


def _set_up(
    source: str, tokenizer: str | Path | None, tagger: str,
) -> tuple[Source, str, Items]:
    """(source, its argument, its records); what is wrong with the arguments is found before any work."""
    try:
        reader, argument = find_source(source)
        if tokenizer is not None:
            Tokenizer.load(tokenizer)
        batch_located_phrases(["a red square"], tagger)
        return reader, argument, reader.read(argument)
    except (ValueError, LookupError, FileNotFoundError) as error:
        raise PrepareError(str(error)) from error


def _write_records(
    records: Items, writer: dataset.DatasetWriter, rejected: Path, captions: Reservoir, tagger: str,
    total: int | None,
) -> Counts:
    """Checks, annotates and writes all records, and lists the rejects; train captions go to `captions`, too."""
    counts, show = Counts(), _Progress(total)
    records = counts.without_notes(records)
    with rejected.open("w") as reject_file, ThreadPoolExecutor(os.cpu_count()) as pool:
        while batch := list(islice(records, _BATCH)):
            for item in _annotate(batch, tagger, pool):
                if isinstance(item, Annotated) and (problem := check_split(item.record.split, writer.sizes())):
                    item = Reject(item.record.key, *problem)
                counts.add(item)
                for reject in [item] if isinstance(item, Reject) else item.rejected_captions + item.rejected_phrases:
                    reject_file.write(json.dumps(asdict(reject)) + "\n")
                if isinstance(item, Annotated):
                    writer.write(item.record.split, item.example())
                    for caption in item.captions if item.record.split == TRAIN else ():
                        captions.add(caption)
            show(counts.records, counts.rejected.total())
    show(counts.records, counts.rejected.total(), last=True)
    return counts


def _annotate(batch: Sequence[Record | Reject], tagger: str, pool: ThreadPoolExecutor) -> Iterator[Annotated | Reject]:
    """What becomes of each record of a batch, in order. Images are decoded in threads while phrases are found here."""
    images = pool.map(check_image, batch)
    checked = [check_captions(record) if isinstance(record, Record) else ([], []) for record in batch]
    to_parse = [caption for good, _ in checked for _, caption, given in good if given is None]
    parsed = iter(batch_located_phrases(to_parse, tagger))
    for record, (good, bad) in zip(images, checked, strict=True):
        found, unused = [], []
        for index, caption, given in good:
            located, problems = (next(parsed), []) if given is None else given_phrases.locate(given, caption)
            found.append(located)
            unused += [Reject(f"{record.key}#{index}", *problem) for problem in problems]
        if isinstance(record, Reject):
            yield record
        elif good:
            yield Annotated(record, [caption for _, caption, _ in good], found, bad, unused)
        else:
            reason, detail = (bad[0].reason, bad[0].detail) if bad else ("caption_empty", "the list is empty.")
            yield Reject(record.key, reason, detail)


def _write_tokenizer(folder: Path, given: str | Path | None, captions: list[str], vocab_size: int) -> int | None:
    """Writes the dataset's tokenizer and returns its size; without train captions to train on, writes none: None."""
    path = dataset.tokenizer_path(folder)
    if given is not None:
        shutil.copyfile(given, path)
    elif captions:
        try:
            train_tokenizer(captions, path, vocab_size)
        except ValueError as error:
            raise PrepareError(str(error)) from error
    else:
        return None
    return Tokenizer.load(path).vocab_size


def _check_target(out: Path) -> None:
    """Raises PrepareError unless the folder is free: absent, empty, or with nothing but a failed preparation's list."""
    if ":/" in str(out):        # a Path joins the slashes of "gs://"
        raise PrepareError(f"--out={out} is not on a local disk; prepare there, then copy the folder.")
    if dataset.is_finished(out):
        raise PrepareError(f"{out} is a prepared dataset already; remove it, or choose another --out.")
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - {dataset.REJECTED}):
        raise PrepareError(f"{out} exists and is no dataset; choose another --out.")


@contextmanager
def _partial_folder(out: Path) -> Iterator[Path]:
    """An empty, hidden folder beside `out`, locked against other preparations; removed at the end if still there."""
    out = out.resolve()
    partial = out.parent / f".{out.name}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)      # the system frees a killed process's lock
        except BlockingIOError as error:
            raise PrepareError(f"another preparation is writing {out}; wait for it or choose another --out.") from error
        _check_target(out)                                          # another one may have just finished
        _clear(partial)
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    finally:
        os.close(handle)


def _clear(folder: Path, keep: str | None = None) -> None:
    for path in folder.iterdir():
        if path.name != keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _publish(partial: Path, out: Path) -> None:
    (out / dataset.REJECTED).unlink(missing_ok=True)
    os.rename(partial, out.resolve())                               # replaces an empty folder


class _Progress:
    """Shows progress on stderr: on a terminal in place every second, else a line every ten."""

    def __init__(self, total: int | None):
        self._total, self._start, self._shown = total, time.monotonic(), time.monotonic()
        self._live = sys.stderr.isatty()

    def __call__(self, done: int, rejected: int, last: bool = False) -> None:
        now = time.monotonic()
        if last or now - self._shown >= (1 if self._live else 10):
            self._shown = now
            line = progress_line(done, self._total, rejected, now - self._start)
            print(f"\r{line:78}" if self._live else line, end="\n" if last or not self._live else "", file=sys.stderr,
                  flush=True)


def summarise(counts: dict[str, Any], out: str) -> str:
    """What was prepared, and the command that trains on it."""
    splits = ", ".join(f"{name} {size}" for name, size in counts["splits"].items())
    lines = [f"{out}: {splits} records; {counts['captions']} captions with {counts['phrases']} phrases "
             f"({counts['captions_without_phrase']} without any)"]
    for what in ("rejected", "rejected_captions", "rejected_phrases", "notes"):
        if counts[what]:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(counts[what].items()))
            listed = "" if what == "notes" else f" (listed in {out}/{dataset.REJECTED})"
            lines.append(f"{what.replace('_', ' ')}: {reasons}{listed}")
    lines.append(f"tokenizer: {counts['vocab_size']} pieces" if counts["vocab_size"] else
                 f"no tokenizer: there is no split {TRAIN!r} to train one on; give one with --tokenizer if you need it")
    if TRAIN in counts["splits"]:
        lines.append("train on it:\n  python -m cc_jax.main "
                     f"--config configs/siglip_b16_cc.py:data={out},runlocal --workdir runs/try")
    return "\n".join(lines)


def define_flags() -> None:
    forms = ", or ".join(source.form for source in sources.SOURCES.values())
    flags.DEFINE_string("source", None, f"What to prepare: {forms}.")
    flags.DEFINE_string("out", None, "The folder to make.")
    flags.DEFINE_float("max_rejected", 0.05, "Fail if a larger share of the records is rejected.", 0.0, 1.0)
    flags.DEFINE_integer("vocab_size", VOCAB_SIZE, "Most pieces of the tokenizer trained on the captions.", 8)
    flags.DEFINE_string("tokenizer", None, "A SentencePiece model to use instead of training one.")
    flags.DEFINE_string("tagger", "shipped", "What finds the phrases: shipped, nltk, or spacy:MODEL.")
    flags.mark_flags_as_required(["source", "out"])


def main(argv: Sequence[str]) -> None:
    options = flags.FLAGS
    try:
        if argv[1:]:
            raise PrepareError(f"nothing reads {argv[1:]}; see --help.")
        if options.tokenizer is not None and options["vocab_size"].present:
            raise PrepareError("--tokenizer brings its own vocabulary; leave out --vocab_size.")
        counts = prepare(options.source, options.out, options.max_rejected, options.vocab_size, options.tokenizer,
                         options.tagger)
    except (PrepareError, OSError) as error:
        sys.exit(f"error: {error}")
    print(summarise(counts, options.out))


if __name__ == "__main__":
    define_flags()
    app.run(main)
