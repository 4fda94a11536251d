"""The models of the golden files: small ones of every format, with the weights that their names determine."""

import json
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

import golden
from smalti.interop.weights import Weights

FOLDER = Path(__file__).parents[1] / "golden/interop"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def read(name: str) -> dict[str, Any]:
    """What `benchmarks/originals.py` wrote down of a model."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def weights(file: dict[str, Any]) -> Weights:
    """Its tensors, as they would be read from a file of the format."""
    tensors = {
        name: torch.from_numpy(golden.filled(name, shape, file["scales"])) for name, shape in file["tensors"].items()
    }
    return Weights(Path("original"), tensors, file["settings"])
