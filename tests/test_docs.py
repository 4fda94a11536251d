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
from smalti.configs import Family
from smalti.recipes import ae, dvae
from smalti.training.loop import train

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
OWN_TEST = DOCS / "extending.md"  # its blocks run in tests/test_extending.py
OWN_TESTS = {OWN_TEST, *(DOCS / "tutorials").glob("*.md")}  # and of these in tests/test_tutorials.py


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


@pytest.mark.parametrize("page", [page for page in PAGES if page not in OWN_TESTS], ids=lambda page: page.name)
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


def test_every_page_is_in_the_contents_of_the_site():
    listed = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    entries = {
        re.sub(r".*<(.*)>", r"\1", line) for block in listed for line in block.splitlines() if line[:1] not in ":"
    }
    pages = {*PAGES, *ROOT.glob("experiments/*.md"), ROOT / "CHANGELOG.md"} - {DOCS / "index.md"}
    assert {(DOCS / f"{entry}.md").resolve() for entry in entries if entry} == {page.resolve() for page in pages}


def reference() -> set[str]:
    """What the reference documents: names, and all of a module."""
    return set(
        re.findall(r"^\.\. auto\w+:: (.*)$", (DOCS / "reference.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )


def test_every_public_name_is_in_the_reference():
    assert {f"smalti.{name}" for name in smalti.__all__} - reference() == {"smalti.RECIPES"}  # in words there


def test_what_the_pages_import_is_in_the_reference():
    text = "\n".join(block for page in PAGES for block in blocks(page, "python"))
    imports = re.findall(r"^from (smalti\S*) import (.*)$", text, re.MULTILINE)
    named = {f"{module}.{name.strip()}" for module, names in imports for name in names.split(",")}
    known = reference() | {"smalti.RECIPES"}
    assert len(named) > 30
    assert {name for name in named if not {name, name.rpartition(".")[0]} & known and not in_words(name)} == set()


def in_words(name: str) -> bool:
    """Whether a recipe or a family's table: the reference names the place and not each member."""
    value = getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2])
    return (name.startswith("smalti.recipes.") and callable(value)) or isinstance(value, Family)


def test_the_gallery_shows_every_picture():
    shown = set(re.findall(r"\(pictures/(\S+)\)", (DOCS / "gallery.md").read_text(encoding="utf-8")))
    assert shown == {path.name for path in (DOCS / "pictures").glob("*.png")}
