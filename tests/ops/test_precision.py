"""What "auto" is, on which machine; and that it is written down."""

import runpy
from types import SimpleNamespace

import pytest
import torch

import smalti
from smalti.files import read_json
from smalti.models.autoencoder import Autoencoder
from smalti.ops import precision
from smalti.ops.precision import arithmetic, resolved
from smalti.training.loop import train
from training.test_loop import same, small, weights

ASKED = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


@pytest.mark.parametrize(
    ("given", "device", "has", "found"),
    [
        ("auto", "cpu", True, "bf16"),
        ("auto", "cpu", False, "fp32"),
        ("auto", "cuda:1", False, "bf16"),
        ("auto", "mps", True, "fp32"),
        ("fp32", "cuda", True, "fp32"),
        ("bf16", "cpu", False, "bf16"),
    ],
)
def test_auto_is_what_the_device_is_fast_at(given, device, has, found, monkeypatch):
    monkeypatch.setattr(precision, "processor_has_bf16", lambda: has)
    assert resolved(given, device) == found


@pytest.mark.parametrize("has", [True, False])
def test_a_run_keeps_its_precision_on_other_machines(has, image_folder, tmp_path, monkeypatch, capsys):
    """And codes of files are float32's, unless another precision is asked for."""

    def go(name, asked, **options):
        train(small("vqvae", image_folder, precision=asked, **options), tmp_path / name, progress=False)
        return capsys.readouterr().err

    monkeypatch.setattr(precision, "processor_has_bf16", lambda: has)
    assert ("bf16: networks compute in bfloat16" in go("auto", "auto", steps=4)) == has
    monkeypatch.setattr(precision, "processor_has_bf16", lambda: not has)
    assert "bf16" not in go("auto", "auto", steps=6)
    chosen, other = ("bf16", "fp32") if has else ("fp32", "bf16")
    for name in ("experiment.json", "environment.json"):
        written = read_json(tmp_path / "auto" / name)
        assert written.get("run", written)["precision"] == chosen
    go("given", chosen, steps=4)
    go("given", chosen, steps=6)
    assert same(weights(tmp_path / "auto"), weights(tmp_path / "given"))
    with pytest.raises(smalti.SmaltiError, match=f"run.precision: '{chosen}' -> '{other}'"):
        go("auto", other, steps=6)


def test_networks_compute_in_bf16_and_give_float32(image_folder, tmp_path):
    model = Autoencoder.from_pretrained(train(small("ae", image_folder, steps=1), tmp_path / "run", progress=False))
    images = torch.rand(2, 3, 16, 16)
    exact = model.reconstruct(images)
    with arithmetic("fp32", "cpu"):
        assert torch.equal(model.reconstruct(images), exact)
    with arithmetic("bf16", "cpu"):
        rounded = model.reconstruct(images)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    assert (rounded - exact).abs().mean() < 0.01


def test_without_torchs_answer_the_kernels_flags_are_read(monkeypatch, tmp_path):
    own = runpy.run_path(precision.__file__)  # the tests' own is replaced
    has = own["processor_has_bf16"].__wrapped__
    for answers, found in (((True, False), True), ((False, True), True), ((False, False), False)):
        known = {name: (lambda answer=answer: answer) for name, answer in zip(ASKED, answers, strict=True)}
        monkeypatch.setattr(torch, "cpu", SimpleNamespace(**known))
        assert has() is found
    monkeypatch.setattr(torch, "cpu", SimpleNamespace())
    monkeypatch.setitem(has.__globals__, "CPU_INFO", tmp_path / "cpuinfo")
    assert has() is False
    for flags in ("fpu avx512f avx512_bf16", "fpu amx_bf16", "fpu avx512f", ""):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
        assert has() is ("bf16" in flags)
