"""From any format to any other and back: every bit; laid into a model, resampled or in part; written whole or not at all."""
import dataclasses
import json

import jax
import numpy as np
import pytest
import scipy.ndimage

from cc_jax import sharding
from cc_jax.config import ConfigError
from cc_jax.convert import formats, hugging_face
from cc_jax.convert.fit import resample
from cc_jax.convert.weights import Lazy

OUT = {"big_vision": "weights.npz", "huggingface": "peer", "open_clip": "peer"}


@pytest.fixture(autouse=True)
def small_tower(small, monkeypatch):
    """An image tower of the small model's sizes among those that open_clip's writer knows."""
    monkeypatch.setitem(formats.open_clip.IMAGE_TOWERS, "small", ("small", small.patch, small.res))
    monkeypatch.setitem(formats.open_clip.VARIANTS, "small", (16, 2, 32, 2))


@pytest.mark.parametrize("there", OUT)
@pytest.mark.parametrize("here", OUT)
def test_there_and_back_keeps_every_bit(tmp_path, random_weights, arrays, here, there):
    weights = random_weights()
    for i, to in enumerate((here, there, here)):
        (tmp_path / str(i)).mkdir()
        path = tmp_path / str(i) / OUT[to]
        formats.write(weights, str(path), to, "float32")
        weights = formats.open_weights(str(path))
    first, last = tmp_path / "0" / OUT[here], tmp_path / "2" / OUT[here]
    expected = {name: lazy.read() for name, lazy in random_weights().params.items()}
    for found in (arrays(first), arrays(last)):
        assert found.keys() == expected.keys()
        assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)
    for file in [first] if first.is_file() else first.iterdir():
        same = last if first.is_file() else last / file.name
        if file.suffix != ".npz":                                        # whose members bear the time
            assert file.read_bytes() == same.read_bytes(), file.name


@pytest.mark.parametrize("to", OUT)
def test_bfloat16_halves_the_file(tmp_path, random_weights, arrays, to):
    formats.write(random_weights(), str(tmp_path / OUT[to]), to, "bfloat16")
    found = arrays(tmp_path / OUT[to])
    for name, lazy in random_weights().params.items():
        np.testing.assert_array_equal(found[name], lazy.read().astype(found[name].dtype))
        assert found[name].dtype.itemsize == 2


def test_positions_are_resampled_as_in_big_vision(tmp_path, random_weights, initial, small):
    """scipy.ndimage.zoom(order=1), which big_vision calls."""
    weights, larger = random_weights(), dataclasses.replace(small, res=40)
    loaded, notes = formats.fit(weights, initial(larger))
    old = weights.params["img/pos_embedding"].read().reshape(2, 2, 16)
    expected = scipy.ndimage.zoom(old, (2.5, 2.5, 1), order=1).reshape(1, 25, 16)
    np.testing.assert_allclose(loaded["img"]["pos_embedding"], expected, atol=1e-6)
    assert notes == ["image position embeddings resampled (bilinear) from 2x2 to 5x5 patches"]


@pytest.mark.parametrize("old, new", [(14, 24), (24, 14), (14, 14), (3, 1), (1, 3)])
def test_resampling_by_any_factor(old, new):
    grid = np.random.default_rng(0).standard_normal((old, old, 5)).astype(np.float32)
    found = resample(grid.reshape(1, -1, 5), new).reshape(new, new, 5)
    if new > 1:
        expected = scipy.ndimage.zoom(grid, (new / old, new / old, 1), order=1, mode="nearest")
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found[0, 0], grid[0, 0], atol=1e-6)


def test_text_positions_are_never_resampled(random_weights, initial, small):
    with pytest.raises(ConfigError, match=r"txt/pos_embedding: \(1, 8, 16\) in the file, \(1, 12, 16\) in the model"):
        formats.fit(random_weights(), initial(dataclasses.replace(small, length=12)))


def test_what_is_not_loaded_stays_as_it_was(random_weights, initial, small):
    start = initial(dataclasses.replace(small, vocab_size=60), seed=3)
    loaded, notes = formats.fit(random_weights(), start, dont_load=["txt/Embed_0/embedding"])
    np.testing.assert_array_equal(loaded["txt"]["Embed_0"]["embedding"], start["txt"]["Embed_0"]["embedding"])
    np.testing.assert_array_equal(loaded["t"], random_weights().params["t"].read())
    assert notes == ["1 parameters not loaded, as config.dont_load says: txt/Embed_0/embedding"]


def test_a_pattern_that_matches_nothing_is_an_error(random_weights, initial):
    with pytest.raises(ConfigError, match="config.dont_load: 'txt/Embed' matches no parameter"):
        formats.fit(random_weights(), initial(), dont_load=["txt/Embed"])


def test_one_pattern_alone_is_asked_for_as_a_list(random_weights, initial):
    with pytest.raises(ConfigError, match=r"write \['txt/.\*'\]"):
        formats.fit(random_weights(), initial(), dont_load="txt/.*")


def test_parameters_keep_the_models_type_and_place(random_weights, initial):
    replicated = sharding.replicated(sharding.make_mesh({"data": -1}))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.float16, sharding=replicated), initial())
    loaded, _ = formats.fit(random_weights(), like)
    assert {(leaf.dtype, leaf.sharding) for leaf in jax.tree.leaves(loaded)} == {(np.dtype(np.float16), replicated)}


@pytest.mark.parametrize("to", OUT)
def test_a_write_that_fails_leaves_nothing(tmp_path, random_weights, to):
    weights = random_weights()

    def full_disk():
        raise OSError("no space left on device")

    params = weights.params | {"txt/head/bias": Lazy((16,), np.dtype(np.float32), full_disk)}
    with pytest.raises(OSError, match="no space"):
        formats.write(dataclasses.replace(weights, params=params), str(tmp_path / OUT[to]), to, "float32")
    assert not list(tmp_path.iterdir())


def test_what_exists_is_not_overwritten(tmp_path, random_weights):
    (tmp_path / "peer").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        formats.write(random_weights(), str(tmp_path / "peer"), "huggingface", "float32")


@pytest.mark.parametrize("to, why", [("huggingface", "`SiglipModel` has no place"), ("open_clip", "timm's names")])
def test_a_model_that_a_peer_has_no_place_for_is_refused(tmp_path, random_weights, small, to, why):
    with pytest.raises(ConfigError, match=why):
        formats.write(random_weights(dataclasses.replace(small, embed=24)), str(tmp_path / "peer"), to, "float32")
    assert not list(tmp_path.iterdir())


def test_half_a_model_is_not_written(tmp_path, random_weights):
    weights = random_weights()
    image = {name: lazy for name, lazy in weights.params.items() if name.startswith("img/")}
    half = dataclasses.replace(weights, params=image, sizes=None)
    with pytest.raises(ConfigError, match="no SigLIP model with both towers"):
        formats.write(half, str(tmp_path / "peer"), "huggingface", "float32")


def test_a_config_that_claims_too_much_costs_nothing(tmp_path, random_weights):
    """Sizes that no memory could hold are compared with the file's shapes, and no array of them is made."""
    formats.write(random_weights(), str(tmp_path / "peer"), "huggingface", "float32")
    path = tmp_path / "peer" / hugging_face.CONFIG
    config = json.loads(path.read_text())
    config["vision_config"] |= dict(hidden_size=2**23, intermediate_size=2**23, num_hidden_layers=900, image_size=8192)
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="does not fit its config.json(.|\n)*8388608"):
        formats.open_weights(str(tmp_path / "peer"))
