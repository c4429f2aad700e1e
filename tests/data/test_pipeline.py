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


def example(tokenizer, seed=0, flip=False, slots=3):
    return pipeline.make_example(tokenizer, res=8, length=12, max_phrases=slots, phrase_length=6, flip=flip, seed=seed)


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
        "image": ((8, 8, 8, 3), np.uint8), "caption": ((8, 12), np.int32), "phrases": ((8, 3, 6), np.int32),
        "phrase_id": ((8, 3), np.int32), "phrase_mask": ((8, 3), np.bool_)}


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
@given(st.lists(st.text("abc", min_size=1, max_size=4), unique=True, max_size=8), st.integers(1, 5), st.integers(0, 99))
def test_phrase_slots_hold_a_seeded_choice_in_order(phrases, slots, seed):
    choose = lambda: pipeline.choose_phrases(phrases, "the caption", slots, np.random.default_rng(seed))
    chosen = choose()
    assert chosen == choose()
    if not phrases:
        assert chosen == ["the caption"]
    else:
        assert len(chosen) == min(len(phrases), slots) == len(set(chosen))
        assert sorted(chosen, key=phrases.index) == chosen


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
