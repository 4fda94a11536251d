"""What the command line sets for its process."""

import os
import subprocess
import sys

import pytest

from smalti.apps import cli, process

FAULTS = """
import resource
from smalti.apps import process
process.keep_freed_memory()
import numpy as np
blocks = [np.ones(2**20) for _ in range(4)]
del blocks
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    blocks = [np.ones(2**20) for _ in range(4)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "5"}])
def test_threads_wait_less_unless_the_user_said_how_long(given, monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["smalti", "--version"])
    with pytest.raises(SystemExit):
        cli.entry()
    expected = None if "OMP_WAIT_POLICY" in given else given.get("GOMP_SPINCOUNT", process.SPINS)
    assert os.environ.get("GOMP_SPINCOUNT") == expected
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_kept_unless_the_user_said_what_becomes_of_it():
    def faults(**setting: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=os.environ | setting
        )
        return int(done.stdout)

    assert 10 * faults() < faults(MALLOC_TRIM_THRESHOLD_="0", MALLOC_MMAP_THRESHOLD_="65536")
