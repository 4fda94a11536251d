"""`smalti compress`, `smalti decompress`, and what `smalti info` says of a .smalti file."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from smalti.errors import SmaltiError

if TYPE_CHECKING:
    from smalti.codec import Archive
    from smalti.codec.pictures import Picture

SUFFIX = ".smalti"


def compress(
    run: str,
    images: list[str],
    *,
    out: str,
    coder: Literal["auto", "fixed", "histogram", "adaptive", "prior"] = "auto",
    lossless: bool = False,
    alpha: Literal["keep", "drop", "refuse"] = "keep",
    depth: int | None = None,
    images_per_chunk: int | None = None,
    names: bool = True,
    report: bool = False,
    force: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """Compress images of any size into one small file.

    Args:
        run: the folder of a model with a codebook, or of a prior, which compresses better and slower.
        images: files, or folders of images.
        out: the file, NAME.smalti.
        coder: of the codes: fixed length, histogram, adaptive (learns as it goes), prior, or auto: the prior if RUN is
            one, otherwise adaptive.
        lossless: store what restores every pixel too.
        alpha: keep transparency, drop it (on white), or refuse transparent images.
        depth: codes at a position to keep, of a residual quantizer: quality against size; by default all.
        images_per_chunk: images coded together; fewer are found faster in the file, more take less.
        names: store the names of several images.
        report: compare the coders.
        force: overwrite the file.
        device: cpu, cuda, ...
    """
    from smalti.apps.imagefiles import ImageFiles
    from smalti.codec import Archive, Codec

    _refuse(Path(out), force)
    if not out.endswith(SUFFIX):
        raise SmaltiError(f"--out must end in {SUFFIX}, not {out!r}")
    model, prior = _open(run, None, device)
    chosen = None if coder == "auto" else coder
    codec = Codec(
        model,
        prior,
        coder=chosen,
        lossless=lossless,
        alpha=alpha,
        depth=depth,
        images_per_chunk=images_per_chunk,
        progress=True,
    )
    files = ImageFiles(images, model.config.preprocessing.channels)
    several = len(files.files) > 1

    def pictures(what: str) -> Iterator["Picture"]:
        found = files.each(what, lambda path: codec.picture(path, path.name))
        return (picture if names and several else picture._replace(name="") for _, picture in found)

    codec.compress_to(out, pictures("compressing"))
    with Archive.open(out) as archive:
        result = {"written": out, **_sizes(archive), "bad_images": files.bad}
    if report:
        result["bytes_of_codes"] = codec.sizes(pictures("comparing"))
    return result


def decompress(
    file: str,
    *,
    out: str,
    model: str | None = None,
    prior: str | None = None,
    only: str = "",
    force: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """Turn a file of `smalti compress` back into PNG pictures of the original sizes.

    Args:
        file: NAME.smalti.
        out: a folder for the pictures, or NAME.png for a file with one image.
        model: the folder of the model that made the file; by default looked for beside the file and among those that
            were used on this machine.
        prior: the folder of its prior, if it has one; looked for likewise.
        only: numbers of images, from 0, with commas; by default all.
        force: overwrite pictures.
        device: cpu, cuda, ...
    """
    from smalti.codec import Archive, Codec
    from smalti.codec.finding import find_model
    from smalti.files import atomic_path

    path = Path(file)
    with Archive.open(path) as archive:
        header = archive.header
        where = find_model(header.prior_hash, prior, path, "prior") if header.prior_hash else None
        tokenizer, code_model = _open(find_model(header.model_hash, model, path, "model"), where, device)
        codec = Codec(tokenizer, code_model, progress=True)
        codec.check(header)
        targets = _targets(archive, Path(out), _numbers(only, len(archive)))
        for target in targets.values():
            _refuse(target, force)
        for index, image in codec.images(archive, targets):
            with atomic_path(targets[index]) as temporary:
                image.save(temporary)
        return {
            "written": [str(target) for target in targets.values()],
            "model": where or str(model or ""),
            "coder": header.coder,
        }


def describe(path: Path) -> dict[str, Any]:
    """What a .smalti file holds, read from its header alone."""
    from smalti.codec import Archive

    with Archive.open(path) as archive:
        header = archive.header
        sizes = {(entry.width, entry.height) for entry in header.images}
        return {
            "file": str(path),
            **_sizes(archive),
            "sizes": [f"{width}x{height}" for width, height in sorted(sizes)[:12]],
            "kinds": sorted({entry.mode for entry in header.images}),
            "names": [entry.name for entry in header.images[:12] if entry.name],
            "lossless": header.lossless,
            "codebook_size": header.codebook_size,
            "codes_at_a_position": header.depth,
            "pixels_per_code": header.stride,
            "num_chunks": len(archive.chunks),
            "model_hash": header.model_hash,
            "prior_hash": header.prior_hash,
        }


def _sizes(archive: "Archive") -> dict[str, Any]:
    """How large a file is, and where its bytes went."""
    parts = archive.parts()
    pixels = sum(entry.height * entry.width for entry in archive.header.images)
    return {
        "num_images": len(archive),
        "coder": archive.header.coder,
        "num_bytes": sum(parts.values()),
        "bits_per_pixel": sum(parts.values()) * 8 / pixels,
        "bytes": parts,
    }


def _open(run: str, prior: str | None, device: str) -> tuple[Any, Any]:
    """The autoencoder and, if there is one, the prior of a run, remembered for `decompress`."""
    from smalti.apps.verbs import what_is
    from smalti.codec.finding import remember
    from smalti.models.autoencoder import Autoencoder
    from smalti.priors.code_model import CodeModel

    code_model = None
    if prior is not None or what_is(run) == "prior":
        place = prior or run
        code_model = CodeModel.from_pretrained(place, device=device)
        if code_model.config.pixels:
            raise SmaltiError(
                f"{place} models pixels, not the codes of a tokenizer; give a prior of a tokenizer's codes"
            )
        run = run if prior is not None else code_model.config.tokenizer
        remember(code_model.source_hash, place)
    model = Autoencoder.from_pretrained(run, device=device)
    remember(model.source_hash, run)
    return model, code_model


def _refuse(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise SmaltiError(f"{path} exists; --force overwrites it")


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


def _targets(archive: Any, out: Path, indices: list[int]) -> dict[int, Path]:
    """Where each image goes: by its name, else by its number."""
    from smalti.apps.imagefiles import unused

    if out.suffix.lower() == ".png":
        if len(indices) != 1:
            raise SmaltiError(f"{out} is one picture and the file has {len(indices)}; give a folder, or --only")
        return {indices[0]: out}
    targets: dict[int, Path] = {}
    for index in indices:
        name = Path(archive.header.images[index].name).name or f"{index:0{len(str(len(archive) - 1))}}"
        targets[index] = unused(out / f"{Path(name).stem}.png", [str(target) for target in targets.values()])
    return targets
