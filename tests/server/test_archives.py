"""Files over HTTP are those of `smalti compress`, byte for byte; what is no such file gets one line."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from codec.conftest import save_model, save_prior
from conftest import draw_image
from smalti.apps.compress import compress
from smalti.apps.decompress import decompress
from smalti.codec import Archive, Codec, rivals
from smalti.generate.generator import Generator
from smalti.generate.tokenizer import TrainedTokenizer
from smalti.server.app import application
from smalti.server.limits import Limits
from smalti.server.served import Served

testclient = pytest.importorskip("fastapi.testclient")

LIMITS = Limits(upload_bytes=1 << 16, pixels=1 << 12)
RESIDUAL = {"kind": "residual_quantizer", "num_codebooks": 3, "codebook_size": 8, "code_dim": 4,
            "quantizer": {"start": "random"}}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two tokenizers, a prior of the first, and pictures."""
    folder = tmp_path_factory.mktemp("archives")
    model = save_model(folder / "vq")
    save_model(folder / "residual", RESIDUAL)
    save_prior(folder / "prior", model, folder / "vq")
    colour = draw_image(3, (18, 27))
    clear = np.dstack([colour, np.full(colour.shape[:2], 255, np.uint8)])
    clear[:5, :5, 3] = 0
    for name, pixels in (("colour", colour), ("grey", colour[:, :, 0]), ("clear", clear)):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def served(folder):
    prior = Generator.from_pretrained(str(folder / "prior"))
    assert isinstance(prior.tokenizer, TrainedTokenizer)
    return Served({"vq": prior.tokenizer.model, "residual": save_model(folder / "other", RESIDUAL)}, {"prior": prior},
                  limits=LIMITS)  # fmt: skip


@pytest.fixture(scope="module")
def client(served):
    with testclient.TestClient(application(served)) as client:
        yield client


@pytest.mark.parametrize(("run", "image", "options"), [
    ("vq", "colour", {}),
    ("vq", "grey", {"coder": "fixed"}),
    ("vq", "clear", {"coder": "histogram"}),
    ("vq", "clear", {"alpha": "drop", "lossless": True}),
    ("prior", "colour", {}),
    ("prior", "colour", {"coder": "adaptive"}),
    ("residual", "colour", {"depth": 2}),
])  # fmt: skip
def test_a_file_is_that_of_the_verb_and_comes_back_as_the_verb_brings_it(client, folder, tmp_path, run, image, options):
    ours = tmp_path / "ours.smalti"
    compress(str(folder / run), [str(folder / f"{image}.png")], out=str(ours), **options)
    answer = client.post(
        "/v1/compress", params={"model": run, **options}, content=(folder / f"{image}.png").read_bytes()
    )
    assert answer.content == ours.read_bytes()
    decompress(str(ours), out=str(tmp_path / "back.png"), model=str(folder / run.replace("prior", "vq")),
               prior=str(folder / "prior") if options == {} and run == "prior" else None)  # fmt: skip
    back = client.post("/v1/decompress", content=answer.content)
    assert back.content == (tmp_path / "back.png").read_bytes() and back.headers["content-type"] == "image/png"


def test_a_prior_that_is_served_codes_for_its_tokenizer(client, folder):
    data = (folder / "colour.png").read_bytes()
    files = [client.post("/v1/compress", params={"model": model, "coder": "prior"}, content=data).content
             for model in ("vq", "prior")]  # fmt: skip
    assert files[0] == files[1] and Archive(io.BytesIO(files[0])).header.coder == "prior"
    refused = client.post("/v1/compress", params={"model": "residual", "coder": "prior"}, content=data)
    assert refused.status_code == 422 and "no prior" in refused.json()["detail"]


@pytest.mark.parametrize("name", ["vq", "residual"])
def test_codes_that_were_changed_by_hand_are_kept_as_they_are(client, served, folder, name):
    codes = client.post("/v1/encode", params={"model": name}, content=(folder / "colour.png").read_bytes()).json()
    changed = (np.array(codes["codes"]) + 1) % 8
    body = {"codes": changed.tolist(), "size": codes["size"]}
    file = client.post("/v1/compress", params={"model": name}, json=body).content
    found = client.post("/v1/decompress", params={"to": "codes"}, content=file).json()
    assert found == {**body, "model_hash": served.tokenizers[name].source_hash}
    image = client.post("/v1/decompress", content=file).content
    assert image == client.post("/v1/decode", params={"model": name}, json=body).content
    for bad in ({**body, "size": [1, 1]}, {"codes": (changed - 99).tolist()}):
        assert client.post("/v1/compress", params={"model": name}, json=bad).status_code == 422
    assert client.post("/v1/compress", params={"model": name, "lossless": True}, json=body).status_code == 422


def test_a_file_that_keeps_fewer_codes_has_an_image_and_no_codes(client, folder):
    params = {"model": "residual", "depth": 1}
    file = client.post("/v1/compress", params=params, content=(folder / "colour.png").read_bytes()).content
    assert client.post("/v1/decompress", params={"to": "codes"}, content=file).json()["codes"] is None


def test_formats_are_the_true_bytes_and_the_best_that_others_do_with_as_many(client, folder, served):
    data = (folder / "colour.png").read_bytes()
    original = np.asarray(Image.open(io.BytesIO(data)))
    found = client.post("/v1/formats", params={"model": "vq", "coder": "histogram"}, content=data).json()
    assert found["size"] == [18, 27] and [*found["coders"]] == ["fixed", "histogram", "adaptive", "prior"]
    for coder, about in found["coders"].items():
        file = client.post("/v1/compress", params={"model": "vq", "coder": coder}, content=data).content
        assert about == {"num_bytes": len(file), "bits_per_pixel": 8 * len(file) / (18 * 27)}
    assert found["smalti"]["coder"] == "histogram"
    model = served.tokenizers["vq"]
    ours = Codec(model).decompress(Codec(model).compress(original))[0]
    assert np.array_equal(Image.open(io.BytesIO(base64.b64decode(found["smalti"]["png"]))), ours)
    assert [*found["rivals"]] == rivals.at_hand()
    for name, about in {"smalti": found["smalti"], **found["rivals"]}.items():
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(about["png"]))), float)
        error = ((shown - original) ** 2).mean() / 255**2
        assert about["psnr_db"] == pytest.approx(-10 * np.log10(error), abs=1e-3), name
    residual = client.post("/v1/formats", params={"model": "residual"}, content=data).json()
    assert residual["depths"] == 3 and "no prior" in residual["coders"]["prior"]["refused"]


@pytest.mark.parametrize("name", rivals.at_hand())
def test_of_a_rival_the_largest_quality_that_fits_or_the_smallest_of_all(name):
    image = Image.fromarray(draw_image(1, (24, 32)))
    least = rivals.FORMATS[name].least
    smallest, middle, largest = (len(rivals.written(image, name, quality)) for quality in (least, 50, 100))
    assert rivals.at_most(image, name, smallest - 1) == (least, rivals.written(image, name, least))
    for budget in (smallest, middle, largest):
        quality, file = rivals.at_most(image, name, budget)
        assert file == rivals.written(image, name, quality) and len(file) <= budget
        assert quality == 100 or len(rivals.written(image, name, quality + 1)) > budget


def test_an_image_without_error_has_no_decibels(client):
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), 128, np.uint8)).save(file, "PNG")
    found = client.post("/v1/formats", content=file.getvalue())
    assert found.status_code == 200 and found.json()["rivals"]["JPEG"]["psnr_db"] is None


def hostile(client, folder):
    """Bodies that are no file of ours, or not one of these models."""
    data = (folder / "colour.png").read_bytes()
    good = client.post("/v1/compress", content=data).content
    model = save_model(folder / "stranger", {"kind": "vector_quantizer", "codebook_size": 5, "code_dim": 4,
                                             "start": "random"})  # fmt: skip
    vast = save_model(folder / "vq")
    many = Codec(vast).compress([draw_image(0, (40, 40))] * 3)  # 4,800 pixels in one chunk
    yield "empty", "decompress", b"", "not a"
    yield "an image", "decompress", data, "not a"
    yield "cut off", "decompress", good[:-3], "cut off"
    yield "changed", "decompress", good[:-9] + bytes([good[-9] ^ 255]) + good[-8:], ""
    yield "longer", "decompress", good + b"\0", "behind the end"
    yield "a path", "decompress", b"/etc/passwd", "not a"
    yield "of another model", "decompress", Codec(model).compress(draw_image(0)), "not served here"
    yield "too many pixels", "decompress", Codec(vast).compress(draw_image(0, (65, 64))), "at most 4,096"
    yield "too many together", "decompress", many, "at most 4,096"
    yield "no such image", "decompress?index=1", good, "none of index 1"
    yield "below", "decompress?index=-1", good, ""
    yield "no image", "compress", good, ""
    yield "too large", "compress", _png(65, 64), "at most 4,096"
    yield "too large to compare", "formats", _png(65, 64), "at most 4,096"
    yield "no codes", "formats", b"[]", ""
    yield "depth", "compress?depth=7", data, "depth must lie in"
    yield "a coder", "compress?coder=/etc/passwd", data, ""


def _png(height, width):
    file = io.BytesIO()
    Image.fromarray(draw_image(0, (height, width))).save(file, "PNG")
    return file.getvalue()


def test_what_is_wrong_gets_one_line(client, folder):
    for name, act, body, words in hostile(client, folder):
        answer = client.post(f"/v1/{act}", content=body)
        assert answer.status_code == 422, (name, answer.text)
        assert words in json.dumps(answer.json()["detail"]) and "\\n" not in json.dumps(answer.json()), name
    assert client.post("/v1/decompress", content=b"\0" * (LIMITS.upload_bytes + 1)).status_code == 413
    assert client.post("/v1/compress", params={"model": "../vq"}, content=b"").status_code == 404


def test_a_file_with_any_byte_changed_never_brings_the_server_down(client, folder):
    good = client.post("/v1/compress", content=(folder / "colour.png").read_bytes()).content
    generator = torch.Generator().manual_seed(0)
    for place in torch.randperm(len(good), generator=generator)[:40].tolist():
        changed = bytearray(good)
        changed[place] ^= 1 + int(torch.randint(255, (), generator=generator))
        assert client.post("/v1/decompress", content=bytes(changed)).status_code == 422
