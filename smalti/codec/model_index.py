"""Which folder on this machine holds the model that a file names by its hash."""

import os
from pathlib import Path

from smalti.bundled import bundled_with
from smalti.codec.container import HASH_BYTES
from smalti.codec.errors import CannotDecode
from smalti.errors import SmaltiError
from smalti.files import CONFIG, WEIGHTS, file_hash, read_json, write_json


def known_models() -> Path:
    """The list of models that files were made with on this machine: hash to folder, a JSON file."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SMALTI_CACHE") or Path(caches) / "smalti") / "models.json"


def remember(model_hash: str, folder: str) -> None:
    """Note where a model lies; a cache that cannot be written is done without."""
    try:
        known = _known()
        entry = str(Path(folder).resolve()) if Path(folder).is_dir() else folder
        if known.get(model_hash) != entry:
            write_json(known_models(), {**known, model_hash: entry})
    except (SmaltiError, OSError):
        pass


def find_model(short_hash: str, given: str | None, file: Path, what: str) -> str:
    """The folder (or name on the hub) of the model whose hash begins so.

    Looked for where the user says, next to the file, among those that come with the package, and in the list of models
    that were used before.

    Args:
        short_hash: the first digits, as a file has them.
        given: what the user says, if anything.
        file: the file that names the model.
        what: "model" or "prior", the option's name.

    Raises:
        CannotDecode: there is none; says which is needed.
    """
    if given is not None:
        return given
    for config in sorted([*file.parent.glob(f"*/{CONFIG}"), *file.parent.glob(CONFIG)]):
        weights = config.with_name(WEIGHTS)
        if weights.is_file() and file_hash(weights).startswith(short_hash):
            return str(config.parent)
    if bundled := bundled_with(short_hash):
        return bundled
    for model_hash, folder in _known().items():
        weights = Path(folder) / WEIGHTS
        if model_hash[: 2 * HASH_BYTES] == short_hash and (not Path(folder).is_dir() or weights.is_file()):
            return folder
    wanted = f"the {what} with the hash {short_hash}..., which is not known here"
    raise CannotDecode(f"{file} needs {wanted}; give its folder by --{what}")


def _known() -> dict[str, str]:
    try:
        values = read_json(known_models())
    except SmaltiError:
        return {}
    return {str(key): str(value) for key, value in values.items()} if isinstance(values, dict) else {}
