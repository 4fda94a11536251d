"""Graphs give what the model gives, of every bottleneck, network and prior; what torch.export makes likewise."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from golden_models import read, weights

from conftest import own_members
from laws.members import DISCRETE, MEMBERS
from smalti.apps.export import export
from smalti.errors import SmaltiError
from smalti.files import read_json
from smalti.images.preprocessing import Preprocessing
from smalti.interop import onnx
from smalti.interop.convert import converted
from smalti.interop.onnx import Encoder, Graph
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import VectorQuantizer
from smalti.models.bottlenecks.estimators import CATEGORICAL
from smalti.models.config import AutoencoderConfig
from smalti.ops.nearest import nearest_code, nearest_code_reference
from smalti.priors import family
from smalti.priors.base import Conditions
from smalti.priors.code_model import CodeModel
from smalti.priors.config import PriorConfig
from smalti.priors.transformer import Transformer

SIDE = 16
NETWORKS = {
    "strided": {"kind": "strided", "stride": 4, "width": 8, "depth": 1, "residual_channels": 4},
    "residual": {"kind": "residual", "stride": 4, "width": 8, "depth": 1, "patch": 2, "last_kernel": 3,
                 "padding": "replicate"},
    "vqgan": {"kind": "vqgan", "width": 8, "multipliers": (1, 2, 2), "depth": 1, "groups": 4},
    "vqgan shuffled": {"kind": "vqgan", "width": 8, "multipliers": (1, 2), "depth": 1, "groups": 4, "patch": 2,
                       "attention": (), "details": {"up": "shuffle", "down": "symmetric", "adaptive": True,
                                                    "shortcut": "after"}},
    "mlp": {"kind": "mlp", "image_size": SIDE, "hidden": (12,), "grid": (2, 2)},
}  # fmt: skip
CONVERTED = ("cosmos", "openai")  # which differ in most, and are small
SMALL = {"kind": "strided", "stride": 4, "width": 8, "depth": 0, "residual_channels": 4}
CODES = {"kind": "vector_quantizer", "codebook_size": 24, "code_dim": 6}
PRIORS = {
    "uniform none": ({"kind": "uniform"}, Conditions()),
    "pixelcnn classes": ({"kind": "pixelcnn", "channels": 8, "layers": 2}, Conditions(3)),
    "pixelsnail classes": ({"kind": "pixelsnail", "channels": 8, "blocks": 1, "heads": 1}, Conditions(3)),
    "masked_pixelcnn none": ({"kind": "masked_pixelcnn", "channels": 8, "layers": 2}, Conditions()),
    "transformer none": ({"kind": "transformer", "width": 8, "layers": 1, "heads": 2}, Conditions()),
    "transformer text": ({"kind": "transformer", "width": 8, "layers": 1, "heads": 2}, Conditions(9, 3)),
    "histogram none": ({"kind": "histogram"}, Conditions()),
    "maskgit none": ({"kind": "maskgit", "width": 8, "layers": 1, "heads": 2}, Conditions()),
    "maskgit classes": ({"kind": "maskgit", "width": 8, "layers": 1, "heads": 2}, Conditions(3)),
}


def model_of(networks, bottleneck, channels=3):
    """An autoencoder whose codebook, where it has one, has seen features, so that no two codes are nearly alike."""
    torch.manual_seed(1)
    config = AutoencoderConfig(
        networks=networks, bottleneck=bottleneck, preprocessing=Preprocessing(image_size=SIDE, channels=channels)
    )
    model = Autoencoder(config)
    model(torch.rand(8, channels, SIDE, SIDE))
    return model.eval()


@pytest.fixture(scope="module", autouse=True)
def installed(exporter):
    """For every test of this file."""


def agree(model, folder, size=(SIDE + 2 * 8, SIDE + 8), tie=1e-6):
    found = onnx.write(model, folder)
    assert found["largest_difference"] < 10 * tie
    size = model.networks.fixed_size or size  # another number of images, another size than in tracing
    images = torch.rand(5, model.config.preprocessing.channels, *size)
    encoder, decoder = (
        Graph(folder / name) if (folder / name).exists() else None for name in (onnx.ENCODER, onnx.DECODER)
    )
    with torch.no_grad():
        found = onnx.differences(model, encoder, decoder, images, tie)
        ours, theirs = Encoder(model)(images), encoder(images)
    assert theirs.shape == ours.shape and theirs.dtype == ours.dtype
    assert found.faults == 0 and found.largest < 10 * tie and (found.codes > 0) == (ours.dtype == torch.int64)
    return read_json(folder / onnx.RECORD)


TRAINING = ("rotation", "nsvq", "diveq", "dropout", *CATEGORICAL)  # what is the same as another member in use
IN_USE = [name for name in MEMBERS if not name.endswith(TRAINING)]


@pytest.mark.parametrize("name", IN_USE)
def test_every_bottleneck(name, tmp_path):
    model = model_of(SMALL, MEMBERS[name])
    about = agree(model, tmp_path)
    if name not in DISCRETE:
        assert about["latents"] == model.bottleneck.out_channels and not (tmp_path / onnx.CODEBOOK).exists()
        return
    vectors = np.load(tmp_path / onnx.CODEBOOK)
    assert vectors.shape[:2] == (about["num_codebooks"], about["codebook_size"])


@pytest.mark.parametrize("name", NETWORKS)
def test_all_networks(name, tmp_path):
    about = agree(model_of(NETWORKS[name], CODES), tmp_path)
    assert about["fixed_size"] == ([SIDE, SIDE] if name == "mlp" else None)


@pytest.mark.parametrize("name", CONVERTED)
def test_converted_models(name, tmp_path):
    model = converted(weights(read(name))).model.eval()
    about = agree(model, tmp_path, size=(32, 48), tie=1e-5)  # with attention and norms rounding is as large
    assert about["has_decoder"] == model.networks.has_decoder


def test_images_of_any_number_of_channels(tmp_path):
    for channels in (1, 5):
        (folder := tmp_path / str(channels)).mkdir()
        assert agree(model_of(SMALL, CODES, channels), folder)["channels"] == channels


def test_a_graph_that_gives_other_values_is_refused(tmp_path, monkeypatch):
    model, other = model_of(SMALL, CODES), model_of(SMALL, {**CODES, "code_dim": 5})
    onnx.write(other, tmp_path)
    graph = Graph(tmp_path / onnx.ENCODER)
    monkeypatch.setattr(onnx, "Graph", lambda path: graph if path.name == onnx.ENCODER else Graph(path))
    with pytest.raises(SmaltiError, match=r"codes differ.*nothing is written"):
        onnx.write(model, tmp_path)


def test_what_cannot_be_exported_says_so(tmp_path, monkeypatch, capfd):
    model = model_of(SMALL, CODES)
    monkeypatch.setattr(type(model.bottleneck), "_decode", lambda self, codes: torch.zeros(int(codes.max()), 6, 1, 1))
    with pytest.raises(
        SmaltiError, match=r"^decoder\.onnx cannot be made of this model: .*must not look at values"
    ) as told:
        onnx.write(model, tmp_path)
    assert "\n" not in str(told.value) and capfd.readouterr() == ("", "")
    monkeypatch.setattr(onnx, "LARGEST_BYTES", 1000)
    with pytest.raises(SmaltiError, match=r"2 GB of weights or more.*torch\.export can$"):
        onnx.write(model, tmp_path)


def test_the_verb_leaves_nothing_of_an_earlier_export(tmp_path):
    model_of(SMALL, CODES).save_pretrained(tmp_path / "discrete")
    model_of(SMALL, MEMBERS["gaussian"]).save_pretrained(tmp_path / "continuous")
    out = tmp_path / "out"
    first = export(str(tmp_path / "discrete"), format="onnx", out=str(out))
    assert {Path(name).name for name in first["written"]} == {path.name for path in out.iterdir()}
    with pytest.raises(SmaltiError, match="--force replaces it"):
        export(str(tmp_path / "continuous"), format="onnx", out=str(out))
    second = export(str(tmp_path / "continuous"), format="onnx", out=str(out), force=True)
    assert {Path(name).name for name in second["written"]} == {path.name for path in out.iterdir()}
    assert len(second["written"]) == len(first["written"]) - 1
    with pytest.raises(SmaltiError, match="this model has no codes"):
        export(str(tmp_path / "continuous"), format="html", out=str(tmp_path / "page"))
    assert not (tmp_path / "page").exists()


def test_an_encoder_alone_has_one_graph(tmp_path):
    networks, bottleneck = {**NETWORKS["vqgan"], "has_decoder": False}, {**CODES, "start": "random"}
    config = AutoencoderConfig(networks=networks, bottleneck=bottleneck, preprocessing=Preprocessing(image_size=SIDE))
    onnx.write(Autoencoder(config).eval(), tmp_path)
    assert (tmp_path / onnx.ENCODER).exists() and not (tmp_path / onnx.DECODER).exists()


# ------------------------------------------------------------------ torch.export


@pytest.mark.parametrize("name", [name for name in DISCRETE if name in IN_USE])
def test_what_torch_export_makes_has_no_operator_of_ours_and_any_size(name):
    model = model_of(SMALL, MEMBERS[name])
    batch, rows, columns = (torch.export.Dim(word) for word in ("batch", "rows", "columns"))
    sizes = ({0: batch, 2: 4 * rows, 3: 4 * columns},)
    program = torch.export.export(Encoder(model), (torch.rand(2, 3, 16, 20),), dynamic_shapes=sizes)
    assert "smalti" not in str(program.graph)
    images = torch.rand(3, 3, 12, 28)
    assert (program.module()(images) != Encoder(model)(images)).sum() <= 1  # a tie, of "dvae distance"


@pytest.mark.filterwarnings(
    "ignore:No complete tensor"
)  # of weights in channels_last, which are stored whole all the same
def test_a_saved_program_gives_the_same_codes_where_there_is_no_smalti(tmp_path):
    model, images = model_of(SMALL, MEMBERS["residual"]), torch.rand(3, 3, 12, 28)
    program = torch.export.export(Encoder(model), (images,))
    torch.export.save(program, tmp_path / "encoder.pt2")
    torch.save(images, tmp_path / "images.pt")
    text = (
        "import sys; sys.modules['smalti'] = None\n"
        "import torch\n"
        "program = torch.export.load('encoder.pt2')\n"
        "torch.save(program.module()(torch.load('images.pt')), 'codes.pt')\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", text], cwd=tmp_path, check=True)
    assert torch.equal(torch.load(tmp_path / "codes.pt"), Encoder(model)(images))


class Nearest(torch.nn.Module):
    def forward(self, features, codebook, bias):
        return nearest_code(features, codebook, bias)


@pytest.mark.parametrize("size", [9, 300])
def test_the_exported_form_of_nearest_code_is_the_reference(size, tmp_path):
    """On whole numbers, whose scores are exact in any order, so that there are ties; in PyTorch and in onnxruntime."""
    generator = torch.Generator().manual_seed(0)
    whole = [torch.randint(-2, 3, shape, generator=generator).float() for shape in ((40, 3), (size, 3), (size,))]
    features, codebook, bias = whole
    features[3, 1], codebook[6], codebook[size - 2], bias[1] = (float("nan"),) * 4
    codebook[5] = codebook[4]
    bias[5] = bias[4] = 3
    sizes = {"features": {0: torch.export.Dim("number")}, "codebook": None, "bias": None}
    program = torch.export.export(Nearest(), (features, codebook, bias), dynamic_shapes=sizes)
    inputs = {"features": features, "codebook": codebook, "bias": bias}
    onnx._graph(Nearest(), inputs, sizes, "codes", tmp_path / "nearest.onnx")
    graph = Graph(tmp_path / "nearest.onnx")
    for part in (features, features[:7], features[3:4], features[:0]):
        wanted = nearest_code_reference(part, codebook, bias)
        assert torch.equal(nearest_code(part, codebook, bias), wanted)
        for found in (program.module(), graph):
            assert torch.equal(found(part, codebook, bias), wanted)
    assert len(wanted) == 0 and len(nearest_code_reference(features, codebook, bias).unique()) > 2


@pytest.mark.parametrize(("margin", "tie"), [(1e-7, True), (5e-7, True), (1e-5, False), (1e-3, False)])
def test_a_tie_is_a_millionth_away(margin, tie):
    """Of features beside the plane between two code vectors, as far from it as said, in units of their own size."""
    bottleneck = VectorQuantizer(codebook_size=2, code_dim=4, start="random").eval()
    bottleneck.load_vectors(torch.tensor([[-1.0, 0, 0, 0], [1, 0, 0, 0]]))
    features = torch.tensor([[margin, 2.0, 0, 0], [0.5, 2, 0, 0]]).T[None, :, None]
    ours, theirs = bottleneck.encode(features), torch.tensor([[[0, 1]]])
    assert ours.tolist() == [[[1, 1]]]
    assert onnx.code_faults(bottleneck, features, ours, theirs, 1e-6) == ((0, 1) if tie else (1, 0))


# ------------------------------------------------------------------ priors


@pytest.mark.parametrize("name", PRIORS)
def test_logits_of_priors(name, tmp_path):
    spec, conditions = PRIORS[name]
    config = PriorConfig(
        prior=spec, codebook_size=24, grid=(3, 4), tokenizer="somewhere", tokenizer_hash="0" * 64,
        labels=("one", "two", "three") if conditions == Conditions(3) else (),
    )  # fmt: skip
    model = CodeModel(config).eval()
    if conditions.length:  # as a text tokenizer would have it
        options = {name: value for name, value in spec.items() if name != "kind"}
        model.prior = Transformer(codebook_size=24, grid=(3, 4), text_vocabulary=9, text_length=3, **options).eval()
    assert onnx.write(model, tmp_path)["largest_difference_nats"] < 1e-5
    inputs = {"codes": torch.randint(24, (5, 3, 4))}
    if not model.prior.causal:
        inputs["known"] = torch.rand(5, 3, 4) < torch.tensor([0, 0.2, 0.5, 0.9, 1]).view(5, 1, 1)
    if conditions.count:
        shape = (5, conditions.length) if conditions.length else (5,)
        inputs["condition"] = torch.randint(-1, conditions.count, shape)
    assert read_json(tmp_path / onnx.RECORD)["inputs"] == list(inputs)
    with torch.no_grad():
        ours, theirs = model.prior.logits(**inputs), Graph(tmp_path / onnx.LOGITS)(*inputs.values())
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


def test_every_prior_of_the_family_is_there():
    assert {spec["kind"] for spec, _ in PRIORS.values()} == set(family.PRIORS) - set(own_members(family.PRIORS))


def test_a_prior_without_logits_is_refused(tmp_path, monkeypatch):
    model = CodeModel(PriorConfig(prior={"kind": "uniform"}, codebook_size=24, grid=(3, 4), tokenizer="x",
                                  tokenizer_hash="0" * 64))  # fmt: skip
    monkeypatch.setattr(onnx, "CausalPrior", family.MaskedPrior)
    with pytest.raises(SmaltiError, match=r"^Uniform has no logits: derive it from CausalPrior or MaskedPrior$"):
        onnx.write(model, tmp_path)
