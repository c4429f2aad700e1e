"""Which encoded images pass for whole, against what decoding them says; and making them smaller."""
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cc_jax.data import images, transforms


def encode(form: str, size=(37, 23), mode="RGB", **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, form, **options)
    return stream.getvalue()


WHOLE = {
    "jpeg": encode("JPEG"), "progressive": encode("JPEG", progressive=True), "grey": encode("JPEG", mode="L"),
    "cmyk": encode("JPEG", mode="CMYK"), "comment": encode("JPEG", comment=b"\xff\xd9" * 20),
    "exif": encode("JPEG", exif=b"Exif\0\0" + encode("JPEG", (8, 8))),      # cameras keep a thumbnail there
    "png": encode("PNG"), "palette": encode("PNG", mode="P"), "rgba": encode("PNG", mode="RGBA"),
    "webp": encode("WEBP"), "lossless": encode("WEBP", lossless=True),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_images_are_known_without_decoding(name, monkeypatch):
    assert images.is_whole(WHOLE[name]) and transforms.decode(WHOLE[name]).shape == (23, 37, 3)
    monkeypatch.setattr(transforms, "decode", lambda data: pytest.fail("decoded"))
    images.check(WHOLE[name])


@pytest.mark.parametrize("form, options", [("WEBP", dict(mode="RGBA")), ("GIF", {}), ("BMP", {}), ("TIFF", {})])
def test_other_forms_are_decoded(form, options):
    data = encode(form, **options)
    if options:
        stream, image = io.BytesIO(), Image.open(io.BytesIO(data)).convert("RGB")
        image.putalpha(100)
        image.save(stream, form)
        data = stream.getvalue()
    assert not images.is_whole(data)
    images.check(data)
    with pytest.raises(transforms.ImageError):
        images.check(data[:len(data) // 2])


@pytest.mark.parametrize("name", WHOLE)
def test_an_image_cut_short_anywhere_is_not_whole(name):
    data = WHOLE[name]
    for end in {*range(0, len(data) - 2, 7), len(data) - 2}:
        assert not images.is_whole(data[:end]), end


@given(name=st.sampled_from([name for name in WHOLE if name in ("png", "palette", "rgba")]), where=st.floats(0, 1),
       byte=st.integers(1, 255))
def test_a_byte_of_a_png_that_changed_is_found(name, where, byte):
    data = bytearray(WHOLE[name])
    data[int(where * (len(data) - 1))] ^= byte
    assert not images.is_whole(bytes(data)) or transforms.decode(bytes(data)).shape == (23, 37, 3)


@given(st.binary(max_size=100), st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBPVP8 ", b""]))
@settings(max_examples=300)
def test_any_bytes_are_judged(rest, start):
    assert not images.is_whole(start + rest)
    with pytest.raises(transforms.ImageError):
        images.check(start + rest)


def test_an_image_of_too_many_pixels_is_a_bomb_in_any_form():
    for form in ("JPEG", "PNG"):
        stream = io.BytesIO()
        Image.new("1" if form == "PNG" else "L", (9000, 9000)).save(stream, form)
        with pytest.raises(transforms.ImageError, match="image_bomb"):
            images.check(stream.getvalue())


def test_what_only_looks_whole_is_found_where_asked():
    data = WHOLE["jpeg"]
    looks = data[:data.index(b"\xff\xdb")] + data[data.index(b"\xff\xc0"):]         # without what its numbers mean
    images.check(looks)
    with pytest.raises(transforms.ImageError):
        images.check(looks, decode=True)


def test_an_image_is_made_smaller_by_its_short_side():
    wide, tall, small = (encode("PNG", size) for size in ((400, 300), (90, 200), (64, 100)))
    assert Image.open(io.BytesIO(images.shrink(wide, 64))).size == (85, 64)
    made = images.shrink(tall, 64)
    assert Image.open(io.BytesIO(made)).size == (64, 142) and made[:2] == b"\xff\xd8" and made == images.shrink(tall, 64)
    assert images.shrink(small, 64) is small
