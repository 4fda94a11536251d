import subprocess

import pytest

from smalti.studio import runtime
from studio.browser import PROGRAM


@pytest.fixture(scope="session")
def installed():
    """What a page needs to be made and opened; without it these tests are skipped, and say what is missing."""
    for module in ("onnxruntime", "onnxscript", "playwright"):
        pytest.importorskip(module)
    if PROGRAM is None or subprocess.run([PROGRAM, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("there is no Chromium here")
    folder = runtime.cache()
    if not all((folder / name).is_file() for name in runtime.HASHES):
        pytest.skip(f"onnxruntime-web is not in {folder}: `make browser` fetches it")
