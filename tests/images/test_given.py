"""What a model is given, of every size, and images that keep the values that they have."""

import io
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import pixels_of
from images.encoded import RAMP, chunk, encoded, levels, npy, tiff
from smalti.errors import SmaltiError
from smalti.images.errors import BadImage
from smalti.images.pixels import LUMA
from smalti.images.preprocessing import Preprocessing, Reading, size_of
from smalti.images.reading import fit, own_values, read_image, to_images, to_pil

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((0, 0, 3), np.uint8), "at least one pixel"),
        (torch.zeros(3, 0, 5), "at least one pixel"),
        (np.zeros((5, 5, 3), object), "values of type object"),
        (np.zeros((5, 5, 3), np.complex64), "values of type complex64"),
        (torch.zeros(3, 5, 5, dtype=torch.complex64), "values of type complex64"),
        (np.zeros((5, 5, 3), "datetime64[s]"), "values of type datetime64"),
        (np.full((5, 5, 3), np.nan), "must lie in"),
        (torch.full((3, 5, 5), 255.0), "must lie in"),
        (torch.rand(3, 5, 5) * 2 - 1, "must lie in"),
        (torch.full((3, 5, 5), 200), "--value_range"),
        (np.full((5, 5, 3), 200, np.int32), "--value_range"),
        (np.zeros((5, 5, 4), np.uint8), "4 bands where 3"),
        (torch.zeros(2, 5, 5), "2 bands where 3"),
        (np.zeros(5, np.uint8), "tensors, or"),
        (torch.zeros(5, 5), "tensors, or"),
        (3.5, "cannot read an image from float"),
        (torch.zeros(3, 5, 5).to_sparse(), "give a dense one"),
        (torch.zeros(3, 5, 5, device="meta"), "give a dense one"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(value, message):
    with pytest.raises(SmaltiError, match=message) as error:
        to_images(value, Reading())
    assert "\n" not in str(error.value)


def test_integers_of_more_bits_are_scaled_as_a_file_would_be():
    sixteen = (RAMP * 65535).astype(np.uint16)
    assert np.array_equal(own_values(sixteen, Reading()).numpy()[0], levels(sixteen, 0, 65535))
    stated = Reading(1, value_range=(0, 100))
    assert to_images(torch.full((1, 2, 2), 50), stated)[0].mul(255).round().unique().item() == 128
    assert to_images(np.full((2, 2), 50, np.uint8), stated)[0].unique().item() == pytest.approx(50 / 255)  # as it is
    assert to_images(np.full((2, 2), True), Reading(1))[0].unique().item() == 1


def test_of_many_bands_the_first_are_shown():
    for channels, mode in ((1, "L"), (2, "L"), (3, "RGB"), (4, "RGB"), (13, "RGB")):
        images = torch.rand(channels, 4, 5)
        (shown,) = to_pil(images)
        assert shown.mode == mode and np.asarray(shown).reshape(4, 5, -1)[2, 3, 0] == round(
            images[0, 2, 3].item() * 255
        )


# ------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    ("given", "size", "stored"),
    [(32, (32, 32), 32), ("32", (32, 32), 32), ("16x32", (16, 32), "16x32"), ("8X8", (8, 8), 8)],
)
def test_a_size_is_a_side_or_height_and_width(given, size, stored):
    preprocessing = Preprocessing(image_size=given)
    assert preprocessing.size == size and preprocessing.image_size == stored
    assert preprocessing.num_dims == 3 * size[0] * size[1]


@pytest.mark.parametrize("given", [0, -1, "", "x", "16x", "16x16x3", "1.5", True, None, "16x0", "²"])
def test_another_size_is_refused(given):
    with pytest.raises(SmaltiError, match="image_size must be a side in pixels or HEIGHTxWIDTH"):
        size_of(given)


@pytest.mark.parametrize(
    ("shape", "size", "kept"),
    [
        ((10, 30), (8, 16), (slice(0, 10), slice(5, 25))),
        ((30, 10), (8, 16), (slice(12, 17), slice(0, 10))),
        ((16, 32), (4, 8), (slice(0, 16), slice(0, 32))),
        ((32, 64), (16, 8), (slice(0, 32), slice(24, 40))),
        ((20, 31), 10, (slice(0, 20), slice(5, 25))),
    ],
)
def test_the_largest_centre_of_the_form_is_kept(shape, size, kept):
    pixels = RNG.integers(0, 256, (*shape, 5), dtype=np.uint8)
    found = fit(pixels, size)
    assert found.shape == (*((size, size) if isinstance(size, int) else size), 5)
    assert np.array_equal(found, fit(np.ascontiguousarray(pixels[kept]), size))


@pytest.mark.parametrize(
    "values",
    [
        (RAMP * 4095).astype(np.uint16),
        (RAMP * 255).astype(np.float32),
        (RAMP * 1.1).astype(np.float32),
        (RAMP * 2000 - 1000).astype(np.int16),
        (RAMP * 1e6).astype(np.int32),
        (RAMP * 255).astype(np.uint8),
    ],
)
def test_an_image_is_read_with_the_values_that_it_has(values):
    """No scale is guessed, so that none is lost."""
    for data in (npy(values), tiff(values)):
        for channels in (1, 3):
            found = read_image(data, channels)
            assert found.dtype.kind == values.dtype.kind and np.array_equal(
                found, np.repeat(values[:, :, None], channels, 2)
            )


@pytest.mark.parametrize("kind", ["uint8", "<f4", ">f4", "<i8", ">u2", "?"])
def test_what_is_read_can_be_written_to(kind):
    found = read_image(npy(np.asfortranarray(RAMP[:5, :7] * 100).astype(kind)), 1)
    assert found.flags.writeable and found.flags.c_contiguous and found.dtype.isnative


@pytest.mark.parametrize("value", [None, 3, np.zeros((4, 4, 3), np.uint8), bytearray(b"x"), io.BytesIO(b"x")])
def test_what_is_neither_a_file_nor_a_picture_is_named(value):
    with pytest.raises(BadImage, match=f"cannot read an image from {type(value).__name__}: give a path"):
        read_image(value)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_colour_is_laid_on_white_or_is_a_band(mode):
    picture = Image.fromarray(RNG.integers(0, 200, (5, 6, 3), dtype=np.uint8)).convert(mode)
    clear = picture.getpixel((2, 1))
    data, bands = encoded(picture, "PNG", transparency=clear), len(mode)
    expected = np.array(picture).reshape(5, 6, bands)
    is_clear = (expected == clear).all(-1, keepdims=True)
    assert np.array_equal(read_image(data, bands), np.where(is_clear, 255, expected))
    assert np.array_equal(read_image(data, bands + 1)[..., -1:], np.where(is_clear, 0, 255))


@pytest.mark.parametrize("maximum", [1000, 4095, 65535])
def test_a_ppm_of_16_bits_keeps_them(maximum):
    values = RNG.integers(0, 201, (5, 6, 3)).astype(">u2")  # what 8 bits do not tell apart
    data = b"P6 6 5 %d\n" % maximum + values.tobytes()
    assert np.array_equal(read_image(data), np.rint(values * (65535 / maximum)).astype(np.uint16))
    assert np.array_equal(pixels_of(data, value_range=(0, 200)), levels(values, 0, 200))
    with pytest.raises(BadImage, match="cut off"):
        read_image(data[:-1])


@pytest.mark.parametrize(
    "body", [b"junk", b"a\0\0" + zlib.compress(bytes(9)), b"a\0\0" + zlib.compress(bytes(70 << 20))]
)
def test_a_broken_profile_says_nothing_against_the_picture(body):
    picture = RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    data = encoded(picture, "PNG")
    assert np.array_equal(read_image(data[:33] + chunk(b"iCCP", body) + data[33:]), picture)


def test_deep_colours_become_grey_by_their_luma():
    values = RNG.integers(0, 65536, (5, 6, 3)).astype(np.uint16)
    assert np.array_equal(read_image(npy(values), 1)[..., 0], np.rint(values @ np.array(LUMA)).astype(np.uint16))


def test_values_that_are_no_numbers_are_refused():
    values = (RAMP * 100).astype(np.float32)
    values[3, 3] = np.nan
    with pytest.raises(BadImage, match="NaN or infinite"):
        read_image(tiff(values))
