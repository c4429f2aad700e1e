"""Attention against softmaxes written out in float64."""
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cc_jax.data import dataset
from cc_jax.data.transforms import decode, resize
from cc_jax.evals import attention
from cc_jax.evals.attention import phrase_attention
from cc_jax.models.two_towers import TwoTowers
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

    maps = phrase_attention(run, image, PHRASES)

    patch = run.params["img"]["embedding"]["kernel"].shape[0]
    assert maps.shape == (3, run.res // patch, run.res // patch)
    np.testing.assert_allclose(maps.reshape(3, -1), expected, rtol=1e-4)


def test_attention_to_no_phrase_is_an_error(run, source):
    with pytest.raises(ValueError, match="at least one"):
        phrase_attention(run, source[0]["image"], [])


def test_the_map_heads_attention_is_the_mean_of_its_heads(run, source):
    """Of the very weights that flax's own attention says it used, on the tower's tokens."""
    image = source[1]["image"]
    pixels = jnp.asarray(resize(decode(image), run.res), jnp.float32)[None] / 127.5 - 1
    _, _, out = run.model.apply({"params": run.params}, pixels, None)
    head = run.params["img"]["MAPHead_0"]
    peer = nn.MultiHeadDotProductAttention(num_heads=out["img/map_attention"].shape[1])
    _, sown = peer.apply({"params": head["MultiHeadDotProductAttention_0"]}, head["probe"], out["img/encoded"],
                         sow_weights=True, mutable=["intermediates"])
    [weights] = sown["intermediates"]["attention_weights"]
    pooling = attention.make(run)(image, PHRASES).pooling
    np.testing.assert_allclose(pooling.ravel(), np.asarray(weights)[0, :, 0].mean(0), rtol=1e-4)
    assert pooling.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("pool", ["gap", "tok"])
def test_a_tower_without_a_map_head_has_phrases_maps_alone(run, source, pool):
    image = dict(run.model.image, pool=pool)
    model = TwoTowers(**{"image": image, "text": run.model.text})
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, run.res, run.res, 3)),
                                 jnp.ones((1, run.model.text["length"]), jnp.int32))["params"]
    maps = attention.make(replace(run, model=model, params=params))(source[0]["image"], PHRASES)
    assert maps.pooling is None and maps.phrases.shape == (3, 3, 3)
    np.testing.assert_allclose(maps.phrases.sum((1, 2)), 1, rtol=1e-5)


def test_a_temperature_of_the_run_sharpens_the_attention(run, source):
    values = run.config.as_dict()
    sharp = replace(run, config=type(run.config)(values | {"concepts": values["concepts"] | {"temperature": 0.5}}))
    flat, sharper = (phrase_attention(each, source[0]["image"], PHRASES) for each in (run, sharp))
    squared = flat**2
    np.testing.assert_allclose(sharper, squared / squared.sum((1, 2), keepdims=True), rtol=1e-4)
