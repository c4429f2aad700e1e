"""Encoded images, as preparation meets them: are they whole, and how large; and made smaller where a user asks for it."""
import io
import struct
import zlib

from PIL import Image

from cc_jax.data import transforms
from cc_jax.data.transforms import MAX_PIXELS

JPEG_QUALITY = 92       # of images that are made smaller
_LENGTHLESS = frozenset((0x01, *range(0xD0, 0xD8)))     # JPEG markers without a segment
_SEGMENT = struct.Struct(">BBH")                        # of a JPEG: 0xFF, marker, length
_FRAMES = frozenset((0xC0, 0xC1, 0xC2))                 # baseline, extended and progressive JPEG


def check(data: bytes, decode: bool = False) -> None:
    """Raises: transforms.ImageError where an image can't be used.

    A JPEG, PNG or WebP file that has all its parts, from the first marker to the end mark (in PNG with the right
    checksums), of an allowed size, is taken at its word: that is a hundred times as fast as decoding it, and what was
    cut short or is no image is still found. All else is decoded; with `decode` all is.
    """
    if decode or not is_whole(data):
        transforms.decode(data)


def shrink(data: bytes, short_side: int) -> bytes:
    """The image with its shorter side made `short_side` pixels, as JPEG; the bytes themselves where it is no longer."""
    with Image.open(io.BytesIO(data), formats=transforms.FORMATS) as image:
        width, height = image.size
    if min(width, height) <= short_side:
        return data
    scale = short_side / min(width, height)
    pixels = Image.fromarray(transforms.decode(data))
    out = io.BytesIO()
    pixels.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC).save(
        out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def is_whole(data: bytes) -> bool:
    """Whether the bytes are a JPEG, PNG or WebP file with all its parts, and at most MAX_PIXELS pixels."""
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg_is_whole(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return _png_is_whole(data)
        return data[:4] == b"RIFF" and data[8:12] == b"WEBP" and _webp_is_whole(data)
    except (IndexError, struct.error):
        return False


def _is_allowed(width: int, height: int) -> bool:
    return 0 < width * height <= MAX_PIXELS


def _jpeg_is_whole(data: bytes) -> bool:
    position, sized = 2, False
    while True:
        start, marker, length = _SEGMENT.unpack_from(data, position)
        if start != 0xFF:
            return False
        if marker == 0xDA:              # the scan: within it no byte 0xFF is followed by the end mark's 0xD9
            return sized and data.rfind(b"\xff\xd9", position) > 0
        if marker in _FRAMES:
            bits, height, width = struct.unpack_from(">BHH", data, position + 4)
            sized = bits == 8 and _is_allowed(width, height)
        if marker == 0xFF:              # fill
            position += 1
        else:
            position += 2 if marker in _LENGTHLESS else 2 + length


def _png_is_whole(data: bytes) -> bool:
    position, kind, kinds = 8, b"", set()
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        if zlib.crc32(memoryview(data)[position + 4:position + 8 + length]) != checksum:
            return False
        if kind == b"IHDR" and not _is_allowed(*struct.unpack_from(">II", data, position + 8)):
            return False
        kinds.add(kind)
        position += 12 + length
    return b"IHDR" in kinds and b"IDAT" in kinds


def _webp_is_whole(data: bytes) -> bool:
    (size,) = struct.unpack_from("<I", data, 4)
    kind = data[12:16]
    if len(data) < size + 8:
        return False
    if kind == b"VP8 ":                                     # lossy: 14 bits each, after the start code
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        return data[23:26] == b"\x9d\x01\x2a" and _is_allowed(width, height)
    if kind == b"VP8L":                                     # lossless
        (bits,) = struct.unpack_from("<I", data, 21)
        return data[20] == 0x2F and _is_allowed((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    return False                                            # with alpha or animation
