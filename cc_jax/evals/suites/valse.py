"""VALSE (Parcalabescu et al. 2022, arXiv 2112.07566): captions against foils, a linguistic phenomenon a file.

A folder of JSON files `{id: {image_file, caption, foil, mturk: {caption, foil, other}, ...}}`. "counting-*" and "relations"
(spatial ones) are categories of their own.
"""
from collections.abc import Mapping

from cc_jax.config import ConfigError
from cc_jax.evals.suites import folder
from cc_jax.evals.suites.items import Items, Picture, choice, file, found, text

KEYS = ("image_file", "caption", "foil")
AGREED = 2          # of 3 annotators chose the caption and not the foil: section 4.4 of the paper
INVALID = f"items that fewer than {AGREED} of 3 annotators confirmed"
PHENOMENA = {
    "counting": ["counting-adversarial", "counting-hard", "counting-small-quant"],
    "actions": ["action-replacement", "actant-swap"],
    "coreference": ["coreference-hard", "coreference-standard"]}


def read(suite: str) -> Items:
    """Scores: each file's share of items whose caption wins (the paper's pairwise ranking accuracy), the plain means of
    phenomena that have several files, "macro" over all files (the paper's average), "micro" over all items.

    Items that annotators did not confirm are left out and counted, as in the published evaluation; the 24 whose foil is the
    caption itself are all among them.
    Raises: ConfigError naming file and item.
    """
    items, left_out = [], 0
    for category, records in folder.categories(suite, KEYS).items():
        for id, record in records.items():
            where = f"{suite}/{category}.json: item {id}"
            name, caption, foil = file(record, KEYS[0], where), text(record, KEYS[1], where), text(record, KEYS[2], where)
            if confirmed(record, where) < AGREED:
                left_out += 1
            else:
                items.append(choice(f"{category}/{id}", category, [Picture(name)], [caption], [foil], where))
    if not items:
        raise ConfigError(f"{suite}: none of its {left_out} items was confirmed by {AGREED} of 3 annotators.")
    names = Items(items).categories
    return Items(items, {INVALID: left_out}, PHENOMENA | {"macro": names}, {"micro": names})


def confirmed(record: Mapping, where: str) -> int:
    """How many annotators chose the caption, and not the foil. Raises: ConfigError."""
    votes = record.get("mturk")
    count = votes.get("caption") if isinstance(votes, dict) else None
    if not isinstance(count, int) or isinstance(count, bool):
        raise ConfigError(f"{where} has {found(record, 'mturk')} under 'mturk'; the annotators' votes, "
                          "{caption: number, ...}, are needed there.")
    return count
