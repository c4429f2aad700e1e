"""Arrays in an .npz file, read one at a time when asked for; a file from a stranger can neither run code nor fill memory."""
import zipfile
import zlib
from collections.abc import Mapping
from typing import BinaryIO

import ml_dtypes
import numpy as np
from etils import epath

from cc_jax.convert.weights import Lazy, WeightsError, checked

MAX_RATIO = 20          # of the bytes that a file says it holds to its own; weights compress by a few percent
MAX_HEADER_BYTES = 10_000
_NO_NPZ = (ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, OSError, zipfile.BadZipFile, zlib.error)
_BFLOAT16 = np.dtype("V2")      # what NumPy's format makes of bfloat16, which it does not know


def read(path: str, ignored: tuple[str, ...] = ()) -> dict[str, Lazy]:
    """Name -> array of the file, but those whose name starts with one of `ignored`.

    Raises WeightsError for a file that is no npz of plain floating-point arrays.
    """
    size = epath.Path(path).stat().length
    try:
        archive = zipfile.ZipFile(epath.Path(path).open("rb"))
        members = archive.infolist()
        declared = sum(member.file_size for member in members)
        if declared > MAX_RATIO * size:
            raise ValueError(f"it says that it holds {declared} bytes, {declared // max(size, 1)} times its own size, as a "
                             "zip bomb does")
        names = [member.filename.removesuffix(".npy") for member in members]
        if len(set(names)) < len(names):
            raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
        return {name: _member(archive, member, name, path) for name, member in zip(names, members, strict=True)
                if not name.startswith(ignored)}
    except _NO_NPZ as error:
        raise WeightsError(f"{path!r} is not an npz file of plain arrays ({error}); name a big_vision "
                           "checkpoint.") from error


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, path: str) -> Lazy:
    """Reads the array's header only."""
    with archive.open(member) as stream:
        shape, fortran, dtype = _header(stream)
        held, said = member.file_size - stream.tell(), int(np.prod(shape, dtype=object)) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError(f"{name!r} is an array of objects, which could run code when read")
    if held != said:
        raise ValueError(f"{name!r} is to hold an array {shape} of {dtype}, {said} bytes, but has {held}")
    real = np.dtype(ml_dtypes.bfloat16) if dtype == _BFLOAT16 else dtype
    if real.kind != "f" and real != ml_dtypes.bfloat16:
        raise ValueError(f"{name!r} is of {dtype}; weights are floating-point numbers")

    def load() -> np.ndarray:
        try:
            with archive.open(member) as stream:
                _header(stream)
                flat = np.empty(int(np.prod(shape)), dtype)
                _fill(stream, memoryview(flat.view(np.uint8)))
        except _NO_NPZ as error:
            raise WeightsError(f"{path}: {name} can't be read ({error}); the file is damaged, fetch it again.") from error
        array = flat.view(real) if dtype == _BFLOAT16 else flat.astype(real.newbyteorder("="), copy=False)
        return checked(name, array.reshape(shape, order="F" if fortran else "C"), path)

    return Lazy(tuple(shape), real.newbyteorder("="), load)


def _header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in read_header:
        raise ValueError(f"arrays of format version {version} are not known")
    try:
        return read_header[version](stream, max_header_size=MAX_HEADER_BYTES)
    except Exception as error:          # NumPy takes it apart as Python, if as literals only, and that raises many things
        raise ValueError(f"the header of an array can't be read: {error}") from error


def _fill(stream: BinaryIO, memory: memoryview) -> None:
    """Reads as many bytes as `memory` has, and sees to it that the file's checksum was looked at."""
    place = 0
    while place < len(memory):
        piece = stream.read(min(2**20, len(memory) - place))
        if not piece:
            raise EOFError(f"{len(memory) - place} bytes are missing")
        memory[place:place + len(piece)] = piece
        place += len(piece)
    stream.read(1)


def write(path: str, arrays: Mapping[str, Lazy]) -> None:
    """Writes the arrays one after the other, so that one is in memory at a time. bfloat16 becomes V2, as in big_vision."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, lazy in arrays.items():
            array = lazy.read()
            array = array.view(_BFLOAT16) if array.dtype == ml_dtypes.bfloat16 else array
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array).reshape(lazy.shape), version=(1, 0),
                                          allow_pickle=False)
