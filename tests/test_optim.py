"""The optimiser against AdamW written out in numpy, and its schedule."""
import jax
import numpy as np
import pytest

from cc_jax import optim
from cc_jax.config import Config


def params():
    rng = np.random.default_rng(0)
    return {"img": {"kernel": rng.normal(size=(3, 2)).astype(np.float32), "bias": rng.normal(size=2).astype(np.float32)},
            "t": np.ones(1, np.float32)}


def test_updates_are_those_of_adamw_with_decay_on_the_kernels_only():
    options = dict(lr=0.1, b1=0.8, b2=0.9, eps=1e-6, wd=0.3, warmup_steps=2, schedule="cosine")
    transformation, learning_rate = optim.make(Config(options), params(), total_steps=10)
    values, state = params(), transformation.init(params())
    expected = {name: np.float64(values["img"][name]) for name in ("kernel", "bias")}
    first, second = {name: 0.0 for name in expected}, {name: 0.0 for name in expected}
    rng = np.random.default_rng(1)
    for step in range(5):
        gradients = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), values)
        updates, state = transformation.update(gradients, state, values)
        values = jax.tree.map(np.add, values, updates)
        for name in expected:
            g = np.float64(gradients["img"][name])
            first[name] = 0.8 * first[name] + 0.2 * g
            second[name] = 0.9 * second[name] + 0.1 * g**2
            moment, variance = first[name] / (1 - 0.8**(step + 1)), second[name] / (1 - 0.9**(step + 1))
            decay = 0.3 * expected[name] if name == "kernel" else 0.0
            expected[name] = expected[name] - float(learning_rate(step)) * (moment / (np.sqrt(variance) + 1e-6) + decay)
            np.testing.assert_allclose(values["img"][name], expected[name], rtol=1e-5, atol=1e-6)


def test_the_learning_rate_warms_up_then_follows_a_cosine_to_zero():
    rate = optim.schedule("cosine", lr=2.0, warmup_steps=4, total_steps=24)
    assert float(rate(0)) == pytest.approx(2.0 / 5)
    assert [float(rate(step)) for step in range(5)] == sorted(float(rate(step)) for step in range(5))
    assert float(rate(4)) == pytest.approx(2.0)
    assert float(rate(14)) == pytest.approx(1.0)
    assert float(rate(24)) == pytest.approx(0.0, abs=1e-6)
    assert float(optim.schedule("constant", 2.0, 4, 24)(23)) == pytest.approx(2.0)


def test_clipping_bounds_the_gradient_norm():
    transformation, _ = optim.make(Config(dict(lr=1.0, clip_norm=0.5, b1=0.0, b2=0.0, eps=1e3)), params(), 10)
    huge = jax.tree.map(lambda x: 1e3 * np.ones_like(x), params())
    updates, _ = transformation.update(huge, transformation.init(params()), params())
    # with eps this large Adam divides by 1 000, so the update is the clipped gradient
    assert float(np.sqrt(sum(np.sum(np.square(u)) for u in jax.tree.leaves(updates)))) == pytest.approx(0.5e-3, rel=1e-3)
