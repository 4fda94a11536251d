"""A short run of every driver: hostile input is one clear error, in bounded time and memory."""

import pytest

from .harness import driver, drivers, outcome


@pytest.mark.parametrize("name", drivers())
def test_a_short_run_finds_no_fault(name, tmp_path):
    module = driver(name)
    state = module.prepare(tmp_path)
    became = [outcome(module.attempt, state, number) for number in range(module.SHORT)]
    assert not [f"attempt {number}: {what}" for number, what in enumerate(became) if what.startswith("FAULT")]
