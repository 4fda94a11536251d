"""Probes tell a linear label, tell nothing from shuffled ones, and equal numpy; PCA reconstructs as numpy does."""

import json
import struct
import sys

import numpy as np
import pytest
import torch

import reference
from smalti.apps.cli import main
from smalti.errors import SmaltiError
from smalti.evaluation.pca import most_dims, pca_reconstructions
from smalti.evaluation.probes import code_histograms, knn_probe, linear_probe, probe
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import BOTTLENECKS
from smalti.models.config import AutoencoderConfig, Preprocessing
from smalti.recipes import ae
from smalti.reports.model_card import model_card

BOTTLENECK = {"kind": "residual_quantizer", "codebook_size": 16, "code_dim": 4, "num_codebooks": 2}


def write_idx(path, values):
    path.write_bytes(
        b"\x00\x00\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise of 8x8 whose class says whether its left half is brighter than its right one; and models."""
    folder, rng = tmp_path_factory.mktemp("idx"), np.random.default_rng(0)
    for data, shuffled in (("linear", False), ("shuffled", True)):
        (folder / data).mkdir()
        for stem, count in (("train", 720), ("t10k", 300)):
            pixels = rng.integers(60, 196, (count, 8, 8)).astype(np.uint8)
            labels = rng.integers(0, 2, count).astype(np.uint8)
            pixels[:, :, :4] += (40 * labels).astype(np.uint8)[:, None, None]
            write_idx(folder / data / f"{stem}-images-idx3-ubyte", pixels)
            write_idx(folder / data / f"{stem}-labels-idx1-ubyte", rng.permutation(labels) if shuffled else labels)
    for name, bottleneck in (("ae", {"kind": "identity", "channels": 4}), ("rvq", BOTTLENECK)):
        make(bottleneck).save_pretrained(folder / name)
    return folder


def make(bottleneck):
    torch.manual_seed(0)
    networks = {"kind": "residual", "width": 8, "depth": 1, "convolutions": 2}
    preprocessing = Preprocessing(image_size=8, channels=1)
    return Autoencoder(AutoencoderConfig(networks=networks, bottleneck=bottleneck, preprocessing=preprocessing))


def test_a_linear_label_is_told_and_a_shuffled_one_is_not(folder):
    for data, low, high in (("linear", 0.97, 1.0), ("shuffled", 0.35, 0.65)):
        found = probe(make(BOTTLENECK), str(folder / data), "test", "class", num_images=600)
        rows = {row["representation"]: row for row in found["rows"]}
        assert list(rows) == ["pixels", "pca", "latents", "pooled latents", "code histogram"]
        assert [row["dims"] for row in rows.values()] == [64, 16, 16, 4, 32]
        for name in ("pixels", "pca"):
            assert low <= rows[name]["linear_accuracy"] <= high and low <= rows[name]["knn_accuracy"] <= high
        counts = [found[name] for name in ("num_labels", "num_train", "num_validation", "num_test", "k")]
        assert counts == [2, 600, 60, 300, 5] and 0.3 < found["majority_accuracy"] < 0.7
        for row in found["rows"]:
            accuracy = row["linear_accuracy"]
            assert row["linear_standard_error"] == pytest.approx((accuracy * (1 - accuracy) / 300) ** 0.5)


def test_neighbours_equal_numpy():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(60, 5)), rng.normal(size=(40, 5))
    labels, wanted = rng.integers(0, 3, 60).astype(str), rng.integers(0, 3, 40).astype(str)
    said = reference.nearest_labels(train, labels, test, 5)
    assert knn_probe(train, labels, test, wanted) == (said == wanted).mean()


def test_the_strength_is_chosen_on_the_validation_rows_not_on_the_test_rows():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 40, 30))
    labels = (rows[..., 0] > 0).astype(str)
    parts, texts = (rows[0], rows[1], rows[2]), (labels[0], labels[1], labels[2])
    _, strength = linear_probe(parts, texts)
    assert linear_probe((rows[0], rows[1], rows[1]), (labels[0], labels[1], labels[1]))[1] == strength
    turned = np.where(labels[2] == "True", "False", "True")
    assert linear_probe(parts, (labels[0], labels[1], turned))[1] == strength


def test_histograms_are_those_of_numpy():
    bottleneck = BOTTLENECKS.build(BOTTLENECK)
    codes = torch.randint(0, 16, (3, 2, 4, 4))
    expected = [np.concatenate([np.bincount(grid.ravel(), minlength=16) for grid in image]) for image in codes.numpy()]
    assert np.array_equal(code_histograms(bottleneck, codes).numpy(), expected)


def test_evaluate_writes_and_prints_the_probes(folder, capsys):
    argv = ["evaluate", str(folder / "ae"), "--data", str(folder / "linear"), "--probe", "class"]
    assert main([*argv, "--probe_images", "200"]) == 0
    out = capsys.readouterr().out
    assert "pooled latents" in out and "5 nearest" in out and "psnr_db" in out
    evaluation = json.loads((folder / "ae" / "evaluation.json").read_text())
    written = evaluation["probes"]
    first = written["rows"][0]
    row = f"| pixels | 64 | {first['linear_accuracy']:.1%} | {first['knn_accuracy']:.1%} |"
    assert row in model_card(make(BOTTLENECK), ae(), evaluation)
    assert written["num_train"] == 200 and written["label"] == "class" and len(written["rows"]) == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--probe", "group"], "no labels of the kind 'group'; it has: class"),
        (["--probe", "class", "--split", "validation"], "with it --split is test, not validation"),
        (["--probe_images", "5"], "has no effect without --probe"),
    ],
)
def test_what_cannot_be_probed_is_refused(folder, capsys, more, message):
    assert main(["evaluate", str(folder / "ae"), "--data", str(folder / "linear"), *more]) == 1
    assert message in capsys.readouterr().err


def test_without_scikit_learn_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(SmaltiError, match=r"pip install 'smalti\[probes\]'"):
        probe(make(BOTTLENECK), str(folder / "linear"), "test", "class")
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    with pytest.raises(SmaltiError, match=r"pip install 'smalti\[probes\]'"):
        pca_reconstructions(torch.rand(9, 1, 4, 4), torch.rand(2, 1, 4, 4), 3)


def test_pca_equals_a_singular_value_decomposition():
    train, images = torch.rand(50, 3, 4, 4), torch.rand(6, 3, 4, 4)
    found = pca_reconstructions(train, images, 10)
    rows = train.flatten(1).double().numpy()
    components = np.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][:10]
    centred = images.flatten(1).double().numpy() - rows.mean(0)
    expected = (centred @ components.T @ components + rows.mean(0)).clip(0, 1).reshape(6, 3, 4, 4)
    np.testing.assert_allclose(found.images.numpy(), expected, atol=1e-5)
    psnr = [reference.psnr_db(a, b) for a, b in zip(images.numpy(), expected, strict=True)]
    assert found.psnr_db == pytest.approx(np.mean(psnr), abs=1e-3) and (found.dims, found.num_train) == (10, 50)


def test_pca_that_reduces_nothing_is_refused():
    assert most_dims(20, 48) == 18 and most_dims(200, 48) == 47
    train, images = torch.rand(20, 3, 4, 4), torch.rand(2, 3, 4, 4)
    assert pca_reconstructions(train, images, 18).images.shape == images.shape
    with pytest.raises(SmaltiError, match="PCA to 19 dimensions of 20 training images of 48 values reduces nothing"):
        pca_reconstructions(train, images, 19)
    with pytest.raises(SmaltiError, match="train_images must be"):
        pca_reconstructions(train[..., :2], images, 3)
