"""SugarCrepe++ (Dumpala et al. 2024, arXiv 2406.11171): two captions of one meaning, and one of nearly the same words.

A folder of one JSON file for each category, a list of `{id, filename, caption, caption2, negative_caption}`.
"""
from cc_jax.evals.suites import folder
from cc_jax.evals.suites.items import Item, Items, Picture, choice, file, text

KEYS = ("filename", "caption", "caption2", "negative_caption")
KINDS = {"replace": ["replace_att", "replace_obj", "replace_rel"], "swap": ["swap_att", "swap_obj"]}
SCORES = ("itt", "tot")
SAME = {("swap_obj", "2"), ("swap_obj", "8")}       # as published, the first caption of these two is also the negative


def read(suite: str) -> Items:
    """Scores: "itt/CATEGORY", image to text: the image is closer to both captions than to the negative; "tot/CATEGORY", text
    only: the captions are closer to each other than either is to the negative. "itt" and "tot" are the plain means over
    categories, "itt/swap" and so on over those of a kind.

    On the two items of the published files whose caption is its own negative every model is wrong; they count, as they do in
    the published evaluation. Anywhere else that is an error.
    Raises: ConfigError naming file and item.
    """
    items = []
    for category, records in folder.categories(suite, KEYS).items():
        for id, record in records.items():
            items += two(category, id, record, f"{suite}/{category}.json: item {id}")
    groups = {f"{score}/{kind}": [f"{score}/{part}" for part in parts] for score in SCORES for kind, parts in KINDS.items()}
    names = Items(items).categories
    means = {score: [name for name in names if name.startswith(f"{score}/")] for score in SCORES}
    return Items(items, means=groups | means)


def two(category: str, id: str, record: dict, where: str) -> list[Item]:
    """The record's test with its image, and the one of texts alone."""
    name = file(record, "filename", where)
    caption, caption2, negative = (text(record, key, where) for key in KEYS[1:])
    make = Item if (category, id) in SAME and caption == negative else lambda *args: choice(*args[:5], where, *args[5:])
    return [make(f"{category}/{id}", f"{score}/{category}", pictures, (caption, caption2), (negative,), name)
            for score, pictures in zip(SCORES, ((Picture(name),), ()), strict=True)]
