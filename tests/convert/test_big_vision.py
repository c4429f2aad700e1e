"""Weights from big_vision's npz files: one to one, blocks stacked or not, nothing in them run."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cc_jax.config import ConfigError
from cc_jax.convert import big_vision
from cc_jax.models.two_towers import TwoTowers
from cc_jax.optim import parameter_names

SMALL = dict(width=16, depth=2, mlp_dim=32, num_heads=2)
IMAGE, TEXT = jnp.zeros((1, 16, 16, 3)), jnp.full((1, 8), 7, jnp.int32)


def make(scan=False, **text):
    return TwoTowers(image=dict(patch_size=(8, 8), **SMALL), text=dict(vocab_size=50, length=8, **SMALL) | text, scan=scan)


def initial(model, seed=0):
    return jax.jit(model.init)(jax.random.key(seed), IMAGE, TEXT)["params"]


def write(path, params, prefix="params/", **more):
    names = jax.tree.leaves(parameter_names(params))
    arrays = dict(zip((prefix + name for name in names), map(np.asarray, jax.tree.leaves(params)), strict=True))
    np.savez(path, **(arrays | more))
    return str(path)


@pytest.mark.parametrize("prefix", ["params/", ""])
def test_parameters_come_back_bit_for_bit(tmp_path, prefix):
    params = initial(make())
    path = write(tmp_path / "weights.npz", params, prefix, **{"opt/count": np.zeros(3)})
    loaded = big_vision.load(path, initial(make(), seed=1))
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_single_blocks_fill_a_model_that_scans_over_them(tmp_path):
    params = initial(make())
    loaded = big_vision.load(write(tmp_path / "weights.npz", params), initial(make(scan=True), seed=1))
    one, other = (jax.jit(lambda p, model=model: model.apply({"params": p}, IMAGE, TEXT)[:2])(p)
                  for model, p in ((make(), params), (make(scan=True), loaded)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other)


def test_what_does_not_match_is_listed_with_both_sides(tmp_path):
    path = write(tmp_path / "weights.npz", initial(make()), extra_parameter=np.zeros(2))
    with pytest.raises(ConfigError) as error:
        big_vision.load(path, initial(make(vocab_size=60)))
    assert "txt/Embed_0/embedding: (50, 16) in the file, (60, 16) in the model" in str(error.value)
    assert "extra_parameter: (2,) in the file, absent in the model" in str(error.value)


def test_a_missing_file_says_what_to_name(tmp_path):
    with pytest.raises(ConfigError, match="does not exist.*webli_en_b16"):
        big_vision.load(str(tmp_path / "none.npz"), initial(make()))


def test_pickled_arrays_are_refused_unread(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("code in the file was run",))

    np.savez(tmp_path / "bomb.npz", **{"params/t": np.array([Bomb()], dtype=object)})
    with pytest.raises(ConfigError, match="[Oo]bject"):
        big_vision.load(str(tmp_path / "bomb.npz"), initial(make()))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_npz_is_named(tmp_path, content):
    (tmp_path / "weights.npz").write_bytes(content)
    with pytest.raises(ConfigError, match="weights.npz"):
        big_vision.load(str(tmp_path / "weights.npz"), initial(make()))
