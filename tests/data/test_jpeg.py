"""JPEG at reduced size: both decoders give the same pixels, and only plain files take the quick way."""

import io

import numpy as np
import pytest
from PIL import Image

from conftest import pixels_of
from smalti.images import jpeg
from smalti.images.reading import BadImage, fit

MOST = 10**8


def photograph(height: int, width: int) -> Image.Image:
    """Smooth shapes with some grain."""
    rng = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(9 * x * (1 + band) + 5 * y * y) for band in range(3)]
    grain = rng.normal(0, 0.05, (height, width, 3))
    return Image.fromarray(np.clip(127 + 100 * (np.stack(waves, 2) + grain), 0, 255).astype(np.uint8))


def as_jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90} | options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("size", "at_least", "result"),
    [((64, 48), 48, (64, 48)), ((64, 48), 24, (32, 24)), ((65, 97), 33, (33, 49)), ((400, 800), 50, (50, 100)),
     ((30, 400), 100, (30, 400)), ((64, 64), 1, (8, 8))],
)  # fmt: skip
def test_no_side_becomes_smaller_than_asked_for(size, at_least, result):
    assert pixels_of(as_jpeg(photograph(*size)), at_least=at_least).shape == (*result, 3)


@pytest.mark.skipif(jpeg.simplejpeg is None, reason="simplejpeg is not installed")
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}])
@pytest.mark.parametrize("at_least", [8, 20, 40, 200])
def test_both_decoders_give_the_same_pixels(options, at_least, monkeypatch):
    data = as_jpeg(photograph(83, 131), **options)
    quick = jpeg.decode(data, 3, at_least, MOST)
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    slow = pixels_of(data, at_least=at_least)
    assert quick is not None
    assert np.abs(quick.astype(int) - slow).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_mode_is_read_as_it_is_when_whole(mode, channels):
    data = as_jpeg(photograph(40, 56).convert(mode))
    whole, reduced = pixels_of(data, channels), pixels_of(data, channels, at_least=40)
    assert reduced.shape == (40, 56, channels)
    assert np.abs(whole.astype(int) - reduced).max() <= 1


def test_a_turned_photograph_is_turned_after_reduction():
    exif = Image.Exif()
    exif[0x112] = 6
    data = as_jpeg(photograph(64, 96), exif=exif)
    assert jpeg.decode(data, 3, 16, MOST) is None
    assert pixels_of(data, at_least=16).shape == (24, 16, 3)


def test_reduction_is_close_to_a_resize():
    image = photograph(256, 256)
    data = as_jpeg(image, quality=95)
    far = fit(pixels_of(data), 64).astype(int) - fit(pixels_of(data, at_least=64), 64)
    assert np.abs(far).mean() < 3


def test_damage_is_found_in_the_long_way():
    data = as_jpeg(photograph(64, 64))
    with pytest.raises(BadImage, match="cut off"):
        pixels_of(data[: len(data) // 2], at_least=8)
    assert jpeg.decode(b"\xff\xd8\xff nothing", 3, 8, MOST) is None
    assert jpeg.decode(data, 3, 8, 64 * 64 - 1) is None
