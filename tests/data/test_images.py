"""Files of every kind and every way to be broken."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import draw_image, pixels_of
from smalti.errors import SmaltiError
from smalti.images.reading import BadImage, fit

RGB = draw_image(5, (20, 30))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_rgb_png_is_read_exactly():
    assert np.array_equal(pixels_of(encoded(Image.fromarray(RGB))), RGB)


def test_grey_becomes_three_equal_channels_and_back():
    grey = RGB[:, :, 0]
    assert np.array_equal(pixels_of(encoded(Image.fromarray(grey))), np.repeat(grey[:, :, None], 3, axis=2))
    assert np.array_equal(pixels_of(encoded(Image.fromarray(grey)), channels=1)[:, :, 0], grey)


def test_palette_is_resolved():
    image = Image.fromarray(RGB).quantize(8)
    assert np.array_equal(pixels_of(encoded(image)), np.array(image.convert("RGB")))


def test_transparency_lies_on_white():
    rgba = np.zeros((2, 2, 4), dtype=np.uint8)
    rgba[0, 0] = (255, 0, 0, 255)
    result = pixels_of(encoded(Image.fromarray(rgba)))
    assert result[0, 0].tolist() == [255, 0, 0] and result[1, 1].tolist() == [255, 255, 255]


def test_palette_with_a_transparent_colour_lies_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert pixels_of(encoded(image, transparency=0))[0].tolist() == [[255, 255, 255], [0, 0, 255]]


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    assert pixels_of(encoded(Image.fromarray(RGB), "JPEG", exif=exif)).shape == (30, 20, 3)


def test_sixteen_bits_are_scaled_to_eight():
    values = np.array([[0, 65535], [32896, 257]], dtype=np.uint16)
    assert pixels_of(encoded(Image.fromarray(values)))[:, :, 0].tolist() == [[0, 255], [128, 1]]


def test_cmyk_and_one_bit_images_are_read():
    assert pixels_of(encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG")).shape == RGB.shape
    assert set(np.unique(pixels_of(encoded(Image.fromarray(RGB).convert("1"))))) <= {0, 255}


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    assert pixels_of(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))[0, 0].tolist() == [255, 0, 0]


def test_every_truncation_is_a_bad_image_or_the_whole_picture():
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        data = encoded(Image.fromarray(RGB), kind)
        for length in range(0, len(data), 37):
            try:
                assert pixels_of(data[:length]).shape == RGB.shape
            except BadImage as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes"),
        (b"hello, I am text", "not an image"),
        (encoded(Image.fromarray(RGB))[:60], "cut off or damaged"),
    ],
)
def test_bad_bytes_say_what_is_wrong(data, message, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(BadImage, match=rf"a\.png: .*{message}"):
        pixels_of(path)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(BadImage, match="none.png: no such file"):
        pixels_of(tmp_path / "none.png")
    os.mkfifo(tmp_path / "pipe.png")
    for endless in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(BadImage, match="no regular file; save what it gives as one"):
            pixels_of(endless)
    with pytest.raises(BadImage, match="a folder where an image was expected"):
        pixels_of(tmp_path)


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [15_000, 60_000])
def test_decompression_bombs_are_refused_before_they_are_decoded(side):
    with pytest.raises(BadImage, match="pixels"):
        pixels_of(png_that_claims(side, side))


def test_fit_takes_the_centre_square():
    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    pixels[:, 10:20] = 255
    assert (fit(pixels, 10) == 255).all()
    assert fit(RGB, 8).shape == (8, 8, 3)


def test_bad_image_is_a_smalti_error():
    assert issubclass(BadImage, SmaltiError)
