"""The verb `decode`."""

from pathlib import Path
from typing import Any

from smalti.errors import one_line


def decode(
    run: str, file: str, *, out: str, force: bool = False, device: str = "cpu", most_pixels: int | None = None
) -> dict[str, Any]:
    """Decode the codes or latents of `smalti encode` to pictures of the original sizes.

    They are PNG files, or arrays, .npy, of a model of other channels than grey and colour.

    Args:
        run: the folder of the model that made them.
        file: of codes or latents, *.npz or *.parquet.
        out: the folder for the pictures.
        force: overwrite pictures.
        device: cpu, cuda, ...
        most_pixels: of an image: it decides the memory that a file takes; by default 200 million.
    """
    from smalti.apps.encodedfile import check_fits, read_encoded
    from smalti.apps.imagefiles import IMAGES_IN_CHUNK, progress_bar, suffix_for, write_image
    from smalti.apps.outfiles import new_files
    from smalti.models.autoencoder import Autoencoder, Encoded, EncodedLatents

    model = Autoencoder.from_pretrained(run, device=device)
    encoded = read_encoded(Path(file), model.source_hash)
    with one_line(file, f"{file} cannot be decoded"):
        check_fits(encoded, model, most_pixels)
    preprocessing = model.config.preprocessing
    targets = new_files(out, encoded.names, suffix_for(preprocessing), force)
    for start in progress_bar(range(0, len(encoded.names), IMAGES_IN_CHUNK), "decoding"):
        chunk = slice(start, start + IMAGES_IN_CHUNK)
        part = list(zip(encoded.values[chunk], encoded.sizes[chunk], strict=True))
        if encoded.kind == "codes":
            images = model.decode_many([Encoded(*pair) for pair in part])
        else:
            images = model.decode_latents_many([EncodedLatents(*pair) for pair in part])
        for target, image in zip(targets[start:], images, strict=False):
            write_image(image, target, preprocessing)
    return {"written": [*map(str, targets)]}
