"""The common form of compositional tests: pictures, right texts, wrong texts; every suite's reader makes it."""
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cc_jax.config import ConfigError

COUNTS = ("items", "expected")
_SURROGATE = re.compile("[\ud800-\udfff]")      # half a character: JSON can hold it, no tokenizer can


class NoSuite(ConfigError):
    """A folder has none of a suite's files."""


class Picture(NamedTuple):
    """An image file, or a part of one: what a tower sees."""
    file: str                                               # relative to one of the folders of images
    box: tuple[float, float, float, float] | None = None    # x, y, width, height in pixels


@dataclass(frozen=True)
class Item:
    """One test. How many pictures it has says how it is scored: see `scoring.VERDICTS`."""
    id: str                             # of the record it comes from; scores of one record share it
    category: str                       # its score's name
    pictures: tuple[Picture, ...]       # one: which text?; two: which text for which picture?; none: which texts are alike?
    right: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    source: str = ""                    # the image that a test of texts alone is about

    @property
    def cluster(self) -> str:
        """What it shares with items that are not independent of it: its image, or for a pair itself."""
        return self.pictures[0].file if len(self.pictures) == 1 else self.source or self.id


@dataclass(frozen=True)
class Items:
    """A suite as read."""
    items: Sequence[Item]
    left_out: Mapping[str, int] = field(default_factory=dict)           # records its own evaluation leaves out, by reason
    means: Mapping[str, Sequence[str]] = field(default_factory=dict)    # as `result.Result`, over the scores that are there
    pooled: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def categories(self) -> list[str]:
        """In the order of the items."""
        return list(dict.fromkeys(item.category for item in self.items))


def text(record: Mapping, key: str, where: str) -> str:
    """The text under a key of a record. Raises: ConfigError where there is none; `where` names file and item."""
    value = record.get(key)
    if not isinstance(value, str) or not value.strip() or _SURROGATE.search(value):
        raise ConfigError(f"{where} has {found(record, key)} under {key!r}; a text is needed there.")
    return value


def texts(record: Mapping, key: str, where: str) -> tuple[str, ...]:
    """The texts under a key: one, or a list of some. Raises: as `text`."""
    value = record.get(key)
    if isinstance(value, str):
        return (text(record, key, where),)
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{where} has {found(record, key)} under {key!r}; a text, or a list of texts, is needed there.")
    return tuple(text(dict(enumerate(value)), i, f"{where}, list {key!r},") for i in range(len(value)))


def file(record: Mapping, key: str, where: str) -> str:
    """The name of an image file under a key; it leads nowhere but into a folder of images. Raises: as `text`."""
    name = text(record, key, where)
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or "\0" in name:
        raise ConfigError(f"{where} has {name!r} under {key!r}; use a name relative to a folder of images.")
    return name


def found(record: Mapping, key: str) -> str:
    """What an error says was found."""
    return "nothing" if key not in record else short(record[key])


def short(value: object) -> str:
    """A value as errors show it."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def choice(id: str, category: str, pictures: Sequence[Picture], right: Sequence[str], wrong: Sequence[str], where: str,
           source: str = "") -> Item:
    """An item with wrong texts. Raises: ConfigError where one of them is a right one, so that no answer is right."""
    same = {" ".join(each.split()) for each in right} & {" ".join(each.split()) for each in wrong}
    if same:
        raise ConfigError(f"{where} has {short(min(same))} as a right text and as a wrong one; correct or remove the item.")
    return Item(id, category, tuple(pictures), tuple(right), tuple(wrong), source)
