"""The verb `compress`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from smalti.apps.runs import open_models
from smalti.errors import SmaltiError

if TYPE_CHECKING:
    from smalti.codec import Archive
    from smalti.codec.images import Picture

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
        run: the folder of a model with a codebook, or of a prior, which is slower and makes smaller files.
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

    refuse_to_overwrite(Path(out), force)
    if not out.endswith(SUFFIX):
        raise SmaltiError(f"--out must end in {SUFFIX}, not {out!r}")
    model, prior = open_models(run, None, device)
    options: dict[str, Any] = {"alpha": alpha, "depth": depth, "images_per_chunk": images_per_chunk}
    codec = Codec(model, prior, coder=None if coder == "auto" else coder, lossless=lossless, progress=True, **options)
    files = ImageFiles(images, model.config.preprocessing.reading)
    named = names and len(files.files) > 1

    def pictures(what: str) -> Iterator["Picture"]:
        found = files.each(what, lambda path: codec.picture(path, path.name if named else "", files.remarks))
        return (picture for _, picture in found)

    codec.compress_to(out, pictures("compressing"))
    with Archive.open(out) as archive:
        result = {"written": out, **sizes_of(archive), "bad_images": files.bad}
    if report:
        result["bytes_of_codes"] = codec.sizes(pictures("comparing"))
    return result


def sizes_of(archive: "Archive") -> dict[str, Any]:
    """How large a file is, and which part takes how much of it."""
    parts = archive.parts()
    pixels = sum(entry.height * entry.width for entry in archive.header.images)
    return {
        "num_images": len(archive),
        "coder": archive.header.coder,
        "num_bytes": sum(parts.values()),
        "bits_per_pixel": sum(parts.values()) * 8 / pixels,
        "bytes": parts,
    }


def refuse_to_overwrite(path: Path, force: bool) -> None:
    """Raise where a file is in the way."""
    if path.exists() and not force:
        raise SmaltiError(f"{path} exists; --force overwrites it")
