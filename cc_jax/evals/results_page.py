"""What an evaluation found as a page: for each suite a chart of its scores with intervals, and the table behind it."""
from collections.abc import Mapping, Sequence

from cc_jax.evals import tables
from cc_jax.evals.compare import Interval, Row
from cc_jax.evals.result import Result
from cc_jax.page import document, table, text

# Okabe and Ito's colours, told apart by all eyes, and their forms for dark pages; shapes tell them apart as well.
COLOURS = (("#0072b2", "#5cb8f0"), ("#d55e00", "#ff8f45"), ("#009e73", "#35cfa5"), ("#cc79a7", "#e39ac4"),
           ("#e69f00", "#f5c04d"))
_LABEL, _WIDTH, _RIGHT, _GAP, _LINE = 152, 440, 16, 12, 11       # of a chart, in units of its drawing: legible on a phone
_LONGEST = 26                                                    # characters that there is room for
CSS = """
:root { LIGHT } @media (prefers-color-scheme: dark) { :root { DARK } }
.chart { width: 100%; max-width: 600px; height: auto; display: block; }
.chart text { fill: var(--ink); font: 11px system-ui, sans-serif; } .chart .axis { fill: var(--faint); }
.chart .grid { stroke: var(--line); } .chart .chance { stroke: var(--faint); stroke-dasharray: 2 3; }
.legend span { margin-right: 1.2em; display: inline-block; overflow-wrap: anywhere; }
""".replace("LIGHT", " ".join(f"--c{i}: {light};" for i, (light, _) in enumerate(COLOURS))).replace(
    "DARK", " ".join(f"--c{i}: {dark};" for i, (_, dark) in enumerate(COLOURS)))


def page(models: Mapping[str, str], suites: Mapping[str, tuple[Sequence[Row], Result]]) -> str:
    """A self-contained HTML page; `models` says what each name stands for."""
    legend = "".join(f'<span><svg width="14" height="10" role="img" aria-label="{text(name)}">{mark(7, 5, i)}</svg> '
                     f"{text(name)}</span>" for i, name in enumerate(models))
    body = ["<h1>Evaluation</h1>", f'<p class="legend">{legend}</p>']
    for name, (rows, result) in suites.items():
        body += [f"<h2>{text(name)}</h2>", f"<p>{tables.coverage(result)}. Dotted: chance.</p>", chart(rows),
                 table(tables.columns(rows), [(row.name, tables.cells(row)) for row in rows])]
    body += [f"<p>{text(tables.HOW.format(first=next(iter(models))))}</p>", "<h2>Models</h2>",
             table(["opened from"], [(name, [given]) for name, given in models.items()])]
    return document("Evaluation", CSS, *body)


def chart(rows: Sequence[Row]) -> str:
    """SVG: a line for each score, in it a mark and an interval for each model, from 0 to 100 %."""
    height = lambda row: _GAP + _LINE * len(row.scores)
    total = sum(map(height, rows)) + 30
    across = lambda share: _LABEL + (_WIDTH - _LABEL - _RIGHT) * share
    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {total}" role="img" aria-label="scores with 95 % intervals">']
    for tick in range(0, 101, 20):
        x = across(tick / 100)
        parts.append(f'<path class="grid" d="M{x:.1f} 4V{total - 24}"/><text class="axis" x="{x:.1f}" y="{total - 8}" '
                     f'text-anchor="middle">{tick} %</text>')
    top = 4
    for row in rows:
        middle = top + height(row) / 2
        label = row.name if len(row.name) <= _LONGEST else row.name[:_LONGEST - 1] + "…"
        parts.append(f'<text x="0" y="{middle + 4:.1f}">{text(label)}</text>')
        if row.chance is not None:
            parts.append(f'<path class="chance" d="M{across(row.chance):.1f} {top + 2}v{height(row) - 4}"/>')
        for i, interval in enumerate(row.scores.values()):
            parts.append(score(interval, across, top + _GAP / 2 + _LINE * (i + 0.5), i))
        top += height(row)
    return "\n".join([*parts, "</svg>"])


def score(interval: Interval, across, y: float, model: int) -> str:
    low, value, high = (across(min(1, max(0, share))) for share in (interval.low, interval.value, interval.high))
    return (f'<g><title>{tables.percent(interval)}</title><path d="M{low:.1f} {y:.1f}H{high:.1f}" '
            f'stroke="var(--c{model % len(COLOURS)})" stroke-width="2"/>{mark(value, y, model)}</g>')


def mark(x: float, y: float, model: int) -> str:
    """A model's mark: circle, square, diamond, triangle or cross, in its colour."""
    shape = ("M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", "M-3.5 -3.5h7v7h-7z", "M0 -5l5 5l-5 5l-5 -5z", "M0 -5l5 9h-10z",
             "M-1.5 -4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z")[model % len(COLOURS)]
    return f'<path transform="translate({x:.1f} {y:.1f})" d="{shape}" fill="var(--c{model % len(COLOURS)})"/>'
