"""What the tests of the page share: a browser and the runtime have to be here; two tokenizers behind a server."""

import subprocess
from types import SimpleNamespace

import pytest
from PIL import Image

from smalti.models.autoencoder import Autoencoder
from smalti.studio import page, runtime
from studio.browser import PROGRAM, serving


@pytest.fixture(scope="session")
def installed(exporter):
    """What a page needs to be made and opened; without it these tests are skipped, and say what is missing."""
    pytest.importorskip("playwright")
    if PROGRAM is None or subprocess.run([PROGRAM, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("there is no Chromium here")
    folder = runtime.cache()
    if not all((folder / name).is_file() for name in runtime.HASHES):
        pytest.skip(f"onnxruntime-web is not in {folder}: `make browser` fetches it")


@pytest.fixture(scope="session")
def served_files(tmp_path_factory, installed):
    """Two tokenizers, the page of the first on disk with counts of its codes, and both behind a server; a picture."""
    pytest.importorskip("uvicorn")
    from smalti.server.app import application
    from smalti.server.served import Served
    from studio.test_studio import model_of, photo

    folder, models = tmp_path_factory.mktemp("served"), {}
    for name in ("vq", "residual codes"):
        model_of(name).save_pretrained(folder / name)
        models[name] = Autoencoder.from_pretrained(folder / name)
    counts = models["vq"].codes_bottleneck.histogram(models["vq"].encode(photo(5, 96, 96)))
    page.write(models["vq"], folder, "vq", counts)
    Image.fromarray(photo(0, 100, 150)).save(folder / "photo.png")
    app = application(Served(models), {"vq": (folder / page.FILE).read_text()})
    with serving(app) as address:
        yield SimpleNamespace(models=models, folder=folder, address=address, counts=counts)
