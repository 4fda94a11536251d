"""Models that the original code answered for: their tensors become ours, and ours give the same codes and pixels."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from golden_models import NAMES, read, weights

import golden
from smalti.errors import SmaltiError
from smalti.interop.convert import Converted, converted
from smalti.interop.formats import FORMATS

SHARED = {"amused": "diffusers", "vqdiffusion": "diffusers", "mindalle": "taming", "dalle_mini": "taming"}
SIZES = ("n_embed", "num_embeddings", "num_vq_embeddings")  # K, as the configs have it


@pytest.fixture(scope="module", params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def file(name) -> dict[str, Any]:
    return read(name)


@pytest.fixture(scope="module")
def ours(file) -> Converted:
    return converted(weights(file))


def test_there_is_a_file_of_every_format():
    assert {SHARED.get(name, name) for name in NAMES} == set(FORMATS)


def test_a_format_is_recognised(name, ours):
    assert ours.format is FORMATS[SHARED.get(name, name)]


def test_every_tensor_is_used_or_counted_as_left_out(file, ours):
    assert ours.used + sum(ours.left_out.values()) == len(file["tensors"])


def test_codes_are_those_of_the_original(file, ours):
    assert file["margin"] > 1e-5  # no ties, so that rounding decides nothing
    codes = ours.model.encode(torch.from_numpy(golden.images()))
    assert len(codes.unique()) > 10
    assert torch.equal(codes, torch.tensor(file["codes"]))


def test_pixels_are_those_of_the_original(file, ours):
    if file["pixels"] is None:
        assert not ours.format.has_decoder
        return
    expected = np.array(file["pixels"]["values"], np.float32)
    images = ours.model.decode(torch.tensor(file["codes"]), (golden.HEIGHT, golden.WIDTH))
    assert list(images.shape) == file["pixels"]["shape"]
    found = images.numpy().ravel()[file["pixels"]["at"]]
    assert ((expected > 0) & (expected < 1)).mean() > 0.3
    np.testing.assert_allclose(found, expected.clip(0, 1), rtol=0, atol=1e-4)


def needed(name: str) -> bool:
    return "model_ema" not in name and any(part in name for part in ("encoder.", "quant_conv.", "decoder."))


def test_a_file_without_one_of_its_tensors_is_refused(file, ours):
    names = [name for name in file["tensors"] if needed(name)]
    if not ours.format.has_decoder:
        names = [name for name in names if "post_quant_conv" not in name]
    for lost in (names[0], names[len(names) // 3], names[-1]):
        with pytest.raises(SmaltiError) as error:
            converted(weights({**file, "tensors": {key: s for key, s in file["tensors"].items() if key != lost}}))
        assert "\n" not in str(error.value)


def test_a_tensor_of_no_known_place_is_refused(file):
    first = next(name for name in file["tensors"] if "encoder." in name)
    more = first[: first.index("encoder.") + len("encoder.")] + "of_another_kind.weight"
    with pytest.raises(SmaltiError, match="of_another_kind"):
        converted(weights({**file, "tensors": {**file["tensors"], more: [32, 32, 3, 3]}}))


def with_another_k(settings: Any) -> Any:
    """A config that says one code vector more."""
    if isinstance(settings, dict):
        return {key: value + 1 if key in SIZES else with_another_k(value) for key, value in settings.items()}
    return settings


def test_a_config_of_another_codebook_is_refused(file):
    settings = with_another_k(file["settings"])
    if settings == file["settings"]:
        pytest.skip("its config does not say the size")
    with pytest.raises(SmaltiError, match="says"):
        converted(weights({**file, "settings": settings}))
