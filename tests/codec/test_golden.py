"""Files that version 1 wrote decode to the same codes and pixels for ever, on every machine."""

from pathlib import Path

import numpy as np
import pytest

from smalti.codec import Archive, Codec
from smalti.models.autoencoder import Autoencoder
from smalti.priors.code_model import CodeModel

GOLDEN = Path(__file__).parents[1] / "golden" / "codec"
FILES = sorted(GOLDEN.glob("*.smalti"))


def test_there_is_one_for_every_coder():
    headers = []
    for path in FILES:
        with Archive.open(path) as archive:
            headers.append(archive.header)
    assert {header.coder for header in headers} == {"fixed", "histogram", "adaptive", "prior"}
    assert any(header.lossless for header in headers)


@pytest.mark.parametrize("kernels", ["auto", "off"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_file_decodes(path, kernels, monkeypatch):
    if kernels == "off" and path.stem == "transformer":
        pytest.skip("lossless without kernels takes seconds; once is enough")
    monkeypatch.setenv("SMALTI_KERNELS", kernels)
    expected = np.load(GOLDEN / "expected.npz")
    with Archive.open(path) as archive:
        prior = CodeModel.from_pretrained(GOLDEN / path.stem) if archive.header.coder == "prior" else None
        codec = Codec(Autoencoder.from_pretrained(GOLDEN / "model"), prior)
        codes = [grid for number in range(len(archive.chunks)) for grid in codec.read_codes(archive, number)]
        pictures = [np.asarray(image) for _, image in codec.images(archive)]
    for index, (grid, picture) in enumerate(zip(codes, pictures, strict=True)):
        assert np.array_equal(grid, expected[f"{path.stem}/codes/{index}"])
        wanted = expected[f"{path.stem}/pixels/{index}"].astype(int)
        assert np.abs(picture - wanted).max() <= (0 if archive.header.lossless else 1)
        assert archive.header.images[index].name == f"image {index}"
