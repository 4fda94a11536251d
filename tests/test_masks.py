"""Which part of an image is kept: by name, from a file, and as codes."""

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.errors import SmaltiError
from smalti.images.contact_sheets import captioned
from smalti.images.masks import NAMES, grey_out, named_mask, read_mask, to_grid


def test_names_keep_what_they_say():
    assert named_mask("left-half", 4).tolist() == [[True, True, False, False]] * 4
    assert torch.equal(named_mask("right-half", 4), ~named_mask("left-half", 4))
    assert torch.equal(named_mask("top-half", 4), named_mask("left-half", 4).T)
    assert torch.equal(named_mask("bottom-half", 4), ~named_mask("top-half", 4))
    assert named_mask("box", 4).nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert torch.equal(named_mask("frame", 4), ~named_mask("box", 4))
    for name in NAMES:
        mask = named_mask(name, 7)  # odd sizes too
        assert 0 < mask.sum() < 49


def test_a_code_is_kept_where_all_of_its_pixels_are():
    mask = torch.ones(8, 8, dtype=torch.bool)
    mask[3, 5] = False
    assert to_grid(mask, (4, 4)).logical_not().nonzero().tolist() == [[1, 2]]
    assert to_grid(mask, (8, 24), 3).logical_not().nonzero().tolist() == [[3, 15], [3, 16], [3, 17]]
    assert to_grid(mask, (4, 8), 2).logical_not().nonzero().tolist() == [[1, 4], [1, 5]]
    with pytest.raises(SmaltiError, match="keeps no whole code: each is 4x4 pixels"):
        to_grid(named_mask("left-half", 8) & torch.arange(8).ge(2), (2, 2))
    with pytest.raises(SmaltiError, match="a mask of 8x8 does not fit a grid of 3x3 codes"):
        to_grid(mask, (3, 3))


def test_a_mask_file_keeps_what_is_white(tmp_path):
    mask = np.zeros((6, 6), dtype=np.uint8)
    mask[:2] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert torch.equal(read_mask(str(tmp_path / "mask.png"), 6), torch.from_numpy(mask > 0))
    with pytest.raises(SmaltiError, match=r"mask is 6x6; this prior makes 8x8"):
        read_mask(str(tmp_path / "mask.png"), 8)
    with pytest.raises(SmaltiError, match="no such file"):
        read_mask(str(tmp_path / "none.png"), 6)


def test_greying_out_leaves_what_is_kept():
    image, mask = torch.rand(3, 8, 8), named_mask("box", 8)
    assert torch.equal(grey_out(image, mask)[:, mask], image[:, mask])
    assert not torch.equal(grey_out(image, mask)[:, ~mask], image[:, ~mask])


def test_captions_stand_under_their_images():
    items = [
        ("a caption that is far too long for its four small images", torch.zeros(4, 3, 8, 8)),
        ("b", torch.zeros(4, 3, 8, 8)),
    ]
    picture = np.asarray(captioned([("one", items), ("two", items[:1])], columns=2, zoom=2))
    black = (picture == 0).all(-1)
    assert black.sum() == 3 * 4 * 16 * 16  # the images, whole and not painted over
    assert (picture != 255).any(-1).sum() > black.sum() + 100  # and some letters
