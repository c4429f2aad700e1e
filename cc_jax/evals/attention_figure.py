"""The figure of the attention command: picture, MAP head and phrases side by side, a row for each model."""
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from absl import app, flags, logging
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cc_jax.config import ConfigError
from cc_jax.data.phrases import normalise
from cc_jax.data.transforms import ImageError, decode
from cc_jax.evals import attention
from cc_jax.evals.attention import Maps
from cc_jax.evals.models import find_models
from cc_jax.evals.overlay import SHADE, SHARE_LEFT, overlay, strongest

MAX_PHRASES = 8                 # of a figure
ENDINGS = (".png", ".jpg", ".pdf", ".svg")
CELL, SIZE = 1.75, 400          # of a map: inches, and pixels of its longer side
WRAP = 22                       # characters of a title's line
INK, FAINT = "#1c2024", "#6a717a"
STYLE = {"font.size": 8.5, "text.color": INK, "axes.labelcolor": INK, "axes.titlesize": 9, "text.parse_math": False}


def figure(picture: UInt8[np.ndarray, "H W 3"], phrases: Sequence[str], models: Mapping[str, Maps]) -> Figure:
    """The picture, and for each model a row of its maps; a ring marks each map's peak.

    All maps of phrases share one scale, those of MAP heads another: a head's attention is often much the sharper.
    """
    heads = [maps.pooling for maps in models.values() if maps.pooling is not None]
    peaks = {"phrases": max(strongest(maps.phrases) for maps in models.values())}
    if heads:
        peaks = {"MAP head": max(map(strongest, heads))} | peaks
    titles = ["image", *(["MAP head"] if heads else []), *phrases]
    aspect = picture.shape[0] / picture.shape[1]
    title = max(len(_wrapped(text).splitlines()) for text in titles) * 0.17 + 0.1
    row = CELL * min(aspect, 1.6) + 0.25
    heights = [title + row * len(models), 0.55]
    made = Figure(figsize=(CELL * len(titles) + 0.4, sum(heights)), layout="constrained", facecolor="white")
    maps_part, scale_part = made.subfigures(2, 1, height_ratios=heights)
    grid = maps_part.subplots(len(models), len(titles), squeeze=False)
    for axes, text in zip(grid[0], titles, strict=True):
        axes.set_title(_wrapped(text))
    for cells, (name, maps) in zip(grid, models.items(), strict=True):
        _draw_row(list(cells), name if len(models) > 1 else "", picture, maps, peaks)
    for axes, (name, peak) in zip(scale_part.subplots(1, 2, squeeze=False)[0], peaks.items(), strict=False):
        _draw_scale(axes, name, peak)
    for axes in scale_part.axes[len(peaks):]:
        axes.set_axis_off()
    return made


def _draw_row(cells: list[Axes], name: str, picture: np.ndarray, maps: Maps, peaks: Mapping[str, float]) -> None:
    for axes in cells:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    cells[0].set_ylabel(_wrapped(name))
    _show(cells[0], picture)
    drawn = overlay(picture, maps.phrases, SIZE, peaks["phrases"])
    for axes, each, pixels in zip(cells[-len(drawn):], maps.phrases, drawn, strict=True):
        _show_map(axes, each, pixels)
    if "MAP head" in peaks and maps.pooling is None:
        cells[1].text(0.5, 0.5, "the tower has none", ha="center", va="center", color=FAINT, transform=cells[1].transAxes)
    elif "MAP head" in peaks:
        _show_map(cells[1], maps.pooling, overlay(picture, maps.pooling[None], SIZE, peaks["MAP head"])[0])


def _show(axes: Axes, pixels: UInt8[np.ndarray, "H W 3"]) -> None:
    """On sides of 1, at its own aspect."""
    axes.imshow(pixels, extent=(0, 1, 1, 0), aspect=pixels.shape[0] / pixels.shape[1], interpolation="nearest")


def _show_map(axes: Axes, each: Float[np.ndarray, "h w"], pixels: UInt8[np.ndarray, "H W 3"]) -> None:
    _show(axes, pixels)
    for colour, width in (("black", 2.2), ("white", 1)):        # a ring that shows on any picture
        axes.plot(*peak_place(each), "o", markersize=8, markerfacecolor="none", markeredgecolor=colour,
                  markeredgewidth=width)
    axes.set_xlabel(f"peak {strongest(each):.2f} ×", color=FAINT, fontsize=8, labelpad=2)


def _draw_scale(axes: Axes, name: str, peak: float) -> None:
    """A bar from the darkest to the brightest, as white would look."""
    left = (SHARE_LEFT + (1 - SHARE_LEFT) * np.linspace(0, 1, 200))[None, :, None]
    axes.imshow((left * 255 + (1 - left) * SHADE).round().astype(np.uint8), extent=(0, 1, 0, 1), aspect="auto")
    axes.set(yticks=[])
    axes.set_xticks([0, 1], ["≤ 1 ×", f"{peak:.2f} ×"])
    axes.tick_params(length=0, labelsize=8, labelcolor=FAINT)
    for label, side in zip(axes.get_xticklabels(), ("left", "right"), strict=True):
        label.set_horizontalalignment(side)
    axes.spines[:].set(color=FAINT, linewidth=0.5)
    axes.set_title(f"{name}, times an even spread", fontsize=8, color=FAINT, loc="left", pad=3)


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, WRAP, max_lines=3, placeholder=" …"))


def peak_place(each: Float[np.ndarray, "h w"]) -> tuple[float, float]:
    """(x, y) of the middle of the patch that gets most, the image's sides 1; the first of several."""
    height, width = each.shape
    row, column = divmod(int(each.argmax()), width)
    return (column + 0.5) / width, (row + 0.5) / height


def write(
    out: str, image: bytes, phrases: Sequence[str], models: Sequence[str], tokenizer: str | None = None,
) -> dict[str, Maps]:
    """Writes the figure and returns each model's maps by its name.

    Args:
      phrases: are brought into the form that training saw.
      models, tokenizer: as `find_models` takes them.
    Raises: ValueError for phrases that can't be drawn or a file of another kind, ImageError, and what opening a model does.
    """
    if not phrases or not all(map(str.strip, phrases)):
        raise ValueError('there is no phrase, or an empty one; give some, such as "red couch".')
    if len(phrases) > MAX_PHRASES:
        raise ValueError(f"{len(phrases)} phrases, and a figure has room for {MAX_PHRASES}; draw several.")
    if Path(out).suffix.lower() not in ENDINGS:
        raise ValueError(f"--out={out}: write a file that ends in one of {', '.join(ENDINGS)}.")
    picture, phrases = decode(image), [normalise(phrase) or phrase for phrase in phrases]
    maps = {model.name: attention.make(model.open())(image, phrases) for model in find_models(models, tokenizer)}
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure(picture, phrases, maps).savefig(out, dpi=150)
    return maps


def main(argv: list[str]) -> None:
    args = flags.FLAGS
    if len(argv) < 4:
        raise app.UsageError('give a model, an image and phrases: python -m cc_jax.evals.attention runs/concepts couch.jpg '
                             '"red couch"')
    _, model, image, *phrases = argv
    logging.set_verbosity(logging.WARNING)
    try:
        models = write(args.out, Path(image).read_bytes(), phrases, [model, *args.compare], args.tokenizer)
    except (ConfigError, ImageError, OSError, ValueError) as error:
        detail = f"{image}: {error}" if isinstance(error, ImageError) else error     # decoding does not know the name
        raise SystemExit(f"{type(error).__name__}: {detail}") from None
    for name, maps in models.items():
        for phrase, each in [("MAP head", maps.pooling), *zip(phrases, maps.phrases, strict=True)]:
            if each is not None:
                row, column = divmod(int(each.argmax()), each.shape[1])
                print(f"{name}  {phrase}  peak {strongest(each):.2f} x an even spread, in patch row {row + 1} of "
                      f"{each.shape[0]}, column {column + 1} of {each.shape[1]}")
    print(f"written to {args.out}")
