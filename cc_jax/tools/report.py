"""What training and evaluation of one or several runs gave, side by side: one HTML page and one picture.

    python -m cc_jax.tools.report runs/siglip runs/concepts --out demo/report       # demo/report.html, demo/report.png

Curves and scores come from each workdir's metrics.jsonl, the attention of phrases from its newest checkpoint and the
test images of its dataset. A run goes by the name of its folder. The page stands alone: styles, curves (SVG) and
pictures are inside it, scripts there are none, and it follows the reader's light or dark theme.
"""
import base64
import html
import io
import re
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from absl import app, flags
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from cc_jax import checkpoint, metrics
from cc_jax.config import ConfigError
from cc_jax.data import dataset
from cc_jax.evals.overlay import Example, examples
from cc_jax.objective import LOSSES
from cc_jax.page import document, table
from cc_jax.saved import open_run

# Okabe and Ito's colours, told apart by all eyes; their dark-theme forms stand in CSS.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
DARK_COLOURS = ("#5cb8f0", "#ff8f45", "#35cfa5", "#e39ac4", "#9fd6f7", "#f5c04d")
STROKES, MARKERS = ("-", "--", ":", "-."), "osD^vP"
INK, FAINT = "#1c2024", "#8a9099"
STYLE = {"font.size": 8, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
         "axes.edgecolor": FAINT, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 8.5,
         "axes.titlelocation": "left", "axes.linewidth": 0.7, "grid.color": FAINT, "grid.alpha": 0.25,
         "axes.grid": True, "axes.axisbelow": True, "lines.linewidth": 1.4, "svg.fonttype": "none",
         "figure.constrained_layout.w_pad": 0.1, "text.parse_math": False}     # a "$" in a caption is a dollar
CATEGORIES = ("phrase_binding", "swap_", "replace_", "add_", "", "macro")   # their order, by how they begin
HEADLINES = ("phrase_binding", "swap_attribute", "macro")                   # the curves of these come first
DASH = "–"


@dataclass(frozen=True)
class Run:
    """A workdir's config and metrics."""
    name: str
    workdir: str
    config: dict
    lines: list[dict]

    def curve(self, key: str) -> tuple[list[int], list[float]]:
        """The steps at which `key` has a finite value, and the values."""
        points = [(line["step"], line[key]) for line in self.lines if isinstance(line.get(key), (int, float))]
        return [step for step, _ in points], [value for _, value in points]

    def final(self, key: str) -> float | None:
        values = self.curve(key)[1]
        return values[-1] if values else None

    def seconds(self) -> tuple[float | None, float | None]:
        """(a step, all of training), evaluations and saving left out; None where no line tells."""
        steps, seconds = self.curve("seconds_per_step")     # each is the mean since the line before
        if not steps:
            return None, None
        total = sum((step - before) * mean for before, step, mean in zip([0, *steps], steps, seconds, strict=False))
        return statistics.median(seconds[1:] or seconds), total     # the first holds the compilation


@dataclass(frozen=True)
class Table:
    title: str
    note: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class Panel:
    """One small plot of `key` over the steps, with a line for each run that has it."""
    title: str
    key: str
    is_share: bool = False
    chance: float | None = None
    headline: bool = True


def read_runs(workdirs: Sequence[str]) -> list[Run]:
    """Raises FileNotFoundError for a folder that holds no trained run, ValueError for two runs of one name."""
    runs = []
    for workdir in workdirs:
        config, path = checkpoint.read_config(workdir), Path(workdir) / "metrics.jsonl"
        lines = metrics.read(workdir) if path.exists() else []
        if not lines:
            raise FileNotFoundError(f"{path} {'holds no metrics' if path.exists() else 'is missing'}; train the run "
                                    f"first: python -m cc_jax.main --config ... --workdir {workdir}")
        runs.append(Run(Path(workdir).resolve().name, workdir, config, lines))
    names = [run.name for run in runs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two of the workdirs are named {repeated[0]!r}; a run goes by the name of its folder, so "
                         "give each its own.")
    return runs


def evaluations(runs: Sequence[Run], kind: str) -> dict[str, list[str]]:
    """{evaluation: names of its scores} for the evaluations of type `kind` that any run's config has."""
    blocks = {name: block for run in runs for name, block in run.config.get("evals", {}).items()}
    keys = {key: None for run in runs for line in run.lines for key in line}
    return {name: [key.removeprefix(f"{name}/") for key in keys if key.startswith(f"{name}/")]
            for name, block in blocks.items() if block.get("type") == kind}


def categories(scores: Sequence[str]) -> list[str]:
    """The names of compositional categories in their order, counts left out."""
    rank = lambda name: max((len(start), i) for i, start in enumerate(CATEGORIES) if name.startswith(start))[1]
    return sorted((name for name in scores if name not in ("items", "expected")), key=lambda name: (rank(name), name))


def spelled(name: str) -> str:
    """"image_to_text@1" -> "image to text @1"."""
    return name.replace("_", " ").replace("@", " @")


def percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f}"


def tables(runs: Sequence[Run]) -> list[Table]:
    """The final scores, an evaluation a table, then what was run and how long it took."""
    def scores(title: str, note: str, block: str, names: Sequence[str]) -> Table:
        rows = [(spelled(name), [percent(run.final(f"{block}/{name}")) for run in runs]) for name in names]
        return Table(f"{spelled(block).capitalize()}, {title}", note, [run.name for run in runs],
                     rows or [("no scores", [DASH] * len(runs))])
    made = []
    for block, names in evaluations(runs, "compositional").items():
        items = max([run.final(f"{block}/items") or 0 for run in runs])
        made.append(scores("% (chance: 50 %)", "Images closer to their caption than to its negative. "
                           f"{metrics.grouped(int(items)) if items else DASH} items.", block, categories(names)))
    for block, names in evaluations(runs, "retrieval").items():
        made.append(scores("recall in %", "Images, or captions, that find a match among the k most similar.",
                           block, names))
    return [*made, summary(runs)]


def summary(runs: Sequence[Run]) -> Table:
    """What was run: the weights of the losses, how long it was, how long it took."""
    rows = [(f"{spelled(name)} weight", [f"{run.config.get('loss', {}).get(name, 0):g}" for run in runs])
            for name in LOSSES]
    times = [run.seconds() for run in runs]
    rows += [
        ("batch size", [str(run.config.get("batch_size", DASH)) for run in runs]),
        ("updates", [metrics.grouped(max(line["step"] for line in run.lines)) for run in runs]),
        ("time per update", [DASH if step is None else f"{step:.3g} s" for step, _ in times]),
        ("training time", [DASH if total is None else metrics.duration(total) for _, total in times])]
    return Table("Runs", "Times leave out evaluations; the training time includes compilation.",
                 [run.name for run in runs], rows)


def panels(runs: Sequence[Run]) -> list[Panel]:
    """The curves worth drawing: each loss, each compositional category, recall at 1 both ways."""
    keys = {key: None for run in runs for line in run.lines for key in line}
    made = [Panel(f"{spelled(name)} loss, nats", f"loss/{name}") for name in LOSSES if f"loss/{name}" in keys]
    for block, scores in evaluations(runs, "compositional").items():
        made += [Panel(f"{spelled(name)}, %", f"{block}/{name}", True, 0.5, name in HEADLINES)
                 for name in categories(scores)]
    for block, scores in evaluations(runs, "retrieval").items():
        made += [Panel(f"{spelled(name)}, %", f"{block}/{name}", True) for name in scores if name.endswith("@1")]
    return made


def line_style(index: int) -> dict:
    """How the run of that index is drawn: colour, dashes and marker each tell it apart."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": STROKES[index % len(STROKES)],
            "marker": MARKERS[index % len(MARKERS)]}


def draw_panel(axes: Axes, panel: Panel, runs: Sequence[Run]) -> None:
    curves = [run.curve(panel.key) for run in runs]
    for i, (steps, values) in enumerate(curves):
        values = [100 * value for value in values] if panel.is_share else values
        axes.plot(steps, values, **line_style(i) | ({} if panel.is_share else {"marker": None}), markersize=3)
    axes.set_title(panel.title)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.tick_params(length=2)
    if panel.is_share:
        floor = 0.0 if panel.chance is None else panel.chance - 0.1
        least = min([value for _, values in curves for value in values] + [floor])
        axes.set_ylim(10 * (10 * least // 1), 102)      # room for a marker at 100
    elif all(value > 0 for _, values in curves for value in values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if panel.chance is not None:
        axes.axhline(100 * panel.chance, color=FAINT, linewidth=0.9, linestyle=(0, (2, 2)))


def poster(runs: Sequence[Run], shown: Sequence[Example]) -> Figure:
    """The whole report in one picture, 12 inches wide."""
    plots, sheets = [panel for panel in panels(runs) if panel.headline], tables(runs)
    plot_rows = max(1, -(-len(plots) // 5))
    columns = max(1, -(-len(plots) // plot_rows))
    lines = max(len(sheet.rows) for sheet in sheets) + 3
    blocks = [shown[i:i + 2] for i in range(0, len(shown), 2)]
    phrases = max((len(example.phrases) for example in shown), default=0)
    cell = 5.6 / (phrases + 2)     # inches: an example is half as wide as the picture, its image as wide as two maps
    heights = [0.5, 1.8 * plot_rows + 0.2, 0.2 * lines] + [cell * max(2, len(runs)) + 0.6] * len(blocks)
    figure = Figure(figsize=(12, sum(heights)), layout="constrained", facecolor="white")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights)
    parts[0].text(0.01, 0.5, "Training report", fontsize=14, va="center")
    parts[0].legend([Line2D([], [], **line_style(i), markersize=4) for i in range(len(runs))],
                    [run.name for run in runs], loc="center right", ncols=len(runs), frameon=False, fontsize=10)
    for i, axes in enumerate(parts[1].subplots(plot_rows, columns, squeeze=False).flat):
        draw_panel(axes, plots[i], runs) if i < len(plots) else axes.set_axis_off()
    parts[1].supxlabel("training step", fontsize=8)
    for axes, sheet in zip(parts[2].subplots(1, len(sheets), squeeze=False).flat, sheets, strict=True):
        draw_table(axes, sheet, lines)
    for part, block in zip(parts[3:], blocks, strict=True):
        for half, example in zip(part.subfigures(1, 2), block, strict=False):
            draw_example(half, example, phrases, int(2 * 13 * cell))
    return figure


def draw_table(axes: Axes, table: Table, lines: int) -> None:
    """Text on a grid of `lines` rows, so that tables next to each other have rows of one height."""
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(lines, 0))
    right = [1 - 0.62 * i / len(table.columns) for i in reversed(range(len(table.columns)))]
    axes.text(0, 0.5, table.title, fontsize=10, va="center", weight="bold")
    for x, name in zip(right, table.columns, strict=True):
        axes.text(x, 1.6, name, ha="right", va="center", color=FAINT)
    for line, (label, cells) in enumerate(table.rows, 2):
        axes.axhline(line + 0.2, color=FAINT, linewidth=0.3)
        for x, text, side in zip([0, *right], [label, *cells], ["left"] + ["right"] * len(cells), strict=True):
            axes.text(x, line + 0.7, text, ha=side, va="center", fontsize=9)


def draw_example(figure: SubFigure, example: Example, columns: int, wrap: int) -> None:
    """The image, and right of it a row of maps for each run, on a grid for `columns` phrases."""
    rows = len(example.overlays)
    grid = figure.add_gridspec(rows, columns + 2)
    whole = figure.add_subplot(grid[:min(2, rows), :2])
    whole.imshow(example.picture)
    whole.set_axis_off()
    whole.set_title(textwrap.fill(example.caption, wrap), fontsize=8)
    whole.text(0, -0.02, f"dark: even spread; brightest: {example.peak:.2f} x that", transform=whole.transAxes,
               va="top", fontsize=7, color=FAINT)
    for row, (name, overlays) in enumerate(example.overlays.items()):
        for column, (phrase, overlay) in enumerate(zip(example.phrases, overlays, strict=True)):
            axes = figure.add_subplot(grid[row, column + 2])
            axes.imshow(overlay)
            axes.set(xticks=[], yticks=[], ylabel=name if column == 0 else "")
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title(textwrap.fill(phrase, wrap // 2), fontsize=8)


CSS = """
:root { LIGHT }
@media (prefers-color-scheme: dark) { :root { DARK } }
.legend span { margin-right: 1.2em; white-space: nowrap; } .legend svg { width: 34px; height: 10px; }
.tables { display: grid; gap: 0 40px; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); }
.curves { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); }
.curves svg { width: 100%; height: auto; }
summary { color: var(--faint); cursor: pointer; margin: .6em 0; }
.examples { display: grid; gap: 24px 32px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
.example { display: grid; gap: 4px 16px; grid-template-columns: 2fr COLUMNSfr; }
.example img { width: 100%; display: block; border-radius: 3px; }
.maps { display: grid; gap: 6px; grid-template-columns: repeat(COLUMNS, minmax(0, 150px)); align-content: start; }
.maps > b { grid-column: 1 / -1; font-weight: 600; } .maps figure { margin: 0; }
.maps figcaption { font-size: .85em; line-height: 1.2; margin: .2em 0; color: var(--ink); }
@media (max-width: 480px) { .example { grid-template-columns: 1fr; } .example > div:first-child { max-width: 200px; } }
"""


def page(runs: Sequence[Run], shown: Sequence[Example]) -> str:
    """The whole report as one HTML document that needs no other file."""
    palette = lambda colours: " ".join(f"--run{i}: {colour};" for i, colour in enumerate(colours))
    css = CSS.replace("LIGHT", palette(COLOURS)).replace("DARK", palette(DARK_COLOURS)).replace(
        "COLUMNS", str(max((len(example.phrases) for example in shown), default=1)))
    legend = "".join(f'<span>{legend_key(i)} {html.escape(run.name)}</span>' for i, run in enumerate(runs))
    plots = [(panel.headline, svg(panel, runs)) for panel in panels(runs)]
    curves = lambda headline: "\n".join(['<div class="curves">', *(plot for first, plot in plots if first == headline),
                                         "</div>"])
    parts = [
        f'<h1>Training report</h1>\n<p class="legend">{legend}</p>',
        '<div class="tables">', *map(html_table, tables(runs)), "</div>",
        "<h2>Curves by training step</h2>\n<p>Dashed grey: chance.</p>", curves(True)]
    if not all(headline for headline, _ in plots):
        parts.append(f"<details><summary>Every category</summary>\n{curves(False)}\n</details>")
    if shown:
        parts += ["<h2>What each phrase attends to</h2>\n<p>Test images and the phrases of a caption. A patch is dark "
                  "where a phrase attends to it no more than an even spread over the image would, and the brighter the "
                  "more it does. All maps of an image share one scale.</p>",
                  '<div class="examples">', *map(html_example, shown), "</div>"]
    return document(f"Training report: {', '.join(run.name for run in runs)}", css, *parts)


def legend_key(index: int) -> str:
    dashes = {"-": "", "--": "5 3", ":": "1.5 2.5", "-.": "6 3 1.5 3"}[STROKES[index % len(STROKES)]]
    return (f'<svg viewBox="0 0 34 10" aria-hidden="true"><line x1="1" x2="33" y1="5" y2="5" stroke-width="2.5" '
            f'stroke="var(--run{index % len(COLOURS)})" stroke-dasharray="{dashes}"/></svg>')


def html_table(sheet: Table) -> str:
    return (f"<section>\n<h2>{html.escape(sheet.title)}</h2>\n<p>{html.escape(sheet.note)}</p>\n"
            f"{table(sheet.columns, sheet.rows)}\n</section>")


def svg(panel: Panel, runs: Sequence[Run]) -> str:
    """A panel as inline SVG in the page's colours, which follow the theme."""
    figure, buffer = Figure(figsize=(2.7, 1.85), layout="constrained"), io.StringIO()
    draw_panel(figure.add_subplot(), panel, runs)
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = f'<svg role="img" aria-label="{html.escape(panel.title)}"' + text[text.index("<svg") + 4:]
    text = re.sub(r'(?<=<svg )([^>]*?) width="[^"]*" height="[^"]*"', r"\1", text)     # the page sets the size,
    text = re.sub(r"font-family: [^;]*; ", "", text)                                   # and the font;
    prefix = re.sub(r"\W", "-", panel.key) + "-"                                       # and its ids are its own
    text = re.sub(r'\bid="|url\(#|href="#', lambda match: match[0] + prefix, text)
    for i, colour in enumerate(COLOURS):
        text = text.replace(colour, f"var(--run{i})")
    return text.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)")


def html_example(example: Example) -> str:
    maps = "".join(
        f"<b>{html.escape(name)}</b>" + "".join(
            f'<figure>{html_image(overlay, f"{name}: {phrase}")}<figcaption>{html.escape(phrase)}</figcaption></figure>'
            for phrase, overlay in zip(example.phrases, overlays, strict=True))
        for name, overlays in example.overlays.items())
    return (f'<div class="example"><div>{html_image(example.picture, "the test image")}'
            f"<p>{html.escape(example.caption)}<br>dark: even spread; brightest: {example.peak:.2f} x that</p></div>"
            f'<div class="maps">{maps}</div></div>')


def html_image(pixels: UInt8[np.ndarray, "H W 3"], description: str) -> str:
    buffer, image = io.BytesIO(), Image.fromarray(pixels)
    image.thumbnail((400, 400))
    image.save(buffer, "JPEG", quality=88, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{html.escape(description)}">'


def write(workdirs: Sequence[str], out: str, images: int = 4, split: str = "test") -> list[Path]:
    """Writes OUT.html and OUT.png, and returns their paths. The images are of the first run's dataset.

    Raises what `read_runs` does, FileNotFoundError for a run without checkpoint, DatasetError for a dataset gone.
    """
    runs = read_runs(workdirs)
    shown = examples({run.name: open_run(run.workdir) for run in runs},
                               dataset.open_split(runs[0].config["data"]["dir"], split), images) if images else []
    paths = [Path(f"{out}.html"), Path(f"{out}.png")]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        paths[0].write_text(page(runs, shown), encoding="utf-8")
        poster(runs, shown).savefig(paths[1], dpi=120)
    return paths


def main(argv: list[str]) -> None:
    args = flags.FLAGS
    if len(argv) < 2:
        raise app.UsageError("name the workdirs of the runs: python -m cc_jax.tools.report runs/siglip runs/concepts")
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
