"""A look at a prepared dataset: one HTML page with what it holds, what was rejected and why, and a few records.

    python -m cc_jax.data.inspect datasets/photos                           # writes datasets/photos/report.html
    python -m cc_jax.data.inspect datasets/photos --out photos.html --records 0     # elsewhere; from all records

Preparation writes the page itself, from all records. Here an evenly spaced choice of the records is looked at by default.
"""
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags, logging

from cc_jax.data import dataset
from cc_jax.data.survey import Survey
from cc_jax.data.survey_page import page
from cc_jax.progress import duration, grouped

REPORT = "report.html"
RECORDS = 20_000                # looked at by default


def read_rejects(directory: str | Path) -> Iterator[dict[str, str]]:
    """The lines of a dataset's rejected.jsonl, one at a time; none if it is gone."""
    path = Path(directory) / dataset.REJECTED
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def survey_dataset(directory: str | Path, records: int = 0) -> Survey:
    """Surveys a prepared dataset: all of it, or `records` evenly spaced records. Shows progress. Raises: DatasetError."""
    survey, sizes, first = Survey(), dataset.split_sizes(directory), 0
    total = sum(sizes.values())
    wanted = min(records or total, total)
    chosen, show = np.arange(wanted) * total // wanted, _progress(wanted)
    for split, size in sizes.items():
        source = dataset.open_split(directory, split)
        for index in chosen[(first <= chosen) & (chosen < first + size)]:
            survey.add(_example(source[index - first]), split)
            next(show)
        first += size
    return survey


def _example(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as `dataset.open_split` has it, as Python objects."""
    texts = {name: [text.decode() for text in record[name]] for name in ("captions", "phrases")}
    known = [name for name in ("phrase_caption", "phrase_start", "phrase_end") if name in record]
    places = {name: list(map(int, record[name])) for name in known}
    return {"key": record["key"].decode(), "image": record["image"]} | texts | places


def _progress(total: int) -> Iterator[None]:
    """To be advanced once a record. Shows on stderr how far it is: on a terminal in place every second, else every ten."""
    start = shown = time.monotonic()
    live = sys.stderr.isatty()
    for done in range(1, total + 1):
        now = time.monotonic()
        if now - shown >= (1 if live else 10) or done == total:
            shown, left = now, (now - start) * (total - done) / done
            line = f"{grouped(done)} of {grouped(total)} records  ETA {duration(left)}"
            end = "\n" if done == total or not live else ""
            print(f"\r{line:60}" if live else line, end=end, file=sys.stderr, flush=True)
        yield


def write_report(
    directory: str | Path, survey: Survey | None = None, out: str | Path | None = None, records: int = RECORDS,
    name: str | None = None,
) -> Path:
    """Writes the page of a finished dataset, all at once, and returns its path.

    Args:
      survey: of all its records, if there is one already.
      out: the file to write; DIRECTORY/report.html if not given.
      records: without a survey, how many records to look at, evenly spaced; 0 for all.
      name: what the dataset is called; the folder's name if not given.
    Raises: DatasetError.
    """
    out = Path(out or Path(directory) / REPORT)
    counts = dataset.read_metadata(directory)
    made = page(survey or survey_dataset(directory, records), counts, read_rejects(directory),
                name or Path(directory).resolve().name)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(made, encoding="utf-8")
    os.replace(partial, out)
    return out


def main(argv: Sequence[str]) -> None:
    options = flags.FLAGS
    if len(argv) != 2:
        raise app.UsageError("name the dataset's folder, and nothing else: python -m cc_jax.data.inspect datasets/photos")
    logging.set_verbosity(logging.WARNING)
    try:
        path = write_report(argv[1], out=options.out, records=options.records)
    except (dataset.DatasetError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"written to {path}")


if __name__ == "__main__":
    flags.DEFINE_string("out", None, f"The file to write, in place of {REPORT} in the dataset's folder.")
    flags.DEFINE_integer("records", RECORDS, "How many records to look at, evenly spaced; 0: all.", lower_bound=0)
    app.run(main)
