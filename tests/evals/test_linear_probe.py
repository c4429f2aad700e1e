"""The probe's optimum by its gradient and by another method; what is held out; the evaluator."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from cc_jax.config import Config, ConfigError
from cc_jax.evals import linear_probe, registry

from .conftest import unit


def problem(seed, count=60, width=5, classes=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    centres = rng.normal(size=(classes, width))
    return unit(3 + centres[labels] + rng.normal(size=(count, width))), labels      # 3: a large part in common


def loss(weights, bias, features, labels, l2):
    """By the formula, in float64."""
    logits = features.astype(np.float64) @ weights + bias
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]) + l2 / 2 * np.sum(weights**2)


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from([1e-1, 1e-3, 1e-5]))
def test_the_gradient_of_the_objective_is_zero(seed, l2):
    features, labels = problem(seed)
    weights, bias = linear_probe.fit(features, labels, 3, l2)
    x = features.astype(np.float64)
    exponential = np.exp(x @ weights + bias)
    error = (exponential / exponential.sum(axis=1, keepdims=True) - np.eye(3)[labels]) / len(labels)
    assert np.abs(x.T @ error + l2 * weights).max() < 1e-5
    assert np.abs(error.sum(axis=0)).max() < 1e-5


def test_another_method_finds_no_better():
    features, labels = problem(7)
    weights, bias = linear_probe.fit(features, labels, 3, 1e-3)
    objective = lambda flat: loss(flat[3:].reshape(5, 3), flat[:3], features, labels, 1e-3)
    other = minimize(objective, np.zeros(18), method="BFGS")
    assert other.fun - 1e-6 < loss(weights, bias, features, labels, 1e-3) < other.fun + 1e-9
    np.testing.assert_allclose(weights, other.x[3:].reshape(5, 3), atol=0.02)


def test_many_rows_and_a_start_elsewhere_give_the_same(monkeypatch):
    features, labels = problem(3)
    weights, bias = linear_probe.fit(features, labels, 3, 1e-3)
    again = linear_probe.fit(features, labels, 3, 1e-3)
    np.testing.assert_array_equal(weights, again[0])
    monkeypatch.setattr(linear_probe, "ROWS", 7)
    start = np.random.default_rng(0).normal(size=(5, 3)), np.ones(3)
    np.testing.assert_allclose(linear_probe.fit(features, labels, 3, 1e-3, start)[0], weights, atol=5e-3)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_every_fifth_of_a_class_is_held_out(labels):
    seen, expected = {}, []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        expected.append(seen[label] % 5 == 0)
    assert linear_probe.held_out(np.array(labels)).tolist() == expected


def test_the_penalty_is_the_one_that_is_right_on_most_held_out():
    features, labels = problem(11, count=80)
    held = linear_probe.held_out(labels)
    shares = []
    for l2 in linear_probe.L2S:
        weights, bias = linear_probe.fit(features[~held], labels[~held], 3, l2, tolerance=1e-5)
        shares.append(np.mean(np.argmax(features[held] @ weights + bias, axis=1) == labels[held]))
    assert linear_probe.choose_l2(features, labels, 3) == linear_probe.L2S[int(np.argmax(shares))]
    with pytest.raises(ConfigError, match="no class has 5 images"):
        linear_probe.choose_l2(features[:4], labels[:4], 3)


def test_a_probe_tells_colours_apart(folder, colours, monkeypatch):
    used = []
    fit = linear_probe.fit
    monkeypatch.setattr(linear_probe, "fit", lambda *given: used.append(given[3]) or fit(*given))
    train = folder("train", a=["red", (250, 10, 0), (200, 0, 30), (255, 60, 60), (180, 0, 0)],
                   b=["blue", (0, 0, 200), (30, 10, 220), (60, 60, 255), (0, 30, 180)])
    test = folder("test", a=[(230, 0, 10), "blue"], b=[(10, 0, 240)])
    for l2, expected in (({}, [*linear_probe.L2S, linear_probe.L2S[0]]), ({"l2": 0.003}, [0.003])):
        used.clear()
        result = registry.make(Config(dict(type="linear_probe", train=train, test=test, every=3, **l2)))(colours)
        assert used == expected
        assert result.outcomes["top1"].right.tolist() == [1, 0, 1]
        assert result.scores()["mean_per_class"] == 0.75


def test_what_does_not_fit_is_refused(folder):
    train, test = folder("train", a=["red"], b=["blue"]), folder("test", a=["red"], c=["blue"])
    with pytest.raises(ConfigError, match="differ in their classes: 'b' is in one only"):
        linear_probe.make(train, test)
    with pytest.raises(ConfigError, match="l2=0 of a linear probe"):
        linear_probe.make(train, train, l2=0)
