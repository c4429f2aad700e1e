"""Image bytes -> RGB pixels -> the square a tower sees: the same for preparation, training and evaluation."""
import io
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image

MAX_PIXELS = 2**26          # of one image: 8 192 x 8 192; decoded, such an image takes 192 MiB
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")     # no other reader of Pillow's sees untrusted bytes

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
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.size, max_pixels)
            image.load()
            return np.asarray(_to_rgb(image))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("image_bomb", str(error)) from error
    except Exception as error:   # a hostile file can make Pillow's readers raise nearly anything
        reason = "image_truncated" if "truncated" in str(error).lower() else "image_undecodable"
        raise ImageError(reason, _describe(error, data)) from error


def resize(image: UInt8[np.ndarray, "H W 3"], res: int) -> UInt8[np.ndarray, "res res 3"]:
    """The image as a square of `res` pixels: bilinear, antialiased on the way down, aspect not kept."""
    if image.shape[:2] == (res, res):
        return image
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((res, res), Image.Resampling.BILINEAR))


def random_crop(image: UInt8[np.ndarray, "H W 3"], least: float, rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """A part of the image, of a random share of its area (`least` to 1), shape (3:4 to 4:3, where it fits) and place."""
    height, width = image.shape[:2]
    side, ratio = np.sqrt(height * width * rng.uniform(least, 1)), np.exp(rng.uniform(-1, 1) * np.log(4 / 3) / 2)
    h, w = (int(np.clip(round(size), 1, most)) for size, most in ((side * ratio, height), (side / ratio, width)))
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    return image[top:top + h, left:left + w]


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError("image_undecodable", f"{width} x {height} pixels; there must be at least one.")
    if width * height > max_pixels:
        raise ImageError("image_bomb", f"{width} x {height} pixels are more than {max_pixels}; scale the image down.")


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
