"""Model folders: config.json + model.safetensors + README.md, on disk or on the Hugging Face hub."""

import contextlib
import difflib
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from smalti.bundled import bundled, place_of
from smalti.configs import from_dict, to_dict
from smalti.errors import SmaltiError, reason, shown
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
from smalti.outlines import about, built, check_values, outlined

WEIGHTS_HASH = "weights_sha256"  # in config.json; a folder without it is older
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
FOREIGN = (".safetensors", ".msgpack", ".bin", ".pt", ".pth", ".ckpt", ".pkl")  # weights of others, the best first
SETTLED_SECONDS = 1.0  # after which weights that were just written have a config that fits


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
        """Write model.safetensors, then config.json with its hash and, if given, the card; each file atomically."""
        folder = Path(folder)
        self.save_more(folder)
        write_tensors(folder / WEIGHTS, self.state_dict(), {"smalti": self.what})
        about = {"smalti": self.what, "format": 1, WEIGHTS_HASH: file_hash(folder / WEIGHTS)}
        write_json(folder / CONFIG, {**about, **to_dict(self.config_in(folder))})
        if card is not None:
            write_text(folder / CARD, card)

    @classmethod
    def from_pretrained(cls, name: Path | str, *, device: str = "cpu", revision: str | None = None) -> Self:
        """Load a model from a folder, by a bundled name, or from the hub when it is neither.

        The folder may be anybody's. Nothing in it is code, and before memory is taken the model that config.json
        describes is built without any, on the meta device, and compared with the header of the weights.

        Args:
            name: a folder, a name of `smalti.bundled` as "emoji", or "owner/name" on the Hugging Face hub.
            device: where to put the model.
            revision: a branch, tag or commit of the hub's repository.

        Raises:
            SmaltiError: no such model, a damaged file, an unknown key or a wrong value, or weights of another model.
        """
        folder = find_folder(name, cls.what, revision, cls.more_files)
        check_whose(folder, str(name))
        config, stated = _read(folder, cls.config_class, cls.what)
        model = built(cls, config, folder)
        weights_hash = file_hash(folder / WEIGHTS)
        if stated not in ("", weights_hash):
            _wait_for_partner(folder / WEIGHTS)
            stated, weights_hash = _read(folder, cls.config_class, cls.what)[1], file_hash(folder / WEIGHTS)
        if stated not in ("", weights_hash):
            what = f"{folder / WEIGHTS} is damaged, or not the file that {CONFIG} beside it was written for"
            raise SmaltiError(f"{what}; copy both again")
        tensors, _ = read_tensors(folder / WEIGHTS)
        check_values(model, tensors, folder / WEIGHTS)
        model.load_state_dict(tensors)
        model.load_more(folder)
        model.source_hash = weights_hash
        return model.to(device).eval()

    @classmethod
    def outline(cls, folder: Path) -> Self:
        """The model in a folder without its weights: shapes on the meta device, that fit the header of the weights.

        Raises:
            SmaltiError: as of `from_pretrained`.
        """
        check_whose(folder, str(folder))
        return outlined(cls, _read(folder, cls.config_class, cls.what)[0], folder)

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


def find_folder(
    name: Path | str, what: str = "autoencoder", revision: str | None = None, more_files: Sequence[str] = ()
) -> Path:
    """The folder of a model: `name` itself, the package's of a bundled name, or the hub's copy in the local cache.

    Args:
        name: as of `Pretrained.from_pretrained`.
        what: the kind of model that is asked for; a bundled name stands for one of each.
        revision: of the hub's repository.
        more_files: of it, besides those of every model.

    Raises:
        SmaltiError: no such folder, and no such repository.
    """
    if os.path.isfile(name) and str(name).lower().endswith(FOREIGN):
        raise SmaltiError(f"{name} is a file, and a model is a folder: {_conversion(str(name))}")
    name = place_of(name, what)
    folder = local_folder(name, "give a folder that `smalti train` made")
    return folder or hub_folder(str(name), revision, [CONFIG, WEIGHTS, CARD, *more_files])


def local_folder(name: Path | str, remedy: str) -> Path | None:
    """The folder of that name, or None for what can be nothing but owner/name on the hub.

    A mistyped folder beside others is not sent out.

    Raises:
        SmaltiError: no such folder; with the `remedy`, unless another one has nearly this name.
    """
    folder = Path(name)
    try:
        if folder.is_dir():
            return folder
    except OSError as error:  # a name that no folder can have
        raise SmaltiError(f"{shown(str(name))}: no such folder: {error.strerror}") from error
    if folder.exists() or folder.parent.is_dir() or not HUB_NAME.fullmatch(str(name)):
        beside = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
        close = [str(folder.parent / near) for near in difflib.get_close_matches(folder.name, beside, n=1)]
        close += difflib.get_close_matches(str(folder), bundled(), n=1)
        hint = f"did you mean {close[0]}?" if close else remedy
        raise SmaltiError(f"{name}: no such folder; {hint}, or owner/name on the hub")
    return None


def hub_files(name: str, revision: str | None) -> list[str]:
    """The names of all files of a repository of the hub; none is fetched."""
    from huggingface_hub import HfApi

    with _hub(name):
        return HfApi().list_repo_files(name, revision=revision)


def hub_folder(name: str, revision: str | None, files: Sequence[str]) -> Path:
    """The local copy of a repository of the hub: of the `files` that it has, and of nothing else."""
    from huggingface_hub import snapshot_download

    with _hub(name):
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*files]))


@contextlib.contextmanager
def _hub(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the hub's errors share no base class
        raise SmaltiError(f"{name}: no such folder here, and the hub says: {reason(error)}") from error


def _wait_for_partner(weights: Path) -> None:
    """A training that goes on replaces its weights, and then the config with their hash: one may come between."""
    if time.time() - weights.stat().st_mtime < SETTLED_SECONDS:
        time.sleep(SETTLED_SECONDS / 2)


def check_whose(folder: Path, name: str) -> None:
    """Refuse the model of another project, and say how to convert it.

    Raises:
        SmaltiError: config.json is that of another library, or there is none beside weights.
    """
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if not isinstance(config, dict) or "smalti" in config:
        return
    if others := [key for key in ("_class_name", "model_type", "architectures") if key in config]:
        raise SmaltiError(f"{name} holds {shown(config[others[0]])} of another library: {_conversion(name)}")
    if not config and any(path.suffix in FOREIGN for path in folder.iterdir()):
        raise SmaltiError(f"{name} holds weights, and no model of smalti: {_conversion(name)}")


def _conversion(name: str) -> str:
    return f"`smalti convert {name} --out RUN` makes a model of weights of another project"


def _read(folder: Path, config_class: type, what: str) -> tuple[Any, str]:
    """The config of the model in `folder`, checked to be of the kind `what`, and the hash of weights that it names."""
    path = folder / CONFIG
    if not path.is_file():
        raise SmaltiError(f"{folder} holds no model ({CONFIG} is missing); give a folder that `smalti train` made")
    values = read_json(path)
    if not isinstance(values, dict) or values.pop("smalti", None) != what:
        raise SmaltiError(f"{path} does not describe a smalti {what}; give another folder")
    version, weights_hash = values.pop("format", None), values.pop(WEIGHTS_HASH, "")
    if version != 1 or isinstance(version, bool):
        raise SmaltiError(f"{path} has format {shown(version)}, this smalti reads format 1; update smalti")
    if not isinstance(weights_hash, str) or not re.fullmatch("([0-9a-f]{64})?", weights_hash):
        raise SmaltiError(f"{path}: {WEIGHTS_HASH}: expected 64 hexadecimal digits, got {shown(weights_hash)}")
    if not (folder / WEIGHTS).is_file():
        raise SmaltiError(f"{folder} has no {WEIGHTS} yet; let the training write its first checkpoint (re-run it)")
    with about(path):
        return from_dict(config_class, values, ""), weights_hash
