"""When a model is right, from similarities alone. All comparisons are strict: a tie is not a win."""
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from math import factorial
from typing import NamedTuple

from cc_jax.evals.suites.items import Item, Picture

Thing = Picture | str
Pair = tuple[Thing, Thing]


def all_above(right: Sequence[float], wrong: Sequence[float]) -> bool:
    """Whether every right similarity is greater than every wrong one."""
    return min(right) > max(wrong)


def choice_pairs(item: Item) -> Iterator[Pair]:
    """The one picture with each right text, then with each wrong one."""
    return ((item.pictures[0], text) for text in (*item.right, *item.wrong))


def choice(item: Item, similarity: Sequence[float]) -> dict[str, bool]:
    """Right if every right text is more similar to the picture than every wrong one.

    SugarCrepe, ARO and VALSE with one of each; image-to-text of SugarCrepe++ (arXiv 2406.11171, ITT) with two right ones.
    """
    count = len(item.right)
    return {item.category: all_above(similarity[:count], similarity[count:])}


def text_pairs(item: Item) -> Iterator[Pair]:
    """Each two right texts, then each right text with each wrong one."""
    yield from combinations(item.right, 2)
    yield from ((right, wrong) for right in item.right for wrong in item.wrong)


def texts(item: Item, similarity: Sequence[float]) -> dict[str, bool]:
    """Right if right texts are more similar to each other than to any wrong one: SugarCrepe++ (arXiv 2406.11171), TOT."""
    count = _alike(item)
    return {item.category: all_above(similarity[:count], similarity[count:])}


def pair_pairs(item: Item) -> Iterator[Pair]:
    """Text 0 with both pictures, then text 1."""
    return ((picture, text) for text in item.right for picture in item.pictures)


def pair(item: Item, similarity: Sequence[float]) -> dict[str, bool]:
    """The three scores of Winoground (arXiv 2204.03162, eq. 1 to 3) of two pictures and their texts.

    text: each picture is more similar to its own text than to the other; image: each text is more similar to its own
    picture than to the other; group: both.
    """
    t0_p0, t0_p1, t1_p0, t1_p1 = similarity
    text = bool(t0_p0 > t1_p0 and t1_p1 > t0_p1)
    image = bool(t0_p0 > t0_p1 and t1_p1 > t1_p0)
    return {f"text/{item.category}": text, f"image/{item.category}": image, f"group/{item.category}": text and image}


def _alike(item: Item) -> int:
    return len(item.right) * (len(item.right) - 1) // 2


def _chance(right: int, wrong: int) -> float:
    """That `right` similarities are above `wrong` others where all orders are equally likely."""
    return factorial(right) * factorial(wrong) / factorial(right + wrong)


class Verdict(NamedTuple):
    pairs: Callable[[Item], Iterator[Pair]]                         # of which the similarity is needed
    scores: Callable[[Item, Sequence[float]], dict[str, bool]]      # {score: whether right}, from those in that order
    chance: Callable[[Item], dict[str, float]]                      # {score: what similarities in random order give}


VERDICTS = {    # by an item's number of pictures
    0: Verdict(text_pairs, texts, lambda item: {item.category: _chance(_alike(item), len(item.right) * len(item.wrong))}),
    1: Verdict(choice_pairs, choice, lambda item: {item.category: _chance(len(item.right), len(item.wrong))}),
    2: Verdict(pair_pairs, pair, lambda item: {f"text/{item.category}": 1 / 4, f"image/{item.category}": 1 / 4,
                                               f"group/{item.category}": 1 / 6})}
