"""The benchmarks compare the same work: their helper's arithmetic, what is kept, and every row of sampling, tiny."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import common
import graphs
import precision
import profile_step
import quality
import quality_peers
import sampling
import validation

import interop
from conftest import own_members
from smalti.data.batches import Pixels
from smalti.data.sources import open_data
from smalti.models.bottlenecks import BOTTLENECKS
from smalti.recipes import vqvae


def test_ratios_are_taken_round_by_round_in_rotated_order(capsys):
    calls = []

    def side(name, rates):
        rates = itertools.chain([1.0], rates)  # the first is the warm-up
        return lambda: calls.append(name) or next(rates)

    sides = {"a": side("a", [4.0, 6.0, 20.0]), "b": side("b", [2.0, 2.0, 4.0])}
    result = common.compare("work", sides, "a", rounds=3, parts={"the cache": ("b", "a")})
    assert result["ratios"]["b"] == {"median": 3.0, "range": [2.0, 5.0]}
    assert result["rates"] == {"a": 6.0, "b": 2.0}
    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert result["parts"] == {"the cache": {"median": 0.33, "range": [0.2, 0.5]}}
    assert "a is 3.0x (2.0 to 5.0)" in capsys.readouterr().out


def test_the_peak_is_not_below_what_a_product_reaches():
    assert common.fma_peak() >= 0.7 * common.product_rate()


def test_the_peak_is_measured_on_normal_numbers():
    """Subnormal numbers take a hundred times as long on some processors."""
    library = common.peak_library()
    if library is None:
        pytest.skip("there is no C compiler")
    for iterations in (0, 1, 100_000, 100_001):
        values = common.peak_chains(library, iterations)
        assert np.isfinite(values).all() and np.abs(values).min() >= 0.2 and len(set(values.tolist())) > len(values) / 2


def test_results_of_other_workloads_and_variants_stay(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    here = {"processor": "P", "commit": "C", "date": "D"}
    for variant, rate in (("avx2", 1), ("avx512", 2), ("avx512", 3)):
        monkeypatch.setattr(common, "machine", lambda variant=variant: {**here, "kernels": variant})
        common.save([{"workload": "a", "rate": rate}, {"workload": f"only {variant}", "rate": rate}], path)
    rows = [(entry["workload"], entry["kernels"], entry["rate"]) for entry in json.loads(path.read_text())]
    assert rows == [("a", "avx2", 1), ("only avx2", "avx2", 1), ("a", "avx512", 3), ("only avx512", "avx512", 3)]


def test_a_machine_is_named():
    assert set(common.machine()) == {"processor", "kernels", "commit", "date"} and all(common.machine().values())


SMALL = {
    "pixelcnn": {"channels": 8, "layers": 2},
    "pixelsnail": {"channels": 8, "blocks": 1, "heads": 2},
    "transformer": {"width": 8, "layers": 1, "heads": 2},
}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(common, "fma_peak", lambda: 1.0)
    monkeypatch.setattr(common, "product_rate", lambda: 1.0)


@pytest.mark.parametrize("kind", SMALL)
def test_the_sides_of_sampling_choose_the_same_codes(kind, quick):
    rows = sampling.convolutional(1, {kind: SMALL[kind]}, [(4, 2)])
    assert set(rows[0]["rates"]) == {sampling.OURS, sampling.PLAIN, sampling.NAIVE}
    assert set(rows[0]["parts"]) == {"the cache", "the kernels"}


def test_without_kernels_means_that(monkeypatch):
    from smalti.ops.native import kernels

    monkeypatch.delenv("SMALTI_KERNELS", raising=False)
    assert sampling.plainly(kernels) is None and "SMALTI_KERNELS" not in sampling.os.environ


@pytest.mark.parametrize("kind", SMALL)
def test_guided_and_coding_rows(kind, quick):
    assert set(sampling.guided(1, {kind: SMALL[kind]}, [4], 4)[0]["ratios"]) == {"guidance 2"}
    assert set(sampling.coding(1, {kind: SMALL[kind]}, 4, 2)[0]["ratios"]) == {sampling.PLAIN}


def test_the_share_of_validation_is_that_of_the_calls(tmp_path, monkeypatch):
    rounds = iter([(10.0, 0.1, [0.2, 0.2], 0.0), (20.0, 0.1, [0.1, 0.1], 0.0), (10.0, 0.0, [0.5, 0.5], 0.0)])
    monkeypatch.setattr(validation, "shares", lambda settings: next(rounds))
    validation.main(["--out", str(tmp_path / "found.json")])
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert (found["share"], found["range"], found["validations"]) == (0.05, [0.015, 0.1], 2)


def test_validations_inside_a_training_are_timed(image_folder):
    from smalti.recipes import dvae

    tiny = dvae(data=str(image_folder), image_size=16, width=8, codebook_size=16)
    calls = {"steps": 4, "validate_every": 2, "batch_size": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "dvae", lambda: tiny)
        seconds, reading, validations, _ = validation.shares(calls)
    assert len(validations) == 2 and 0 < reading + sum(validations) < seconds


def test_a_profile_accounts_for_a_whole_step(monkeypatch, capsys):
    monkeypatch.setattr(profile_step, "WARM", 1)
    monkeypatch.setattr(profile_step, "STEPS", 1)
    monkeypatch.setattr(profile_step, "PROFILED", 1)
    tiny = {"stride": 4, "codebook_size": 16, "width": 8}
    found = profile_step.one("vqvae", 16, 2, "fp32", tiny, "now")
    assert found["workload"] == "now: vqvae, 16 px, batch 2, fp32"
    assert sum(found["parts"].values()) == pytest.approx(found["milliseconds"], abs=0.1)
    assert sum(found["operators"].values()) == pytest.approx(1, abs=0.01)
    assert "forward and loss" in capsys.readouterr().out
    names = {"aten::mkldnn_convolution": "convolutions", "aten::addmm": "products", "aten::add": profile_step.OTHER}
    assert {name: profile_step.group_of(name) for name in names} == names


def test_precision_measures_nothing_where_there_is_no_bf16(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["precision.py", "--out", str(tmp_path / "found.json")])
    monkeypatch.setattr(precision, "processor_has_bf16", lambda: False)
    precision.main()
    assert "nothing to measure" in capsys.readouterr().out and not [*tmp_path.iterdir()]
    assert precision.training("vqvae", 16, 2, "fp32")() > 0
    assert all(side() > 0 for side in precision.encoding("ae", 16, 2).values())


def test_graphs_are_measured_of_every_bottleneck(monkeypatch, tmp_path, image_folder):
    pytest.importorskip("onnxruntime")
    assert {spec["kind"] for spec in graphs.BOTTLENECKS.values()} == set(BOTTLENECKS) - set(own_members(BOTTLENECKS))
    names = {name: spec for name, spec in graphs.BOTTLENECKS.items() if name == "FSQ"}
    for name, value in {"BOTTLENECKS": names, "NAMES": [], "PIECE": 8, "vqvae": lambda preset: vqvae(width=8)}.items():
        monkeypatch.setattr(graphs, name, value)
    folder, out = str(image_folder / "disc"), str(tmp_path / "o")
    monkeypatch.setattr(sys, "argv", ["", folder, "--most", "2", "--steps", "1", "--out", out])
    graphs.main()
    (found,) = json.loads((tmp_path / "o").read_text())
    assert (found["workload"], found["images"], found["different"]) == ("FSQ", 2, 0) and found["largest"] < 1e-5
    assert set(found["seconds"]) == {"encode", "decode"} and set(found["bytes"]) == {"encoder", "decoder"}


class Means(quality_peers.Peer):
    """A peer whose code says how bright a cell is, and whose one parameter is the brightness of all."""

    def __init__(self, settings, size, stride, codebook_size):
        super().__init__(settings, size, stride, codebook_size)
        self.brightness, self.seen = torch.nn.Parameter(torch.tensor(1.0)), []

    def loss(self, images, progress):
        self.seen.append((progress, len(images)))
        return (images - self.brightness).square().mean()

    def reconstruct(self, images):
        codes = (torch.nn.functional.avg_pool2d(images.mean(1), 4) * 4).long()
        return self.brightness.expand_as(images), codes


SMALL_IMAGES = quality.Workload("small", "", 16, 4, 1.0, 4)


@pytest.fixture
def pixels(image_folder):
    return Pixels(open_data(str(image_folder), "train"), SMALL_IMAGES.preprocessing)


def test_sides_are_measured_on_rounded_images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    made = np.clip(pixels / 255 + rng.normal(0, 0.1, pixels.shape), 0, 1).astype(np.float32)
    codes = torch.arange(40 * 16).view(40, 4, 4) % 6
    batches = iter(zip(torch.from_numpy(made).permute(0, 3, 1, 2).split(32), codes.split(32), strict=True))
    found = quality.measured(lambda images: next(batches), torch.from_numpy(pixels), 4, 8)
    error = ((np.rint(made * 255) - pixels) / 255) ** 2
    assert found["psnr_db"] == pytest.approx(np.mean(-10 * np.log10(error.mean((1, 2, 3)))), abs=1e-3)
    assert found["usage"] == 0.75 and found["perplexity"] == pytest.approx(6, abs=0.01)
    assert set(found) == {"psnr_db", "usage", "perplexity", "border_ratio", "period2_energy"}
    same = quality.originals(torch.from_numpy(pixels), 4)
    assert 0.9 < same["border_ratio"] < 1.1 and 2.8 < same["period2_energy"] < 3.2  # white noise


def test_a_peer_is_trained_for_its_seconds(monkeypatch, pixels):
    monkeypatch.setitem(quality.PEERS, "means", Means)
    settings = quality.Settings(batch=3, rate=0.1)
    trained = quality.train_peer("means", settings, SMALL_IMAGES, pixels, 0.3)
    facts, seen = trained.facts, trained.reconstruct.__self__.seen
    assert facts["cpu_seconds"] > 0.25 and facts["images_seen"] == 3 * facts["steps"] == 3 * len(seen)
    assert all(count == 3 for _, count in seen) and [*seen] == sorted(seen) and seen[-1][0] > 0.8
    assert trained.reconstruct(torch.zeros(1, 3, 16, 16))[0].sub(1).abs().min() > 0.05


def test_ours_takes_its_seconds_and_the_images_at_hand(monkeypatch, pixels, image_folder):
    monkeypatch.setitem(quality.OURS, "ours", (vqvae, {"codebook_size": 16, "width": 8}))
    taken, gather = [], pixels.gather
    pixels.gather = lambda numbers: taken.extend(numbers) or gather(numbers)
    trained = quality.train_ours("ours", SMALL_IMAGES, str(image_folder), pixels, 1.5)
    made, codes = trained.reconstruct(torch.zeros(2, 3, 16, 16))
    assert codes.shape == (2, 4, 4) and made.shape == (2, 3, 16, 16)
    assert trained.facts["codebook_size"] == 16 and trained.facts["steps"] > 3
    assert trained.facts["precision"] in ("fp32", "bf16")
    assert len(taken) >= trained.facts["images_seen"] > 0


def test_the_best_settings_are_those_of_the_longest_trials(monkeypatch):
    trials = [("a", "p", 30, 22.0, 1), ("a", "p", 90, 20.0, 2), ("a", "p", 90, 21.0, 4), ("b", "p", 90, 30.0, 8)]
    found = [
        {"workload": key, "side": side, "seconds": seconds, "psnr_db": psnr, "settings": {"fold": fold}}
        for key, side, seconds, psnr, fold in trials
    ]
    monkeypatch.setattr(quality, "tried", lambda: found)
    for key in "abc":
        monkeypatch.setitem(quality.WORKLOADS, key, SMALL_IMAGES)
    assert quality.best_settings("a", "p").fold == 4 and quality.best_settings("b", "p").fold == 8
    assert quality.best_settings("c", "q") == quality.Settings(fold=2, batch=4)
    found[-1]["settings"]["bf16"] = True
    assert quality.best_settings("c", "p") == quality.Settings(fold=2, batch=4, bf16=True)


def test_a_trial_is_written_down_and_not_made_twice(monkeypatch, tmp_path, image_folder, capsys):
    monkeypatch.setitem(quality.PEERS, "means", Means)
    monkeypatch.setitem(quality.WORKLOADS, "small", SMALL_IMAGES)
    monkeypatch.setattr(quality, "TUNING", path := tmp_path / "tuning.json")
    monkeypatch.setattr(quality, "tried", lambda: json.loads(path.read_text()) if path.exists() else [])
    for trials in ([{"rate": 0.1}, {"width": 32}], [{}, {"rate": 0.1}]):
        quality.tune("means", "small", trials, str(image_folder), 0.1, 4)
    first, second = json.loads(path.read_text())
    assert first["settings"]["rate"] == 0.1 and second["settings"]["width"] == 32 and first["split"] == "validation"


def test_every_trial_of_a_peer_is_kept_with_what_can_be_tried_again():
    trials = quality.tried()
    assert {trial["side"] for trial in trials} <= set(quality.PEERS)
    for trial in trials:
        assert quality.Settings(**trial["settings"]) and trial["split"] == "validation"
    for peer, settings in quality.TRIALS.items():
        assert peer in quality.PEERS and all(quality.Settings(**given) for given in settings)


def test_sides_in_one_run(monkeypatch, tmp_path, image_folder):
    monkeypatch.setitem(quality.PEERS, "means", Means)
    monkeypatch.setitem(quality.WORKLOADS, "small", SMALL_IMAGES)
    monkeypatch.setattr(quality, "OURS", {"ours": (vqvae, {"codebook_size": 16, "width": 8})})
    picture = tmp_path / "sides.png"
    found = quality.compare_sides("small", str(image_folder), ["ours", "means"], 0.5, 4, picture, 1)
    assert [*found["sides"]] == ["ours", "means"] and picture.stat().st_size > 100
    assert all(side["metrics"]["psnr_db"] > 0 for side in found["sides"].values())
    assert found["sides"]["ours"]["codebook_size"] == 16 and found["images"] <= 4


def test_codes_unlike_the_originals_are_counted_and_ties_apart(tmp_path):
    """On the golden file of a format, with two of its answers changed."""
    sys.path.insert(0, str(Path(__file__).parent / "interop"))
    from safetensors.numpy import save_file

    import golden

    file = json.loads((Path(__file__).parent / "golden/interop/amused.json").read_text(encoding="utf-8"))
    (tmp_path / "amused").mkdir()
    tensors = {name: golden.filled(name, shape, file["scales"]) for name, shape in file["tensors"].items()}
    save_file(tensors, tmp_path / "amused/model.safetensors")
    (tmp_path / "amused/config.json").write_text(json.dumps(file["settings"]), encoding="utf-8")
    codes, about = np.array(file["codes"]), {"original": "O", "tensors": len(tensors), "torch": "T"}
    gaps, pixels = np.full(codes.shape, 0.1), np.full(file["pixels"]["shape"], 2.0, np.float32)
    for place, gap in (((0, 0, 0), 1e-7), ((1, 2, 3), 0.1), ((1, 2, 4), 0.1)):
        codes[place], gaps[place] = (codes[place] + 1) % 128, gap
    answers = {"images": golden.images(), "codes": codes, "gaps": gaps, "lengths": np.ones(3), "pixels": pixels}
    np.savez(tmp_path / "amused.npz", about=np.array(json.dumps(about)), **answers)
    (found,) = interop.all_differences(tmp_path)
    assert (found["workload"], found["format"], found["different"], found["ties"]) == ("amused", "diffusers", 2, 1)
    assert (found["codes"], found["tensors"], found["left_out"]) == (codes.size, len(tensors), 0)
    assert 0.5 < found["pixels"] <= 1  # of white
