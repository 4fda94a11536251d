"""Writing files so that nothing is ever half-written, reading tensors with clear errors, naming places."""

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from smalti.errors import SmaltiError, reason, shown

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"  # of a model's folder
MOST_JSON, DEEPEST_JSON = 1 << 23, 64  # bytes; levels
MOST_HEADER = 1 << 23  # bytes of a header of tensors
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


@contextlib.contextmanager
def atomic_folder(folder: Path | str) -> Iterator[Path]:
    """Give an empty folder beside `folder`; when the block ends well, its files take their places in `folder`.

    Raises:
        SmaltiError: it cannot be written to.
    """
    folder = Path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=PARTIAL) as name:
            yield Path(name)
            folder.mkdir(exist_ok=True)
            for path in sorted(Path(name).iterdir()):
                path.replace(folder / path.name)
    except OSError as error:
        raise SmaltiError(f"cannot write {folder}: {error.strerror or error}; choose another place") from error


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


def read_json(path: Path | str, most: int = MOST_JSON) -> Any:
    """Read a JSON file of at most so many bytes; NaN and infinity are numbers there.

    Raises:
        SmaltiError: it is not there, no regular file, too long, not JSON, nested too deeply, or an object in it has a
            key twice.
    """
    try:
        value = json.loads(read_bounded(path, most).decode("utf-8-sig"), object_pairs_hook=_each_once)
    except RecursionError as error:
        raise SmaltiError(f"{path} is not readable JSON: it is nested too deeply") from error
    except ValueError as error:
        if isinstance(error, SmaltiError):
            raise
        raise SmaltiError(f"{path} is not readable JSON: {reason(error)}") from error
    level, depth = [value], 0
    while level := [child for own in level if isinstance(own, dict | list) for child in _children(own)]:
        depth += 1
        if depth > DEEPEST_JSON:
            raise SmaltiError(f"{path} is not readable JSON: it is nested too deeply")
    return value


def _children(value: dict | list) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {shown(twice)} stands twice in one object")
    return found


def read_bounded(path: Path | str, most: int) -> bytes:
    """The bytes of a regular file of at most `most` bytes; nothing else is opened.

    Raises:
        SmaltiError: it is not there, no regular file, unreadable, or longer.
    """
    size = check_regular(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(most + 1) if size <= most else b""
    except OSError as error:
        raise SmaltiError(f"cannot read {path}: {error.strerror or error}") from error
    if max(len(data), size) > most:
        raise SmaltiError(f"{path} is longer than the {most:,} bytes that are read; is it this file?")
    return data


def check_regular(path: Path | str) -> int:
    """The bytes of a regular file, which a device or a pipe is not.

    Raises:
        SmaltiError: it is not there, no regular file, or in a folder that cannot be read.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise SmaltiError(f"{path} does not exist") from error
    except OSError as error:
        raise SmaltiError(f"cannot read {path}: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise SmaltiError(f"{path} is no regular file")
    return status.st_size


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
    with _opened(Path(path)) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


class TensorHeader(NamedTuple):
    """What the header of a safetensors file says of a tensor."""

    dtype: str  # "F32", "BF16", "I64", ...
    shape: tuple[int, ...]


def read_headers(path: Path | str) -> dict[str, TensorHeader]:
    """The types and shapes of the tensors in a safetensors file, without their values; they fit the file's length.

    Raises:
        SmaltiError: as of `read_tensors`.
    """
    with _opened(Path(path)) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: TensorHeader(own.get_dtype(), tuple(own.get_shape())) for name, own in slices.items()}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise SmaltiError(f"{path} does not exist")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if 8 + length > path.stat().st_size or length > MOST_HEADER:
            raise OSError("no header of its length")
        with safe_open(path, framework="pt") as opened:
            yield opened
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError) as error:  # a type that torch does not have
        what = f"{path} is cut off or not a safetensors file ({reason(error)})"
        raise SmaltiError(f"{what}; copy or train it again") from error


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
