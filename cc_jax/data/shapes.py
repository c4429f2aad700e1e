"""The embedded dataset: drawn scenes of a few objects, and captions that say what is in them.

    Spec -> draw_scene -> Scene -> render -> pixels
                          Scene -> describe -> Statement -> caption -> "a small red ring above a striped blue star, ..."

A `Statement` is what a caption claims, as data; `holds` decides whether it is true, from the objects' attributes and
boxes alone. No two objects of a scene share a colour or a shape, so that every phrase names one (scenes that repeat
objects are in `shapes_counting`). A caption names each object with its colour and its texture (plain is not said), so
which words occur nearly always tells the captions of a batch apart: nothing forces a model to bind a colour to a shape.
"""
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image, ImageDraw, ImageFilter

# No word of a phrase begins with a vowel: with "an" next to "a", exchanging two words would not keep the bag of words.
COLOURS = {
    "red": (214, 30, 36), "green": (24, 150, 50), "blue": (36, 66, 214), "yellow": (246, 206, 16),
    "purple": (132, 36, 172), "black": (24, 24, 28),
}
TEXTURES = ("plain", "striped", "dotted")
SIZES = {"small": 0.69, "large": 0.94}      # of a cell's side
JITTER = 1                                  # pixels that an object lies off its cell's middle
# Of scenes, independent of one another; the last three are those of `shapes_counting`.
STREAMS = ("train", "test", "suite", "train counting", "test counting", "suite counting")

# How each relation is said; a caption keeps to one column.
PHRASINGS = {
    "left": ("to the left of", "left of"), "right": ("to the right of", "right of"),
    "above": ("above", "over"), "below": ("below", "under"),
}
OPENINGS = ("", "", "there is", "we see")
NUMBERS = {2: "two", 3: "three", 4: "four"}

# Which mentions a caption relates: (subject, object), by their place among those that take part.
LAYOUTS = ((), ((0, 1),), ((0, 1), (0, 2)), ((0, 1), (2, 3)))


@dataclass(frozen=True)
class Spec:
    """What scenes and captions are made of; the default is the dataset `shapes`."""
    res: int = 48                   # pixels on a side
    grid: int = 3                   # cells on a side; an object lies within its cell
    min_objects: int = 3
    max_objects: int = 3
    colours: tuple[str, ...] = tuple(COLOURS)
    shapes: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "diamond")
    sizes: tuple[str, ...] = tuple(SIZES)
    textures: tuple[str, ...] = TEXTURES
    share_plain: float = 0.7        # of objects, where there are other textures
    share_size_said: float = 0.4    # of mentions

    def __post_init__(self):
        most = min(self.grid**2 - 1, len(self.colours), len(self.shapes) - 1)
        if not 1 <= self.min_objects <= self.max_objects <= most:
            raise ValueError(f"min_objects={self.min_objects}, max_objects={self.max_objects}: use 1 <= min <= "
                             f"max <= {most}, or more cells, colours or shapes: an object has its own of each, and a "
                             "cell and a shape stay free.")
        if self.res // self.grid < 12:
            raise ValueError(f"res={self.res} leaves a cell {self.res // self.grid} pixels on a side, and shapes need "
                             f"at least 12 to be told apart; use res={12 * self.grid} or more, or a smaller grid.")


DEFAULT = Spec()


class Box(NamedTuple):
    """Pixels [x0, x1) x [y0, y1)."""
    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""
    shape: str
    colour: str
    size: str
    texture: str
    box: Box
    rgb: tuple[int, int, int]       # the colour as drawn, a little off its standard


@dataclass(frozen=True)
class Scene:
    things: tuple[Thing, ...]
    background: tuple[int, int, int]
    res: int


@dataclass(frozen=True)
class Mention:
    """An object as a caption names it; None: not said."""
    shape: str
    colour: str | None = None
    texture: str | None = None
    size: str | None = None
    count: int | None = None        # exactly so many, of NUMBERS; None: one or more, "a"


@dataclass(frozen=True)
class Relation:
    """Mention `subject` stands to mention `object` as `name` of PHRASINGS says; both are indices."""
    subject: int
    name: str
    object: int


@dataclass(frozen=True)
class Statement:
    """What a caption claims, and the words it is put in. A mention is the object of at most one relation."""
    mentions: tuple[Mention, ...]
    relations: tuple[Relation, ...] = ()
    opening: str = ""
    verb: bool = False              # "a circle is above a square"
    phrasing: int = 0               # column of PHRASINGS


def records(
    split: str, start: int, stop: int, seed: int = 0, spec: Spec = DEFAULT,
) -> Iterator[tuple[str, bytes, tuple[str, ...], str]]:
    """(key, PNG, two captions, split) of the scenes [start, stop) of a split.

    A scene depends on the seed, its split and its number alone.
    """
    for index in range(start, stop):
        rng = generator(seed, split, index)
        scene = draw_scene(rng, spec)
        captions = tuple(caption(describe(rng, scene, spec)) for _ in range(2))
        yield f"{split}-{index:06d}", png(render(scene)), captions, split


def generator(seed: int, stream: str, index: int) -> Random:
    """The source of everything random about scene `index` of a stream of STREAMS. Raises ValueError for another."""
    # 4 times as fast as NumPy's generator for single draws, and its sequence is the same in all versions of Python.
    if stream not in STREAMS:
        raise ValueError(f"stream={stream!r} is not known; use one of {', '.join(STREAMS)}.")
    return Random(f"{seed} {stream} {index}")


def draw_scene(rng: Random, spec: Spec = DEFAULT) -> Scene:
    """Objects of distinct colours and shapes in distinct cells of the grid, each somewhere within its cell."""
    count = rng.randint(spec.min_objects, spec.max_objects)
    cells = rng.sample(range(spec.grid**2), count)
    colours, shapes = rng.sample(spec.colours, count), rng.sample(spec.shapes, count)
    return arrange(rng, (draw_thing(rng, spec, *each) for each in zip(cells, colours, shapes, strict=True)), spec)


def arrange(rng: Random, things: Iterable[Thing], spec: Spec) -> Scene:
    """A scene of things on a background; they may be drawn as they are taken."""
    grey = rng.randint(190, 216)
    return Scene(tuple(things), tuple(grey + rng.randint(-6, 6) for _ in range(3)), spec.res)


def draw_thing(rng: Random, spec: Spec, cell: int, colour: str, shape: str) -> Thing:
    row, column = divmod(cell, spec.grid)
    pitch = spec.res // spec.grid
    size = rng.choice(spec.sizes)
    side = round(pitch * SIZES[size]) - rng.randint(0, 1)
    # Near the cell's middle: with objects anywhere, small towers need ten times the steps before they see a shape.
    middle = (pitch - side) // 2
    off = lambda: min(max(middle + rng.randint(-JITTER, JITTER), 0), pitch - side)
    x0, y0 = column * pitch + off(), row * pitch + off()
    rgb = tuple(min(max(level + rng.randint(-12, 12), 0), 255) for level in COLOURS[colour])
    return Thing(shape, colour, size, draw_texture(rng, spec), Box(x0, y0, x0 + side, y0 + side), rgb)


def draw_texture(rng: Random, spec: Spec) -> str:
    others = [texture for texture in spec.textures if texture != "plain"]
    if not others or "plain" in spec.textures and rng.random() < spec.share_plain:
        return "plain"
    return rng.choice(others)


def render(scene: Scene) -> UInt8[np.ndarray, "res res 3"]:
    """A scene's picture: each object in its colour, its texture's marks in white, on the background."""
    image = np.empty((scene.res, scene.res, 3), np.float32)
    image[:] = scene.background
    for thing in scene.things:
        x0, y0, x1, y1 = thing.box
        colour, white = stamp(thing.shape, thing.texture, x1 - x0)
        under = image[y0:y1, x0:x1]
        under *= 1 - colour - white
        under += colour * np.float32(thing.rgb) + white * 255
    return (image + 0.5).astype(np.uint8)


def png(image: UInt8[np.ndarray, "H W 3"]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


@lru_cache(maxsize=1024)
def stamp(
    shape: str, texture: str, side: int,
) -> tuple[Float32[np.ndarray, "side side 1"], Float32[np.ndarray, "side side 1"]]:
    """How much of each pixel is the object's colour and how much is white marks; in [0, 1], anti-aliased."""
    fine = 8                                                # supersampling
    drawn = Image.new("L", (fine * side, fine * side))
    _draw_outline(ImageDraw.Draw(drawn), shape, fine * side)
    outline = np.pad(np.asarray(drawn), fine)
    # A rim in the object's colour, half a pixel wide, keeps the outline clear where a mark would reach the edge.
    within = np.asarray(Image.fromarray(outline).filter(ImageFilter.MinFilter(fine + 1)))
    white = np.where(np.pad(_marks(texture, fine, side), fine), within, 0)
    average = lambda values: values[fine:-fine, fine:-fine].reshape(side, fine, side, fine, 1).mean((1, 3)) / 255
    return average(outline - white).astype(np.float32), average(white).astype(np.float32)


def _marks(texture: str, fine: int, side: int) -> Bool[np.ndarray, "n n"]:
    """Where a texture's marks are, n = fine * side: stripes or dots, 2 pixels wide and 2 apart, from pixel to pixel."""
    pixel = np.arange(fine * side) // fine
    on = (pixel - side // 2 + 1) % 4 < 2                    # one in the middle
    if texture == "dotted":
        return on & on[:, None]
    return np.broadcast_to(on[:, None] & (texture == "striped"), (fine * side, fine * side))


def _draw_outline(draw: ImageDraw.ImageDraw, shape: str, side: int) -> None:
    """Fills a shape that reaches all four edges of a square."""
    if shape in ("circle", "ring"):
        draw.ellipse((0, 0, side - 1, side - 1), fill=255)
        if shape == "ring":
            hole = 0.3 * side
            draw.ellipse((hole, hole, side - 1 - hole, side - 1 - hole), fill=0)
    else:
        draw.polygon([(x * (side - 1), y * (side - 1)) for x, y in POLYGONS[shape]], fill=255)


def _fit(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    """Corners moved and scaled so that they reach from 0 to 1 both ways."""
    unit = lambda values: ((values - values.min()) / np.ptp(values)).tolist()
    return list(zip(unit(x), unit(y), strict=True))


def _heart() -> list[tuple[float, float]]:
    t = np.linspace(0, 2 * np.pi, 64)
    return _fit(16 * np.sin(t)**3, -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t))


def _star() -> list[tuple[float, float]]:
    angle, radius = np.arange(10) * np.pi / 5, np.tile([1, 0.52], 5)
    return _fit(radius * np.sin(angle), -radius * np.cos(angle))


POLYGONS = {
    "square": [(0, 0), (1, 0), (1, 1), (0, 1)],
    "triangle": [(0.5, 0), (1, 1), (0, 1)],
    "diamond": [(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)],
    "cross": [(0.32, 0), (0.68, 0), (0.68, 0.32), (1, 0.32), (1, 0.68), (0.68, 0.68), (0.68, 1), (0.32, 1),
              (0.32, 0.68), (0, 0.68), (0, 0.32), (0.32, 0.32)],
    "star": _star(),
    "heart": _heart(),
}


def describe(rng: Random, scene: Scene, spec: Spec = DEFAULT) -> Statement:
    """A true statement about all objects of a scene, in a random order and template."""
    count = len(scene.things)
    things = rng.sample(scene.things, count)
    layout = rng.choice([layout for layout in LAYOUTS if width(layout) <= count])
    start = rng.choice(starts(layout, count))
    relations = tuple(
        Relation(start + a, rng.choice(true_relations(things[start + a], things[start + b])), start + b)
        for a, b in layout)
    verb = bool(layout) and width(layout) == count and rng.random() < 0.5
    return Statement(tuple(mention(rng, thing, spec) for thing in things), relations,
                     "" if verb else rng.choice(OPENINGS), verb, rng.randrange(2))


def width(layout: tuple[tuple[int, int], ...]) -> int:
    """How many mentions take part in a layout's relations."""
    return 1 + max((b for _, b in layout), default=-1)


def starts(layout: tuple[tuple[int, int], ...], count: int) -> list[int]:
    """Where the related mentions may begin among `count`: last, or also first where that can't be misread.

    "a circle above a square, a star and a ring" might have the circle above all three.
    """
    free = count - width(layout)
    return [0, 1] if free == 1 else [free]


def mention(rng: Random, thing: Thing, spec: Spec) -> Mention:
    """An object as captions name it: colour, texture unless plain, and sometimes size."""
    return Mention(thing.shape, thing.colour, None if thing.texture == "plain" else thing.texture,
                   thing.size if rng.random() < spec.share_size_said else None)


def true_relations(a: Thing, b: Thing) -> list[str]:
    return [name for name in PHRASINGS if related(a.box, name, b.box)]


def related(a: Box, name: str, b: Box) -> bool:
    """Whether all of box `a` lies to that side of all of box `b`."""
    return {"left": a.x1 <= b.x0, "right": a.x0 >= b.x1, "above": a.y1 <= b.y0, "below": a.y0 >= b.y1}[name]


def caption(statement: Statement) -> str:
    """The statement in words."""
    groups, object_of = [], {relation.object: relation for relation in statement.relations}
    for i, each in enumerate(statement.mentions):
        relation = object_of.get(i)
        if relation is None:
            groups.append(noun_phrase(each))
            continue
        first = relation.subject == i - 1
        link = ("is " if statement.verb else "") if first else "and "
        groups[-1] += f" {link}{PHRASINGS[relation.name][statement.phrasing]} {noun_phrase(each)}"
    last = ", and " if statement.relations else " and "
    text = last.join([", ".join(groups[:-1]), groups[-1]]) if len(groups) > 1 else groups[0]
    return f"{statement.opening} {text}".strip()


def noun_phrase(mention: Mention) -> str:
    """Such as "a large striped red circle" or "two red circles": always in this order."""
    number, shape = ("a", mention.shape) if mention.count is None else (NUMBERS[mention.count], plural(mention.shape))
    return " ".join(filter(None, (number, mention.size, mention.texture, mention.colour, shape)))


def plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def holds(statement: Statement, scene: Scene) -> bool:
    """Whether everything the statement claims is so in the scene."""
    named = [find(mention, scene) for mention in statement.mentions]
    return all(_are_as_many(mention, things) for mention, things in zip(statement.mentions, named, strict=True)) and all(
        related(named[relation.subject][0].box, relation.name, named[relation.object][0].box)
        for relation in statement.relations)


def _are_as_many(mention: Mention, things: list[Thing]) -> bool:
    return bool(things) if mention.count is None else len(things) == mention.count


def find(mention: Mention, scene: Scene) -> list[Thing]:
    """The objects that have everything the mention says."""
    said = {key: value for key, value in vars(mention).items() if key != "count" and value is not None}
    return [thing for thing in scene.things if all(getattr(thing, key) == value for key, value in said.items())]
