"""A model in Python: whatever it is loaded from, the embeddings are those of its forward pass."""
import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import cc_jax
from cc_jax.config import ConfigError
from cc_jax.data import dataset, transforms
from cc_jax.saved import open_run


@pytest.fixture(scope="module")
def model(tiny_run):
    return cc_jax.load(str(tiny_run))


@pytest.fixture(scope="module")
def picture(shapes_dir) -> bytes:
    return dataset.open_split(shapes_dir, "test")[0]["image"]


def forward(run, pictures, texts):
    """Both towers, without batches, padding or compilation."""
    pixels = np.stack([transforms.load(picture, run.res) for picture in pictures]) / 127.5 - 1
    tokens = run.tokenizer.encode(texts, run.model.text["length"])
    images, texts, _ = run.model.apply({"params": run.params}, jnp.asarray(pixels, jnp.float32), tokens)
    return np.asarray(images), np.asarray(texts)


def test_embeddings_are_those_of_the_towers_for_any_number(model, tiny_run, shapes_dir):
    run, records = open_run(str(tiny_run)), dataset.open_split(shapes_dir, "train")
    pictures, texts = [records[i]["image"] for i in range(130)], [f"{i} red circles" for i in range(130)]
    images, captions = forward(run, pictures, texts)
    for count in (1, 3, 130):
        np.testing.assert_allclose(model.embed_image(pictures[:count]), images[:count], atol=1e-5)
        np.testing.assert_allclose(model.embed_text(texts[:count]), captions[:count], atol=1e-5)
    np.testing.assert_allclose(model.embed_text(texts[0]), captions[:1], atol=1e-5)
    assert model.scale == pytest.approx(np.exp(float(run.params["t"][0]))) and model.bias == float(run.params["b"][0])


def test_an_image_may_come_as_path_bytes_pillow_image_or_pixels(model, picture, tmp_path):
    (tmp_path / "a.png").write_bytes(picture)
    opened = Image.open(io.BytesIO(picture))
    expected = model.embed_image(picture)
    for image in (str(tmp_path / "a.png"), tmp_path / "a.png", opened, np.asarray(opened.convert("RGB"))):
        np.testing.assert_allclose(model.embed_image(image), expected, atol=1e-6)
    grey = np.asarray(opened.convert("L"))
    np.testing.assert_allclose(model.embed_image(grey), model.embed_image(np.stack([grey] * 3, -1)), atol=1e-6)
    for wrong in (np.zeros((4, 4, 3), np.float32), np.zeros((2, 4, 4, 3), np.uint8), 5):
        with pytest.raises(TypeError, match="image"):
            model.embed_image([wrong])
    with pytest.raises(transforms.ImageError, match="image_undecodable"):
        model.embed_image(b"no image")


def test_the_attention_of_phrases_is_a_map_each_that_sums_to_one(model, picture):
    maps = model.phrase_attention(picture, ["red circle", "A red circle"])
    assert maps.shape == (2, 3, 3) and maps.sum((1, 2)) == pytest.approx([1, 1], abs=1e-5)
    np.testing.assert_array_equal(maps[0], maps[1])         # phrases as training has them
    np.testing.assert_allclose(model.phrase_attention(picture, "red circle")[0], maps[0], atol=1e-6)


def test_weights_of_another_format_make_the_same_model(model, tiny_run, picture, tmp_path, command):
    out = tmp_path / "w.npz"
    command("cc_jax.convert", tiny_run, out, "--to", "big_vision", "--ignore_padding_mask")
    with pytest.raises(ConfigError, match="there is no tokenizer beside"):
        cc_jax.load(str(out))
    again = cc_jax.load(str(out), tokenizer=str(tiny_run / "tokenizer.model"))
    np.testing.assert_allclose(again.embed_image(picture), model.embed_image(picture), atol=1e-5)
    full = "a red circle above a blue square " * 9          # fills the row, so that no padding is there to hide
    np.testing.assert_allclose(again.embed_text(full), model.embed_text(full), atol=1e-5)
    between = tmp_path / "between.npz"
    command("cc_jax.convert", "--interpolate", out, out, between, "--alpha", "0.25", "--to", "big_vision")
    with np.load(out) as one, np.load(between) as mixed:
        assert set(one.files) == set(mixed.files)
        np.testing.assert_allclose(mixed["params/img/embedding/kernel"], one["params/img/embedding/kernel"], rtol=1e-6)
    assert "give START, END and OUT" in command("cc_jax.convert", "--interpolate", out, between, "--to", "big_vision",
                                                fails=True).stderr
    with pytest.raises(ConfigError, match="leave it out"):
        cc_jax.load(str(out), step=3)


def test_what_is_not_there_says_so():
    with pytest.raises(ConfigError, match="does not exist"):
        cc_jax.load("nowhere")
    with pytest.raises(AttributeError, match="cc_jax.load"):
        cc_jax.lod     # noqa: B018
