"""The models that a command is given: workdirs, a step of one, weights of any format, released ones."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cc_jax.config import ConfigError

FORMS = "a run's workdir, WORKDIR@STEP, weights of any format that cc_jax.convert reads, or a released model's name"


@dataclass(frozen=True)
class Model:
    """A model that has not been opened yet."""
    name: str                           # in tables
    open: Callable[[], Any]             # -> saved.SavedRun
    files: Sequence[Path] | None        # it consists of these; None where they are not on a local disk
    workdir: str | None                 # that it is a run of


def find_model(given: str, tokenizer: str | None = None) -> Model:
    """What one argument of a command names; nothing is read yet but names.

    Args: tokenizer: a file, for weights that have none beside them.
    Raises: FileNotFoundError for what is not there, ConfigError for a step of what has no steps.
    """
    path, at, step = given.rpartition("@")
    if not at or not step.isdecimal():
        path, step = given, None
    folder = Path(path)
    if "://" in path:
        return Model(given, lambda: _open(path, step, tokenizer), None, path)
    if (folder / "checkpoints").is_dir():
        steps = sorted(int(each.name) for each in (folder / "checkpoints").iterdir() if each.name.isdecimal())
        if not steps or step is not None and int(step) not in steps:
            raise FileNotFoundError(f"no checkpoint{'' if step is None else f' of step {step}'} in {path}; there are "
                                    f"{steps or 'none'}.")
        step = steps[-1] if step is None else int(step)
        files = [each for each in (folder / "checkpoints" / str(step)).rglob("*") if each.is_file()]
        name = folder.resolve().name + (at and f"@{step}")
        files += [*folder.glob("tokenizer*"), folder / "config.json"]
        return Model(name, lambda: _open(path, step, None), files, path)
    if step is not None:
        raise ConfigError(f"{given}: {path} is not the workdir of a run, which has steps; name {FORMS}.")
    files = local_files(path) + ([Path(tokenizer)] if tokenizer else [])
    return Model(folder.stem if folder.exists() else path, lambda: _open(path, None, tokenizer), files, None)


def local_files(path: str) -> list[Path]:
    """The files of weights that lie at a path, or are a released model's. Raises FileNotFoundError."""
    # They bring JAX, which a workdir's cached embeddings do without.
    from cc_jax.convert import big_vision, released

    if found := big_vision.find(path):
        return list(map(Path, found))
    if Path(path).is_dir():
        return [each for each in Path(path).iterdir() if each.is_file()]
    if name := None if Path(path).exists() else released.find(path):
        place = released.local(name)
        return [each for each in place.iterdir() if each.is_file()] if place.is_dir() else [place]
    raise FileNotFoundError(f"{path!r} is no model; name {FORMS}.")


def _open(path: str, step: int | str | None, tokenizer: str | None):
    from cc_jax.convert.model import open_model
    return open_model(path, None if step is None else int(step), tokenizer)


def find_models(given: Sequence[str], tokenizer: str | None = None) -> list[Model]:
    """`find_model` of each; two that would go by one name go by what was given. Raises ConfigError for one given twice."""
    models = [find_model(each, tokenizer) for each in given]
    names = [model.name for model in models]
    models = [Model(text, model.open, model.files, model.workdir) if names.count(model.name) > 1 else model
              for text, model in zip(given, models, strict=True)]
    if twice := {text for text in given if given.count(text) > 1}:
        raise ConfigError(f"{twice.pop()} is given twice; name each model once.")
    return models
