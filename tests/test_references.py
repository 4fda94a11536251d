"""What pages, docstrings and comments name exists: files, modules, verbs, recipes, make targets."""

import ast
import importlib
import io
import re
import tokenize
from pathlib import Path

import pytest

from smalti.apps import cli
from smalti.recipes import RECIPES

ROOT = Path(__file__).parent.parent
FOLDERS = ("smalti", "tests", "benchmarks", "experiments", "tools", "docs")
FILES = {
    path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()
}
FILES |= {path.name for path in ROOT.iterdir() if path.is_file()}
PAGES = [ROOT / name for name in sorted(FILES) if name.endswith(".md")]
SOURCES = [ROOT / name for name in sorted(FILES) if name.endswith((".py", ".h", ".c")) or name == "Makefile"]

PLACEHOLDERS = {
    "path/to/file.py",
    "mine.py",
    "square_norms.h",
    "smalti/ops/kernels/square_norms.h",
}  # the reader's own files
PATH = re.compile(r"(?<![\w/.$*{-])(?:[\w.-]+/)*[\w-]+\.(?:md|py|h|c)(?![\w/(])")
MODULE = re.compile(r"`(smalti(?:\.\w+)+)")
VERB = re.compile(r"(?:`|^ *|; )smalti ([a-z]+)(?: ([a-z]\w*)(?![\w.:/]))?", re.MULTILINE)
TARGET = re.compile(r"(?:`|^ {4,}|, `)make ([a-z][\w-]*)", re.MULTILINE)


def documented(path: Path) -> str:
    """A page without its web addresses; of a source the docstrings and comments only."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        tree = ast.parse(text)
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        texts = [ast.get_docstring(node, clean=False) or "" for node in ast.walk(tree) if isinstance(node, documented)]
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        text = "\n".join([*texts, *(token.string for token in tokens if token.type == tokenize.COMMENT)])
    elif path.suffix in (".h", ".c"):
        text = "\n".join(re.findall(r"/\*.*?\*/|//[^\n]*", text, flags=re.DOTALL))
    return re.sub(r"https?://[^\s)>]+", "", text)


def targets() -> set[str]:
    """The targets of the Makefile, with those of its lists."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = " ".join(re.findall(r"^(?:BESIDE_PEERS|ALONE) := (.*)$", text, flags=re.MULTILINE)).split()
    return {*re.findall(r"^([a-z][\w-]*):", text, flags=re.MULTILINE), *(f"bench-{name}" for name in listed)}


def exists(name: str) -> bool:
    """Whether a file's path ends like this; NAME, OUT/ and the like stand for the reader's own."""
    own = name in PLACEHOLDERS or "NAME" in name or any(part.isupper() for part in name.split("/")[:-1])
    return own or any(f"/{file}".endswith(f"/{name.replace('../', '')}") for file in FILES)


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_named_exists(path):
    text = documented(path)
    assert [name for name in PATH.findall(text) if not exists(name)] == []
    assert [name for name in TARGET.findall(text) if name not in targets() and "NAME" not in name] == []
    for verb, recipe in VERB.findall(text):
        assert verb in cli.VERBS
        assert verb != "train" or not recipe or recipe in RECIPES
    for name in MODULE.findall(text):
        assert resolves(name), name


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def test_the_reader_of_references_sees_what_is_wrong():
    assert PATH.findall("see docs/nowhere.md, `lost.py:12` and kernels/none.h.") == [
        "docs/nowhere.md",
        "lost.py",
        "kernels/none.h",
    ]
    assert not exists("experiments/nowhere.md") and exists("ops/nearest.py") and exists("../docs/codec.md")
    assert VERB.findall("`smalti paint` and\n    smalti train nothing --out x") == [("paint", ""), ("train", "nothing")]
    assert TARGET.findall("`make bench-nothing`") == ["bench-nothing"] and "bench-lookup" in targets()
    assert resolves("smalti.Autoencoder.encode") and not resolves("smalti.training.nothing")
