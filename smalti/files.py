"""Writing files so that nothing is ever half-written, and reading tensors with errors that a user can act on."""

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


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary name next to `path`; rename it to `path` when the block ends well, delete it otherwise.

    Raises:
        SmaltiError: the folder cannot be written to, or the disk is full; `path` is then as it was.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
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


def file_hash(path: Path | str) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
