"""Some deaths of short runs; `python -m tests.fuzz.kills` tries all of long ones."""

import pytest

from .kills import faults, prepared


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("kills"), steps=12)


@pytest.mark.parametrize(("name", "every"), [("best", 160), ("text", 90)])
def test_a_run_that_is_killed_ends_with_the_same_bytes(name, every, made, tmp_path):
    became = [*faults(made[name], tmp_path, every)]
    assert 2 <= len(became) <= 4 and {*became} == {"the same"}
