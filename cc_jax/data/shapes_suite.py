"""The compositional test of the embedded dataset: true captions against negatives verified false.

SugarCrepe's categories (replace, swap, add x object, attribute, relation) on whole captions, and `phrase_binding`: one
object's phrase against the same phrase with an attribute of another object, "a red cross" / "a blue cross" where the
circle is blue. A swap has exactly the words of its caption and each word of a `phrase_binding` is true of the scene, so
that a bag of words is at chance. Spatial relations have the categories `replace_relation`, `swap_relation` and
`add_relation`, in which a bag of words is at 0.53 at most; counting is in `shapes_counting`.

python -m cc_jax.data.shapes_suite      # items, bag-of-words scores, and how far a bag of words gets in retrieval
"""
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path
from random import Random

from absl import app, flags

from cc_jax.data.shapes import (
    DEFAULT,
    NUMBERS,
    PHRASINGS,
    Mention,
    Relation,
    Scene,
    Spec,
    Statement,
    Thing,
    caption,
    describe,
    draw_scene,
    draw_texture,
    find,
    generator,
    holds,
    noun_phrase,
    plural,
    png,
    related,
    render,
    starts,
)

Pair = tuple[Statement, Statement]      # (true, false)
Maker = Callable[[Random, Scene, Spec], Pair | None]
ATTRIBUTES = ("colour", "texture", "size")
TRIES = 50                              # statements drawn of a scene until one has a negative


def replace_object(rng: Random, scene: Scene, spec: Spec) -> Pair:
    """One shape becomes a shape that is not in the scene."""
    true = describe(rng, scene, spec)
    return true, _edit(true, _any_mention(rng, true), shape=rng.choice(_absent_shapes(scene, spec)))


def replace_attribute(rng: Random, scene: Scene, spec: Spec) -> Pair:
    """One colour, texture or size becomes another."""
    true = describe(rng, scene, spec)
    number = _any_mention(rng, true)
    name = rng.choice([name for name in ATTRIBUTES if getattr(true.mentions[number], name)])
    return true, _edit(true, number, **{name: rng.choice(_values(name, spec))})


def replace_relation(rng: Random, scene: Scene, spec: Spec) -> Pair | None:
    """One relation becomes another."""
    true = describe(rng, scene, spec)
    if not true.relations:
        return None
    relations = list(true.relations)
    number = rng.randrange(len(relations))
    relations[number] = replace(relations[number], name=rng.choice(list(PHRASINGS)))
    return true, replace(true, relations=tuple(relations))


def swap_object(rng: Random, scene: Scene, spec: Spec) -> Pair | None:
    """Two shapes change places."""
    return _swap(rng, describe(rng, scene, spec), "shape")


def swap_attribute(rng: Random, scene: Scene, spec: Spec) -> Pair | None:
    """Two objects' colours, textures or sizes change places, also where only one is said."""
    return _swap(rng, describe(rng, scene, spec), rng.choice(ATTRIBUTES))


def swap_relation(rng: Random, scene: Scene, spec: Spec) -> Pair | None:
    """Two relations change places."""
    true = describe(rng, scene, spec)
    if len(true.relations) < 2:
        return None
    first, second = true.relations
    return true, replace(true, relations=(replace(first, name=second.name), replace(second, name=first.name)))


def add_object(rng: Random, scene: Scene, spec: Spec) -> Pair | None:
    """One more object, of a shape that is not in the scene."""
    true = describe(rng, scene, spec)
    if true.verb:       # "a circle is above a square" has no place for an object by itself
        return None
    texture = draw_texture(rng, spec)
    added = Mention(rng.choice(_absent_shapes(scene, spec)), rng.choice(spec.colours),
                    None if texture == "plain" else texture,
                    rng.choice(spec.sizes) if rng.random() < spec.share_size_said else None)
    place = 0 if true.relations else rng.randint(0, len(true.mentions))
    relations = tuple(Relation(each.subject + 1, each.name, each.object + 1) for each in true.relations)
    return true, replace(true, mentions=(*true.mentions[:place], added, *true.mentions[place:]), relations=relations)


def add_attribute(rng: Random, scene: Scene, spec: Spec) -> Pair | None:
    """A texture or a size where none was said."""
    true = describe(rng, scene, spec)
    number = _any_mention(rng, true)
    unsaid = [name for name in ATTRIBUTES if getattr(true.mentions[number], name) is None and _values(name, spec)]
    if not unsaid:
        return None
    name = rng.choice(unsaid)
    return true, _edit(true, number, **{name: rng.choice(_values(name, spec))})


def add_relation(rng: Random, scene: Scene, spec: Spec) -> Pair | None:
    """A relation in a caption that had none."""
    true = describe(rng, scene, spec)
    if true.relations or len(true.mentions) < 2:
        return None
    start = rng.choice(starts(((0, 1),), len(true.mentions)))
    return true, replace(true, relations=(Relation(start, rng.choice(list(PHRASINGS)), start + 1),))


def phrase_binding(rng: Random, scene: Scene, spec: Spec) -> Pair | None:
    """One object's phrase, and the same with the colour or texture of another object.

    A textured object is named by texture and colour or, for half of the negatives of texture, by its texture alone; a
    plain one by its colour, as in captions.
    """
    pairs = list(permutations(scene.things, 2))
    both_textured = [(a, b) for a, b in pairs if a.texture != b.texture and "plain" not in (a.texture, b.texture)]
    name = rng.choice(("colour", "texture")) if both_textured else "colour"
    if not pairs:
        return None
    mine, other = rng.choice(both_textured if name == "texture" else pairs)
    colour = None if name == "texture" and rng.random() < 0.5 else mine.colour
    true = Statement((Mention(mine.shape, colour, None if mine.texture == "plain" else mine.texture),))
    return true, _edit(true, 0, **{name: getattr(other, name)})


CATEGORIES: dict[str, Maker] = {maker.__name__: maker for maker in (
    replace_object, replace_attribute, replace_relation, swap_object, swap_attribute, swap_relation,
    add_object, add_attribute, add_relation, phrase_binding)}


def _any_mention(rng: Random, statement: Statement) -> int:
    return rng.randrange(len(statement.mentions))


def _absent_shapes(scene: Scene, spec: Spec) -> list[str]:
    present = {thing.shape for thing in scene.things}
    return [shape for shape in spec.shapes if shape not in present]


def _values(attribute: str, spec: Spec) -> list[str]:
    """The values an attribute can be said to have; plain is never said."""
    return [value for value in getattr(spec, f"{attribute}s") if value != "plain"]


def _edit(statement: Statement, number: int, **changes: str | None) -> Statement:
    """The statement with mention `number` changed."""
    mentions = list(statement.mentions)
    mentions[number] = replace(mentions[number], **changes)
    return replace(statement, mentions=tuple(mentions))


def _swap(rng: Random, statement: Statement, name: str) -> Pair | None:
    """What two mentions say of `name` changes places, if they say different things."""
    pairs = [(a, b) for a, b in combinations(range(len(statement.mentions)), 2)
             if getattr(statement.mentions[a], name) != getattr(statement.mentions[b], name)]
    if not pairs:
        return None
    a, b = rng.choice(pairs)
    first, second = getattr(statement.mentions[a], name), getattr(statement.mentions[b], name)
    return statement, _edit(_edit(statement, a, **{name: second}), b, **{name: first})


def make_pair(category: str, rng: Random, scene: Scene, spec: Spec = DEFAULT) -> Pair | None:
    """A true statement and a negative of the category, both verified; None if TRIES statements had none."""
    for _ in range(TRIES):
        pair = CATEGORIES[category](rng, scene, spec)
        if pair and holds(pair[0], scene) and not holds(pair[1], scene):
            return pair
    return None


def make_suite(
    scenes: int = 500, seed: int = 0, spec: Spec = DEFAULT,
) -> tuple[dict[str, Scene], dict[str, list[dict]]]:
    """({filename: scene}, {category: items}), at most one item of each category for a scene.

    An item is as SugarCrepe has it: {"filename", "caption", "negative_caption"}. The scenes are a stream of their own.
    """
    drawn, suite = {}, {category: [] for category in CATEGORIES}
    for index in range(scenes):
        rng, name = generator(seed, "suite", index), f"{index:06d}.png"
        drawn[name] = scene = draw_scene(rng, spec)
        for category, items in suite.items():
            if pair := make_pair(category, rng, scene, spec):
                items.append({"filename": name, "caption": caption(pair[0]), "negative_caption": caption(pair[1])})
    return drawn, suite


def write_suite(directory: Path, scenes: int = 500, seed: int = 0, spec: Spec = DEFAULT) -> None:
    """Writes the suite as `write` does."""
    write(directory, *make_suite(scenes, seed, spec))


def write(directory: Path, drawn: dict[str, Scene], suite: dict[str, list[dict]]) -> None:
    """Writes {category}.json, images/*.png, pointing.jsonl, scenes.json: {filename: [{shape, colour, size, texture, box}]}.

    A box is [x0, y0, x1, y1] in pixels, the right and lower ends exclusive.
    """
    (directory / "images").mkdir(parents=True, exist_ok=True)
    for name, scene in drawn.items():
        (directory / "images" / name).write_bytes(png(render(scene)))
    for category, items in suite.items():
        _write_json(directory / f"{category}.json", dict(enumerate(items)))
    _write_json(directory / "scenes.json", {
        name: [{key: getattr(thing, key) for key in ("shape", *ATTRIBUTES, "box")} for thing in scene.things]
        for name, scene in drawn.items()})
    lines = ({"image": f"images/{name}", "phrases": pointing(scene)} for name, scene in drawn.items())
    (directory / "pointing.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")


def pointing(scene: Scene) -> list[dict]:
    """Phrases of a scene with the boxes of all objects they are true of, as `evals/pointing.py` has them.

    Each object is named as captions do, by attributes and shape, and by its shape alone.
    """
    named = {}
    for thing in scene.things:
        texture = None if thing.texture == "plain" else thing.texture
        named |= {Mention(thing.shape, thing.colour, texture): "attributes_and_shape", Mention(thing.shape): "shape"}
    return [{"text": noun_phrase(mention).removeprefix("a "), "boxes": [list(thing.box) for thing in find(mention, scene)],
             "category": category} for mention, category in named.items()]


def _write_json(path: Path, content: dict) -> None:
    """One entry a line, to be read by people too."""
    lines = ",\n".join(f"{json.dumps(str(key))}: {json.dumps(value)}" for key, value in content.items())
    path.write_text(f"{{\n{lines}\n}}\n", "utf-8")


def bag_of_words_score(items: Iterable[dict], scenes: dict[str, Scene], spec: Spec = DEFAULT) -> float:
    """The share of items a matcher of bags of words gets right; a tie is half right.

    It knows every word that is true of some object, pair of objects or number of alike objects of the scene, and scores a
    caption by the share of its words for shapes, attributes, relations and numbers that are among them.
    """
    shapes = {*spec.shapes, *map(plural, spec.shapes)}
    vocabulary = {*shapes, *spec.colours, *spec.textures, *spec.sizes, *_relation_words(PHRASINGS), *NUMBERS.values()}

    def score(text: str, known: set[str]) -> float:
        said = [word for word in text.replace(",", "").split() if word in vocabulary]
        return sum(word in known for word in said) / len(said)

    wins = []
    for item in items:
        known = true_words(scenes[item["filename"]])
        margin = score(item["caption"], known) - score(item["negative_caption"], known)
        wins.append(0.5 if margin == 0 else float(margin > 0))
    return sum(wins) / len(wins)


def true_words(scene: Scene) -> set[str]:
    """Every word for a shape, an attribute, a relation or a number that is true of something in the scene."""
    names = {name for a, b in permutations(scene.things, 2) for name in PHRASINGS if related(a.box, name, b.box)}
    counts = Counter((thing.shape, thing.colour) for thing in scene.things)
    numbers = {NUMBERS[count] for count in counts.values() if count in NUMBERS}
    several = {plural(shape) for (shape, _), count in counts.items() if count > 1}
    return {word for thing in scene.things for word in _traits(thing)} | _relation_words(names) | numbers | several


def _traits(thing: Thing) -> tuple[str, ...]:
    return thing.shape, thing.colour, thing.texture, thing.size


def _relation_words(names: Iterable[str]) -> set[str]:
    return {word for name in names for phrasing in PHRASINGS[name] for word in phrasing.split()} - {"to", "the", "of"}


def retrieval_oracle(scenes: Sequence[Scene], batch_size: int, seed: int = 0) -> float:
    """How often an image's caption is found among a batch's by the sets of colours, shapes and textures alone.

    Captions say all three of every object, so a caption's sets are its image's; which goes with which the oracle does
    not know. Of n captions with the same sets it takes any, and is right with probability 1/n. The scenes are shuffled
    into batches; what fills none is left out.

    Raises: ValueError where there is no whole batch.
    """
    if batch_size > len(scenes):
        raise ValueError(f"batch_size={batch_size} needs as many scenes, and there are {len(scenes)}; use a smaller "
                         "batch or draw more scenes.")
    sets = [frozenset(word for thing in scene.things for word in _traits(thing)[:3]) for scene in scenes]
    Random(seed).shuffle(sets)
    batches = [sets[start:start + batch_size] for start in range(0, len(sets) - batch_size + 1, batch_size)]
    # n images with the same sets, each right with probability 1/n: one in expectation.
    return sum(len(Counter(batch)) for batch in batches) / (len(batches) * batch_size)


def print_scores(drawn: dict[str, Scene], suite: dict[str, list[dict]], spec: Spec) -> None:
    """How many items each category has, and how many of them a bag of words gets right."""
    print(f"{'category':<20} items  bag of words")
    for category, items in suite.items():
        print(f"{category:<20} {len(items):5}  {bag_of_words_score(items, drawn, spec):.3f}" if items else
              f"{category:<20}     0  -")


def main(_) -> None:
    args = flags.FLAGS
    spec = Spec(min_objects=args.objects, max_objects=args.objects)
    drawn, suite = make_suite(args.scenes, args.seed, spec)
    print_scores(drawn, suite, spec)
    scenes = [draw_scene(generator(args.seed, "train", index), spec) for index in range(8 * 1024)]
    print("\nbatch  right caption found by its bag of words")
    for batch_size in (64, 128, 256, 512, 1024):
        print(f"{batch_size:5}  {retrieval_oracle(scenes, batch_size, args.seed):.4f}")


if __name__ == "__main__":
    flags.DEFINE_integer("scenes", 500, "How many scenes the test has.", lower_bound=1)
    flags.DEFINE_integer("objects", DEFAULT.max_objects, "How many objects each scene has.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of the scenes and their captions.")
    app.run(main)
