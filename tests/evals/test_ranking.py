"""Ranks against a brute-force ranking in float64, ties included."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_jax.evals.ranking import ranks


def brute(images, texts, owner):
    """By definition, in float64: what is as similar comes before."""
    table = images.astype(np.float64) @ texts.T.astype(np.float64)
    best = np.array([max(table[i, owner == i], default=-np.inf) for i in range(len(images))])
    at_least = table >= best[:, None] - 1e-12
    to_text = np.sum(at_least & (owner != np.arange(len(images))[:, None]), axis=1)
    own = table[owner, np.arange(len(texts))]
    return to_text, np.sum(table >= own - 1e-12, axis=0) - 1


def unit(rng, count, width):
    vectors = rng.standard_normal((count, width), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 14), st.integers(0, 3), st.booleans(), st.sampled_from([1, 3, 100]))
def test_ranks_equal_a_brute_force_ranking(seed, count, most, coarse, chunk):
    rng = np.random.default_rng(seed)
    owner = rng.permutation(np.repeat(np.arange(count), rng.integers(0, most + 1, count)))      # in any order, or none
    # coarse: small whole numbers, so that there are ties
    draw = (lambda *shape: rng.integers(-1, 2, shape).astype(np.float32)) if coarse else lambda *shape: unit(rng, *shape)
    images, texts = draw(count, 4), draw(len(owner), 4)
    for found, expected in zip(ranks(images, texts, owner, chunk), brute(images, texts, owner), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4, 1e-6])
def test_similarities_closer_than_float32_can_tell_are_ranked_as_in_float64(spread):
    """Embeddings of an untrained model, all nearly alike; and at 1e-4 many, at 1e-6 all are close."""
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(60), 5)
    common = unit(rng, 1, 768)
    images, texts = (np.float32(common + spread * unit(rng, n, 768)) for n in (60, 300))
    for found, expected in zip(ranks(images, texts, owner, 16), brute(images, texts, owner), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_equal_embeddings_tie_wherever_they_stand():
    """A matrix product in float32 rounds one product in several ways, by its place."""
    rng = np.random.default_rng(0)
    images, texts = unit(rng, 137, 768), unit(rng, 411, 768)
    owner = np.repeat(np.arange(137), 3)
    twins = rng.permutation(137)[:20].reshape(10, 2)
    images[twins[:, 1]] = images[twins[:, 0]]
    for one, other in twins:
        texts[owner == one] = texts[owner == other] = images[one] + 0.1 * unit(rng, 1, 768)
    image_rank, text_rank = ranks(images, texts, owner)
    np.testing.assert_array_equal(image_rank[twins], 3)                                 # the other's three captions
    np.testing.assert_array_equal(text_rank[np.isin(owner, twins)], 1)                  # the other


@pytest.mark.parametrize("width", [4, 768])
def test_a_model_that_gives_everything_one_embedding_ranks_nothing_first(width):
    constant = np.repeat(unit(np.random.default_rng(1), 1, width), 20, axis=0)
    image_rank, text_rank = ranks(constant, constant, np.arange(20), 7)
    assert set(image_rank) == set(text_rank) == {19}


def test_what_is_not_a_number_is_never_right():
    rng = np.random.default_rng(2)
    images, texts = unit(rng, 12, 8), unit(rng, 24, 8)
    texts[5] = np.nan
    image_rank, text_rank = ranks(images, texts, np.repeat(np.arange(12), 2))
    assert image_rank.min() > 10 and text_rank.min() > 10
