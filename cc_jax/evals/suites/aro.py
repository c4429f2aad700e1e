"""ARO's Visual Genome parts (Yuksekgonul et al. 2023, arXiv 2210.01936): who does what, and what has which attribute.

`visual_genome_relation.json` and `visual_genome_attribution.json`, or one of them, each a list of {image_path, bbox_x,
bbox_y, bbox_w, bbox_h, true_caption, false_caption, relation_name or attributes: [of the first, of the second]}. The model
sees the part of the image in the box.
"""
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from cc_jax.config import ConfigError
from cc_jax.evals.suites import files
from cc_jax.evals.suites.items import Item, Items, NoSuite, Picture, choice, file, found, text
from cc_jax.evals.suites.json_lines import box

PARTS = ("relation", "attribution")
FEWEST = 25         # items of a pair of attributes that the published evaluation averages over
SPATIAL = ("above", "at", "behind", "below", "beneath", "in", "in front of", "inside", "on", "on top of", "to the left of",
           "to the right of", "under")
# The published evaluation takes these for symmetric, so that neither caption is wrong, and leaves them out of its mean.
LEFT_OUT = frozenset("""
adjusting, around, attached to, beside, between, bigger than, biting, boarding, brushing, by, chewing, cleaning, climbing,
close to, coming from, coming out of, contain, crossing, dragging, draped over, drinking, drinking from, driving,
driving down, driving on, eating from, eating in, enclosing, exiting, facing, filled with, floating in, floating on,
flying, flying above, flying in, flying over, flying through, full of, going down, going into, going through, grazing in,
growing in, growing on, guiding, hanging from, hanging in, hanging off, hanging over, higher than, holding onto, hugging,
in between, jumping off, jumping on, jumping over, kept in, larger than, leading, leaning over, leaving, licking,
longer than, looking in, looking into, looking out, looking over, looking through, lying next to, lying on top of, making,
mixed with, mounted on, moving, near, next to, of, on the back of, on the edge of, on the front of, on the other side of,
on the side of, opening, painted on, parked at, parked beside, parked by, parked in, parked in front of, parked near,
parked next to, perched on, petting, piled on, playing, playing in, playing on, playing with, pouring, reaching for,
reading, reflected on, riding on, running in, running on, running through, seen through, sitting behind, sitting beside,
sitting by, sitting in front of, sitting near, sitting next to, sitting under, skiing down, skiing on, sleeping in,
sleeping on, smiling at, sniffing, splashing, sprinkled on, stacked on, standing against, standing around,
standing behind, standing beside, standing in front of, standing near, standing next to, staring at, stuck in,
surrounding, swimming in, swinging, talking to, topped with, touching, traveling down, traveling on, tying, typing on,
underneath, wading in, waiting for, walking across, walking by, walking down, walking next to, walking through, with,
working in, working on, worn on, wrapped around, wrapped in
""".replace("\n", " ").strip().split(", "))


def read(suite: str) -> Items:
    """Scores: each relation's "relation/NAME" and each pair's "attribution/A_B", the share of items whose caption wins;
    their plain means "relation" and "attribution", as the paper reports; and those over relations in space,
    "relation_spatial", and over the others, "relation_action". Items of relations and of rare pairs that the paper's means
    don't cover are left out and counted.

    Raises: ConfigError naming file and item.
    """
    paths = {part: Path(suite) / f"visual_genome_{part}.json" for part in PARTS}
    there = {part: path for part, path in paths.items() if path.is_file()}
    if not there:
        raise NoSuite(f"{suite} holds none of {', '.join(path.name for path in paths.values())}; give the folder of ARO.")
    every = [one(part, id, record, f"{path}: item {id}")
             for part, path in there.items() for id, record in files.records(path).items()]
    sizes = Counter(item.category for item in every)
    reason = lambda category: _reason(*category.split("/", 1), sizes[category])
    items = [item for item in every if not reason(item.category)]
    if not items:
        raise ConfigError(f"{suite}: the published evaluation leaves out all of its {len(every)} items.")
    names = Items(items).categories
    spatial = [f"relation/{name}" for name in SPATIAL]
    means = {part: [name for name in names if name.startswith(f"{part}/")] for part in PARTS}
    means |= {"relation_spatial": [name for name in means["relation"] if name in spatial],
              "relation_action": [name for name in means["relation"] if name not in spatial]}
    return Items(items, Counter(filter(None, (reason(item.category) for item in every))),
                 means)


def one(part: str, id: str, record: Mapping, where: str) -> Item:
    edges = [record.get(f"bbox_{edge}") for edge in "xywh"]
    picture = Picture(file(record, "image_path", where), box(edges, where))
    right, wrong = text(record, "true_caption", where), text(record, "false_caption", where)
    name = text(record, "relation_name", where) if part == "relation" else _attributes(record, where)
    return choice(f"{part}/{id}", f"{part}/{name}", [picture], [right], [wrong], where)


def _attributes(record: Mapping, where: str) -> str:
    pair = record.get("attributes")
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(each, str) and each for each in pair):
        raise ConfigError(f"{where} has {found(record, 'attributes')} under 'attributes'; two attributes are needed there.")
    return "_".join(pair)


def _reason(part: str, name: str, size: int) -> str:
    """Why the published evaluation leaves a category out; empty where it does not."""
    if part == "relation":
        return "relations that are not averaged over" if name in LEFT_OUT else ""
    return f"pairs of attributes with fewer than {FEWEST} items" if size < FEWEST else ""
