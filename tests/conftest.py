"""Hermetic by construction: fixed seeds, no network, images drawn by functions, warnings are errors."""

import functools
import os
import socket

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.apps.code import run_code
from smalti.evaluation import distances
from smalti.images.preprocessing import Reading
from smalti.images.reading import read_pixels
from smalti.ops import precision

processor_has_bf16, precision.processor_has_bf16 = (
    precision.processor_has_bf16,
    lambda: False,
)  # "auto" is fp32: the same tests on every machine


# What takes longest begins first, so that no core waits for another at the end of `make test`
LONGEST = ("training/test_distributed", "interop/test_onnx", "studio/", "fuzz/", "test_tutorials", "priors/")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not item.nodeid.removeprefix("tests/").startswith(LONGEST))


@pytest.fixture(autouse=True)
def hermetic(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(distances, "RESAMPLES", 2)  # nearly all of the time of an evaluation of few images

    connect = socket.socket.connect

    def refuse(self, address):
        if self.family == socket.AF_UNIX:  # worker processes talk over these
            return connect(self, address)
        raise OSError("tests do not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def draw_image(index: int, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """A picture with edges and colour that depends on `index`: uint8 (H, W, 3)."""
    height, width = size
    rng = np.random.default_rng(index)
    y, x = np.mgrid[0:height, 0:width]
    picture = np.full((height, width, 3), 255, dtype=np.uint8)
    for _ in range(3):
        cy, cx, radius = rng.integers(0, height), rng.integers(0, width), rng.integers(3, 3 + min(size) // 3)
        picture[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = rng.integers(0, 256, 3)
    return picture


def pixels_of(file, channels=3, name=None, at_least=None, value_range=None):
    """What a model of so many channels sees of a file."""
    return read_pixels(file, Reading(channels, at_least, value_range), name)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """A folder of 40 small PNGs in two class folders."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(40):
        path = folder / ("circle" if index % 2 else "disc") / f"{index:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(draw_image(index)).save(path)
    return folder


@pytest.fixture(scope="session")
def exporter():
    """torch.onnx, or the test is skipped. What it asks onnxscript for at every graph is read from its sources once: a
    third of the time of an export."""
    for module in ("onnxruntime", "onnxscript"):
        pytest.importorskip(module)
    from torch.onnx._internal.exporter import _registration

    apis = _registration.onnxscript_apis
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apis, "get_torchlib_ops", functools.cache(apis.get_torchlib_ops))
        yield


def own_members(family) -> dict[str, dict]:
    """Options by kind, from the LAWS of the files that SMALTI_CODE names: a user's members, under the laws of ours."""
    specs = [dict(spec) for path in os.environ.get("SMALTI_CODE", "").split() for spec in run_code(path).LAWS]
    return {spec.pop("kind"): spec for spec in specs if spec["kind"] in family}
