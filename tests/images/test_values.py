"""Values of every type become the levels that numpy says."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from conftest import pixels_of
from images.encoded import RAMP, encoded, levels, npy, png, tiff
from smalti.data.batches import Pixels
from smalti.data.sources import open_data
from smalti.errors import SmaltiError
from smalti.images.errors import BadImage
from smalti.images.levels import suggested
from smalti.images.preprocessing import Preprocessing, range_of

RNG = np.random.default_rng(0)


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
