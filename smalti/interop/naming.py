"""Tensors in nested containers of a stranger get one name each."""

from typing import Any

from torch import Tensor

from smalti.errors import SmaltiError, shown
from smalti.interop.shells import Shell

MOST_VALUES, MOST_NAME, DEEPEST = 1 << 18, 1000, 64  # in a file; letters; levels


def named_tensors(root: Any) -> dict[str, Tensor]:
    """All tensors in dicts, lists and what were modules, by the keys on the way, joined by dots; in their order.

    Raises:
        SmaltiError: two have one name, or there are more values, longer names or more levels than models have.
    """
    found: dict[str, Tensor] = {}
    rest, visited = [("", root, 0)], 0
    while rest:
        name, value, depth = rest.pop()
        if isinstance(value, Tensor):
            if name in found:
                raise SmaltiError(f"{shown(name)} is there twice; save the state_dict alone")
            found[name] = value.detach()
            continue
        value = value.parts() if isinstance(value, Shell) else value
        value = dict(enumerate(value)) if isinstance(value, list | tuple) else value
        if isinstance(value, dict):
            visited += len(value)
            if visited > MOST_VALUES or len(name) > MOST_NAME or depth > DEEPEST:
                raise SmaltiError("it holds too many values, nested too deeply; save the state_dict alone")
            own = [(str(key), part) for key, part in value.items() if isinstance(key, str | int)]
            rest += [(f"{name}.{key}" if name else key, part, depth + 1) for key, part in reversed(own)]
    return found
