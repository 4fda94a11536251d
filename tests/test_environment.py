"""Where something runs is said truly: by `smalti info`, in a run's folder, from a wheel and from a checkout."""

import json
import subprocess

import pytest
import torch

import smalti
from smalti import environment
from smalti.apps.cli import main
from smalti.ops.native import kernels


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The package in another place, with what `git archive` writes into it."""
    monkeypatch.setattr(environment, "HOME", tmp_path / "smalti")
    monkeypatch.setattr(environment, "COMMIT", tmp_path / "smalti" / "commit.txt")
    (tmp_path / "smalti").mkdir()
    environment.commit.cache_clear()
    yield tmp_path / "smalti"
    environment.commit.cache_clear()


def test_info_without_a_target_is_of_the_installation(capsys):
    assert main(["info", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    native = kernels()
    assert told["smalti"] == smalti.__version__ and told["torch"] == torch.__version__
    assert told["kernels"] == (native.variant if native else "off") and told["threads"] == torch.get_num_threads()
    assert told["device"] and told["commit"] and told["python"]


def test_an_archive_knows_its_commit(elsewhere):
    (elsewhere / "commit.txt").write_text("0123abc\n")
    assert environment.commit() == "0123abc"


def test_a_checkout_asks_git_and_says_what_differs(elsewhere):
    def git(*words):
        name = ["-c", "user.name=n", "-c", "user.email=e"]
        return subprocess.run(["git", *name, *words], cwd=elsewhere, check=True, capture_output=True, text=True).stdout

    (elsewhere / "commit.txt").write_text("$Format:%h$\n")
    assert environment.commit() == "unknown"  # and not that of a repository around it
    environment.commit.cache_clear()
    subprocess.run(["git", "init", "-q", str(elsewhere.parent)], check=True)
    git("add", "commit.txt")
    git("commit", "-qm", "first")
    assert environment.commit() == git("rev-parse", "--short", "HEAD").strip()
    environment.commit.cache_clear()
    (elsewhere / "commit.txt").write_text("$Format:%h$ \n")
    assert environment.commit().endswith("-dirty")


def test_the_package_has_what_git_fills_in():
    assert environment.COMMIT.read_text(encoding="ascii").strip()
    assert (environment.HOME / "py.typed").is_file()
