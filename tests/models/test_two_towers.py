"""The towers: parameter tree, equal results of every way to run them, concept tokens, errors."""
import flax.linen as nn
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from cc_jax.data.packing import PhraseRows, lay_out
from cc_jax.models.text import EOS, PackedText
from cc_jax.models.two_towers import TwoTowers
from cc_jax.models.vit import VARIANTS, MlpBlock, decode_variant
from cc_jax.optim import parameter_names

SMALL = dict(width=16, depth=2, mlp_dim=32, num_heads=2)


def make(image=None, text=None, **options):
    return TwoTowers(image=dict(patch_size=(8, 8), **SMALL) | (image or {}),
                     text=dict(vocab_size=50, length=12, **SMALL) | (text or {}), **options)


def inputs(images=3, texts=4, length=12):
    rng = np.random.default_rng(0)
    text = np.full((texts, length), EOS, np.int32)
    for row in text:
        words = rng.integers(1, 6)
        row[:words] = rng.integers(3, 50, words)
    return jnp.asarray(rng.uniform(-1, 1, (images, 16, 24, 3)), jnp.float32), jnp.asarray(text)


def run(model, params, image, text, want_tokens=False):
    return jax.jit(lambda p, *x: model.apply({"params": p}, *x, want_tokens=want_tokens))(params, image, text)


def initial(model, seed=0):
    params = jax.jit(model.init)(jax.random.key(seed), *inputs())["params"]
    noise = np.random.default_rng(seed)  # biases start at 0: move all parameters, so that each one matters
    return jax.tree.map(lambda p: p + 0.05 * noise.normal(size=p.shape).astype(np.float32), params)


def flat(params):
    return dict(zip(jax.tree.leaves(parameter_names(params)), jax.tree.leaves(params), strict=True))


def test_the_tree_of_a_b16_pair_is_big_visions(test_data):
    model = TwoTowers(image=dict(variant="B/16", pool="map"), text=dict(variant="B", vocab_size=32_000, length=64))
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)), jnp.zeros((1, 64), jnp.int32))
    ours = {f"{name} {leaf.shape} {leaf.dtype}" for name, leaf in flat(params["params"]).items()}
    assert ours == set((test_data / "big_vision_b16_params.txt").read_text().splitlines())


@pytest.mark.parametrize("options", [dict(remat="full"), dict(remat="dots"), dict(scan=True),
                                     dict(scan=True, remat="dots"), dict(scan=True, remat="projections")])
def test_scan_and_remat_change_neither_values_nor_gradients(options):
    image, text = inputs()
    plain, other = make(), make(**options)
    params = initial(plain)
    stacked = dict(params)
    if options.get("scan"):
        for tower, encoder in (("img", "Transformer"), ("txt", "Encoder_0")):
            blocks = dict(params[tower][encoder])
            layers = [blocks.pop(f"encoderblock_{i}") for i in range(2)]
            blocks["encoderblock"] = jax.tree.map(lambda *x: jnp.stack(x), *layers)
            stacked[tower] = params[tower] | {encoder: blocks}

    def objective(model):
        return lambda p: sum(jnp.sum(jnp.sin(7 * z)) for z in model.apply({"params": p}, image, text)[:2])

    value, gradient = jax.jit(jax.value_and_grad(objective(plain)))(params)
    other_value, other_gradient = jax.jit(jax.value_and_grad(objective(other)))(stacked)
    assert float(other_value) == pytest.approx(float(value), rel=1e-5)
    for name in ("embedding", "MAPHead_0"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
                     other_gradient["img"][name], gradient["img"][name])


def test_embeddings_are_unit_vectors_of_one_width_and_either_input_may_be_absent():
    model, (image, text) = make(), inputs()
    params = initial(model)
    zimg, ztxt, out = run(model, params, image, text)
    assert zimg.shape == (3, 16) and ztxt.shape == (4, 16)
    np.testing.assert_allclose(np.linalg.norm(zimg, axis=-1), 1, rtol=1e-5)
    alone, nothing, _ = run(model, params, image, None)
    assert nothing is None
    np.testing.assert_allclose(alone, zimg, rtol=1e-5, atol=1e-6)
    _, alone, _ = run(model, params, None, text)
    np.testing.assert_allclose(alone, ztxt, rtol=1e-5, atol=1e-6)
    assert float(out["t"]) == pytest.approx(float(np.exp(params["t"][0]))) and out["b"] == params["b"][0]


def test_scale_and_bias_start_at_10_and_minus_10():
    model, (image, text) = make(), inputs()
    _, _, out = run(model, jax.jit(model.init)(jax.random.key(0), image, text)["params"], image, text)
    assert float(out["t"]) == pytest.approx(10.0) and out["b"] == -10.0


def test_compute_runs_in_bfloat16_everywhere_and_parameters_stay_float32():
    """Every matmul of both towers and the head, read off the traced program."""
    model, (image, text) = make(dtype="bfloat16"), inputs()
    params = jax.jit(model.init)(jax.random.key(0), image, text)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    program = jax.make_jaxpr(lambda p: model.apply({"params": p}, image, text, want_tokens=True))(params)
    matmuls = [eqn for eqn in program.jaxpr.eqns if eqn.primitive.name in ("dot_general", "conv_general_dilated")]
    nested = [eqn for outer in program.jaxpr.eqns for sub in jax.extend.core.jaxprs_in_params(outer.params)
              for eqn in sub.eqns if eqn.primitive.name in ("dot_general", "conv_general_dilated")]
    assert len(matmuls) > 20
    assert {v.aval.dtype for eqn in matmuls + nested for v in eqn.invars} == {jnp.dtype("bfloat16")}
    exact = run(make(), params, image, text)[0]
    np.testing.assert_allclose(run(model, params, image, text)[0], exact, atol=0.05)


def test_concept_tokens_are_the_map_head_without_its_attention():
    """Written out in numpy from the parameters: y = out(value(x)); y + mlp(layer_norm(y)); normalised."""
    model, (image, text) = make(), inputs()
    params = initial(model)
    _, _, out = run(model, params, image, text, want_tokens=True)
    head, x = jax.tree.map(np.asarray, params["img"]["MAPHead_0"]), np.asarray(out["img/encoded"])
    attention = head["MultiHeadDotProductAttention_0"]
    value = np.einsum("bkd,dhe->bkhe", x, attention["value"]["kernel"]) + attention["value"]["bias"]
    y = np.einsum("bkhe,hed->bkd", value, attention["out"]["kernel"]) + attention["out"]["bias"]
    normed = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    normed = normed * head["LayerNorm_0"]["scale"] + head["LayerNorm_0"]["bias"]
    dense = head["MlpBlock_0"]
    hidden = normed @ dense["Dense_0"]["kernel"] + dense["Dense_0"]["bias"]
    gelu = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    tokens = y + gelu @ dense["Dense_1"]["kernel"] + dense["Dense_1"]["bias"]
    tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
    np.testing.assert_allclose(out["concept_tokens"], tokens, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_map_heads_attention_and_output_are_those_of_flaxs_module(dtype):
    model, (image, _) = make(dtype=dtype), inputs()
    params = initial(model)
    _, _, out = run(model, params, image, None)
    head = params["img"]["MAPHead_0"]
    peer = nn.MultiHeadDotProductAttention(num_heads=2, dtype=jnp.dtype(dtype))
    probe = jnp.tile(head["probe"], (3, 1, 1)).astype(dtype)
    attend = lambda x: peer.apply({"params": head["MultiHeadDotProductAttention_0"]}, probe, x, sow_weights=True,
                                  mutable=["intermediates"])
    pooled, sown = jax.jit(attend)(out["img/encoded"])
    weights = np.asarray(sown["intermediates"]["attention_weights"][0], np.float32)
    tolerance = 1e-5 if dtype == "float32" else 0.01
    np.testing.assert_allclose(np.asarray(out["img/map_attention"], np.float32), weights[:, :, 0], rtol=tolerance)
    rest = nn.LayerNorm(dtype=jnp.dtype(dtype)).apply({"params": head["LayerNorm_0"]}, pooled)
    rest = pooled + MlpBlock(32, jnp.dtype(dtype)).apply({"params": head["MlpBlock_0"]}, rest)
    np.testing.assert_allclose(np.asarray(out["img/head_input"], np.float32), np.asarray(rest[:, 0], np.float32),
                               rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("pool", ["gap", "tok"])
def test_other_pools_use_their_tokens_after_the_head_projection(pool):
    model, (image, text) = make(image=dict(pool=pool, num_classes=10)), inputs()
    params = initial(model)
    zimg, ztxt, out = run(model, params, image, text, want_tokens=True)
    assert zimg.shape == (3, 10) and ztxt.shape == (4, 10) and out["concept_tokens"].shape == (3, 6, 10)
    if pool == "gap":  # the head is linear: the mean of the projected tokens is the projected mean
        encoded = np.asarray(out["img/encoded"]) @ params["img"]["head"]["kernel"] + params["img"]["head"]["bias"]
        np.testing.assert_allclose(zimg, encoded.mean(1) / np.linalg.norm(encoded.mean(1), axis=-1, keepdims=True),
                                   rtol=1e-4, atol=1e-5)


def test_with_masked_padding_a_text_has_one_embedding_in_rows_of_any_length():
    model, (_, text) = make(text=dict(mask_padding=True)), inputs()
    params = initial(model)
    _, whole, _ = run(model, params, None, text)
    _, short, _ = run(model, params, None, text[:, :7])  # texts have at most 5 words
    np.testing.assert_allclose(short, whole, rtol=1e-4, atol=1e-5)
    _, attended, _ = run(make(), params, None, text)
    assert np.abs(np.asarray(attended) - np.asarray(whole)).max() > 1e-3


def packed(length, rows, per_row):
    """Nine phrases of 0 to 5 tokens: alone (9, length), as PackedText, and which of them lies at each place (-1: none)."""
    _, text = inputs(texts=9, length=length)
    text = text.at[3].set(EOS)
    batch = lay_out({"phrases": np.asarray(text)[:, None], "phrase_id": np.arange(9, dtype=np.int32)[:, None],
                     "phrase_mask": np.ones((9, 1), bool)}, PhraseRows(rows, per_row))
    assert not batch["phrase_overflow"].any()
    return text, PackedText(batch["phrases"], *(batch[f"phrase_{name}"] for name in ("segment", "position", "end"))), \
        np.where(batch["column_weight"] > 0, batch["column_id"], -1).ravel()


@pytest.mark.parametrize("options", [{}, dict(scan=True, remat="dots")])
def test_a_packed_text_has_the_embedding_it_has_alone_in_a_row_of_any_length(options):
    model = make(text=dict(mask_padding=True), **options)
    params = initial(model)
    text, rows, place = packed(length=10, rows=6, per_row=4)
    _, together, out = run(model, params, None, rows)
    assert together.shape == (24, 16) and out["txt/encoded"].shape == (6, 10, 16) and np.isfinite(together).all()
    for length in (6, 10, 12):  # the shortest row that holds the phrases, the packed one, the tower's longest
        alone = jnp.full((9, length), EOS, jnp.int32).at[:, :6].set(text[:, :6])
        _, expected, _ = run(model, params, None, alone)
        for phrase in range(9):
            np.testing.assert_allclose(together[place == phrase], expected[phrase:phrase + 1], rtol=1e-5, atol=1e-5)


def test_packed_texts_give_the_gradients_of_texts_alone_whatever_lies_in_the_empty_places():
    model = make(text=dict(mask_padding=True))
    params = initial(model)
    text, rows, place = packed(length=10, rows=6, per_row=4)
    assert (np.asarray(rows.segment) == 0).all(axis=1).any(), "a row without any text is among them"
    target = np.random.default_rng(1).normal(size=(9, 16)).astype(np.float32)

    def objective(params, text, target, weight):
        _, z, _ = model.apply({"params": params}, None, text)
        return jnp.sum(weight * jnp.sum(jnp.sin(3 * z) * target, axis=-1))

    gradient = jax.jit(jax.grad(objective))
    alone = gradient(params, text, target, jnp.ones(9))["txt"]
    together = gradient(params, rows, target[place], jnp.asarray(place >= 0, jnp.float32))["txt"]
    assert float(jnp.abs(alone["pos_embedding"][0, -1]).max()) > 1e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), together, alone)


def test_packed_rows_are_refused_where_padding_is_attended_to_or_rows_outgrow_the_tower():
    _, rows, _ = packed(length=12, rows=6, per_row=4)
    with pytest.raises(ValueError, match="packed rows.*mask_padding=True"):
        make().init(jax.random.key(0), None, rows)
    with pytest.raises(ValueError, match="12 tokens.*11 positions"):
        make(text=dict(mask_padding=True, length=11)).init(jax.random.key(0), None, rows)


def test_short_rows_are_refused_where_padding_is_attended_to():
    model, (_, text) = make(), inputs()
    with pytest.raises(ValueError, match="12 positions.*mask_padding"):
        model.init(jax.random.key(0), None, text[:, :7])


@pytest.mark.parametrize(("make_it", "message"), [
    (lambda: decode_variant("XXL/16"), "XXL/16.*g-opt"),
    (lambda: make(image=dict(pool="max")).init(jax.random.key(0), *inputs()), "pool 'max'.*map, gap, tok"),
    (lambda: make(remat="some").init(jax.random.key(0), *inputs()), "remat policy 'some'"),
    (lambda: make(image=dict(patch_size=(7, 7))).init(jax.random.key(0), *inputs()), "16x24 .*7x7"),
    (lambda: make(text=dict(num_classes=5)).init(jax.random.key(0), *inputs()), "5 numbers.*16"),
])
def test_what_does_not_fit_is_named(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()


def test_every_variant_has_heads_that_divide_its_width():
    for width, _, _, heads in VARIANTS.values():
        assert width % heads == 0
