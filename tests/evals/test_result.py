"""Scores and means of outcomes, item by item."""
import numpy as np
import pytest

from cc_jax.evals.result import Outcomes, Result, joined


def outcomes(*right):
    return Outcomes([str(i) for i in range(len(right))], np.array(right, bool))


def test_macro_counts_categories_alike_and_micro_items():
    both = ["a", "b"]
    result = Result({"a": outcomes(1, 1, 1), "b": outcomes(0)}, 4, 5, means={"macro": both}, pooled={"micro": both})
    assert result.scores() == {"a": 1, "b": 0, "macro": 0.5, "micro": 0.75, "items": 4, "expected": 5}
    both = joined({"x": result, "y": result}).scores()
    assert both["x/macro"] == 0.5 and both["y/micro"] == 0.75 and both["expected"] == 10


def test_ids_that_do_not_tell_items_apart_are_refused():
    with pytest.raises(ValueError, match="one id"):
        Outcomes(["a", "a"], np.ones(2))
    with pytest.raises(ValueError, match="2 ids, but 3 of right"):
        Outcomes(["a", "b"], np.ones(3))
    with pytest.raises(ValueError, match="1 of clusters"):
        Outcomes(["a", "b"], np.ones(2), clusters=["a"])
