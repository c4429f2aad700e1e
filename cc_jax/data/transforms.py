"""Image bytes -> RGB pixels -> the square a tower sees: the same for preparation, training and evaluation."""
import contextlib
import functools
import io
import math
import warnings
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

MAX_PIXELS = 2**26          # of one image: 8 192 x 8 192; decoded, such an image takes 192 MiB
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")     # no other reader of Pillow's sees untrusted bytes
MARGIN = 2                  # a JPEG is decoded at 1/2, 1/4 or 1/8 if that is still so many times as large as the result:
                            # photos are then 0.6 to 0.9 / 255 from the exact result; 1.1 to 1.6 with a margin of 1.5
WIDE = 6                    # from this scale on Pillow is the faster one to resize

cv2.setNumThreads(0)        # the pipeline has threads of its own
# Pillow warns of odd metadata in many a web photo, and of large images, for which `decode` has a limit of its own.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageError(ValueError):
    """An image that can't be used: `reason` is a slug to count by, `detail` says what was found."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of an encoded image, as 8-bit RGB.

    CMYK, palette and grey images become RGB, 16 bits a channel become their upper 8, transparent pixels are laid over
    white, of an animation the first frame counts. The orientation noted in EXIF is not applied: the decoders that
    released weights were trained with don't apply it either.

    Raises: ImageError with the reason "image_undecodable", "image_truncated", "image_bomb" (more than `max_pixels`
    pixels; found out without decoding) or "image_mode" (32-bit pixels, whose range nothing tells).
    """
    with _opened(data, max_pixels) as image:
        return _rgb_pixels(image)


def load(
    data: bytes, res: int, crop: float | None = None, rng: np.random.Generator | None = None,
) -> UInt8[np.ndarray, "res res 3"]:
    """What a tower sees of an encoded image, in training and evaluation alike.

    Equal to `resize(decode(data), res)`, or with `crop` to `resize(random_crop(decode(data), crop, rng), res)`, except
    that a JPEG much larger than needed is decoded at a part of its size: close to equal, and sooner. Of a JPEG that is
    damaged, libjpeg may write a line to stderr.
    Raises: ImageError as `decode`, which besides refuses a JPEG that can't be read on to its end after the last pixel.
    """
    with _opened(data, MAX_PIXELS) as image:
        top, left, height, width = _random_box(image.height, image.width, crop, rng) if crop else (0, 0, *image.size[::-1])
        shrink = max(k for k in (1, 2, 4, 8) if k == 1 or min(height, width) >= k * MARGIN * res)
        bgr = _plain_jpeg_as_bgr(data, image, shrink)
        pixels, shrink = (_rgb_pixels(image), 1) if bgr is None else (bgr, shrink)
    # A random box that begins between two shrunk pixels begins with the first: at MARGIN = 2 half a pixel of the result.
    height, width = height / shrink, width / shrink
    part = pixels[top // shrink:, left // shrink:][:math.ceil(height), :math.ceil(width)]
    square = _resample(part, height, width, res)
    return square if bgr is None else cv2.cvtColor(square, cv2.COLOR_BGR2RGB)


def view(image: bytes | UInt8[np.ndarray, "H W 3"], res: int) -> UInt8[np.ndarray, "res res 3"]:
    """What a tower sees of an encoded image, or of pixels."""
    return load(image, res) if isinstance(image, bytes) else resize(image, res)


def rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of an image as 8-bit RGB, as `decode` has them. Raises: ImageError "image_mode"."""
    return np.asarray(_to_rgb(image))


def resize(image: UInt8[np.ndarray, "H W 3"], res: int) -> UInt8[np.ndarray, "res res 3"]:
    """The image as a square of `res` pixels: bilinear, antialiased on the way down, aspect not kept.

    On photos within 0.8 / 255 (mean absolute difference) of Pillow's, which takes three times as long.
    """
    return _resample(image, *image.shape[:2], res)


def random_crop(image: UInt8[np.ndarray, "H W 3"], least: float, rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """A part of the image, of a random share of its area (`least` to 1), shape (3:4 to 4:3, where it fits) and place."""
    top, left, h, w = _random_box(*image.shape[:2], least, rng)
    return image[top:top + h, left:left + w]


def mirror(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Left and right exchanged."""
    return cv2.flip(image, 1)       # many times as fast as a copy of image[:, ::-1]: 0.01 ms at 224 px, not 0.3


def _random_box(height: int, width: int, least: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop."""
    side, ratio = np.sqrt(height * width * rng.uniform(least, 1)), np.exp(rng.uniform(-1, 1) * np.log(4 / 3) / 2)
    h, w = (int(np.clip(round(size), 1, most)) for size, most in ((side * ratio, height), (side / ratio, width)))
    return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w


def _resample(image: UInt8[np.ndarray, "H W 3"], height: float, width: float, res: int) -> UInt8[np.ndarray, "res res 3"]:
    """`resize` of an image whose last row and column may count in part: `height` and `width`, rounded up, are H and W."""
    image = np.ascontiguousarray(image)
    if (height, width) == (res, res):
        return image
    scale_y, scale_x = max(1.0, height / res), max(1.0, width / res)
    if max(scale_y, scale_x) > WIDE:
        return np.asarray(Image.fromarray(image).resize((res, res), Image.Resampling.BILINEAR, (0, 0, width, height)))
    if max(scale_y, scale_x) > 1:
        image = cv2.sepFilter2D(image, -1, _smoothing(scale_x), _smoothing(scale_y), borderType=cv2.BORDER_REPLICATE)
    image = cv2.resize(image, None, fx=res / width, fy=res / height, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(image[:res, :res])          # a row or column more, where the last one counts in part


@functools.lru_cache(maxsize=4096)
def _smoothing(scale: float) -> Float32[np.ndarray, " n"]:
    """Weights that make linear interpolation of the smoothed image an antialiased one.

    Antialiased bilinear resizing weighs pixels by a triangle of half-width `scale`; interpolation after smoothing with
    b_-m .. b_m weighs them by sum_i b_i hat(x - i), the hat being the triangle of half-width 1. Of all symmetric b with
    sum 1, these have the least squared distance between the two.
    """
    if scale == 1:
        return np.ones(1, np.float32)
    hat = lambda x: np.maximum(0, 1 - np.abs(x))
    x = np.arange(1 / 128, scale + 2, 1 / 64)
    pairs = [hat(x - i) + hat(x + i) - 2 * hat(x) for i in range(1, round(scale) + 1)]       # b_0 = 1 - 2 sum_i b_i
    b = np.linalg.lstsq(np.stack(pairs, 1), hat(x / scale) / scale - hat(x))[0]
    return np.concatenate([b[::-1], [1 - 2 * b.sum()], b]).astype(np.float32)


@contextlib.contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """The image, only its header read and its size checked; what goes wrong with it becomes an ImageError."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.size, max_pixels)
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("image_bomb", str(error)) from error
    except Exception as error:   # a hostile file can make Pillow's readers raise nearly anything
        reason = "image_truncated" if "truncated" in str(error).lower() else "image_undecodable"
        raise ImageError(reason, _describe(error, data)) from error


def _plain_jpeg_as_bgr(data: bytes, image: Image.Image, shrink: int) -> UInt8[np.ndarray, "h w 3"] | None:
    """A JPEG in colour or grey at 1 / `shrink` of its size, rounded up; None for other images and whatever is amiss.

    By libjpeg-turbo, as in Pillow, so the pixels are the same, but not copied about.
    """
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return None
    flag = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
            8: cv2.IMREAD_REDUCED_COLOR_8}[shrink]
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if pixels is None or pixels.shape != (math.ceil(image.height / shrink), math.ceil(image.width / shrink), 3):
        return None
    return pixels


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError("image_undecodable", f"{width} x {height} pixels; there must be at least one.")
    if width * height > max_pixels:
        raise ImageError("image_bomb", f"{width} x {height} pixels are more than {max_pixels}; scale the image down.")


def _rgb_pixels(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    image.load()
    return rgb(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16) >> 8      # Pillow keeps the upper byte of 16-bit colour, too
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError("image_mode", f"pixels of mode {image.mode!r} have 32 bits; save the image with 8 or 16.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _describe(error: Exception, data: bytes) -> str:
    if isinstance(error, Image.UnidentifiedImageError):      # its message is the address of a Python object
        return f"{len(data)} bytes beginning {data[:8]!r} are none of {', '.join(FORMATS)}."
    return f"{type(error).__name__}: {error}"
