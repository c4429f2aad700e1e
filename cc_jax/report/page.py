"""A report as one HTML page."""
import base64
import html
import io
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from PIL import Image

from cc_jax.evals.overlay import Example
from cc_jax.page import document, table
from cc_jax.report.curves import COLOURS, DARK_COLOURS, FAINT, INK, STROKES, Panel, draw_panel, panels, shorter
from cc_jax.report.runs import Run
from cc_jax.report.tables import Table, tables

CSS = """
:root { LIGHT }
@media (prefers-color-scheme: dark) { :root { DARK } }
.legend span { margin-right: 1.2em; display: inline-block; overflow-wrap: anywhere; }
.legend svg { width: 34px; height: 10px; }
.tables { display: grid; gap: 0 40px; grid-template-columns: repeat(auto-fit, minmax(min(100%, TABLEpx), 1fr)); }
.curves { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 240px), 1fr)); }
.curves svg { width: 100%; height: auto; }
.examples { display: grid; gap: 24px 32px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
.example { display: grid; gap: 4px 16px; grid-template-columns: 2fr COLUMNSfr; }
.example img { width: 100%; display: block; border-radius: 3px; }
.maps { display: grid; gap: 6px; grid-template-columns: repeat(COLUMNS, minmax(0, 150px)); align-content: start; }
.maps > b { grid-column: 1 / -1; font-weight: 600; }
.example * { min-width: 0; overflow-wrap: anywhere; } .maps figure { margin: 0; }
.maps figcaption { font-size: .85em; line-height: 1.2; margin: .2em 0; color: var(--ink); }
@media (max-width: 480px) { .example { grid-template-columns: 1fr; } .example > div > img { max-width: 200px; } }
"""


def page(runs: Sequence[Run], shown: Sequence[Example], without: Sequence[str] = ()) -> str:
    """The whole report as one HTML document that needs no other file.

    Args: shown: the attention of phrases in test images; without: the names of runs that have no checkpoint to show it of.
    """
    palette = lambda colours: " ".join(f"--run{i}: {colour};" for i, colour in enumerate(colours))
    css = CSS.replace("LIGHT", palette(COLOURS)).replace("DARK", palette(DARK_COLOURS)).replace(
        "COLUMNS", str(max((len(example.phrases) for example in shown), default=1))).replace(
        "TABLE", str(max(300, 180 + 60 * len(runs))))
    legend = "".join(f'<span>{legend_key(i)} {html.escape(run.name)}</span>' for i, run in enumerate(runs))
    groups = {"": []}
    for panel in panels(runs):
        groups.setdefault(panel.group, []).append(svg(panel, runs))
    parts = [
        f'<h1>Training report</h1>\n<p class="legend">{legend}</p>',
        '<div class="tables">', *map(html_table, tables(runs)), "</div>",
        "<h2>Curves by training step</h2>\n<p>Dashed grey: chance.</p>", curves(groups.pop(""))]
    parts += [f"<details><summary>{name}</summary>\n{curves(plots)}\n</details>" for name, plots in groups.items()]
    if shown or without:
        parts += ["<h2>What each phrase attends to</h2>\n<p>Test images and the phrases of a caption. A patch is dark "
                  "where a phrase attends to it no more than an even spread over the image would, and the brighter the "
                  "more it does. All maps of an image share one scale.</p>"]
    if without:
        parts += [f"<p>Not shown, for want of a checkpoint: {html.escape(', '.join(without))}.</p>"]
    parts += ['<div class="examples">', *map(html_example, shown), "</div>"] if shown else []
    return document(f"Training report: {', '.join(run.name for run in runs)}", css, *parts)


def curves(plots: Sequence[str]) -> str:
    return "\n".join(['<div class="curves">', *plots, "</div>"])


def legend_key(index: int) -> str:
    dashes = {"-": "", "--": "5 3", ":": "1.5 2.5", "-.": "6 3 1.5 3"}[STROKES[index % len(STROKES)]]
    return (f'<svg viewBox="0 0 34 10" aria-hidden="true"><line x1="1" x2="33" y1="5" y2="5" stroke-width="2.5" '
            f'stroke="var(--run{index % len(COLOURS)})" stroke-dasharray="{dashes}"/></svg>')


def html_table(sheet: Table) -> str:
    return (f"<section>\n<h2>{html.escape(sheet.title)}</h2>\n<p>{html.escape(sheet.note)}</p>\n"
            f"{table([shorter(name, 24) for name in sheet.columns], sheet.rows)}\n</section>")


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
