"""shapes, schedules, configs, pixels, files, pictures."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from smalti.configs import Family, differences, from_dict, to_dict
from smalti.errors import SmaltiError
from smalti.files import atomic_path, read_json, read_tensors, write_json, write_tensors
from smalti.images.contact_sheets import before_after, grid, side_by_side
from smalti.images.pixels import (
    crop_to,
    pad_to_multiple,
    recolour_images,
    recolour_pixels,
    shrink,
    to_float,
    to_uint8,
)
from smalti.images.preprocessing import Reading
from smalti.images.reading import to_images
from smalti.recipes import RECIPES
from smalti.schedules import Schedule, constant, cosine, linear
from smalti.shapes import check_shape
from smalti.training.experiment import Experiment


def test_check_shape_states_both_shapes():
    check_shape(np.zeros((2, 3)), "B C", "x", C=3)
    with pytest.raises(SmaltiError, match=r"codes must be \(B, h, w\), not \(2, 3\)"):
        check_shape(np.zeros((2, 3)), "B h w", "codes")
    with pytest.raises(SmaltiError, match=r"x must be \(B, C=4\), not \(2, 3\)"):
        check_shape(np.zeros((2, 3)), "B C", "x", C=4)


def test_schedules_by_hand():
    assert [linear(0.0, 6.6, 0.5)(step, 6) for step in range(5)] == pytest.approx([0, 2.2, 4.4, 6.6, 6.6])
    assert cosine(1.0, 0.0)(1, 4) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert constant(3.0)(10**9, 10) == 3.0
    assert Schedule(kind="exponential", start=1.0, end=0.01)(1, 2) == pytest.approx(0.1)
    warm = cosine(2.0, 0.0, warmup=10)
    assert warm(0, 100) == pytest.approx(0.2) and warm(9, 100) < 2.0 and warm(100, 100) == 0.0
    assert warm(9, 1000) > 1.99  # a warm-up is counted in steps, the way in portions of the run
    with pytest.raises(SmaltiError, match=r"portion of the run in \(0, 1\], not 5500"):
        linear(0.0, 1.0, 5500)


@given(
    st.sampled_from(["linear", "cosine", "exponential"]),
    st.floats(0.01, 10),
    st.floats(0.01, 10),
    st.floats(0.001, 1),
    st.integers(1, 1000),
    st.integers(0, 2000),
)
def test_schedules_stay_between_their_ends(kind, start, end, portion, steps, step):
    value = Schedule(kind=kind, start=start, end=end, portion=portion)(step, steps)
    assert min(start, end) - 1e-9 <= value <= max(start, end) + 1e-9


@pytest.mark.parametrize("name", ["ae", "vae", "vqvae", "dvae", "mnist_vae"])
def test_experiments_survive_json(name, tmp_path):
    experiment = RECIPES[name](data="emoji")
    write_json(tmp_path / "a.json", to_dict(experiment))
    again = from_dict(Experiment, read_json(tmp_path / "a.json"))
    assert to_dict(again) == to_dict(experiment)
    assert differences(to_dict(again), to_dict(experiment)) == []


def test_configs_name_the_nearest_key_and_the_place():
    @dataclass(frozen=True)
    class Inner:
        width: int = 1

    @dataclass(frozen=True)
    class Outer:
        inner: Inner
        rate: float = 0.5

    Outer.__annotations__["inner"] = Inner
    assert from_dict(Outer, {"inner": {"width": 3}}) == Outer(Inner(3))
    for values, message in [
        ({"inner": {"wdth": 3}}, "config.inner: unknown key 'wdth'; did you mean 'width'"),
        ({}, "the key 'inner' is missing"),
        ({"inner": 3}, "expected an object with the keys of Inner, got 3"),
        ({"inner": {"width": "3"}}, "config.inner.width: expected int, got '3'"),
        ({"inner": {}, "rate": True}, "config.rate: expected float, got True"),
    ]:
        with pytest.raises(SmaltiError, match=message):
            from_dict(Outer, values)


def test_build_names_missing_and_unknown_keywords():
    class Member:
        def __init__(self, *, size: int, colour: str = "red"):
            self.size = size

    family = Family("thing", Member, a=Member)
    assert family.build({"kind": "a"}, size=2).size == 2
    for spec, message in [
        ({"kind": "b"}, "thing: unknown kind 'b'; known: a; if it is your own, name the file.*: --code FILE"),
        ({"size": 1}, "thing: the key 'kind' is missing; known: a"),
        ({"kind": "a", "size": 1, "color": "x"}, "thing: unknown key 'color'; did you mean 'colour'"),
        ({"kind": "a"}, "the key 'size' is missing"),
    ]:
        with pytest.raises(SmaltiError, match=message):
            family.build(spec)


def test_a_family_takes_members_of_its_own_kind_under_free_names():
    class Base(ABC):
        size: int

        @abstractmethod
        def work(self): ...

    class Member(Base):
        size = 3

        def work(self): ...

    class Other(Base):
        def work(self): ...

    family = Family("thing", Base, a=Member)
    family["b"] = Other
    family["a"] = Member  # its file was run again
    assert set(family) == {"a", "b"}
    for name, member, message in [
        ("a", Other, "there is a thing 'a' already, .*Member; choose another name"),
        ("c", Base, "thing 'c': Base does not define work"),
        ("c", dict, "thing 'c' must be a subclass of Base, not <class 'dict'>"),
        ("c", Other(), "must be a subclass of Base"),
    ]:
        with pytest.raises(SmaltiError, match=message):
            family[name] = member
    assert set(family) == {"a", "b"}
    assert family.build({"kind": "a"}).size == 3
    with pytest.raises(SmaltiError, match="thing 'b': Other does not set size"):
        family.build({"kind": "b"})


def test_differences_name_the_path():
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == ["a.b: 1 -> 3"]


# ------------------------------------------------------------------ pixels


def test_colour_becomes_grey_by_one_rule_for_bytes_and_one_for_floats():
    colours = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    red, green, blue = colours.astype(np.int64).transpose(3, 0, 1, 2)
    luma = (19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16
    assert np.array_equal(recolour_pixels(colours, 1)[..., 0], luma)
    assert np.array_equal(np.asarray(Image.fromarray(colours[0]).convert("L")), luma[0])
    floats = recolour_images(to_float(torch.from_numpy(colours)), 1)
    exact = (0.299 * red + 0.587 * green + 0.114 * blue) / 255
    np.testing.assert_allclose(floats[:, 0].numpy(), exact, atol=1e-6)
    assert (np.abs(floats[:, 0].numpy() * 255 - luma) < 0.51).all()


def test_every_way_to_read_bytes_gives_the_same_grey(tmp_path):
    colours = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    tensor = torch.from_numpy(colours).permute(2, 0, 1)
    ways = [tmp_path / "a.png", Image.fromarray(colours), colours, colours[None], tensor, tensor[None]]
    first, *others = [to_images(way, Reading(1))[0] for way in ways]
    assert first.shape == (1, 30, 40) and all(torch.equal(first, other) for other in others)


def test_grey_becomes_colour_by_repetition_and_nothing_else_changes():
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 3, 4, 1)
    images = to_float(torch.from_numpy(pixels))
    assert np.array_equal(recolour_pixels(pixels, 3), np.repeat(pixels, 3, axis=3))
    assert torch.equal(recolour_images(images, 3), images.repeat(1, 3, 1, 1))
    assert recolour_pixels(pixels, 1) is pixels and recolour_images(images, 1) is images


def test_uint8_survives_the_round_trip():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).repeat(1, 1, 1, 3)
    images = to_float(pixels)
    assert images.shape == (1, 3, 16, 16) and images.min() == 0 and images.max() == 1
    assert torch.equal(to_uint8(images), pixels)
    assert torch.equal(
        to_uint8(images * 3 - 1), (images * 3 - 1).clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1)
    )


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 2, 4, 8]))
def test_padding_is_cropped_back_exactly(height, width, stride):
    images = torch.rand(1, 1, height, width)
    padded = pad_to_multiple(images, stride)
    assert padded.shape[-2] % stride == 0 and padded.shape[-1] % stride == 0
    assert padded.shape[-2] - height < stride
    assert torch.equal(crop_to(padded, (height, width)), images)


def test_shrink_agrees_with_pillow():
    pixels = torch.randint(0, 256, (1, 64, 48, 3), dtype=torch.uint8)
    ours = shrink(pixels, (16, 12))[0].numpy().astype(int)
    theirs = np.array(Image.fromarray(pixels[0].numpy()).resize((12, 16), Image.Resampling.BICUBIC)).astype(int)
    assert abs(ours - theirs).max() <= 1


# ------------------------------------------------------------------ files


def test_atomic_path_leaves_the_old_file_when_something_goes_wrong(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_one_line_error(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": torch.zeros(3)})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(SmaltiError, match="cannot write .*a.safetensors: .*No space left on device.*; free some space"):
        write_tensors(path, {"x": torch.ones(3)})
    assert read_tensors(path)[0]["x"].sum() == 0
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_place_is_a_one_line_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SmaltiError, match="cannot write .*choose another place"):
        write_json(tmp_path / "file" / "below.json", {})


# ------------------------------------------------------------------ pictures


def test_grids_have_the_size_of_their_tiles():
    images = torch.rand(5, 3, 4, 6)
    assert grid(images, columns=3).size == (3 * 8 - 2, 2 * 6 - 2)
    assert before_after(images, images, columns=3, zoom=1).size == (3 * 8 - 2, 4 * 6 - 2)
    assert before_after(images, images, columns=16, zoom=1).size == (5 * 8 - 2, 2 * 6 - 2)
    assert side_by_side(Image.new("RGB", (4, 6)), Image.new("L", (5, 3))).size == (11, 6)
