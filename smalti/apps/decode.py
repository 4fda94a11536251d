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
        file: of codes or latents, *.npz, *.parquet, *.npy or *.jsonl.
        out: the folder for the pictures.
        force: overwrite pictures.
        device: cpu, cuda, ...
        most_pixels: of an image: it decides the memory that a file takes; by default 200 million.
    """
    from smalti.apps.encodedfile import read_encoded
    from smalti.apps.encodedrecord import check_fits
    from smalti.apps.imagefiles import chunks_of, progress_bar, suffix_for, write_image
    from smalti.apps.outfiles import new_files
    from smalti.models.autoencoder import Autoencoder, Encoded, EncodedLatents

    model = Autoencoder.from_pretrained(run, device=device)
    encoded = read_encoded(Path(file), model.source_hash)
    with one_line(file, f"{file} cannot be decoded"):
        check_fits(encoded, model, most_pixels)
    preprocessing = model.config.preprocessing
    targets = new_files(out, encoded.names, suffix_for(preprocessing), force)
    for chunk in progress_bar(chunks_of(encoded.sizes), "decoding"):
        part = [(encoded.values[index], encoded.sizes[index]) for index in chunk]
        if encoded.kind == "codes":
            images = model.decode_many([Encoded(*pair) for pair in part])
        else:
            images = model.decode_latents_many([EncodedLatents(*pair) for pair in part])
        for index, image in zip(chunk, images, strict=True):
            write_image(image, targets[index], preprocessing)
    return {"written": [*map(str, targets)]}
