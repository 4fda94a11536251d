"""Model folders: config.json + model.safetensors + README.md, on disk or on the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from smalti.configs import from_dict, to_dict
from smalti.errors import SmaltiError
from smalti.files import (
    CARD,
    CONFIG,
    WEIGHTS,
    file_hash,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
    write_text,
)


class Pretrained(nn.Module):
    """A module that is made from one frozen config and lives in a folder.

    A member sets `config_class` and `what`, takes the config as its only argument and keeps it as `self.config`.
    """

    config_class: ClassVar[type]
    what: ClassVar[str]  # "autoencoder", "prior": stored in config.json, so that a folder says what it holds
    more_files: ClassVar[tuple[str, ...]] = ()  # what else may lie in the folder, see `save_more`
    config: Any
    source_hash: str = ""  # SHA-256 of the weights file that the model was loaded from

    def save_pretrained(self, folder: Path | str, card: str | None = None) -> None:
        """Write config.json, model.safetensors and, if given, the model card; each file atomically."""
        folder = Path(folder)
        self.save_more(folder)
        write_json(folder / CONFIG, {"smalti": self.what, "format": 1, **to_dict(self.config_in(folder))})
        write_tensors(folder / WEIGHTS, self.state_dict(), {"smalti": self.what})
        if card is not None:
            write_text(folder / CARD, card)

    @classmethod
    def from_pretrained(cls, name: Path | str, *, device: str = "cpu", revision: str | None = None) -> Self:
        """Load a model from a folder, or from the hub when there is no such folder.

        Args:
            name: a folder, or "owner/name" on the Hugging Face hub.
            device: where to put the model.
            revision: a branch, tag or commit of the hub's repository.

        Raises:
            SmaltiError: no such model, a damaged file, an unknown key, or weights of another model.
        """
        folder = find_folder(name, revision, cls.more_files)
        model = cls(read_config(folder, cls.config_class, cls.what))
        tensors, _ = read_tensors(folder / WEIGHTS)
        wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        found = {key: tuple(value.shape) for key, value in tensors.items()}
        if wanted != found:
            key = next(key for key in [*wanted, *found] if wanted.get(key) != found.get(key))
            shapes = f"{key!r} has shape {found.get(key, 'none')} instead of {wanted.get(key, 'none')}"
            files = f"{folder / WEIGHTS} does not belong to {folder / CONFIG}"
            raise SmaltiError(f"{files}: {shapes}; take both files from one training")
        model.load_state_dict(tensors)
        model.load_more(folder)
        model.source_hash = file_hash(folder / WEIGHTS)
        return model.to(device).eval()

    def config_in(self, folder: Path) -> Any:
        """The config as it is written into a folder."""
        return self.config

    def save_complete(self, folder: Path, card: str | None = None) -> None:
        """As `save_pretrained`, with all that others need who have this folder alone."""
        self.save_pretrained(folder, card)

    def save_more(self, folder: Path) -> None:
        """Write what belongs to the model besides its config and weights: nothing, unless a member says otherwise."""

    def load_more(self, folder: Path) -> None:
        """Read what `save_more` wrote."""

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the model's folder to the Hugging Face hub; returns the commit's address."""
        import tempfile

        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        card = f"---\nlibrary_name: smalti\ntags: [smalti, {self.what}]\n---\n# {repo_id}\n"
        with tempfile.TemporaryDirectory() as folder:
            self.save_complete(Path(folder), card)
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def num_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters())


def find_folder(name: Path | str, revision: str | None = None, more_files: Sequence[str] = ()) -> Path:
    """The folder of a model: `name` itself, or the hub's copy of it in the local cache."""
    folder = Path(name)
    if folder.is_dir():
        return folder
    if folder.exists() or str(name).count("/") != 1 or str(name).startswith((".", "/")):
        raise SmaltiError(f"{name}: no such folder; give a folder that `smalti train` made, or owner/name on the hub")
    from huggingface_hub import snapshot_download

    patterns = [CONFIG, WEIGHTS, CARD, *more_files]
    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub's errors share no base class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SmaltiError(f"{name}: no such folder here, and the hub says: {reason}") from error


def read_config(folder: Path, config_class: type, what: str) -> Any:
    """The config of the model in `folder`, checked to be of the kind `what`."""
    path = folder / CONFIG
    if not path.is_file():
        raise SmaltiError(f"{folder} holds no model ({CONFIG} is missing); give a folder that `smalti train` made")
    values = read_json(path)
    if not isinstance(values, dict) or values.pop("smalti", None) != what:
        raise SmaltiError(f"{path} does not describe a smalti {what}; give another folder")
    version = values.pop("format", None)
    if version != 1:
        raise SmaltiError(f"{path} has format {version!r}, this smalti reads format 1; update smalti")
    if not (folder / WEIGHTS).is_file():
        raise SmaltiError(f"{folder} has no {WEIGHTS} yet; let the training write its first checkpoint (re-run it)")
    return from_dict(config_class, values, str(path))
