"""Random-resized crops: windows that lie in their images, none coarser than its file, the same at every call."""

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import draw_image
from smalti.data.batches import Batches, Pixels
from smalti.data.crops import Crops, Window, open_pixels
from smalti.data.sources import open_data
from smalti.errors import SmaltiError
from smalti.images.preprocessing import Preprocessing
from smalti.images.reading import fit, largest_window
from smalti.recipes import vqvae

SIZES = [(12, 16), (16, 16), (24, 16)]


def folder_of(folder, images):
    (folder / "train").mkdir(parents=True, exist_ok=True)
    for index, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / "train" / f"{index:02}.png")
    return folder


def crops_of(folder, size=16, smallest=0.5, **options):
    source = open_data(folder, "train")
    return Crops(source, Preprocessing(image_size=f"{size[0]}x{size[1]}" if isinstance(size, tuple) else size),
                 smallest=smallest, **options)  # fmt: skip


def batch_of(pixels, step=0, **options):
    return Batches(pixels, 4, **{"seed": 0, "augment": "crop", **options}).batch(step)


@pytest.fixture
def photos(tmp_path):
    sizes = [(40, 40), (40, 64), (60, 33), (16, 90), (9, 11), (24, 16)]
    return folder_of(tmp_path / "photos", [draw_image(index, size) for index, size in enumerate(sizes)])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("image", [(40, 40), (31, 90), (200, 17), (16, 16), (5, 7), (1, 1)])
def test_windows_lie_in_the_image_and_enlarge_nothing(image, size):
    rng, tall = np.random.default_rng(0), largest_window(image, size)
    found = [Window.at_random(image, size, 0.4, rng.random(4)) for _ in range(300)]
    for window in found:
        assert 0 <= window.top <= window.top + window.height <= image[0]
        assert 0 <= window.left <= window.left + window.width <= image[1]
        assert window.height >= min(image[0], size[0]) and window.width >= min(image[1], size[1])
    if min(image[0] - size[0], image[1] - size[1]) > 10:  # there is a choice
        areas = np.array([window.height * window.width / np.prod(tall) for window in found])
        forms = np.array([window.width / window.height * size[0] / size[1] for window in found])
        assert areas.min() < 0.55 and areas.max() > 0.85 and areas.max() < 1.1
        assert forms.min() < 0.85 and forms.max() > 1.15
        for place, side in ((0, 2), (1, 3)):  # both ends are reached
            ends = (
                [window[place] == 0 for window in found],
                [window[place] + window[side] == image[place] for window in found],
            )
            assert any(ends[0]) and any(ends[1])


@pytest.mark.parametrize("size", SIZES)
def test_a_constant_image_stays_constant(tmp_path, size):
    colours = [(0, 0, 0), (255, 255, 255), (7, 130, 251)]
    folder = folder_of(tmp_path, [np.full((50, 70, 3), colour, np.uint8) for colour in colours])
    batch = batch_of(crops_of(folder, size))
    assert batch.shape == (4, *size, 3)
    assert {tuple(pixel) for pixel in batch.view(-1, 3).tolist()} <= set(colours)


def test_every_pixel_comes_from_the_image(tmp_path):
    """A ramp over rows and columns: neighbours in a crop are neighbours in the image, and left-right is the flip."""
    ramp = np.stack(np.broadcast_arrays(np.arange(80)[:, None] * 3, np.arange(80) * 3, 0), axis=-1).astype(np.uint8)
    pixels = crops_of(folder_of(tmp_path, [ramp, ramp]), 16)
    flips = 0
    for step in range(20):
        for crop in batch_of(pixels, step).long().numpy():
            down, across = np.diff(crop[..., 0], axis=0), np.diff(crop[..., 1], axis=1)
            flips += across.mean() < 0
            assert down.min() >= 0 and (np.abs(across).min() >= 0) and np.ptp(np.sign(across[across != 0])) == 0
            assert np.ptp(crop[..., 0], axis=1).max() <= 1 and np.ptp(crop[..., 1], axis=0).max() <= 1
            assert 0.6 * 240 < np.ptp(crop[..., 0]) <= 240 and 0.6 * 240 < np.ptp(crop[..., 1]) <= 240
    assert 20 < flips < 60


@pytest.mark.parametrize("size", SIZES)
def test_without_room_for_another_window_a_crop_is_the_plain_resize(tmp_path, size):
    """Of images as large as the training's, and where no smaller window is allowed."""
    folder = folder_of(tmp_path, [draw_image(index, size) for index in range(5)])
    plain = Pixels(
        open_data(folder, "train"), crops_of(folder, size).source and Preprocessing(image_size=f"{size[0]}x{size[1]}")
    )
    whole = {image.tobytes() for image in plain.gather(range(5))}
    mirrored = {np.ascontiguousarray(image[:, ::-1]).tobytes() for image in plain.gather(range(5))}
    for image in batch_of(crops_of(folder, size)).numpy():
        assert image.tobytes() in whole | mirrored
    larger = folder_of(tmp_path / "larger", [draw_image(index, (size[0] * 3, size[1] * 3)) for index in range(5)])
    pixels = crops_of(larger, size, smallest=1.0)
    expected = Pixels(open_data(larger, "train"), Preprocessing(image_size=f"{size[0]}x{size[1]}"))
    assert np.array_equal(pixels.gather(range(5)), expected.gather(range(5)))
    whole = {image.tobytes() for image in expected.gather(range(5))}
    whole |= {np.ascontiguousarray(image[:, ::-1]).tobytes() for image in expected.gather(range(5))}
    assert all(image.tobytes() in whole for image in batch_of(pixels).numpy())


def test_images_are_held_in_their_own_form_as_large_as_windows_need(photos):
    pixels = crops_of(photos, 16, smallest=0.25)
    assert pixels.held_size == (32, 32)
    assert [image.shape[:2] for image in pixels.memory] == [(32, 32), (32, 51), (58, 32), (16, 90), (9, 11), (24, 16)]
    assert np.array_equal(pixels.gather([0]), fit(pixels.memory[0], (16, 16))[None])


def test_streamed_crops_equal_those_in_memory(photos):
    held, streamed = crops_of(photos), crops_of(photos, memory_bytes=0)
    assert held.memory is not None and streamed.memory is None
    iterator = Batches(streamed, 4, seed=3, augment="crop", workers=2).iterate(5)
    ahead = Batches(held, 4, seed=3, augment="crop", workers=2).iterate(5)
    for step in (5, 6, 7):
        batch = batch_of(held, step, seed=3)
        assert torch.equal(next(iterator), batch) and torch.equal(next(ahead), batch)
    assert not torch.equal(batch_of(held, 5), batch_of(held, 6))
    assert not torch.equal(batch_of(held, rank=0, world=2), batch_of(held, rank=1, world=2))


def test_more_than_fits_is_streamed(tmp_path):
    """A wide image is held larger than its form in training says: it counts when it is read."""
    folder = folder_of(tmp_path, [draw_image(index, (32, 320)) for index in range(3)])
    room = 3 * 3 * 32 * 32
    assert crops_of(folder, 16, smallest=0.25, memory_bytes=room).memory is None
    assert crops_of(folder, 16, smallest=0.25, memory_bytes=10 * room).memory is not None


def test_what_makes_no_sense_is_refused(photos):
    with pytest.raises(SmaltiError, match="crop_area 0.5 has no effect without augment crop"):
        vqvae(crop_area=0.5)
    with pytest.raises(SmaltiError, match="crop_area is a share, above 0 and at most 1, not 1.5"):
        vqvae(augment="crop", crop_area=1.5)
    with pytest.raises(SmaltiError, match="crop makes new pixels each time; give --binarize dynamic"):
        open_pixels(open_data(photos), Preprocessing(image_size=16, binarize="fixed"), 0.5)
    assert vqvae(augment="crop").crop_area == 0.5 and vqvae(augment="flip").crop_area is None
