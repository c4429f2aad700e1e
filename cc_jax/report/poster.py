"""A report in one picture."""
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from cc_jax.evals.overlay import Example
from cc_jax.report.curves import FAINT, draw_panel, line_style, panels, shorter
from cc_jax.report.runs import Run
from cc_jax.report.tables import Table, tables

WIDTH = 12                          # of the picture, in inches
PLOTS, TABLES, EXAMPLES = 5, 3, 2   # in a row, at most
LABELS, COLUMN = 0.38, 0.75         # of a table: the share of its width that labels get, and inches that a run needs


def poster(runs: Sequence[Run], shown: Sequence[Example]) -> Figure:
    """The report in one picture, 12 inches wide: the curves that come first, the tables, the examples."""
    plots, sheets = rows([panel for panel in panels(runs) if not panel.group], PLOTS), rows(
        tables(runs), min(TABLES, max(1, int(WIDTH * (1 - LABELS) / (COLUMN * len(runs))))))
    lines = [max(len(sheet.rows) for sheet in row) + 3 for row in sheets]
    blocks = [shown[i:i + EXAMPLES] for i in range(0, len(shown), EXAMPLES)]
    phrases = max((len(example.phrases) for example in shown), default=0)
    cell = 5.6 / (phrases + 2)     # inches: an example is half as wide as the picture, its image as wide as two maps
    legend_rows = -(-len(runs) // 4)
    heights = [0.3 + 0.2 * legend_rows, 1.8 * max(1, len(plots)) + 0.2, *(0.2 * count for count in lines),
               *[cell * max(2, len(runs)) + 0.6] * len(blocks)]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained", facecolor="white")
    parts = iter(figure.subfigures(len(heights), 1, height_ratios=heights))
    head, curves = next(parts), next(parts)
    head.text(0.01, 0.5, "Training report", fontsize=14, va="center")
    head.legend([Line2D([], [], **line_style(i), markersize=4) for i in range(len(runs))],
                [shorter(run.name, 24) for run in runs], loc="center right", ncols=min(len(runs), 4), frameon=False,
                fontsize=10)
    for row, grid in zip(plots, curves.subplots(max(1, len(plots)), max(map(len, plots), default=1), squeeze=False),
                         strict=False):
        for i, axes in enumerate(grid):
            draw_panel(axes, row[i], runs) if i < len(row) else axes.set_axis_off()
    curves.supxlabel("training step", fontsize=8)
    for row, count, part in zip(sheets, lines, parts, strict=False):
        for axes, sheet in zip(part.subplots(1, len(row), squeeze=False).flat, row, strict=True):
            draw_table(axes, sheet, count, WIDTH / len(row))
    for part, block in zip(parts, blocks, strict=True):
        for half, example in zip(part.subfigures(1, EXAMPLES), block, strict=False):
            draw_example(half, example, phrases, cell)
    return figure


def rows(things: Sequence, most: int) -> list[Sequence]:
    """As few rows of at most so many as hold them all, as even as can be."""
    count = -(-len(things) // most)
    size = -(-len(things) // count) if count else 1
    return [things[i:i + size] for i in range(0, len(things), size)]


def draw_table(axes: Axes, table: Table, lines: int, width: float) -> None:
    """Text on a grid of `lines` rows, so that tables next to each other have rows of one height; `width` in inches."""
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(lines, 0))
    share = (1 - LABELS) / len(table.columns)
    right = [1 - share * i for i in reversed(range(len(table.columns)))]
    axes.text(0, 0.5, table.title, fontsize=10, va="center", weight="bold")
    for x, name in zip(right, table.columns, strict=True):
        axes.text(x, 1.6, shorter(name, int(share * width / 0.08)), ha="right", va="center", color=FAINT)
    for line, (label, cells) in enumerate(table.rows, 2):
        axes.axhline(line + 0.2, color=FAINT, linewidth=0.3)
        axes.text(0, line + 0.7, shorter(label, int(((LABELS + share) * width - 0.5) / 0.075)), va="center", fontsize=9)
        for x, text in zip(right, cells, strict=True):
            axes.text(x, line + 0.7, text, ha="right", va="center", fontsize=9)


def draw_example(figure: SubFigure, example: Example, columns: int, cell: float) -> None:
    """The image, and right of it a row of maps for each run, on a grid for `columns` phrases, a cell so many inches wide."""
    count = len(example.overlays)
    grid = figure.add_gridspec(count, columns + 2)
    whole = figure.add_subplot(grid[:min(2, count), :2])
    whole.imshow(example.picture)
    whole.set_axis_off()
    whole.set_title(textwrap.fill(shorter(example.caption, 160), int(26 * cell)), fontsize=8)
    whole.text(0, -0.02, f"dark: even spread; brightest: {example.peak:.2f} x that", transform=whole.transAxes,
               va="top", fontsize=7, color=FAINT)
    for row, (name, overlays) in enumerate(example.overlays.items()):
        for column, (phrase, overlay) in enumerate(zip(example.phrases, overlays, strict=True)):
            axes = figure.add_subplot(grid[row, column + 2])
            axes.imshow(overlay)
            axes.set(xticks=[], yticks=[], ylabel=shorter(name, int(14 * cell)) if column == 0 else "")
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title(textwrap.fill(shorter(phrase, 40), int(13 * cell)), fontsize=8)
