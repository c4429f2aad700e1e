"""The captions of web data, cleaned the same way for every reader, and the record they make."""
import html
import re
from collections.abc import Iterator, Sequence
from typing import Any

from cc_jax.data.records import BadRecord, Note, Record, Reject, check_split_name, phrases_of

# Only with a semicolon: HTML also knows "&not" and "&copy", which would spoil "fish &notes".
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MARKS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")        # control characters that are not white space


def clean(text: str) -> tuple[str, list[str]]:
    """A caption with HTML entities unescaped once, control characters made spaces, and white space off its ends.

    Returns: (caption, reasons of what was done): "caption_entities", "caption_control" (white space does not count).
    """
    reasons = []
    if "&" in text and _ENTITY.search(text):
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
        reasons.append("caption_entities")
    if not text.isprintable() and _CONTROL.search(text):
        if _MARKS.search(text):
            reasons.append("caption_control")
        text = _CONTROL.sub(" ", text)
    return text.strip(), reasons


def web_record(
    key: str, image: bytes, captions: Sequence[Any], split: Any = "train", phrases: Any = None,
) -> Iterator[Record | Reject | Note]:
    """The record that a reader of web data found, with its captions cleaned and each cleaning noted; or its reject.

    Args:
      captions: those that are not text go on as they are, for `prepare` to reject.
      phrases: what the source has as the field "phrases", or None.
    """
    key = printable(key)
    try:
        check_split_name(split)
        given = phrases_of(phrases, len(captions))
    except BadRecord as error:
        yield error.reject(key)
        return
    cleaned = []
    for index, caption in enumerate(captions):
        text, reasons = clean(caption) if isinstance(caption, str) else (caption, ())
        cleaned.append(text)
        yield from (Note(f"{key}#{index}", reason) for reason in reasons)
    if given is not None:
        given = tuple(part and [clean(phrase)[0] if isinstance(phrase, str) else phrase for phrase in part]
                      for part in given)
    yield Record(key, image, tuple(cleaned), split, given)


def printable(key: str) -> str:
    """A key that can be written as UTF-8: the bytes of a name that is not come as backslash escapes."""
    return key if key.isascii() else key.encode("utf-8", "backslashreplace").decode()


def flatten(values: Sequence[Any]) -> list[Any]:
    """The captions of several fields, each with one caption or a list of them."""
    return [caption for value in values for caption in (value if isinstance(value, list | tuple) else [value])]
