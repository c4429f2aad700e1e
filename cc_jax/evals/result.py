"""What an evaluator found: item by item, so that scores can be compared with honest intervals."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Outcomes:
    """One score, item by item."""
    ids: Sequence[str]                          # of the items, each once: two models are compared on the ids they share
    right: Float[np.ndarray, " n"]              # 1 where the model is right, else 0
    chance: float | None = None                 # what guessing would score
    clusters: Sequence[str] | None = None       # what each item shares with others, its image: they are not independent

    def __post_init__(self):
        object.__setattr__(self, "right", np.asarray(self.right, np.float64))
        for name, values in (("right", self.right), ("clusters", self.clusters)):
            if values is not None and len(values) != len(self.ids):
                raise ValueError(f"{len(self.ids)} ids, but {len(values)} of {name}; there is one for each item.")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("two items have one id; ids tell items apart.")

    @property
    def score(self) -> float:
        return float(self.right.mean())


@dataclass(frozen=True)
class Result:
    """What one evaluator found.

    A mean is named after scores of which it is the plain mean ("macro": every category counts alike) or, where `pooled`, the
    mean over all their items ("micro").
    """
    outcomes: Mapping[str, Outcomes]            # by the name of the score: a category, or a measure
    items: int                                  # evaluated
    expected: int                               # of the whole suite: fewer are evaluated only where that was asked for
    means: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pooled: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def scores(self) -> dict[str, float]:
        """{name: value}: shares from 0 to 1, the means, then "items" and "expected"."""
        each = {name: outcomes.score for name, outcomes in self.outcomes.items()}
        means = {name: float(np.mean([each[part] for part in parts])) for name, parts in self.means.items()}
        pooled = {name: float(np.concatenate([self.outcomes[part].right for part in parts]).mean())
                  for name, parts in self.pooled.items()}
        return each | means | pooled | {"items": self.items, "expected": self.expected}


def joined(results: Mapping[str, Result]) -> Result:
    """Several results as one, each score's name after its result's: "0.50/macro"; counts are those of all together."""
    names = lambda kind: {f"{key}/{name}": [f"{key}/{part}" for part in parts]
                          for key, result in results.items() for name, parts in getattr(result, kind).items()}
    outcomes = {f"{key}/{name}": each for key, result in results.items() for name, each in result.outcomes.items()}
    return Result(outcomes, sum(result.items for result in results.values()),
                  sum(result.expected for result in results.values()), names("means"), names("pooled"))
