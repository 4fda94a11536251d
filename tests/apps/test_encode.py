"""Codes and latents in files: what is written comes back, and decodes to what `reconstruct` gives."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import smalti
from conftest import draw_image, own_members
from smalti.apps.cli import main
from smalti.apps.encodedfile import read_encoded, write_encoded
from smalti.apps.encodedrecord import EncodedFile
from smalti.errors import SmaltiError
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import BOTTLENECKS
from smalti.models.config import AutoencoderConfig, Preprocessing

CODEBOOK = {"codebook_size": 24, "code_dim": 6}
SYSTEMS = {
    "identity": {"channels": 6},
    "gaussian": {"channels": 6},
    "vector_quantizer": CODEBOOK,
    "categorical": CODEBOOK,
    "residual_quantizer": {"num_codebooks": 3, **CODEBOOK},
    "product_quantizer": {"num_codebooks": 2, **CODEBOOK},
    "fsq": {"levels": (2, 2, 3, 2)},
    "binary_quantizer": {"bits": 9},
    **own_members(BOTTLENECKS),
}
SIZES = [(20, 33), (20, 33), (16, 16), (7, 50), (16, 15)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of an untrained model of each system, and pictures of several sizes."""
    folder = tmp_path_factory.mktemp("models")
    for kind, options in SYSTEMS.items():
        torch.manual_seed(0)
        networks = {"kind": "residual", "width": 8, "depth": 1, "convolutions": 2}
        bottleneck = {"kind": kind, **options}
        preprocessing = Preprocessing(image_size=16)
        config = AutoencoderConfig(networks=networks, bottleneck=bottleneck, preprocessing=preprocessing)
        Autoencoder(config).save_pretrained(folder / kind)
    (folder / "pictures").mkdir()
    for index, size in enumerate(SIZES):
        Image.fromarray(draw_image(index, size)).save(folder / "pictures" / f"{index}.png")
    return folder


def test_every_kind_of_bottleneck_is_here():
    assert set(SYSTEMS) == set(BOTTLENECKS)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
@pytest.mark.parametrize("write", [None, "latents"])
@pytest.mark.parametrize("kind", SYSTEMS)
def test_what_was_written_decodes_to_the_reconstruction(runs, tmp_path, kind, write, suffix):
    run, pictures = str(runs / kind), sorted((runs / "pictures").iterdir())
    out = tmp_path / f"some.{suffix}"
    said = smalti.encode(run, [str(runs / "pictures")], write=write, out=str(out))
    model = Autoencoder.from_pretrained(run)
    file = read_encoded(out, model.source_hash)
    assert file.names == [path.name for path in pictures] and file.sizes == SIZES
    assert said["kind"] == file.kind == smalti.info(str(out))["kind"]
    if file.kind == "latents":
        for own, path in zip(file.values, pictures, strict=True):
            assert own.dtype == torch.float32 and torch.equal(own, model.encode_latents(path)[0])
    written = smalti.decode(run, str(out), out=str(tmp_path / "back"))["written"]
    for again, path in zip(written, pictures, strict=True):
        with Image.open(again) as picture:
            assert np.array_equal(np.array(picture), np.array(smalti.to_pil(model.reconstruct(path))[0])), path
    smalti.reconstruct(run, [str(runs / "pictures")], out=str(tmp_path / "both"))
    for again, (_, width) in zip(written, SIZES, strict=True):
        with Image.open(again) as picture, Image.open(again.replace("back", "both")) as both:
            assert np.array_equal(np.array(picture), np.array(both)[:, -width:])


def test_a_parquet_file_reads_without_smalti(runs, image_folder, tmp_path, monkeypatch):
    """A whole data set with its labels: the latents of all images in one array, equal to those of the model."""
    import pyarrow.parquet as parquet

    monkeypatch.setattr("smalti.apps.imagefiles.IMAGES_IN_CHUNK", 7)

    out = tmp_path / "features.parquet"
    smalti.encode(str(runs / "gaussian"), data=str(image_folder), split="train", out=str(out))
    source = smalti.open_data(image_folder, "train")
    table = parquet.read_table(out)
    assert table.column_names == ["name", "class", "height", "width", "shape", "latents"]
    assert table["name"].to_pylist() == [source.name_of(index) for index in range(len(source))]
    assert all(
        name.startswith(label) for name, label in zip(*(table[c].to_pylist() for c in ("name", "class")), strict=True)
    )
    shape = table["shape"][0].as_py()
    latents = np.stack(table["latents"].to_numpy()).reshape(-1, *shape)
    assert (
        latents.dtype == np.float32 and shape == [6, 4, 4] and str(table["latents"].type).startswith("fixed_size_list")
    )
    about = json.loads(table.schema.metadata[b"smalti"])
    model = Autoencoder.from_pretrained(runs / "gaussian")
    assert about == {"version": 1, "kind": "latents", "model_hash": model.source_hash, "pool": "none"}
    from smalti.data.batches import Pixels
    from smalti.images.pixels import to_float

    images = to_float(torch.from_numpy(Pixels(source, model.config.preprocessing).memory))
    assert np.array_equal(latents, model.encode_latents(images).numpy())
    assert smalti.info(str(out))["labels"] == {"class": 2}
    npz = tmp_path / "features.npz"
    smalti.encode(str(runs / "gaussian"), data=str(image_folder), split="train", out=str(npz))
    assert read_encoded(npz).labels == read_encoded(out).labels == {"class": table["class"].to_pylist()}


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_pooled_latents_are_the_mean_and_do_not_decode(runs, tmp_path, suffix):
    out, run = tmp_path / f"pooled.{suffix}", str(runs / "vector_quantizer")
    smalti.encode(run, [str(runs / "pictures")], write="latents", pool="mean", out=str(out))
    model = Autoencoder.from_pretrained(run)
    for own, path in zip(read_encoded(out).values, sorted((runs / "pictures").iterdir()), strict=True):
        torch.testing.assert_close(own, model.encode_latents(path)[0].mean((1, 2)))
    with pytest.raises(SmaltiError, match="pooled latents, which cannot be decoded; encode again without --pool"):
        smalti.decode(run, str(out), out=str(tmp_path))


def test_a_file_of_codes_has_its_old_form(runs, tmp_path):
    out = tmp_path / "codes.npz"
    smalti.encode(str(runs / "fsq"), [str(runs / "pictures" / "0.png")], out=str(out))
    with np.load(out) as file:
        assert {name: str(file[name].dtype) for name in ("codes/0.png", "size/0.png", "codebook_size")} == {
            "codes/0.png": "uint16",
            "size/0.png": "int64",
            "codebook_size": "int64",
        }
        assert set(file.files) == {"codes/0.png", "size/0.png", "codebook_size", "model_hash"}


def test_bad_images_of_a_data_set_are_left_out_with_their_labels(runs, image_folder, tmp_path):
    for index in range(4):
        (tmp_path / "data" / f"c{index}").mkdir(parents=True)
        Image.fromarray(draw_image(index)).save(tmp_path / "data" / f"c{index}" / "a.png")
    (tmp_path / "data" / "c1" / "a.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="skipped 1 bad images"):
        said = smalti.encode(str(runs / "identity"), data=str(tmp_path / "data"), out=str(tmp_path / "x.parquet"))
    file = read_encoded(tmp_path / "x.parquet")
    assert file.labels == {"class": ["c0", "c2", "c3"]} and len(said["bad_images"]) == 1
    assert file.names == ["c0/a.png", "c2/a.png", "c3/a.png"]


def test_what_does_not_go_together_is_refused_in_one_line(runs, tmp_path, capsys):
    image, run = str(runs / "pictures" / "0.png"), str(runs / "fsq")
    none = EncodedFile(kind="codes", names=[], values=[], sizes=[], model_hash="0" * 64, codebook_size=2)
    write_encoded(tmp_path / "own.npz", none)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    cases = [
        (["encode", run], "IMAGES or --data, and was given neither"),
        (["encode", run, image, "--data", "emoji"], "not both"),
        (["encode", run, image, "--split", "test"], "has no effect without --data"),
        (["encode", run, image, "--pool", "mean"], "add --write latents"),
        (["encode", str(runs / "gaussian"), image, "--write", "codes"], "no codes"),
        (["encode", run, image, "--out", "x.txt"], "must end in .npz or .parquet or .npy or .jsonl, not 'x.txt'"),
        (["decode", run, str(tmp_path / "own.npz"), "--out", "x"], "codes of the model 000000000000, not of this one"),
        (["decode", run, str(tmp_path / "bad.parquet"), "--out", "x"], "cut off or not a file of"),
    ]
    for argv, message in cases:
        capsys.readouterr()
        assert main(argv) == 1
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and message in lines[0], lines


@pytest.mark.parametrize("suffix", [".npz", ".smalti"])
def test_info_of_a_file_does_without_torch(runs, tmp_path, suffix):
    """What a file says of itself is read without torch, which takes a second to import."""
    path = tmp_path / f"a{suffix}"
    picture = tmp_path / "a.png"
    Image.fromarray(draw_image(0, (16, 16))).save(picture)
    verb = smalti.encode if suffix == ".npz" else smalti.compress
    verb(str(runs / "vector_quantizer"), [str(picture)], out=str(path))
    script = f"import sys, smalti; smalti.info({str(path)!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])
