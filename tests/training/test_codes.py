"""The codes of a data set: of every image that can be read, in order, however they come; and of other views of it."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import draw_image
from smalti.data.batches import Pixels
from smalti.data.sources import open_data
from smalti.errors import SmaltiError
from smalti.generate.generator import Generator
from smalti.images.pixels import model_images
from smalti.models.autoencoder import Autoencoder
from smalti.recipes import maskgit, pixelcnn, pq, transformer, vqvae
from smalti.training import codes
from smalti.training.codes import CodeSet, load_codes
from smalti.training.experiment import ViewsConfig
from smalti.training.loop import train


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
        found = load_codes(config, open_data(str(tmp_path / "photos"), "all"), None, progress=progress)
    source = open_data(tmp_path / "photos")
    pixels = Pixels(source, model.config.preprocessing, memory_bytes=0)
    images = [torch.from_numpy(image)[None] for _, image in pixels.readable()]
    assert len(found) == len(images) == 22
    expected = torch.cat([model.encode(model_images(image, model.config.preprocessing)) for image in images])
    assert torch.equal(found.codes.long(), expected)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views") / "photos"
    for index in range(9):
        path = folder / ("validation" if index > 6 else "train") / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_image(index, (24, 30))).save(path)
    return folder


def tokenizer_in(folder, recipe=vqvae, **options):
    model = Autoencoder(recipe(image_size=16, width=8, codebook_size=16, start="random", **options).model)
    model.save_pretrained(folder)
    return model


def test_views_are_codes_of_the_mirror_image_or_of_windows(tmp_path, photos):
    model = tokenizer_in(tmp_path / "model")
    config, source = pixelcnn(tokenizer=str(tmp_path / "model"), data=str(photos)).model, open_data(photos, "train")
    plain = load_codes(config, source, tmp_path)
    mirrored = load_codes(config, source, tmp_path, views=ViewsConfig(views="flip"))
    pixels = Pixels(source, model.config.preprocessing).gather(range(7))
    images = model_images(torch.from_numpy(np.ascontiguousarray(pixels[:, :, ::-1])), model.config.preprocessing)
    assert plain.views is None and torch.equal(mirrored.codes, plain.codes)
    assert torch.equal(mirrored.views[:, 0].long(), model.encode(images))
    crops = ViewsConfig(views="crop", num_views=3)
    made = load_codes(config, source, tmp_path, views=crops)
    assert made.views.shape == (7, 3, 4, 4) and made.fingerprint == plain.fingerprint
    stamp = (tmp_path / "views-train.safetensors").stat().st_mtime_ns
    assert torch.equal(load_codes(config, source, tmp_path, views=crops).views, made.views)
    assert (tmp_path / "views-train.safetensors").stat().st_mtime_ns == stamp
    assert torch.equal(load_codes(config, source, None, views=crops).views, made.views)


def test_every_view_is_as_likely_as_the_image():
    views = CodeSet(
        codes=torch.zeros(5, 1, 1, dtype=torch.uint8), views=torch.arange(1, 4).expand(5, 3)[..., None, None]
    )
    torch.manual_seed(0)
    found = torch.bincount(torch.cat([views.sample(torch.arange(5))[0] for _ in range(400)]).flatten(), minlength=4)
    assert (found - 500).abs().max() < 75
    assert (views.fixed()[0] == 0).all()


def test_a_run_learns_views(tmp_path, photos):
    tokenizer_in(tmp_path / "model")
    own = {"tokenizer": str(tmp_path / "model"), "data": str(photos), "width": 8, "layers": 1, "heads": 2}
    experiment = transformer(views="crop", num_views=2, **own).with_settings(steps=4, batch_size=3, checkpoint_every=2)
    learned = train(experiment, tmp_path / "learned", progress=False)
    other = train(transformer(**own).with_settings(steps=4, batch_size=3), tmp_path / "other", progress=False)
    assert (learned / "views-train.safetensors").exists() and not (learned / "views-validation.safetensors").exists()
    assert (learned / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()
    with pytest.raises(SmaltiError, match="num_views 2 has no effect without views crop"):
        transformer(views="flip", num_views=2, **own)
    with pytest.raises(SmaltiError, match="num_views must be at least 1"):
        transformer(views="crop", num_views=0, **own)


@pytest.mark.parametrize("recipe", [transformer, maskgit, pixelcnn])
def test_several_codes_at_a_position_are_modelled_side_by_side(tmp_path, photos, recipe):
    model = tokenizer_in(tmp_path / "model", pq, num_codebooks=2)
    experiment = recipe(tokenizer=str(tmp_path / "model"), data=str(photos)).with_settings(steps=1, batch_size=2)
    assert experiment.model.grid == (4, 8) and experiment.model.codebook_size == 16
    train(experiment, tmp_path / "prior", progress=False)
    generator = Generator.from_pretrained(str(tmp_path / "prior"))
    codes = generator.sample(num=2)
    assert codes.shape == (2, 4, 8) and generator.tokenizer.decode(codes).shape == (2, 3, 16, 16)
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[:, 4:12] = True  # columns 1 and 2 of the positions
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    known, positions = generator.kept(image, mask)
    kept = generator.sample(num=2, known=known, mask=positions)[:, :, 2:6]
    assert torch.equal(kept, generator.tokenizer.encode(image)[:, :, 2:6].expand(2, -1, -1))
    both = codes.unflatten(2, (-1, 2)).permute(0, 3, 1, 2)
    assert torch.equal(generator.tokenizer.decode(codes), model.decode(both))


def test_the_defaults_follow_the_grid_and_the_codebook(tmp_path):
    found = {}
    for name, size, k in (("small", 32, 512), ("large", 64, 512), ("many", 64, 4096)):
        Autoencoder(vqvae(image_size=size, width=8, codebook_size=k).model).save_pretrained(tmp_path / name)
        found[name] = transformer(tokenizer=str(tmp_path / name))
    assert {name: made.run.batch_size for name, made in found.items()} == {"small": 32, "large": 8, "many": 8}
    assert found["small"].model.prior == {
        "kind": "transformer", "width": 192, "layers": 4, "heads": 4, "dropout": 0.1, "code_rank": 0
    }  # fmt: skip
    assert found["large"].model.prior["width"] < 192 and found["large"].model.prior["dropout"] == 0
    assert [made.model.prior["code_rank"] for made in found.values()] == [0, 0, 64]
    own = transformer(tokenizer=str(tmp_path / "many"), width=64, code_rank=0, dropout=0.3).model.prior
    assert (own["width"], own["code_rank"], own["dropout"]) == (64, 0, 0.3)


def test_codes_of_other_images_are_told_apart_and_kept_where_a_run_goes_on(tmp_path, photos, capsys):
    tokenizer_in(tmp_path / "model")
    config, run = pixelcnn(tokenizer=str(tmp_path / "model"), data=str(photos)).model, tmp_path / "run"
    load_codes(config, open_data(photos, "train"), run)
    assert capsys.readouterr().err == ""
    others = tmp_path / "others"
    shutil.copytree(photos, others)
    Image.fromarray(draw_image(99, (24, 30))).save(others / "train" / "00.png")
    before = (run / "codes-train.safetensors").read_bytes()
    with pytest.raises(SmaltiError, match="holds the codes of other images.*the data have changed; bring back"):
        load_codes(config, open_data(others, "train"), run, keep=True)
    assert (run / "codes-train.safetensors").read_bytes() == before
    load_codes(config, open_data(others, "train"), run)
    assert "held the codes of other images, or other views of them: they are made anew" in capsys.readouterr().err
    assert (run / "codes-train.safetensors").read_bytes() != before
