"""The three losses and all their gradients against a float64 brute force written from the formulas of the paper."""
from dataclasses import dataclass

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_jax.concepts import concept_attention, concept_attention_loss, phrase_positives
from cc_jax.losses import phrase_loss, sigmoid_loss


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
    assert float(value) == pytest.approx(brute(*arguments), rel=1e-5, abs=1e-6)
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
    positive = phrase_positives(*batch.slots, len(batch.image))
    expected = [[batch.sign(i, j) > 0 for j in range(len(batch.owner))] for i in range(len(batch.image))]
    np.testing.assert_array_equal(positive, expected)


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


@pytest.mark.parametrize("loss", [phrase_loss, concept_attention_loss])
def test_bfloat16_inputs_give_a_float32_loss_near_the_exact_one(loss):
    batch = make_batch(2, images=8, slots=3, width=64, tokens=9)
    keys = batch.image if loss is phrase_loss else batch.tokens
    low = loss(jax.numpy.bfloat16(keys), jax.numpy.bfloat16(batch.phrases), *batch.slots, np.float32(10), np.float32(-10))
    exact = loss(keys, batch.phrases, *batch.slots, np.float32(10), np.float32(-10))
    assert low.dtype == np.float32
    assert float(low) == pytest.approx(float(exact), rel=5e-3)


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


def test_images_and_captions_of_different_numbers_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        sigmoid_loss(np.zeros((3, 4)), np.zeros((2, 4)), 1.0, 0.0)
