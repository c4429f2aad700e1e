"""k nearest neighbours against a vote written out; ties; the evaluator."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_jax.config import Config, ConfigError
from cc_jax.evals import knn, registry

from .conftest import unit


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([None, 0.07, 1e-3]), st.booleans())
def test_votes_are_those_of_the_k_nearest(seed, k, temperature, coarse):
    rng = np.random.default_rng(seed)
    draw = lambda n: unit(rng.integers(1, 3, (n, 2)) if coarse else rng.normal(size=(n, 4)))      # coarse: many are equal
    queries, bank, labels = draw(7), draw(12), rng.integers(0, 3, 12)
    table = np.asarray(queries @ bank.T)
    expected = np.zeros((7, 3))
    for i, row in enumerate(table):
        nearest = sorted(range(12), key=lambda j: (-row[j], j))[:k]
        for j in nearest:
            expected[i, labels[j]] += 1 if temperature is None else np.exp((row[j] - row[nearest[0]]) / temperature)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(knn, "TABLE", 25)                             # two queries at once
        np.testing.assert_allclose(knn.votes(queries, bank, labels, 3, k, temperature), expected, rtol=2e-3, atol=1e-9)


def test_neighbours_vote_for_colours(folder, colours):
    train = folder("train", a=["red", (250, 10, 0), (255, 0, 30)], b=["blue", (0, 0, 250)], c=["green"])
    test = folder("test", a=[(240, 0, 10), "green"], b=[(10, 0, 240)], c=["white"])
    block = dict(type="knn", train=train, test=test, every=3)
    result = registry.make(Config(block | {"k": 1}))(colours)
    assert result.outcomes["top1"].right[:3].tolist() == [1, 0, 1]
    # Of all six neighbours, three are of class a: the majority whatever the query.
    plain = registry.make(Config(block | {"k": 6, "temperature": None}))(colours)
    assert plain.outcomes["top1"].right.tolist() == [1, 1, 0, 0]


def test_a_tie_is_no_win_and_a_class_without_a_vote_none_of_five(folder, colours):
    names = "abcdef"
    train = folder("train", **{name: ["red"] for name in names})
    result = knn.make(train, train, k=2, temperature=None)(colours)     # all are equal: a and b, the first, vote
    assert result.outcomes["top1"].right.tolist() == [0] * 6
    assert result.outcomes["top5"].right.tolist() == [1, 1, 0, 0, 0, 0]


def test_what_does_not_fit_is_refused(folder):
    train = folder("train", a=["red"], b=["blue"])
    with pytest.raises(ConfigError, match="k=3 of a k-NN on 2 images"):
        knn.make(train, train, k=3)
    with pytest.raises(ConfigError, match="temperature=0"):
        knn.make(train, train, k=1, temperature=0)
