"""What the tests of the page share: a browser and the runtime have to be here."""

import pytest

from smalti.studio import runtime
from studio.browser import PROGRAM


@pytest.fixture(scope="session")
def installed():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    if PROGRAM is None:
        pytest.skip("there is no Chromium here")
    folder = runtime.cache()
    if not all((folder / name).is_file() for name in runtime.HASHES):
        pytest.skip(f"onnxruntime-web is not in {folder}: `make browser` fetches it")
