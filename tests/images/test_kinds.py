"""Files of every kind are read whole or refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from conftest import pixels_of
from images.encoded import RAMP, chunk, encoded, npy, tiff
from smalti.images.errors import BadImage
from smalti.images.turning import METHODS, turned

RNG = np.random.default_rng(0)
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
