"""What is embedded, and what is read back instead."""
import numpy as np
import pytest

from cc_jax.config import ConfigError
from cc_jax.evals import cache
from cc_jax.evals.cache import CachedEmbedder, model_folder


class Counting:
    """Embeds contents as numbers made of them, and counts."""
    params = {"a": 1}

    def __init__(self):
        self.opened, self.asked = 0, []

    def __call__(self):
        self.opened += 1
        return self

    def images(self, files):
        return self.texts([file if isinstance(file, bytes) else file.tobytes() for file in files])

    def texts(self, texts):
        self.asked += texts
        return np.array([[len(text), hash(text) % 997] for text in texts], np.float32)


def test_each_content_is_embedded_once_in_order_and_none_again_from_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_SAVE_EVERY", 2)
    model, pixels = Counting(), np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    embedder = CachedEmbedder(model, tmp_path / "m")
    texts = embedder.texts(["one", "three", "one", "seven", "four"])
    np.testing.assert_array_equal(texts[:, 0], [3, 5, 3, 5, 4])
    np.testing.assert_array_equal(texts[0], texts[2])
    assert embedder.images(iter([b"one", pixels, b"one", b"x"])).shape == (4, 2)
    assert len(model.asked) == 4 + 3 and model.opened == 1

    again = Counting()
    second = CachedEmbedder(again, tmp_path / "m")
    np.testing.assert_array_equal(second.texts(["four", "one"]), texts[[4, 0]])
    assert second.images([pixels.copy(), b"x"]).shape == (2, 2) and again.opened == 0 and again.asked == []
    second.texts(["four", "new"])
    assert again.asked == ["new"] and second.params == {"a": 1}


def test_an_image_is_not_taken_for_a_text_nor_pixels_for_others(tmp_path):
    model = Counting()
    embedder = CachedEmbedder(model, None)
    embedder.texts(["one"])
    embedder.images([b"one"])
    embedder.images([np.zeros((2, 1, 3), np.uint8), np.zeros((1, 2, 3), np.uint8)])
    assert len(model.asked) == 4


def test_what_was_saved_before_a_kill_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_SAVE_EVERY", 2)

    def texts():
        yield from ("one", "two")
        yield from ("three", "four")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        CachedEmbedder(Counting(), tmp_path).texts(texts())
    again = Counting()
    CachedEmbedder(again, tmp_path).texts(["one", "two", "three", "four"])
    assert again.asked == [] and not list(tmp_path.glob("*.partial"))


def test_a_kill_while_writing_leaves_no_damaged_file_and_what_others_write_meanwhile_is_kept(tmp_path, monkeypatch):
    first, second = (CachedEmbedder(Counting(), tmp_path / "m") for _ in range(2))

    def killed(file, **arrays):
        second.texts(["three"])             # another process, at the same time
        file.write(b"PK")
        raise KeyboardInterrupt
    whole = np.savez
    monkeypatch.setattr(np, "savez", lambda file, **arrays: (monkeypatch.setattr(np, "savez", whole), killed(file)))
    with pytest.raises(KeyboardInterrupt):
        first.texts(["one"])
    again = Counting()
    CachedEmbedder(again, tmp_path / "m").texts(["three", "one"])
    assert again.asked == ["one"]


def test_a_damaged_file_is_named_and_nothing_in_it_runs(tmp_path):
    CachedEmbedder(Counting(), tmp_path).texts(["one"])
    [path] = tmp_path.glob("texts-*.npz")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ConfigError, match=f"{path.name} is damaged"):
        CachedEmbedder(Counting(), tmp_path)
    np.savez(path.open("wb"), keys=np.array([{"a": 1}], object), embeddings=np.zeros((1, 2)))       # pickled
    with pytest.raises(ConfigError, match="is damaged"):
        CachedEmbedder(Counting(), tmp_path)


def test_another_checkpoint_has_other_embeddings(tmp_path):
    weights = tmp_path / "weights"
    weights.write_bytes(b"1")
    first = model_folder(tmp_path, [weights])
    assert model_folder(tmp_path, [weights]) == first and model_folder(tmp_path, [weights], "x") != first
    weights.write_bytes(b"12")
    assert model_folder(tmp_path, [weights]) != first


def test_nothing_to_embed_is_an_error():
    with pytest.raises(ConfigError, match="no images"):
        CachedEmbedder(Counting(), None).images([])
