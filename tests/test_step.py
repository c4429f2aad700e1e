"""The update: microbatches, the forms in which phrases are encoded, schedules of the weights, the debug mode."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import checkify

from cc_jax import sharding, step
from cc_jax.config import Config, ConfigError
from cc_jax.data import packing
from cc_jax.models.two_towers import TwoTowers
from cc_jax.objective import Objective, encode, losses, pixels, read

TOWER = dict(width=32, depth=1, mlp_dim=64, num_heads=2)
MODEL = TwoTowers(image=dict(patch_size=(8, 8), **TOWER),
                  text=dict(vocab_size=50, length=12, mask_padding=True, **TOWER))
RES, SLOTS = 16, 3
CONCEPTS = Objective(phrase=1.0, concept_attention=0.01)
SPANS = Objective(phrase=1.0, concept_attention=0.01, embedding="span")


SIZE, PACKED = 64, packing.PhraseRows(32, 4)


def make_batch(room=None, phrases=40, seed=0):
    """Random images and texts; equal phrases have equal ids and tokens. Also where phrases stand in their caption."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, phrases, (SIZE, SLOTS)).astype(np.int32)
    tokens = np.ones((SIZE, SLOTS, 6), np.int32)
    tokens[..., 0], tokens[..., 1] = 2 + ids % 48, np.where(ids % 2, 1, 2 + ids // 4)
    caption = np.ones((SIZE, 12), np.int32)
    caption[:, :2 * SLOTS] = tokens[..., :2].reshape(SIZE, -1)
    start = 2 * np.arange(SLOTS)
    given = {"image": rng.integers(0, 256, (SIZE, RES, RES, 3)).astype(np.uint8), "caption": caption, "phrases": tokens,
             "phrase_id": ids, "phrase_mask": np.arange(SLOTS) < rng.integers(1, SLOTS + 1, (SIZE, 1)),
             "phrase_span": np.tile(np.stack([start, start + 2], -1).astype(np.int32), (SIZE, 1, 1))}
    return packing.lay_out(given, room)


@functools.cache
def make_update(goal=CONCEPTS, microbatches=1):
    """(initial state, update), compiled once for all tests."""
    mesh, optimiser = sharding.make_mesh({"data": -1}), optax.sgd(0.1)
    state = step.init_state(MODEL, optimiser, RES, 0, mesh)
    return state, step.make_update(MODEL, optimiser, lambda _: 0.1, goal, 100.0, mesh, microbatches)


def after_one_step(batch, goal=CONCEPTS, microbatches=1):
    state, update = make_update(goal, microbatches)
    state, metrics = update(jax.tree.map(jnp.copy, state), jax.tree.map(jnp.asarray, batch))
    return state.params, {name: float(value) for name, value in metrics.items()}


def assert_same_step(a, b, rtol=2e-5):
    (params, metrics), (other_params, other_metrics) = a, b
    for name in ("loss", "loss/siglip", "loss/phrase", "loss/concept_attention", "norm/gradient"):
        assert metrics[name] == pytest.approx(other_metrics[name], rel=rtol), name
    for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(other_params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("goal", [CONCEPTS, SPANS])
def test_four_microbatches_make_the_step_of_the_whole_batch(goal):
    batch = make_batch(PACKED)
    assert_same_step(after_one_step(batch, goal), after_one_step(batch, goal, microbatches=4))


@pytest.mark.parametrize("room", [packing.PhraseRows(48), PACKED])
def test_equal_phrases_encoded_once_or_packed_make_the_step_of_a_row_each(room):
    packed = make_batch(room)
    assert packed["phrase_overflow"].sum() == 0
    assert_same_step(after_one_step(make_batch()), after_one_step(packed))


def test_phrases_without_a_place_are_counted_in_the_metrics():
    batch = make_batch(PACKED, phrases=190)
    _, metrics = after_one_step(batch)
    assert metrics["phrases/overflow"] == batch["phrase_overflow"].sum() > 0
    assert metrics["phrases"] == batch["phrase_mask"].sum()


def test_a_span_is_the_mean_of_its_tokens_states_through_the_head():
    state, _ = make_update()
    batch = make_batch()
    encoded = encode(MODEL, state.params, batch, Objective(phrase=1.0, embedding="span"))
    _, _, out = MODEL.apply({"params": state.params}, None, batch["caption"])
    head = state.params["txt"]["head"]
    for image, slot in ((0, 0), (3, 2)):
        start, end = batch["phrase_span"][image, slot]
        expected = np.mean(out["txt/encoded"][image, start:end], axis=0) @ head["kernel"] + head["bias"]
        np.testing.assert_allclose(encoded.phrases[image, slot], expected / np.linalg.norm(expected), rtol=2e-4,
                                   atol=2e-6)


def test_an_empty_span_has_no_influence_and_no_nan():
    batch = make_batch(PACKED)
    batch["phrase_mask"][:, 1:] = False
    moved = batch | {"phrase_span": batch["phrase_span"].copy()}
    moved["phrase_span"][:, 1:] = 0
    assert_same_step(after_one_step(batch, SPANS), after_one_step(moved, SPANS), rtol=1e-6)


def test_the_weights_of_the_concept_losses_rise_to_their_values():
    goal = Objective(phrase=2.0, concept_attention=0.01, ramp=4)
    assert [float(goal.weights(step)["phrase"]) for step in (0, 1, 3, 9)] == [0.5, 1.0, 2.0, 2.0]
    assert goal.weights(0)["siglip"] == 1.0 and "phrase" not in Objective().weights(0)


def test_the_debug_mode_trains_as_usual_and_names_what_is_not_normalised():
    batch = make_batch(PACKED)
    checked = Objective(phrase=1.0, concept_attention=0.01, checked=True)
    assert_same_step(after_one_step(batch), after_one_step(batch, checked), rtol=1e-6)
    state, _ = make_update()
    encoded = encode(MODEL, state.params, batch, checked)
    encoded = encoded._replace(caption=3 * encoded.caption)
    error, _ = checkify.checkify(lambda e: losses(e, batch, 10.0, -5.0, checked, jax.random.key(0)))(encoded)
    with pytest.raises(checkify.JaxRuntimeError, match="caption hold a vector of length 3"):
        error.throw()


@pytest.mark.parametrize(("concepts", "message"), [
    (dict(embedding="spam"), "config.concepts.embedding='spam' is not known; use one of tower, span"),
    (dict(normaliser="pairs"), "config.concepts.normaliser='pairs'"),
    (dict(exchange="star"), "exchange kind 'star'"), (dict(max_hops=1), "max_hops=1"),
    (dict(temperature=0.0), "temperature=0.0"), (dict(ramp="2"), None)])
def test_an_objective_that_can_not_be_is_refused(concepts, message):
    config = Config({"loss": {"phrase": 1.0, "concept_attention": 0.01}, "concepts": concepts})
    mesh = sharding.make_mesh({"data": -1})
    if message is None:
        assert read(config, mesh, 100).ramp == 2
        return
    with pytest.raises(ConfigError, match=message):
        read(config, mesh, 100)


def test_distillation_is_the_mean_distance_to_the_embeddings_by_the_weights_of_the_start():
    goal, batch = Objective(distill=2.0), make_batch()
    state, _ = make_update()
    moved = jax.tree.map(lambda x: 1.1 * x + 0.01, state.params)
    encoded = encode(MODEL, moved, batch, goal, state.params)
    value = losses(encoded, batch, 10.0, -5.0, goal, jax.random.key(0))["distill"]
    inputs = pixels(batch["image"]), batch["caption"]
    embed = lambda params: [np.float64(z) for z in MODEL.apply({"params": params}, *inputs)[:2]]
    (v, c), (v0, c0) = embed(moved), embed(state.params)
    assert value == pytest.approx(np.mean(2 - np.sum(v * v0, 1) - np.sum(c * c0, 1)), rel=1e-4) and value > 1e-3
    assert goal.weights(0)["distill"] == 2.0


@pytest.mark.parametrize("microbatches", [1, 4])
def test_a_step_that_is_not_finite_changes_nothing_but_its_count_and_the_next_goes_on(microbatches):
    state, update = make_update(CONCEPTS, microbatches)
    batch = jax.tree.map(jnp.asarray, make_batch(PACKED))
    state, _ = update(jax.tree.map(jnp.copy, state), batch)
    overflowing = jax.tree.map(jnp.copy, state.replace(params=state.params | {"b": jnp.full(1, jnp.inf)}))
    before = jax.tree.map(np.array, overflowing)
    after, metrics = update(overflowing, batch)
    assert not np.isfinite(metrics["loss"]) and metrics["norm/update"] == 0 and metrics["skipped"] == 1
    assert after.step == before.step + 1 and after.skipped.tolist() == [1, 1]
    jax.tree.map(np.testing.assert_array_equal, after.replace(step=before.step, skipped=before.skipped), before)
    after, metrics = update(after.replace(params=after.params | {"b": jnp.zeros(1)}), batch)
    assert np.isfinite(metrics["loss"]) and metrics["norm/update"] > 0 and after.skipped.tolist() == [1, 0]
