"""The verb `decode`."""

from pathlib import Path
from typing import Any

from smalti.errors import SmaltiError


def decode(run: str, file: str, *, out: str, device: str = "cpu") -> dict[str, Any]:
    """Decode the codes or latents of `smalti encode` to pictures of the original sizes.

    They are PNG files, or arrays, .npy, of a model of other channels than grey and colour.

    Args:
        run: the folder of the model that made them.
        file: of codes or latents, *.npz or *.parquet.
        out: the folder for the pictures.
        device: cpu, cuda, ...
    """
    from smalti.apps.encodedfile import read_encoded
    from smalti.apps.imagefiles import IMAGES_IN_CHUNK, progress_bar, suffix_for, unused, write_image
    from smalti.models.autoencoder import Autoencoder, Encoded, EncodedLatents

    model = Autoencoder.from_pretrained(run, device=device)
    encoded = read_encoded(Path(file), model.source_hash)
    if encoded.pool != "none":
        raise SmaltiError(f"{file} holds pooled latents, which cannot be decoded; encode again without --pool")
    preprocessing = model.config.preprocessing
    pairs = list(zip(encoded.values, encoded.sizes, strict=True))
    written: list[str] = []
    for start in progress_bar(range(0, len(pairs), IMAGES_IN_CHUNK), "decoding"):
        part = pairs[start : start + IMAGES_IN_CHUNK]
        if encoded.kind == "codes":
            images = model.decode_many([Encoded(*pair) for pair in part])
        else:
            images = model.decode_latents_many([EncodedLatents(*pair) for pair in part])
        for name, image in zip(encoded.names[start:], images, strict=False):
            target = unused(Path(out) / f"{Path(name).stem}{suffix_for(preprocessing)}", written)
            write_image(image, target, preprocessing)
            written.append(str(target))
    return {"written": written}
