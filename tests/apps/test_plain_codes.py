"""Codes for other programs: arrays and lines that read without smalti, and that smalti reads with care."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import smalti
from apps.test_encode import SYSTEMS
from conftest import draw_image
from smalti.apps.encodedfile import read_encoded, write_encoded
from smalti.apps.encodedrecord import EncodedFile
from smalti.errors import SmaltiError
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig, Preprocessing

HASH = "0" * 64


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for kind, options in SYSTEMS.items():
        torch.manual_seed(0)
        config = AutoencoderConfig(
            networks={"kind": "residual", "width": 8},
            bottleneck={"kind": kind, **options},
            preprocessing=Preprocessing(image_size=16),
        )
        Autoencoder(config).save_pretrained(folder / kind)
    (folder / "pictures").mkdir()
    for index in range(3):
        Image.fromarray(draw_image(index, (16, 24))).save(folder / "pictures" / f"{index}.png")
    return folder


@pytest.mark.parametrize("suffix", ["npy", "jsonl"])
@pytest.mark.parametrize("kind", SYSTEMS)
def test_what_was_written_is_read_and_decodes(runs, tmp_path, kind, suffix):
    run, out = str(runs / kind), tmp_path / f"a.{suffix}"
    model = Autoencoder.from_pretrained(run)
    discrete = "codebook_size" in vars(model.bottleneck)
    if not discrete and suffix == "jsonl":
        with pytest.raises(SmaltiError, match="a .jsonl holds codes: latents are long as text"):
            smalti.encode(run, [str(runs / "pictures")], out=str(out))
        assert not out.exists()
        return
    said = smalti.encode(run, [str(runs / "pictures")], out=str(out))
    file, images = read_encoded(out, model.source_hash), sorted((runs / "pictures").iterdir())
    values = (model.encode if discrete else model.encode_latents)(images)
    assert torch.equal(torch.stack([*file.values]), values) and file.sizes == [(16, 24)] * 3
    assert said["num_images"] == smalti.info(str(out))["num_images"] == 3
    if suffix == "npy":
        array = np.load(out)
        assert np.array_equal(array, values.numpy())
        assert array.dtype == (np.uint8 if discrete and model.codes_bottleneck.codebook_size <= 256 else array.dtype)
    else:
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert [line["name"] for line in lines] == ["0.png", "1.png", "2.png"]
        assert np.array_equal([line["codes"] for line in lines], values.numpy())
    written = smalti.decode(run, str(out), out=str(tmp_path / "back"))["written"]
    for path, image in zip(written, images, strict=True):
        with Image.open(path) as picture:
            assert np.array_equal(np.array(picture), np.array(smalti.to_pil(model.reconstruct(image))[0]))


@pytest.mark.parametrize(("size", "dtype"), [(256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")])
def test_codes_take_the_smallest_type_that_holds_them(size, dtype, tmp_path):
    codes = torch.tensor([[[0, size - 1]]])
    file = EncodedFile(kind="codes", names=["a"], values=[*codes], sizes=[(4, 8)], model_hash=HASH, codebook_size=size)
    write_encoded(tmp_path / "a.npy", file)
    assert np.load(tmp_path / "a.npy").dtype == dtype
    assert torch.equal(read_encoded(tmp_path / "a.npy").values[0], codes[0])


def test_labels_of_a_data_set_come_along(runs, image_folder, tmp_path):
    for suffix in ("npy", "jsonl"):
        out = tmp_path / f"a.{suffix}"
        smalti.encode(str(runs / "fsq"), data=str(image_folder), split="train", out=str(out))
        source = smalti.open_data(image_folder, "train")
        file = read_encoded(out)
        assert file.names == [source.name_of(index) for index in range(len(source))] and set(file.labels) == {"class"}
        assert all(name.startswith(label) for name, label in zip(file.names, file.labels["class"], strict=True))


def test_an_array_is_of_images_of_one_size(runs, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index, size in enumerate([(16, 16), (16, 32)]):
        Image.fromarray(draw_image(index, size)).save(pictures / f"{index}.png")
    with pytest.raises(SmaltiError, match=r"several sizes, as \(4, 4\) and \(4, 8\): one array has one shape"):
        smalti.encode(str(runs / "fsq"), [str(pictures)], out=str(tmp_path / "a.npy"))
    assert not [*tmp_path.glob("a.*")]
    smalti.encode(str(runs / "fsq"), [str(pictures)], out=str(tmp_path / "a.jsonl"))


def test_nothing_is_overwritten_without_force(runs, tmp_path):
    (tmp_path / "a.json").write_text("mine")
    with pytest.raises(SmaltiError, match=r"a.json exists; --force overwrites it"):
        smalti.encode(str(runs / "fsq"), [str(runs / "pictures")], out=str(tmp_path / "a.npy"))
    assert (tmp_path / "a.json").read_text() == "mine" and not (tmp_path / "a.npy").exists()


@pytest.fixture
def written(tmp_path):
    """A file of each kind."""
    codes = torch.arange(8).view(2, 2, 2)
    file = EncodedFile(
        kind="codes",
        names=["a", "b"],
        values=[*codes],
        sizes=[(8, 8), (8, 8)],
        model_hash=HASH,
        codebook_size=8,
        labels={"class": ["x", "y"]},
    )
    for suffix in ("npy", "jsonl"):
        write_encoded(tmp_path / f"a.{suffix}", file)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["a"]}, r"an array of the shape \(2, 2, 2\) where a.json names 1 images"),
        ({"names": ["a", "a"]}, "two images have one name"),
        ({"sizes": [[8, 8], [8, 0]]}, "size/'b'"),
        ({"array_sha256": "f" * 64}, "it is not the array that a.json beside it is of"),
        ({"kind": "latents"}, "values of the type uint8"),
        ({"kind": "pickles"}, "values of the type uint8"),
        ({"codebook_size": 0}, "codebook_size"),
        ({"labels": {"class": ["x"]}}, "1 labels 'class' of 2 images"),
        ({"more": 1}, "unknown key 'more'"),
        ({"version": 9}, "update smalti"),
        ({"model_hash": "no"}, "expected 64 hexadecimal digits"),
    ],
)
def test_what_lies_beside_an_array_is_checked(written, change, message):
    about = json.loads((written / "a.json").read_text())
    (written / "a.json").write_text(json.dumps(about | change))
    with pytest.raises(SmaltiError, match=message):
        read_encoded(written / "a.npy")


def test_an_array_with_objects_or_cut_off_is_refused(written):
    array = written / "a.npy"
    whole = array.read_bytes()
    array.write_bytes(whole[:-1])
    with pytest.raises(SmaltiError, match="a.npy is cut off or not a file of"):
        read_encoded(array)
    np.save(array, np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(SmaltiError, match="a.npy is cut off or not a file of"):
        read_encoded(array)
    (written / "a.json").unlink()
    with pytest.raises(SmaltiError, match="a.json"):
        read_encoded(array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": [[0, 1], [2]]}, "is cut off or not a file of"),
        ({"codes": [[0, 1], [2, -3]]}, "no grid of whole numbers"),
        ({"codes": [[0, 1], [2, 0.5]]}, "no grid of whole numbers"),
        ({"codes": [[True, False], [True, True]]}, "no grid of whole numbers"),
        ({"codes": [[0, 1], [2, 1 << 70]]}, "no grid of whole numbers"),
        ({"codes": []}, "no grid of whole numbers"),
        ({"codes": "no"}, "codes"),
        ({"codebook_size": 9}, "line 2 is of another kind than the first"),
        ({"labels": {}}, "line 2 is of another kind than the first"),
        ({"extra": 1}, "line 2 is of another kind than the first"),
        ({"height": 0}, "size/'b'"),
        ({"name": "a"}, "two images have one name"),
    ],
)
def test_lines_are_checked(written, change, message):
    path = written / "a.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text("\n".join([first, json.dumps(json.loads(second) | change), ""]))
    with pytest.raises(SmaltiError, match=message):
        read_encoded(path)


@pytest.mark.parametrize("text", ["", "{", "[]\n", "[" * 100_000 + "\n", '{"name": "a"}', "{}\n"])
def test_what_are_no_lines_is_refused(text, tmp_path):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(SmaltiError, match="a.jsonl"):
        read_encoded(tmp_path / "a.jsonl")


def test_a_code_outside_of_the_codebook_is_named(written):
    path = written / "a.jsonl"
    path.write_text(path.read_text().replace("[6, 7]", "[6, 8]"))
    with pytest.raises(SmaltiError, match=r"codes must lie in \[0, 8\); one is 8"):
        read_encoded(path).values[1]
