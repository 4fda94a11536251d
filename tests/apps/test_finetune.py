"""Trained further: what the model is stays, and of what is frozen every bit."""

import pytest
import torch

import smalti
from apps.test_encode import SYSTEMS
from smalti.apps.cli import main
from smalti.configs import to_dict
from smalti.errors import SmaltiError
from smalti.files import read_json, read_tensors
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig, Preprocessing
from smalti.recipes import dvae
from smalti.recipes.finetune import finetune
from smalti.schedules import constant

SHORT = {"steps": 2, "batch_size": 4, "validate_every": 0, "sample_every": 0}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folder of an untrained model of each system."""
    folder = tmp_path_factory.mktemp("models")
    for kind, options in SYSTEMS.items():
        torch.manual_seed(0)
        config = AutoencoderConfig(
            networks={"kind": "residual", "width": 8},
            bottleneck={"kind": kind, **options},
            preprocessing=Preprocessing(image_size=16),
        )
        model = Autoencoder(config)
        with torch.no_grad():
            for parameter in model.parameters():  # latents of zeros alone would have no gradient
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(folder / kind)
    return folder


def parts_changed(before, after):
    old, new = (read_tensors(folder / "model.safetensors")[0] for folder in (before, after))
    assert old.keys() == new.keys()
    return {name.partition(".")[0] for name in old if not torch.equal(old[name], new[name])}


@pytest.mark.parametrize("kind", SYSTEMS)
def test_what_is_frozen_stays_and_the_rest_moves(models, image_folder, tmp_path, kind):
    source = models / kind
    for freeze, still in (("none", set()), ("codebook", {"bottleneck"}), ("encoder", {"bottleneck", "encoder"})):
        try:
            experiment = finetune(start_from=str(source), data=str(image_folder), freeze=freeze)
        except SmaltiError as error:
            assert freeze == "codebook" and "has no effect on this model" in str(error)
            assert not [*Autoencoder.from_pretrained(source).bottleneck.state_dict()]
            continue
        smalti.train(experiment, tmp_path / freeze, **SHORT)
        changed = parts_changed(source, tmp_path / freeze)
        assert not changed & still and changed >= {"encoder", "decoder"} - still
    if hasattr(Autoencoder.from_pretrained(source).bottleneck, "codebook_size"):
        images = torch.rand(8, 3, 16, 16)
        before, after = (Autoencoder.from_pretrained(folder) for folder in (source, tmp_path / "encoder"))
        assert torch.equal(before.encode(images), after.encode(images))


def test_a_run_that_goes_on_has_the_same_bits_and_its_whole_model(models, image_folder, tmp_path):
    command = ["train", "finetune", "--from", str(models / "vector_quantizer"), "--data", str(image_folder)]
    command += ["--batch_size", "4", "--checkpoint_every", "1", "--sample_every", "0", "--validate_every", "0"]
    command += ["--image_size", "24", "--freeze", "codebook"]
    assert main([*command, "--steps", "4", "--out", str(tmp_path / "whole")]) == 0

    def cut(step):
        if step.step == 2:
            raise SystemError("power cut")

    experiment = finetune(
        start_from=str(models / "vector_quantizer"), data=str(image_folder), image_size=24, freeze="codebook"
    ).with_settings(batch_size=4, checkpoint_every=1, sample_every=0, validate_every=0, steps=4)
    with pytest.raises(SystemError):
        smalti.train(experiment, tmp_path / "run", on_step=cut)
    assert main([*command, "--steps", "4", "--out", str(tmp_path / "run")]) == 0
    assert parts_changed(tmp_path / "whole", tmp_path / "run") == set()
    told = read_json(tmp_path / "run" / "experiment.json")
    source = Autoencoder.from_pretrained(models / "vector_quantizer")
    assert told["model"]["bottleneck"] == to_dict(source.config)["bottleneck"] and told["freeze"] == "codebook"
    assert told["start"]["hash"] == source.source_hash
    assert Autoencoder.from_pretrained(tmp_path / "run").config.preprocessing.image_size == 24


def test_another_model_is_another_run(models, image_folder, tmp_path):
    given = {"data": str(image_folder)}
    smalti.train(finetune(start_from=str(models / "fsq"), **given), tmp_path, **SHORT)
    other = tmp_path / "other"
    model = Autoencoder.from_pretrained(models / "fsq")
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.save_pretrained(other)
    with pytest.raises(SmaltiError, match=r"start.hash: .* choose another --out"):
        smalti.train(finetune(start_from=str(other), **given), tmp_path, **SHORT)
    with pytest.raises(SmaltiError, match="is --out itself"):
        smalti.train(finetune(start_from=str(other), **given), other, **SHORT)


def test_schedules_stay_where_they_ended(image_folder, tmp_path):
    trained = dvae(data=str(image_folder), image_size=16, width=8, codebook_size=16, beta=2.0, beta_warmup=0.5)
    smalti.train(trained, tmp_path, **SHORT)
    further = finetune(start_from=str(tmp_path), data=str(image_folder))
    assert further.loss.beta == constant(2.0)
    model = Autoencoder(further.model)
    assert {model.bottleneck.anneal(step, 10)["temperature"] for step in range(10)} == {1 / 16}
    assert finetune(start_from=str(tmp_path), data=str(image_folder), beta=3.0).loss.beta == constant(3.0)


def test_what_is_no_model_to_begin_with_is_named(models, image_folder, tmp_path, capsys):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text('{"_class_name": "VQModel"}')
    for begin, message in (
        ([], "name it, --from RUN"),
        (["--from", str(tmp_path / "none")], "no such folder"),
        (["--from", str(tmp_path / "theirs")], "smalti convert"),
    ):
        capsys.readouterr()
        argv = ["train", "finetune", "--data", str(image_folder), "--out", str(tmp_path / "run"), *begin]
        assert main(argv) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert message in line and not (tmp_path / "run").exists()
