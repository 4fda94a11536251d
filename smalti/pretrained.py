"""Model folders: config.json + model.safetensors + README.md, on disk or on the Hugging Face hub."""

import contextlib
import difflib
import math
import re
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module
from torch.overrides import TorchFunctionMode

from smalti.configs import CannotBuild, from_dict, to_dict
from smalti.errors import LONGEST, SmaltiError, cut, shown
from smalti.files import (
    CARD,
    CONFIG,
    WEIGHTS,
    TensorHeader,
    file_hash,
    read_headers,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
    write_text,
)

T = TypeVar("T", bound=nn.Module)
WEIGHTS_HASH = "weights_sha256"  # in config.json; a folder without it is older
SETTLED_SECONDS = 1.0  # after which weights that were just written have a config that fits
MOST_UNSAVED = 1 << 27  # numbers that a model may make besides its weights
FLOATS = ("F32", "F16", "BF16", "F64")
FILLS = {  # what writes values into a tensor, and nothing else
    *("copy_", "fill_", "zero_", "normal_", "uniform_", "zeros_", "ones_", "constant_", "trunc_normal_"),
    *("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"),
}
ARITHMETIC = {"add", "sub", "mul", "div", "truediv"}
TYPES = {  # of weights in a file, by what the model has; the first is its own
    torch.float32: FLOATS,
    torch.float64: ("F64", "F32"),
    torch.float16: ("F16",),
    torch.bfloat16: ("BF16",),
    torch.int64: ("I64",),
    torch.int32: ("I32",),
    torch.int16: ("I16",),
    torch.int8: ("I8",),
    torch.uint8: ("U8",),
    torch.uint16: ("U16",),
    torch.uint32: ("U32",),
    torch.uint64: ("U64",),
    torch.bool: ("BOOL",),
    torch.complex64: ("C64",),
}
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


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
        """Load a model from a folder, or from the hub when there is no such folder.

        The folder may be anybody's. Nothing in it is code, and before memory is taken the model that config.json
        describes is built without any, on the meta device, and compared with the header of the weights.

        Args:
            name: a folder, or "owner/name" on the Hugging Face hub.
            device: where to put the model.
            revision: a branch, tag or commit of the hub's repository.

        Raises:
            SmaltiError: no such model, a damaged file, an unknown key or a wrong value, or weights of another model.
        """
        folder = find_folder(name, revision, cls.more_files)
        config, stated = _read(folder, cls.config_class, cls.what)
        model = _built(cls, config, folder)
        weights_hash = file_hash(folder / WEIGHTS)
        if stated not in ("", weights_hash):
            _wait_for_partner(folder / WEIGHTS)
            stated, weights_hash = _read(folder, cls.config_class, cls.what)[1], file_hash(folder / WEIGHTS)
        if stated not in ("", weights_hash):
            what = f"{folder / WEIGHTS} is damaged, or not the file that {CONFIG} beside it was written for"
            raise SmaltiError(f"{what}; copy both again")
        tensors, _ = read_tensors(folder / WEIGHTS)
        _check_values(model, tensors, folder / WEIGHTS)
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
        return _outlined(cls, _read(folder, cls.config_class, cls.what)[0], folder)

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
    """The folder of a model: `name` itself, or the hub's copy of it in the local cache.

    Only what can be nothing but owner/name is looked up on the hub: a mistyped folder beside others is not sent out.

    Raises:
        SmaltiError: no such folder, and no such repository.
    """
    folder = Path(name)
    try:
        if folder.is_dir():
            return folder
    except OSError as error:  # a name that no folder can have
        raise SmaltiError(f"{shown(str(name))}: no such folder: {error.strerror}") from error
    if folder.exists() or folder.parent.is_dir() or not HUB_NAME.fullmatch(str(name)):
        beside = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
        close = difflib.get_close_matches(folder.name, beside, n=1)
        hint = f"did you mean {folder.parent / close[0]}?" if close else "give a folder that `smalti train` made"
        raise SmaltiError(f"{name}: no such folder; {hint}, or owner/name on the hub")
    from huggingface_hub import snapshot_download

    patterns = [CONFIG, WEIGHTS, CARD, *more_files]
    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub's errors share no base class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SmaltiError(f"{name}: no such folder here, and the hub says: {reason}") from error


def _wait_for_partner(weights: Path) -> None:
    """A training that goes on replaces its weights, and then the config with their hash: one may come between."""
    if time.time() - weights.stat().st_mtime < SETTLED_SECONDS:
        time.sleep(SETTLED_SECONDS / 2)


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
    with _about(path):
        return from_dict(config_class, values, ""), weights_hash


@contextlib.contextmanager
def _about(path: Path) -> Iterator[None]:
    """Put the name of a file before the text of an error, and keep it short."""
    try:
        yield
    except SmaltiError as error:
        raise type(error)(cut(f"{path}: {error}", LONGEST)) from error


def _built(model_class: type[T], config: Any, folder: Path) -> T:
    """The model of a config, after its outline was compared with the header of its weights.

    A part of the user's that cannot be built on the meta device is built at once, and compared then.
    """
    try:
        _outlined(model_class, config, folder)
    except CannotBuild:
        return _outlined(model_class, config, folder, device="cpu")
    with _about(folder / CONFIG):
        return model_class(config)


def _outlined(model_class: type[T], config: Any, folder: Path, device: str = "meta") -> T:
    headers = read_headers(folder / WEIGHTS)
    with _about(folder / CONFIG), _bounded(headers), torch.device(device), _Valueless():
        model = model_class(config)
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: header.shape for key, header in headers.items()}
    files = f"{folder / WEIGHTS} does not belong to {folder / CONFIG}"
    if wanted != found:
        key = next(key for key in [*wanted, *found] if wanted.get(key) != found.get(key))
        shapes = f"{shown(key)} has shape {shown(found.get(key, 'none'))} instead of {shown(wanted.get(key, 'none'))}"
        raise SmaltiError(cut(f"{files}: {shapes}; take both files from one training", LONGEST))
    for key, value in model.state_dict().items():
        allowed = TYPES.get(value.dtype, ())
        if headers[key].dtype not in allowed:
            types = f"{shown(key)} is of type {headers[key].dtype} instead of {allowed[0] if allowed else value.dtype}"
            raise SmaltiError(cut(f"{files}: {types}; take both files from one training", LONGEST))
    return model


class _Valueless(TorchFunctionMode):
    """Nothing is computed for tensors without values: PyTorch would import its compiler for their random numbers."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        options = kwargs or {}
        name, first = getattr(func, "__name__", ""), args[0] if args else options.get("tensor")
        if isinstance(first, torch.Tensor) and first.is_meta:
            if name in FILLS or (name == "to" and args[1:3] == (None, None)):  # another order in memory
                return first
            if name.strip("_r") in ARITHMETIC and first.is_floating_point() and len(args) == 2:
                shape = np.broadcast_shapes(first.shape, getattr(args[1], "shape", ()))
                return first if shape == first.shape else torch.empty(shape, dtype=first.dtype, device=first.device)
        if func in (torch.rand, torch.randn) and options.keys() <= {"dtype", "device"}:
            made = torch.empty(*args, **options)
            return made if made.is_meta else func(*args, **options)
        return func(*args, **options)


@contextlib.contextmanager
def _bounded(headers: Mapping[str, TensorHeader]) -> Iterator[None]:
    """Let a constructor make about as many parts and numbers as the header of its weights names, and no more."""
    thread, most_tensors, most_parts = threading.get_ident(), 2 * len(headers) + 64, 16 * len(headers) + 512
    numbers = sum(math.prod(header.shape) for header in headers.values())
    made = {"tensors": 0, "parts": 0, "numbers": 0}

    def count_tensor(_: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
        if threading.get_ident() != thread or tensor is None:
            return
        made["tensors"] += 1
        made["numbers"] += tensor.numel()
        if made["tensors"] > most_tensors or made["numbers"] > 2 * numbers + MOST_UNSAVED:
            raise SmaltiError(f"the model would be larger than {WEIGHTS} beside it; take both from one training")

    def count_part(_: nn.Module, name: str, part: nn.Module | None) -> None:
        made["parts"] += threading.get_ident() == thread
        if made["parts"] > most_parts:
            raise SmaltiError(f"the model would have more parts than {WEIGHTS} beside it; take both from one training")

    hooks = [
        module.register_module_parameter_registration_hook(count_tensor),
        module.register_module_buffer_registration_hook(count_tensor),
        module.register_module_module_registration_hook(count_part),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_values(model: nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Warn of weights that are converted, and refuse numbers that are none; a buffer that begins with some may."""
    for name, own in model.state_dict().items():
        value = tensors[name]
        if not own.is_floating_point():
            continue
        if value.dtype != own.dtype:
            types = f"{value.dtype} instead of {own.dtype}".replace("torch.", "")
            warnings.warn(f"{path}: {shown(name)} is of type {types} and was converted", stacklevel=3)
        if not _all_finite(value.to(own.dtype)) and _all_finite(own):
            what = f"{path}: {shown(name)} holds NaN or infinity; copy or train it again"
            raise SmaltiError(cut(what, LONGEST))


def _all_finite(values: torch.Tensor) -> bool:
    return not values.numel() or bool(torch.stack(torch.aminmax(values)).isfinite().all())
