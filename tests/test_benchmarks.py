"""The benchmarks compare the same work: their helper's arithmetic, what is kept, and every row of sampling, tiny."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import common
import precision
import profile_step
import sampling
import validation


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
