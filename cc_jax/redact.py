"""Keeps credentials that stand in URLs out of files that others may read: config.json, a dataset's metadata, reports."""
import re
from collections.abc import Mapping
from typing import Any

from cc_jax.config import ConfigError

USER = re.compile(r"(?<=://)[^/\s@]+@")                 # https://USER:PASSWORD@host
QUERY = re.compile(r"(?<=\?)[^\s,|?]*=[^\s,|]*")        # https://host/file?X-Amz-Signature=...


def redacted(text: str) -> str:
    """`text` with "..." for what may be a credential in its URLs: user and password, and the query, which signs URLs."""
    return QUERY.sub("...", USER.sub("...@", text))


def check(values: Mapping[str, Any], name: str = "config") -> None:
    """Raises ConfigError, which does not show it, for a value with credentials in it: config.json would hold them."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            check(value, f"{name}.{key}")
        elif any(redacted(text) != text for text in ([value] if isinstance(value, str) else
                                                     value if isinstance(value, list | tuple) else ())
                 if isinstance(text, str)):
            raise ConfigError(f"{name}.{key} holds a URL with a user, a password or a signature, which config.json would "
                              "keep for all to read; leave them to the environment, or to fsspec's own configuration "
                              "(~/.config/fsspec).")
