"""Makes a dataset for training from what you have: checks images and captions, finds noun phrases, writes ArrayRecord.

python -m cc_jax.data.prepare --source jsonl:photos/captions.jsonl --out datasets/photos
python -m cc_jax.data.prepare --source shapes:scenes=2000 --out datasets/shapes        # drawn here, needs nothing
python -m cc_jax.data.prepare --source tar:gs://bucket/cc12m --out gs://bucket/prepared --runner=DataflowRunner ...

Sources are JSON lines, tar shards, tables, Parquet, folders and TFDS datasets: `sources.SOURCES`. Each is prepared in
parts, by all cores of this machine, or with Beam's --runner by its workers; the result is the same. What can't be used is
listed in DIR/rejected.jsonl and counted by reason, the rest goes on. DIR appears when all is done, at once; where a
preparation was interrupted, the same command goes on from the parts that were finished.
"""
import fcntl
import heapq
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from absl import app, flags

from cc_jax.data import backends, dataset, runners, sources, survey, survey_page
from cc_jax.data.annotate import Counts, Options
from cc_jax.data.dataset import Shard
from cc_jax.data.part_work import TRAIN, Done, Work, is_done, part_name
from cc_jax.data.records import Part
from cc_jax.data.sentencepiece_vocabulary import SentencePieceVocabulary
from cc_jax.data.sources import find_source
from cc_jax.data.storage import SCRATCH, Folder
from cc_jax.data.survey import Survey
from cc_jax.data.tokenizer import Tokenizer, train_tokenizer
from cc_jax.redact import redacted

TOKENIZER_CAPTIONS = 200_000        # a random choice of so many train captions trains the tokenizer
VOCAB_SIZE = 4096
PLAN = "plan.json"                  # what an unfinished preparation is to do
FINISHED = "dataset"                # where in it the finished dataset is put together


DEFAULT = Options()


class PrepareError(ValueError):
    """A preparation that can't begin or can't succeed; the message says why and what to do."""


def prepare(
    source: str, out: str | Path, max_rejected: float = 0.05, vocab_size: int = VOCAB_SIZE,
    tokenizer: str | Path | None = None, options: Options = DEFAULT, processes: int = 1, beam: Sequence[str] = (),
) -> dict[str, Any]:
    """Prepares `source` into the folder `out`, which must not hold a dataset yet.

    Args:
      source: as `sources.open_source`.
      out: a local folder, or one in a bucket that fsspec writes to.
      max_rejected: the share of records, 0 to 1, that may be rejected.
      vocab_size: at most so many pieces has the tokenizer trained on the train split's captions.
      tokenizer: a SentencePiece model, or a tokenizer.json, to use instead: see `tokenizer.Tokenizer.load`.
      processes: that share the work on this machine; see `runners.run_here`.
      beam: arguments of an Apache Beam pipeline that does the work instead, such as ["--runner=DataflowRunner", ...].
    Returns: the counts, which are also the dataset's metadata (metadata.json).
    Raises: PrepareError. If too many records were rejected, `out` then holds their list and nothing else. OSError where
      files can't be written; what was finished by then is kept.
    """
    target = _check_target(str(out))
    parts = dict(enumerate(_set_up(source, tokenizer, options)))
    plan = {"source": redacted(source), **asdict(options), "version": dataset.VERSION}
    with _unfinished(target, plan) as unfinished:
        work = Work(unfinished.url, options, _share(TOKENIZER_CAPTIONS, len(parts)), _share(survey.CANDIDATES, len(parts)))
        _run(work, _not_done(unfinished, parts), len(parts), processes, beam)
        whole = merge(unfinished, parts)
        if problem := find_problem(whole.counts, redacted(source), max_rejected):
            with unfinished.scratch() as scratch:
                write_rejected(unfinished, parts, scratch / dataset.REJECTED)
                target.deliver(scratch / dataset.REJECTED, dataset.REJECTED)
            unfinished.remove()
            raise PrepareError(f"{problem} See {target.url}/{dataset.REJECTED}.")
        metadata = {key: value for key, value in plan.items() if value not in (None, False)}
        return _finish(unfinished, target, parts, whole, metadata, source, tokenizer, vocab_size)


@dataclass
class Whole:
    """What the parts make together."""
    counts: Counts = field(default_factory=Counts)
    survey: Survey = field(default_factory=Survey)
    shards: dict[str, list[Shard]] = field(default_factory=dict)


def merge(unfinished: Folder, parts: Mapping[int, Part]) -> Whole:
    """Raises: PrepareError if a part is missing."""
    whole = Whole()
    for number in parts:
        try:
            done = Done.from_json(json.loads(unfinished.read(f"{part_name(number)}.done")))
        except FileNotFoundError:
            raise PrepareError(f"{unfinished.url} lacks {part_name(number)}.done, although the part was prepared; were its "
                               "workers writing to a disk of their own? They need a folder that all share.") from None
        whole.counts.merge(done.counts)
        whole.survey.merge(done.survey)
        for split, shards in done.shards.items():
            whole.shards.setdefault(split, []).extend(shards)
    return whole


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


def merge_captions(unfinished: Folder, parts: Mapping[int, Part]) -> list[str]:
    """A random choice of at most TOKENIZER_CAPTIONS of the train captions of all parts."""
    def pairs() -> Iterator[list]:
        for number in parts:
            yield from json.loads(unfinished.read(f"{part_name(number)}.captions"))
    return [caption for _, caption in heapq.nsmallest(TOKENIZER_CAPTIONS, pairs())]


def write_rejected(unfinished: Folder, parts: Mapping[int, Part], path: Path) -> None:
    """The rejects of all parts, as one list."""
    with path.open("wb") as out:
        for number in parts:
            out.write(unfinished.read(f"{part_name(number)}.rejected"))


def _share(most: int, parts: int) -> int:
    """How many a part is to choose, so that all parts' choices together have `most`; 4: parts may be unequally large."""
    return min(most, -(-4 * most // max(parts, 1)))


def _set_up(source: str, tokenizer: str | Path | None, options: Options) -> list[Part]:
    """The parts of the source; what is wrong with the arguments is found before any work."""
    try:
        reader, argument = find_source(source)
        if tokenizer is not None:
            Tokenizer.load(tokenizer)
        backends.load_backend(options.tagger)
        return reader.parts(argument)
    except (ValueError, LookupError, FileNotFoundError) as error:
        raise PrepareError(str(error)) from error


def _not_done(unfinished: Folder, parts: Mapping[int, Part]) -> dict[int, Part]:
    """The parts still to prepare."""
    names = unfinished.names()
    if FINISHED in names:           # all were done; an interruption came while the dataset was put together
        return {}
    with ThreadPoolExecutor(16) as pool:
        finished = pool.map(lambda item: is_done(unfinished, names, *item), parts.items())
        return {number: part for (number, part), done in zip(parts.items(), finished, strict=True) if not done}


def _run(work: Work, parts: Mapping[int, Part], of: int, processes: int, beam: Sequence[str]) -> None:
    if len(parts) < of:
        print(f"{work.folder}: going on, {of - len(parts)} of {of} parts were finished.", file=sys.stderr, flush=True)
    try:
        if not beam:
            runners.run_here(work, parts, processes)
        elif importlib.util.find_spec("apache_beam") is None:
            raise PrepareError("--runner needs Apache Beam, which is not installed: pip install -e '.[prepare]'.")
        elif parts:
            runners.run_on_beam(work, parts, beam)
    except OSError as error:
        kept = "What was finished is kept: free what is needed, then the same command goes on."
        raise OSError(error.errno, f"{error.strerror or error}. {kept}") from error


def _finish(
    unfinished: Folder, target: Folder, parts: Mapping[int, Part], whole: Whole, metadata: dict[str, Any], source: str,
    tokenizer: str | Path | None, vocab_size: int,
) -> dict[str, Any]:
    """Puts the dataset together and lets it appear in `target`."""
    finished = unfinished / FINISHED if unfinished.is_local else target
    reader, argument = find_source(source)
    with unfinished.scratch() as scratch:
        pieces = _write_tokenizer(scratch, tokenizer, merge_captions(unfinished, parts), vocab_size)
        splits = {split: sum(shard.records for shard in shards) for split, shards in whole.shards.items()}
        metadata |= {"splits": splits, **vars(whole.counts), "vocab_size": pieces}
        write_rejected(unfinished, parts, scratch / dataset.REJECTED)
        with (scratch / dataset.REJECTED).open(encoding="utf-8") as rejects:
            page = survey_page.page(whole.survey, metadata, map(json.loads, rejects))
        (scratch / dataset.REPORT).write_text(page, encoding="utf-8")
        if reader.write_extras:
            reader.write_extras(argument, scratch)
        dataset.write_info(scratch, whole.shards, metadata)
        for split, shards in whole.shards.items():
            _move_shards(unfinished, finished, [shard.file for shard in shards], dataset.shard_names(split, len(shards)))
        # The file that makes it a dataset comes last.
        for path in sorted(scratch.iterdir(), key=lambda path: path.name == dataset.DATASET_INFO):
            finished.deliver(path, path.name)
    if target.is_local:
        (target.local() / dataset.REJECTED).unlink(missing_ok=True)     # of a preparation that failed
        os.rename(finished.local(), target.local())                     # replaces an empty folder
    unfinished.remove()
    return metadata


def _move_shards(unfinished: Folder, finished: Folder, names: Sequence[str], new_names: Sequence[str]) -> None:
    """Also where an interrupted run has moved some of them."""
    there = unfinished.names()
    for name, new_name in zip(names, new_names, strict=True):
        if name in there:
            unfinished.move(name, finished, new_name)
        elif not finished.exists(new_name):
            raise PrepareError(f"{unfinished.url} lacks {name}; remove that folder and prepare anew.")


def _write_tokenizer(folder: Path, given: str | Path | None, captions: list[str], vocab_size: int) -> int | None:
    """Writes the dataset's tokenizer and returns its size; without train captions to train on, writes none: None."""
    if given is None and not captions:
        return None
    try:
        if given is None:
            given = folder / SentencePieceVocabulary.file_name
            train_tokenizer(captions, given, vocab_size)
        tokenizer = Tokenizer.load(given)
    except ValueError as error:
        raise PrepareError(str(error)) from error
    tokenizer.save(folder)
    return tokenizer.vocab_size


def _check_target(out: str) -> Folder:
    """The folder to make. Raises PrepareError unless it is free: absent, empty, or with but a failed preparation's list."""
    try:
        target = Folder(out.rstrip("/"))
    except ValueError as error:
        raise PrepareError(f"--out={out}: {error}") from error
    if target.is_local:
        target = Folder(target.local().resolve())
    if target.exists(dataset.DATASET_INFO):
        raise PrepareError(f"{out} is a prepared dataset already; remove it, or choose another --out.")
    is_file = target.is_local and target.local().exists() and not target.local().is_dir()
    if is_file or target.is_local and target.names() - {dataset.REJECTED}:
        raise PrepareError(f"{out} exists and is no dataset; choose another --out.")
    return target


@contextmanager
def _unfinished(target: Folder, plan: Mapping[str, Any]) -> Iterator[Folder]:
    """The hidden folder beside `target` with what has been finished of it; on a local disk locked against others.

    Raises: PrepareError if another plan was begun there.
    """
    parent, _, name = target.url.rpartition("/")
    unfinished = Folder(f"{parent}/.{name}.partial")
    with _locked(unfinished, target):
        if PLAN not in (names := unfinished.names()):
            unfinished.delete(names)            # what a removal that was interrupted left, maybe of another plan
            with unfinished.scratch() as scratch:
                (scratch / PLAN).write_text(json.dumps(plan))
                unfinished.deliver(scratch / PLAN, PLAN)
        begun = json.loads(unfinished.read(PLAN))
        if changed := [key for key in {**begun, **plan} if begun.get(key) != plan.get(key)]:
            differences = ", ".join(f"{key}={begun.get(key)!r} there, {plan.get(key)!r} here" for key in changed)
            raise PrepareError(f"{unfinished.url} holds an unfinished preparation with {differences}; go on with the same "
                               "values, or remove that folder.")
        if unfinished.is_local:
            for path in unfinished.local().glob(f"{SCRATCH}*"):     # of killed processes
                shutil.rmtree(path, ignore_errors=True)
        yield unfinished


@contextmanager
def _locked(unfinished: Folder, target: Folder) -> Iterator[None]:
    if not unfinished.is_local:
        yield
        return
    unfinished.local().mkdir(parents=True, exist_ok=True)
    handle = os.open(unfinished.local(), os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)      # the system frees a killed process's lock
        except BlockingIOError as error:
            raise PrepareError(f"another preparation is writing {target.url}; wait for it or choose another --out."
                               ) from error
        _check_target(target.url)                                   # another one may have just finished
        yield
    finally:
        os.close(handle)


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
    lines.append(f"look at it: {out}/{dataset.REPORT}")
    if "://" in out:
        lines.append("copy it to a local disk to train on it")
    elif TRAIN in counts["splits"]:
        lines.append("train on it:\n  python -m cc_jax.main "
                     f"--config configs/siglip_b16_cc.py:data={out},runlocal --workdir runs/try")
    return "\n".join(lines)


def define_flags() -> None:
    forms = ", or ".join(source.form for source in sources.SOURCES.values())
    flags.DEFINE_string("source", None, f"What to prepare: {forms}.")
    flags.DEFINE_string("out", None, "The folder to make.")
    flags.DEFINE_float("max_rejected", 0.05, "Fail if a larger share of the records is rejected.", 0.0, 1.0)
    flags.DEFINE_integer("vocab_size", VOCAB_SIZE, "Most pieces of the tokenizer trained on the captions.", 8)
    flags.DEFINE_string("tokenizer", None, "A SentencePiece model, or a tokenizer.json, to use instead of training one.")
    flags.DEFINE_string("tagger", "shipped", f"What finds the phrases: {backends.NAMES}.")
    flags.DEFINE_integer("short_side", None, "Make images whose shorter side has more pixels so small, as JPEG.", 16)
    flags.DEFINE_bool("decode_images", False, "Decode every image, to find also those that only look whole.")
    flags.DEFINE_integer("processes", len(os.sched_getaffinity(0)), "How many share the work on this machine.", 1)
    flags.mark_flags_as_required(["source", "out"])


def main(argv: Sequence[str]) -> None:
    options, rest = flags.FLAGS, argv[1:]
    try:
        if rest and not any(argument.startswith("--runner") for argument in rest):
            raise PrepareError(f"nothing reads {rest}; see --help. Apache Beam's options need its --runner=...")
        if options.tokenizer is not None and options["vocab_size"].present:
            raise PrepareError("--tokenizer brings its own vocabulary; leave out --vocab_size.")
        counts = prepare(
            options.source, options.out, options.max_rejected, options.vocab_size, options.tokenizer,
            Options(options.tagger, options.short_side, options.decode_images), options.processes, rest)
    except (PrepareError, OSError) as error:
        sys.exit(f"error: {error}")
    print(summarise(counts, options.out))


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))     # the rest is Beam's
