"""Writing files so that nothing is ever half-written, reading tensors with clear errors, naming places."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smalti.errors import SmaltiError

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"  # of a model's folder
BEST = "best.json"  # in a run that keeps its best model: {"step": ..., "validation_loss": ...}
PARTIAL = ".partial-"  # begins the names of files that are being written


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary name next to `path`; rename it to `path` when the block ends well, delete it otherwise.

    Raises:
        SmaltiError: the folder cannot be written to, or the disk is full; `path` is then as it was.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL, suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise SmaltiError(f"cannot write {path}: {error.strerror}; choose another place") from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        what = f"cannot write {path}: {error.strerror or error}"
        raise SmaltiError(f"{what}; free some space or choose another place") from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial(*folders: Path) -> None:
    """Delete what a killed process has left in folders that nothing writes into now."""
    for path in [path for folder in folders for path in folder.glob(f"{PARTIAL}*")]:
        path.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write a JSON file, atomically, in a form that a person can read."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        SmaltiError: it is not there, or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SmaltiError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise SmaltiError(f"{path} is not readable JSON: {error}") from error


def write_tensors(path: Path | str, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors as safetensors, atomically."""
    from safetensors.torch import save_file

    copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(copies, temporary, metadata=dict(metadata or {}))
        except Exception as error:  # safetensors reports a full disk as its own error class
            raise OSError(str(error)) from error


def read_tensors(path: Path | str) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a safetensors file: (tensors, metadata).

    Raises:
        SmaltiError: the file is not there, cut off, or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise SmaltiError(f"{path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise SmaltiError(f"{path} is cut off or not a safetensors file ({error}); copy or train it again") from error


def write_checked(path: Path | str, tensors: Mapping[str, Any], record: Any) -> None:
    """Write named tensors and a record (what JSON can hold) with a hash of both, atomically; always the same bytes."""
    text = json.dumps(record)
    stored = {"record": text, "sha256": _digest(tensors, text)}
    write_tensors(path, tensors, {"smalti": json.dumps(stored)})  # one key: the order of several varies


def read_checked(path: Path | str) -> tuple[dict[str, Any], Any]:
    """Read what `write_checked` wrote: (tensors, record).

    Raises:
        SmaltiError: the file is not there, not of `write_checked`, or a bit of it is another one.
    """
    tensors, metadata = read_tensors(path)
    try:
        stored = json.loads(metadata["smalti"])
        text, found = stored["record"], stored["sha256"]
        record = json.loads(text)
    except (KeyError, TypeError, ValueError) as error:
        raise SmaltiError(f"{path} is damaged, or was not written by smalti; remove it") from error
    if found != _digest(tensors, text):
        raise SmaltiError(f"{path} is damaged: its bytes do not fit their hash; copy it again, or remove it")
    return tensors, record


def _digest(tensors: Mapping[str, Any], text: str) -> str:
    """SHA-256 of a text and of the names, types, shapes and bytes of tensors."""
    from torch import uint8

    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(uint8).numpy())
    return digest.hexdigest()


def relative_place(place: str, folder: Path | str) -> str:
    """How a file in `folder` names a folder or file elsewhere: from there, beginning with a dot.

    So both can be moved together, and nobody's folders are shown. On another drive it is absolute; what is no path, as
    owner/name on the hub, stays.
    """
    path = Path(place)
    if not (path.is_absolute() or place.startswith(".") or path.exists()):
        return place
    try:
        found = Path(os.path.relpath(path.resolve(), Path(folder).resolve())).as_posix()
    except ValueError:  # Windows: another drive
        return path.resolve().as_posix()
    return found if found.startswith(".") else f"./{found}"


def absolute_place(place: str, folder: Path | str) -> str:
    """The inverse of `relative_place`, of what a file in `folder` says."""
    return str((Path(folder).resolve() / place).resolve()) if place.startswith(".") else place


def file_hash(path: Path | str) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
