"""Recall against a brute-force ranking, ties included."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_jax.evals import retrieval


def brute(images, texts, owner, k):
    """Ranks by sorting, written out: a tie is resolved against the model."""
    similarity = images @ texts.T
    to_text = [any(sum(similarity[i, u] >= similarity[i, t] for u in range(len(texts)) if owner[u] != i) < k
                   for t in range(len(texts)) if owner[t] == i) for i in range(len(images))]
    to_image = [sum(similarity[j, t] >= similarity[owner[t], t] for j in range(len(images)) if j != owner[t]) < k
                for t in range(len(texts))]
    return np.mean(to_text), np.mean(to_image)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 14), st.integers(1, 3), st.booleans(), st.sampled_from([1, 3, 100]))
def test_recalls_equal_a_brute_force_ranking(seed, count, most, coarse, chunk):
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(count), rng.integers(1, most + 1, count))
    # coarse: small whole numbers, so that there are ties
    draw = (lambda *shape: rng.integers(-1, 2, shape).astype(float)) if coarse else rng.normal
    images, texts = (draw(n, 4) if coarse else draw(size=(n, 4)) for n in (count, len(owner)))
    scores = retrieval.result(*retrieval.ranks(images, texts, owner, chunk), owner).scores()
    for k in retrieval.RECALLS:
        to_text, to_image = brute(images, texts, owner, k)
        assert scores[f"image_to_text@{k}"] == pytest.approx(to_text)
        assert scores[f"text_to_image@{k}"] == pytest.approx(to_image)


def test_a_model_that_gives_everything_one_embedding_retrieves_nothing():
    constant = np.ones((20, 4))
    result = retrieval.result(*retrieval.ranks(constant, constant, np.arange(20)), np.arange(20))
    assert {outcomes.score for outcomes in result.outcomes.values()} == {0.0}


def test_the_evaluator_reads_a_prepared_dataset(shapes_dir):
    class Oracle:
        """Embeds the i-th image and its captions as the i-th unit vector."""
        def images(self, files):
            return np.eye(len(list(files)))

        def texts(self, texts):
            return np.repeat(np.eye(len(texts) // 2), 2, axis=0)

    scores = retrieval.make(str(shapes_dir), "test", limit=10)(Oracle()).scores()
    assert (scores.pop("items"), scores.pop("expected")) == (10, 10)
    assert scores == {f"{way}@{k}": 1.0 for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
