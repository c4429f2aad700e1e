"""Evaluations on weights between a start and a run's."""
import numpy as np
import pytest

from cc_jax.config import Config, ConfigError
from cc_jax.evals import interpolated, registry
from cc_jax.evals.embedder import Embedder
from cc_jax.evals.result import Outcomes, Result


def embedder(params):
    return Embedder(images=None, texts=None, params=params, at=embedder)


def test_each_alpha_is_evaluated_once_on_the_weights_between(monkeypatch):
    start, end = {"a": np.float32([0, 4])}, {"a": np.float32([1, 2])}
    monkeypatch.setattr(interpolated.formats, "load", lambda path, like: (start, []))
    outcomes = lambda given: {name: Outcomes(["0"], given.params["a"][i:][:1]) for i, name in enumerate(("first", "last"))}
    evaluator = lambda given: Result(outcomes(given), 1, 1, means={"mean": ["first", "last"]})
    sweep = interpolated.make(evaluator, "x.npz", (0, 0.25, 1.0))
    assert sweep(embedder(end)).scores() == {"items": 3, "expected": 3, "0.00/mean": 2, "0.25/mean": 1.875, "1.00/mean": 1.5,
                                             "0.00/first": 0, "0.00/last": 4, "0.25/first": 0.25, "0.25/last": 3.5,
                                    "1.00/first": 1, "1.00/last": 2}


def test_a_config_names_the_evaluation_within(shapes_dir):
    block = dict(type="interpolated", every=3, start="x.npz", alphas=[0.5],
                 of=dict(type="retrieval", dir=str(shapes_dir), limit=4))
    assert callable(registry.make(Config(block)))
    with pytest.raises(ConfigError, match="nothing reads evals.of.dri"):
        registry.make(Config(block | {"of": {"type": "retrieval", "dri": "x"}}))
    with pytest.raises(ConfigError, match=r"alphas=\[2\]"):
        registry.make(Config(block | {"alphas": [2]}))
