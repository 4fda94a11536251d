"""Each number rises with the artefact that it is meant for, and the known patterns have their known values."""

import pytest
import torch
import torch.nn.functional as F

import reference
from conftest import draw_image
from smalti.evaluation.artefacts import border_ratio, period2_energy, ring_error, sharpness
from smalti.images.pixels import to_float

STRIDE = 8
STRENGTHS = (0.0, 0.25, 0.5, 1.0)


@pytest.fixture(scope="module")
def images():
    import numpy as np

    pixels = torch.from_numpy(np.stack([draw_image(index, (32, 40)) for index in range(6)]))
    return to_float(pixels) * 0.6 + 0.2 + 0.05 * torch.rand(6, 3, 32, 40, generator=torch.Generator().manual_seed(0))


def value(ratio):
    return (ratio[0].sum() / ratio[1].sum()).item()


def checkerboard(images, strength):
    sign = 1 - 2 * ((torch.arange(images.shape[2])[:, None] + torch.arange(images.shape[3])) % 2)
    return images + 0.15 * strength * sign


def blocks(images, strength):
    return images.lerp(F.interpolate(F.avg_pool2d(images, STRIDE), scale_factor=STRIDE), strength)


def blur(images, strength):
    return images.lerp(F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), 5, stride=1), strength)


def frame(images, strength):
    dark = images * (1 - 0.5 * strength)
    return torch.where(F.pad(torch.ones_like(images[..., 1:-1, 1:-1]), (1, 1, 1, 1)).bool(), images, dark)


def numbers(images, shown):
    error = 0.01 * torch.rand(shown.shape, generator=torch.Generator().manual_seed(1))
    return {
        "border": value(border_ratio(shown, STRIDE)),
        "period2": value(period2_energy(shown)),
        "ring": value(ring_error(images, shown + error)),
        "blur": 1 / value(sharpness(images, shown)),
    }


MEANT = {blocks: "border", checkerboard: "period2", frame: "ring", blur: "blur"}


@pytest.mark.parametrize("damage", MEANT, ids=lambda damage: damage.__name__)
def test_the_number_that_is_meant_for_a_damage_rises_with_it_and_by_no_other_more(damage, images):
    name = MEANT[damage]
    curve = [numbers(images, damage(images, strength))[name] for strength in STRENGTHS]
    assert curve == sorted(set(curve))
    at_full = {other: numbers(images, other(images, 1.0))[name] for other in MEANT}
    assert max(at_full, key=at_full.__getitem__) is damage


def test_known_patterns_have_their_known_values():
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    noise = torch.rand(4, 3, 64, 64)
    assert value(period2_energy(ramp)) == pytest.approx(0, abs=1e-6)
    assert value(period2_energy(noise)) == pytest.approx(3, rel=0.02)
    assert value(period2_energy(checkerboard(torch.zeros(1, 3, 8, 8), 1.0))) == pytest.approx(4)
    assert value(border_ratio(ramp, 8)) == pytest.approx(1, rel=1e-4)
    assert value(border_ratio(noise, 8)) == pytest.approx(1, rel=0.05)
    assert value(sharpness(noise, noise)) == 1
    assert value(ring_error(torch.zeros_like(noise), noise)) == pytest.approx(1, rel=0.05)


def test_a_checkerboard_is_no_sharpness(images):
    assert value(sharpness(images, checkerboard(images, 1.0))) == pytest.approx(1, rel=1e-5)


def test_they_equal_the_numpy_reference(images):
    for image in images:
        pixels = image.double().numpy()
        assert value(period2_energy(image[None])) == pytest.approx(
            reference.second_over_first_differences(pixels), rel=1e-4
        )
        for stride in (4, 8):
            expected = reference.jumps_at_borders(pixels, stride)
            assert value(border_ratio(image[None], stride)) == pytest.approx(expected, rel=1e-4)


def test_where_there_are_no_borders_there_is_no_ratio(images):
    assert border_ratio(images, 1) is None and border_ratio(images[..., :8, :8], 8) is None


def test_constant_images_give_no_nan(images):
    from smalti.evaluation.spread import PerImage

    flat = torch.full_like(images, 0.5)
    measured = PerImage()
    measured.add(border=border_ratio(flat, 8), period2=period2_energy(flat), sharpness=sharpness(flat, flat))
    for name in measured:
        assert measured.value(name) == 0 and measured.spread(name) == 0
