"""Records checked and their captions' noun phrases found: what becomes of each record of a source."""
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from cc_jax.data import given_phrases, images, transforms
from cc_jax.data.phrases import Located, batch_located_phrases
from cc_jax.data.records import Items, Note, Record, Reject
from cc_jax.data.text_form import canonicalize

MAX_CAPTION_BYTES = 10_000
_WORD = re.compile("[A-Za-z0-9]")


@dataclass(frozen=True)
class Options:
    """What a preparation does to records."""
    tagger: str = "shipped"             # as `phrases.located_phrases`
    short_side: int | None = None       # images with a longer one are made smaller: `images.shrink`
    decode_images: bool = False         # every image, to be sure of it


class Annotated(NamedTuple):
    """A record that passed, with the captions that did and the phrases of each, as `phrases.located_phrases`."""
    record: Record
    captions: list[str]
    phrases: list[Located]
    rejected_captions: list[Reject]
    rejected_phrases: list[Reject]

    def example(self) -> dict[str, Any]:
        """The values of `dataset.FEATURES`."""
        located = [phrase for phrases in self.phrases for phrase in phrases]
        return {"key": self.record.key, "image": self.record.image, "captions": self.captions,
                "phrases": [phrase for phrase, _ in located],
                "phrase_caption": [i for i, phrases in enumerate(self.phrases) for _ in phrases],
                "phrase_start": [span[0] for _, span in located], "phrase_end": [span[1] for _, span in located]}


@dataclass
class Counts:
    """What a preparation has met so far."""
    records: int = 0
    rejected: Counter = field(default_factory=Counter)              # records, by reason
    captions: int = 0
    rejected_captions: Counter = field(default_factory=Counter)     # of records that keep another caption, by reason
    phrases: int = 0
    rejected_phrases: Counter = field(default_factory=Counter)      # of those that came with the data, by reason
    notes: Counter = field(default_factory=Counter)                 # what cost no record, by reason, as records.Note
    captions_without_phrase: int = 0

    def add(self, item: Annotated | Reject) -> None:
        self.records += 1
        if isinstance(item, Reject):
            self.rejected[item.reason] += 1
        else:
            for reject in item.rejected_captions:
                self.rejected_captions[reject.reason] += 1
            for reject in item.rejected_phrases:
                self.rejected_phrases[reject.reason] += 1
            self.captions += len(item.captions)
            self.phrases += sum(map(len, item.phrases))
            self.captions_without_phrase += item.phrases.count([])

    def merge(self, other: Self) -> None:
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        return cls(**{name: Counter(value) if isinstance(value, dict) else value for name, value in values.items()})

    def without_notes(self, items: Items) -> Iterator[Record | Reject]:
        """The records and rejects; notes are counted on the way."""
        for item in items:
            if isinstance(item, Note):
                self.notes[item.reason] += 1
            else:
                yield item


def annotate(batch: Sequence[Record | Reject], options: Options) -> Iterator[Annotated | Reject]:
    """What becomes of each record of a batch, in order."""
    checked = [check_captions(record) if isinstance(record, Record) else ([], []) for record in batch]
    to_parse = [caption for good, _ in checked for _, caption, given in good if given is None]
    parsed = iter(batch_located_phrases(to_parse, options.tagger))
    for record, (good, bad) in zip(batch, checked, strict=True):
        found, unused = [], []
        for index, caption, given in good:
            located, problems = (next(parsed), []) if given is None else given_phrases.locate(given, caption)
            found.append(located)
            unused += [Reject(f"{record.key}#{index}", *problem) for problem in problems]
        record = check_image(record, options)
        if isinstance(record, Reject):
            yield record
        elif good:
            yield Annotated(record, [caption for _, caption, _ in good], found, bad, unused)
        else:
            reason, detail = (bad[0].reason, bad[0].detail) if bad else ("caption_empty", "the list is empty.")
            yield Reject(record.key, reason, detail)


def check_caption(caption: Any) -> tuple[str, str] | None:
    """(reason, detail) if a caption can't be used."""
    if not isinstance(caption, str):
        return "caption_type", f"a {type(caption).__name__}; a caption must be text."
    try:
        size = len(caption) if caption.isascii() else len(caption.encode())
    except UnicodeEncodeError as error:
        return "caption_not_utf8", f"{caption[error.start]!r} at {error.start} is half a character."
    if size > MAX_CAPTION_BYTES:
        return "caption_too_long", f"{size} bytes, more than {MAX_CAPTION_BYTES}: {caption[:60]!r}..."
    if not _WORD.search(caption) and not canonicalize(caption):     # the former is found at once, in most
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


def check_image(record: Record | Reject, options: Options) -> Record | Reject:
    """The record, with its image made smaller where the options say so, or the reject that its image makes it."""
    if isinstance(record, Reject):
        return record
    try:
        images.check(record.image, options.decode_images)
        if options.short_side is None:
            return record
        image = images.shrink(record.image, options.short_side)
        return Record(record.key, image, record.captions, record.split, record.phrases)
    except transforms.ImageError as error:
        return Reject(record.key, error.reason, error.detail)
