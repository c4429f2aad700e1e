"""Every form of attention gives the plain formula's values and gradients, under every mask that the towers make."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cc_jax.config import ConfigError
from cc_jax.models import attention
from cc_jax.models.two_towers import TwoTowers

B, Q, H, D = 3, 8, 2, 8
RNG = np.random.default_rng(0)
QUERY, KEY, VALUE, COTANGENT = (RNG.normal(size=(B, Q, H, D)).astype(np.float32) for _ in range(4))
SEGMENT = np.array([[1, 1, 2, 2, 2, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1], [1, 2, 3, 3, 0, 0, 0, 0]])
MASKS = {
    "none": None,
    "padding": (np.arange(Q) < np.array([[2], [8], [1]]))[:, None, None] | (np.arange(Q) == Q - 1),
    "packed": (SEGMENT[:, :, None] == SEGMENT[:, None, :])[:, None],
}


def formula(query, key, value, mask):
    """softmax(q k^T / sqrt(D)) v and its gradients along COTANGENT, one query at a time, in float64."""
    query, key, value, cotangent = (x.astype(np.float64) for x in (query, key, value, COTANGENT))
    out, grads = np.zeros_like(query), [np.zeros_like(x) for x in (query, key, value)]
    for b, i, h in np.ndindex(B, Q, H):
        seen = np.ones(Q, bool) if mask is None else np.broadcast_to(mask, (B, 1, Q, Q))[b, 0, i]
        keys, values = key[b, seen, h], value[b, seen, h]
        weights = np.exp(keys @ query[b, i, h] / np.sqrt(D))
        weights /= weights.sum()
        out[b, i, h] = weights @ values
        d_weights = values @ cotangent[b, i, h]
        d_logits = weights * (d_weights - weights @ d_weights) / np.sqrt(D)
        grads[0][b, i, h] = d_logits @ keys
        grads[1][b, seen, h] += np.outer(d_logits, query[b, i, h])
        grads[2][b, seen, h] += np.outer(weights, cotangent[b, i, h])
    return out, *grads


def with_gradients(form, *arrays, mask):
    out, pullback = jax.vjp(lambda *qkv: attention.FORMS[form](*qkv, mask), *map(jnp.asarray, arrays))
    return out, *pullback(jnp.asarray(COTANGENT, out.dtype))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("form", ["xla", "cpu"])
def test_values_and_gradients_are_the_formulas(form, mask):
    got = with_gradients(form, QUERY, KEY, VALUE, mask=MASKS[mask])
    for ours, expected in zip(got, formula(QUERY, KEY, VALUE, MASKS[mask]), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=2e-6)


def test_logits_far_apart_stay_finite():
    got = with_gradients("cpu", 1e3 * QUERY, KEY, VALUE, mask=MASKS["packed"])
    assert all(np.isfinite(x).all() for x in got)


def test_half_precision_stays_half_and_is_as_near_as_xlas():
    arrays = [jnp.asarray(x, jnp.bfloat16) for x in (QUERY, KEY, VALUE)]
    expected = formula(*(np.asarray(x, np.float32) for x in arrays), MASKS["packed"])
    error = lambda form: [np.abs(np.asarray(x, np.float64) - y).max() for x, y in zip(
        with_gradients(form, *arrays, mask=MASKS["packed"]), expected, strict=True)]
    assert with_gradients("cpu", *arrays, mask=None)[0].dtype == jnp.bfloat16
    assert all(ours <= 1.5 * theirs for ours, theirs in zip(error("cpu"), error("xla"), strict=True))


@pytest.mark.parametrize("mask", MASKS)
def test_cudnn_is_asked_for_the_same(mask, monkeypatch):
    """Without a GPU its numbers can't be had: XLA's stand in, behind what cuDNN demands of masks."""
    original, gpu = jax.nn.dot_product_attention, jax.default_backend() == "gpu"

    def stand_in(*arrays, mask, implementation):
        assert implementation == "cudnn" and (mask is None or mask.shape[2:] == (Q, Q))
        return original(*arrays, mask=mask, implementation=implementation if gpu else "xla")
    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    arrays = [jnp.asarray(x, jnp.bfloat16) for x in (QUERY, KEY, VALUE)]
    expected = formula(*(np.asarray(x, np.float32) for x in arrays), MASKS[mask])
    for ours, exact in zip(with_gradients("cudnn", *arrays, mask=MASKS[mask]), expected, strict=True):
        np.testing.assert_allclose(np.asarray(ours, np.float32), exact, atol=0.05)


def test_towers_of_the_cpus_form_have_the_same_parameters_values_and_gradients():
    sizes = dict(width=16, depth=1, mlp_dim=32, num_heads=2)
    make = lambda form: TwoTowers(image=dict(patch_size=(8, 8), **sizes), attention=form, scan=True, remat="dots",
                                  text=dict(vocab_size=50, length=12, mask_padding=True, **sizes))
    image, text = jnp.asarray(RNG.uniform(-1, 1, (3, 16, 24, 3)), jnp.float32), jnp.asarray(RNG.integers(1, 4, (3, 12)))
    params = jax.jit(make("xla").init)(jax.random.key(0), image, text)["params"]

    def loss(params, form):
        zimg, ztxt, _ = make(form).apply({"params": params}, image, text)
        return (zimg * ztxt[::-1]).sum()

    values = [jax.jit(jax.value_and_grad(loss), static_argnums=1)(params, form) for form in ("xla", "cpu")]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), *values)


def test_auto_takes_what_the_devices_have():
    choices = {("cpu", "float32"): "cpu", ("tpu", "bfloat16"): "xla", ("gpu", "bfloat16"): "cudnn",
               ("gpu", "float32"): "xla"}
    assert {place: attention.choose("auto", *place) for place in choices} == choices
    assert attention.choose("xla", "gpu", "bfloat16") == "xla"


@pytest.mark.parametrize(("name", "message"), [
    ("flash", "config.model.attention='flash'; use auto, xla, cudnn, cpu."),
    ("cudnn", "needs GPUs and config.model.dtype of bfloat16 or float16; here are cpu and bfloat16")])
def test_what_can_not_be_is_named(name, message):
    with pytest.raises(ConfigError, match=message):
        attention.choose(name, "cpu", "bfloat16")
