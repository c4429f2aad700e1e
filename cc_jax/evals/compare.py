"""Scores with 95 % intervals, and models compared item by item, so that a difference within noise is shown as that."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import bdtr

from cc_jax.evals.result import Outcomes, Result

LEVEL = 0.95                            # of all intervals
DRAWS = 1000                            # of the bootstrap


@dataclass(frozen=True)
class Interval:
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """A score less the first model's.

    `gained` items are right here and wrong there, `lost` ones the other way round; `p` is that of McNemar's exact test, None
    for a mean of several scores, and where items are more or less right. `certain`: neither the interval holds 0 nor, after
    Holm's correction over the scores of the suite, p >= 1 - LEVEL.
    """
    gained: int
    lost: int
    p: float | None
    certain: bool


@dataclass(frozen=True)
class Row:
    """One score of a suite, by the names of the models; the first model has no difference."""
    name: str
    items: int
    chance: float | None
    scores: Mapping[str, Interval]
    differences: Mapping[str, Difference]


def compare(results: Mapping[str, Result], draws: int = DRAWS, seed: int = 0) -> list[Row]:
    """Every score of a suite, for one model or several; the first is the one that others are compared with.

    Intervals are percentiles of a bootstrap over clusters: all items of an image are drawn together, the same for all
    models. Where every item is right (or wrong) there is nothing to draw: then the bound is the exact binomial one.

    Raises: ValueError where two models were evaluated on other items.
    """
    first, *others = results
    for other in others:
        check_same_items(first, results[first], other, results[other])
    scores = {name: result.scores() for name, result in results.items()}
    drawn = resampled(results, draws, seed)
    tossed = {score for score in results[first].outcomes if all(
        np.isin(result.outcomes[score].right, (0, 1)).all() for result in results.values())}
    tested = {name: {score: each for score, each in result.outcomes.items() if score in tossed}
              | {mean: pool(result, parts) for mean, parts in result.pooled.items() if tossed.issuperset(parts)}
              for name, result in results.items()}
    unlikely = {name: holm({score: mcnemar(*discordant(each, tested[first][score])) for score, each in tested[name].items()})
                for name in others}

    def difference(name: str, score: str) -> Difference:
        low, high = percentiles(drawn[name][score] - drawn[first][score])
        gained, lost, p, certain = 0, 0, None, not low <= 0 <= high
        if score in tested[first]:
            gained, lost = discordant(tested[name][score], tested[first][score])
            p, certain = mcnemar(gained, lost), certain and unlikely[name][score] < 1 - LEVEL
        return Difference(scores[name][score] - scores[first][score], low, high, gained, lost, p, certain)

    def row(score: str) -> Row:
        parts = results[first].means.get(score) or results[first].pooled.get(score) or [score]
        of = [results[first].outcomes[part] for part in parts]
        chance = None if any(each.chance is None for each in of) else float(np.mean([each.chance for each in of]))
        intervals = {name: Interval(scores[name][score], *bounds(drawn[name][score], result.outcomes.get(score)))
                     for name, result in results.items()}
        differences = {name: difference(name, score) for name in others}
        return Row(score, sum(len(each.ids) for each in of), chance, intervals, differences)
    return [row(score) for score in drawn[first]]


def check_same_items(first: str, there: Result, name: str, here: Result) -> None:
    """Raises ValueError where two results are of other items."""
    for score in there.outcomes | here.outcomes:
        ids = [list(result.outcomes[score].ids) if score in result.outcomes else None for result in (there, here)]
        if ids[0] != ids[1]:
            raise ValueError(f"{first} and {name} were evaluated on other items of {score!r}; evaluate both on one suite, "
                             "with the same images at hand.")


def resampled(
    results: Mapping[str, Result], draws: int, seed: int,
) -> dict[str, dict[str, Float[np.ndarray, " draws"]]]:
    """By model, each score and each mean of `draws` suites whose clusters are drawn from these results' with replacement.

    Clusters with one name are one in all scores. Results are of the same items: all get the same draws.
    """
    first = next(iter(results.values())).outcomes
    members = {score: each.ids if each.clusters is None else each.clusters for score, each in first.items()}
    place = {cluster: i for i, cluster in enumerate(dict.fromkeys(each for score in members for each in members[score]))}
    where = {score: np.array([place[each] for each in members[score]], np.int64) for score in members}
    columns = {("items", score): np.bincount(where[score], minlength=len(place)) for score in first}
    columns |= {(name, score): np.bincount(where[score], each.right, len(place))
                for name, result in results.items() for score, each in result.outcomes.items()}
    totals, rng = np.stack(list(columns.values()), axis=1).astype(float), np.random.default_rng(seed)   # (C, columns)
    chunk, uniform = max(1, 2**22 // len(place)), np.full(len(place), 1 / len(place))       # draws at a time: 32 MB
    sums = dict(zip(columns, np.concatenate([
        rng.multinomial(len(place), uniform, min(chunk, draws - start)).astype(float) @ totals
        for start in range(0, draws, chunk)]).T, strict=True))

    def of_model(name: str, result: Result) -> dict[str, Float[np.ndarray, " draws"]]:
        share = lambda parts: sum(sums[name, part] for part in parts) / sum(sums["items", part] for part in parts)
        drawn = {score: share([score]) for score in result.outcomes}
        drawn |= {mean: np.mean([drawn[part] for part in parts], axis=0) for mean, parts in result.means.items()}
        return drawn | {mean: share(parts) for mean, parts in result.pooled.items()}
    with np.errstate(invalid="ignore"):         # a draw that has no item of a small category says nothing of it
        return {name: of_model(name, result) for name, result in results.items()}


def percentiles(drawn: Float[np.ndarray, " draws"]) -> tuple[float, float]:
    low, high = np.nanpercentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def bounds(drawn: Float[np.ndarray, " draws"], outcomes: Outcomes | None) -> tuple[float, float]:
    """The interval of a score; `outcomes` None for a mean."""
    low, high = percentiles(drawn)
    if outcomes is None or not 0 < len(set(outcomes.right)) < 2 or outcomes.right[0] not in (0, 1):
        return low, high
    width = ((1 - LEVEL) / 2) ** (1 / len(set(outcomes.clusters if outcomes.clusters is not None else outcomes.ids)))
    return (width, 1.0) if outcomes.right[0] else (0.0, 1 - width)


def pool(result: Result, parts: Sequence[str]) -> Outcomes:
    """The items of several scores as those of one."""
    outcomes = [(part, result.outcomes[part]) for part in parts]
    return Outcomes([f"{part}/{each}" for part, of in outcomes for each in of.ids],
                    np.concatenate([of.right for _, of in outcomes]))


def discordant(here: Outcomes, there: Outcomes) -> tuple[int, int]:
    """How many items are better here, and how many there."""
    return int(np.sum(here.right > there.right)), int(np.sum(here.right < there.right))


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact two-sided test: how likely so uneven a split is, were each discordant item a fair coin's toss."""
    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction (1979) of several tests' p: the chance of one false find among them all stays below each."""
    ordered = sorted(p, key=p.get)
    corrected = np.maximum.accumulate([min(1.0, (len(p) - i) * p[name]) for i, name in enumerate(ordered)])
    return dict(zip(ordered, map(float, corrected), strict=True))
