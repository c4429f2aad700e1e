"""Which checkpoints of a run are kept: the newest, every so many steps one, and the best by a score.

    c.checkpoint = dict(every="2 %", keep=2, keep_every="20 %", best="retrieval/image_to_text@1")
"""
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from cc_jax.config import Config, ConfigError, steps, suggest


class Preserve:
    """Orbax's preservation policy: the `keep` newest, the multiples of `keep_every`, and the one with the highest `best`."""

    def __init__(self, keep: int = 2, keep_every: int | None = None, best: str | None = None):
        self._keep, self._keep_every, self._best = keep, keep_every, best
        self._scores: dict[int, float] = {}

    @classmethod
    def read(cls, block: Config, length: int, evaluations: Collection[str]) -> "Preserve":
        """The policy of `config.checkpoint` of a run of `length` steps. Raises ConfigError."""
        keep, keep_every, best = block.get("keep", 2), block.get("keep_every", None), block.get("best", None)
        if not isinstance(keep, int) or keep < 1:
            raise ConfigError(f"config.checkpoint.keep={keep!r}; keep at least 1, the newest.")
        evaluation = (best or "").partition("/")[0]
        if best is not None and evaluation not in evaluations:
            raise ConfigError(f"config.checkpoint.best={best!r}, but there is no evaluation {evaluation!r}; "
                              f"{suggest(evaluation, evaluations)}")
        return cls(keep, keep_every and steps(keep_every, length), best)

    def remember(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Takes the scores of lines of metrics, {"step": ..., "EVALUATION/SCORE": ...}.

        Raises ConfigError for a `best` that its evaluation does not give.
        """
        prefix = (self._best or "").partition("/")[0] + "/"
        for line in history:
            given = [name for name in line if name.startswith(prefix)]
            if self._best and given and self._best not in given:
                raise ConfigError(f"config.checkpoint.best={self._best!r}, but the evaluation gives no such score; "
                                  f"{suggest(self._best, given)}")
            if isinstance(line.get(self._best), int | float):
                self._scores[line["step"]] = line[self._best]

    def kept(self, saved: Sequence[int]) -> set[int]:
        """Those of the saved steps that are kept; of equally good ones the later."""
        kept = set(sorted(saved)[-self._keep:])
        kept |= {step for step in saved if self._keep_every and step % self._keep_every == 0}
        if scored := [step for step in saved if step in self._scores]:
            kept.add(max(scored, key=lambda step: (self._scores[step], step)))
        return kept

    def should_preserve(self, checkpoints: Sequence, *, context: Any) -> Sequence[bool]:
        """Orbax asks when it has begun to save another."""
        kept = self.kept([each.step for each in checkpoints])
        return [each.step in kept for each in checkpoints]
