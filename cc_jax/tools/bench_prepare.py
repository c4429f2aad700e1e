"""Preparation's rate, tar shards in and ArrayRecord out, against that of finding the phrases of the same captions."""
import io
import tarfile
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from cc_jax.data import prepare
from cc_jax.data.phrases import count_phrases
from cc_jax.data.tokenizer import train_tokenizer

SHARDS, SIZE = 8, 256       # images as img2dataset writes them by default


def bench_prepare(captions: Sequence[str], processes: int) -> list[dict]:
    """Records a second, on one process and on several; images are not re-encoded.

    What is done once, such as starting processes, drops out: the time is that of all captions less that of half of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        train_tokenizer(captions[:1000], folder / "tokenizer.model", 200)
        for half in ("some", "all"):
            write_shards(folder / half, captions if half == "all" else captions[:len(captions) // 2])
        rates = {"phrases alone": _rate_of_phrases(captions, 1), "preparation": _rate(folder, len(captions), 1),
                 f"phrases alone, {processes} processes": _rate_of_phrases(captions, processes),
                 f"preparation, {processes} processes": _rate(folder, len(captions), processes)}
    base = [rates["phrases alone"]] * 2 + [rates[f"phrases alone, {processes} processes"]] * 2
    return [{"way": name, "records/s": rate, "/ phrases alone": rate / phrases,
             "/ one process": rate / rates[name.partition(",")[0]]}
            for (name, rate), phrases in zip(rates.items(), base, strict=True)]


def _rate_of_phrases(captions: Sequence[str], processes: int) -> float:
    if processes == 1:
        count_phrases(captions[:100])
        start = time.perf_counter()
        count_phrases(captions)
    else:
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            list(pool.map(count_phrases, [captions[:100]] * processes * 4))
            start = time.perf_counter()
            list(pool.map(count_phrases, (captions[i::processes] for i in range(processes))))
    return len(captions) / (time.perf_counter() - start)


def _rate(folder: Path, records: int, processes: int) -> float:
    times = {}
    for part in ("some", "all"):
        start = time.perf_counter()
        prepare.prepare(f"tar:{folder / part}", folder / f"{part}-{processes}", tokenizer=folder / "tokenizer.model",
                        processes=processes)
        times[part] = time.perf_counter() - start
    return (records - records // 2) / (times["all"] - times["some"])


def write_shards(folder: Path, captions: Sequence[str]) -> None:
    """SHARDS tars of images with a JPEG's usual detail, about 30 kB each, and a text and a JSON of each caption."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (SIZE // 4, SIZE // 4, 3), np.uint8)).resize((SIZE, SIZE))
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=95)
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for i, caption in enumerate(captions[shard::SHARDS]):
                for extension, data in (("jpg", jpeg.getvalue()), ("txt", caption.encode())):
                    member = tarfile.TarInfo(f"{shard:05d}{i:05d}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
