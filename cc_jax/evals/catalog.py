"""The suites that go by a name, and how a command's --suite is read."""
import inspect
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cc_jax.config import ConfigError, suggest
from cc_jax.evals import pointing, registry, retrieval, suites, zero_shot
from cc_jax.evals.suite import Suite

SUITES: Mapping[str, Suite] = {suite.name: suite for family in (suites, retrieval, zero_shot, pointing)
                               for suite in family.SUITES}


def blocks(given: str, data: str | None, **options: Any) -> dict[str, dict[str, Any]]:
    """{name: block of a config's `evals`} of one --suite.

    Args:
      given: names of SUITES with commas between, or TYPE:PATH[,OPTION=VALUE]: an evaluator of one's own data.
      data: the folder of evaluation data, which named suites are looked for in.
      options: for those evaluators that take them; None: not given.
    """
    if ":" in given:
        kind, _, rest = given.partition(":")
        path, *more = rest.split(",")
        maker = registry.maker(kind)
        first = next(iter(inspect.signature(maker).parameters))
        own = {name: typed(kind, name, value, maker) for name, _, value in (each.partition("=") for each in more)}
        return {f"{kind}:{Path(path).name}": applicable({"type": kind, first: path} | own, options)}
    found = {}
    for name in filter(None, given.split(",")):
        if name not in SUITES:
            raise ConfigError(f"there is no suite {name!r}; {suggest(name, SUITES)} For data of your own: TYPE:PATH, with "
                              f"TYPE one of {', '.join(registry.TYPES)}.")
        if data is None:
            raise ConfigError(f"suite {name} is looked for in the folder of evaluation data; name it with --data.")
        place = SUITES[name].look(Path(data))
        if place is None:
            raise ConfigError(f"suite {name} is not in {data}; it needs {SUITES[name].needs}.")
        found[name] = applicable(dict(place.block), options)
    return found


def typed(kind: str, name: str, value: str, maker: Callable) -> Any:
    """An option's value in the type of its default."""
    parameters = inspect.signature(maker).parameters
    if name not in parameters:
        raise ConfigError(f"evaluator {kind} has no option {name!r}; {suggest(name, parameters)}")
    default = parameters[name].default
    try:
        return value.lower() in ("true", "1") if isinstance(default, bool) else type(default)(value) if isinstance(
            default, int | float) else value
    except ValueError:
        raise ConfigError(f"option {name}={value!r} of evaluator {kind} is not of type {type(default).__name__}, as its "
                          f"default {default!r}.") from None


def applicable(block: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The block with those options that are given and that its evaluator takes."""
    takes = inspect.signature(registry.maker(block["type"])).parameters
    return block | {name: value for name, value in options.items() if value is not None and name in takes}


def listing(data: str | None) -> str:
    """What each suite measures, what it needs, and what of it was found in `data`."""
    lines = []
    for suite in SUITES.values():
        place = suite.look(Path(data)) if data else None
        found = "" if data is None else f"\n    found: {place.says}" if place else f"\n    not in {shlex.quote(data)}"
        lines.append(f"{suite.name}: {suite.measures}\n    needs {suite.needs}{found}")
    return "\n".join(lines)
