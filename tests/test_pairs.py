"""The losses across devices: the same numbers on any mesh, by ring or gather; hops drawn at random; what is communicated."""
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cc_jax.pairs import DotProduct, Exchange, Held, Texts, pair_loss

ROOT = Path(__file__).parent.parent
LOSSES = ("siglip", "phrase", "attention")


@pytest.fixture(scope="module")
def across(tmp_path_factory):
    """What across_devices.py found on eight CPU devices."""
    path = tmp_path_factory.mktemp("across") / "results.npz"
    subprocess.run([sys.executable, "tests/across_devices.py", str(path)], cwd=ROOT, check=True, timeout=600,
                   env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"})
    return np.load(path)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mesh", ["2", "4", "8", "2x4"])
@pytest.mark.parametrize("kind", ["ring", "gather"])
def test_any_mesh_gives_the_loss_and_gradients_of_one_device(across, loss, mesh, kind):
    names = [name for name in across if name.startswith(f"{loss}/{mesh}/{kind}/")]
    assert len(names) >= 5  # the loss; the gradients of both sides, of the scale and the bias
    for name in names:
        wanted = across["/".join([loss, "1", "ring", *name.split("/")[3:]])]
        assert np.abs(across[name] - wanted).max() <= 1e-6 * np.abs(wanted).max(), name


@pytest.mark.parametrize("loss", LOSSES)
def test_a_ring_moves_texts_only_and_gathers_nothing(across, loss):
    collectives = re.findall(r"= (\S+) (all-gather|all-to-all|collective-permute|reduce-scatter)",
                             str(across[f"hlo/{loss}/ring"]))
    assert {kind for _, kind in collectives} == {"collective-permute"}
    rows = 16 // 8 * (1 if loss == "siglip" else 3)  # texts of a device
    moved = (rows, 2 * rows) if loss == "attention" else (rows,)  # those of two devices are met at once
    assert {shape.split("{")[0] for shape, _ in collectives} == {
        shape for n in moved for shape in (f"f32[{n},24]", f"f32[{n}]", f"s32[{n}]")}


def test_a_gather_moves_texts_only(across):
    shapes = re.findall(r"= (\S+) (?:all-gather|all-to-all|collective-permute|reduce-scatter)",
                        str(across["hlo/attention/gather"]))
    assert shapes and not any(re.search(r"\b13,24\]", shape) for shape in shapes)  # tokens are (images, 13, 24)


def test_drawn_hops_have_the_full_loss_and_gradient_as_their_expectation(across):
    losses, gradients = across["sampled/loss"], across["sampled/gradient"]
    error = losses.std() / np.sqrt(len(losses))
    assert losses.std() > 0 and abs(losses.mean() - across["whole/loss"]) < 4 * error
    errors = gradients.std(0) / np.sqrt(len(gradients))
    z = (gradients.mean(0) - across["whole/gradient"]) / (errors + 1e-9)
    assert np.mean(z**2) < 2  # about 1 for an estimate without bias


@pytest.mark.parametrize(("options", "message"), [
    (dict(kind="star"), "exchange kind 'star'"), (dict(max_hops=1), "max_hops=1; it must be at least 2")])
def test_an_exchange_that_can_not_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Exchange(**options)


@pytest.mark.parametrize(("change", "message"), [
    (dict(held=Held(np.zeros((3, 2), np.int32), np.ones((3, 1), bool))), r"held: id \(3, 2\), valid \(3, 1\)"),
    (dict(held=Held(np.zeros((3, 2), np.float32), np.ones((3, 2), bool))), "held.id is float32"),
    (dict(held=Held(np.zeros((3, 2), np.int32), np.ones((3, 2), np.int32))), "held.valid is int32"),
    (dict(texts=Texts(np.ones((4, 5), np.float32), np.zeros(4, np.int32), np.ones(3, np.float32))), r"weight \(3,\)")])
def test_arguments_of_the_wrong_shape_or_type_are_named(change, message):
    given = dict(features=np.ones((3, 5), np.float32), held=Held(np.zeros((3, 2), np.int32), np.ones((3, 2), bool)),
                 texts=Texts(np.ones((4, 5), np.float32), np.zeros(4, np.int32), np.ones(4, np.float32)))
    with pytest.raises(ValueError, match=message):
        pair_loss(DotProduct(), **given | change, scale=1.0, bias=0.0)


def test_weights_stand_for_repeated_texts():
    """A text of weight 3 counts as three equal ones: loss and gradients are the same."""
    rng = np.random.default_rng(0)
    unit = lambda *shape: np.float32((x := rng.normal(size=shape)) / np.linalg.norm(x, axis=-1, keepdims=True))
    image, text = unit(4, 6), unit(3, 6)
    held = Held(np.int32([[7, 8], [7, 9], [8, 0], [9, 8]]), np.array([[1, 1], [1, 1], [1, 0], [1, 1]], bool))
    once = lambda v, p: pair_loss(DotProduct(), v, held, Texts(p, np.int32([7, 8, 9]), np.float32([3, 1, 2])), 10.0, -3.0)
    repeat = np.array([0, 0, 0, 1, 2, 2])
    ids = np.int32([7, 8, 9])[repeat]
    often = lambda v, p: pair_loss(DotProduct(), v, held, Texts(p[repeat], ids, np.ones(6, np.float32)), 10.0, -3.0)
    a, b = (jax.value_and_grad(f, argnums=(0, 1))(image, text) for f in (once, often))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
