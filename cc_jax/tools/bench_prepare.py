"""Preparation's rate, tar shards in and ArrayRecord out, against that of finding the phrases of the same captions.

Both are done shard by shard in new processes that preparation's own runner starts, one of them and several, in turn. Of
each process the first shard is not counted, and all wait for the others there: starting, loading the tagger and the first
touch of memory (a fifth of the time of 16 000 records on a virtual machine that gets its memory page by page) do not grow
with the data, nor does putting the dataset together. A plain copy of the shards shows what the system takes for their bytes.

The shards are like those of img2dataset as it is by default: JPEGs of 256 pixels at quality 95, 26 kB (60 photos of COCO
have 25 kB so), their JSON of 500 bytes, and their text. They lie in the folder for temporary files.
"""
import io
import json
import os
import resource
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cc_jax.data import prepare, runners, survey
from cc_jax.data.annotate import Options
from cc_jax.data.part_work import Work
from cc_jax.data.phrases import count_phrases
from cc_jax.data.readers import tar
from cc_jax.data.records import Part

SIZE = 256                          # pixels
SHARDS = 4                          # for each process, the first of which is not counted
WAYS = ("phrases alone", "a copy of the shards", "preparation")


@dataclass(frozen=True)
class PhrasesAlone:
    """Finds the phrases of a shard's captions, and does no more."""
    captions: Sequence[Sequence[str]]       # of each shard

    def __call__(self, number: int, part: Part, tick: Callable) -> None:
        count_phrases(self.captions[number])


@dataclass(frozen=True)
class Copy:
    """Copies a shard."""
    folder: str

    def __call__(self, number: int, part: Part, tick: Callable) -> None:
        with open(part.url.removeprefix("file://"), "rb") as source, open(f"{self.folder}/{number}.tar", "wb") as target:
            while piece := source.read(2**20):
                target.write(piece)


@dataclass(frozen=True)
class Timed:
    """Work on a part, with what it took as a file: [start, end, CPU seconds, of them the system's, records]."""
    work: Callable
    folder: str
    sizes: Sequence[int]                    # of the parts
    processes: int                          # that share them

    def __call__(self, number: int, part: Part, tick: Callable) -> None:
        start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
        self.work(number, part, tick)
        after = resource.getrusage(resource.RUSAGE_SELF)
        system = after.ru_stime - before.ru_stime
        warm = Path(self.folder, f"{os.getpid()}.warm")
        if warm.exists():
            took = [start, time.monotonic(), after.ru_utime - before.ru_utime + system, system, self.sizes[number]]
            Path(self.folder, f"{number}.json").write_text(json.dumps(took))
        else:
            warm.touch()
            while len(list(warm.parent.glob("*.warm"))) < self.processes:
                time.sleep(0.01)


def bench_prepare(captions: Sequence[str], processes: int, repeats: int) -> list[dict]:
    """Medians: of the CPU time of a record, and of records a second by the clock; images are not re-encoded."""
    shards = [captions[i::SHARDS * processes] for i in range(SHARDS * processes)]
    took = {(way, count): [] for count in (1, processes) for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_shards(folder / "shards", shards)
        parts = dict(enumerate(tar.parts(f"{folder / 'shards'}")))
        for repeat in range(repeats):
            for (way, count), times in took.items():
                out = folder / f"{repeat}-{WAYS.index(way)}-{count}"
                out.mkdir()
                work = {WAYS[0]: PhrasesAlone(shards), WAYS[1]: Copy(str(out)), WAYS[2]: Work(
                    str(out / "dataset"), Options(), prepare.TOKENIZER_CAPTIONS, survey.CANDIDATES)}[way]
                times.append(time_parts(Timed(work, str(out), list(map(len, shards)), count), parts))
                shutil.rmtree(out)
    cpu, system, clock = ({key: statistics.median(values[i] for values in times)
                           for key, times in took.items()} for i in range(3))
    return [{"way": f"{way}, {count} process{'es' * (count > 1)}", "CPU, us a record": 1e6 * cpu[way, count],
             "of it the system's": 1e6 * system[way, count],
             "rate by CPU / phrases alone": cpu[WAYS[0], count] / cpu[way, count], "records/s": 1 / clock[way, count],
             "records/s / one process": clock[way, 1] / clock[way, count]} for way, count in took]


def time_parts(work: Timed, parts: dict[int, Part]) -> tuple[float, float, float]:
    """Of a record: (CPU seconds, of them the system's, seconds from the first counted start to the last end)."""
    runners.run_in_processes(work, parts, work.processes, runners.Progress(parts.values()))
    took = [json.loads(path.read_text()) for path in Path(work.folder).glob("*.json")]
    starts, ends, cpu, system, records = zip(*took, strict=True)
    return sum(cpu) / sum(records), sum(system) / sum(records), (max(ends) - min(starts)) / sum(records)


def write_shards(folder: Path, shards: Sequence[Sequence[str]]) -> None:
    """A tar for each list of captions, with drawn images."""
    folder.mkdir()
    images = draw_images(32)
    for number, captions in enumerate(shards):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for i, caption in enumerate(captions):
                key = f"{number:05d}{i:04d}"
                fields = {"url": f"http://images.example.org/{key}.jpg", "caption": caption, "key": key, "status": "success",
                          "error_message": None, "width": SIZE, "height": SIZE, "original_width": 640,
                          "original_height": 480, "exif": "{}", "sha256": f"{i:064x}"}
                for extension, data in (("jpg", images[i % len(images)]), ("json", json.dumps(fields, indent=4).encode()),
                                        ("txt", caption.encode())):
                    member = tarfile.TarInfo(f"{key}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def draw_images(count: int) -> list[bytes]:
    """JPEGs with about the detail of photos: noise, coarse and fine."""
    rng, images = np.random.default_rng(0), []
    for _ in range(count):
        coarse, fine = (
            Image.fromarray(rng.integers(low, high, (SIZE // cell, SIZE // cell, 3), np.uint8)).resize((SIZE, SIZE))
            for cell, low, high in ((8, 0, 256), (2, 110, 146)))
        image = io.BytesIO()
        Image.blend(coarse, fine, 0.5).save(image, "JPEG", quality=95)
        images.append(image.getvalue())
    return images
