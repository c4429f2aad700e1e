"""Phrase attention against a softmax written out in float64, and what is drawn of it."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_jax.data import dataset
from cc_jax.data.transforms import decode, resize
from cc_jax.evals.attention import SHADE, examples, overlay, phrase_attention
from cc_jax.saved import open_run

PHRASES = ["red circle", "small green square", "cross"]


@pytest.fixture(scope="module")
def run(tiny_run):
    return open_run(str(tiny_run))


@pytest.fixture(scope="module")
def source(run):
    return dataset.open_split(run.config.data.dir, "test")


def test_attention_is_the_softmax_of_cosines_with_concept_tokens(run, source):
    image = source[0]["image"]
    pixels = jnp.asarray(resize(decode(image), run.res), jnp.float32)[None] / 127.5 - 1
    text = run.tokenizer.encode(PHRASES, run.model.text["length"])
    forward = jax.jit(lambda pixels, text: run.model.apply({"params": run.params}, pixels, text, want_tokens=True))
    _, phrases, out = forward(pixels, text)
    tokens, phrases = np.asarray(out["concept_tokens"][0], np.float64), np.asarray(phrases, np.float64)
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=1), 1, rtol=1e-5)
    exponential = np.exp(phrases @ tokens.T)
    expected = exponential / exponential.sum(axis=1, keepdims=True)

    attention = phrase_attention(run, image, PHRASES)

    patch = run.params["img"]["embedding"]["kernel"].shape[0]
    assert attention.shape == (3, run.res // patch, run.res // patch)
    np.testing.assert_allclose(attention.reshape(3, -1), expected, rtol=1e-4)


def test_attention_to_no_phrase_is_an_error(run, source):
    with pytest.raises(ValueError, match="at least one"):
        phrase_attention(run, source[0]["image"], [])


def test_the_phrase_that_attends_most_sets_the_scale_for_all():
    attention = np.full((2, 4, 4), 1 / 16)
    attention[0, 0, 0], attention[1, 3, 3] = 9 / 16, 5 / 16     # 8 and 4 above an even spread
    white = np.full((4, 4, 3), 255, np.uint8)
    drawn = overlay(white, attention, size=64)
    assert (drawn[0, 0, 0] == 255).all()
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
