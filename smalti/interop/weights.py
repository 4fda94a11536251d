"""Opening the weights of other projects: a file, a folder or a repository of the hub becomes named tensors.

What a file is, its first bytes say, never its name. None of the formats is run: see `smalti.interop.pickles`.
"""

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from smalti.errors import LONGEST, SmaltiError, cut, one_line, shown
from smalti.files import CONFIG, check_regular, read_bounded, read_headers, read_json, read_tensors
from smalti.interop.flax import read_msgpack
from smalti.interop.pickles import read_pickle
from smalti.pretrained import FOREIGN, HUB_NAME, hub_files, hub_folder, local_folder

SUBFOLDERS = ("", "vqvae/", "movq/", "vqgan/", "vq_model/", "checkpoints/")
PAIR = ("encoder.pkl", "decoder.pkl")
STEMS = ("model", "diffusion_pytorch_model", "pytorch_model", "flax_model", "flax_model_weights")
SUFFIXES = FOREIGN
INDEX = ".index.json"
SETTINGS = (".yaml", ".yml")
MOST_YAML, DEEPEST_YAML = 1 << 16, 64
LFS = b"version https://git-lfs"
TYPE_CODES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")  # of safetensors


@dataclass(frozen=True)
class Weights:
    """Named tensors of a stranger, and what is said of them."""

    path: Path  # what was read, for messages
    tensors: dict[str, Tensor]  # on the CPU, names as in the file, the keys on the way joined by dots
    settings: dict[str, Any]  # plain data of a config, {} where there is none


def read_weights(source: str, config: str | None = None, revision: str | None = None) -> Weights:
    """Open weights of any project, as data.

    Args:
        source: a file (safetensors, `torch.save`, Flax's MessagePack), a folder with one, or owner/name on the Hugging
            Face hub; owner/name/FILE where there are several.
        config: a JSON or YAML file of settings, instead of one beside the weights.
        revision: a branch, tag or commit of the hub's repository.

    Raises:
        SmaltiError: no such place, several files to choose from, a file of another kind, damaged, or with more in it
            than tensors and plain data.
    """
    files, settings = _find(source, revision)
    tensors: dict[str, Tensor] = {}
    inside: dict[str, Any] = {}
    for prefix, file in files:
        own, inside = _read(file)
        tensors = _joined(tensors, {prefix + name: tensor for name, tensor in own.items()}, file)
    if not tensors:
        raise SmaltiError(f"{files[0][1]} holds no tensors; give another file")
    path = files[0][1] if len(files) == 1 else files[0][1].parent
    chosen = Path(config) if config else settings
    return Weights(path, tensors, read_settings(chosen) if chosen else inside)


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON or YAML file as plain data; what it says to import or to make is text like any other.

    Raises:
        SmaltiError: it is not there, too long, damaged, nested too deeply, has aliases or tags, or is no dict.
    """
    found = read_json(path) if path.suffix == ".json" else _read_yaml(path)
    if not isinstance(found, dict):
        raise SmaltiError(f"{path} holds {shown(found)} instead of settings by name; give another file with --config")
    return found


def _read_yaml(path: Path) -> Any:
    import yaml

    data = read_bounded(path, MOST_YAML)
    with one_line(path, f"{path} is not YAML of plain values; write it without tags"):
        depth = 0
        for event in yaml.parse(data, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST_YAML:
                raise SmaltiError("it has aliases or is nested too deeply; write its values out")
        return _plain(yaml.safe_load(data))


def _plain(value: Any) -> Any:
    """What JSON can hold; days and times become texts."""
    if isinstance(value, dict):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_plain(own) for own in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _find(source: str, revision: str | None) -> tuple[list[tuple[str, Path]], Path | None]:
    """(prefix of its names, file) of what to open, and the settings that belong to it."""
    if os.path.exists(source) and not os.path.isdir(source):
        folder, chosen = Path(source).parent, [("", Path(source).name)]
    elif folder := _folder_here(source):
        names = [path.relative_to(folder).as_posix() for own in SUBFOLDERS for path in (folder / own).glob("*")]
        chosen = choose(names, source)
    else:
        return _fetch(source, revision)
    if revision is not None:
        raise SmaltiError(f"revision {revision} has no effect on what is on this machine; leave it out")
    files = [(prefix, folder / name) for prefix, name in chosen]
    return files, _settings_beside(files[0][1], folder)


def _folder_here(source: str) -> Path | None:
    """A folder of this machine, or None for owner/name and owner/name/FILE."""
    owner, name, file = [*source.split("/", 2), "", ""][:3]
    if file.endswith((INDEX, *SUFFIXES)) and HUB_NAME.fullmatch(f"{owner}/{name}") and not os.path.exists(owner):
        return None
    return local_folder(source, "give a file or a folder of weights")


def _fetch(source: str, revision: str | None) -> tuple[list[tuple[str, Path]], Path | None]:
    """As `_find`, from the hub; the files of a repository are chosen by their names before any is fetched."""
    repository = "/".join(source.split("/")[:2])
    file = source[len(repository) + 1 :]
    names = hub_files(repository, revision)
    if file and file not in names:
        raise SmaltiError(cut(f"{repository} has no file {shown(file)}; give one that it has", LONGEST))
    chosen = [("", file)] if file else choose(names, source)
    needed = [name for name in names if _is_needed(name, chosen)]
    folder = hub_folder(repository, revision, [glob.escape(name) for name in needed])
    files = [(prefix, folder / name) for prefix, name in chosen]
    return files, _settings_beside(files[0][1], folder)


def choose(names: Sequence[str], source: str) -> list[tuple[str, str]]:
    """(prefix, file) of the weights among the names of a folder's files.

    An index of several files goes before one file, safetensors before all else, the folder before those in it.

    Raises:
        SmaltiError: there are none, or several that may be different weights.
    """
    for sub in SUBFOLDERS:
        own = sorted(name for name in names if name.rpartition("/")[0] + "/" * bool(sub) == sub)
        if {sub + name for name in PAIR} <= {*own}:
            return [(f"{Path(name).stem}.", sub + name) for name in PAIR]
        known = [f"{sub}{stem}{suffix}{index}" for suffix in SUFFIXES for stem in STEMS for index in (INDEX, "")]
        found = [name for name in known if name in own][:1]
        found = found or [name for name in own if name.endswith(tuple(suffix + INDEX for suffix in SUFFIXES))]
        found = found or [name for name in own if name.endswith(SUFFIXES)]
        if len(found) > 1:
            listed = ", ".join(PurePosixPath(name).name for name in found[:6]) + ", ..." * (len(found) > 6)
            raise SmaltiError(
                cut(
                    f"{source} holds several files of weights; give one, as {source.rstrip('/')}/NAME: {listed}",
                    LONGEST,
                )
            )
        if found:
            return [("", found[0])]
    kinds = " ".join(SUFFIXES)
    raise SmaltiError(f"{source} holds no weights ({kinds}); give the file itself")


def _is_needed(name: str, chosen: list[tuple[str, str]]) -> bool:
    """Whether to fetch a file of a repository: the weights, what their index is of, and settings near them."""
    files = [own for _, own in chosen]
    place, _, last = name.rpartition("/")
    if name in files:
        return True
    if files[0].endswith(INDEX):  # stem-00001-of-00003.safetensors
        stem, _, suffix = files[0].removesuffix(INDEX).rpartition(".")
        if re.fullmatch(rf"{re.escape(stem)}-[0-9]+-of-[0-9]+\.{re.escape(suffix)}", name):
            return True
    near = place in ("", "configs", files[0].rpartition("/")[0])
    return near and (last == CONFIG or last.endswith(SETTINGS))


def _settings_beside(file: Path, folder: Path) -> Path | None:
    """config.json beside the weights, a YAML of their name, or the only YAML; those of the folder at last."""
    for place in dict.fromkeys([file.parent, folder, folder / "configs"]):
        if (place / CONFIG).is_file():
            return place / CONFIG
        texts = [path for path in sorted(place.glob("*")) if path.suffix in SETTINGS] if place.is_dir() else []
        named = [path for path in texts if path.stem == file.stem] or texts
        if len(named) == 1:
            return named[0]
    return None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors in one file, or in those that an index names, and the settings in it."""
    size = check_regular(path)
    if path.name.endswith(INDEX):
        return _read_shards(path), {}
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise SmaltiError(f"{path} is empty; fetch it again")
    if head.startswith(LFS):
        raise SmaltiError(f"{path} is a Git LFS pointer: fetch the file itself (git lfs pull)")
    if head[257:262] == b"ustar":
        raise SmaltiError(f"{path} is a tar of PyTorch before 0.4, or any other; save the state_dict() anew")
    if head.startswith((b"PK", b"\x80")):
        return read_pickle(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return _read_safetensors(path), {}
    if head[0] in (0xDE, 0xDF) or 0x81 <= head[0] <= 0x8F:
        return read_msgpack(path), {}
    raise SmaltiError(f"{path} begins with {shown(head[:8])}: neither safetensors, nor of torch.save, nor of Flax")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    for name, header in read_headers(path).items():
        if header.dtype not in TYPE_CODES:
            raise SmaltiError(
                cut(f"{path}: {shown(name)} is of type {header.dtype}; convert to float32 first", LONGEST)
            )
    return read_tensors(path)[0]


def _read_shards(index: Path) -> dict[str, Tensor]:
    """The tensors of several files, all in the folder of their index."""
    listed = read_json(index)
    places = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) and name for name in places.values()):
        raise SmaltiError(f"{index} does not say which tensor lies in which file (weight_map); fetch it again")
    tensors: dict[str, Tensor] = {}
    for name in dict.fromkeys(places.values()):
        if name != PurePosixPath(name).name or "\\" in name or name.endswith(INDEX):
            raise SmaltiError(cut(f"{index} names {shown(name)}, which is no file beside it; fetch it again", LONGEST))
        tensors = _joined(tensors, _read(index.parent / name)[0], index)
    if tensors.keys() != places.keys():
        name = min(tensors.keys() ^ places.keys())
        raise SmaltiError(cut(f"{index} and its files disagree about {shown(name)}; fetch them again", LONGEST))
    return tensors


def _joined(tensors: dict[str, Tensor], more: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    if twice := tensors.keys() & more.keys():
        raise SmaltiError(cut(f"{path}: {shown(min(twice))} is there twice; fetch it again", LONGEST))
    return tensors | more
