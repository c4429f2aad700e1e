"""Which curves of a run's metrics are worth drawing, and how each is drawn."""
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from cc_jax.objective import LOSSES
from cc_jax.report.runs import Run
from cc_jax.report.tables import chance, evaluations, score_names, spelled

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
HEADLINES = ("phrase_binding", "swap_attribute", "macro")                   # the curves of these come first


@dataclass(frozen=True)
class Panel:
    """One small plot of `key` over the steps, with a line for each run that has it."""
    title: str
    key: str
    group: str = ""                 # panels of a group are folded away under its name; the others come first
    is_score: bool = False          # a share, drawn in percent with a mark for each evaluation
    chance: float | None = None
    scale: float = 1.0              # what values are multiplied by
    is_log: bool = False            # where all values are positive
    warm: bool = False              # steps that compiled left out


PROCESS = (
    Panel("learning rate", "learning_rate", "Training"),
    Panel("scale", "scale", "Training"),
    Panel("bias", "bias", "Training"),
    Panel("norm of the gradient", "norm/gradient", "Training", is_log=True),
    Panel("norm of the parameters", "norm/parameter", "Training"),
    Panel("phrases without room, a step", "phrases/overflow", "Training"),
    Panel("images a second", "images_per_second", "Speed", warm=True),
    Panel("waiting for input, % of the time", "input_wait", "Speed", scale=100, warm=True),
    Panel("MFU, %", "mfu", "Speed", scale=100, warm=True),
)


def panels(runs: Sequence[Run]) -> list[Panel]:
    """The curves worth drawing: each loss, the scores of each evaluation, how training went and how fast."""
    keys = {key for run in runs for line in run.lines for key in line}
    made = [Panel(f"{spelled(name)} loss, nats", f"loss/{name}", is_log=True) for name in LOSSES if f"loss/{name}" in keys]
    for evaluation, block in evaluations(runs).items():
        names = score_names(runs, evaluation, block)
        first = headlines(names)
        made += [Panel(f"{spelled(name)}, %", f"{evaluation}/{name}", "" if name in first else "Every score", True,
                       chance(block), scale=100) for name in names]
    return made + [panel for panel in PROCESS if panel.key in keys]


def headlines(names: Sequence[str]) -> list[str]:
    """Those of an evaluation's scores whose curves come first: the telling ones by name, or else the first one."""
    return [name for name in names if name.rpartition("/")[2] in HEADLINES or name.endswith("@1")] or list(names[:1])


def line_style(index: int) -> dict:
    """How the run of that index is drawn: colour, dashes and marker each tell it apart."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": STROKES[index % len(STROKES)],
            "marker": MARKERS[index % len(MARKERS)]}


def draw_panel(axes: Axes, panel: Panel, runs: Sequence[Run]) -> None:
    curves = [run.curve(panel.key, panel.warm) for run in runs]
    for i, (steps, values) in enumerate(curves):
        style = line_style(i) | ({} if panel.is_score or len(steps) == 1 else {"marker": None})
        axes.plot(steps, [panel.scale * value for value in values], **style, markersize=3)
    values = [panel.scale * value for _, each in curves for value in each]
    axes.set_title(shorter(panel.title, 36))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    longest = max(run.step for run in runs)
    axes.set_xlim(-0.04 * longest, 1.04 * longest)      # the same for all panels, whatever is evaluated when
    axes.tick_params(length=2)
    if panel.is_score:
        floor = 0.0 if panel.chance is None else panel.chance - 0.1
        axes.set_ylim(10 * (min(values + [panel.scale * floor]) // 10), 102)      # room for a marker at 100
    elif panel.is_log and all(value > 0 for value in values):
        axes.set_yscale("log")
        narrow = max(values, default=1) < 10 * min(values, default=1)       # 1, 2, 5, 10 would be too few marks
        axes.yaxis.set_major_locator(MaxNLocator(4) if narrow else LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if panel.chance is not None:
        axes.axhline(panel.scale * panel.chance, color=FAINT, linewidth=0.9, linestyle=(0, (2, 2)))


def shorter(name: str, room: int) -> str:
    """A name cut to so many characters in its middle, as names differ in how they begin and end."""
    return name if len(name) <= room else f"{name[:(room - 1) // 2]}…{name[-(room // 2):]}"
