"""The analytic FLOPs of a step against XLA's own count of the same program."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cc_jax import flops, step
from cc_jax.models.two_towers import TwoTowers

SMALL = dict(width=128, depth=2, mlp_dim=512, num_heads=4)


@pytest.mark.parametrize("weights", [
    dict(siglip=1.0, phrase=0.0, concept_attention=0.0), dict(siglip=1.0, phrase=1.0, concept_attention=0.01)])
def test_the_count_agrees_with_the_compilers(weights):
    model = TwoTowers(image=dict(patch_size=(8, 8), **SMALL), text=dict(vocab_size=100, length=16, **SMALL))
    batch = {"image": jnp.zeros((16, 48, 48, 3), jnp.uint8), "caption": jnp.zeros((16, 16), jnp.int32),
             "phrases": jnp.zeros((16, 3, 16), jnp.int32), "phrase_id": jnp.zeros((16, 3), jnp.int32),
             "phrase_mask": jnp.ones((16, 3), bool)}
    params = step.abstract_params(model, 48)

    def total(params, batch):
        values, _ = step.losses(model, params, batch, weights)
        return sum(weights[name] * value for name, value in values.items())

    compiled = jax.jit(jax.grad(total)).lower(params, batch).compile()
    counted = compiled.cost_analysis()["flops"]
    assert flops.step_flops(model, batch, weights) == pytest.approx(counted, rel=0.1)


def test_a_measured_peak_is_a_positive_rate():
    assert np.isfinite(flops.peak_flops()) and flops.peak_flops() > 1e6
