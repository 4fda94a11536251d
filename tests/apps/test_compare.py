"""`smalti compare` and `smalti estimators`, in process."""

import itertools
import json
import re
import shutil
import struct

import numpy as np
import pytest
import torch

from smalti.apps.cli import main
from smalti.apps.evaluate import evaluate
from smalti.evaluation import distances, perception
from smalti.reports.compared import System
from smalti.reports.comparison_page import flag_rates

SYSTEMS = ("ae", "vae", "vqvae", "dvae", "fsq", "lfq", "bsq", "rvq", "pq")
SMALL = ["--image_size", "16", "--width", "8", "--steps", "3", "--batch_size", "4", "--codebook_size", "64"]
PRIORS = {"vqvae + pixelcnn", "vqvae + pixelsnail", "dvae + transformer"}
SECTIONS = ("The systems", "Reconstructions", "Distortion", "Artefacts", "Rate and distortion", "Generation",
            "The priors", "Between two images", "How gradients pass", "The relaxation gap of dvae", "Use of the codes",
            "The codes in pictures", "Cost", "All numbers")  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def few_resamples():
    """The bootstrap of the distances, which no test here looks at, takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "RESAMPLES", 2)
        yield


@pytest.fixture(scope="module")
def compared(tmp_path_factory, image_folder):
    out = tmp_path_factory.mktemp("compare")
    command = ["compare", "--data", str(image_folder), "--out", str(out), "--systems", ",".join(SYSTEMS), *SMALL]
    command += ["--prior_steps", "2"]
    assert main(command) == 0
    return out, command


def test_every_system_is_measured_at_the_same_rate(compared):
    found = json.loads((compared[0] / "comparison.json").read_text())
    assert set(found["systems"]) == set(SYSTEMS)
    assert found["unequal_rates"] == []
    for name, system in found["systems"].items():
        assert system["bits_per_image"] == (None if name in ("ae", "vae") else 4 * 4 * 6)
        assert system["seeds"][0]["psnr_db"] > 0
        assert system["gradient_noise"]["cosine"] <= 1.0001
    assert found["systems"]["ae"]["gradient_noise"]["relative_deviation"] == pytest.approx(0, abs=1e-5)
    assert found["systems"]["vae"]["gradient_noise"]["relative_deviation"] > 0
    assert len(found["systems"]["rvq"]["rate_distortion"]) == 3


def test_the_report_holds_everything_itself(compared):
    page = (compared[0] / "report.html").read_text()
    links = re.findall(r'(?:src|href)="([^"]{0,20})', page)
    assert links and all(link.startswith(("data:", "#")) for link in links)
    places = [page.index(f"<h2>{section}</h2>") for section in SECTIONS]
    assert places == sorted(places)
    parts = dict(zip(SECTIONS, (page[place:end] for place, end in itertools.pairwise([*places, None])), strict=True))
    discrete = [name for name in SYSTEMS if name not in ("ae", "vae")]
    for section, part in parts.items():
        of_codes = section in ("Use of the codes", "The codes in pictures")
        if section not in ("The priors", "The relaxation gap of dvae"):
            assert all(name in part for name in (discrete if of_codes else SYSTEMS)), section
    assert all(title in parts["Generation"] and title in parts["The priors"] for title in PRIORS)
    assert parts["Generation"].count("<img") == len(SYSTEMS) + len(PRIORS) + 1  # and real images
    assert parts["Between two images"].count("<img") == len(SYSTEMS) + 1  # the test split has less than four images


def test_each_claim_has_its_measurement(compared):
    found = json.loads((compared[0] / "comparison.json").read_text())
    table = {row.pop("system"): row for row in found["table"]}
    assert set(table) == set(SYSTEMS)
    for name, row in table.items():
        assert all(cell["claim"] for cell in row.values())
        unmeasured = [key for key, cell in row.items() if not cell["measured"]]
        assert unmeasured == (["gradient_stop"] if name == "ae" else [])
        path = found["systems"][name]["gradient_path"]
        assert path["passed"] > 0 and path["blocked"] == (None if name == "ae" else 0)
    vqvae, ae = table["vqvae"], table["ae"]
    assert "4 x 4 codes, K = 64: 96 bits an image" in vqvae["latent_space"]["measured"]
    assert f"{found['systems']['ae']['seeds'][0]['psnr_db']:.2f} dB" in ae["purpose"]["measured"]
    apart = {row["name"]: row["fd_effnet"] for row in found["generation"]}
    assert f"pixelcnn {apart['vqvae + pixelcnn']:.2f}" in vqvae["generation"]["measured"]
    assert f"noise {apart['ae, noise like its latents']:.2f}" in ae["generation"]["measured"]
    (pca,) = found["pca"]
    assert pca["dims"] == 16 * 4 * 4 and "reduces nothing" in pca["left_out"]
    rows = found["systems"]["dvae"]["relaxation"]["rows"]
    assert [row["temperature"] for row in rows] == sorted((row["temperature"] for row in rows), reverse=True)
    assert found["systems"]["vqvae"]["relaxation"] is None


def test_its_distances_are_those_of_evaluate(compared):
    """The same samples, one by one, of p(z), of a prior, and of reconstructions."""
    found = json.loads((compared[0] / "comparison.json").read_text())
    rows = {row["name"]: row for row in found["generation"]}
    num = found["num_generated"]
    runs = compared[0] / "runs"
    again = shutil.copytree(runs, compared[0] / "copies")  # evaluations of their own
    for run, name in (("vae-0", "vae, z from p(z)"), ("vqvae-0-pixelcnn", "vqvae + pixelcnn")):
        metrics = evaluate(str(again / run), samples=num)["metrics"]
        for metric in ("fd_effnet", "kid_effnet"):
            assert rows[name][metric] == pytest.approx(metrics[f"sample_{metric}"], rel=1e-4)
            assert rows["real images of another split"][metric] == pytest.approx(metrics[f"real_{metric}"], rel=1e-4)
    assert rows["vqvae, reconstructions"]["fd_effnet"] == pytest.approx(metrics["reconstruction_fd_effnet"], rel=1e-4)
    shutil.rmtree(again)


def test_priors_are_measured_in_bits(compared):
    found = json.loads((compared[0] / "comparison.json").read_text())["priors"]
    assert {prior["name"] for prior in found} == PRIORS
    for prior in found:
        assert prior["bits_per_code"] > 0 and prior["uniform_bits_per_code"] == 6
        assert prior["share_of_histogram"] == pytest.approx(prior["bits_per_code"] / prior["histogram_bits_per_code"])


def test_grey_images_without_priors_or_networks(tmp_path, monkeypatch, capsys):
    """As grey as their data; where there are no more pixels than latents, PCA says so."""
    monkeypatch.setitem(perception.NETWORKS, "effnet", Missing)
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (tmp_path / name).write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, *images.shape) + images.tobytes())
    command = ["compare", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *SMALL, "--image_size", "28"]
    assert main([*command, "--systems", "ae,fsq,rvq", "--priors", "none", "--seeds", "2"]) == 0
    assert "no perceptual distances" in capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    page = (tmp_path / "out" / "report.html").read_text()
    assert found["priors"] == [] and "<h2>The priors</h2>" not in page
    assert all(set(row) == {"name", "kind", "system", "prior"} for row in found["generation"])
    assert "Distances of sets are left out" in page and "784 values of an image: nothing is reduced" in page
    assert len(found["systems"]["fsq"]["seeds"]) == 2
    config = json.loads((tmp_path / "out" / "runs" / "ae-0" / "config.json").read_text())
    assert config["preprocessing"]["channels"] == 1


class Missing(perception.EffNet):
    def __init__(self, device):
        raise ImportError("no such package")


def test_it_goes_on_where_it_stopped_and_returns_its_table(compared, capsys):
    out, command = compared
    before = (out / "comparison.json").read_text()
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/evaluation.json")}
    assert len(stamps) == len(SYSTEMS) + len(PRIORS)
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    returned = json.loads(capsys.readouterr().out)
    written = json.loads((out / "comparison.json").read_text())
    assert all(returned[name] == written[name] for name in ("table", "generation", "priors"))
    assert written == json.loads(before)
    assert stamps == {path: path.stat().st_mtime_ns for path in out.glob("runs/*/evaluation.json")}


def test_unequal_rates_are_flagged():
    def system(name, bits):
        return System(name, [], [], [], None, None, None, [], [], 0.0, None, bits)  # pyright: ignore[reportArgumentType]

    assert flag_rates([system("ae", None), system("vqvae", 576.0), system("fsq", 576.0)]) == []
    assert "fsq spends 600 bits an image, vqvae 576" in flag_rates([system("vqvae", 576.0), system("fsq", 600.0)])[0]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--systems", "vqvae,gan"], "unknown recipe 'gan'"),
        (["--systems", "ae,mnist_vae"], "mnist_vae cannot be compared: got an unexpected keyword argument"),
        (["--systems", "pixelcnn"], "pixelcnn cannot be compared: missing a required argument: 'tokenizer'"),
        (["--systems", "ae,ae"], "different names separated by commas, not 'ae,ae'"),
        (["--codebook_size", "500"], "power of two, at least 4, not 500"),
        (["--seeds", "0"], "seeds must be at least 1, not 0"),
        (["--priors", "vqvae"], "priors are SYSTEM:RECIPE with commas, or none; not 'vqvae'"),
        (["--priors", "vqva:pixelcnn"], "needs 'vqva' among --systems; did you mean 'vqvae'?"),
        (["--priors", "vqvae:pixelcn"], "unknown recipe 'pixelcn'; did you mean 'pixelcnn'?"),
        (["--priors", "vqvae:dvae"], "vqvae:dvae: dvae is no recipe of a prior"),
        (["--priors", "vae:pixelcnn"], "the prior vae:pixelcnn has nothing to model: this model has no codes"),
        (["--priors", "dvae:pixelcnn,dvae:pixelcnn"], "priors must be different, not dvae:pixelcnn twice"),
        (["--priors", "none", "--prior_steps", "3"], "prior_steps 3 has no effect without priors"),
        (["--systems", "ae,fsq", "--prior_steps", "3"], "prior_steps 3 has no effect without priors"),
    ],
)
def test_bad_options_are_one_line_errors(capsys, tmp_path, option, message):
    assert main(["compare", "--data", "emoji", "--out", str(tmp_path / "new"), *option]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_lab_draws_its_page(tmp_path, image_folder, capsys):
    run = tmp_path / "run"
    options = ["--steps", "3", "--variables", "2", "--classes", "3", "--batch_size", "4"]
    assert main(["train", "emoji_categorical", "--data", str(image_folder), "--out", str(run), *options]) == 0
    command = ["estimators", "--run", str(run), "--data", str(image_folder), "--out", str(tmp_path / "lab")]
    assert main([*command, "--num_images", "2", "--draws", "64"]) == 0
    results = json.loads((tmp_path / "lab" / "estimators.json").read_text())["results"]
    assert {one["estimator"] for one in results} >= {"gumbel_softmax", "reinmax", "reinforce"}
    assert "<svg" in (tmp_path / "lab" / "estimators.html").read_text()
    capsys.readouterr()
    assert main([*command, "--draws", "1"]) == 1
    assert "draws must be at least 2, not 1" in capsys.readouterr().err


def test_the_lab_shows_a_model_the_binary_images_that_it_was_trained_on(tmp_path, monkeypatch):
    from smalti.evaluation import estimators

    shown = []
    study = estimators.study
    monkeypatch.setattr(
        estimators, "study", lambda model, images, **more: shown.append(images) or study(model, images, **more)
    )
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(
        struct.pack(">4B3I", 0, 0, 8, 3, *images.shape) + images.tobytes()
    )
    (tmp_path / "train-images-idx3-ubyte").write_bytes((tmp_path / "t10k-images-idx3-ubyte").read_bytes())
    run = ["--data", str(tmp_path), "--out", str(tmp_path / "run"), "--steps", "2", "--batch_size", "4"]
    small = ["--variables", "1", "--classes", "3", "--hidden", "[8]", "--binarize", "fixed"]
    assert main(["train", "mnist_categorical", *run, *small]) == 0
    lab = ["--run", str(tmp_path / "run"), "--data", str(tmp_path), "--out", str(tmp_path / "lab")]
    assert main(["estimators", *lab, "--num_images", "2", "--draws", "16"]) == 0
    assert set(shown[0].unique().tolist()) == {0.0, 1.0}


def test_the_lab_refuses_other_models_and_too_many_states(tmp_path, image_folder, capsys):
    small = ["--steps", "2", "--batch_size", "4", "--data", str(image_folder)]
    assert main(["train", "ae", "--out", str(tmp_path / "ae"), "--image_size", "16", "--width", "8", *small]) == 0
    many = ["--variables", "9", "--classes", "8"]
    assert main(["train", "emoji_categorical", "--out", str(tmp_path / "many"), *many, *small]) == 0
    for name, message in (("ae", "need a categorical bottleneck, not 'identity'"), ("many", "8^9 latent states")):
        capsys.readouterr()
        out = str(tmp_path / "lab")
        assert main(["estimators", "--run", str(tmp_path / name), "--data", str(image_folder), "--out", out]) == 1
        assert message in capsys.readouterr().err


def test_the_exact_gradient_is_that_of_the_expectation():
    """Against finite differences of the enumerated expectation."""
    from smalti.evaluation.estimators import exact_gradient
    from smalti.models.autoencoder import Autoencoder
    from smalti.recipes import emoji_categorical

    torch.manual_seed(0)
    model = Autoencoder(emoji_categorical(variables=2, classes=3).model).eval()
    image = torch.rand(1, 1, 16, 16)
    features = model.features(image).detach()
    logits = torch.randn(2, 3)
    gradient = exact_gradient(model, image, features, logits)

    def expectation(logits):
        total = 0.0
        for first in range(3):
            for second in range(3):
                latents = torch.zeros(1, 3, 1, 2)
                latents[0, first, 0, 0] = latents[0, second, 0, 1] = 1
                nll = model.likelihood.nll(model.decoder(latents), image).double().item()
                total += nll * (logits.double().softmax(1)[0, first] * logits.double().softmax(1)[1, second]).item()
        return total

    for place in ((0, 0), (0, 2), (1, 1)):
        step = torch.zeros(2, 3)
        step[place] = 1e-2
        difference = (expectation(logits + step) - expectation(logits - step)) / 2e-2
        assert gradient[place].item() == pytest.approx(difference, rel=1e-2, abs=1e-2)
