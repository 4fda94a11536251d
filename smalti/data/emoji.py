"""The bundled data set: 3,771 emoji at 64x64 with names in 14 languages, groups and subgroups; see emoji/NOTICE."""

import functools
import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from smalti.errors import SmaltiError

FOLDER = Path(__file__).parent / "emoji"


@functools.cache
def read_table() -> dict[str, Any]:
    """The table: {"rows": [{"emoji", "group", "subgroup", "concept", "captions", "split"}], "languages", ...}."""
    return json.loads(gzip.decompress((FOLDER / "table.json.gz").read_bytes()))


@functools.cache
def _sheet() -> np.ndarray:
    """All tiles side by side; decoded once in a process."""
    data = (FOLDER / "tiles.webp").read_bytes()
    if hashlib.sha256(data).hexdigest() != read_table()["tiles_sha256"]:
        raise SmaltiError(f"{FOLDER / 'tiles.webp'} is not the file that table.json.gz describes; reinstall smalti")
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def read_tile(index: int) -> np.ndarray:
    """Tile `index` as uint8 (64, 64, 3)."""
    table = read_table()
    size, columns = table["tile_px"], table["columns"]
    top, left = index // columns * size, index % columns * size
    return _sheet()[top : top + size, left : left + size]
