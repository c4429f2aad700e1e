"""The analytic FLOPs of a step against XLA's own count of the same program."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cc_jax import flops, step
from cc_jax.models.two_towers import TwoTowers
from cc_jax.objective import Objective, encode, losses

SMALL = dict(width=128, depth=2, mlp_dim=512, num_heads=4)


def batch(layout):
    given = {"image": jnp.zeros((16, 48, 48, 3), jnp.uint8), "caption": jnp.zeros((16, 16), jnp.int32),
             "phrase_id": jnp.zeros((16, 3), jnp.int32), "phrase_mask": jnp.ones((16, 3), bool)}
    if layout == "span":
        return given | {"phrase_span": jnp.zeros((16, 3, 2), jnp.int32)}
    rows, per_row = (48, 1) if layout == "rows" else (16, 4)
    given |= {"phrases": jnp.zeros((rows, 16), jnp.int32), "column_id": jnp.zeros((rows, per_row), jnp.int32),
              "column_weight": jnp.ones((rows, per_row))}
    if layout == "packed":
        given |= {name: jnp.zeros((rows, 16), jnp.int32) for name in ("phrase_segment", "phrase_position")}
        given |= {"phrase_end": jnp.zeros((rows, per_row), jnp.int32)}
    return given


@pytest.mark.parametrize("layout", [None, "rows", "packed", "span"])
def test_the_count_agrees_with_the_compilers(layout):
    model = TwoTowers(image=dict(patch_size=(8, 8), **SMALL),
                      text=dict(vocab_size=100, length=16, mask_padding=True, **SMALL))
    weights = dict(phrase=1.0, concept_attention=0.01, embedding="span" if layout == "span" else "tower") if layout else {}
    goal, given, params = Objective(**weights), batch(layout), step.abstract_params(model, 48)

    def total(params, batch):
        encoded = encode(model, params, batch, goal)
        return sum(losses(encoded, batch, jnp.exp(params["t"][0]), params["b"][0], goal, jax.random.key(0)).values())

    compiled = jax.jit(jax.grad(total)).lower(params, given).compile()
    assert flops.step_flops(model, given, goal) == pytest.approx(compiled.cost_analysis()["flops"], rel=0.1)


@pytest.mark.parametrize(("kind", "peak"), [
    ("TPU v4", 275e12), ("TPU v5 lite", 197e12), ("TPU v5e", 197e12), ("TPU v5", 459e12), ("TPU v5p", 459e12),
    ("TPU v6 lite", 918e12), ("NVIDIA L4", 121e12), ("NVIDIA L40S", 362e12), ("NVIDIA H100 80GB HBM3", 989e12),
    ("cpu", None)])
def test_a_device_has_the_peak_of_the_longest_name_that_fits(kind, peak):
    assert flops.listed_peak(kind) == peak


def test_a_measured_peak_is_a_positive_rate():
    assert np.isfinite(flops.peak_flops()) and flops.peak_flops() > 1e6
