"""Random changes to inputs: of bytes, and of JSON as the tree it is."""
import copy
import json
from collections.abc import Sequence
from random import Random
from typing import Any

MAX_BYTES = 2**16               # of an input
NUMBERS = [0, 1, 2, 7, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1]
TOKENS = [b"\0", b"\xff", b"\xc3", b"\xef\xbb\xbf", b"\r", b"\n", b"\t", b'"', b"'", b",", b"\\", b"/", b"..", b"../", b"[",
          b"{", b"[" * 99, b"}", b"NaN", b"1e999", b"-1", b"9" * 40, b"9" * 5000, b"null", b"&amp;", b"&#0;", b"&#x110000;",
          b"%s", b"{}", *(letter.encode() for letter in "é\u2028\u0130\u0301\u200f🐕"), b"\xed\xa0\x80"]
VALUES = [None, True, False, 0, -1, 3, 0.5, 2**31, 2**53, 2**64, 10**30, -1e308, float("nan"), float("inf"), "", " ", "\0",
          "\ud800", "..", "../x", "/dev/zero", "a" * 300, "9" * 30, [], {}, [[]], [None], [1, 2, 3], {"": None}, {"a": {}}]


def change(data: bytes, rng: Random, corpus: Sequence[bytes], tokens: Sequence[bytes] = ()) -> bytes:
    """A few changes to bytes, some of them with pieces of the other inputs."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        rng.choice(_CHANGES)(data, rng, corpus, tokens)
    return bytes(data[:MAX_BYTES])


def change_json(data: bytes, rng: Random) -> bytes | None:
    """A few changes to values, keys and lists of a JSON text, or of one line of JSON lines; None for what is neither."""
    lines = data.split(b"\n")
    for number in (None, rng.randrange(len(lines))):
        try:
            value = [json.loads(data if number is None else lines[number])]
        except (ValueError, RecursionError):
            continue
        for _ in range(rng.choice((1, 1, 2, 4))):
            _change_node(value, rng)
        text = json.dumps(value[0] if value else None).encode()
        if number is not None:
            lines[number], text = text, b""
        return (text or b"\n".join(lines))[:MAX_BYTES]
    return None


def _change_node(root: list, rng: Random) -> None:
    nodes, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        nodes += [(node, key) for key in (node if isinstance(node, dict) else range(len(node)))]
        waiting += [child for child in (node.values() if isinstance(node, dict) else node) if isinstance(child, dict | list)]
    if not nodes:
        return
    node, key = rng.choice(nodes)
    action = rng.randrange(8)
    if action == 0:
        del node[key]
    elif action == 1 and isinstance(node, dict):
        node[rng.choice(["", "type", "id", "a" * 300, f"{key} "])] = node.pop(key)
    elif action == 2:
        node[key] = [copy.deepcopy(node[key]) for _ in range(rng.choice((1, 2, 100)))]
    elif action == 3:
        node[key] = {rng.choice(["", "a", str(key)]): node[key]}
    elif action == 4:
        other, place = rng.choice(nodes)
        if other is not root:
            node[key] = copy.deepcopy(other[place])
    elif action == 5 and isinstance(node[key], str):
        node[key] = _text(node[key], rng)
    elif action == 6 and isinstance(node[key], int | float):
        node[key] = rng.choice((-node[key], node[key] + 1, node[key] * 1000, rng.choice(NUMBERS)))
    else:
        node[key] = copy.deepcopy(rng.choice(VALUES))


def _text(text: str, rng: Random) -> str:
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    rng.choice(_CHANGES)(data, rng, [b""], ())
    return data.decode("utf-8", "replace")


def _flip(data: bytearray, rng: Random, *_: Any) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(data: bytearray, rng: Random, *_: Any) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.randrange(256)


def _number(data: bytearray, rng: Random, *_: Any) -> None:
    size = rng.choice((1, 2, 4, 8))
    piece = (rng.choice(NUMBERS) % 256**size).to_bytes(size, rng.choice(("little", "big")))
    start = rng.randrange(len(data) + 1)
    data[start:start + size] = piece


def _token(data: bytearray, rng: Random, _: Any, tokens: Sequence[bytes]) -> None:
    start = rng.randrange(len(data) + 1)
    data[start:start + rng.choice((0, 0, 1, 4))] = rng.choice([*tokens, *tokens, *TOKENS])


def _drop(data: bytearray, rng: Random, *_: Any) -> None:
    start, size = _range(data, rng)
    del data[start:start + size]


def _repeat(data: bytearray, rng: Random, *_: Any) -> None:
    start, size = _range(data, rng)
    data[start:start] = data[start:start + size] * rng.choice((1, 1, 2, 50))


def _cut(data: bytearray, rng: Random, *_: Any) -> None:
    del data[rng.randrange(len(data) + 1):]


def _splice(data: bytearray, rng: Random, corpus: Sequence[bytes], *_: Any) -> None:
    other = rng.choice(corpus)
    start, size = _range(other, rng)
    place = rng.randrange(len(data) + 1)
    data[place:place + rng.choice((0, size))] = other[start:start + size]


def _range(data: bytes | bytearray, rng: Random) -> tuple[int, int]:
    size = rng.randrange(min(len(data), rng.choice((4, 64, 4096))) + 1)
    return rng.randrange(len(data) - size + 1), size


_CHANGES = [_flip, _flip, _set, _number, _token, _token, _drop, _repeat, _cut, _splice]
