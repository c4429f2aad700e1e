"""Weights between two models, by the formula; and what has nothing between."""
import numpy as np
import pytest

from cc_jax.convert.interpolate import interpolate
from cc_jax.convert.weights import Lazy, Weights, WeightsError


def weights(seed: int, size: int = 3, tokenizer: bytes = b"same", **facts) -> Weights:
    rng = np.random.default_rng(seed)
    return Weights({name: Lazy.of(rng.normal(size=size).astype(np.float32)) for name in ("a", "b")}, f"model {seed}",
                   tokenizer={"spiece.model": tokenizer}, **facts)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_each_parameter_lies_between(alpha):
    start, end = weights(0), weights(1)
    mixed = interpolate(start, end, alpha)
    for name in ("a", "b"):
        x, y = np.float64(start.params[name].read()), np.float64(end.params[name].read())
        np.testing.assert_allclose(mixed.params[name].read(), (1 - alpha) * x + alpha * y, rtol=1e-6)
        assert mixed.params[name].read().dtype == np.float32
        if alpha in (0, 1):
            np.testing.assert_array_equal(mixed.params[name].read(), (end if alpha else start).params[name].read())
    assert mixed.where == f"{alpha:g} of the way from model 0 to model 1"


@pytest.mark.parametrize(("other", "alpha", "message"), [
    (weights(1, size=4), 0.5, "does not fit"), (weights(1, tokenizer=b"other"), 0.5, "different tokenizers"),
    (weights(1, masks_padding=True), 0.5, "hides its padding"), (weights(1), 1.5, "alpha=1.5"),
    (weights(1), float("nan"), "alpha=nan")])
def test_what_has_nothing_between_is_refused(other, alpha, message):
    with pytest.raises(WeightsError, match=message):
        interpolate(weights(0), other, alpha)
