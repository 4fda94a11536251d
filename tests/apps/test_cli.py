"""The command line, in process: verbs, exit status, one-line errors, --json."""

import json
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import draw_image
from smalti.apps import cli
from smalti.apps.cli import main
from smalti.training.log import read_metrics

TRAIN = ["--steps", "4", "--batch_size", "4", "--image_size", "16", "--width", "8", "--log_every", "2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, image_folder):
    """A tiny trained run of each of the four systems."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("ae", "vae", "vqvae", "dvae"):
        small = ["--codebook_size", "16"] if name in ("vqvae", "dvae") else []
        assert main(["train", name, "--data", str(image_folder), "--out", str(folder / name), *TRAIN, *small]) == 0
    return folder


def picture(path):
    with Image.open(path) as image:
        return np.array(image)


def outcome(capsys, *argv):
    """(status, stdout, stderr) of one command line."""
    capsys.readouterr()
    status = main([str(word) for word in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def complaint(capsys, *argv):
    """The one line on stderr of a command that fails with status 1."""
    status, out, err = outcome(capsys, *argv)
    assert status == 1 and out == ""
    lines = [line for line in err.splitlines() if line.startswith("smalti:") and "warning" not in line]
    assert len(lines) == 1 and "Traceback" not in err
    return lines[0]


def test_help_and_version(capsys):
    status, out, _ = outcome(capsys, "--help")
    assert status == 0
    for verb in ("train", "evaluate", "reconstruct", "encode", "decode", "info", "demo"):
        assert verb in out
    assert outcome(capsys, "--version")[0] == 0


@pytest.mark.parametrize("verb", ["evaluate", "reconstruct", "encode", "decode", "info", "demo", "train"])
def test_every_verb_explains_itself(capsys, verb):
    assert outcome(capsys, verb, "--help")[0] == 0


def test_a_recipes_help_explains_every_flag(capsys):
    status, out, _ = outcome(capsys, "train", "dvae", "--help")
    assert status == 0
    for flag in (
        "--codebook_size",
        "--first_temperature",
        "--data",
        "--out",
        "--steps",
        "--seed",
        "--device",
        "--precision",
    ):
        assert flag in out
    assert "commitment_weight" not in out  # an option without effect is not offered


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "did you mean 'train'"),
        (["train", "dave"], "did you mean 'dvae'"),
        (["train", "dvae", "--out", "x", "--codebooksize", "3"], "unrecognized"),
        (["train", "dvae", "--out", "x", "--steps", "many"], "many"),
        (["train", "dvae"], "out"),
        (["evaluate"], "run"),
        ([], ""),
    ],
)
def test_wrong_usage_has_status_2(capsys, argv, message):
    status, out, err = outcome(capsys, *argv)
    assert status == 2 and message in err + out and "Traceback" not in err


def test_evaluate_prints_a_table_and_writes_the_numbers(runs, image_folder, capsys):
    for name in ("ae", "vae", "vqvae", "dvae"):
        status, out, _ = outcome(capsys, "evaluate", runs / name, "--data", image_folder, "--split", "all")
        assert status == 0 and "psnr_db" in out
        written = json.loads((runs / name / "evaluation.json").read_text())
        assert written["num_images"] == 40 and ("elbo_nats" in written["metrics"]) == (name != "ae")
        assert "psnr_db" in (runs / name / "README.md").read_text()


def test_json_is_one_object_on_stdout(runs, image_folder, capsys):
    for argv in (
        ["evaluate", runs / "dvae", "--data", image_folder, "--split", "all"],
        ["info", runs / "dvae"],
        ["info", "emoji"],
        ["encode", runs / "dvae", image_folder, "--out", runs / "c.npz"],
        ["info", runs / "c.npz"],
    ):
        status, out, _ = outcome(capsys, *argv, "--json")
        assert status == 0 and isinstance(json.loads(out), dict)


def test_quiet_keeps_progress_and_remarks_but_not_warnings_and_errors(image_folder, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    train = ["train", "ae", "--data", image_folder, "--out", run, *TRAIN, "--json"]
    status, out, err = outcome(capsys, *train, "--quiet")
    assert status == 0 and err == "" and json.loads(out)["run"] == str(run)
    assert outcome(capsys, *train[:5], tmp_path / "loud", *train[6:])[2] != ""
    assert "smalti:" in complaint(capsys, "evaluate", tmp_path / "none", "--quiet")

    def warning():
        """Warn, and remark."""
        warnings.warn("of something", stacklevel=1)
        print("a remark", file=sys.stderr)

    monkeypatch.setitem(cli.VERBS, "info", warning)
    assert outcome(capsys, "info", "--quiet") == (0, "", "smalti: warning: of something\n")


def test_a_shell_completes_verbs_flags_values_and_files(tmp_path, capsys, monkeypatch):
    pytest.importorskip("shtab")
    status, script, _ = outcome(capsys, "--print_completion", "shtab-bash")
    (tmp_path / "photo.png").touch()
    (tmp_path / "completion.bash").write_text(script)
    monkeypatch.chdir(tmp_path)

    def completed(*words):
        ask = 'COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _shtab_smalti smalti "${@: -1}"; echo "${COMPREPLY[@]}"'
        command = ["bash", "-c", f". ./completion.bash; {ask}", "bash", "smalti", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert status == 0 and completed("deco") == ["decode", "decompress"]
    assert completed("train", "vqv") == ["vqvae"] and completed("evaluate", "--spl") == ["--split"]
    assert "logit_laplace" in completed("train", "dvae", "--likelihood", "")
    assert completed("compress", "runs/dvae", "ph") == ["photo.png"]


def test_completion_without_shtab_names_the_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert "pip install 'smalti[completion]'" in complaint(capsys, "--print_completion", "shtab-bash")


def test_encode_then_decode_gives_the_reconstruction_in_the_exact_size(runs, tmp_path, capsys):
    for index, size in enumerate([(20, 33), (20, 33), (16, 16), (7, 50)]):
        Image.fromarray(draw_image(index, size)).save(tmp_path / f"{index}.png")
    files = sorted(tmp_path.glob("*.png"))
    assert outcome(capsys, "encode", runs / "vqvae", *files, "--out", tmp_path / "codes.npz")[0] == 0
    assert outcome(capsys, "decode", runs / "vqvae", tmp_path / "codes.npz", "--out", tmp_path / "back")[0] == 0
    from smalti import Autoencoder, to_pil

    model = Autoencoder.from_pretrained(runs / "vqvae")
    for file in files:
        back = picture(tmp_path / "back" / file.name)
        assert back.shape == picture(file).shape
        assert np.array_equal(back, np.array(to_pil(model.reconstruct(file))[0]))


def test_reconstruct_writes_before_and_after(runs, image_folder, tmp_path, capsys):
    status, out, _ = outcome(capsys, "reconstruct", runs / "vae", image_folder, "--out", tmp_path, "--json")
    assert status == 0 and len(json.loads(out)["written"]) == 40
    assert picture(next(tmp_path.glob("*.png"))).shape == (32, 32 + 2 + 32, 3)


def test_reconstruct_with_noise_writes_noisy_restored_and_clean(runs, tmp_path, capsys):
    from smalti.images.noise import corrupt_each
    from smalti.images.preprocessing import Corruption, Reading
    from smalti.images.reading import to_images, to_pil

    sizes = [(20, 33), (16, 16)]
    for index, size in enumerate(sizes):
        Image.fromarray(draw_image(index, size)).save(tmp_path / f"{index}.png")
    files, noise = sorted(tmp_path.glob("*.png")), ["--noise", "gaussian", "--noise_level", "0.2"]
    argv = ["reconstruct", runs / "ae", *files, "--out", tmp_path / "out", *noise, "--seed", "3", "--force"]
    status, out, _ = outcome(capsys, *argv, "--json")
    found = json.loads(out)
    assert status == 0 and found["noise"] == "gaussian noise, level 0.2" and found["trained_noise"] == "no noise"
    clean = to_images(files, Reading())
    seen = corrupt_each(clean, Corruption(noise="gaussian", noise_level=0.2), 3)
    for file, row, noisy, image in zip(files, found["images"], seen, clean, strict=True):
        sheet = picture(tmp_path / "out" / file.name)
        height, width = image.shape[-2:]
        assert sheet.shape == (height, 3 * (width + 2) - 2, 3)
        assert np.array_equal(sheet[:, :width], np.array(to_pil(noisy)[0]))
        assert np.array_equal(sheet[:, 2 * (width + 2) :], picture(file))
        error = (noisy - image).double().square().mean().item()
        assert row["image"] == str(file) and row["noisy_psnr_db"] == pytest.approx(-10 * np.log10(error), abs=1e-3)
    for name in ("noisy_psnr_db", "psnr_db"):
        assert found[f"mean_{name}"] == pytest.approx(np.mean([row[name] for row in found["images"]]))
    again = json.loads(outcome(capsys, *argv, "--json")[1])
    assert again["images"] == found["images"]
    assert "mean_noisy_psnr_db" in outcome(capsys, *argv)[1]


def test_evaluate_with_noise_prints_and_keeps_the_curve(runs, image_folder, capsys, monkeypatch):
    from smalti.evaluation import denoising

    monkeypatch.setattr(denoising, "CURVES", {"salt_and_pepper": (0.0, 0.1)})
    argv = ["evaluate", runs / "ae", "--data", image_folder, "--noise", "salt_and_pepper"]
    status, out, _ = outcome(capsys, *argv)
    assert status == 0 and "salt and pepper noise: PSNR in dB and SSIM of" in out and "ahead of the best filter" in out
    kept = json.loads((runs / "ae" / "evaluation.json").read_text())["denoising"]
    assert [row["level"] for row in kept["rows"]] == [0.0, 0.1] and kept["noise_patch"] is None
    assert "salt and pepper" in (runs / "ae" / "denoising.svg").read_text()
    assert outcome(capsys, *argv[:4])[0] == 0
    assert not (runs / "ae" / "denoising.svg").exists()  # it would belong to another evaluation.json


def test_files_of_the_same_name_do_not_overwrite_each_other(runs, tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(draw_image(0)).save(tmp_path / folder / "same.png")
    outcome(capsys, "reconstruct", runs / "ae", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"same.png", "same-2.png"}


def test_a_folder_run_skips_and_counts_bad_images(runs, tmp_path, capsys):
    Image.fromarray(draw_image(0)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    status, out, err = outcome(capsys, "encode", runs / "dvae", tmp_path, "--out", tmp_path / "c.npz", "--json")
    assert status == 0 and json.loads(out)["num_images"] == 1 and len(json.loads(out)["bad_images"]) == 1
    assert "skipped 1 bad images; the first:" in err and "bad.png" in err
    (tmp_path / "good.png").unlink()
    assert "none of the 1 images can be read" in complaint(capsys, "encode", runs / "dvae", tmp_path)
    assert "bad.png" in complaint(capsys, "encode", runs / "dvae", tmp_path / "bad.png")


def test_bad_input_is_one_line_with_status_1(runs, image_folder, tmp_path, capsys):
    image = next(image_folder.rglob("*.png"))
    (tmp_path / "text.npz").write_text("no")
    outcome(capsys, "encode", runs / "dvae", image, "--out", tmp_path / "codes.npz")
    data = (tmp_path / "codes.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    cases = [
        (["encode", tmp_path / "nothing", image], "no such folder"),
        (["encode", runs, image], "holds no model"),
        (["encode", runs / "vae", image, "--write", "codes"], "no codes"),
        (["encode", runs / "dvae", tmp_path / "none.png"], "no such file"),
        (["encode", runs / "dvae", tmp_path / "empty"], "no images in this folder"),
        (["encode", runs / "dvae", image, "--out", "codes.txt"], "must end in .npz"),
        (["encode", runs / "dvae", image, "--out", tmp_path / "file" / "c.npz"], "choose another place"),
        (["decode", runs / "vqvae", tmp_path / "codes.npz", "--out", tmp_path], "codes of the model"),
        (["decode", runs / "dvae", tmp_path / "cut.npz", "--out", tmp_path], "cut off or not a file of"),
        (["decode", runs / "dvae", tmp_path / "text.npz", "--out", tmp_path], "cut off or not a file of"),
        (["decode", runs / "dvae", tmp_path / "none.npz", "--out", tmp_path], "does not exist"),
        (["evaluate", runs / "dvae", "--data", tmp_path / "empty"], "no images in this folder"),
        (
            ["evaluate", runs / "ae", "--data", image_folder, "--split", "all", "--importance_samples", "3"],
            "no likelihood",
        ),
        (["info", tmp_path / "empty"], "no images in this folder"),
        (["train", "dvae", "--data", tmp_path / "none", "--out", tmp_path / "r"], "no such folder"),
        (
            ["train", "dvae", "--data", image_folder, "--out", tmp_path / "r", "--codebook_size", "1"],
            "bottleneck.codebook_size: must be in [2, 4294967296], not 1",
        ),
        (["train", "dvae", "--data", image_folder, "--out", runs / "ae", *TRAIN], "other settings"),
        (["train", f"{tmp_path}/none.py:f", "--out", tmp_path / "r"], "no such Python file"),
    ]
    for argv, message in cases:
        assert message in complaint(capsys, *argv), argv


def test_a_recipe_can_come_from_a_file(image_folder, tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "from smalti.recipes import vqvae\n\n"
        "def tiny(*, codes: int = 8, **common):\n"
        '    """A tiny VQ-VAE.\n\n    Args:\n        codes: K.\n        **common: see vqvae.\n    """\n'
        "    return vqvae(codebook_size=codes, **common)\n"
    )
    argv = ["train", f"{path}:tiny", "--codes", "4", "--data", image_folder, "--out", tmp_path / "run", *TRAIN]
    assert outcome(capsys, *argv)[0] == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["bottleneck"]["codebook_size"] == 4
    assert "has no function 'tinny'; did you mean 'tiny'" in complaint(capsys, "train", f"{path}:tinny", "--out", "x")


def test_a_recipe_from_a_file_needs_nothing_of_ours_but_an_experiment(image_folder, tmp_path, capsys):
    path = tmp_path / "plain.py"
    path.write_text(
        "from smalti import AutoencoderConfig, Experiment\n\n"
        "def plain(*, data: str, channels: int = 4) -> Experiment:\n"
        '    """An autoencoder of its own."""\n'
        "    networks, bottleneck = {'kind': 'strided', 'width': 8}, {'kind': 'identity', 'channels': channels}\n"
        "    return Experiment(data=data, model=AutoencoderConfig(networks=networks, bottleneck=bottleneck))\n"
    )
    argv = ["train", f"{path}:plain", "--data", image_folder, "--out", tmp_path / "run", "--channels", "3"]
    assert outcome(capsys, *argv, "--steps", "2", "--seed", "5")[0] == 0
    experiment = json.loads((tmp_path / "run" / "experiment.json").read_text())
    assert experiment["model"]["bottleneck"]["channels"] == 3
    assert (experiment["run"]["steps"], experiment["run"]["seed"], experiment["run"]["batch_size"]) == (2, 5, 32)


def test_a_recipe_takes_a_config_file(image_folder, tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text(f"codebook_size: 8\ndata: {image_folder}\nsteps: 2\nbatch_size: 2\nimage_size: 16\nwidth: 8\n")
    assert outcome(capsys, "train", "vqvae", "--config", config, "--out", tmp_path / "run", "--steps", "3")[0] == 0
    experiment = json.loads((tmp_path / "run" / "experiment.json").read_text())
    assert experiment["run"]["steps"] == 3 and experiment["model"]["bottleneck"]["codebook_size"] == 8


def test_the_demo_writes_pictures_and_a_page_that_loads_nothing_from_outside(tmp_path, capsys):
    status, out, _ = outcome(capsys, "demo", "--out", tmp_path, "--steps", "2", "--prior_steps", "2", "--json")
    assert status == 0
    names = {Path(path).name for path in json.loads(out)["written"]}
    assert names == {
        "demo.html",
        "reconstructions.png",
        "codebook.png",
        "usage.svg",
        "distortion.svg",
        "learning_usage.svg",
        "text_to_image.png",
    }
    assert json.loads(out)["next"][0].endswith(f"smalti serve {tmp_path} {tmp_path / 'text_to_image'}")
    page = (tmp_path / "demo.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "src=" in page and 'src="data:image/png' in page
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1


def test_a_photograph_is_encoded_and_decoded_within_two_gigabytes(runs, tmp_path):
    """768x512 in a process of its own: exact size back, peak memory below 2 GB."""
    Image.fromarray(draw_image(1, (512, 768))).save(tmp_path / "photo.png")
    for argv in (
        ["encode", runs / "dvae", tmp_path / "photo.png", "--out", tmp_path / "c.npz"],
        ["decode", runs / "dvae", tmp_path / "c.npz", "--out", tmp_path / "out"],
    ):
        subprocess.run([sys.executable, "-m", "smalti", *map(str, argv)], check=True, cwd=Path(__file__).parents[2])
    assert picture(tmp_path / "out" / "photo.png").shape == (512, 768, 3)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2 * 1024 * 1024  # kilobytes
