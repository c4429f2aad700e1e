"""Where the phrases of a batch lie in the token rows that the text tower encodes.

    one row for each slot          red hat | dog | red hat | man in the rain          the plain layout
    one row for each phrase        red hat | dog | man in the rain                    equal phrases once
    several phrases in a row       man in the rain, dog | red hat                     a quarter of the rows, or fewer

The phrases that row r holds are its "columns": each is one column of the (image, phrase) pairs the losses look at, with
a weight: how many slots of the batch it stands for. All of this is pure numpy on one process's batch.
"""
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from cc_jax.config import ConfigError
from cc_jax.models.text import EOS

GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class PhraseRows:
    """The room for a process's distinct phrases: `rows` rows of tokens, each for at most `per_row` phrases."""
    rows: int
    per_row: int = 1

    def __post_init__(self):
        for name, value in (("rows", self.rows), ("per_row", self.per_row)):
            if value < 1:
                raise ConfigError(f"PhraseRows has {name}={value}; give at least 1, or no PhraseRows for a row per slot.")


class Places(NamedTuple):
    """Where phrases lie, one entry for each: its row, its place among the row's phrases, and its first position."""
    row: Int[np.ndarray, " n"]
    place: Int[np.ndarray, " n"]
    start: Int[np.ndarray, " n"]


def lay_out(batch: Mapping[str, np.ndarray], room: PhraseRows | None = None) -> dict[str, np.ndarray]:
    """The batch with its phrases in R rows: R = room.rows of distinct phrases, or by default a row for each slot.

    Args:
      batch: "phrases" (b, P, L) tokens, each ended by EOS, and then padded; "phrase_id" (b, P), equal for equal phrases;
        "phrase_mask" (b, P), False for an empty slot; anything else is passed on.
      room: S = room.per_row phrases may share a row (1 by default).
    Returns: the batch, but with
      "phrases" (R, L) int32 tokens.
      "column_id" (R, S) int32: the phrases that a row holds.
      "column_weight" (R, S) float32: how many slots each stands for, 0 where there is none (and the id means nothing).
      "phrase_overflow" (b,) int32: each image's slots whose phrase found no place. The phrases that stand for the fewest
        slots go first, of those the last to appear. Weights + overflow = filled slots.
      Where S > 1 also what `models.text.PackedText` wants:
      "phrase_segment" (R, L) int32: 0 for padding, s + 1 for the tokens of the phrase at place s, its EOS included.
      "phrase_position" (R, L) int32: 0, 1, 2, ... in each phrase, -1 for its EOS.
      "phrase_end" (R, S) int32: where each phrase's EOS is, 0 where there is no phrase.
    """
    return dict(batch) | (row_per_slot(batch) if room is None else distinct_phrases(batch, room))


def row_per_slot(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The slots' own rows, one after the other."""
    return {"phrases": batch["phrases"].reshape(-1, batch["phrases"].shape[-1]),
            "column_id": batch["phrase_id"].reshape(-1, 1),
            "column_weight": batch["phrase_mask"].reshape(-1, 1).astype(np.float32),
            "phrase_overflow": np.zeros(len(batch["phrases"]), np.int32)}


def distinct_phrases(batch: Mapping[str, np.ndarray], room: PhraseRows) -> dict[str, np.ndarray]:
    """Equal phrases once, with what finds no place counted. Two different phrases with one id count as the first."""
    filled, tokens = batch["phrase_mask"], batch["phrases"][batch["phrase_mask"]]
    ids, first, phrase_of_slot, weight = np.unique(batch["phrase_id"][filled], return_index=True, return_inverse=True,
                                                   return_counts=True)
    rank = np.lexsort((first, -weight))
    sizes = 1 + text_lengths(tokens[first[rank]])
    places = pack(sizes, room, tokens.shape[-1])
    kept = rank[:len(places.row)]

    column_id = np.zeros((room.rows, room.per_row), np.int32)
    column_weight = np.zeros((room.rows, room.per_row), np.float32)
    column_id[places.row, places.place] = ids[kept]
    column_weight[places.row, places.place] = weight[kept]
    dropped = np.ones(len(ids), bool)
    dropped[kept] = False
    overflow = np.zeros(filled.shape, np.int32)
    overflow[filled] = dropped[phrase_of_slot]
    return {"column_id": column_id, "column_weight": column_weight, "phrase_overflow": overflow.sum(1, dtype=np.int32),
            **write_rows(tokens[first[kept]], sizes[:len(kept)], places, room)}


def text_lengths(tokens: Int[np.ndarray, "n L"]) -> Int[np.ndarray, " n"]:
    """How many tokens stand before each row's EOS, the first: no text holds one."""
    return np.argmax(tokens == EOS, axis=1)


def pack(sizes: Int[np.ndarray, " n"], room: PhraseRows, row_length: int) -> Places:
    """Places for the first m of the phrases: the m that fit where m + 1 would not, all n where they do."""
    most = min(len(sizes), room.rows * room.per_row, np.searchsorted(np.cumsum(sizes), room.rows * row_length, "right"))
    taken = first_fit(sizes[:most], room, row_length)
    if taken is None:
        most = bisect_left(range(1, most), True, key=lambda n: first_fit(sizes[:n], room, row_length) is None)
        taken = first_fit(sizes[:most], room, row_length)
    places = places_in_rows(sizes[:most], taken, room.rows)
    # Rows will be split over devices: at steps of the golden ratio, any run of rows gets its share of full and empty ones.
    spread = np.argsort(np.argsort(np.arange(room.rows) * GOLDEN % 1))
    return places._replace(row=spread[places.row])


def first_fit(
    sizes: Int[np.ndarray, " n"], room: PhraseRows, row_length: int,
) -> dict[int, Int[np.ndarray, " R"]] | None:
    """First-fit decreasing: the longest phrase first, each into the first row that has room. None if one has no room.

    Phrases of one size are placed at once: they fill the rows from the first on, each as far as it has room.
    Returns: {size, longest first: how many phrases of this size each row takes}.
    """
    tokens, places = np.full(room.rows, row_length), np.full(room.rows, room.per_row)  # that are free
    wanted, taken = np.bincount(sizes), {}
    for size in np.flatnonzero(wanted)[::-1].tolist():
        so_far = np.minimum(np.cumsum(np.minimum(tokens // size, places)), wanted[size])
        if so_far[-1] < wanted[size]:
            return None
        each = taken[size] = np.diff(so_far, prepend=0)
        tokens, places = tokens - size * each, places - each
    return taken


def places_in_rows(sizes: Int[np.ndarray, " m"], taken: Mapping[int, Int[np.ndarray, " R"]], rows: int) -> Places:
    """The places that `first_fit` gives: phrases of one size in their order, longer ones before shorter ones."""
    used, count = np.zeros(rows, int), np.zeros(rows, int)
    places = Places(*np.empty((3, len(sizes)), int))
    for size, each in taken.items():
        alike, row, nth = np.flatnonzero(sizes == size), np.repeat(np.arange(rows), each), ranges(each)
        places.row[alike], places.place[alike], places.start[alike] = row, count[row] + nth, used[row] + nth * size
        used, count = used + size * each, count + each
    return places


def write_rows(
    tokens: Int[np.ndarray, "m L"], sizes: Int[np.ndarray, " m"], places: Places, room: PhraseRows,
) -> dict[str, np.ndarray]:
    """The tokens in their rows; where phrases share rows, also which token is whose and where each phrase ends."""
    phrases = np.full((room.rows, tokens.shape[1]), EOS, np.int32)
    if room.per_row == 1:
        phrases[places.row] = tokens
        return {"phrases": phrases}
    phrase, offset = np.repeat(np.arange(len(sizes)), sizes), ranges(sizes)  # of every token that is written
    at = places.row[phrase], places.start[phrase] + offset
    segment, position = np.zeros_like(phrases), np.zeros_like(phrases)
    phrases[at] = tokens[phrase, offset]
    segment[at] = places.place[phrase] + 1
    position[at] = np.where(offset == sizes[phrase] - 1, -1, offset)
    end = np.zeros((room.rows, room.per_row), np.int32)
    end[places.row, places.place] = places.start + sizes - 1
    return {"phrases": phrases, "phrase_segment": segment, "phrase_position": position, "phrase_end": end}


def ranges(counts: Int[np.ndarray, " n"]) -> Int[np.ndarray, " total"]:
    """[3, 1, 2] -> [0, 1, 2, 0, 0, 1]."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
