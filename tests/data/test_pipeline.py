"""The order, the phrase slots and the determinism of the batches."""
import io
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cc_jax.config import ConfigError, DatasetError
from cc_jax.data import pipeline
from cc_jax.data.packing import PhraseRows
from cc_jax.data.tokenizer import EOS, Tokenizer, train_tokenizer
from cc_jax.data.transforms import ImageError


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer(["a red circle and a blue square", "one two three four five six seven"] * 20, path, 100)
    return Tokenizer.load(path)


def record(number, captions=("a red circle and a blue square",), phrases=(("red circle", 0), ("blue square", 0))):
    file = io.BytesIO()
    Image.new("RGB", (10, 8), (number % 256, number // 256, 7)).save(file, "PNG")
    starts = [captions[c].find(p) for p, c in phrases]
    return {"key": f"record {number}".encode(), "image": file.getvalue(), "captions": [c.encode() for c in captions],
            "phrases": [p.encode() for p, _ in phrases], "phrase_caption": [c for _, c in phrases],
            "phrase_start": starts, "phrase_end": [start + len(p) for start, (p, _) in zip(starts, phrases, strict=True)]}


def example(tokenizer, seed=0, flip=False, slots=3, spans=False, **options):
    return pipeline.make_example(tokenizer, res=8, length=12, max_phrases=slots, phrase_length=6, flip=flip, seed=seed,
                                 spans=spans, **options)


def batches(tokenizer, count=20, batch_size=8, total_steps=6, seed=0, broken=(), noise=None, **options):
    source = [record(i) | ({"image": b"GIF89a"} if i in broken else {}) for i in range(count)]
    iterator = pipeline.training_batches(source, example(tokenizer, seed, noise=noise), batch_size, total_steps, seed,
                                         threads=2, **options)
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


TWO = dict(captions=("a red circle and a blue square", "one two three four five six seven"),
           phrases=(("red circle", 0), ("blue square", 0), ("two three", 1), ("four five", 1), ("six seven", 1)))


def test_what_is_random_about_an_example_is_drawn_in_one_order(tokenizer):
    """The caption, the flip, then the phrases: runs made with one version go on alike with the next."""
    picture = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    for number in range(30):
        made = example(tokenizer, seed=5, flip=True, slots=2)(record(0, **TWO) | {"image": file.getvalue()}, number)
        rng = np.random.default_rng([5, number])
        caption, flip = rng.integers(2), rng.random() < 0.5
        phrases = [phrase for phrase, of in TWO["phrases"] if of == caption]
        if len(phrases) > 2:
            phrases = [phrases[i] for i in sorted(rng.choice(3, 2, replace=False))]
        np.testing.assert_array_equal(made["caption"], tokenizer.encode([TWO["captions"][caption]], 12)[0])
        np.testing.assert_array_equal(made["image"], picture[:, ::-1] if flip else picture)
        assert made["phrase_id"].tolist() == [pipeline.phrase_id(phrase) for phrase in phrases]


@pytest.mark.parametrize("spans", [False, True])
def test_errors_in_phrases_change_phrases_alone(tokenizer, spans):
    changed = 0
    for number in range(40):
        clean, none, noisy = (example(tokenizer, flip=True, spans=spans, noise=noise)(record(0, **TWO), number)
                              for noise in (None, {}, {"merged": 0.3, "truncated": 0.3}))
        for name in clean:
            np.testing.assert_array_equal(clean[name], none[name])
        for name in ("image", "caption", "phrase_mask"):
            np.testing.assert_array_equal(clean[name], noisy[name])
        changed += (clean["phrase_id"] != noisy["phrase_id"]).any()
        np.testing.assert_array_equal(
            clean["phrase_id"] != noisy["phrase_id"],
            (clean["phrase_span" if spans else "phrases"] != noisy["phrase_span" if spans else "phrases"]).any(1))
    assert 20 < changed < 40


def test_a_phrase_with_an_error_has_the_id_the_tokens_and_the_place_of_its_new_text(tokenizer):
    swallowed = ["red circle and", "blue square"]       # no word comes after the second
    made, placed = (example(tokenizer, spans=spans, noise={"verb_swallowed": 1.0})(record(0), 0) for spans in (False, True))
    assert made["phrase_id"].tolist() == placed["phrase_id"].tolist() == [
        pipeline.phrase_id(phrase) for phrase in [*swallowed, ""]]
    np.testing.assert_array_equal(made["phrases"][:2], tokenizer.encode(swallowed, 6))
    for (first, end), phrase in zip(placed["phrase_span"], swallowed, strict=False):
        np.testing.assert_array_equal(placed["caption"][first:end], tokenizer.encode([phrase], 12)[0][:end - first])


@pytest.mark.parametrize("spans", [False, True])
def test_a_caption_that_loses_all_phrases_is_one_without(tokenizer, spans):
    dropped = example(tokenizer, spans=spans, noise={"dropped": 1.0})(record(0), 0)
    without = example(tokenizer, spans=spans)(record(0, phrases=()), 0)
    for name in without:
        np.testing.assert_array_equal(dropped[name], without[name])


def test_errors_are_the_same_for_any_number_of_processes_and_from_any_step(tokenizer):
    noise = {"truncated": 0.3, "random_span": 0.3, "dropped": 0.3}
    whole = batches(tokenizer, noise=noise)
    parts = [batches(tokenizer, noise=noise, process=process, processes=2, first_step=2) for process in range(2)]
    for step, batch in enumerate(whole[2:]):
        for name in batch:
            np.testing.assert_array_equal(np.concatenate([part[step][name] for part in parts]), batch[name])
    assert len({tuple(ids) for batch in whole for ids in batch["phrase_id"].tolist()}) > 10


@settings(max_examples=200)
@given(st.lists(st.sampled_from([0.0, 0.1, 1.0, 3.0]), min_size=1, max_size=4).filter(any), st.integers(1, 6))
def test_captions_are_chosen_by_weight(weights, count):
    """By hand: the last weight is shared by all from there on; weights of captions that are not there don't count."""
    expected = [weights[i] if i < len(weights) - 1 else weights[-1] / max(1, count - len(weights) + 1) for i in range(count)]
    rng = np.random.default_rng(0)
    seen = Counter(pipeline.choose_caption(count, pipeline.caption_weights(weights), rng) for _ in range(400))
    if any(expected):
        for i, weight in enumerate(expected):
            assert seen[i] / 400 == pytest.approx(weight / sum(expected), abs=0.13)
            assert weight or not seen[i]
    else:
        assert set(seen) <= set(range(count)) and min(seen[i] for i in range(count)) > 20


@pytest.mark.parametrize(("captions", "expected"), [
    ("first", {0: 900}), ("random", {0: 300, 1: 300, 2: 300}), ((0.3, 0.7), {0: 270, 1: 315, 2: 315}),
    ("0.3, 0.7", {0: 270, 1: 315, 2: 315}), ("(0.3,0.7)", {0: 270, 1: 315, 2: 315}), ((1, 0, 2), {0: 300, 2: 600}),
])
def test_one_caption_of_three_by_config(captions, expected):
    rng, weights = np.random.default_rng(0), pipeline.caption_weights(captions)
    assert Counter(pipeline.choose_caption(3, weights, rng) for _ in range(900)) == pytest.approx(expected, abs=60)


@pytest.mark.parametrize("captions", ["last", "", (), (0.3, -0.1), (0, 0), (float("nan"),), (float("inf"), 1), None, 0.3])
def test_captions_that_can_not_be_chosen_are_refused(captions):
    with pytest.raises(ConfigError, match=r"config.data.captions=.*use 'random', 'first', or weights by position"):
        pipeline.caption_weights(captions)


def test_for_a_broken_image_a_record_of_a_later_batch_stands_in_and_it_is_said_once(tokenizer, capfd):
    sound, spoilt = batches(tokenizer, total_steps=10), batches(tokenizer, total_steps=10, broken=(3, 4))
    form = r"the image of (record \d) can't be decoded, another record stands in \((\d) so far\): image_.*"
    said = [re.fullmatch(form, line) for line in capfd.readouterr().err.splitlines()]
    assert {line[1] for line in said} == {"record 3", "record 4"} and [line[2] for line in said] == ["1", "2"]
    for step, (a, b) in enumerate(zip(sound, spoilt, strict=True)):
        for row, (before, after) in enumerate(zip(numbers(a), numbers(b), strict=True)):
            later = [numbers(batch)[row] for batch in sound[step:]]
            if step < 7:
                assert after == next(number for number in later if number not in (3, 4))
            assert after not in (3, 4) and (before == after or before in (3, 4))


def test_broken_images_leave_batches_the_same_for_any_number_of_processes_and_from_any_step(tokenizer):
    whole = batches(tokenizer, broken=range(0, 20, 3), noise={"truncated": 0.5})
    parts = [batches(tokenizer, broken=range(0, 20, 3), noise={"truncated": 0.5}, process=process, processes=2,
                     first_step=2) for process in range(2)]
    for step, batch in enumerate(whole[2:]):
        for name in batch:
            np.testing.assert_array_equal(np.concatenate([part[step][name] for part in parts]), batch[name])


def test_of_many_broken_images_few_are_said(capfd):
    broken, error = pipeline.BrokenImages(), ImageError("image_truncated", "cut.")
    for _ in range(2):
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda i: broken.tell(f"record {i}".encode(), error), range(350)))
    counts = [int(re.search(r"\((\d+) so far\): image_truncated: cut", line)[1])
              for line in capfd.readouterr().err.splitlines()]
    assert counts == [*range(1, 11), 100, 200, 300]


def test_a_dataset_of_broken_images_alone_is_an_error(tokenizer):
    with pytest.raises(DatasetError, match=r"images of 100 records in a row can't be decoded, the last is record \d"):
        batches(tokenizer, broken=range(20))


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


def test_a_caption_that_stands_as_its_own_phrase_spans_its_text_whatever_pads_it(tokenizer):
    alone = record(0, phrases=()) | {"phrase_start": np.array([], int), "phrase_end": np.array([], int)}
    made, other = (example(padded, spans=True)(alone, 0) for padded in (tokenizer, tokenizer.padded_with(0)))
    assert other["caption"][-1] == 0 and made["caption"][-1] == EOS
    first, end = other["phrase_span"][0]
    assert first == 0 and other["caption"][end] == EOS and EOS not in other["caption"][:end]
    np.testing.assert_array_equal(other["phrase_span"], made["phrase_span"])
