"""What training and evaluation of one or several runs gave, side by side: one HTML page and one picture.

    python -m cc_jax.tools.report runs/siglip runs/concepts --out demo/report       # demo/report.html, demo/report.png

Curves and scores come from each workdir's metrics.jsonl, the attention of phrases from its newest checkpoint and the
test images of its dataset. A run goes by the name of its folder, and need not be finished. The page stands alone: styles,
curves (SVG) and pictures are inside it, scripts there are none, and it follows the reader's light or dark theme.
"""
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from absl import app, flags, logging

from cc_jax.config import ConfigError
from cc_jax.data import dataset
from cc_jax.evals.overlay import examples
from cc_jax.report.curves import STYLE
from cc_jax.report.page import page
from cc_jax.report.poster import poster
from cc_jax.report.runs import read_runs
from cc_jax.saved import open_run


def write(workdirs: Sequence[str], out: str, images: int = 4, split: str = "test") -> list[Path]:
    """Writes OUT.html and OUT.png, and returns their paths. The images are of the first run's dataset.

    A run without checkpoint is named where the others' attention is shown. Raises what `read_runs` does, DatasetError for a
    dataset gone.
    """
    runs = read_runs(workdirs)
    saved = {run.name: open_run(run.workdir) for run in runs if images and has_checkpoint(run.workdir)}
    without = [run.name for run in runs if images and run.name not in saved]
    shown = examples(saved, dataset.open_split(runs[0].config["data"]["dir"], split), images) if saved else []
    paths = [Path(f"{out}.html"), Path(f"{out}.png")]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        paths[0].write_text(page(runs, shown, without), encoding="utf-8")
        poster(runs, shown).savefig(paths[1], dpi=120)
    return paths


def has_checkpoint(workdir: str) -> bool:
    """Whether the run has saved one: a folder named by its step appears when it is whole."""
    return any(path.name.isdecimal() for path in Path(workdir).glob("checkpoints/*"))


def main(argv: list[str]) -> None:
    args = flags.FLAGS
    if len(argv) < 2:
        raise app.UsageError("name the workdirs of the runs: python -m cc_jax.tools.report runs/siglip runs/concepts")
    logging.set_verbosity(logging.WARNING)
    try:
        paths = write(argv[1:], args.out, args.images, args.split)
    except (ConfigError, dataset.DatasetError, FileNotFoundError, ValueError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    print("written to " + " and ".join(map(str, paths)))


if __name__ == "__main__":
    flags.DEFINE_string("out", "report", "The files to write, without their endings .html and .png.")
    flags.DEFINE_integer("images", 4, "How many test images to show the attention of phrases on; 0: none, and no "
                         "checkpoint or dataset is needed.", lower_bound=0)
    flags.DEFINE_string("split", "test", "The split of the runs' dataset that these images are from.")
    app.run(main)
