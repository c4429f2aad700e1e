"""Embeddings against the towers applied to one item at a time; errors and early ends of what is embedded."""
import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cc_jax.data.transforms import ImageError, view
from cc_jax.evals import embed
from cc_jax.evals.embedder import ImageFile
from cc_jax.saved import open_run

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def run(tiny_run):
    return open_run(str(tiny_run))


@pytest.fixture(scope="module")
def embedder(run):
    return run.embedder()


@pytest.fixture(scope="module")
def files():
    """More images than two batches have, of many sizes, no two alike; some encoded, some pixels."""
    import cv2
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*rng.integers(8, 60, 2), 3), np.uint8) for _ in range(2 * embed.BATCH + 5)]
    return [image if i % 3 else cv2.imencode(".png", image)[1].tobytes() for i, image in enumerate(images)]


@pytest.fixture(scope="module")
def one_by_one(run):
    """The image and the text tower, each with a batch of one."""
    forward = jax.jit(lambda image, text: run.model.apply({"params": run.params}, image, text)[:2])
    length = run.model.text["length"]

    def alone(images, texts):
        image = [forward(jnp.float32(view(file, run.res))[None] / 127.5 - 1, None)[0][0] for file in images]
        text = [forward(None, run.tokenizer.encode([each], length))[1][0] for each in texts]
        return np.array(image), np.array(text)
    return alone


def text(i: int) -> str:
    return " ".join(["red", "green", "small", "circle", "square"][(i // 5**j) % 5] for j in range(4))


def test_any_number_of_images_and_texts_is_embedded_in_order(embedder, files, one_by_one):
    texts = [text(i) for i in range(embed.BATCH + 21)]
    images, captions = one_by_one(files, texts)
    for count in (1, 3, 37, embed.BATCH, embed.BATCH + 1, len(files)):
        np.testing.assert_allclose(embedder.images(iter(files[:count])), images[:count], atol=2e-6)
        np.testing.assert_allclose(embedder.texts(texts[:count]), captions[:count], atol=2e-6)


def test_of_nothing_there_are_no_embeddings(embedder):
    width = embedder.texts(["one"]).shape[1]
    assert embedder.images([]).shape == embedder.texts([]).shape == (0, width)


def test_a_broken_image_is_named_by_its_file_or_its_place(embedder, files):
    before = threading.active_count()
    with pytest.raises(ImageError, match="^image_undecodable: shelf/broken.jpg: ") as caught:
        embedder.images([*files[:200], ImageFile(b"no image", "shelf/broken.jpg"), *files])
    assert caught.value.reason == "image_undecodable"
    with pytest.raises(ImageError, match="image 200 of those given"):
        embedder.images([*files[:200], b"no image", *files])
    assert threading.active_count() == before


def test_what_the_files_raise_is_raised(embedder, files):
    def reading():
        yield from files[:140]
        raise FileNotFoundError("gone.jpg")

    with pytest.raises(FileNotFoundError, match="gone.jpg"):
        embedder.images(reading())


def test_threads_read_no_further_ahead_than_allowed_and_end_when_left():
    before, asked = threading.active_count(), []

    def items():
        for i in range(10**9):
            asked.append(i)
            yield i

    results = embed.in_threads(lambda i: i * i, items(), ahead=7)
    assert [next(results) for _ in range(50)] == [i * i for i in range(50)]
    assert len(asked) == 50 + 7
    results.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("devices", [1, 2, 3, 5, 6, 7, 8, 12, 64, 100, 256])
def test_few_sizes_are_compiled_with_little_waste(devices):
    most = -(-embed.BATCH // devices) * devices
    sizes = {count: embed.padded(count, most, devices) for count in range(1, most + 1)}
    for count, size in sizes.items():
        assert count <= size <= most and size % devices == 0
        assert size - count < embed.TAIL + devices
    assert len(set(sizes.values())) <= 12


def test_eight_devices_give_the_same(tiny_run, embedder, files, tmp_path):
    script = """
import sys, jax, numpy as np
from cc_jax.saved import open_run
given = np.load(sys.argv[2])
embedder = open_run(sys.argv[1]).embedder()
assert len(jax.devices()) == 8
np.savez(sys.argv[3], *[embedder.images(given[:n]) for n in (1, 9, 139)], embedder.texts(list(map(str, range(133)))))
"""
    pixels = np.stack([view(file, 48) for file in files[:139]])
    np.save(tmp_path / "pixels.npy", pixels)
    subprocess.run([sys.executable, "-c", script, tiny_run, tmp_path / "pixels.npy", tmp_path / "out.npz"], check=True,
                   cwd=ROOT, timeout=600, env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"})
    found = list(np.load(tmp_path / "out.npz").values())
    expected = [*(embedder.images(pixels[:n]) for n in (1, 9, 139)), embedder.texts(list(map(str, range(133))))]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
