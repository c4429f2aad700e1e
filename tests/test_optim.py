"""The optimiser against AdamW written out in numpy, and its schedule."""
import jax
import numpy as np
import pytest

from cc_jax import optim
from cc_jax.config import Config, ConfigError


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


def test_each_parameter_has_the_rate_and_decay_of_the_first_pattern_that_matches_its_name():
    options = dict(lr=0.1, b1=0.0, b2=0.0, eps=1e-30, wd=0.5, schedule="constant",
                   lr_mults=[("img/bias", 3.0), ("img/.*", 0.0), ("t", 0.5)], wd_mults=[("t", 2.0), (".*", 1.0)])
    transformation, _ = optim.make(Config(options), params(), 10)
    gradients = jax.tree.map(np.ones_like, params())
    updates, _ = transformation.update(gradients, transformation.init(params()), params())
    # with these b1, b2 and eps Adam makes every gradient 1
    np.testing.assert_array_equal(updates["img"]["kernel"], 0.0)
    np.testing.assert_allclose(updates["img"]["bias"], -0.1 * 3.0 * (1 + 0.5 * params()["img"]["bias"]), rtol=1e-5)
    np.testing.assert_allclose(updates["t"], -0.1 * 0.5 * (1 + 0.5 * 2.0 * 1.0), rtol=1e-5)


def test_frozen_parameters_have_no_moments_and_no_part_in_clipping():
    options = dict(lr=1.0, clip_norm=0.5, b1=0.0, b2=0.0, eps=1e3, schedule="constant", lr_mults=[("img/.*", 0)])
    transformation, _ = optim.make(Config(options), params(), 10)
    state = transformation.init(params())
    assert sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim) == 2      # both moments of t
    huge = {"img": jax.tree.map(lambda x: 1e9 * np.ones_like(x), params()["img"]), "t": 0.1 * np.ones(1, np.float32)}
    updates, _ = transformation.update(huge, state, params())
    assert not np.any(updates["img"]["kernel"]) and updates["t"][0] == pytest.approx(-0.1e-3, rel=1e-3)
    assert optim.frozen(Config(options), params()) == {"img": {"kernel": True, "bias": True}, "t": False}
    assert optim.frozen(Config(dict(lr_mults=[("t", 2.0)])), params()) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clipping_makes_no_finite_update_of_a_gradient_that_is_not(bad):
    """So the step must look at the gradient itself, as `step.make_update` does."""
    transformation, _ = optim.make(Config(dict(lr=1.0, clip_norm=0.5)), params(), 10)
    gradients = jax.tree.map(np.ones_like, params())
    gradients["t"] = np.array([bad], np.float32)
    updates, _ = transformation.update(gradients, transformation.init(params()), params())
    assert not np.isfinite(updates["t"]).any()


@pytest.mark.parametrize(("mults", "message"), [
    ([("image/.*", 1.0)], "'image/.*' matches none of the 3 parameters"),
    ([("t", -1.0)], "config.optim.lr_mults: 't' has -1.0; use a number from 0"), ([(".*", 0.0)], "freezes every parameter")])
def test_multipliers_that_can_not_be_are_refused(mults, message):
    with pytest.raises(ConfigError, match=message):
        optim.make(Config(dict(lr=1.0, lr_mults=mults)), params(), 10)
