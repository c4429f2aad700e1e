"""Counting in the embedded dataset: scenes of two kinds of alike objects, captions that say how many, and their test.

    "two red circles and three striped blue stars"

The scenes and captions of `shapes` know no numbers, so a model trained on them alone can't count: on this test it is at
chance. `--source shapes:counts=0.2` puts a scene of this module in the place of that share of the train and test scenes;
the others stay as they are.

The categories of the test, each with negatives verified false: `replace_count`, a number becomes one that no kind has;
`swap_count`, the two numbers change places; `count_binding`, one kind's phrase with the other kind's number, "two red
circles" / "three red circles". In the last two each word is true of the scene, so that a bag of words is at chance.

python -m cc_jax.data.shapes_counting       # items, and bag-of-words scores
"""
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

from absl import app, flags

from cc_jax.data import shapes, shapes_suite
from cc_jax.data.shapes import DEFAULT, NUMBERS, Mention, Scene, Spec, Statement, Thing

MOST = max(NUMBERS)             # objects of a kind
Pair = tuple[Statement, Statement]      # (true, false)


def records(
    split: str, start: int, stop: int, seed: int = 0, share: float = 0.2, spec: Spec = DEFAULT,
) -> Iterator[tuple[str, bytes, tuple[str, ...], str]]:
    """As `shapes.records`, but about that share of the scenes are counted ones."""
    for index, record in enumerate(shapes.records(split, start, stop, seed, spec), start):
        rng = shapes.generator(seed, f"{split} counting", index)
        if rng.random() < share:
            scene = draw_scene(rng, rng.randint(1, MOST), rng.randint(1, MOST), spec)
            captions = tuple(shapes.caption(describe(rng, scene)) for _ in range(2))
            record = record[0], shapes.png(shapes.render(scene)), captions, split
        yield record


def draw_scene(rng: Random, first: int, second: int, spec: Spec = DEFAULT) -> Scene:
    """So many objects of one kind and so many of another: alike in shape, colour and texture, each of its own size.

    The kinds share neither shape nor colour. Raises: ValueError where they don't fit into the grid.
    """
    if first + second > spec.grid**2:
        raise ValueError(f"{first} + {second} objects don't fit into {spec.grid**2} cells; use a larger grid or fewer.")
    cells = rng.sample(range(spec.grid**2), first + second)
    things = []
    for count, shape, colour in zip((first, second), rng.sample(spec.shapes, 2), rng.sample(spec.colours, 2), strict=True):
        texture = shapes.draw_texture(rng, spec)
        things += [replace(shapes.draw_thing(rng, spec, cells.pop(), colour, shape), texture=texture) for _ in range(count)]
    return shapes.arrange(rng, things, spec)


def describe(rng: Random, scene: Scene) -> Statement:
    """A true statement about both kinds: how many there are of each, in a random order."""
    mentions = [mention(*kind) for kind in kinds(scene)]
    rng.shuffle(mentions)
    there = "there is" if mentions[0].count is None else "there are"
    return Statement(tuple(mentions), opening=rng.choice(("", "", there, "we see")))


def kinds(scene: Scene) -> list[tuple[Thing, int]]:
    """(one of it, how many there are) for each kind of object."""
    counts = {}
    for thing in scene.things:
        counts.setdefault((thing.shape, thing.colour), []).append(thing)
    return [(alike[0], len(alike)) for alike in counts.values()]


def mention(thing: Thing, count: int) -> Mention:
    """So many objects like this one, as captions name them."""
    return Mention(thing.shape, thing.colour, None if thing.texture == "plain" else thing.texture,
                   count=count if count > 1 else None)


def replace_count(rng: Random, scene: Scene) -> Pair:
    """One number becomes a number that no kind has."""
    true, place = describe(rng, scene), rng.randrange(2)
    other = rng.choice([number for number in NUMBERS if number not in {each.count for each in true.mentions}])
    return true, _counted(true, {place: other})


def swap_count(rng: Random, scene: Scene) -> Pair:
    """The two numbers change places."""
    true = describe(rng, scene)
    first, second = true.mentions
    return true, _counted(true, {0: second.count, 1: first.count})


def count_binding(rng: Random, scene: Scene) -> Pair:
    """One kind's phrase, and the same with the number of the other kind."""
    (mine, count), (_, other) = rng.sample(kinds(scene), 2)
    true = Statement((mention(mine, count),))
    return true, _counted(true, {0: other})


CATEGORIES: dict[str, Callable[[Random, Scene], Pair]] = {
    maker.__name__: maker for maker in (replace_count, swap_count, count_binding)}


def _counted(statement: Statement, counts: dict[int, int]) -> Statement:
    """The statement with other numbers at some of its mentions."""
    return replace(statement, mentions=tuple(
        replace(each, count=counts.get(place, each.count)) for place, each in enumerate(statement.mentions)))


def make_suite(
    scenes: int = 500, seed: int = 0, spec: Spec = DEFAULT,
) -> tuple[dict[str, Scene], dict[str, list[dict]]]:
    """({filename: scene}, {category: items}), as `shapes_suite.make_suite`: an item of each category for a scene.

    Its kinds are there in different numbers, two or more of each.
    """
    drawn, suite = {}, {category: [] for category in CATEGORIES}
    for index in range(scenes):
        rng, name = shapes.generator(seed, "suite counting", index), f"{index:06d}.png"
        drawn[name] = scene = draw_scene(rng, *rng.sample(list(NUMBERS), 2), spec)
        for category, make in CATEGORIES.items():
            true, false = make(rng, scene)
            if not shapes.holds(true, scene) or shapes.holds(false, scene):
                raise AssertionError(f"{category} of {name}: {true} and not {false} should be so.")
            suite[category].append({"filename": name, "caption": shapes.caption(true),
                                    "negative_caption": shapes.caption(false)})
    return drawn, suite


def write_suite(directory: Path, scenes: int = 500, seed: int = 0, spec: Spec = DEFAULT) -> None:
    """Writes the suite as `shapes_suite.write` does."""
    shapes_suite.write(directory, *make_suite(scenes, seed, spec))


def main(_) -> None:
    drawn, suite = make_suite(flags.FLAGS.scenes, flags.FLAGS.seed)
    shapes_suite.print_scores(drawn, suite, DEFAULT)


if __name__ == "__main__":
    flags.DEFINE_integer("scenes", 500, "How many scenes the test has.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of the scenes and their captions.")
    app.run(main)
