"""`bench input`: images a second on one core from encoded bytes to batches, against Pillow's full decode and resize."""
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cc_jax.data import dataset, shapes
from cc_jax.data.pipeline import make_example, training_batches
from cc_jax.data.tokenizer import Tokenizer, train_tokenizer
from cc_jax.data.transforms import load

RES, BATCH, BATCHES = 224, 32, 4
WIDTH, HEIGHT = 500, 375


def bench_input(directory: str | None, seconds: Callable) -> dict[str, list[dict]]:
    """The table, by a title that says which images: a prepared dataset's, or drawn ones for None.

    Args: seconds: times functions, as `bench.seconds`. This thread and those it starts stay on one core from here on.
    """
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    records, tokenizer, name = drawn_records() if directory is None else dataset_records(directory)
    images = [record["image"] for record in records]
    example = make_example(tokenizer, RES, length=64, max_phrases=4, phrase_length=16, flip=True, seed=0)

    def on_all(function: Callable) -> Callable:
        return lambda: [function(image) for image in images] and None

    def pipeline() -> None:     # grain takes 0.4 ms to shuffle one of 128 records, 0.02 ms one of 10 000 and more
        for _ in training_batches(records * 100, example, BATCH, len(records) // BATCH, seed=0, threads=1):
            pass

    baseline, alone, whole = "Pillow: full decode, bilinear", "decode, resize", "decode, resize, tokenise, batch"
    times = seconds({baseline: on_all(by_pillow), alone: on_all(lambda image: load(image, RES)), whole: pipeline})
    errors = [np.abs(load(image, RES).astype(int) - by_pillow(image)).mean() for image in images]
    title = (f"input, {len(images)} images of {name}, {np.mean([*map(len, images)]) / 1e3:.0f} kB each, at {RES} px, "
             "one core")
    return {title: [{"way": way, "images/s": len(images) / time, "/ Pillow": times[baseline] / time,
                     "mean difference, /255": np.mean(errors) * (way != baseline),
                     "of the worst image": np.max(errors) * (way != baseline)} for way, time in times.items()]}


def by_pillow(data: bytes) -> np.ndarray:
    """The baseline, and what is exact."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((RES, RES), Image.Resampling.BILINEAR))


def dataset_records(directory: str) -> tuple[list, Tokenizer, str]:
    """The first records of a prepared dataset, whole batches where there are as many; its tokenizer; what to call them."""
    source = dataset.open_split(directory, "train")
    count = min(len(source), BATCH * BATCHES)
    records = [source[i] for i in range(count // BATCH * BATCH)]
    if not records:
        raise dataset.DatasetError(f"the dataset {directory} has {count} records to train on; give one with {BATCH} "
                                   "or more.")
    return records, Tokenizer.load(directory), str(directory)


def drawn_records() -> tuple[list, Tokenizer, str]:
    """The same of drawn JPEGs, about as smooth and as large as photos, with captions of drawn scenes."""
    rng, records = np.random.default_rng(0), []
    for _, _, captions, _ in shapes.records("train", 0, BATCH * BATCHES):
        records.append({"image": draw_jpeg(rng), "captions": [caption.encode() for caption in captions], "phrases":
                        [" ".join(caption.split()[:3]).encode() for caption in captions], "phrase_caption": [0, 1]})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.model"
        train_tokenizer([caption.decode() for record in records for caption in record["captions"]], path, vocab_size=300)
        return records, Tokenizer.load(path), f"{WIDTH} x {HEIGHT} px drawn here (JPEG)"


def draw_jpeg(rng: np.random.Generator) -> bytes:
    """Noise of all sizes, the finer the weaker, as in photos."""
    image = np.full((HEIGHT, WIDTH, 3), 128, np.float32)
    for cells in 2 ** np.arange(1, 10):
        noise = rng.normal(size=(cells, cells, 3)) * [1, 0.3, 0.3] @ COLOURS
        image += cv2.resize(noise.astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) * 100 * cells**-0.5
    stream = io.BytesIO()
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


COLOURS = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3], [2], [6]])     # grey, and two shades
