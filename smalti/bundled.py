"""Models that come with the package, by their names: the tokenizer `emoji` and its prior, `emoji/text_to_image`.

A bundled name gives the folder of the kind of model that is asked for: `emoji` is the tokenizer to who needs one, and
the prior to who needs a prior. A folder of that name where one works is meant before it. `make emoji` made them.
"""

import functools
import os
from pathlib import Path

from smalti.files import CONFIG, WEIGHTS, file_hash, read_json

HOME = Path(__file__).parent / "bundled"


@functools.cache
def bundled() -> dict[str, str]:
    """What comes with the package: names, and what each is, "autoencoder" or "prior"."""
    configs = sorted(HOME.rglob(CONFIG))
    return {path.parent.relative_to(HOME).as_posix(): str(read_json(path)["smalti"]) for path in configs}


def place_of(name: Path | str, what: str = "autoencoder") -> str:
    """Where a model lies: of a bundled name the folder, of every other name, a path or owner/name, the name itself.

    Args:
        name: of a model.
        what: the kind that is asked for, "autoencoder" or "prior"; where the name has none, it is what it is.
    """
    name, known = str(name), bundled()
    if name not in known or os.path.isdir(name):
        return name
    kinds = [own for own in all_of(name) if known[own] == what]
    return str(HOME / (kinds or [name])[0])


def all_of(name: Path | str) -> list[str]:
    """All models of a bundled name, `emoji` and `emoji/text_to_image`; of every other name the name itself."""
    name = str(name)
    below = [] if os.path.isdir(name) else [own for own in bundled() if f"{own}/".startswith(f"{name}/")]
    return below or [name]


def bundled_with(weights_hash: str) -> str | None:
    """The folder of the bundled model whose weights have a SHA-256 that begins so, by at least 12 digits."""
    folders = (HOME / name for name in bundled())
    found = (str(folder) for folder in folders if file_hash(folder / WEIGHTS).startswith(weights_hash))
    return next(found, None) if len(weights_hash) >= 12 else None
