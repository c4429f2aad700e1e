"""Phrase rows: what is encoded, how it counts, what is dropped; against plain Python on drawn batches."""
from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_jax.config import ConfigError
from cc_jax.data.packing import PhraseRows, lay_out
from cc_jax.models.text import EOS


@st.composite
def batches(draw, max_images=6):
    """A batch of drawn phrases; empty slots hold "" with the id 0, which a phrase may have, too."""
    images, slots, length = draw(st.integers(1, max_images)), draw(st.integers(1, 4)), draw(st.integers(2, 9))
    words = st.lists(st.integers(2, 40), max_size=length - 1)
    phrases = draw(st.dictionaries(st.integers(-3, 8), words, min_size=1, max_size=12))
    held = draw(st.lists(st.lists(st.sampled_from(sorted(phrases)), max_size=slots), min_size=images, max_size=images))
    return make(held, phrases, slots, length)


def make(held, phrases, slots, length):
    """The batch of images that hold the phrases `held` (lists of ids), each a list of tokens."""
    batch = {"image": np.arange(len(held)), "phrases": np.full((len(held), slots, length), EOS, np.int32),
             "phrase_id": np.zeros((len(held), slots), np.int32), "phrase_mask": np.zeros((len(held), slots), bool)}
    for image, ids in enumerate(held):
        for slot, phrase in enumerate(ids):
            batch["phrases"][image, slot, :len(phrases[phrase])] = phrases[phrase]
            batch["phrase_id"][image, slot], batch["phrase_mask"][image, slot] = phrase, True
    return batch


def held_ids(batch):
    """The phrases of each image, as lists."""
    return [ids[mask].tolist() for ids, mask in zip(batch["phrase_id"], batch["phrase_mask"], strict=True)]


def texts_of(batch):
    """{id: tokens, without their end} of the filled slots."""
    return {int(phrase): without_end(tokens) for tokens, phrase in
            zip(batch["phrases"][batch["phrase_mask"]], batch["phrase_id"][batch["phrase_mask"]], strict=True)}


def without_end(tokens):
    tokens = tokens.tolist()
    while tokens and tokens[-1] == EOS:
        tokens.pop()
    return tokens


def columns(laid):
    """[(id, weight)] of the places that hold a phrase."""
    filled = laid["column_weight"] > 0
    return list(zip(laid["column_id"][filled].tolist(), laid["column_weight"][filled].tolist(), strict=True))


def fits(sizes, rows, per_row, length):
    """First-fit decreasing, one phrase after the other."""
    used, count = [0] * rows, [0] * rows
    for size in sorted(sizes, reverse=True):
        free = [row for row in range(rows) if used[row] + size <= length and count[row] < per_row]
        if not free:
            return False
        used[free[0]] += size
        count[free[0]] += 1
    return True


rooms = st.builds(PhraseRows, rows=st.integers(1, 8), per_row=st.integers(1, 5))


@given(batches())
def test_by_default_each_slot_has_its_row(batch):
    laid, slots = lay_out(batch), batch["phrase_id"].size
    np.testing.assert_array_equal(laid["phrases"], [tokens for image in batch["phrases"] for tokens in image])
    np.testing.assert_array_equal(laid["column_id"].ravel(), list(chain(*batch["phrase_id"])))
    np.testing.assert_array_equal(laid["column_weight"].ravel(), list(chain(*batch["phrase_mask"])))
    assert laid["column_id"].shape == laid["column_weight"].shape == (slots, 1)
    assert laid["phrase_overflow"].tolist() == [0] * len(batch["image"])


@given(batches(), rooms)
def test_shapes_depend_on_the_room_only_and_the_rest_of_the_batch_stays(batch, room):
    rows, places, length = room.rows, room.per_row, batch["phrases"].shape[-1]
    laid = lay_out(batch, room)
    kept = {name: laid.pop(name) for name in ("image", "phrase_id", "phrase_mask")}
    for name, value in kept.items():
        np.testing.assert_array_equal(value, batch[name])
    shapes = {"phrases": (rows, length), "column_id": (rows, places), "column_weight": (rows, places),
              "phrase_overflow": (len(batch["image"]),)}
    if places > 1:
        shapes |= {"phrase_segment": (rows, length), "phrase_position": (rows, length), "phrase_end": (rows, places)}
    assert {name: value.shape for name, value in laid.items()} == shapes
    assert {name: value.dtype for name, value in laid.items()} == {
        name: np.float32 if name == "column_weight" else np.int32 for name in shapes}


@given(batches(), st.integers(1, 5))
def test_with_room_enough_each_phrase_stands_once_and_weighs_as_many_slots_as_hold_it(batch, per_row):
    laid = lay_out(batch, PhraseRows(batch["phrase_id"].size, per_row))
    assert sorted(columns(laid)) == sorted(Counter(chain(*held_ids(batch))).items())
    assert not laid["phrase_overflow"].any()


@given(batches(), rooms)
def test_a_row_spells_its_phrases(batch, room):
    laid, spelled = lay_out(batch, room), texts_of(batch)
    for row, place in zip(*np.nonzero(laid["column_weight"]), strict=True):
        tokens = laid["phrases"][row]
        if room.per_row > 1:
            [at] = np.nonzero(laid["phrase_segment"][row] == place + 1)
            words = len(at) - 1
            assert at.tolist() == list(range(at[0], at[0] + words + 1))
            assert laid["phrase_end"][row, place] == at[-1] and tokens[at[-1]] == EOS
            assert laid["phrase_position"][row, at].tolist() == [*range(words), -1]
            tokens = tokens[at]
        assert without_end(tokens) == spelled[laid["column_id"][row, place]]


@given(batches(), rooms)
def test_nothing_else_is_written(batch, room):
    laid, spelled = lay_out(batch, room), texts_of(batch)
    assert (laid["phrases"] != EOS).sum() == sum(
        sum(token != EOS for token in spelled[phrase]) for phrase, _ in columns(laid))
    if room.per_row > 1:
        padding, empty = laid["phrase_segment"] == 0, laid["column_weight"] == 0
        assert (laid["phrases"][padding] == EOS).all() and not laid["phrase_position"][padding].any()
        assert not laid["phrase_end"][empty].any()
        assert (~padding).sum() == sum(len(spelled[phrase]) + 1 for phrase, _ in columns(laid))


@settings(max_examples=300)
@given(batches(), rooms)
def test_overflow_counts_each_slot_whose_phrase_has_no_place(batch, room):
    laid = lay_out(batch, room)
    placed = dict(columns(laid))
    assert len(placed) == len(columns(laid))
    slots = Counter(chain(*held_ids(batch)))
    assert placed == {phrase: slots[phrase] for phrase in placed}
    assert laid["phrase_overflow"].tolist() == [sum(phrase not in placed for phrase in ids) for ids in held_ids(batch)]
    assert laid["column_weight"].sum() + laid["phrase_overflow"].sum() == batch["phrase_mask"].sum()


@settings(max_examples=300)
@given(batches(), rooms)
def test_the_phrases_of_the_fewest_slots_go_first_and_no_more_than_must(batch, room):
    held, spelled = list(chain(*held_ids(batch))), texts_of(batch)
    ranked = sorted(dict.fromkeys(held), key=lambda phrase: (-held.count(phrase), held.index(phrase)))
    kept = {phrase for phrase, _ in columns(lay_out(batch, room))}
    assert kept == set(ranked[:len(kept)])
    if len(kept) < len(ranked):
        sizes = [len(spelled[phrase]) + 1 for phrase in ranked[:len(kept) + 1]]
        assert not fits(sizes, room.rows, room.per_row, batch["phrases"].shape[-1])


def test_a_phrase_goes_where_only_tokens_in_all_would_suffice():
    batch = make([[1, 2, 3]], {1: [5, 5], 2: [6, 6], 3: [7]}, slots=3, length=4)  # with their ends 3 + 3 + 2 = 2 x 4
    laid = lay_out(batch, PhraseRows(2, 2))
    assert sorted(columns(laid)) == [(1, 1), (2, 1)] and laid["phrase_overflow"].tolist() == [1]


@given(batches(), rooms)
def test_the_same_batch_is_laid_out_the_same_and_left_as_it_was(batch, room):
    before = {name: value.copy() for name, value in batch.items()}
    first, again = lay_out(batch, room), lay_out(before, room)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    for name in before:
        np.testing.assert_array_equal(batch[name], before[name])


@given(batches(), st.integers(1, 6), st.integers(1, 5))
def test_any_number_of_processes_encodes_the_same_phrases_with_the_same_total_weights(batch, processes, per_row):
    def totals(parts):
        weights = Counter()
        for part in parts:
            for phrase, weight in columns(lay_out(part, PhraseRows(batch["phrase_id"].size, per_row))):
                weights[phrase] += weight
        return weights

    cuts = np.array_split(np.arange(len(batch["image"])), min(processes, len(batch["image"])))
    assert totals([batch]) == totals([{name: value[cut] for name, value in batch.items()} for cut in cuts])


def test_eight_short_phrases_lie_in_two_rows_where_slots_need_eight():
    phrases = {i: [10 + i] * (3 if i < 4 else 1) for i in range(8)}  # with their ends 4 x 4 + 4 x 2 = 24 tokens
    batch = make([[0, 1, 2, 3], [4, 5, 6, 7]], phrases, slots=4, length=12)
    laid = lay_out(batch, PhraseRows(2, 5))
    assert lay_out(batch)["phrases"].shape == (8, 12) and laid["phrases"].shape == (2, 12)
    assert (laid["phrase_segment"] > 0).all() and not laid["phrase_overflow"].any()


@pytest.mark.parametrize("per_row", [1, 3])
def test_filled_places_spread_over_the_rows_of_each_device(per_row):
    batch = make([[4 * i + j for j in range(4)] for i in range(12)], {i: [i % 40 + 2] for i in range(48)}, 4, 8)
    laid = lay_out(batch, PhraseRows(96 // per_row, per_row))
    for devices in (2, 4, 8):
        share = (laid["column_weight"] > 0).reshape(devices, -1).sum(1)
        assert share.sum() == 48 and share.max() - share.min() <= 2 * per_row


def test_a_batch_without_any_phrase_has_no_columns():
    laid = lay_out(make([[], []], {}, slots=2, length=4), PhraseRows(3, 2))
    assert columns(laid) == [] and (laid["phrases"] == EOS).all() and not laid["phrase_overflow"].any()


@pytest.mark.parametrize(("room", "message"), [(dict(rows=0), "rows=0; give at least 1"),
                                               (dict(rows=4, per_row=0), "per_row=0; give at least 1")])
def test_no_room_at_all_is_refused(room, message):
    with pytest.raises(ConfigError, match=message):
        PhraseRows(**room)


@given(batches(), st.integers(1, 8))
def test_phrases_padded_with_another_id_take_the_same_places(batch, rows):
    """SigLIP 2 pads with 0 after the EOS; such phrases have a row each, and keep their padding."""
    room, ended = PhraseRows(rows), np.maximum.accumulate(batch["phrases"] == EOS, axis=-1)
    after_the_end = ended & np.pad(ended, ((0, 0), (0, 0), (1, 0)))[..., :-1]
    other = batch | {"phrases": np.where(after_the_end, 0, batch["phrases"])}
    laid, same = lay_out(other, room), lay_out(batch, room)
    for name in ("column_id", "column_weight", "phrase_overflow"):
        np.testing.assert_array_equal(laid[name], same[name])
    filled = other["phrase_mask"]
    rows_of = dict(zip(other["phrase_id"][filled].tolist(), other["phrases"][filled], strict=True))
    for place in np.flatnonzero(laid["column_weight"][:, 0]):
        np.testing.assert_array_equal(laid["phrases"][place], rows_of[int(laid["column_id"][place, 0])])
