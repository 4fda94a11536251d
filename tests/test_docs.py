"""Every code block of the docs runs, every command line parses, every docstring example is true."""

import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import smalti
from conftest import draw_image
from smalti.apps import cli
from smalti.recipes import ae, dvae
from smalti.training.loop import train

ROOT = Path(__file__).parent.parent
OWN_TEST = ROOT / "docs" / "extending.md"  # its blocks run in tests/test_extending.py
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what the docs' examples name: two small runs and two pictures."""
    folder = tmp_path_factory.mktemp("docs")
    for experiment in (dvae(width=8, codebook_size=16), ae(width=8)):
        run = folder / "runs" / experiment.recipe
        train(experiment.with_settings(steps=1, batch_size=2), run, progress=False)
    Image.fromarray(draw_image(0, (24, 40))).save(folder / "photo.png")
    Image.fromarray(draw_image(1, (16, 50))).save(folder / "wide.png")
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if page != OWN_TEST], ids=lambda page: page.name)
def test_python_blocks_run(page, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    names: dict = {}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


def commands() -> list[str]:
    lines = [line for page in PAGES if page != OWN_TEST for block in blocks(page, "sh") for line in block.splitlines()]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [line for line in joined if line.startswith("smalti ")]


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line, capsys):
    argv = [word for word in shlex.split(line, comments=True)[1:] if word != "--print_config"]
    name, _, _, _ = cli._parse(argv)
    assert name == argv[0]


FOUND = [module.name for module in pkgutil.walk_packages(smalti.__path__, "smalti.")]
MODULES = [name for name in FOUND if name.rpartition(".")[2] != "__main__"]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_are_true(name):
    module = importlib.import_module(name)
    names = {**vars(module), "np": np, "torch": torch}
    assert doctest.testmod(module, extraglobs=names, optionflags=doctest.IGNORE_EXCEPTION_DETAIL).failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_lives_in_it(name):
    assert importlib.import_module(name).__doc__


def test_links_inside_the_project_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
