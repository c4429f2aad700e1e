"""What a workdir tells about its run, finished or not: its config, its metrics, how long it took."""
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cc_jax import checkpoint, metrics
from cc_jax.config import Config, ConfigError, total_steps
from cc_jax.data import dataset


@dataclass(frozen=True)
class Run:
    """A workdir's config and metrics."""
    name: str
    workdir: str
    config: dict
    lines: list[dict]

    @property
    def step(self) -> int:
        """The last that there is a line of."""
        return max(line["step"] for line in self.lines)

    def curve(self, key: str, warm: bool = False) -> tuple[list[int], list[float]]:
        """The steps at which `key` has a finite value, and the values; where `warm`, without steps that compiled."""
        points = [(line["step"], line[key]) for line in self.lines if isinstance(line.get(key), (int, float))
                  and not (warm and self._begins(line["step"]))]
        return [step for step, _ in points], [value for _, value in points]

    def final(self, key: str) -> float | None:
        """The last finite value of `key`."""
        values = self.curve(key)[1]
        return values[-1] if values else None

    def seconds(self) -> tuple[float | None, float | None]:
        """(a step, all of training), evaluations and saving left out; None where no line tells."""
        steps, means = self.curve("seconds_per_step")       # each is the mean since the line before, or since a start
        if not steps:
            return None, None
        typical = statistics.median(self.curve("seconds_per_step", warm=True)[1] or means)
        total = 0.0
        for step, before, mean in zip(steps, [0, *steps], means, strict=False):
            unseen = step - before - 1 if self._begins(step) else 0     # done by a killed process that logged no more
            total += mean * (step - before - unseen) + typical * unseen
        return typical, total

    @cached_property
    def planned(self) -> int | None:
        """The steps that the run's config asks for; None where that takes a dataset which is gone."""
        config, examples = Config(self.config), 0
        try:
            if config.get("total_epochs", None) is not None:
                examples = dataset.split_sizes(config.data.dir)[config.data.split]
            return total_steps(config, examples)
        except (ConfigError, dataset.DatasetError, KeyError):
            return None

    def _begins(self, step: int) -> bool:
        """Whether a process began with this step, in a new or a resumed run: it compiled, and has a line out of turn."""
        in_turn = step % self.config.get("log_every", 1) == 0 or step == (self.planned or self.step)
        return step == 1 or not in_turn


def read_runs(workdirs: Sequence[str]) -> list[Run]:
    """Raises FileNotFoundError for a folder that holds no trained run, ValueError for two runs of one name."""
    runs = []
    for workdir in workdirs:
        config, path = checkpoint.read_config(workdir), Path(workdir) / "metrics.jsonl"
        lines = metrics.read(workdir) if path.exists() else []
        if not lines:
            raise FileNotFoundError(f"{path} {'holds no metrics' if path.exists() else 'is missing'}; train the run "
                                    f"first: python -m cc_jax.main --config ... --workdir {workdir}")
        runs.append(Run(Path(workdir).resolve().name, workdir, config, lines))
    names = [run.name for run in runs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two of the workdirs are named {repeated[0]!r}; a run goes by the name of its folder, so "
                         "give each its own.")
    return runs
