"""Records as the bytes of a tf.train.Example, as the protobuf library writes them, in half its time.

    Example { Features = 1 }                        Features  { map<string, Feature> = 1 }, sorted by name
    Feature { BytesList = 1, or Int64List = 3 }     BytesList { repeated bytes = 1 }    Int64List { packed int64 = 1 }

A field is a byte for its number, its size, and its content: protobuf.dev/programming-guides/encoding. The library copies an
image four times; here it is copied once.
"""
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any

_FIELD_1, _FIELD_2, _FIELD_3 = b"\x0a", b"\x12", b"\x1a"    # of fields that have a size
_KEPT = 1 << 12     # sizes


def make_serialize(names: Collection[str], integers: Collection[str]) -> Callable[[Mapping[str, Any]], bytes]:
    """A function from a record to its bytes, the same for equal ones.

    Args:
      names: the record's; each has a text, bytes, or a list: of integers, or else of texts.
      integers: those of the names with a list of integers.
    """
    fields = [(name, name in integers, _make_front(name, _FIELD_3 if name in integers else _FIELD_1))
              for name in sorted(names)]

    def serialize(record: Mapping[str, Any]) -> bytes:
        pieces = [b""]
        for name, is_integer, front in fields:
            value = record[name]
            if is_integer:
                content = _integers(value)
            elif isinstance(value, list):
                texts = [text.encode() for text in value]
                content = b"".join([_field_1(len(text)) + text for text in texts])
            elif isinstance(value, bytes):
                start = _field_1(len(value))
                pieces += (front(len(start) + len(value)), start, value)    # not joined: it is most of the record
                continue
            else:
                text = value.encode()
                content = _field_1(len(text)) + text
            pieces += (front(len(content)), content)
        pieces[0] = _field_1(sum(map(len, pieces)))
        return b"".join(pieces)
    return serialize


def _make_front(name: str, kind: bytes) -> Callable[[int], bytes]:
    """What stands before a list of so many bytes: the start of its entry in the map, with its name."""
    key = _field_1(len(name.encode())) + name.encode()

    @lru_cache(_KEPT)
    def front(size: int) -> bytes:
        feature = kind + varint(size)
        entry = key + _FIELD_2 + varint(len(feature) + size) + feature
        return _field_1(len(entry) + size) + entry
    return front


def _integers(values: list[int]) -> bytes:
    if not values:
        return b""
    small = min(values) >= 0 and max(values) < 128          # most: each is its own byte
    packed = bytes(values) if small else b"".join(map(varint, values))
    return _field_1(len(packed)) + packed


@lru_cache(_KEPT)
def _field_1(size: int) -> bytes:
    return _FIELD_1 + varint(size)


def varint(number: int) -> bytes:
    """An integer of at most 64 bits, seven to a byte, the lowest first; negative ones as two's complement."""
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
