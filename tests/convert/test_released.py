"""Released models by name: the table adds up; a cache, a network that works, and one that does not."""
import dataclasses

import fsspec
import numpy as np
import pytest

from cc_jax.config import ConfigError
from cc_jax.convert import formats, released

SMALL = dataclasses.replace(released.RELEASED["SigLIP B/16 224"], image="mu/16", text="mu", res=32, vocab_size=50, length=8,
                            parameters=0, file="siglip/small.npz", hub="google/siglip-small")


@pytest.fixture
def bucket(monkeypatch):
    """An empty bucket in memory in place of Google's, and a small model among the released."""
    monkeypatch.setattr(released, "BUCKET", "memory://big_vision")
    monkeypatch.setattr(released.files, "RETRY_SECONDS", ())
    monkeypatch.setitem(released.RELEASED, "SigLIP small 32", SMALL)
    monkeypatch.setitem(released.TOKENIZERS, 50, "memory://tokenizer.model")
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    return filesystem


@pytest.fixture
def upload(bucket, tmp_path, random_weights):
    """Puts the small model's file, or what `change` makes of its bytes, into the bucket."""
    def put(change=lambda data: data) -> None:
        (tmp_path / "made").mkdir()
        formats.write(random_weights(SMALL.sizes), str(tmp_path / "made" / "small.npz"), "big_vision", "float32")
        bucket.pipe("/big_vision/siglip/small.npz", change((tmp_path / "made" / "small.npz").read_bytes()))
    return put


@pytest.mark.parametrize("name", released.RELEASED)
def test_every_model_of_the_table_has_the_parameters_it_says(name):
    """Sizes by its variants, against the count that others found in the released files."""
    model = released.RELEASED[name]
    assert model.sizes.count() == model.parameters
    assert model.image in name and name.endswith(str(model.res))
    assert model.sizes.kind == ("siglip2" if name.startswith("SigLIP2") else "siglip")


def test_the_parameters_of_b16_are_big_visions(test_data):
    """Name by name, shape by shape, from a listing of big_vision's own tree."""
    lines = (test_data / "big_vision_b16_params.txt").read_text().splitlines()
    listed = {name: shape for name, shape in (line.rsplit(" ", 1)[0].split(" ", 1) for line in lines if line.strip())}
    assert {name: str(shape) for name, shape in released.RELEASED["SigLIP B/16 224"].sizes.shapes().items()} == listed


def test_names_are_told_from_paths():
    assert released.find("siglip 2 b/16 256") == "SigLIP2 B/16 256"
    assert released.find("SigLIP B/16 224") == "SigLIP B/16 224"
    assert released.find("gs://bucket/siglip/b16_224.npz") is None
    with pytest.raises(ConfigError, match="did you mean SigLIP B/16 256"):
        released.find("SigLIP B/16 257")


def test_a_model_is_downloaded_once(tmp_path, bucket, upload, random_weights):
    upload()
    cache = tmp_path / "cache"
    formats.open_weights("SigLIP small 32", str(cache))
    bucket.store.clear()
    weights = formats.open_weights("SigLIP small 32", str(cache))
    assert [file.name for file in cache.iterdir()] == ["small.npz"]
    for name, lazy in random_weights(SMALL.sizes).params.items():
        np.testing.assert_array_equal(weights.params[name].read(), lazy.read())


def test_without_a_network_the_error_says_what_to_fetch_and_where_to_put_it(tmp_path, bucket):
    with pytest.raises(ConfigError) as error:
        formats.open_weights("SigLIP small 32", str(tmp_path / "cache"))
    for part in ("memory://big_vision/siglip/small.npz", f"into {tmp_path}/cache/small.npz",
                 "https://huggingface.co/google/siglip-small", f"{tmp_path}/cache/siglip-small/", "memory://tokenizer.model"):
        assert part in str(error.value)
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("change", [lambda data: data[:-100], lambda data: b"<html>not found</html>"])
def test_a_damaged_download_is_not_kept(tmp_path, upload, change):
    upload(change)
    with pytest.raises(ConfigError, match="small.npz"):
        formats.open_weights("SigLIP small 32", str(tmp_path / "cache"))
    assert not list((tmp_path / "cache").iterdir())


def test_another_model_in_the_cache_is_found_out(tmp_path, bucket, random_weights, small):
    (tmp_path / "cache").mkdir()
    formats.write(random_weights(small), str(tmp_path / "cache" / "small.npz"), "big_vision", "float32")
    with pytest.raises(ConfigError, match="does not fit SigLIP small 32(.|\n)*Delete it"):
        formats.open_weights("SigLIP small 32", str(tmp_path / "cache"))


def test_a_directory_of_hugging_face_in_the_cache_will_do(tmp_path, bucket, random_weights):
    weights = dataclasses.replace(random_weights(SMALL.sizes), tokenizer={"spiece.model": b"pieces"})
    formats.write(weights, str(tmp_path / "cache" / "siglip-small"), "huggingface", "float32")
    assert formats.open_weights("SigLIP small 32", str(tmp_path / "cache")).tokenizer["spiece.model"] == b"pieces"
