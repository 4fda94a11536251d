"""The codes of a data set: of every image that can be read, in order, however they come."""

import pytest
import torch
from PIL import Image

from conftest import draw_image
from smalti.data.batches import Pixels
from smalti.data.sources import open_data
from smalti.images.pixels import model_images
from smalti.models.autoencoder import Autoencoder
from smalti.recipes import pixelcnn, vqvae
from smalti.training import codes
from smalti.training.codes import load_codes


@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.parametrize("at_once", [1, 4, 30])
def test_every_image_has_its_codes(tmp_path, monkeypatch, at_once, progress):
    """A bar that was cut into slices began anew with each of them, and most images were left out."""
    monkeypatch.setattr(codes, "AT_ONCE", at_once)
    for index in range(23):
        path = tmp_path / "photos" / "train" / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_image(index, (16, 16))).save(path)
    (tmp_path / "photos" / "train" / "05.png").write_bytes(b"no image")
    model = Autoencoder(vqvae(image_size=16, width=8, codebook_size=16, start="random").model)
    model.save_pretrained(tmp_path / "model")
    config = pixelcnn(tokenizer=str(tmp_path / "model"), data=str(tmp_path / "photos")).model
    with pytest.warns(UserWarning, match="skipped 1 bad image"):
        found = load_codes(config, str(tmp_path / "photos"), "all", None, progress=progress)
    source = open_data(tmp_path / "photos")
    pixels = Pixels(source, model.config.preprocessing, memory_bytes=0)
    images = [torch.from_numpy(image)[None] for _, image in pixels.readable()]
    assert len(found) == len(images) == 22
    expected = torch.cat([model.encode(model_images(image, model.config.preprocessing)) for image in images])
    assert torch.equal(found.codes.long(), expected)
