"""Values that a file of a stranger may hold where a good one stood."""

import copy
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 5, 10**6, 2**31, 2**63, 10**12, 10**400, 0.5, 1.5, -0.0, 1e308, math.nan,
    math.inf, "", "x", "y" * 1000, "\x00\n\x1b]0;", "\ud800", "pixels", "../..", "none", "gaussian", "learned", [],
    [2], [2] * 1000, [[]], [0, 0], [10**6, 8], ["x", None], {}, {"kind": "fsq"}, {"kind": {}}, {"": {"": {}}},
    [[[[[[[[]]]]]]]],
]  # fmt: skip


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The way to every value in a JSON value, itself included."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, own in items:
        yield from places(own, (*path, key))


def changed_value(value: Any, rng: np.random.Generator) -> Any:
    """A JSON value with one place set to something evil, doubled, moved, renamed or removed."""
    changed = {"": copy.deepcopy(value)}
    ways = [("", *path) for path in places(value)]
    ways = [way for way in ways if len(way) > 2] or ways if rng.random() < 0.7 else ways
    *way, last = ways[rng.integers(len(ways))]
    parent: Any = changed
    for key in way:
        parent = parent[key]
    match int(rng.integers(0, 10)):
        case 0:
            del parent[last]
        case 1 if isinstance(parent, dict) and last:
            parent[str(VALUES[rng.integers(len(VALUES))])[:40]] = parent.pop(last)
        case 2:
            other = ways[rng.integers(len(ways))]
            found: Any = {"": value}
            for key in other:
                found = found[key]
            parent[last] = copy.deepcopy(found)
        case 3 if isinstance(parent[last], int) and not isinstance(parent[last], bool):
            parent[last] = parent[last] + [-1, 1, 2, 1000][rng.integers(4)]
        case 4 if isinstance(parent[last], int | float):
            parent[last] = parent[last] * [2, 64, -1, 10**6][rng.integers(4)]
        case 5:
            for _ in range(int(rng.integers(1, 80))):
                parent[last] = [parent[last]] if rng.random() < 0.5 else {"kind": parent[last]}
        case 6 if isinstance(parent[last], str):
            parent[last] = parent[last] * int(rng.integers(2, 1000))
        case 7 if isinstance(parent[last], list):
            parent[last] = parent[last] * int(rng.integers(2, 1000))
        case _:
            parent[last] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
    return changed.get("")


def as_json(value: Any, rng: np.random.Generator) -> bytes:
    """The value as a file, now and then of an odd kind: a key twice, deep, long, with a byte order mark, UTF-16."""
    text = json.dumps(value, ensure_ascii=True)
    match int(rng.integers(0, 60)):
        case 0:
            return text.replace("{", '{"kind": 1, "kind": 2, ', 1).encode()
        case 1:
            return text.encode("utf-16")
        case 2:
            return b"\xef\xbb\xbf" + text.encode()
        case 3:
            return b"[" * int(rng.integers(1, 100_000)) + text.encode()
        case 4:
            return text.replace("{", '{"%s": 1, ' % ("z" * int(rng.integers(1, 1_000_000))), 1).encode()
        case 5:
            return text.replace("1", "1" * int(rng.integers(1, 10_000)), 1).encode()
        case 6:
            return text[: int(rng.integers(0, len(text) + 1))].encode()
    return text.encode()
