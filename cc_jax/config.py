"""Configs that are read to the last key: a key that nothing reads is an error with the nearest name."""
import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class ConfigError(ValueError):
    """A config that can't be run as it stands; the message says which key and what to do."""


class DatasetError(ConfigError):
    """A folder that is not a prepared dataset, or lacks what was asked of it; the message says what to do."""


def suggest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """"did you mean X?", or the names there are when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {prefix}{near[0]}?"
    return f"known here: {', '.join(known)}." if known else "nothing is known here."


class Config:
    """A read-only view of nested mappings that remembers which keys were asked for.

    `config.optim.lr` and `config.optim["lr"]` read a key that must be there, `config.optim.get("wd", 0.0)` one that may.
    `check_all_read()` raises ConfigError for any key nobody asked for.
    """

    def __init__(self, values: Mapping[str, Any], path: str = "config"):
        self._path, self._asked = path, set()
        self._values = {k: Config(v, f"{path}.{k}") if isinstance(v, Mapping) else v for k, v in values.items()}

    def __getitem__(self, name: str) -> Any:
        self._asked.add(name)
        if name not in self._values:
            raise ConfigError(f"{self._path}.{name} is not set; {suggest(name, self._values, self._path + '.')}")
        return self._values[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or `default` where the key is absent; a missing block reads as an empty one with default={}."""
        self._asked.add(name)
        if name not in self._values and isinstance(default, Mapping):
            self._values[name] = Config(default, f"{self._path}.{name}")
        return self._values.get(name, default)

    def keys(self) -> list[str]:
        return list(self._values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def options(self, known: Iterable[str]) -> dict[str, Any]:
        """All keys of this block as plain keyword arguments; a key that is not in `known` is an error."""
        known = set(known)
        for name in self._values:
            if name not in known:
                raise ConfigError(f"nothing reads {self._path}.{name}; {suggest(name, known, self._path + '.')}")
        return {name: self[name].as_dict() if isinstance(self[name], Config) else self[name] for name in self._values}

    def as_dict(self) -> dict[str, Any]:
        """The block as plain nested dicts. Reads nothing."""
        return {k: v.as_dict() if isinstance(v, Config) else v for k, v in self._values.items()}

    def check_all_read(self) -> None:
        """Raises ConfigError naming the first key that nothing read, and the nearest one that something did."""
        for name, value in self._values.items():
            if name not in self._asked:
                raise ConfigError(f"nothing reads {self._path}.{name}; "
                                  f"{suggest(name, self._asked, self._path + '.')}")
            if isinstance(value, Config):
                value.check_all_read()


def steps(duration: int | str, total_steps: int) -> int:
    """A duration in steps: a number of steps, or a share of the run such as "2 %". At least 1."""
    if str(duration).isdecimal() and int(duration) > 0:  # a number given on the command line may come as text
        return int(duration)
    try:
        value, percent = str(duration).split("%")
        share = float(value) / 100
    except ValueError:
        share, percent = -1.0, "?"
    if percent.strip() or not 0 < share <= 1:
        raise ConfigError(f"duration {duration!r} is neither a number of steps > 0 nor a share of the run like '2 %'.")
    return max(1, round(share * total_steps))


def total_steps(config: Config, examples_per_epoch: int) -> int:
    """The run's length in steps, from the one of `total_steps`, `total_examples`, `total_epochs` that the config sets."""
    lengths = {name: config.get(name) for name in ("total_steps", "total_examples", "total_epochs")}
    given = {name: value for name, value in lengths.items() if value is not None}
    if len(given) != 1:
        raise ConfigError(f"the run's length is given by {list(given) or 'nothing'}; set exactly one of "
                          f"{', '.join(lengths)}.")
    [(name, value)] = given.items()
    examples = {"total_steps": value * config.batch_size, "total_examples": value,
                "total_epochs": value * examples_per_epoch}[name]
    count = round(examples / config.batch_size)
    if count < 1:
        raise ConfigError(f"config.{name}={value} is less than one step of batch_size={config.batch_size}.")
    return count
