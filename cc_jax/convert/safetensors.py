"""Tensors in a .safetensors file: a JSON header with names, types, shapes and places, then bytes. Nothing in it can run.

Read and written here because safetensors' own reader has no bfloat16 for NumPy, and its writer holds all in memory.
"""
import json
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from cc_jax import strict_json
from cc_jax.convert.weights import Lazy, WeightsError, checked

TYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16)}
SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8, "F64": 8}
MAX_HEADER_BYTES = 100_000_000      # safetensors' own limit


def read(path: str) -> dict[str, Lazy]:
    """Name -> tensor, read when asked for. Raises WeightsError for a file that does not hold what its header says."""
    size = epath.Path(path).stat().length
    with epath.Path(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise _bad(path, f"its header is to have {length} bytes, the whole file has {size}")
        try:
            header = strict_json.loads(file.read(length))
            if not isinstance(header, dict):
                raise ValueError("it is no object")
        except ValueError as error:
            raise _bad(path, f"its header can't be read: {error}") from error
    header.pop("__metadata__", None)
    places = {name: _place(path, name, entry) for name, entry in header.items()}
    _check_places(path, {name: (begin, end) for name, (_, _, begin, end) in places.items()}, size - 8 - length)
    return {name: _tensor(path, name, kind, shape, 8 + length + begin)
            for name, (kind, shape, begin, _) in places.items()}


def _bad(path: str, why: str) -> WeightsError:
    return WeightsError(f"{path} is no sound safetensors file: {why}. It may be truncated or damaged; fetch it again.")


def _place(path: str, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """(type, shape, begin, end) of a header's entry, which agree with each other."""
    number = lambda x: isinstance(x, int) and not isinstance(x, bool) and 0 <= x < 2**62
    try:
        kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not (isinstance(kind, str) and isinstance(shape, list) and all(map(number, [*shape, begin, end]))):
            raise ValueError
    except (TypeError, KeyError, ValueError) as error:
        raise _bad(path, f"its entry of {name!r} can't be read") from error
    itemsize = TYPES[kind].itemsize if kind in TYPES else SIZES.get(kind)
    count = int(np.prod(shape, dtype=object))
    if itemsize is None:
        raise _bad(path, f"{name!r} is of the unknown type {kind!r}")
    if end - begin != count * itemsize:
        raise _bad(path, f"{name!r} of shape {tuple(shape)} and type {kind} has {count * itemsize} bytes, but its place is "
                         f"{begin} to {end}")
    return kind, tuple(shape), begin, end


def _check_places(path: str, places: Mapping[str, tuple[int, int]], size: int) -> None:
    """Tensors fill the file from first to last byte and none overlaps another, as the format has it."""
    expected = 0
    for name, (begin, end) in sorted(places.items(), key=lambda item: item[1]):
        if begin != expected or end > size:
            raise _bad(path, f"{name!r} lies at {begin} to {end}, where {expected} comes next and the data end at {size}")
        expected = end
    if expected != size:
        raise _bad(path, f"its tensors take {expected} bytes, but {size} follow the header")


def _tensor(path: str, name: str, kind: str, shape: tuple[int, ...], place: int) -> Lazy:
    dtype = TYPES.get(kind, np.dtype(np.uint8))

    def load() -> np.ndarray:
        if kind not in TYPES:
            raise WeightsError(f"{path}: {name} is of type {kind}; weights are {', '.join(TYPES)}.")
        flat = np.empty(int(np.prod(shape)), dtype)
        memory = memoryview(flat.view(np.uint8))
        with epath.Path(path).open("rb") as file:
            file.seek(place)
            while len(memory):
                count = file.readinto(memory)
                if not count:
                    raise _bad(path, f"{name!r} ends {len(memory)} bytes early")
                memory = memory[count:]
        return checked(name, flat.reshape(shape), path)

    return Lazy(shape, dtype, load)


def write(path: str, tensors: Mapping[str, Lazy], dtype: np.dtype) -> None:
    """Writes the tensors as `dtype`, one in memory at a time. The file is what PyTorch's tools expect ("format": "pt")."""
    kind = next(kind for kind, known in TYPES.items() if known == dtype)
    header, place = {"__metadata__": {"format": "pt"}}, 0
    for name, lazy in tensors.items():
        end = place + int(np.prod(lazy.shape)) * dtype.itemsize
        header[name] = {"dtype": kind, "shape": list(lazy.shape), "data_offsets": [place, end]}
        place = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for lazy in tensors.values():
            np.ascontiguousarray(lazy.read().astype(dtype, copy=False)).reshape(-1).view(np.uint8).tofile(file)
