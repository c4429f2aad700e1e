"""The three losses and all their gradients against a float64 brute force written from the formulas of the paper."""
from dataclasses import dataclass

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import checkify

from cc_jax import plain
from cc_jax.concepts import concept_attention, concept_attention_loss, held_phrases
from cc_jax.losses import phrase_loss, sigmoid_loss
from cc_jax.pairs import positives


def log_sigmoid(x):
    return -np.logaddexp(0.0, -x)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@dataclass
class Batch:
    image: np.ndarray
    text: np.ndarray
    tokens: np.ndarray
    phrases: np.ndarray
    owner: np.ndarray
    phrase_id: np.ndarray
    valid: np.ndarray
    scale: np.ndarray
    bias: np.ndarray

    def sign(self, i, j):
        """z_ij: +1 where some valid slot of image i holds phrase j."""
        return 1 if any(o == i and p == self.phrase_id[j] and v
                        for o, p, v in zip(self.owner, self.phrase_id, self.valid, strict=True)) else -1

    @property
    def slots(self):
        return self.owner, self.phrase_id, self.valid


def brute_sigmoid(image, text, scale, bias):
    count = len(image)
    return -sum(log_sigmoid((1 if i == j else -1) * (scale * image[i] @ text[j] + bias))
                for i in range(count) for j in range(count)) / count


def brute_phrase(batch, image, phrases, scale, bias):
    total = sum(-log_sigmoid(batch.sign(i, j) * (scale * image[i] @ phrases[j] + bias))
                for j in np.flatnonzero(batch.valid) for i in range(len(image)))
    return total / max(batch.valid.sum(), 1)


def brute_attention(batch, tokens, phrases, scale, bias):
    total = 0.0
    for j in np.flatnonzero(batch.valid):
        for i in range(len(tokens)):
            weight = np.exp(tokens[i] @ phrases[j])
            pooled = unit((weight / weight.sum()) @ tokens[i])
            total -= log_sigmoid(batch.sign(i, j) * (scale * pooled @ phrases[j] + bias))
    return total / max(batch.valid.sum(), 1)


def make_batch(seed, images=3, slots=2, tokens=4, width=5, ids=3, scale=10.0, valid=0.7):
    rng = np.random.default_rng(seed)
    count = images * slots
    return Batch(
        image=unit(rng.normal(size=(images, width))), text=unit(rng.normal(size=(images, width))),
        tokens=unit(rng.normal(size=(images, tokens, width))), phrases=unit(rng.normal(size=(count, width))),
        owner=np.repeat(np.arange(images, dtype=np.int32), slots),
        phrase_id=rng.integers(-ids, ids, count).astype(np.int32), valid=rng.random(count) < valid,
        scale=np.float64(scale), bias=np.float64(rng.normal() - 5))


batches = st.builds(
    make_batch, seed=st.integers(0, 2**31), images=st.sampled_from([1, 4]), slots=st.sampled_from([1, 3]),
    ids=st.integers(1, 5), scale=st.sampled_from([1.0, 10.0, 117.0]), valid=st.sampled_from([0.3, 1.0]))


def numeric_gradients(function, arguments, step=1e-6):
    """Central differences in float64, one number at a time."""
    gradients = []
    for k, argument in enumerate(arguments):
        gradient = np.zeros_like(argument)
        for index in np.ndindex(argument.shape):
            ends = []
            for sign in (1, -1):
                moved = [np.array(a) for a in arguments]
                moved[k][index] += sign * step
                ends.append(function(*moved))
            gradient[index] = (ends[0] - ends[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


def check(function, brute, arguments):
    """Value and the gradient of every argument of `function` agree with the brute force."""
    low = [np.float32(a) for a in arguments]
    value, gradients = jax.value_and_grad(function, argnums=tuple(range(len(low))))(*low)
    rounding = 2e-7 * arguments[-2]     # of float32 logits, which are cosines times the scale
    assert float(value) == pytest.approx(brute(*arguments), rel=1e-5, abs=1e-6 + rounding)
    for got, wanted in zip(gradients, numeric_gradients(brute, arguments), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-4 * max(1.0, np.abs(wanted).max()))


@settings(max_examples=15, deadline=None)
@given(batches)
def test_sigmoid_loss_and_its_gradients_equal_the_formula(batch):
    check(sigmoid_loss, brute_sigmoid, [batch.image, batch.text, batch.scale, batch.bias])


@settings(max_examples=15, deadline=None)
@given(batches)
def test_phrase_loss_and_its_gradients_equal_the_formula(batch):
    check(lambda image, phrases, scale, bias: phrase_loss(image, phrases, *batch.slots, scale, bias),
          lambda *a: brute_phrase(batch, *a), [batch.image, batch.phrases, batch.scale, batch.bias])


@settings(max_examples=15, deadline=None)
@given(batches)
def test_concept_attention_loss_and_its_gradients_equal_the_formula(batch):
    # tokens and phrases stay unit vectors in the model, but their gradients are taken freely
    check(lambda tokens, phrases, scale, bias: concept_attention_loss(tokens, phrases, *batch.slots, scale, bias),
          lambda *a: brute_attention(batch, *a), [batch.tokens, batch.phrases, batch.scale, batch.bias])


@given(batches)
@settings(max_examples=30, deadline=None)
def test_a_phrase_is_a_positive_of_every_image_whose_caption_holds_it(batch):
    expected = [[batch.sign(i, j) > 0 for j in range(len(batch.owner))] for i in range(len(batch.image))]
    count = len(batch.image)
    np.testing.assert_array_equal(plain.phrase_positives(*batch.slots, count), expected)
    held = held_phrases(*batch.slots, count)
    np.testing.assert_array_equal(positives(held, batch.phrase_id), expected)
    traced = jax.jit(held_phrases, static_argnums=3)(*batch.slots, count)  # knows no owner while it is compiled
    np.testing.assert_array_equal(positives(traced, batch.phrase_id), expected)


@pytest.mark.parametrize(("images", "tokens", "width", "scale", "temperature"), [
    (4, 729, 32, 117.0, 1.0), (6, 49, 64, 10.0, 1.0), (4, 16, 8, 117.0, 0.05), (3, 1, 4, 10.0, 1.0)])
def test_gradients_agree_with_float64_to_a_millionth(images, tokens, width, scale, temperature):
    """The formula with the pooled vectors written out, differentiated by JAX in float64."""
    batch = make_batch(7, images=images, slots=3, tokens=tokens, width=width, scale=scale)
    positive = np.array([[batch.sign(i, j) > 0 for j in range(len(batch.owner))] for i in range(images)])

    def exact(tokens, phrases, scale, bias):
        attention = jax.nn.softmax(jax.numpy.einsum("bkd,nd->bnk", tokens, phrases) / temperature)
        pooled = jax.numpy.einsum("bnk,bkd->bnd", attention, tokens)
        cosine = jax.numpy.einsum("bnd,nd->bn", pooled / jax.numpy.linalg.norm(pooled, axis=-1, keepdims=True), phrases)
        nll = jax.numpy.logaddexp(0, -jax.numpy.where(positive, 1, -1) * (scale * cosine + bias))
        return jax.numpy.sum(nll * batch.valid) / batch.valid.sum()

    low = [np.float32(x) for x in (batch.tokens, batch.phrases, batch.scale, batch.bias)]
    with jax.enable_x64(True):
        wanted = jax.value_and_grad(exact, argnums=(0, 1, 2, 3))(*(x.astype(np.float64) for x in low))
        wanted = jax.tree.map(np.asarray, wanted)
    got = jax.value_and_grad(
        lambda *a: concept_attention_loss(*a[:2], *batch.slots, *a[2:], temperature=temperature), argnums=(0, 1, 2, 3))(*low)
    limit = 1e-6 if temperature == 1 else 1e-5  # a sharper attention magnifies the rounding of its logits
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert np.linalg.norm(a - b) <= limit * np.linalg.norm(b)


@pytest.mark.parametrize("block", [1, 2, 4])
def test_the_size_of_a_block_changes_nothing(block):
    batch = make_batch(5, images=4, slots=2)
    arguments = [np.float32(x) for x in (batch.tokens, batch.phrases, batch.scale, batch.bias)]
    step = lambda block: jax.value_and_grad(
        lambda *a: concept_attention_loss(*a[:2], *batch.slots, *a[2:], block=block), argnums=(0, 1, 2, 3))(*arguments)
    for a, b in zip(jax.tree.leaves(step(block)), jax.tree.leaves(step(None)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", [phrase_loss, concept_attention_loss])
def test_the_two_normalisers_agree_where_no_phrase_repeats_and_count_pairs_where_one_does(loss):
    batch = make_batch(6, images=4, slots=2, valid=1.0)
    keys = batch.image if loss is phrase_loss else batch.tokens
    value = lambda ids, normaliser: float(loss(
        keys, batch.phrases, batch.owner, np.int32(ids), batch.valid, batch.scale, batch.bias, normaliser=normaliser))
    assert value(np.arange(8), "positives") == value(np.arange(8), "texts")
    ids = [3, 1, 3, 2, 5, 3, 7, 8]  # image 0, 1 and 2 hold phrase 3: three slots with three positives each, five with one
    assert value(ids, "positives") == pytest.approx(value(ids, "texts") * 8 / 14, rel=1e-6)


def test_an_unnormalised_embedding_is_named_in_the_debug_mode():
    batch = make_batch(8)
    loss = checkify.checkify(lambda tokens: concept_attention_loss(
        tokens, batch.phrases, *batch.slots, batch.scale, batch.bias, checked=True))
    assert loss(np.float32(batch.tokens))[0].get() is None
    with pytest.raises(checkify.JaxRuntimeError, match="tokens hold a vector of length 2"):
        loss(np.float32(2 * batch.tokens))[0].throw()


@pytest.mark.parametrize("loss", [phrase_loss, concept_attention_loss])
def test_masked_slots_count_for_nothing(loss):
    batch = make_batch(0, images=4, slots=3, valid=0.5)
    keys = batch.image if loss is phrase_loss else batch.tokens
    kept = batch.valid
    masked = loss(keys, batch.phrases, *batch.slots, batch.scale, batch.bias)
    absent = loss(keys, batch.phrases[kept], *(x[kept] for x in batch.slots), batch.scale, batch.bias)
    assert float(masked) == pytest.approx(float(absent), rel=1e-6)


@pytest.mark.parametrize("loss", [phrase_loss, concept_attention_loss])
def test_a_batch_without_a_valid_phrase_gives_zero_loss_and_zero_gradients(loss):
    batch = make_batch(1, valid=0.0)
    keys = batch.image if loss is phrase_loss else batch.tokens
    value, gradients = jax.value_and_grad(loss, argnums=(0, 1, 5, 6))(
        np.float32(keys), np.float32(batch.phrases), *batch.slots, np.float32(batch.scale), np.float32(batch.bias))
    assert value == 0
    assert all(np.all(np.asarray(g) == 0) for g in gradients)


def test_bfloat16_inputs_give_a_float32_loss_and_gradients_near_the_exact_ones():
    batch = make_batch(2, images=16, slots=3, width=256, tokens=64)
    inputs = [jax.numpy.bfloat16(x) for x in (batch.tokens, batch.phrases)]
    step = jax.value_and_grad(lambda tokens, phrases: concept_attention_loss(
        tokens, phrases, *batch.slots, np.float32(10), np.float32(-10)), argnums=(0, 1))
    low, gradients = step(*inputs)
    exact, wanted = step(*(x.astype(np.float32) for x in inputs))
    assert low.dtype == np.float32 and float(low) == pytest.approx(float(exact), rel=5e-4)
    for a, b in zip(gradients, wanted, strict=True):
        assert a.dtype == jax.numpy.bfloat16
        assert np.linalg.norm(np.float32(a) - b) <= 1e-2 * np.linalg.norm(b)


def test_concept_attention_sums_to_one_and_prefers_the_most_similar_token():
    batch = make_batch(3)
    attention = np.asarray(concept_attention(batch.tokens, batch.phrases))
    np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)
    nearest = np.einsum("bkd,nd->bnk", batch.tokens, batch.phrases).argmax(-1)
    np.testing.assert_array_equal(attention.argmax(-1), nearest)


@pytest.mark.parametrize(("name", "value"), [
    ("owner", np.zeros(5, np.int32)), ("phrase_id", np.zeros(6, np.float32)), ("valid", np.ones(6, np.int32)),
    ("valid", np.ones((6, 1), bool))])
def test_slots_of_the_wrong_shape_or_type_are_named(name, value):
    batch = make_batch(4)
    setattr(batch, name, value)
    with pytest.raises(ValueError, match="owner|phrase_id|valid"):
        phrase_loss(batch.image, batch.phrases, *batch.slots, batch.scale, batch.bias)


@pytest.mark.parametrize(("options", "message"), [
    (dict(block=2), "block=2 does not divide the 3 images"), (dict(normaliser="pairs"), "normaliser='pairs' is not known"),
    (dict(temperature=0.0), "temperature=0.0"), (dict(owner=np.full(6, 3, np.int32)), "owner holds 3 to 3.*0 to 2"),
    (dict(phrases=np.ones((6, 4), np.float32)), "differ in their width")])
def test_options_that_do_not_fit_are_named_before_compilation(options, message):
    batch = make_batch(4, valid=1.0)
    options = dict(options)
    arguments = [options.pop(name, getattr(batch, name)) for name in (
        "tokens", "phrases", "owner", "phrase_id", "valid", "scale", "bias")]
    with pytest.raises(ValueError, match=message):
        concept_attention_loss(*arguments, **options)


def test_images_and_captions_of_different_numbers_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        sigmoid_loss(np.zeros((3, 4)), np.zeros((2, 4)), 1.0, 0.0)
