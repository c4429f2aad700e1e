"""A survey against counting by hand, whatever the parts it was made in."""
import io
import json
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cc_jax.data import survey as surveying
from cc_jax.data.survey import CANDIDATES, Survey


def encode(image: Image.Image, form: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


IMAGES = [encode(Image.new("RGB", (8, 6), colour)) for colour in ("red", "blue")] + [b"no image", b""]
WORDS = st.lists(st.sampled_from(["a", "dog", "<b>", "ein", "Hündchen", "🐕", "\ud800"]), min_size=1, max_size=120)


@st.composite
def examples(draw, key: str = "a") -> tuple[dict, str]:
    """(a record as preparation writes it, its split)."""
    captions = [" ".join(words) for words in draw(st.lists(WORDS, min_size=1, max_size=7))]
    located = [(i, *draw(st.tuples(st.integers(0, 40), st.integers(1, 30)))) for i, _ in enumerate(captions)
               for _ in range(draw(st.integers(0, 3)))]
    located = [(i, start, start + size) for i, start, size in located if captions[i][start:start + size].split()]
    return {"key": key, "image": draw(st.sampled_from(IMAGES)), "captions": captions,
            "phrases": [" ".join(captions[i][start:end].split()) for i, start, end in located],
            "phrase_caption": [i for i, _, _ in located], "phrase_start": [start for _, start, _ in located],
            "phrase_end": [end for _, _, end in located]}, draw(st.sampled_from(["train", "test"]))


@st.composite
def datasets(draw) -> list[tuple[dict, str]]:
    size = draw(st.one_of(st.integers(0, 4), st.integers(CANDIDATES, CANDIDATES + 8)))
    few = [draw(examples()) for _ in range(min(size, 4))]
    return [(few[i % 4][0] | {"key": f"shard-{i % 3}:{i}"}, few[i % 4][1]) for i in range(size)]


def plain(i: int, *phrases: str, image: bytes = IMAGES[0]) -> dict:
    """A record whose caption has nothing but its phrases."""
    ends = np.cumsum([len(phrase) + 1 for phrase in phrases]) - 1
    return {"key": f"k{i}", "image": image, "captions": [" ".join(phrases)], "phrases": list(phrases),
            "phrase_caption": [0] * len(phrases), "phrase_end": ends.tolist(),
            "phrase_start": [int(end) - len(phrase) for end, phrase in zip(ends, phrases, strict=True)]}


def surveyed(records) -> Survey:
    survey = Survey()
    for example, split in records:
        survey.add(example, split)
    return survey


def as_text(survey: Survey) -> str:
    return json.dumps(survey.to_json())


@given(datasets())
def test_counts_are_those_counted_by_hand(records):
    survey = surveyed(records)
    words, lengths, phrases, numbers = Counter(), Counter(), Counter(), Counter()
    for example, _ in records:
        words.update(min(len(caption.split()), surveying.CAPTION_WORDS) for caption in example["captions"])
        lengths.update(min(len(phrase.split()), surveying.PHRASE_WORDS) for phrase in example["phrases"])
        numbers.update(min(example["phrase_caption"].count(i), surveying.PHRASES) for i, _ in enumerate(example["captions"]))
        phrases.update(example["phrases"])
    for histogram, counted in ((survey.caption_words, words), (survey.phrase_words, lengths),
                               (survey.phrases_per_caption, numbers)):
        assert {value: count for value, count in enumerate(histogram) if count} == counted
    assert survey.phrases == phrases and survey.undercount == 0
    for split in ("train", "test"):
        chosen = [example for example, part in records if part == split]
        if chosen:
            assert vars(survey.splits[split]) == {
                "records": len(chosen), "captions": sum(len(example["captions"]) for example in chosen),
                "phrases": sum(len(example["phrases"]) for example in chosen),
                "captions_without_phrase": sum(i not in example["phrase_caption"] for example in chosen
                                               for i, _ in enumerate(example["captions"]))}
    assert survey.total().records == len(records)


@given(datasets(), st.data())
def test_parts_merged_equal_one_pass(records, data):
    """However they are cut, merged at once or by way of JSON, in whichever order."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(records)), max_size=4)))
    parts = [surveyed(records[start:end]) for start, end in zip([0, *cuts], [*cuts, len(records)], strict=True)]
    merged = Survey()
    for part in data.draw(st.permutations(parts)):
        as_json = data.draw(st.booleans())
        merged.merge(Survey.from_json(json.loads(as_text(part))) if as_json else part)
    assert as_text(merged) == as_text(surveyed(records))


@given(datasets())
def test_json_gives_back_the_survey(records):
    survey = surveyed(records)
    values = survey.to_json()
    again = Survey.from_json(values)
    assert again == survey
    again.merge(survey)
    assert values == survey.to_json()                                   # a merge leaves both sources as they were


def test_samples_are_a_uniform_choice_whose_broken_images_are_passed_over():
    records = [(plain(i, "a dog", image=IMAGES[2 if i % 4 == 0 else 0]), "train") for i in range(2000)]
    survey = surveyed(records)
    shuffled = records[:]
    random.Random(0).shuffle(shuffled)
    shown = survey.shown(20)
    assert [sample.key for sample in surveyed(shuffled).shown(20)] == [sample.key for sample in shown]
    numbers = [int(sample.key[1:]) for sample in shown]
    assert len(set(numbers)) == 20 and all(number % 4 for number in numbers)
    assert min(numbers) < 500 and max(numbers) > 1500
    for sample in shown:
        with Image.open(io.BytesIO(sample.image)) as image:
            assert image.format == "JPEG"


def test_small_images_are_kept_as_they_are_in_json():
    records = [(plain(i, "a dog", image=image), "train") for i, image in enumerate([IMAGES[0], b"broken", b""])]
    survey = Survey.from_json(json.loads(as_text(surveyed(records))))
    assert {sample.image for sample in survey.samples} == {IMAGES[0], b"broken", b""}
    [sample] = survey.shown(3)
    assert Image.open(io.BytesIO(sample.image)).size == (8, 6) and sample.is_thumbnail


def test_thumbnails_are_small_and_made_early_for_large_images(monkeypatch):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8))
    records = [(plain(i, "a dog", image=image), "train") for i, image in enumerate([encode(noise, "PNG"), b"broken"])]
    late = surveyed(records)
    monkeypatch.setattr(surveying, "LARGE", 3)
    monkeypatch.setattr(surveying, "SMALL", 2)
    early = surveyed(records)
    assert all(sample.is_thumbnail for sample in early.samples) and as_text(early) == as_text(late)
    [sample] = late.shown(2)
    assert Image.open(io.BytesIO(sample.image)).size == (320, 240) and len(sample.image) < 100_000


@pytest.mark.parametrize("by_parts", [False, True])
def test_rare_phrases_without_end_take_bounded_room_and_counts_stay_within_their_error(by_parts):
    """300 000 different ones, and among them common ones."""
    true, parts, survey = Counter(), [Survey() for _ in range(3)], Survey()
    for i in range(100_000):
        phrases = [f"rare {j}" for j in range(3 * i, 3 * i + 3)] + [f"common {i % 7}"] + ["dog"] * (i % 2)
        true.update(phrases)
        (parts[i * 3 // 100_000] if by_parts else survey).add(plain(i, *phrases), "train")
    for part in parts if by_parts else []:
        assert len(part.phrases) <= surveying.MAX_DISTINCT
        survey.merge(Survey.from_json(part.to_json()))
    assert len(survey.phrases) <= surveying.MAX_DISTINCT and len(as_text(survey)) < 5_000_000
    assert 0 < survey.undercount < 20
    assert all(count <= true[phrase] <= count + survey.undercount for phrase, count in survey.phrases.items())
    assert all(count <= survey.undercount for phrase, count in true.items() if phrase not in survey.phrases)
    assert [phrase for phrase, _ in survey.commonest(8)] == ["dog", *(f"common {i}" for i in range(7))]


def test_long_records_are_cut(monkeypatch):
    captions = ["x " * 5000] * 1000
    long = {"key": "k" * 10**6, "image": IMAGES[0], "captions": captions, "phrases": ["y" * 9000] * 2000,
            "phrase_caption": [i % 1000 for i in range(2000)], "phrase_start": [0] * 2000, "phrase_end": [9000] * 2000}
    survey = surveyed([(long, "train")])
    assert survey.total().captions == 1000 and survey.caption_words[-1] == 1000 and survey.phrases_per_caption[2] == 1000
    assert len(as_text(survey)) < 20_000 and survey.samples[0].more_captions == 995


def test_records_without_places_are_taken():
    record = {name: value for name, value in plain(1, "red dog").items() if name not in ("phrase_start", "phrase_end")}
    survey = surveyed([(record, "train")])
    assert survey.samples[0].phrases == [[["red dog", None, None]]] and survey.phrases == {"red dog": 1}
