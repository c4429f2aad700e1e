"""SugarCrepe (Hsieh et al. 2023, arXiv 2306.14610): is the image closer to its caption than to a hard negative?

A folder of one JSON file for each category, `{id: {filename, caption, negative_caption}}`: the published seven, the embedded
dataset's own, or anybody's.
"""
from cc_jax.evals.suites import folder
from cc_jax.evals.suites.items import Item, Items, Picture, choice, file, text

KEYS = ("filename", "caption", "negative_caption")
GROUPS = {
    "add": ["add_att", "add_obj"],
    "replace": ["replace_att", "replace_obj", "replace_rel"],
    "swap": ["swap_att", "swap_obj"]}


def read(suite: str) -> Items:
    """Scores: each category's share of items whose caption wins, "macro", and for the published categories the plain means
    "add", "replace", "swap" of their kinds and "micro", over all items.

    Raises: ConfigError naming file and item.
    """
    items = []
    for category, records in folder.categories(suite, KEYS).items():
        for id, record in records.items():
            items.append(one(f"{category}/{id}", category, record, f"{suite}/{category}.json: item {id}"))
    names = Items(items).categories
    published = {part for parts in GROUPS.values() for part in parts}
    return Items(items, means=GROUPS | {"macro": names},
                 pooled={"micro": names} if set(names) <= published else {})


def one(id: str, category: str, record: dict, where: str) -> Item:
    picture = Picture(file(record, "filename", where))
    right, wrong = (text(record, key, where) for key in KEYS[1:])
    return choice(id, category, [picture], [right], [wrong], where)
