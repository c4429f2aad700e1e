"""Intervals and paired tests against their definitions."""
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cc_jax.evals.compare import compare, holm, mcnemar, resampled
from cc_jax.evals.result import Outcomes, Result


def result(means=(), **categories):
    outcomes = {name: Outcomes([str(i) for i in range(len(right))], right, 0.5) for name, right in categories.items()}
    return Result(outcomes, 1, 1, means={"macro": list(categories)}, pooled={"micro": list(categories)})


@given(st.integers(0, 9), st.integers(0, 9))
def test_mcnemar_is_the_binomial_test_of_the_discordant_items(gained, lost):
    tails = [sum(flips) for flips in itertools.product((0, 1), repeat=gained + lost)] if gained + lost < 10 else None
    if tails is None:
        expected = stats.binomtest(gained, gained + lost).pvalue
    else:
        least = min(gained, lost)
        expected = min(1.0, np.mean([min(each, gained + lost - each) <= least for each in tails]))
    assert mcnemar(gained, lost) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_multiplies_the_smallest_by_all_and_keeps_the_order(p):
    named = {str(i): each for i, each in enumerate(p)}
    corrected = holm(named)
    ordered = sorted(named, key=named.get)
    for i, name in enumerate(ordered):
        expected = max(min(1.0, (len(p) - j) * named[ordered[j]]) for j in range(i + 1))
        assert corrected[name] == pytest.approx(expected)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng, covered = np.random.default_rng(0), []
    for _ in range(200):
        row = compare({"a": result(all=rng.random(80) < 0.7)}, draws=300)[0]
        covered.append(row.scores["a"].low <= 0.7 <= row.scores["a"].high)
    assert 0.88 <= np.mean(covered) <= 0.99


def test_items_of_one_image_are_drawn_together():
    """40 images with 10 items each that agree: the spread is that of 40, not of 400."""
    right = np.repeat(np.random.default_rng(0).random(40) < 0.5, 10)
    ids = [str(i) for i in range(400)]
    together = Result({"a": Outcomes(ids, right, clusters=np.repeat(ids[:40], 10).tolist())}, 400, 400)
    apart = Result({"a": Outcomes(ids, right)}, 400, 400)
    spread = {name: resampled({name: each}, 2000, 0)[name]["a"].std()
              for name, each in (("together", together), ("apart", apart))}
    p = right.mean()
    assert spread["together"] == pytest.approx(np.sqrt(p * (1 - p) / 40), rel=0.1)
    assert spread["apart"] == pytest.approx(np.sqrt(p * (1 - p) / 400), rel=0.1)


def test_the_spread_of_means_is_that_of_independent_categories():
    rng = np.random.default_rng(1)
    outcomes = {name: Outcomes([f"{name}{i}" for i in range(n)], rng.random(n) < 0.6) for name, n in (("a", 50), ("b", 150))}
    one = Result(outcomes, 200, 200, means={"macro": ["a", "b"]}, pooled={"micro": ["a", "b"]})
    drawn, values = resampled({"": one}, 4000, 0)[""], one.scores()
    variance = lambda name, n: values[name] * (1 - values[name]) / n
    assert drawn["macro"].std() == pytest.approx(np.sqrt(variance("a", 50) + variance("b", 150)) / 2, rel=0.15)
    assert drawn["micro"].std() == pytest.approx(np.sqrt(variance("micro", 200)), rel=0.1)
    assert drawn["macro"].mean() == pytest.approx(values["macro"], abs=0.01)


def test_noise_is_not_called_a_difference_and_a_difference_is():
    rng = np.random.default_rng(0)
    base = rng.random(400) < 0.6
    flipped = np.where(rng.random(400) < 0.1, ~base, base)      # as often for the better as for the worse
    better = base | (rng.random(400) < 0.3)
    compared = compare({"first": result(x=base), "noise": result(x=flipped), "better": result(x=better)})
    rows = {row.name: row for row in compared}
    row = rows["x"]
    assert list(row.differences) == ["noise", "better"] and row.chance == 0.5 and row.items == 400
    assert not row.differences["noise"].certain and row.differences["better"].certain
    assert row.differences["better"].lost == 0 and row.differences["better"].gained == (better & ~base).sum()
    assert row.differences["better"].value == pytest.approx(better.mean() - base.mean())
    assert rows["macro"].differences["better"].certain and rows["macro"].differences["better"].p is None
    assert rows["micro"].differences["better"].p == row.differences["better"].p


def test_a_paired_difference_is_narrower_than_two_intervals_apart():
    rng = np.random.default_rng(0)
    base = rng.random(1000) < 0.6
    better = base.copy()
    better[np.flatnonzero(~base)[:12]] = True
    row = compare({"a": result(x=base), "b": result(x=better)})[0]
    assert row.scores["a"].high > row.scores["b"].low and row.differences["b"].certain


def test_all_right_is_not_certainly_all_right():
    row = compare({"a": result(x=np.ones(20), y=np.zeros(20))})
    assert row[0].scores["a"].low == pytest.approx(0.025 ** (1 / 20)) and row[0].scores["a"].high == 1      # about 0.83
    assert row[1].scores["a"].low == 0 and row[1].scores["a"].high == pytest.approx(1 - 0.025 ** (1 / 20))


def test_items_that_are_more_or_less_right_have_no_test_but_intervals():
    rng = np.random.default_rng(0)
    shares = rng.random(50)
    [row, *_] = compare({"a": result(x=shares), "b": result(x=shares + 0.1)})
    found = row.differences["b"]
    assert found.p is None and (found.gained, found.lost) == (0, 0) and found.certain
    assert found.low == pytest.approx(0.1) and found.high == pytest.approx(0.1)


def test_models_on_other_items_are_not_compared():
    with pytest.raises(ValueError, match="other items of 'x'"):
        compare({"a": result(x=[1, 0]), "b": result(x=[1, 0, 1])})
    with pytest.raises(ValueError, match="other items of 'y'"):
        compare({"a": result(x=[1, 0]), "b": result(x=[1, 0], y=[1])})
