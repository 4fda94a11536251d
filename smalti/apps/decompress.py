"""The verb `decompress`."""

from pathlib import Path
from typing import Any

from smalti.apps.outfiles import new_file, new_files
from smalti.apps.runs import open_models
from smalti.configs import effective
from smalti.errors import SmaltiError


def decompress(
    file: str,
    *,
    out: str,
    model: str | None = None,
    prior: str | None = None,
    only: str = "",
    most_pixels: int | None = None,
    force: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """Decode a file of `smalti compress` to PNG pictures of the original sizes.

    Args:
        file: NAME.smalti.
        out: a folder for the pictures, or NAME.png for a file with one image.
        model: the folder of the model that made the file; by default looked for next to the file, among those of the
            package and those that were used on this machine.
        prior: the folder of its prior, if it has one; looked for likewise.
        only: numbers of images, from 0, with commas; by default all.
        most_pixels: of an image: it decides the memory that a file takes; by default 200 million.
        force: overwrite pictures.
        device: cpu, cuda, ...
    """
    from smalti.codec import Archive, Codec
    from smalti.codec.model_index import find_model
    from smalti.files import atomic_path

    path = Path(file)
    with Archive.open(path) as archive:
        header = archive.header
        effective(bool(header.prior_hash), f"on {file}, which has none", prior=(prior, None))
        where = find_model(header.prior_hash, prior, path, "prior") if header.prior_hash else None
        tokenizer, code_model = open_models(find_model(header.model_hash, model, path, "model"), where, device)
        codec = Codec(tokenizer, code_model, most_pixels=most_pixels, progress=True)
        codec.check(header)
        targets = _targets(archive, Path(out), _numbers(only, len(archive)), force)
        for index, image in codec.images(archive, targets):
            with atomic_path(targets[index]) as temporary:
                image.save(temporary)
        return {"written": [*map(str, targets.values())], "model": where or model or "", "coder": header.coder}


def _numbers(only: str, count: int) -> list[int]:
    """The numbers that `--only` names.

    Raises:
        SmaltiError: no number, or none of an image.
    """
    if not only:
        return list(range(count))
    numbers = []
    for word in only.split(","):
        if not word.strip().isdecimal() or int(word) >= count:
            raise SmaltiError(f"--only takes numbers from 0 to {count - 1} with commas, not {word.strip()!r}")
        numbers.append(int(word))
    return sorted(set(numbers))


def _targets(archive: Any, out: Path, indices: list[int], force: bool) -> dict[int, Path]:
    """Where each image goes: by its name, else by its number."""
    if out.suffix.lower() == ".png":
        if len(indices) != 1:
            raise SmaltiError(f"{out} is one picture and the file has {len(indices)}; give a folder, or --only")
        return {indices[0]: new_file(out, force)}
    digits, entries = len(str(len(archive) - 1)), archive.header.images
    names = (entries[index].name or f"{index:0{digits}}" for index in indices)
    return dict(zip(indices, new_files(out, names, ".png", force), strict=True))
