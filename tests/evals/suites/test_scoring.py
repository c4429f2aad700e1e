"""Verdicts from similarities: hand-made tables with ties, and brute force over small whole numbers."""
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_jax.evals.suites.items import Item, Picture
from cc_jax.evals.suites.scoring import VERDICTS

A, B = Picture("a.jpg"), Picture("b.jpg")
PAIR = Item("0", "tag", (A, B), ("t0", "t1"))


def verdict(item, similarity):
    """The scores of an item, from {(thing, thing): similarity}."""
    rule = VERDICTS[len(item.pictures)]
    return rule.scores(item, [similarity[pair] for pair in rule.pairs(item)])


@pytest.mark.parametrize(("table", "text", "image", "group"), [
    ([[2, 1], [1, 2]], True, True, True),           # rows: texts; columns: images
    ([[2, 1], [3, 4]], False, True, False),         # image 0 prefers text 1
    ([[2, 3], [1, 4]], True, False, False),         # text 0 prefers image 1
    ([[1, 2], [2, 1]], False, False, False),
    ([[2, 1], [2, 3]], False, True, False),         # image 0 can't tell the texts apart
    ([[2, 2], [1, 3]], True, False, False),         # text 0 can't tell the images apart
    ([[2, 2], [2, 2]], False, False, False)])
def test_winogrounds_scores_of_hand_made_tables(table, text, image, group):
    similarity = {(picture, f"t{i}"): table[i][j] for i in (0, 1) for j, picture in enumerate((A, B))}
    assert verdict(PAIR, similarity) == {"text/tag": text, "image/tag": image, "group/tag": group}


@given(st.lists(st.integers(0, 2), min_size=4, max_size=4))
def test_winogrounds_scores_equal_its_formulas(values):
    """f(C_0, I_0, C_1, I_1), g and h as the paper writes them."""
    s = {(f"t{i}", j): values[2 * i + j] for i in (0, 1) for j in (0, 1)}
    f = s["t0", 0] > s["t1", 0] and s["t1", 1] > s["t0", 1]
    g = s["t0", 0] > s["t0", 1] and s["t1", 1] > s["t1", 0]
    similarity = {((A, B)[j], text): value for (text, j), value in s.items()}
    assert verdict(PAIR, similarity) == {"text/tag": f, "image/tag": g, "group/tag": f and g}


@st.composite
def choices(draw):
    """An item of one picture or none, and a similarity for every two things, in either order."""
    pictures = draw(st.sampled_from([(A,), ()]))
    right = [f"r{i}" for i in range(draw(st.integers(1 if pictures else 2, 3)))]
    wrong = [f"w{i}" for i in range(draw(st.integers(1, 3)))]
    things, similarity = [*pictures, *right, *wrong], {}
    for i, a in enumerate(things):
        for b in things[i + 1:]:
            similarity[a, b] = similarity[b, a] = draw(st.integers(0, 2))
    return Item("0", "c", pictures, tuple(right), tuple(wrong)), similarity


@given(choices())
def test_choices_equal_brute_force(drawn):
    item, similarity = drawn
    if item.pictures:
        expected = all(similarity[A, right] > similarity[A, wrong] for right in item.right for wrong in item.wrong)
    else:
        expected = all(similarity[a, b] > similarity[c, wrong] for a, b in permutations(item.right, 2)
                       for c in item.right for wrong in item.wrong)
    assert verdict(item, similarity) == {"c": expected}


@pytest.mark.parametrize(("item", "chance"), [
    (Item("0", "c", (A,), ("r",), ("w",)), {"c": 1 / 2}),
    (Item("0", "c", (A,), ("r",), ("w", "x", "y", "z")), {"c": 1 / 5}),
    (Item("0", "c", (A,), ("r", "s"), ("w",)), {"c": 1 / 3}),
    (Item("0", "c", (), ("r", "s"), ("w",)), {"c": 1 / 3}),
    (PAIR, {"text/tag": 1 / 4, "image/tag": 1 / 4, "group/tag": 1 / 6})])
def test_chance_is_what_all_orders_of_similarities_give(item, chance):
    rule = VERDICTS[len(item.pictures)]
    count = len(list(rule.pairs(item)))
    orders = [rule.scores(item, order) for order in permutations(range(count))]
    assert rule.chance(item) == pytest.approx(chance)
    for score, share in chance.items():
        assert sum(each[score] for each in orders) / len(orders) == pytest.approx(share)
