"""What a dataset holds, counted as its records go by: sizes, lengths, the commonest phrases, and a few records to look at.

Many processes may each survey a part and merge what they found. Memory and JSON are bounded whatever the data: lengths
have fixed bins, rare phrases are dropped once there are many, of the records a few CANDIDATES are kept.
"""
import io
from base64 import b64decode, b64encode
from bisect import insort
from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Self

from PIL import Image

from cc_jax.data import transforms

CAPTION_WORDS, PHRASE_WORDS, PHRASES = 100, 12, 25     # the last bin of each histogram: so many, or more
HISTOGRAMS = ("caption_words", "phrase_words", "phrases_per_caption")
MAX_DISTINCT = 100_000      # phrases counted at a time
CANDIDATES = 32             # records kept, a few more than are shown as an image may turn out not to be one
MAX_CAPTIONS, MAX_CHARACTERS, MAX_PHRASES = 5, 600, 50     # kept of a record, of a caption, of a caption
MAX_NAME = 200              # characters of a phrase or key
LARGE = 2**22               # an image of more bytes is kept as a thumbnail; others become one when they are needed
SMALL = 2**16               # one of no more bytes is itself kept in JSON: making a thumbnail is as much work as 30 records
THUMBNAIL = 320             # pixels, of the longer side


@dataclass
class Size:
    """How much a split holds."""
    records: int = 0
    captions: int = 0
    phrases: int = 0
    captions_without_phrase: int = 0

    def merge(self, other: Self) -> None:
        for name, count in vars(other).items():
            setattr(self, name, getattr(self, name) + count)


@dataclass
class Sample:
    """A record to look at. Long ones are cut: `more_captions` says how many captions are left out."""
    rank: str                       # a hash of the key
    split: str
    key: str
    captions: list[str]
    phrases: list[list[list]]       # of each caption, [phrase, start, end]; None for both places where not known
    more_captions: int
    image: bytes | None             # encoded; None if it can't be decoded
    is_thumbnail: bool = False

    @classmethod
    def of(cls, rank: str, example: Mapping[str, Any], split: str) -> Self:
        captions, located = example["captions"][:MAX_CAPTIONS], [[] for _ in example["captions"]]
        nowhere = [None] * len(example["phrases"])
        places = zip(example.get("phrase_start", nowhere), example.get("phrase_end", nowhere), strict=True)
        for phrase, i, (start, end) in zip(example["phrases"], example["phrase_caption"], places, strict=True):
            if len(located[i]) < MAX_PHRASES:
                located[i].append([phrase[:MAX_NAME], start, end])
        sample = cls(rank, split, example["key"][:MAX_NAME], list(map(_cut, captions)), located[:MAX_CAPTIONS],
                     len(example["captions"]) - len(captions), example["image"])
        return sample.shrink() if len(example["image"]) > LARGE else sample

    def shrink(self) -> Self:
        """Makes a thumbnail of the image, once."""
        if not self.is_thumbnail:
            self.image, self.is_thumbnail = _thumbnail(self.image), True
        return self


@dataclass
class Survey:
    """What was found. Surveys of parts, merged in the order of the parts, do not depend on who made which.

    Without pruning, which is to say up to MAX_DISTINCT phrases, they don't depend on the parts either. `samples` never do:
    they are those with the smallest hashes of keys, a uniform choice.
    """
    splits: dict[str, Size] = field(default_factory=dict)
    caption_words: list[int] = field(default_factory=lambda: [0] * (CAPTION_WORDS + 1))       # captions, by words
    phrase_words: list[int] = field(default_factory=lambda: [0] * (PHRASE_WORDS + 1))         # phrases, by words
    phrases_per_caption: list[int] = field(default_factory=lambda: [0] * (PHRASES + 1))       # captions, by phrases
    phrases: Counter = field(default_factory=Counter)       # captions, by phrase they have
    undercount: int = 0             # a phrase may have been met so many times more, as rare ones were dropped
    samples: list[Sample] = field(default_factory=list)     # by rank
    candidates: int = CANDIDATES    # samples kept

    def add(self, example: Mapping[str, Any], split: str) -> None:
        """Args: example: values of `dataset.FEATURES` as Python objects; of version 1.0.0, without places, too."""
        captions, phrases = example["captions"], example["phrases"]
        phrases_of = [0] * len(captions)
        for i in example["phrase_caption"]:
            phrases_of[i] += 1
        counts, words_of = self.phrases, self.phrase_words
        for count in phrases_of:
            self.phrases_per_caption[count if count < PHRASES else PHRASES] += 1
        for caption in captions:
            words = len(caption.split())
            self.caption_words[words if words < CAPTION_WORDS else CAPTION_WORDS] += 1
        for phrase in phrases:
            words = phrase.count(" ") + 1           # normalised ones have no other white space
            words_of[words if words < PHRASE_WORDS else PHRASE_WORDS] += 1
            if len(phrase) > MAX_NAME:
                phrase = phrase[:MAX_NAME]
            counts[phrase] = counts.get(phrase, 0) + 1      # a Counter's own [] asks twice for what is new
        if len(counts) > MAX_DISTINCT:
            self._prune()

        if (size := self.splits.get(split)) is None:
            size = self.splits[split] = Size()
        size.records += 1
        size.captions += len(captions)
        size.phrases += len(phrases)
        size.captions_without_phrase += phrases_of.count(0)

        rank = blake2b(example["key"].encode(errors="surrogatepass"), digest_size=8).hexdigest()
        if len(self.samples) < self.candidates or rank < self.samples[-1].rank:
            self._keep(Sample.of(rank, example, split))

    def merge(self, other: Self) -> None:
        """Adds what another survey found."""
        for split, size in other.splits.items():
            self.splits.setdefault(split, Size()).merge(size)
        for name in HISTOGRAMS:
            setattr(self, name, list(map(sum, zip(getattr(self, name), getattr(other, name), strict=True))))
        self.phrases.update(other.phrases)
        self.undercount += other.undercount
        if len(self.phrases) > MAX_DISTINCT:
            self._prune()
        for sample in other.samples:
            self._keep(sample)

    def total(self) -> Size:
        """The size of all splits together."""
        total = Size()
        for size in self.splits.values():
            total.merge(size)
        return total

    def commonest(self, count: int) -> list[tuple[str, int]]:
        """The commonest phrases, equally common ones by name."""
        return sorted(self.phrases.items(), key=lambda item: (-item[1], item[0]))[:count]

    def shown(self, count: int) -> list[Sample]:
        """The first `count` samples whose image can be decoded, with thumbnails."""
        good = []
        for sample in self.samples:
            if len(good) < count and sample.shrink().image is not None:
                good.append(sample)
        return good

    def to_json(self) -> dict[str, Any]:
        """JSON values, equal for equal surveys; large images of samples become thumbnails."""
        samples = [asdict(sample if len(sample.image or b"") <= SMALL else sample.shrink()) for sample in self.samples]
        for sample in samples:
            sample["image"] = None if sample["image"] is None else b64encode(sample["image"]).decode()
        return deepcopy({name: getattr(self, name) for name in HISTOGRAMS}) | {
            "splits": {split: asdict(self.splits[split]) for split in sorted(self.splits)},
            "phrases": dict(self.commonest(MAX_DISTINCT)), "undercount": self.undercount, "samples": samples}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        samples = [Sample(**sample) for sample in values["samples"]]
        for sample in samples:
            sample.image = None if sample.image is None else b64decode(sample.image)
        return cls(**deepcopy({name: values[name] for name in HISTOGRAMS}), undercount=values["undercount"],
                   splits={split: Size(**size) for split, size in values["splits"].items()},
                   phrases=Counter(values["phrases"]), samples=samples)

    def _keep(self, sample: Sample) -> None:
        insort(self.samples, sample, key=attrgetter("rank"))
        del self.samples[self.candidates:]

    def _prune(self) -> None:
        """Drops the rarest phrases, so that at most half of MAX_DISTINCT stay."""
        least = sorted(self.phrases.values())[-(MAX_DISTINCT // 2) - 1]
        self.phrases = Counter({phrase: count for phrase, count in self.phrases.items() if count > least})
        self.undercount += least


def _cut(caption: str) -> str:
    return caption if len(caption) <= MAX_CHARACTERS else caption[:MAX_CHARACTERS] + "…"


def _thumbnail(data: bytes) -> bytes | None:
    """A small JPEG of an encoded image, None if it can't be decoded."""
    try:
        image = Image.fromarray(transforms.decode(data))
    except transforms.ImageError:
        return None
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()
