"""Some deaths of short runs; `python -m tests.fuzz.kills` tries all of long ones."""

import pytest

from .kills import faults, prepared


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("kills"), steps=12)


@pytest.mark.parametrize(("name", "shares"), [("best", (0.6, 1.0)), ("text", (0.8,))])
def test_a_run_that_is_killed_ends_with_the_same_bytes(name, shares, made, tmp_path):
    assert [*faults(made[name], tmp_path, shares)] == ["the same"] * len(shares)
