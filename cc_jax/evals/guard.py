"""Ends a run whose scores fall: `config.stop_if`.

    c.stop_if = (("retrieval/image_to_text@1", "below", 0.60), ("imagenet/top1", "drops", 0.02))

"below" is a bound; "drops" is how far a score may fall under the best one that the run has had. `config.evaluate_start=True`
evaluates before the first update: then the best is at least that of the weights that a fine-tune started from.
"""
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cc_jax.config import ConfigError, suggest

KINDS = ("below", "drops")


class ScoreFell(RuntimeError):
    """A score fell further than the config lets it."""


@dataclass(frozen=True)
class Guard:
    score: str
    kind: str
    value: float


class Guards:
    """The guards of a run, and the best that each score has been."""

    def __init__(self, guards: Sequence[Guard], history: Sequence[Mapping] = ()):
        """`history`: the metrics of a run that is resumed, as `metrics.read` gives them."""
        self._guards, self._best = guards, {}
        for line in history:
            self._remember(line)

    def check(self, step: int, scores: Mapping[str, float]) -> None:
        """Raises ScoreFell for a score of `step` that is too low, ConfigError for one that its evaluation does not give."""
        self._remember(scores)
        for guard in self._guards:
            evaluation = guard.score.partition("/")[0]
            given = [name for name in scores if name.startswith(f"{evaluation}/")]
            if given and guard.score not in given:
                raise ConfigError(f"config.stop_if has {guard.score!r}, but the evaluation gives no such score; "
                                  f"{suggest(guard.score, given)}")
            if not given:
                continue
            best = self._best[guard.score]
            least = guard.value if guard.kind == "below" else best - guard.value
            if scores[guard.score] < least:
                why = "" if guard.kind == "below" else f", the best so far ({best:.4g}) less {guard.value:g}"
                raise ScoreFell(f"step {step}: {guard.score} is {scores[guard.score]:.4g}, under {least:.4g}{why}: stopped "
                                "by config.stop_if, with the state saved. To go on from it all the same, name it in "
                                "config.model_init of a run with another stop_if.")

    def _remember(self, scores: Mapping) -> None:
        for guard in self._guards:
            score = scores.get(guard.score)
            if isinstance(score, int | float):
                self._best[guard.score] = max(score, self._best.get(guard.score, score))


def read(given: Sequence[Sequence], evaluations: Collection[str]) -> list[Guard]:
    """The guards of `config.stop_if`. Raises ConfigError for one that is not (SCORE, KIND, NUMBER) of an evaluation."""
    guards = []
    for each in given:
        if isinstance(each, str) or len(each) != 3 or each[1] not in KINDS or not isinstance(each[2], int | float):
            raise ConfigError(f"config.stop_if has {each!r}; each is ('EVALUATION/SCORE', one of {', '.join(KINDS)}, "
                              "NUMBER).")
        evaluation = str(each[0]).partition("/")[0]
        if evaluation not in evaluations:
            raise ConfigError(f"config.stop_if has {each[0]!r}, but there is no evaluation {evaluation!r}; "
                              f"{suggest(evaluation, evaluations)}")
        guards.append(Guard(str(each[0]), each[1], float(each[2])))
    return guards
