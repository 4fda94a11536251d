"""The verb `compress`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from smalti.apps.outfiles import new_file
from smalti.apps.runs import open_models
from smalti.bundled import place_of

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
    no_verify: bool = False,
    report: bool = False,
    force: bool = False,
    tokenizer: str | None = None,
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
        no_verify: do not read back what was written, chunk by chunk; otherwise codes that a prior might not give again
            on every machine are coded by the adaptive coder instead.
        report: compare the coders.
        force: overwrite the file.
        tokenizer: of a prior: where its tokenizer is now; by default where the prior says.
        device: cpu, cuda, ...
    """
    from smalti.apps.imagefiles import ImageFiles
    from smalti.codec import Archive, Codec
    from smalti.images.folders import storable

    new_file(out, force, SUFFIX)
    model, prior = open_models(place_of(run, "prior" if coder == "prior" else "autoencoder"), None, device, tokenizer)
    options: dict[str, Any] = {"alpha": alpha, "depth": depth, "images_per_chunk": images_per_chunk}
    options |= {"coder": None if coder == "auto" else coder, "lossless": lossless, "verify": not no_verify}
    codec = Codec(model, prior, progress=True, **options)
    files = ImageFiles(images, model.config.preprocessing.reading)
    named = names and len(files.files) > 1

    def pictures(what: str) -> Iterator["Picture"]:
        found = files.each(what, lambda path: codec.picture(path, storable(path.name) if named else "", files.remarks))
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
    pixels = sum(entry.num_pixels * count for entry, count in archive.kinds().items())
    return {
        "num_images": len(archive),
        "coder": ", ".join(sorted({*archive.header.chunk_coders} or {archive.header.coder})),
        "num_bytes": sum(parts.values()),
        "bits_per_pixel": sum(parts.values()) * 8 / pixels,
        "bytes": parts,
    }
