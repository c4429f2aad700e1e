"""What preparing a source would find in its first records: a look at one's own captions before preparing them."""
from dataclasses import dataclass
from itertools import islice
from typing import Any

from cc_jax.data import dataset
from cc_jax.data.annotate import Annotated, Counts, Options, annotate
from cc_jax.data.inspect import read_rejects, survey_dataset
from cc_jax.data.sources import open_source
from cc_jax.data.survey import Survey


@dataclass(frozen=True)
class Preview:
    survey: Survey
    counts: dict[str, Any]              # as `dataset.read_metadata`
    rejects: list[dict[str, str]]       # as the lines of rejected.jsonl


def preview(source: str, records: int = 1000, tagger: str = "shipped") -> Preview:
    """A look at the first `records` of a source such as "jsonl:FILE", or at so many, evenly spaced, of a prepared dataset.

    Nothing is written. A prepared dataset has its phrases; `tagger` finds those of a source.
    Raises: as `sources.open_source`, `backends.load_backend` and `inspect.survey_dataset`.
    """
    if dataset.is_finished(source):
        return Preview(survey_dataset(source, records), dataset.read_metadata(source), list(read_rejects(source)))
    counts, survey, rejects = Counts(), Survey(), []
    items = list(islice(counts.without_notes(open_source(source)), records))
    for item in annotate(items, Options(tagger)):
        counts.add(item)
        if isinstance(item, Annotated):
            survey.add(item.example(), item.record.split)
            rejects += [*item.rejected_captions, *item.rejected_phrases]
        else:
            rejects.append(item)
    return Preview(survey, {"source": source, "tagger": tagger} | vars(counts), [vars(reject) for reject in rejects])
