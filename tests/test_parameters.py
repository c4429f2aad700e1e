"""What is said of a model's parameters, against numpy on arrays made by hand, and on a run's checkpoint."""
import re

import jax
import numpy as np
import pytest

from cc_jax import parameters
from cc_jax.saved import open_run

rng = np.random.default_rng(0)
PARAMS = {f"img/encoderblock_{i}/kernel": rng.normal(size=(4, 5)).astype(np.float32) for i in (10, 2, 0)} | {
    "img/encoderblock_2/bias": np.ones(5, np.float32), "t": np.array([2.0], np.float32)}


def test_a_module_sums_up_its_parameters():
    found = {each.name: each for each in parameters.summarise(PARAMS, depth=2)}
    assert list(found) == ["img/encoderblock_0", "img/encoderblock_2", "img/encoderblock_10", "t"]    # by number
    both = np.concatenate([PARAMS["img/encoderblock_2/kernel"].ravel(), np.ones(5)])
    two = found["img/encoderblock_2"]
    assert (two.shape, two.count) == ("2 arrays", 25)
    assert two.norm == pytest.approx(np.linalg.norm(both)) and two.mean == pytest.approx(both.mean())
    assert two.rms == pytest.approx(np.sqrt(np.mean(both**2)))


def test_each_parameter_has_a_line_with_its_shape_and_the_table_their_number():
    lines = parameters.table(parameters.summarise(PARAMS)).splitlines()
    assert len(lines) == len(PARAMS) + 2
    assert re.match(r"img/encoderblock_10/kernel +\(4, 5\) +20 ", lines[4])
    assert re.match(r"parameters in all +66 ", lines[-1])


def test_positions_that_are_alike_have_a_cosine_of_one():
    same, other = rng.normal(size=8), rng.normal(size=8)
    cosines = parameters.position_similarity(np.stack([same, same, other, other])[None] + 5)
    np.testing.assert_allclose(cosines, [[1, 1, -1, -1], [1, 1, -1, -1], [-1, -1, 1, 1], [-1, -1, 1, 1]], atol=1e-6)
    assert np.all(parameters.position_similarity(np.ones((1, 3, 8))) == 0)     # nothing but what they share


def test_changes_are_relative_and_the_most_moved_comes_first():
    before = {"a": np.array([3.0, 4.0]), "b": np.zeros(2), "c": np.ones(2), "d": np.zeros(1)}
    after = {"a": np.array([3.0, 3.0]), "b": np.ones(2), "c": np.ones(2) * 3, "d": np.zeros(1)}
    assert list(parameters.changes(before, after).items()) == [("b", np.inf), ("c", 2.0), ("a", 0.2), ("d", 0.0)]


def test_other_architectures_are_not_compared():
    with pytest.raises(ValueError, match=r"1 differ, such as a \(\(2,\) before, \(3,\) after\)"):
        parameters.changes({"a": np.ones(2)}, {"a": np.ones(3)})
    with pytest.raises(ValueError, match=r"such as a \(\(2,\) before, absent after\)"):
        parameters.changes({"a": np.ones(2)}, {})


def test_a_runs_parameters_are_read_by_step(tiny_run):
    newest, run = parameters.read(str(tiny_run)), open_run(str(tiny_run))
    assert sum(each.size for each in newest.values()) == sum(leaf.size for leaf in jax.tree.leaves(run.params))
    np.testing.assert_array_equal(newest["img/pos_embedding"], run.params["img"]["pos_embedding"])
    older = parameters.read(f"{tiny_run}@{run.step - 2}")
    assert older.keys() == newest.keys() and any(np.any(older[name] != newest[name]) for name in older)
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 1 in"):
        parameters.read(f"{tiny_run}@1")
