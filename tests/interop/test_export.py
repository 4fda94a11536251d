"""Runs of ours in the form of other projects, and back."""

import json

import pytest
import torch

import smalti
from smalti.apps.cli import main
from smalti.errors import SmaltiError
from smalti.interop import layouts
from smalti.interop.convert import converted
from smalti.interop.diffusers import FILES
from smalti.interop.weights import read_weights
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig, Preprocessing
from smalti.models.networks import VqganNetworks

NETWORKS = {"kind": "vqgan", "width": 8, "multipliers": (1, 2), "depth": 1, "groups": 4}
VECTORS = {"kind": "vector_quantizer", "codebook_size": 32, "code_dim": 4}
HOLDS = [  # networks, bottleneck, likelihood, channels
    ({}, {}, {}, 3),
    ({"attention": (), "middle": 2}, {"compare": "direction"}, {"scale": "predicted"}, 3),
    ({"multipliers": (1, 2, 4), "attention": (1, 2)}, {"learning": "simvq"}, {"kind": "laplace"}, 3),
    ({"latent_channels": 12, "depth": 2}, {"learning": "gradient"}, {"scale": 0.1}, 1),
    ({"multipliers": (1,), "decoder_depth": 2}, {"kind": "categorical"}, {}, 3),
]
REFUSED = [  # networks, bottleneck, likelihood, what the line says
    ({"patch": 2}, {}, {}, "have patch 1, and this model 2"),
    ({"details": {"down": "average"}}, {}, {}, "have down outer, and this model average"),
    ({"details": {"down": "symmetric"}}, {}, {}, "have down outer, and this model symmetric"),
    ({"details": {"shortcut": "after"}}, {}, {}, "have shortcut before, and this model after"),
    ({"last_kernel": 1}, {}, {}, "have last_kernel 3, and this model 1"),
    ({"decoder_depth": 1}, {}, {}, "have decoder_depth 2, and this model 1"),
    ({"details": {"bias": False}}, {}, {}, "have bias True, and this model False"),
    ({"grey": 0.0}, {}, {}, "have grey 0.5, and this model 0.0"),
    ({"has_decoder": False}, {}, {}, "have has_decoder True, and this model False"),
    ({"middle": 1}, {}, {}, "has 2 blocks in the middle, and this model 1"),
    ({"groups": 16}, {}, {}, "normalisations have 8 and 16 groups"),
    ({"kind": "residual"}, {}, {}, "has vqgan networks, and this model 'residual' ones"),
    ({}, {"compare": "product"}, {}, "is the nearest of its vectors, and those of 'vector_quantizer' are not"),
    ({}, {"kind": "fsq", "levels": (5, 5)}, {}, "those of 'fsq' are not"),
    ({}, {"kind": "residual_quantizer", "num_codebooks": 2}, {}, "those of 'residual_quantizer' are not"),
    ({}, {"kind": "gaussian", "channels": 4}, {}, "this model has no codes"),
    ({}, {}, {"kind": "logit_laplace"}, "train with a gaussian or a laplace"),
]


def model_of(networks, bottleneck, likelihood, channels=3):
    """An autoencoder whose codes are many different ones."""
    torch.manual_seed(0)
    own = {"width": 8, **networks} if "kind" in networks else {**NETWORKS, **networks}
    codes = bottleneck if {"levels", "channels"} & bottleneck.keys() else {**VECTORS, **bottleneck}
    preprocessing = Preprocessing(image_size=32, channels=channels)
    config = AutoencoderConfig(
        networks=own, bottleneck=codes, likelihood={"kind": "gaussian", **likelihood}, preprocessing=preprocessing
    )
    model = Autoencoder(config).eval()
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def outline_of(options):
    """The names of all tensors of vqgan networks, by ours."""
    networks = VqganNetworks(width=8, groups=4, **options)
    towers = {"encoder": networks.encoder(3, 4), "decoder": networks.decoder(4, 3)}
    return [
        *(f"{tower}.{name}" for tower, network in towers.items() for name in network.state_dict()),
        "codebook.weight",
    ]


LAYOUTS = {name: own for name, own in vars(layouts).items() if isinstance(own, layouts.Layout)}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_table_of_names_is_read_both_ways(name):
    ours = outline_of({"multipliers": (1, 2, 2), "depth": 2, "attention": (1, 2)})
    theirs = layouts.foreign(ours, LAYOUTS[name])
    assert len(set(theirs.values())) == len(theirs) > 100
    assert layouts.renamed(theirs.values(), LAYOUTS[name]) == {value: key for key, value in theirs.items()}


@pytest.mark.parametrize("parts", HOLDS, ids=str)
def test_ours_to_diffusers_and_back_is_the_same_model(parts, tmp_path):
    model = model_of(*parts)
    model.save_pretrained(tmp_path / "run")
    said = smalti.export(str(tmp_path / "run"), format="diffusers", out=str(tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    assert "0 of" in said["check"] and len(said["written"]) == 3
    again = converted(read_weights(str(tmp_path / "out")))
    assert again.left_out == {} and again.format.title.startswith("VQModel")
    images = torch.rand(4, parts[3], 48, 64, generator=torch.Generator().manual_seed(1))
    codes = model.encode(images)
    assert len(codes.unique()) > 8 and torch.equal(again.model.encode(images), codes)
    assert (again.model.decode(codes) - model.decode(codes)).abs().max() <= 1e-5
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["_class_name"] == "VQModel" and config["sample_size"] == 32 and config["in_channels"] == parts[3]


@pytest.mark.parametrize("parts", REFUSED, ids=lambda parts: parts[-1])
def test_what_diffusers_does_not_have_is_named_and_nothing_is_written(parts, tmp_path, capsys):
    *own, message = parts
    model_of(*own).save_pretrained(tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--format", "diffusers", "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_export_replaces_an_export_and_nothing_else(tmp_path):
    run, out = str(tmp_path / "run"), tmp_path / "out"
    model_of({}, {}, {}).save_pretrained(run)
    smalti.export(run, format="diffusers", out=str(out))
    before = (out / FILES[1]).read_bytes()
    with pytest.raises(SmaltiError, match="holds an export; --force replaces it"):
        smalti.export(run, format="diffusers", out=str(out))
    smalti.export(run, format="diffusers", out=str(out), force=True)
    assert (out / FILES[1]).read_bytes() == before
    with pytest.raises(SmaltiError, match=r"holds 'model.safetensors', which is of no export"):
        smalti.export(run, format="diffusers", out=run, force=True)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(SmaltiError, match="holds 'mine.txt', which is of no export"):
        smalti.export(run, format="diffusers", out=str(out), force=True)
    with pytest.raises(SmaltiError, match="is a file; --out is a folder here"):
        smalti.export(run, format="diffusers", out=str(out / "mine.txt"))


def test_a_model_of_others_says_how_it_is_converted(tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    model_of({}, {}, {}).save_pretrained(run)
    smalti.export(str(run), format="diffusers", out=str(out))
    with pytest.raises(SmaltiError, match=f"holds 'VQModel' of another library: `smalti convert {out} --out RUN`"):
        Autoencoder.from_pretrained(out)
    weights = out / FILES[1]
    with pytest.raises(SmaltiError, match=f"is a file, and a model is a folder: `smalti convert {weights} --out RUN`"):
        Autoencoder.from_pretrained(weights)
    (out / "config.json").unlink()
    with pytest.raises(SmaltiError, match=f"holds weights, and no model of smalti: `smalti convert {out} --out RUN`"):
        Autoencoder.from_pretrained(out)
    (out / "config.json").write_text('{"model_type": "janus"}')
    with pytest.raises(SmaltiError, match="holds 'janus' of another library"):
        smalti.encode(str(out), ["photo.png"], out=str(tmp_path / "codes.npz"))
    (run / "config.json").unlink()
    weights.unlink()
    (out / "config.json").unlink()
    with pytest.raises(SmaltiError, match="config.json is missing"):
        Autoencoder.from_pretrained(out)
