"""Imports go one way, and nothing heavy happens at import."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from smalti.configs import Family

ROOT = Path(__file__).parent.parent / "smalti"
LAYERS = [  # the ground first
    {"errors", "shapes", "schedules", "configs", "ranges", "files", "modes", "outlines", "bundled", "pretrained"}
    | {"processes", "environment", "ops"},
    {"images"},
    {"data", "models", "priors"},
    {"generate", "codec", "interop"},
    {"scale"},
    {"training"},
    {"evaluation"},
    {"recipes"},
    {"reports", "studio"},
    {"server"},
    {"apps"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def imports(path: Path) -> set[str]:
    """The modules of smalti that a file imports, wherever in it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("smalti"):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        modules |= {name for name in names if name.startswith("smalti.")}
    return modules


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = [path for path in ROOT.rglob("*.py") if path.name not in ("__main__.py",) and path != ROOT / "__init__.py"]


GRAPH = {module_of(path): imports(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    room = room_of(path)
    for other in {name.split(".")[1] for name in imports(path)} - {room}:
        ground = LEVEL[other] == LEVEL[room] == 0
        assert other in LEVEL, f"{path} imports smalti.{other}, which is no room"
        assert LEVEL[other] < LEVEL[room] or ground, f"{room} must not import {other}"


def test_no_circles_within_a_room_either():
    """Imports inside functions count: two modules that need each other are one module, or three."""
    graph = {module: {name for name in names if name in GRAPH and name != module} for module, names in GRAPH.items()}
    while free := [module for module, names in graph.items() if not names & graph.keys()]:
        for module in free:
            del graph[module]
    assert sorted(graph) == []


def test_every_room_has_a_place():
    assert {room_of(path) for path in FILES} <= set(LEVEL)


def test_files_stay_short_enough_to_read():
    long = {str(path.relative_to(ROOT)): n for path in FILES if (n := len(path.read_text().splitlines())) > 400}
    assert long == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_has_more_than_15_arguments(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            given = node.args
            count = len(
                [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
            )
            assert count <= 15, f"{node.name} takes {count}"


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    ).stdout


def test_import_and_recipes_do_not_import_torch():
    heavy = "[m for m in ('torch', 'PIL', 'numpy') if m in sys.modules]"
    code = f"import sys, smalti, smalti.recipes, smalti.apps.cli; print({heavy})"
    assert run(code).strip() == "[]"


def test_help_is_quick():
    """In seconds of a core, whatever else runs on the machine; an import of torch takes some."""

    def spent():
        return os.times().children_user + os.times().children_system

    before = spent()
    subprocess.run([sys.executable, "-m", "smalti", "--help"], capture_output=True, check=True, cwd=ROOT.parent)
    assert spent() - before < 1.5


def test_public_names_exist():
    import smalti

    for name in smalti.__all__:
        assert getattr(smalti, name).__doc__
    with pytest.raises(AttributeError, match="nonsense"):
        smalti.nonsense  # noqa: B018


FAMILIES = ("smalti.models.bottlenecks", "smalti.models.networks", "smalti.models.likelihoods", "smalti.priors.family")
OTHER_WORDS = {("codec", "histogram"), ("apps", "histogram"), ("images", "gaussian")}  # also names of a coder, a noise


def test_nothing_asks_for_a_member_of_a_family_by_its_name():
    """What others need to know of a part, the part says: a user's own is as good as ours."""
    families = [family for name in FAMILIES for family in vars(importlib.import_module(name)).values()
                if isinstance(family, Family)]  # fmt: skip
    kinds = {kind for family in families for kind in family}
    classes = {member.__name__ for family in families for member in family.values()}
    assert len(families) == 4 and {"fsq", "mlp", "gaussian", "pixelcnn"} <= kinds and "VectorQuantizer" in classes
    found = []
    for path in FILES:
        if (room := room_of(path)) in ("models", "priors", "recipes", "interop"):  # these name what they make
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in kinds and (room, node.value) not in OTHER_WORDS:
                found.append(f"{path}:{node.lineno}: {node.value!r}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                asked = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)} & classes
                found += [f"{path}:{node.lineno}: isinstance of {name}" for name in asked]
            if isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name) and node.cls.id in classes:
                found.append(f"{path}:{node.lineno}: case {node.cls.id}")
    assert found == []
