"""The texts that stand for classes: names and templates, from files or shipped with this package (`class_names/`).

Names are a JSON file {class: name} or {class: [name, ...]}, or a text file with a line for each class, in the classes'
order: of folders sorted, of TFDS its own. Templates are a text file with one on a line; "{}" is where the name stands.
"""
from collections.abc import Sequence
from pathlib import Path

from cc_jax import strict_json
from cc_jax.config import ConfigError

SHIPPED = Path(__file__).parent / "class_names"
IMAGENET = "imagenet"                       # what is shipped, names and templates: SHIPPED / "SOURCES.md" says whose
TEMPLATES = ("a photo of a {}.", "a photo of the {}.", "a close-up photo of a {}.", "a small photo of a {}.",
             "a blurry photo of the {}.", "a picture that shows a {}.", "{}")


def prompts(classes: Sequence[str], names: str = "", templates: str | Sequence[str] = ()) -> list[list[str]]:
    """Of each class its prompts: every template with every name of the class.

    Args:
      classes: folders' names, or TFDS's names of labels.
      names: a file, or "imagenet"; by default the classes' own, "_" being a space.
      templates: a file, "imagenet", or the templates themselves; by default TEMPLATES.
    Raises: ConfigError; also for a class without name, and a name without class.
    """
    patterns = read_templates(templates)
    return [[pattern.replace("{}", name) for name in of_class for pattern in patterns]
            for of_class in read_names(classes, names)]


def read_names(classes: Sequence[str], names: str = "") -> list[list[str]]:
    """The names of each class. Raises: ConfigError."""
    if not names:
        return [[name.replace("_", " ")] for name in classes]
    path = SHIPPED / f"{IMAGENET}.json" if names == IMAGENET else Path(names).expanduser()
    text = _read(path, "class names")
    if path.suffix.lower() != ".json":
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if len(lines) != len(classes):
            raise ConfigError(f"{path} has {len(lines)} names, and there are {len(classes)} classes, {classes[0]!r} to "
                              f"{classes[-1]!r}; give one a line, or a JSON file {{class: name}}.")
        return [[line] for line in lines]
    try:
        found = strict_json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds no JSON object {{class: name}}; write one.")
    for key, value in found.items():
        of_class = [value] if isinstance(value, str) else value
        if not of_class or not isinstance(of_class, list) or not all(isinstance(n, str) and n.strip() for n in of_class):
            raise ConfigError(f"{path}: class {key!r} has the names {value!r}; give a text, or a list of them.")
        found[key] = of_class
    for these, those, what in ((classes, found, "has no name for"), (list(found), set(classes), "names, but there is no")):
        if missing := [key for key in these if key not in those]:
            raise ConfigError(f"{path} {what} {len(missing)} classes, such as {missing[0]!r}; it must name the "
                              f"{len(classes)} classes that there are, each by its folder's or label's name.")
    return [found[key] for key in classes]


def read_templates(templates: str | Sequence[str] = ()) -> list[str]:
    """The templates. Raises: ConfigError."""
    where = "templates"
    if isinstance(templates, str) and templates:
        where = SHIPPED / f"{IMAGENET}.templates.txt" if templates == IMAGENET else Path(templates).expanduser()
        templates = [line.strip() for line in _read(where, "templates").splitlines() if line.strip()]
        if not templates:
            raise ConfigError(f"{where} is empty; write a template a line, such as {TEMPLATES[0]!r}.")
    for number, template in enumerate(templates, 1):
        if template.count("{}") != 1:
            raise ConfigError(f"{where}: template {number}, {template!r}, must hold {{}} once, where the name stands.")
    return list(templates or TEMPLATES)


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"no {what} in {path} ({error.strerror}); give a file, or {IMAGENET!r}.") from error
