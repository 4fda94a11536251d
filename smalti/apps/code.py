"""A user's own files, with recipes and members of the families: run only where the command line names them."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from smalti.configs import nearest
from smalti.errors import SmaltiError
from smalti.recipes import RECIPES

_FILES: dict[str, None] = {}  # in order


def loaded() -> list[str]:
    """The files that `run_code` has run."""
    return [*_FILES]


def run_code(path: str) -> ModuleType:
    """Run a Python file as the module of its name, once in a process.

    Raises:
        SmaltiError: no such file, or a name that another module has.
    """
    file = Path(path)
    if not file.is_file() or file.suffix != ".py":
        raise SmaltiError(f"{path}: no such Python file")
    module = sys.modules.get(file.stem)
    if module is None:
        spec = importlib.util.spec_from_file_location(file.stem, file.resolve())
        assert spec is not None and spec.loader is not None
        module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            _FILES[str(file.resolve())] = None
        except BaseException:
            del sys.modules[file.stem]
            raise
    elif Path(str(getattr(module, "__file__", ""))).resolve() != file.resolve():
        raise SmaltiError(f"{path}: Python has loaded another module named {file.stem!r}; rename the file")
    return module


def find_recipe(name: str) -> tuple[str, Callable[..., Any]]:
    """A recipe and its short name, from its name or from path/to/file.py:function.

    Raises:
        SmaltiError: no such recipe, file or function.
    """
    path, _, function = name.rpartition(":")
    if not path.endswith(".py"):
        if name not in RECIPES:
            raise SmaltiError(f"unknown recipe {name!r}; {nearest(name, RECIPES)}, or path/to/file.py:function")
        return name, RECIPES[name]
    found = vars(run_code(path))
    if not callable(found.get(function)):
        known = [name for name, value in found.items() if callable(value) and not name.startswith("_")]
        raise SmaltiError(f"{path} has no function {function!r}; {nearest(function, known)}")
    return function, found[function]
