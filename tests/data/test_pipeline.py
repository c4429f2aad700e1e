"""The order, the phrase slots and the determinism of the batches."""
import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cc_jax.config import ConfigError
from cc_jax.data import pipeline
from cc_jax.data.packing import PhraseRows
from cc_jax.data.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer(["a red circle and a blue square", "one two three four five six seven"] * 20, path, 100)
    return Tokenizer.load(path)


def record(number, captions=("a red circle and a blue square",), phrases=(("red circle", 0), ("blue square", 0))):
    file = io.BytesIO()
    Image.new("RGB", (10, 8), (number % 256, number // 256, 7)).save(file, "PNG")
    return {"image": file.getvalue(), "captions": [c.encode() for c in captions],
            "phrases": [p.encode() for p, _ in phrases], "phrase_caption": [c for _, c in phrases]}


def example(tokenizer, seed=0, flip=False, slots=3, spans=False):
    return pipeline.make_example(tokenizer, res=8, length=12, max_phrases=slots, phrase_length=6, flip=flip, seed=seed,
                                 spans=spans)


def batches(tokenizer, count=20, batch_size=8, total_steps=6, seed=0, **options):
    source = [record(i) for i in range(count)]
    iterator = pipeline.training_batches(source, example(tokenizer, seed), batch_size, total_steps, seed, threads=2,
                                         **options)
    try:
        return list(iterator)
    finally:
        iterator.close()


def numbers(batch):
    """Which records a batch holds, read back from their colour."""
    return batch["image"][:, 0, 0, 0].astype(int) + 256 * batch["image"][:, 0, 0, 1].astype(int)


def test_shapes_and_types_of_a_batch(tokenizer):
    [first, *_] = batches(tokenizer)
    assert {name: (value.shape, value.dtype) for name, value in first.items()} == {
        "image": ((8, 8, 8, 3), np.uint8), "caption": ((8, 12), np.int32), "phrases": ((24, 6), np.int32),
        "phrase_id": ((8, 3), np.int32), "phrase_mask": ((8, 3), np.bool_), "column_id": ((24, 1), np.int32),
        "column_weight": ((24, 1), np.float32), "phrase_overflow": ((8,), np.int32)}


def test_by_default_the_rows_of_phrases_are_the_slots(tokenizer):
    [first, *_] = batches(tokenizer)
    phrases = ["red circle", "blue square", ""]
    np.testing.assert_array_equal(first["phrases"], np.tile(tokenizer.encode(phrases, 6), (8, 1)))
    np.testing.assert_array_equal(first["column_id"][:, 0], np.tile([pipeline.phrase_id(p) for p in phrases], 8))
    assert first["column_weight"][:, 0].tolist() == [1, 1, 0] * 8 and first["phrase_overflow"].tolist() == [0] * 8


@pytest.mark.parametrize("processes", [1, 2])
def test_with_phrase_rows_equal_phrases_are_one_column_of_each_process(tokenizer, processes):
    room = PhraseRows(rows=2, per_row=4)
    for process in range(processes):
        for batch in batches(tokenizer, process=process, processes=processes, phrase_rows=room):
            assert batch["phrases"].shape == batch["phrase_segment"].shape == (2, 6)
            filled = batch["column_weight"] > 0
            assert dict(zip(batch["column_id"][filled].tolist(), batch["column_weight"][filled].tolist(), strict=True)) == {
                pipeline.phrase_id(phrase): 8 / processes for phrase in ("red circle", "blue square")}


def test_with_phrase_rows_a_run_starts_at_any_step_with_the_same_batches(tokenizer):
    room = PhraseRows(rows=1, per_row=2)  # has no place for the second phrase
    whole = batches(tokenizer, phrase_rows=room)
    for a, b in zip(whole[3:], batches(tokenizer, phrase_rows=room, first_step=3), strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
        assert a["column_weight"].sum() + a["phrase_overflow"].sum() == a["phrase_mask"].sum() == 16


def test_every_epoch_holds_every_record_once_in_another_order(tokenizer):
    order = np.concatenate([numbers(batch) for batch in batches(tokenizer, count=16, total_steps=6)])
    epochs = order.reshape(3, 16)
    for epoch in epochs:
        assert Counter(epoch.tolist()) == Counter(range(16))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_same_seed_gives_the_same_batches_and_another_seed_others(tokenizer):
    first, again, other = batches(tokenizer), batches(tokenizer), batches(tokenizer, seed=1)
    for a, b in zip(first, again, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert any((numbers(a) != numbers(b)).any() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("first_step", [1, 4])
def test_starting_at_a_step_gives_the_batches_from_that_step(tokenizer, first_step):
    for a, b in zip(batches(tokenizer)[first_step:], batches(tokenizer, first_step=first_step), strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_gives_the_same_global_batches(tokenizer, processes):
    whole = batches(tokenizer)
    parts = [batches(tokenizer, process=p, processes=processes) for p in range(processes)]
    for step, batch in enumerate(whole):
        for name in batch:
            np.testing.assert_array_equal(np.concatenate([part[step][name] for part in parts]), batch[name])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))
def test_phrase_slots_hold_a_seeded_choice_in_order(count, slots, seed):
    choose = lambda: pipeline.choose(count, slots, np.random.default_rng(seed)).tolist()
    chosen = choose()
    assert chosen == choose() == sorted(set(chosen))
    assert len(chosen) == min(count, slots) and set(chosen) <= set(range(count))


def test_a_caption_with_more_phrases_than_slots_shows_each_in_turn(tokenizer):
    phrases = [f"{word} circle" for word in ("one", "two", "three", "four", "five")]
    ids = {pipeline.phrase_id(phrase) for phrase in phrases}
    crowded = record(0, phrases=[(phrase, 0) for phrase in phrases])
    seen = set()
    for number in range(40):
        made = example(tokenizer)(crowded, number)
        assert made["phrase_mask"].all()
        seen |= set(made["phrase_id"].tolist())
    assert seen == ids


def test_empty_slots_are_masked_and_a_caption_without_phrase_is_its_own(tokenizer):
    made = example(tokenizer)(record(0, phrases=()), 0)
    assert made["phrase_mask"].tolist() == [True, False, False]
    assert made["phrase_id"][0] == pipeline.phrase_id("a red circle and a blue square")
    np.testing.assert_array_equal(made["phrases"][0], tokenizer.encode(["a red circle and a blue square"], 6)[0])


def test_one_of_several_captions_is_chosen_with_its_own_phrases(tokenizer):
    two = record(0, captions=("a red circle", "a blue square"), phrases=(("red circle", 0), ("blue square", 1)))
    seen = Counter()
    for number in range(60):
        made = example(tokenizer)(two, number)
        caption = int((made["caption"] == tokenizer.encode(["a blue square"], 12)[0]).all())
        assert made["phrase_id"][0] == pipeline.phrase_id(("red circle", "blue square")[caption])
        seen[caption] += 1
    assert min(seen.values()) > 15


def test_images_flip_by_config_only(tokenizer):
    picture = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    flipped = [bool((example(tokenizer, flip=True)(record(0) | {"image": file.getvalue()}, n)["image"]
                     == picture[:, ::-1]).all()) for n in range(30)]
    assert 5 < sum(flipped) < 25
    np.testing.assert_array_equal(example(tokenizer)(record(0) | {"image": file.getvalue()}, 0)["image"], picture)


def test_a_span_says_which_positions_of_the_caption_hold_the_phrase(tokenizer):
    caption = "a red circle and a blue square"
    spans = {p: (caption.index(p), caption.index(p) + len(p)) for p in ("red circle", "blue square")}
    start, end = (np.array(side) for side in zip(*spans.values(), strict=True))
    located = record(0) | {"phrase_start": start, "phrase_end": end}
    made = example(tokenizer, spans=True)(located, 0)
    assert "phrases" not in made and made["phrase_mask"].tolist() == [True, True, False]
    for (first, end), phrase in zip(made["phrase_span"], spans, strict=False):
        np.testing.assert_array_equal(made["caption"][first:end], tokenizer.encode([phrase], 12)[0][:end - first])
    assert made["phrase_id"].tolist() == example(tokenizer)(located, 0)["phrase_id"].tolist()


def test_a_phrase_that_the_row_cuts_off_is_left_out_of_the_spans(tokenizer):
    caption = "a red circle and a blue square"
    start = caption.index("blue")
    located = record(0) | {"phrase_start": np.array([2, start]), "phrase_end": np.array([12, len(caption)])}
    short = pipeline.make_example(tokenizer, res=8, length=5, max_phrases=3, phrase_length=6, flip=False, seed=0, spans=True)
    made = short(located, 0)
    assert made["phrase_mask"].tolist() == [True, False, False]
    assert made["phrase_id"][0] == pipeline.phrase_id("red circle")
    none = short(record(0, phrases=()) | {"phrase_start": np.array([], int), "phrase_end": np.array([], int)}, 0)
    assert none["phrase_mask"].tolist() == [True, False, False] and none["phrase_span"][0].tolist() == [0, 4]


def test_crops_are_parts_of_the_image_by_config_only(tokenizer):
    picture = np.tile(np.arange(8, dtype=np.uint8)[:, None, None], (1, 8, 3))  # rows 0 to 7
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    make = pipeline.make_example(tokenizer, 8, 12, 3, 6, False, 0, crop=0.3)
    images = [make(record(0) | {"image": file.getvalue()}, n)["image"] for n in range(20)]
    ranges = {(int(image.min()), int(image.max())) for image in images}
    assert len(ranges) > 4 and all(0 <= low < high <= 7 for low, high in ranges)
    np.testing.assert_array_equal(images[0], make(record(0) | {"image": file.getvalue()}, 0)["image"])


def test_equal_phrases_have_equal_ids_of_32_bits_and_different_ones_differ():
    phrases = [f"phrase {i}" for i in range(5000)]
    ids = [pipeline.phrase_id(phrase) for phrase in phrases]
    assert len(set(ids)) == 5000 and ids == [pipeline.phrase_id(phrase) for phrase in phrases]
    assert all(np.int32(i) == i for i in ids)


def test_what_can_not_be_batched_is_refused(tokenizer):
    with pytest.raises(ConfigError, match="batch_size=9 does not divide over 2 processes"):
        batches(tokenizer, batch_size=9, processes=2)
    with pytest.raises(ConfigError, match="no records"):
        batches(tokenizer, count=0)
