"""What a model's phrases look at in the images of a dataset, as one HTML page.

    python -m cc_jax.evals.gallery runs/concepts --data datasets/shapes --out gallery.html

Images are evenly spaced over the split, each with its first caption. The page stands alone: pictures are inside it, scripts
there are none.
"""
import io
import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from PIL import Image

from cc_jax.config import ConfigError
from cc_jax.data import dataset
from cc_jax.data.survey_page import marked
from cc_jax.data.transforms import ImageError, decode
from cc_jax.evals import attention
from cc_jax.evals.models import find_model
from cc_jax.evals.overlay import fitted, overlay, strongest
from cc_jax.page import document, text

MAX_PHRASES = 8                 # of an image
SIZE = 240                      # pixels of a picture's longer side

CSS = """
:root { --mark: #d3e9f8; --box: #f3f4f6; }
@media (prefers-color-scheme: dark) { :root { --mark: #1d4663; --box: #1e2328; } }
mark { background: var(--mark); color: inherit; border-radius: 3px; padding: 0 2px; margin: 0 -1px; }
mark.twice { text-decoration: underline; }
section { background: var(--box); border-radius: 6px; padding: 12px; margin: 16px 0; overflow-wrap: anywhere; }
section > p { color: var(--ink); margin: 0 0 .6em; } section > p + p { font-size: .85em; }
.maps { display: grid; gap: 10px; grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); }
.maps figure { margin: 0; } .maps img { display: block; width: 100%; border-radius: 3px; }
.maps figcaption { color: var(--ink); font-size: .85em; line-height: 1.25; margin: .3em 0 0; }
.maps small { white-space: nowrap; }
"""


def page(records: Sequence[Mapping[str, Any]], attend: attention.Attend, model: str, source: str) -> str:
    """The page of records as `dataset.open_split` has them.

    Args:
      attend: as `attention.make` gives it.
      model, source: what the model and the dataset are called.
    """
    title = f"What phrases look at: {source}"
    return document(
        title, CSS, f"<h1>{text(title)}</h1>",
        f"<p>By {text(model)}. A map is dark where a phrase attends no more than an even spread over the picture would, "
        "and the brighter the more it does. The maps of an image's phrases share one scale; the MAP head, which pools the "
        "image, has its own. × says how many times an even spread the strongest patch gets.</p>",
        *(_section(record, attend) for record in records))


def _section(record: Mapping[str, Any], attend: attention.Attend) -> str:
    """An image, its first caption and the maps of that caption's phrases."""
    caption, picture = record["captions"][0].decode(), decode(record["image"])
    of_first = [i for i, which in enumerate(record["phrase_caption"]) if which == 0]
    # Equal phrases look at the same; a caption without phrases stands as its own, as in training.
    phrases = list(dict.fromkeys(record["phrases"][i].decode() for i in of_first)) or [caption]
    places = zip(record.get("phrase_start", ()), record.get("phrase_end", ()), strict=True)  # version 1.0.0 has none
    spans = [(int(start), int(end)) for i, (start, end) in enumerate(places) if i in of_first]
    maps = attend(record["image"], phrases[:MAX_PHRASES])
    cells = [_cell(fitted(picture, SIZE), "image", f"image: {caption}")]
    if maps.pooling is not None:
        [drawn] = overlay(picture, maps.pooling[None], SIZE)
        cells.append(_cell(drawn, "MAP head", "where the MAP head looks", strongest(maps.pooling)))
    for phrase, each, drawn in zip(phrases, maps.phrases, overlay(picture, maps.phrases, SIZE), strict=False):
        cells.append(_cell(drawn, phrase, f"where “{phrase}” looks", strongest(each)))
    left = len(phrases) - MAX_PHRASES
    note = f"<p>{left} more phrases are not drawn</p>\n" if left > 0 else ""
    return (f'<section>\n<p dir="auto">{marked(caption, spans)}</p>\n{note}<div class="maps">\n{"".join(cells)}</div>\n'
            "</section>")


def _cell(pixels, name: str, description: str, peak: float | None = None) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=88, subsampling=0)
    data = b64encode(file.getvalue()).decode()
    times = "" if peak is None else f" <small>{peak:.2f} ×</small>"
    return (f'<figure><img src="data:image/jpeg;base64,{data}" alt="{text(description)}">'
            f'<figcaption dir="auto">{text(name)}{times}</figcaption></figure>\n')


def write(model: str, data: str, out: str, split: str = "test", count: int = 24, tokenizer: str | None = None) -> int:
    """Writes the page, all at once, and returns how many images it has.

    Args: model, tokenizer: as `find_model` takes them.
    Raises: DatasetError, ImageError for a record that can't be decoded, and what opening the model does.
    """
    source = dataset.open_split(data, split)
    if not len(source):
        raise dataset.DatasetError(f"split {split!r} of {data} is empty; name one that has records with --split.")
    count, found = min(count, len(source)), find_model(model, tokenizer)
    records, run = [source[i * len(source) // count] for i in range(count)], found.open()
    made = page(records, attention.make(run), f"{found.name}, step {run.step}" if found.workdir else found.name,
                f"{Path(data).resolve().name}, {split}")
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(made, encoding="utf-8")
    os.replace(partial, path)
    return count


def main(argv: list[str]) -> None:
    args = flags.FLAGS
    if len(argv) != 2:
        raise app.UsageError("name one model, and nothing else: python -m cc_jax.evals.gallery runs/concepts --data DIR")
    logging.set_verbosity(logging.WARNING)
    try:
        count = write(argv[1], args.data, args.out, args.split, args.count, args.tokenizer)
    except (ConfigError, dataset.DatasetError, ImageError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    print(f"{count} images, written to {args.out}")


if __name__ == "__main__":
    flags.DEFINE_string("data", None, "The prepared dataset.", required=True)
    flags.DEFINE_string("split", "test", "Its split.")
    flags.DEFINE_integer("count", 24, "How many images to show, evenly spaced.", lower_bound=1)
    flags.DEFINE_string("out", "gallery.html", "The page to write.")
    flags.DEFINE_string("tokenizer", None, "The tokenizer's file, for weights that have none beside them.")
    app.run(main)
