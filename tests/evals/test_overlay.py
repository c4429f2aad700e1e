"""Attention drawn over the picture: its scale, its shape, and the examples of a dataset."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_jax.data import dataset
from cc_jax.evals.attention import phrase_attention
from cc_jax.evals.overlay import SHADE, examples, overlay
from cc_jax.saved import open_run


@pytest.fixture(scope="module")
def run(tiny_run):
    return open_run(str(tiny_run))


@pytest.fixture(scope="module")
def source(run):
    return dataset.open_split(run.config.data.dir, "test")


def test_the_phrase_that_attends_most_sets_the_scale_for_all():
    attention = np.full((2, 4, 4), 1 / 16)
    attention[0, 0, 0], attention[1, 3, 3] = 9 / 16, 5 / 16     # 8 and 4 above an even spread
    white = np.full((4, 4, 3), 255, np.uint8)
    drawn = overlay(white, attention, size=64)
    assert (drawn[0, 0, 0] == 255).all()
    np.testing.assert_array_equal(overlay(white, attention, size=64, peak=9), drawn)    # 9 times an even spread
    between = drawn[1, -1, -1].astype(float)
    darkest = drawn[0, -1, -1].astype(float)
    np.testing.assert_allclose(between, (255 + darkest) / 2, atol=1)
    assert (darkest < 80).all() and (darkest > SHADE).all()     # faded, not gone


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_drawn_map_keeps_the_aspect_and_never_outshines_the_picture(height, width, patches, seed):
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), rng.integers(40, 256, 3), np.uint8)
    attention = rng.dirichlet(np.ones(patches * patches), size=2).reshape(2, patches, patches)
    drawn = overlay(picture, attention, size=100)
    _, tall, wide, _ = drawn.shape
    assert drawn.dtype == np.uint8 and len(drawn) == 2 and max(tall, wide) == 100
    assert abs(tall * width - wide * height) <= max(height, width) / 2 or min(tall, wide) == 1
    assert (drawn <= picture[0, 0]).all() and (drawn >= SHADE).all()


def test_examples_share_their_scale_between_runs(run, source):
    two = examples({"a": run, "b": run}, source, 2)
    assert len(two) == 2
    for example, record in zip(two, [source[0], source[1]], strict=True):
        assert example.caption == record["captions"][0].decode()
        assert len(example.phrases) >= 2 and set(example.phrases) <= {phrase.decode() for phrase in record["phrases"]}
        np.testing.assert_array_equal(example.overlays["a"], example.overlays["b"])
        attention = phrase_attention(run, record["image"], example.phrases)
        assert example.peak == pytest.approx(attention.max() * attention[0].size, rel=1e-4)


def test_images_whose_caption_has_one_phrase_are_passed_over(run, source):
    single = source[0] | {"phrases": source[0]["phrases"][:1], "phrase_caption": [0]}
    chosen = examples({"a": run}, [single, source[1], single], 3)
    assert [example.caption for example in chosen] == [source[1]["captions"][0].decode()]
