"""Model files as the projects publish them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .original import Original, stubs


def ckpt(original: Original, tensors: dict[str, Tensor], folder: Path) -> None:
    """That of PyTorch Lightning: callbacks by their classes, and a YAML beside it."""
    import yaml

    state = {name.removeprefix("state_dict."): tensor for name, tensor in tensors.items()}
    name = "pytorch_lightning.callbacks.model_checkpoint"
    callback = type("ModelCheckpoint", (), {"__module__": name})
    parents: dict[str, Any] = {"pytorch_lightning": {}, "pytorch_lightning.callbacks": {}}
    with stubs({**parents, name: {"ModelCheckpoint": callback}}):
        document = {
            "epoch": 3, "global_step": 1000, "pytorch-lightning_version": "1.0.8", "state_dict": state,
            "callbacks": {callback: {"best_model_score": torch.tensor(0.5), "best_model_path": "last.ckpt"}},
            "optimizer_states": [], "lr_schedulers": [],
        }  # fmt: skip
        torch.save(document, folder / "last.ckpt")
    (folder / "model.yaml").write_text(yaml.safe_dump(original.settings), encoding="utf-8")


def config_json(original: Original, folder: Path) -> None:
    if original.settings:
        (folder / "config.json").write_text(json.dumps(original.settings), encoding="utf-8")


def safetensors(original: Original, tensors: dict[str, Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config_json(original, folder)


def saved(name: str) -> Callable[[Original, dict[str, Tensor], Path], None]:
    """A dict of tensors by `torch.save`, in a dict where their names have a first part in common."""

    def write(original: Original, tensors: dict[str, Tensor], folder: Path) -> None:
        model = {key.removeprefix("model."): tensor for key, tensor in tensors.items()}
        torch.save({"model": model} if model.keys() != tensors.keys() else tensors, folder / name)
        config_json(original, folder)

    return write
