"""Suites that are a folder of JSON files, one for each category."""
from collections.abc import Mapping, Sequence
from pathlib import Path

from cc_jax.evals.suites import files
from cc_jax.evals.suites.items import NoSuite


def categories(folder: str, keys: Sequence[str]) -> dict[str, dict[str, Mapping]]:
    """{category: {id: record}} of the JSON files of a folder; the category is the file's name.

    Files of another content are passed over: those none of whose entries is a record with one of the keys, such as the lists
    of images and of scenes that lie beside some suites.
    Raises: ConfigError for a file that is no JSON, NoSuite where no file has records.
    """
    made = {}
    for path in sorted(Path(folder).glob("*.json")):
        content = files.parse(files.read_text(path), str(path))
        entries = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
        if any(isinstance(entry, dict) and entry.keys() & set(keys) for entry in entries):
            made[path.stem] = files.records(path)
    if not made:
        raise NoSuite(f"{folder} holds no suite: no JSON file {{id: {{{', '.join(keys)}}}}} in it.")
    return made
