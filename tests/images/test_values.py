"""Values of every type, and files of every kind, become the levels that numpy says."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import pixels_of
from smalti.data.batches import Pixels
from smalti.data.sources import open_data
from smalti.errors import SmaltiError
from smalti.images.errors import BadImage
from smalti.images.levels import suggested
from smalti.images.pixels import LUMA
from smalti.images.preprocessing import Preprocessing, Reading, range_of, size_of
from smalti.images.reading import fit, own_values, read_image, to_images, to_pil
from smalti.images.turning import METHODS, turned

RAMP = np.add.outer(np.arange(64), np.arange(64)) / 126  # 127 values from 0 to 1
RNG = np.random.default_rng(0)


def encoded(image, kind, **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def npy(values):
    np.save(file := io.BytesIO(), values)
    return file.getvalue()


def tiff(values, **options):
    import tifffile

    photometric = "rgb" if values.ndim == 3 and values.shape[2] in (3, 4) else "minisblack"
    contiguous = {"planarconfig": "contig"} if values.ndim == 3 else {}
    tifffile.imwrite(file := io.BytesIO(), values, photometric=photometric, **contiguous, **options)
    return file.getvalue()


def chunk(kind, body, wrong=0):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)


def png(values):
    """A PNG of 16 bits a value, with 1 to 4 bands."""
    height, width, bands = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def levels(values, low, high):
    return np.rint((np.clip(values.astype(np.float64), low, high) - low) / (high - low) * 255).astype(np.uint8)


# ------------------------------------------------------------------ scales


@pytest.mark.parametrize("write", [npy, tiff], ids=["npy", "tiff"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 13])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", ">u2", ">f4"])
def test_a_stated_range_is_black_and_white_for_every_type(kind, bands, write):
    values = RNG.uniform(0 if "u" in kind else -90, 100, (9, 7, bands)).astype(kind)
    found = pixels_of(write(values if bands > 1 else values[:, :, 0]), bands, value_range=(-90, 100))
    assert found.dtype == np.uint8 and np.array_equal(found, levels(values, -90, 100))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded((RAMP * 65535).astype(np.uint16), "PNG"), levels((RAMP * 65535).astype(np.uint16), 0, 65535)),
        (encoded((RAMP * 65535).astype(np.uint16), "TIFF"), levels((RAMP * 65535).astype(np.uint16), 0, 65535)),
        (encoded(Image.fromarray((RAMP * 65535).astype(np.uint16)), "PPM"), levels(RAMP, 0, 1)),
        (encoded(RAMP.astype(np.float32), "TIFF"), levels(RAMP.astype(np.float32), 0, 1)),
        (encoded(RAMP.astype(np.float32) / 3, "TIFF"), levels(RAMP.astype(np.float32) / 3, 0, 1)),
        (npy(RAMP), levels(RAMP, 0, 1)),
        (npy(RAMP > 0.5), levels(RAMP > 0.5, 0, 1)),
        (npy((RAMP * 200).astype(np.uint8)), (RAMP * 200).astype(np.uint8)),
        (npy(np.asfortranarray(RAMP * np.eye(64))), levels(RAMP * np.eye(64), 0, 1)),
        (encoded(RAMP > 0.5, "PNG"), levels(RAMP > 0.5, 0, 1)),
    ],
    ids=["png16", "tiff16", "pgm16", "float", "dark float", "npy", "bool", "npy8", "by column", "1 bit"],
)  # fmt: skip
def test_a_type_that_says_its_scale_needs_no_range(data, expected):
    assert np.abs(pixels_of(data, 1)[:, :, 0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("top", [1.1, 255, 256, 4095, 65535])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.int32, np.uint32, np.int64])
def test_what_does_not_say_its_scale_asks_for_it_in_one_line(kind, top):
    values = (RAMP * min(top, 32767) if kind is np.int16 else RAMP * top).astype(kind)
    with pytest.raises(BadImage, match=r"a\.npy: .* values from 0 to .*--value_range") as error:
        pixels_of(npy(values), 1, name="a.npy")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_two_files_of_a_data_set_never_get_different_scales():
    for brightest in (255.0, 256.0, 1000.0):
        found = pixels_of(npy((RAMP * brightest).astype(np.float32)), 1, value_range=(0, 1000))
        assert abs(int(found.max()) - round(brightest * 0.255)) <= 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(bad):
    values = RAMP.astype(np.float32)
    values[3, 3] = bad
    for options in ({}, {"value_range": (0, 1)}):
        for data in (encoded(values, "TIFF"), npy(values)):
            with pytest.raises(BadImage, match="NaN or infinite"):
                pixels_of(data, **options)


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_all_16_bits_of_a_colour_count(bands):
    values = RNG.integers(0, 4096, (9, 8, bands)).astype(np.uint16)
    if bands in (1, 3):
        assert np.array_equal(pixels_of(png(values), bands, value_range=(0, 4095)), levels(values, 0, 4095))
        whole = Image.open(io.BytesIO(png(values)))
        assert np.array_equal(pixels_of(whole, bands, value_range=(0, 4095)), levels(values, 0, 4095))
    values *= 16
    assert np.array_equal(pixels_of(png(values), bands), levels(values, 0, 65535))
    for order in "<>":
        for compression in (None, "zlib"):
            found = pixels_of(tiff(values.squeeze(), byteorder=order, compression=compression), bands)
            assert np.array_equal(found, levels(values, 0, 65535))


def test_the_maximum_of_a_pgm_is_white_unless_a_range_is_stated():
    for maximum, kind in ((4095, ">u2"), (65535, ">u2"), (100, "u1"), (255, "u1")):
        values = np.rint(RAMP * maximum).astype(kind)
        data = b"P5 64 64 %d\n" % maximum + values.tobytes()
        for options, top in (({}, maximum), ({"value_range": (0, maximum)}, maximum)):
            found = pixels_of(data, 1, **options)[:, :, 0].astype(int)
            assert np.abs(found - levels(values, 0, top)).max() <= 1
        assert pixels_of(data, 1, value_range=(0, 2 * maximum)).max() in (127, 128)


def test_transparent_16_bits_are_laid_on_white():
    values = np.full((2, 2, 4), 65535, np.uint16)
    values[..., :3], values[0, :, 3] = 30000, 0
    assert pixels_of(png(values))[:, :, 0].tolist() == [[255, 255], [117, 117]]
    assert pixels_of(png(values[..., [0, 3]]))[:, :, 0].tolist() == [[255, 255], [117, 117]]


def test_few_levels_and_clipped_values_are_said_with_the_remedy(tmp_path):
    twelve = png((RAMP[:, :, None] * 4095).astype(np.uint16))
    with pytest.warns(UserWarning, match="keeps 17 levels of its 127 values.*--value_range=0:4095"):
        pixels_of(twelve)
    with pytest.warns(UserWarning, match=r"outside 0:2000 and were clipped"):
        pixels_of(twelve, value_range=(0, 2000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels_of(twelve, value_range=(0, 4095))
        pixels_of(encoded((RAMP * 20).astype(np.uint8), "PNG"))  # has few, and keeps them
    for index in range(5):
        (tmp_path / f"{index}.png").write_bytes(twelve)
    for memory in (1 << 20, 0):
        with pytest.warns(UserWarning) as said:
            list(Pixels(open_data(tmp_path), Preprocessing(image_size=8), memory_bytes=memory).in_order(5))
        assert [str(one.message)[:37] for one in said] == ["5 images keep few of their levels; th"]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0, 4000, "0:4095"),
        (0, 255, "0:255"),
        (-3.2, 7, "-4:7"),
        (0, 1.5, "0:1.5"),
        (5, 5, "0:7"),
        (-0.001, 1.0000004, "-0.01:1.01"),
    ],
)
def test_the_suggested_range_holds_the_values(low, high, text):
    assert suggested(low, high) == text and range_of(text)[0] <= low and high <= range_of(text)[1]


@pytest.mark.parametrize("text", ["", "5", "5:", ":5", "5:5", "7:3", "a:b", "0:inf", "nan:1", "0:1:2", "-1e308:1e308"])
def test_a_range_is_two_numbers(text):
    with pytest.raises(SmaltiError, match="value_range must be LOW:HIGH"):
        Preprocessing(value_range=text)


# ------------------------------------------------------------------ kinds of files and of images

MODES = [
    "1",
    "L",
    "P",
    "RGB",
    "RGBA",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "LA",
    "La",
    "RGBX",
    "RGBa",
    "PA",
    "I;16",
    "I;16B",
    "I;16L",
    "F",
]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_is_read(mode):
    image = Image.new(mode, (5, 4))
    for channels in (1, 3):
        assert pixels_of(image, channels).shape == (4, 5, channels)
    bands = {"PA": 4, "P": 3, "YCbCr": 3, "LAB": 3, "HSV": 3}.get(mode, len(image.getbands()))
    assert pixels_of(image, bands).shape == (4, 5, bands)
    for channels in {2, 4, 5} - {bands}:
        with pytest.raises(BadImage, match=rf"where {channels} are asked for"):
            pixels_of(image, channels)


@pytest.mark.parametrize("tag", METHODS)
def test_arrays_are_turned_as_pictures_are(tag):
    pixels = RNG.integers(0, 256, (3, 5, 3), dtype=np.uint8)
    assert np.array_equal(turned(pixels, tag), np.asarray(Image.fromarray(pixels).transpose(METHODS[tag])))


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 7, 9, 10, 11, 12])
def test_of_exif_only_the_orientation_is_read(kind):
    turn = struct.pack(">HHIHH", 0x112, 3, 1, 6, 0)
    body = b"Exif\0\0MM\0\x2a" + struct.pack(">IH", 8, 2) + turn + struct.pack(">HHI", 0x11A, kind, 9) + b"\1\2\3\4" * 9
    data = encoded(RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8), "JPEG")
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    for at_least in (None, 8, (4, 8)):
        height, width, _ = pixels_of(data, at_least=at_least).shape
        assert height > width


PICTURE = Image.fromarray(RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((128, 96))
PNG, JPEG = encoded(PICTURE, "PNG"), encoded(PICTURE, "JPEG")
TEXT = b"key\0" + b"text " * 10


@pytest.mark.parametrize(
    "damaged",
    [
        PNG[:33] + chunk(b"tEXt", TEXT, 1) + PNG[33:],
        PNG[:-12] + chunk(b"tEXt", TEXT, 1) + PNG[-12:],
        PNG[:33] + chunk(b"gAMA", b"\0\0\0\1", 1) + PNG[33:],
        PNG[:33] + chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(1 << 20))) * 70 + PNG[33:],
        PNG[:33] + chunk(b"zTXt", b"key\0\0not deflated") + PNG[33:],
        PNG[:-12], PNG[:-3], JPEG[:-2], JPEG[:-1], encoded(PICTURE, "JPEG", progressive=True)[:-2],
    ],
    ids=["checksum", "behind", "gamma", "texts", "deflate", "end", "tail", "eoi", "half", "progressive"],
)  # fmt: skip
def test_a_whole_picture_is_read_whatever_is_wrong_beside_it(damaged):
    if damaged.startswith(PNG[:4]):
        assert np.array_equal(pixels_of(damaged), np.asarray(PICTURE))
    else:
        assert np.array_equal(pixels_of(damaged), pixels_of(damaged.removesuffix(b"\xff") + b"\xff\xd9"))
    assert pixels_of(damaged, at_least=20).shape[2] == 3


@pytest.mark.parametrize("cut", [3, 4, 7, 40, 400])
def test_a_picture_without_its_end_is_refused(cut):
    for data in (JPEG, encoded(PICTURE, "JPEG", progressive=True), PNG[:-60]):
        with pytest.raises(BadImage, match="cut off or damaged"):
            pixels_of(data[:-cut], at_least=20)


def test_a_long_strip_in_a_short_file_is_refused_before_it_is_decoded():
    tags = [
        (256, 31),
        (257, 4259844),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 4259844),
        (279, 132055164),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(1500)
    with pytest.raises(BadImage, match="too many pixels for so short a file"):
        pixels_of(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((b"(64, 64)", b"(1<<9,1)"), "cut off or damaged"),
        ((b"(64, 64)", b"(6400,9)"), "are announced"),
        ((b"(64, 64)", b"(-4, 64)"), "images are"),
        ((b"(64, 64)", b"(4096, )"), "images are"),
        ((b"<f8", b"|O8"), "values of type object|cut off"),
        ((b"<f8", b"<c8"), "values of type complex64"),
        ((b"<f8", b"<M8"), "values of type datetime"),
        ((b"NUMPY\1", b"NUMPY\7"), "version|cut off"),
    ],
)
def test_an_array_file_is_checked_by_its_header(change, message):
    with pytest.raises(BadImage, match=message):
        pixels_of(npy(RAMP).replace(*change), 1)


@pytest.mark.parametrize("cut", [1, 100, 300])
def test_bands_that_are_missing_are_not_taken_for_black(cut):
    data = tiff(RNG.integers(0, 256, (20, 20, 5), dtype=np.uint8), rowsperstrip=2)
    with pytest.raises(BadImage, match="cut off or damaged"):
        pixels_of(data[:-cut], 5)


# ------------------------------------------------------------------ what a model is given


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
