"""Models and files of somebody else: one example of each kind of harm is one line, or does none."""

import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import smalti
from smalti.apps.encodedfile import read_encoded, write_encoded
from smalti.apps.encodedrecord import EncodedFile, check_fits
from smalti.apps.runs import best_of, evaluation_of
from smalti.errors import LONGEST, SmaltiError
from smalti.files import CONFIG, WEIGHTS, read_json, write_json
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import BOTTLENECKS, Identity
from smalti.models.config import AutoencoderConfig
from smalti.pretrained import WEIGHTS_HASH
from smalti.priors.text import FILE, TextTokenizer

from .codec.conftest import K, save_model


@pytest.fixture
def model(tmp_path):
    return save_model(tmp_path / "model")


@pytest.fixture
def run(model, tmp_path):
    return tmp_path / "model"


def refused(function, *arguments, match="", **options) -> str:
    with pytest.raises(SmaltiError, match=match) as caught:
        function(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text and len(text) <= LONGEST
    return text


# ------------------------------------------------------------------ config.json


def test_a_wrong_value_in_a_config_is_named_with_its_key(run):
    good = (run / CONFIG).read_text()
    for key, value, wanted in [
        ("bottleneck.codebook_size", "x" * 10**6, "bottleneck.codebook_size: expected int, got 'xxx"),
        ("networks.width", "x", "networks.width: expected int, got 'x'"),
        ("networks.depth", 10**6, "networks.depth: must be in .1, 1024., not 1000000"),
        ("networks.stride", 2**31, "networks.stride: must be"),
        ("networks.width", 12, "'encoder.0.weight' has shape .8, 3, 3, 3. instead of .12, 3, 3, 3."),
        ("networks.width", 10**5, "larger than model.safetensors"),
        ("networks.depth", 1000, "more parts|larger than model.safetensors"),
        ("networks", 1.5, "networks: expected an object, got 1.5"),
        ("likelihood", None, "likelihood: expected an object, got None"),
        ("bottleneck.kind", [], "bottleneck.kind: expected str"),
        ("bottleneck.code_dim", 0, "bottleneck.code_dim: must be in"),
        ("preprocessing.binarize", "anything", "preprocessing.binarize: expected one of 'none', 'dynamic', 'fixed'"),
        ("preprocessing.image_size", 0, "image_size must be a side"),
        ("preprocessing.image_size", -1, "image_size must be a side"),
        ("networks.depth", True, "networks.depth: expected int, got True"),
        ("format", True, "has format True, this smalti reads format 1"),
        (WEIGHTS_HASH, "x", "weights_sha256: expected 64 hexadecimal digits"),
        ("likelihood.channels", 3, "likelihood.channels: is not given here"),
    ]:
        config = json.loads(good)
        *way, last = key.split(".")
        place = config
        for part in way:
            place = place[part]
        place[last] = value
        write_json(run / CONFIG, config)
        assert str(run) in refused(Autoencoder.from_pretrained, run, match=wanted)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' * 100 + b"1" + b"}" * 100, "nested too deeply"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands twice"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "integer string conversion"),
        (b"\xff\xfe{\x00", "can't decode byte"),
        (b" " * (1 << 24), "is longer than the 8,388,608 bytes"),
        (b"", "Expecting value"),
        (b'"text"', "does not describe a smalti autoencoder"),
    ],
)
def test_a_config_that_is_no_json_is_one_line(run, data, wanted):
    (run / CONFIG).write_bytes(data)
    refused(Autoencoder.from_pretrained, run, match=wanted)


def test_only_regular_files_are_opened(tmp_path, run):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        refused(read_json, path, match="no regular file")
    (run / CONFIG).unlink()
    (run / CONFIG).symlink_to("/dev/zero")
    refused(Autoencoder.from_pretrained, run, match="no model of smalti")


def test_a_byte_order_mark_is_read_over(run):
    (run / CONFIG).write_bytes(b"\xef\xbb\xbf" + (run / CONFIG).read_bytes())
    Autoencoder.from_pretrained(run)


# ------------------------------------------------------------------ weights


def test_a_changed_bit_of_the_weights_is_found_by_their_hash(model, run):
    assert read_json(run / CONFIG)[WEIGHTS_HASH] == model.source_hash
    data = bytearray((run / WEIGHTS).read_bytes())
    data[-5] ^= 1
    (run / WEIGHTS).write_bytes(data)
    os.utime(run / WEIGHTS, (0, 0))
    refused(Autoencoder.from_pretrained, run, match="model.safetensors is damaged, or not the file that config.json")
    without_hash(run)
    Autoencoder.from_pretrained(run)  # an older folder


def without_hash(run):
    config = read_json(run / CONFIG)
    write_json(run / CONFIG, {key: value for key, value in config.items() if key != WEIGHTS_HASH})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_converted_with_a_warning(model, run, dtype):
    without_hash(run)
    weights = load_file(run / WEIGHTS)
    save_file({name: own.to(dtype) if own.is_floating_point() else own for name, own in weights.items()}, run / WEIGHTS)
    with pytest.warns(UserWarning, match="is of type .* more like it: they were converted") as told:
        again = Autoencoder.from_pretrained(run)
    assert len(told) == 1
    assert {own.dtype for own in again.parameters()} == {torch.float32}
    tolerance = {"atol": 1e-2, "rtol": 1e-2}
    torch.testing.assert_close(dict(again.named_parameters()), dict(model.named_parameters()), **tolerance)


@pytest.mark.parametrize("change", [torch.Tensor.bool, torch.Tensor.long, lambda own: own.to(torch.float8_e4m3fn)])
def test_weights_of_another_kind_are_refused(run, change):
    without_hash(run)
    weights = load_file(run / WEIGHTS)
    save_file(weights | {"encoder.0.weight": change(weights["encoder.0.weight"])}, run / WEIGHTS)
    refused(Autoencoder.from_pretrained, run, match="'encoder.0.weight' is of type .* instead of F32")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(run, value):
    without_hash(run)
    weights = load_file(run / WEIGHTS)
    weights["encoder.0.weight"][0, 0, 0, 0] = value
    save_file(weights, run / WEIGHTS)
    refused(Autoencoder.from_pretrained, run, match="'encoder.0.weight' holds NaN or infinity")


def test_a_part_of_ones_own_may_compute_with_values_and_begin_with_infinity(tmp_path, monkeypatch):
    class Mine(Identity):
        def __init__(self, *, channels: int):
            super().__init__(channels=channels)
            self.largest = float(torch.arange(channels).max())  # not on the meta device
            self.register_buffer("mask", torch.full((2,), -torch.inf))

    monkeypatch.setitem(BOTTLENECKS.data, "mine", Mine)
    networks = {"kind": "strided", "width": 4, "depth": 0}
    Autoencoder(AutoencoderConfig(networks=networks, bottleneck={"kind": "mine", "channels": 3})).save_pretrained(
        tmp_path
    )
    assert Autoencoder.from_pretrained(tmp_path).bottleneck.largest == 2
    with pytest.raises(SmaltiError, match="larger than"), torch.no_grad():
        config = read_json(tmp_path / CONFIG)
        write_json(tmp_path / CONFIG, config | {"networks": {"kind": "strided", "width": 1 << 13, "depth": 0}})
        Autoencoder.from_pretrained(tmp_path)


def test_an_outline_leaves_the_compiler_alone():
    """PyTorch imports its compiler, seconds of it, for a random number on the meta device."""
    script = """
import sys, torch
from smalti.outlines import Valueless
from tests.laws.test_schema import FAMILIES, MEMBERS, good_options
with torch.device("meta"), Valueless():
    for what, kind in MEMBERS:
        made = FAMILIES[what].build({"kind": kind, **good_options(FAMILIES[what][kind])})
        if what == "networks":
            made.encoder(3, 4), made.decoder(4, 3)
        assert not {"torch._dynamo", "sympy"} & sys.modules.keys(), kind
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


# ------------------------------------------------------------------ files of codes


def codes_file(model, path, **changes):
    """The arrays of a file of one image, with changes; None takes one out."""
    encoded = model.encode_many([torch.rand(3, 9, 13)])[0]
    about = {"names": ["a"], "sizes": [encoded.size], "model_hash": model.source_hash, "codebook_size": K}
    write_encoded(path, EncodedFile(kind="codes", values=[encoded.codes], **about))
    with np.load(path) as file:
        arrays = {**file, **{key.replace("_a", "/a"): value for key, value in changes.items()}}
    np.savez_compressed(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"codebook_size": "x"}, "codebook_size: expected int, got 'x'"),
        ({"codebook_size": 0}, "codebook_size: must be in"),
        ({"model_hash": 5}, "model_hash: expected str"),
        ({"model_hash": "x" * 64}, "64 hexadecimal digits"),
        ({"size_a": None}, "the array 'size/a' .it is missing"),
        ({"size_a": [1, 2, 3]}, "size/'a': expected 2 values"),
        ({"size_a": [0, 2]}, "size/'a'.0: must be in"),
        ({"size_a": [-1, 2]}, "size/'a'.0: must be in"),
        ({"size_a": [np.nan, 2]}, "size/'a'.0: expected int"),
        ({"size_a": ["x", "y"]}, "size/'a'.0: expected int"),
        ({"size_a": [1 << 20, 1 << 20]}, "'a': codes of the shape"),
        ({"codes_a": np.zeros((3, 4), np.float32)}, "has codes of float32"),
        ({"codes_a": np.zeros((3, 4), "M8[s]")}, "has codes of datetime64"),
        ({"codes_a": np.zeros((3, 4), object)}, "no plain array"),
        ({"codes_a": np.zeros((0, 4), np.uint16)}, "must be in"),
        ({"codes_a": np.zeros((1, 1 << 18), np.uint16)}, "codes of the shape"),
        ({"codes_a": np.zeros((3, 5), np.uint16)}, "where 13x9 pixels have .3, 4."),
        ({"codes_a": np.full((3, 4), K, np.uint16)}, "codes must lie in .0, 37.; one is 37"),
        ({"codebook_size": 5, "codes_a": np.full((3, 4), 2, np.uint16)}, "codes are of 5, the model's of 37"),
        ({"more": np.zeros(3)}, "it has 'more'"),
        ({"labels_a": np.array(["x", "y"])}, "2 labels 'a' of 1 images"),
    ],
)
def test_a_file_of_codes_is_checked_before_it_is_decoded(run, model, tmp_path, changes, wanted):
    path = codes_file(model, tmp_path / "a.npz", **changes)
    refused(smalti.decode, str(run), str(path), out=str(tmp_path / "out"), match=wanted)
    assert not list(tmp_path.glob("out/*"))


def test_bombs_and_lies_of_an_archive_are_found_by_its_headers(model, tmp_path):
    path = codes_file(model, tmp_path / "a.npz")
    with zipfile.ZipFile(path) as archive:
        good = {member.filename: archive.read(member) for member in archive.infolist()}
    lying = io.BytesIO()
    np.lib.format.write_array_header_1_0(lying, {"descr": "<u2", "fortran_order": False, "shape": (10**6, 10**6)})
    for name, data, method, wanted in [
        ("codes/a.npy", lying.getvalue(), zipfile.ZIP_DEFLATED, "are not its 128 bytes"),
        ("codes/a.npy", b"no array", zipfile.ZIP_DEFLATED, "the array 'codes/a'"),
        ("codes/a", b"x", zipfile.ZIP_DEFLATED, "two arrays have one name|is no array"),
        ("codes/a.npy", good["codes/a.npy"], zipfile.ZIP_LZMA, "compression that numpy does not write"),
        ("codes/a.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff", zipfile.ZIP_DEFLATED, "not 1.0"),
    ]:
        with zipfile.ZipFile(path, "w", method) as archive:
            for key, own in {**good, name: data}.items():
                archive.writestr(key, own)
        refused(read_encoded, path, match=wanted)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        for key, own in [*good.items(), ("codes/a.npy", good["codes/a.npy"])]:
            archive.writestr(key, own)
    refused(read_encoded, path, match="two arrays have one name")


def test_an_image_larger_than_allowed_is_refused_by_its_size(model, tmp_path):
    file = read_encoded(codes_file(model, tmp_path / "a.npz"))
    check_fits(file, model, most_pixels=9 * 13)
    refused(check_fits, file, model, 9 * 13 - 1, match="'a' has 13x9 pixels; at most 116 are decoded")


def test_a_parquet_file_is_checked_like_an_npz(model, tmp_path):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    path = tmp_path / "a.parquet"
    encoded = model.encode_many([torch.rand(3, 9, 13), torch.rand(3, 8, 8)])
    about = {"names": ["a", "b"], "sizes": [own.size for own in encoded], "model_hash": model.source_hash}
    write_encoded(path, EncodedFile(kind="codes", values=[own.codes for own in encoded], codebook_size=K, **about))
    good = parquet.read_table(path)
    assert [own.shape for own in read_encoded(path).values] == [(3, 4), (2, 2)]
    for column, values, wanted in [
        ("name", arrow.array(["a", "a"]), "two images have one name"),
        ("name", arrow.array(["a", None]), "names.1: expected str, got None"),
        ("height", arrow.array([0, 8], arrow.int32()), "size/'a'.0: must be in"),
        ("height", arrow.array(["9", "8"]), "the column 'height' is of 'string'|of 'dictionary"),
        ("codes", arrow.array([[1.0] * 12, [1.0] * 4]), "the column 'codes' is of 'list<"),
        ("codes", arrow.array([[0] * (1 << 16)] * 2, arrow.list_(arrow.uint16())), "131,072 values, which do not fit"),
        ("shape", arrow.array([[1] * 100] * 2, arrow.list_(arrow.int32())), "the column 'shape' has 200 values"),
    ]:
        index = good.column_names.index(column)
        parquet.write_table(good.set_column(index, column, values), path)
        refused(read_encoded, path, match=wanted)


# ------------------------------------------------------------------ text.json, evaluation.json, best.json


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "/////wAAAAA="}, "normalizer: expected"),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a+)+$"}}, "pre_tokenizer: expected"),
        ("padding", {"strategy": {"Fixed": 10**9}}, "padding: expected None"),
        ("truncation", {"max_length": 1, "stride": 5}, "truncation: expected None"),
        ("post_processor", {"type": "TemplateProcessing"}, "post_processor: expected None"),
        ("added_tokens", [{"id": 0}], "added_tokens: expected"),
        ("model.dropout", 0.9, "model.dropout: expected None, got 0.9"),
        ("model.type", "Unigram", "model.type: expected 'BPE'"),
        ("model.vocab", {"a": 0}, "255 of the 256 bytes are missing"),
        ("model.vocab", None, "model.vocab: expected an object"),
        ("model.merges", [["a", "zz"]], "are not two tokens that make a third"),
        ("model", [], "expected an object with a model"),
    ],
)
def test_of_a_text_json_only_tokens_and_merges_are_taken(tmp_path, key, value, wanted):
    TextTokenizer.train(["red heart", "red circle"], 300, 8).save(tmp_path)
    values = read_json(tmp_path / FILE)
    *way, last = key.split(".")
    (values[way[0]] if way else values)[last] = value
    write_json(tmp_path / FILE, values)
    refused(TextTokenizer.load, tmp_path, 8, 300, match=wanted)


def test_tokens_are_numbered_below_the_vocabulary(tmp_path):
    text = TextTokenizer.train(["red heart", "red circle"], 300, 8)
    text.save(tmp_path)
    again = TextTokenizer.load(tmp_path, 8, 300)
    captions = ["red heart", "RED  \u00e9\u4e2d", "e\u0301" * 9]
    assert again(captions, cut=True).equal(text(captions, cut=True)) and again.bpe.to_str() == text.bpe.to_str()
    refused(TextTokenizer.load, tmp_path, 8, 256, match="must be numbered from 0 and at most 256")
    values = read_json(tmp_path / FILE)
    values["model"]["vocab"] = {token: number + 10**6 for token, number in values["model"]["vocab"].items()}
    write_json(tmp_path / FILE, values)
    refused(TextTokenizer.load, tmp_path, 8, 300, match="must be numbered from 0")


def test_a_prompt_of_a_book_is_refused_or_cut_at_once(tmp_path):
    text = TextTokenizer.train(["red heart"], 300, 8)
    refused(text, ["a" * 10**7], match="10,000,000 characters, at most 100,000 are read")
    assert text(["a" * 10**7], cut=True).shape == (1, 8) and not text.fits("a" * 10**7)


@pytest.mark.parametrize("value", [[], {}, {"metrics": []}, {"metrics": {"a": "x"}}, {"metrics": {}, "data": 5}, "x"])
def test_an_evaluation_is_a_record(tmp_path, value):
    write_json(tmp_path / "evaluation.json", value)
    refused(evaluation_of, tmp_path, match="evaluation.json")
    write_json(tmp_path / "best.json", value)
    refused(best_of, tmp_path, match="best.json")
