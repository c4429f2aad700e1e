"""Images of every kind, really made by Pillow, against pixels known from how they were made."""
import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cc_jax.data.transforms import MARGIN, MAX_PIXELS, ImageError, decode, load, mirror, random_crop, resize

GRADIENT = np.stack(np.meshgrid(np.arange(40), np.arange(30), [7]), -1)[:, :, 0].astype(np.uint8) * 5  # (30, 40, 3)


def encode(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png(width: int, height: int) -> bytes:
    """A PNG of that size as its header says, without pixels."""
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def reason(data: bytes, **options) -> str:
    """Why the image is refused: decoded, or as a tower sees it."""
    with pytest.raises(ImageError) as error:
        decode(data, **options)
    if not options:
        with pytest.raises(ImageError, match=f"^{error.value.reason}:"):
            load(data, 8)
    return error.value.reason


def smooth(height: int, width: int) -> Image.Image:
    y, x = np.mgrid[:height, :width] / max(height, width)
    return Image.fromarray((127 + 120 * np.sin(np.stack([5 * x + y, 3 * y - x, 4 * x * y], -1))).astype(np.uint8))


def detailed(height: int, width: int) -> Image.Image:
    """Noise of all sizes, the finer the weaker, and edges, as photos have."""
    rng, image = np.random.default_rng(0), np.zeros((height, width), np.float32)
    for cells in (2, 4, 8, 16, 32, 64, 128, 256):
        noise = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
        image += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) * cells**-0.5
    image = np.stack([image, np.abs(image), image > 0.3], -1)
    return Image.fromarray((128 + 60 * image).clip(0, 255).astype(np.uint8))


def exact(data: bytes, res: int) -> np.ndarray:
    """Pillow's antialiased bilinear resize of the whole image."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize((res, res), Image.Resampling.BILINEAR)).astype(int)


def difference(data: bytes, res: int) -> float:
    """How far an image as a tower sees it is from the exact one, on average, in 1 / 255."""
    image = load(data, res)
    assert image.shape == (res, res, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    return np.abs(image - exact(data, res)).mean()


@pytest.mark.parametrize("form, options", [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_give_the_very_pixels(form, options):
    np.testing.assert_array_equal(decode(encode(Image.fromarray(GRADIENT), form, **options)), GRADIENT)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_decoded(progressive):
    pixels = decode(encode(Image.fromarray(GRADIENT), "JPEG", quality=95, progressive=progressive))
    assert pixels.dtype == np.uint8 and np.abs(pixels.astype(int) - GRADIENT).max() < 20


def test_a_cmyk_jpeg_becomes_rgb():
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    pixels = decode(encode(red, "JPEG", quality=95))
    assert pixels.shape == (8, 8, 3) and np.abs(pixels.astype(int) - (255, 0, 0)).max() < 10


def test_a_palette_image_becomes_rgb():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([0, 1])
    assert decode(encode(image, "PNG")).tolist() == [[[10, 20, 30], [200, 100, 0]]]


@pytest.mark.parametrize("mode, value", [("L", 77), ("1", 255)])
def test_grey_and_black_and_white_become_rgb(mode, value):
    assert decode(encode(Image.new(mode, (3, 2), value), "PNG")).tolist() == [[[value] * 3] * 3] * 2


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_upper_byte(form):
    image = Image.fromarray(np.array([[0, 255, 256, 40_000, 65_535]], np.uint16))
    assert decode(encode(image, form))[0, :, 0].tolist() == [0, 0, 1, 156, 255]


def test_transparent_pixels_are_laid_over_white():
    image = Image.new("RGBA", (3, 1))
    image.putdata([(10, 20, 30, 0), (0, 0, 0, 128), (10, 20, 30, 255)])
    assert decode(encode(image, "PNG"))[0].tolist() == [[255] * 3, [127] * 3, [10, 20, 30]]


def test_a_transparent_palette_entry_is_laid_over_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([0, 1])
    assert decode(encode(image, "PNG", transparency=0))[0].tolist() == [[255] * 3, [200, 100, 0]]


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation_counts(form):
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    pixels = decode(encode(red, form, save_all=True, append_images=[blue]))
    assert pixels.shape == (16, 16, 3) and np.abs(pixels.astype(int) - (255, 0, 0)).max() < 5


def test_an_image_of_one_pixel_is_decoded_and_resized():
    pixels = decode(encode(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"))
    assert pixels.tolist() == [[[1, 2, 3]]]
    assert resize(pixels, 4).tolist() == [[[1, 2, 3]] * 4] * 4


@pytest.mark.parametrize("size", [(50_000, 50_000), (9_000, 9_000), (1, MAX_PIXELS + 1)])
def test_a_bomb_is_refused_without_decoding(size):
    assert reason(png(*size)) == "image_bomb"


def test_a_bomb_that_pillow_would_warn_of_leaves_no_trace_on_the_screen(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png(12_000, 12_000))
    script = ("import sys, pathlib; from cc_jax.data import transforms\n"
              "try: transforms.decode(pathlib.Path(sys.argv[1]).read_bytes())\n"
              "except transforms.ImageError as error: print(error.reason)")
    done = subprocess.run([sys.executable, "-W", "default", "-c", script, tmp_path / "bomb.png"], text=True,
                          capture_output=True, cwd=Path(__file__).parents[2])
    assert (done.stdout, done.stderr) == ("image_bomb\n", "")


def test_the_limit_on_pixels_is_inclusive():
    data = encode(Image.fromarray(GRADIENT), "PNG")
    assert decode(data, max_pixels=30 * 40).shape == (30, 40, 3)
    assert reason(data, max_pixels=30 * 40 - 1) == "image_bomb"


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_truncated_image_is_refused(form, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(Image.fromarray(noise), form)
    assert reason(data[:int(len(data) * share)]) in ("image_truncated", "image_undecodable")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_in_its_pixels_is_called_truncated(progressive):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(Image.fromarray(noise), "JPEG", progressive=progressive)
    assert reason(data[:len(data) // 2]) == "image_truncated"


@pytest.mark.parametrize("data", [
    b"", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", png(0, 5)])
def test_what_is_no_image_is_undecodable(data):
    assert reason(data) == "image_undecodable"


def test_pixels_of_unknown_range_are_refused():
    assert reason(encode(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF")) == "image_mode"


@pytest.mark.filterwarnings("ignore::UserWarning")       # pytest undoes the filters that an import sets
@given(st.data())
def test_damaged_files_give_pixels_or_an_image_error(data):
    """Whatever bytes are changed, nothing else is raised."""
    form = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"]))
    damaged = bytearray(encode(Image.fromarray(GRADIENT), form))
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    for read in (lambda data: decode(data, max_pixels=2**20), lambda data: load(data, 8)):
        try:
            assert read(bytes(damaged)).shape[2] == 3
        except ImageError as error:
            assert error.reason.startswith("image_") and error.detail


def test_resize_averages_on_the_way_down():
    """A checkerboard of black and white, made sixteen times smaller, is grey everywhere: no aliasing."""
    board = np.kron(np.indices((64, 64)).sum(0) % 2, np.ones((1, 1), int)).astype(np.uint8) * 255
    small = resize(np.repeat(board[:, :, None], 3, axis=2), 4)
    assert np.abs(small.astype(int) - 127.5).max() < 3


def test_resize_does_not_keep_the_aspect():
    """A ramp from left to right stays one from edge to edge."""
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 8, 0).repeat(3, 2)      # (8, 64, 3)
    square = resize(ramp, 16)
    assert square.shape == (16, 16, 3) and (np.diff(square[0, :, 0].astype(int)) > 0).all()
    assert np.ptp(square[:, :, 0], axis=0).max() == 0


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("draw", [smooth, detailed])
@pytest.mark.parametrize("size", [
    (375, 500), (501, 333), (224, 224), (100, 75), (223, 225), (1, 1), (1, 300), (2, 3000), (37, 1201), (600, 901)])
def test_an_image_of_any_size_is_close_to_the_exact_one(size, draw, form):
    data = encode(draw(*size), form, **({"quality": 90} if form == "JPEG" else {}))
    for res in (224, 33):
        assert difference(data, res) < 1


@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 3}])
def test_a_jpeg_decoded_at_a_part_of_its_size_is_close_to_the_exact_one(shrink, options):
    """Sides that the parts don't divide: the last row and column count in part."""
    res = 30
    side = MARGIN * res * shrink
    assert difference(encode(detailed(side + 1, side + 7), "JPEG", quality=90, **options), res) < 1


@given(st.integers(16, 300), st.integers(16, 300), st.integers(16, 64), st.booleans())
def test_a_smooth_jpeg_is_close_to_the_exact_one_at_any_scale(height, width, res, grey):
    image = smooth(height, width)
    assert difference(encode(image.convert("L") if grey else image, "JPEG", quality=95), res) < 1


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03"
                                                                          b"\0\0\0\x01\0\x06\0\0\0\0\0\0"}])
def test_what_a_tower_sees_is_the_decoded_image_resized(mode, options):
    """The very pixels, whichever decoder reads them; EXIF's "rotate by 90 degrees" is not followed."""
    data = encode(detailed(60, 90).convert(mode), "JPEG", **options)
    np.testing.assert_array_equal(load(data, 40), resize(decode(data), 40))


def test_a_crop_of_a_jpeg_decoded_at_a_part_of_its_size_is_that_of_the_whole_moved_by_half_a_pixel_at_most(res=20):
    data = encode(smooth(701, 903), "JPEG", quality=95)
    for seed in range(20):
        part = random_crop(decode(data), 0.1, np.random.default_rng(seed))
        seen = load(data, res, 0.1, np.random.default_rng(seed))
        assert np.abs(seen.astype(int) - exact(encode(Image.fromarray(part), "PNG"), res)).mean() < 3


def test_the_same_bytes_give_the_same_pixels():
    data = encode(detailed(375, 500), "JPEG")
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: load(data, 224).tobytes(), range(32)))) == 1


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 256))
def test_resize_leaves_a_plain_colour_as_it_is(height, width, res):
    plain = np.broadcast_to(np.array([0, 255, 77], np.uint8), (height, width, 3))
    assert (resize(plain, res) == (0, 255, 77)).all()


def test_photos_are_close_to_the_exact_ones(test_data):
    """Scaled down to the size of most sets of photos, so that they are as sharp as they get."""
    folder = test_data / "sugarcrepe_images"
    files = sorted(folder.glob("*.jpg"))
    if not files:
        pytest.skip(f"no photos in {folder}.")
    photos = [Image.open(file).convert("RGB") for file in files]
    small = [encode(photo.resize((500, 375), Image.Resampling.LANCZOS), "JPEG", quality=90) for photo in photos]
    for data, res in (small, 224), (small, 384), (small, 90), ([file.read_bytes() for file in files], 224):
        assert np.mean([difference(each, res) for each in data]) < 0.8
    assert max(difference(each, 224) for each in small) < 1


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_mirrored_image_has_left_and_right_exchanged(height, width):
    image = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    np.testing.assert_array_equal(mirror(image), image[:, ::-1])


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.1, 1.0), st.integers(0, 99))
def test_a_random_crop_is_a_part_of_the_image_of_about_the_area_asked_for(height, width, least, seed):
    image = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    part = random_crop(image, least, np.random.default_rng(seed))
    h, w = part.shape[:2]
    assert 1 <= h <= height and 1 <= w <= width
    # Never less than asked, but for rounding and for sides that the image is too short for.
    assert h == height or w == width or (h + 1) * (w + 1) >= least * height * width
    top, left = np.argwhere((image == part[0, 0]).all(-1)).T
    assert any((image[t:t + h, x:x + w] == part).all() for t, x in zip(top, left, strict=True)
               if t + h <= height and x + w <= width)
