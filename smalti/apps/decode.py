"""The verb `decode`."""

from pathlib import Path
from typing import Any

from smalti.errors import SmaltiError
from smalti.files import atomic_path


def decode(run: str, file: str, *, out: str, force: bool = False, device: str = "cpu") -> dict[str, Any]:
    """Decode the codes or latents of `smalti encode` to PNG pictures of the original sizes.

    Args:
        run: the folder of the model that made them.
        file: of codes or latents, *.npz or *.parquet.
        out: the folder for the pictures.
        force: overwrite pictures.
        device: cpu, cuda, ...
    """
    from smalti.apps.encodedfile import read_encoded
    from smalti.apps.imagefiles import IMAGES_IN_CHUNK, progress_bar
    from smalti.apps.outfiles import new_files
    from smalti.images.reading import to_pil
    from smalti.models.autoencoder import Autoencoder, Encoded, EncodedLatents

    model = Autoencoder.from_pretrained(run, device=device)
    encoded = read_encoded(Path(file), model.source_hash)
    if encoded.pool != "none":
        raise SmaltiError(f"{file} holds pooled latents, which cannot be decoded; encode again without --pool")
    pairs = list(zip(encoded.values, encoded.sizes, strict=True))
    targets = new_files(out, encoded.names, ".png", force)
    for start in progress_bar(range(0, len(pairs), IMAGES_IN_CHUNK), "decoding"):
        part = pairs[start : start + IMAGES_IN_CHUNK]
        if encoded.kind == "codes":
            images = model.decode_many([Encoded(*pair) for pair in part])
        else:
            images = model.decode_latents_many([EncodedLatents(*pair) for pair in part])
        for target, image in zip(targets[start:], images, strict=False):
            with atomic_path(target) as temporary:
                to_pil(image)[0].save(temporary)
    return {"written": [*map(str, targets)]}
